/* SPDX-License-Identifier: Apache-2.0 */
/* The ledger's file: opening, locking, migration, damage, a full disk; and its rules. */
/* clang-format off */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sqlite3.h>

#include "coordinator/ledger/ledger.h"
#include "coordinator/ledger/schema.h"
#include "proto/base/buf.h"
#include "proto/base/file.h"
#include "tests/unit/temp_dir.h"

#define S(text) ((char *)(uintptr_t)(text))

static struct temp_dir dir;
static char *path;

static int set_up(void **state)
{
    (void)state;
    temp_dir_make(&dir);
    path = xasprintf("%s/ledger.db", dir.path);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    temp_dir_remove(&dir);
    free(path);
    return 0;
}

static struct ledger *open_it(void)
{
    struct err err = ERR_INIT;
    struct ledger *l = ledger_open(path, &err);
    if (!l)
        fail_msg("%s", err.message);
    return l;
}

static void add_request(struct ledger *l, const char *id)
{
    struct err err = ERR_INIT;
    SCOPED_REQUEST struct request r = {
        .id = xstrdup(id), .kind = xstrdup("backup"), .created_ms = 5, .progress = true};
    if (!ledger_request_add(l, &r, "{}", &err))
        fail_msg("%s", err.message);
}

static bool add_task(struct ledger *l, const char *id, const char *request, const char *vm,
                     enum task_state state, struct err *err)
{
    SCOPED_TASK struct task t = {.id = xstrdup(id),
                                 .request = xstrdup(request),
                                 .kind = xstrdup("backup"),
                                 .zone = xstrdup("dc1"),
                                 .lane = xstrdup("backup"),
                                 .vm = xstrdup_or_null(vm),
                                 .role = TASK_MAIN,
                                 .state = state,
                                 .attempt = 1,
                                 .input = xstrdup("{}")};
    return ledger_task_add(l, &t, err);
}

static void rows_survive_closing(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct ledger *l = open_it();
    assert_true(ledger_begin(l, &err));
    add_request(l, "r1");
    assert_true(add_task(l, "t1", "r1", "vm1", TASK_RUNNING, &err));
    assert_true(ledger_commit(l, &err));
    assert_true(ledger_begin(l, &err));
    add_request(l, "r2");
    ledger_close(l); /* not committed */
    l = open_it();
    SCOPED_REQUEST struct request r1 = {0}, r2 = {0};
    SCOPED_TASK struct task t1 = {0};
    assert_true(ledger_request_get(l, "r1", &r1, &err) && ledger_request_get(l, "r2", &r2, &err) &&
                ledger_task_get(l, "t1", &t1, &err));
    assert_string_equal(r1.kind, "backup");
    assert_true(r1.progress);
    assert_int_equal(r1.created_ms, 5);
    assert_null(r1.message_id);
    assert_null(r2.id);
    assert_int_equal(t1.state, TASK_RUNNING);
    assert_string_equal(t1.vm, "vm1");
    ledger_close(l);
}

static void a_second_coordinator_is_kept_out(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct ledger *l = open_it();
    assert_null(ledger_open(path, &err));
    assert_int_equal(err.code, ERR_CONFLICT);
    assert_non_null(strstr(err.message, "another coordinator"));
    ledger_close(l);
    l = open_it();
    ledger_close(l);
}

static void one_message_can_be_dropped_from_a_batch(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct ledger *l = open_it();
    assert_true(ledger_begin(l, &err));
    assert_true(ledger_mark(l, &err));
    add_request(l, "r1");
    assert_true(ledger_mark_keep(l, &err));
    assert_true(ledger_mark(l, &err));
    add_request(l, "r2");
    assert_true(ledger_mark_drop(l, &err));
    assert_true(ledger_commit(l, &err));
    struct request_list list;
    assert_true(ledger_request_newest(l, 10, &list, &err));
    assert_int_equal(list.count, 1);
    request_list_done(&list);
    ledger_close(l);
}

static void two_active_tasks_of_one_vm_are_impossible(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct ledger *l = open_it();
    add_request(l, "r1");
    add_request(l, "r2");
    assert_true(add_task(l, "t1", "r1", "vm1", TASK_OFFERED, &err));
    assert_true(add_task(l, "t2", "r2", "vm1", TASK_WAITING, &err));
    SCOPED_TASK struct task t2 = {0};
    assert_true(ledger_task_get(l, "t2", &t2, &err));
    t2.state = TASK_RUNNING;
    assert_false(ledger_task_save(l, &t2, &err));
    assert_int_equal(err.code, ERR_INTERNAL);
    assert_false(ledger_is_broken(l)); /* a bug in us, not a fault of the file */
    err_clear(&err);
    assert_true(add_task(l, "t3", "r1", NULL, TASK_RUNNING, &err));
    assert_true(add_task(l, "t4", "r1", NULL, TASK_RUNNING, &err));
    ledger_close(l);
}

