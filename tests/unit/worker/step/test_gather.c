/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The end of a shared backup on a real repository: whatever other workers have done, have not done,
 * or say they have done, the restore point has every byte of the disk, and what is known to be
 * there is not read again.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "proto/base/file.h"
#include "tests/unit/temp_dir.h"
#include "tests/unit/worker/fake_run.h"
#include "worker/ovirt/engine.h"
#include "worker/step/backup_copy.h"
#include "worker/store/upkeep.h"

#define DISK      "44444444-2222-4333-8444-555555555555"
#define SNAPSHOT  "33333333-2222-4333-8444-555555555555"
#define PART_TASK "22222222-2222-4333-8444-555555555555"
#define OTHER     "99999999-2222-4333-8444-555555555555"

enum { MIB = 1 << 20, SIZE = 6 * MIB, OWN = 2 * MIB };

#define MUST(ok)                                                                                   \
    do {                                                                                           \
        if (!(ok))                                                                                 \
            fail_msg("%s", p->err.message);                                                        \
    } while (0)

struct place {
    struct fake_run fake; /* first */
    struct temp_dir dir;
    struct run_ops ops;
    struct store *store;
    uint8_t *data;
    char *device;
    struct ovirt_disk disk;
    struct backup *b;
    struct err err;
};

static bool never(void *ctx, struct wire_message *ret)
{
    (void)ctx;
    (void)ret;
    return false;
}