static void fences_only_rise(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct ledger *l = open_it();
    int64_t fence, other;
    for (int64_t i = 1; i <= 3; i++) {
        assert_true(ledger_fence_next(l, "vm1", &fence, &err));
        assert_int_equal(fence, i);
        ledger_close(l);
        l = open_it();
    }
    assert_true(ledger_fence_next(l, "vm2", &other, &err));
    assert_int_equal(other, 1);
    ledger_close(l);
}

static void reply_queues_are_bounded(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct ledger *l = open_it();
    add_request(l, "r1");
    for (int i = 0; i < 40; i++) {
        char queue[16];
        snprintf(queue, sizeof queue, "q%d", i % 30);
        assert_true(ledger_reply_to_add(l, "r1", queue, "c", &err));
    }
    struct reply_to_list list;
    assert_true(ledger_reply_to_list(l, "r1", &list, &err));
    assert_int_equal(list.count, LEDGER_REPLY_TO_MAX);
    reply_to_list_done(&list);
    ledger_close(l);
}

static int64_t put(struct ledger *l)
{
    struct err err = ERR_INIT;
    struct outgoing m = {.exchange = S(""),
                         .routing_key = S("q"),
                         .type = S("oxbow.accepted.v1"),
                         .message_id = S("m"),
                         .body = S("{}")};
    assert_true(ledger_outbox_add(l, &m, &err));
    return m.n;
}

static void outbox_numbers_are_never_used_twice(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct ledger *l = open_it();
    int64_t first = put(l);
    assert_true(ledger_outbox_delete(l, first, &err));
    ledger_close(l);
    l = open_it();
    assert_true(put(l) > first);
    ledger_close(l);
}

static void old_requests_are_forgotten_but_not_with_a_cleanup(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct ledger *l = open_it();
    for (int i = 1; i <= 3; i++) {
        char id[16], task[16];
        snprintf(id, sizeof id, "r%d", i);
        snprintf(task, sizeof task, "t%d", i);
        add_request(l, id);
        assert_true(add_task(l, task, id, NULL, i == 2 ? TASK_WAITING : TASK_FAILED, &err));
        assert_true(ledger_leftover_add(l, task, "snapshot", "vm", "s", &err));
        SCOPED_REQUEST struct request r = {0};
        assert_true(ledger_request_get(l, id, &r, &err));
        r.state = REQUEST_FAILED;
        r.finished_ms = i == 3 ? 2000 : 1000;
        assert_true(ledger_request_save(l, &r, &err));
    }
    int64_t count = 0, left = 0;
    assert_true(ledger_request_prune(l, 1500, 1500, 10, &count, &err));
    assert_int_equal(count, 1);
    SCOPED_TASK struct task gone = {0};
    assert_true(ledger_task_get(l, "t1", &gone, &err));
    assert_null(gone.id);
    assert_true(ledger_leftover_count(l, "t1", &left, &err));
    assert_int_equal(left, 0);
    ledger_close(l);
}

/* --- The file --- */
static void run_sql_file(const char *name)
{
    struct err err = ERR_INIT;
    SCOPED_FREE char *fixture = xasprintf("%s/tests/fixtures/%s", getenv("OXBOW_SOURCE_DIR"), name);
    SCOPED_BUF struct buf sql;
    assert_true(file_read_all(AT_FDCWD, fixture, 1 << 20, &sql, &err));
    struct db *db = db_open(path, &err);
    assert_non_null(db);
    if (!db_script(db, buf_str(&sql), &err))
        fail_msg("%s", err.message);
    db_close(db);
}

static void an_older_ledger_is_migrated(void **state)
{
    (void)state;
    run_sql_file("ledger-v1.sql");
    struct err err = ERR_INIT;
    struct ledger *l = open_it();
    SCOPED_TASK struct task t = {0};
    assert_true(ledger_task_get(l, "b0000000-0000-4000-8000-000000000002", &t, &err));
    assert_string_equal(t.vm_name, "web1");
    assert_int_equal(t.state, TASK_RUNNING);
    assert_int_equal(t.fence, 7);
    assert_null(t.avoid);
    int64_t fence;
    assert_true(ledger_fence_next(l, "11111111-2222-4333-8444-555555555555", &fence, &err));
    assert_int_equal(fence, 8);
    text_set(&t.avoid, "w1");
    t.avoided = 2;
    assert_true(ledger_task_save(l, &t, &err));
    ledger_close(l);
    l = open_it(); /* and is not migrated twice */
    ledger_close(l);
}

/* What the table steps make is what is out there. */
static void check_fixture(int64_t version, const char *fixture)
{
    struct err err = ERR_INIT;
    struct db *db = db_open(path, &err);
    assert_true(schema_prepare_to(db, path, version, &err));
    SCOPED_FREE char *other = xasprintf("%s/fixture.db", dir.path);
    char *saved = path;
    path = other;
    run_sql_file(fixture);
    path = saved;
    SCOPED_FREE char *attach = xasprintf("ATTACH '%s' AS f", other);
    assert_true(db_script(db, attach, &err));
    int64_t missing = -1;
    assert_true(db_get_int(db,
                           "SELECT count(*) FROM main.sqlite_schema m WHERE sql IS NOT NULL"
                           " AND NOT EXISTS (SELECT 1 FROM f.sqlite_schema o WHERE o.sql = m.sql)",
                           DB_NO_ARGS, &missing, &err));
    assert_int_equal(missing, 0);
    db_close(db);
}

static void the_fixture_is_what_version_1_made(void **state)
{
    (void)state;
    check_fixture(1, "ledger-v1.sql");
}

static void the_fixture_is_what_version_2_made(void **state)
{
    (void)state;
    check_fixture(2, "ledger-v2.sql");
}

static void the_fixture_is_what_version_3_made(void **state)
{
    (void)state;
    check_fixture(3, "ledger-v3.sql");
}

static void the_fixture_is_what_version_4_made(void **state)
{
    (void)state;
    check_fixture(4, "ledger-v4.sql");
}

static bool add_part(struct ledger *l, int64_t n, int64_t fence, enum task_state part_state,
                     const char *id, struct err *err)
{
    SCOPED_TASK struct task t = {.id = xstrdup(id),
                                 .request = xstrdup("a0000000-0000-4000-8000-000000000001"),
                                 .kind = xstrdup("backup-part"),
                                 .zone = xstrdup("dc1"),
                                 .lane = xstrdup("backup"),
                                 .vm = xstrdup("11111111-2222-4333-8444-555555555555"),
                                 .role = TASK_PART,
                                 .state = part_state,
                                 .attempt = 1,
                                 .part_of = xstrdup("b0000000-0000-4000-8000-000000000002"),
                                 .part_fence = fence,
                                 .part_n = n,
                                 .input = xstrdup("{}")};
    return ledger_task_add(l, &t, err);
}

static void a_ledger_of_version_4_is_migrated(void **state)
{
    (void)state;
    run_sql_file("ledger-v4.sql");
    struct err err = ERR_INIT;
    struct ledger *l = open_it();
    SCOPED_TASK struct task t = {0}, none = {0}, part = {0};
    assert_true(ledger_task_get(l, "b0000000-0000-4000-8000-000000000002", &t, &err));
    assert_int_equal(t.state, TASK_RUNNING);
    assert_null(t.part_of);
    assert_int_equal(t.part_n, 0);
    /* It runs, and so may its parts, on the same VM; another task may not. */
    assert_true(add_part(l, 1, 7, TASK_RUNNING, "p1", &err));
    assert_true(add_part(l, 2, 7, TASK_WAITING, "p2", &err));
    assert_true(ledger_task_part(l, t.id, 7, 2, &part, &err));
    assert_string_equal(part.id, "p2");
    assert_true(ledger_task_part(l, t.id, 6, 2, &none, &err));
    assert_null(none.id);
    bool open = false;
    assert_true(ledger_task_has_open_part(l, t.id, &open, &err) && open);
    assert_true(ledger_task_has_open_part(l, "p1", &open, &err) && !open);
    assert_false(add_part(l, 1, 8, TASK_OFFERED, "p3", &err));
    assert_int_equal(err.code, ERR_INTERNAL);
    err_clear(&err);
    assert_false(add_part(l, 2, 7, TASK_CANCELLED, "p4", &err)); /* known already */
    err_clear(&err);
    assert_false(add_task(l, "t9", t.request, t.vm, TASK_OFFERED, &err));
    assert_int_equal(err.code, ERR_INTERNAL);
    ledger_close(l);
}