static void write_device(struct place *p)
{
    p->device = xasprintf("%s/device", p->dir.path);
    int fd = open(p->device, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    MUST(fd >= 0 && file_write_full(fd, p->data, SIZE, &p->err));
    close(fd);
}

/* A client of an engine that is away: nobody but the watch of free space asks it. */
static struct engine *no_engine(struct place *p)
{
    SCOPED_FREE char *password = xasprintf("%s/password", p->dir.path);
    int fd = open(password, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    MUST(fd >= 0 && file_write_full(fd, "secret\n", 7, &p->err));
    close(fd);
    struct engine_conf conf = {.url = "https://127.0.0.1:1/ovirt-engine",
                               .user = "u@internal",
                               .password_file = password,
                               .insecure = true,
                               .connect_timeout_ms = 1000,
                               .busy_min_ms = 50};
    struct engine *e = engine_new(&conf, &p->err);
    MUST(e);
    return e;
}

/* The main worker has copied the first OWN bytes; the rest was given away. */
static int setup(void **state)
{
    struct place *p = ALLOC_NEW(struct place);
    *state = p;
    temp_dir_make_in_memory(&p->dir);
    fake_run_init(&p->fake);
    p->ops = fake_ops;
    p->ops.take_parted = never;
    p->fake.run.ops = &p->ops;
    p->fake.run.engine = no_engine(p);
    p->fake.settings.disks_at_once = 1;
    p->fake.settings.copy_threads = 1;
    p->fake.settings.space_watch_s = 60;
    p->data = xmalloc(SIZE);
    uint64_t seed = 1;
    for (size_t i = 0; i < SIZE; i++) {
        seed = seed * UINT64_C(6364136223846793005) + 1;
        p->data[i] = (uint8_t)(seed >> 56);
    }
    write_device(p);
    SCOPED_FREE char *path = xasprintf("%s/repo", p->dir.path);
    p->store = store_init(path, &(struct store_opts){.pack_bytes = MIB}, &p->err);
    MUST(p->store);
    p->fake.run.store = p->store;
    static char id[] = DISK, vm[] = FAKE_VM, name[] = "web", dc[] = OTHER;
    p->disk = (struct ovirt_disk){.id = id};
    p->b = ALLOC_NEW(struct backup);
    struct backup *b = p->b;
    b->opts.workers = 2;
    b->vm = (struct ovirt_vm){.id = xstrdup(vm), .name = xstrdup(name)};
    b->site.datacenter_id = xstrdup(dc);
    b->plan = xcalloc(1, sizeof *b->plan);
    b->plan_count = 1;
    b->plan[0] = (struct backup_disk){
        .disk = &p->disk, .path = BACKUP_ATTACH, .size_bytes = SIZE, .device = xstrdup(p->device)};
    p->fake.run.state = b;
    struct store_session_opts opts = {.id = FAKE_TASK ".7", .vm_id = vm, .vm_name = name};
    b->session = store_session_begin(p->store, &opts, &p->err);
    MUST(b->session);
    struct share_piece own = {.len_bytes = OWN};
    backup_set_only(b, &own, 1);
    MUST(backup_begin_disk(b, &b->plan[0], &p->err));
    return 0;
}

static int teardown(void **state)
{
    struct place *p = *state;
    backup_free(p->b);
    engine_free(p->fake.run.engine);
    store_free(p->store);
    fake_run_done(&p->fake);
    temp_dir_remove(&p->dir);
    free(p->data);
    free(p->device);
    free(p);
    return 0;
}

/* The rest of the disk, in two pieces, as one part. */
static struct part *give(struct place *p)
{
    struct wire_pieces pieces = {.v = xcalloc(2, sizeof *pieces.v), .count = 2};
    int64_t at = OWN, len = 3 * MIB;
    for (int i = 0; i < 2; i++, at += len, len = SIZE - OWN - len)
        pieces.v[i] = (struct wire_piece){.disk = xstrdup(DISK),
                                          .path = xstrdup("attach"),
                                          .size_bytes = SIZE,
                                          .offset = at,
                                          .length = len};
    struct part *part = parts_add(&p->fake.run, &p->b->parts, &pieces);
    part->ask.snapshot = xstrdup(SNAPSHOT);
    part->task = xstrdup(PART_TASK);
    part->worker = xstrdup("w2");
    part->fence = 1;
    return part;
}

struct other {
    const char *part_of, *snapshot; /* NULL = as it should be */
    uint64_t size_bytes;            /* 0 = SIZE */
    bool only_begun;
};

/* What the other worker has stored: the range's bytes, inverted, so that they are known. */
static void store_part(struct place *p, const struct other *o)
{
    struct store_session_opts opts = {.id = PART_TASK ".1",
                                      .vm_id = FAKE_VM,
                                      .vm_name = "web",
                                      .part_of = o->part_of ? o->part_of : FAKE_TASK};
    SCOPED(store_session)
    struct store_session *s = store_session_begin(p->store, &opts, &p->err);
    MUST(s);
    struct store_disk_opts disk = {.id = DISK, .size_bytes = o->size_bytes ? o->size_bytes : SIZE};
    struct store_disk *d = store_disk_begin(s, &disk, &p->err);
    struct store_stream *stream = store_stream_begin(s, &p->err);
    SCOPED_FREE uint8_t *bytes = xmalloc(SIZE);
    for (size_t i = 0; i < SIZE; i++)
        bytes[i] = (uint8_t)~p->data[i];
    MUST(d && stream &&
         store_stream_write(stream, d, OWN, bytes + OWN, disk.size_bytes - OWN, &p->err));
    store_stream_end(stream);
    json_auto_t *meta = json_pack("{s:s}", "snapshot", o->snapshot ? o->snapshot : SNAPSHOT);
    if (!o->only_begun)
        MUST(store_disk_finish(d, NULL, &p->err) && store_session_commit(s, meta, &p->err));
    else
        MUST(store_session_leave(s, &p->err));
}

static bool warned(const struct place *p, const char *code)
{
    for (size_t i = 0; i < p->fake.run.warnings_count; i++) {
        if (strcmp(p->fake.run.warnings[i].code, code) == 0)
            return true;
    }
    return false;
}

static void copy_own(struct place *p)
{
    struct backup_watches w = backup_watches_begin(&p->fake.run, p->b);
    bool ok = backup_copy_disks(&p->fake.run, p->b, &w, &p->err);
    backup_watches_end(&w, ok, &p->err);
    MUST(ok);
}

/* Gathers and commits; the point's bytes are the device's, but for what a part has stored. */
static void check(struct place *p, bool taken)
{
    copy_own(p);
    int64_t before = p->b->plan[0].read_bytes;
    assert_int_equal(before, OWN);
    MUST(step_gather(&p->fake.run, &p->err));
    assert_int_equal(p->b->plan[0].read_bytes, taken ? OWN : SIZE);
    MUST(store_session_commit(p->b->session, NULL, &p->err));
    SCOPED(store_point)
    struct store_point *point = store_point_open(p->store, FAKE_TASK ".7", &p->err);
    MUST(point);
    SCOPED(store_reader) struct store_reader *r = store_disk_open(point, DISK, &p->err);
    SCOPED_FREE uint8_t *got = xmalloc(SIZE);
    MUST(r && store_disk_read(r, got, SIZE, 0, &p->err));
    for (size_t i = OWN; taken && i < SIZE; i++)
        got[i] = (uint8_t)~got[i];
    assert_memory_equal(got, p->data, SIZE);
}

static void test_taken_by_reference(void **state)
{
    struct place *p = *state;
    store_part(p, &(struct other){0});
    struct part *part = give(p);
    part->state = PART_DONE;
    part->point = xstrdup(PART_TASK ".1");
    check(p, true);
    assert_int_equal(p->fake.run.warnings_count, 0);
    struct store_stats s;
    store_session_stats(p->b->session, &s);
    assert_int_equal(p->fake.run.stats.bytes_total, SIZE);
    assert_int_equal(p->fake.run.stats.bytes_read, SIZE); /* by both */
    size_t deleted = 0;
    MUST(store_part_points_delete(p->store, FAKE_TASK, &deleted, &p->err));
    assert_int_equal(deleted, 1);
}

static void check_not_used(struct place *p, const struct other *o)
{
    store_part(p, o);
    struct part *part = give(p);
    part->state = PART_DONE;
    part->point = xstrdup(PART_TASK ".1");
    check(p, false);
    assert_true(warned(p, "part-not-used"));
}

static void test_a_point_of_another_task(void **state)
{
    check_not_used(*state, &(struct other){.part_of = OTHER});
}

static void test_a_point_of_another_instant(void **state)
{
    check_not_used(*state, &(struct other){.snapshot = OTHER});
}

static void test_a_disk_of_another_size(void **state)
{
    check_not_used(*state, &(struct other){.size_bytes = SIZE - MIB});
}

static void test_a_point_that_is_not_there(void **state)
{
    struct place *p = *state;
    struct part *part = give(p);
    part->state = PART_DONE;
    part->point = xstrdup(PART_TASK ".1");
    check(p, false);
    assert_true(warned(p, "part-not-used"));
}

static void test_done_without_a_point(void **state)
{
    struct place *p = *state;
    give(p)->state = PART_DONE;
    check(p, false);
    assert_true(warned(p, "part-not-used"));
}

static void test_undone(void **state)
{
    struct place *p = *state;
    store_part(p, &(struct other){.only_begun = true});
    struct part *part = give(p);
    part->state = PART_UNDONE;
    part->why = xstrdup("it died");
    check(p, false);
    assert_true(warned(p, "part-undone"));
    /* Its worker may only believe to be alive. */
    struct store_session_opts late = {
        .id = PART_TASK ".1", .vm_id = FAKE_VM, .vm_name = "web", .part_of = FAKE_TASK};
    assert_null(store_session_begin(p->store, &late, &p->err));
}

/* It lost its worker after the commit, and before anybody heard of that. */
static void test_undone_but_committed(void **state)
{
    struct place *p = *state;
    store_part(p, &(struct other){0});
    struct part *part = give(p);
    part->state = PART_UNDONE;
    part->why = xstrdup("it died");
    check(p, true);
    assert_false(warned(p, "part-undone"));
}

static void test_nobody_began_it(void **state)
{
    struct place *p = *state;
    struct part *part = give(p);
    part->state = PART_WAITING;
    part->fence = 0;
    free(part->worker);
    part->worker = NULL;
    check(p, false); /* the coordinator does not even answer */
    assert_true(warned(p, "not-shared"));
    assert_true(part->withdrawn);
}

static void test_a_cancel_while_waiting(void **state)
{
    struct place *p = *state;
    give(p)->state = PART_RUNNING;
    copy_own(p);
    p->fake.stopped = ERR_CANCELLED;
    assert_false(step_gather(&p->fake.run, &p->err));
    assert_int_equal(p->err.code, ERR_CANCELLED);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_taken_by_reference),
        T(test_a_point_of_another_task),
        T(test_a_point_of_another_instant),
        T(test_a_disk_of_another_size),
        T(test_a_point_that_is_not_there),
        T(test_done_without_a_point),
        T(test_undone),
        T(test_undone_but_committed),
        T(test_nobody_began_it),
        T(test_a_cancel_while_waiting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