static void a_ledger_of_version_3_is_migrated(void **state)
{
    (void)state;
    run_sql_file("ledger-v3.sql");
    struct err err = ERR_INIT;
    struct ledger *l = open_it();
    SCOPED_SWEEP struct sweep sweep = {0};
    assert_true(ledger_sweep_get(l, "dc1", &sweep, &err));
    assert_int_equal(sweep.foreign_things, 2);
    assert_int_equal(sweep.transfers, 0);
    sweep.transfers = 7;
    assert_true(ledger_sweep_save(l, &sweep, &err));
    SCOPED_SWEEP struct sweep saved = {0};
    assert_true(ledger_sweep_get(l, "dc1", &saved, &err));
    assert_int_equal(saved.transfers, 7);
    SCOPED_RATES struct rate_list none = {0};
    assert_true(ledger_rate_list(l, "dc1", &none, &err));
    assert_int_equal(none.count, 0);
    SCOPED_RATE struct rate rate = {
        .zone = xstrdup("dc1"), .path = xstrdup("attach"), .bytes_per_s = 7, .samples = 1};
    assert_true(ledger_rate_save(l, &rate, &err));
    rate.samples = 2;
    assert_true(ledger_rate_save(l, &rate, &err));
    SCOPED_RATE struct rate back = {0}, other = {0};
    assert_true(ledger_rate_get(l, "dc1", "attach", &back, &err));
    assert_int_equal(back.samples, 2);
    assert_true(ledger_rate_get(l, "dc2", "attach", &other, &err));
    assert_null(other.zone);
    ledger_close(l);
}

static void a_ledger_of_version_2_is_migrated(void **state)
{
    (void)state;
    run_sql_file("ledger-v2.sql");
    struct err err = ERR_INIT;
    struct ledger *l = open_it();
    SCOPED_TASK struct task t = {0};
    assert_true(ledger_task_get(l, "b0000000-0000-4000-8000-000000000002", &t, &err));
    assert_string_equal(t.avoid, "w2");
    assert_int_equal(t.stop_ms, 0);
    SCOPED_REQUEST struct request r = {0};
    assert_true(ledger_request_get(l, t.request, &r, &err));
    assert_false(r.internal);
    struct attempt_list list;
    assert_true(ledger_attempt_list(l, t.id, &list, &err));
    assert_int_equal(list.count, 1);
    assert_null(list.v[0].step);
    attempt_list_done(&list);
    SCOPED_SWEEP struct sweep sweep = {.zone = xstrdup("dc1"), .at_ms = 5, .snapshots = 3};
    assert_true(ledger_sweep_save(l, &sweep, &err));
    sweep.snapshots = 4;
    assert_true(ledger_sweep_save(l, &sweep, &err));
    SCOPED_SWEEP struct sweep back = {0};
    assert_true(ledger_sweep_get(l, "dc1", &back, &err));
    assert_int_equal(back.snapshots, 4);
    ledger_close(l);
}

static enum err_code open_code(struct err *err)
{
    err_clear(err);
    struct ledger *l = ledger_open(path, err);
    assert_null(l);
    return err->code;
}

static void what_is_no_ledger_of_ours_is_refused(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct db *db = db_open(path, &err);
    assert_true(db_script(db, "CREATE TABLE t(x); PRAGMA user_version = 1", &err));
    db_close(db);
    assert_int_equal(open_code(&err), ERR_STORE_CORRUPT);
    assert_non_null(strstr(err.message, "not a ledger"));
}

static void a_newer_ledger_is_refused(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    ledger_close(open_it());
    struct db *db = db_open(path, &err);
    assert_true(db_script(db, "PRAGMA user_version = 99", &err));
    db_close(db);
    assert_int_equal(open_code(&err), ERR_UNSUPPORTED_VERSION);
}

static void a_text_file_is_refused(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    static char text[4096];
    memset(text, 'x', sizeof text);
    assert_true(file_write_atomic(AT_FDCWD, path, text, sizeof text, 0600, &err));
    assert_int_equal(open_code(&err), ERR_STORE_CORRUPT);
}

static void damage_is_noticed(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct ledger *l = open_it();
    assert_true(ledger_begin(l, &err));
    for (int i = 0; i < 500; i++) {
        char id[16];
        snprintf(id, sizeof id, "r%d", i);
        add_request(l, id);
    }
    assert_true(ledger_commit(l, &err));
    ledger_close(l); /* checkpoints */
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    int fd = open(path, O_RDWR);
    char noise[4096];
    memset(noise, 0xa5, sizeof noise);
    for (off_t at = 4096; at + 4096 <= st.st_size; at += 2 * 4096)
        assert_int_equal(pwrite(fd, noise, sizeof noise, at), sizeof noise);
    close(fd);
    assert_int_equal(open_code(&err), ERR_STORE_CORRUPT);
}

static void a_missing_folder_is_named(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    assert_null(ledger_open("/nonexistent/folder/ledger.db", &err));
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_non_null(strstr(err.message, "/nonexistent/folder"));
}

/* A full disk, through SQLite's own door for tests. */
static bool disk_is_full;

static ssize_t full_pwrite(int fd, const void *data, size_t len, off_t offset)
{
    if (!disk_is_full)
        return pwrite(fd, data, len, offset);
    errno = ENOSPC;
    return -1;
}

/* What was committed before the disk was full is there afterwards, what was not is not, and the
 * error says so. */
static void a_full_disk_loses_nothing(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    sqlite3_vfs *vfs = sqlite3_vfs_find(NULL);
    for (int i = 0; i < 2; i++)
        (void)vfs->xSetSystemCall(vfs, i ? "pwrite" : "pwrite64", (sqlite3_syscall_ptr)full_pwrite);
    struct ledger *l = open_it();
    add_request(l, "r1");
    assert_true(ledger_begin(l, &err));
    add_request(l, "r2");
    disk_is_full = true;
    assert_false(ledger_commit(l, &err));
    assert_int_equal(err.code, ERR_NO_SPACE);
    assert_non_null(strstr(err.message, "make room"));
    assert_true(ledger_is_broken(l));
    err_clear(&err);
    ledger_rollback(l);
    ledger_close(l);
    disk_is_full = false;
    for (int i = 0; i < 2; i++)
        (void)vfs->xSetSystemCall(vfs, i ? "pwrite" : "pwrite64", NULL);
    l = open_it();
    struct request_list list;
    assert_true(ledger_request_newest(l, 10, &list, &err));
    assert_int_equal(list.count, 1);
    assert_string_equal(list.v[0].id, "r1");
    request_list_done(&list);
    ledger_close(l);
}

static void times_far_ahead_are_pulled_back(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct ledger *l = open_it();
    add_request(l, "r1");
    assert_true(add_task(l, "t1", "r1", NULL, TASK_WAITING, &err));
    SCOPED_TASK struct task t = {0};
    assert_true(ledger_task_get(l, "t1", &t, &err));
    t.not_before_ms = 9000000;
    t.deadline_s = 10;
    t.deadline_ms = 9000000;
    assert_true(ledger_task_save(l, &t, &err));
    assert_true(ledger_clamp_times(l, 1000, 500, &err));
    task_done(&t);
    assert_true(ledger_task_get(l, "t1", &t, &err));
    assert_int_equal(t.not_before_ms, 1500);
    assert_int_equal(t.deadline_ms, 11000);
    ledger_close(l);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(rows_survive_closing),
        TEST(a_second_coordinator_is_kept_out),
        TEST(one_message_can_be_dropped_from_a_batch),
        TEST(two_active_tasks_of_one_vm_are_impossible),
        TEST(fences_only_rise),
        TEST(reply_queues_are_bounded),
        TEST(outbox_numbers_are_never_used_twice),
        TEST(old_requests_are_forgotten_but_not_with_a_cleanup),
        TEST(an_older_ledger_is_migrated),
        TEST(the_fixture_is_what_version_1_made),
        TEST(the_fixture_is_what_version_2_made),
        TEST(the_fixture_is_what_version_3_made),
        TEST(the_fixture_is_what_version_4_made),
        TEST(a_ledger_of_version_4_is_migrated),
        TEST(a_ledger_of_version_3_is_migrated),
        TEST(a_ledger_of_version_2_is_migrated),
        TEST(what_is_no_ledger_of_ours_is_refused),
        TEST(a_newer_ledger_is_refused),
        TEST(a_text_file_is_refused),
        TEST(damage_is_noticed),
        TEST(a_missing_folder_is_named),
        TEST(a_full_disk_loses_nothing),
        TEST(times_far_ahead_are_pulled_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
