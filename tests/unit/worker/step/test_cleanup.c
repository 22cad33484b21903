/* SPDX-License-Identifier: Apache-2.0 */
/* Cleaning up while calls of a dead worker still come in, against a scripted engine. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/temp_dir.h"
#include "tests/unit/worker/fake_run.h"
#include "tests/unit/worker/ovirt/fake_engine.h"
#include "worker/step/cleanup.h"
#include "worker/store/sessions.h"
#include "worker/store/store.h"

#define SNAP     "dddddddd-0000-4000-8000-000000000001"
#define PROXY    "bbbbbbbb-0000-4000-8000-000000000001"
#define DISK     "cccccccc-0000-4000-8000-000000000001"
#define OWNER    "22222222-2222-4333-8444-555555555555"
#define HELD     "vms/" PROXY "/diskattachments/" DISK
#define SNAPSHOT "vms/" FAKE_VM "/snapshots/" SNAP
#define OURS                                                                                       \
    "{\"id\":\"" SNAP "\",\"snapshot_status\":\"ok\",\"description\":\"oxbow task=" OWNER          \
    " fence=1\"}"
#define ATTACHED_ELSEWHERE                                                                         \
    "{\"reason\":\"Operation Failed\",\"detail\":\"[Cannot remove Snapshot. The following VM's "   \
    "disks snapshots are attached to other VMs: p.]\"}"

/* What is left of a snapshot and of one of its disks on a proxy. */
static struct wire_leftovers clean(const struct fake_line *script, bool *ret_ok, struct err *err)
{
    static char snapshot[] = "snapshot", attachment[] = "attachment", vm[] = FAKE_VM, snap[] = SNAP,
                proxy[] = PROXY, disk[] = DISK, owner[] = OWNER;
    static struct wire_leftover list[] = {{.kind = snapshot, .vm = vm, .id = snap},
                                          {.kind = attachment, .vm = proxy, .id = disk}};
    struct fake_engine *fake = fake_engine_new(script);
    struct fake_run f;
    fake_run_init(&f);
    f.offer.cleanup_task = owner;
    f.offer.cleanup = (struct wire_leftovers){list, 2};
    f.run.engine = fake_engine_client(fake);
    f.run.session = engine_session_new(f.run.engine, NULL);
    f.run.state = cleanup_new(&f.run, err);
    assert_non_null(f.run.state);
    *ret_ok = step_cleanup(&f.run, err);
    struct wire_leftovers left = f.run.left;
    f.run.left = (struct wire_leftovers){0};
    cleanup_free(f.run.state);
    engine_session_free(f.run.session);
    engine_free(f.run.engine);
    fake_run_done(&f);
    fake_engine_check(fake);
    fake_engine_free(fake);
    return left;
}

/* The disk came back between the two: the next try must know where it was. */
static void what_may_hold_others_stays_on_the_list(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    bool ok = true;
    struct wire_leftovers left =
        clean((const struct fake_line[]){{"DELETE " HELD "?detach_only=true", 404, NULL, 0},
                                         {"GET " HELD, 404, NULL, 0},
                                         {"POST vms/" FAKE_VM "/thawfilesystems", 200, "{}", 0},
                                         {"GET imagetransfers", 200, "{}", 0},
                                         {"GET " SNAPSHOT, 200, OURS, 0},
                                         {"GET events?max=100", 200, "{}", 0},
                                         {"DELETE " SNAPSHOT, 409, ATTACHED_ELSEWHERE, 0},
                                         {0}},
              &ok, &err);
    assert_false(ok);
    assert_int_equal(err.code, ERR_CONFLICT);
    assert_int_equal(left.count, 2);
    assert_string_equal(left.v[0].kind, "snapshot");
    assert_string_equal(left.v[1].kind, "attachment");
    assert_string_equal(left.v[1].vm, PROXY);
    assert_string_equal(left.v[1].id, DISK);
    leftovers_done(&left);
}

/* The disk came back right before the snapshot went. */
static void a_disk_that_outlived_its_snapshot_is_detached(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    bool ok = false;
    struct wire_leftovers left =
        clean((const struct fake_line[]){{"DELETE " HELD "?detach_only=true", 404, NULL, 0},
                                         {"GET " HELD, 404, NULL, 0},
                                         {"POST vms/" FAKE_VM "/thawfilesystems", 200, "{}", 0},
                                         {"GET imagetransfers", 200, "{}", 0},
                                         {"GET " SNAPSHOT, 404, NULL, 0},
                                         {"GET " HELD, 200, "{\"id\":\"" DISK "\"}", 0},
                                         {"DELETE " HELD "?detach_only=true", 200, "{}", 0},
                                         {"GET " HELD, 404, NULL, 0},
                                         {0}},
              &ok, &err);
    assert_true(ok);
    assert_int_equal(left.count, 0);
    leftovers_done(&left);
}

/* ---- parts */
#define PART "33333333-2222-4333-8444-555555555555"

static void commit_point(struct store *store, const char *id, const char *part_of)
{
    struct err err = ERR_INIT;
    static const uint8_t data[4096] = {1, 2, 3};
    struct store_session_opts opts = {
        .id = id, .vm_id = FAKE_VM, .vm_name = "v", .part_of = part_of};
    struct store_disk_opts disk_opts = {.id = "d", .size_bytes = sizeof data};
    SCOPED(store_session) struct store_session *s = store_session_begin(store, &opts, &err);
    struct store_disk *disk = s ? store_disk_begin(s, &disk_opts, &err) : NULL;
    struct store_stream *stream = disk ? store_stream_begin(s, &err) : NULL;
    if (!stream || !store_stream_write(stream, disk, 0, data, sizeof data, &err))
        fail_msg("%s", err.message);
    store_stream_end(stream);
    if (!store_disk_finish(disk, NULL, &err) || !store_session_commit(s, NULL, &err))
        fail_msg("%s", err.message);
}

static bool is_there(struct store *store, const char *id)
{
    struct err err = ERR_INIT;
    SCOPED(store_point) struct store_point *point = store_point_open_any(store, id, &err);
    return point != NULL;
}

/* One clean-up after `owner` of the part `id`; the code of its error. */
static enum err_code clean_part_of(struct store *store, const char *owner, const char *id)
{
    struct err err = ERR_INIT;
    static char kind[] = "part";
    struct wire_leftover left = {.kind = kind, .id = (char *)(uintptr_t)id};
    struct fake_run f;
    fake_run_init(&f);
    f.offer.cleanup_task = (char *)(uintptr_t)owner;
    f.offer.cleanup = (struct wire_leftovers){&left, 1};
    f.run.store = store;
    f.run.state = cleanup_new(&f.run, &err);
    assert_non_null(f.run.state);
    (void)step_cleanup(&f.run, &err);
    leftovers_done(&f.run.left);
    cleanup_free(f.run.state);
    fake_run_done(&f);
    return err.code;
}

static void a_part_goes_with_the_task_that_it_is_of(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct temp_dir dir;
    temp_dir_make(&dir);
    SCOPED_FREE char *path = xasprintf("%s/repository", dir.path);
    struct store *store = store_init(path, NULL, &err);
    assert_non_null(store);
    commit_point(store, PART ".1", OWNER);
    commit_point(store, PART ".2", OWNER);
    commit_point(store, OWNER ".1", NULL);
    /* After somebody else, or a point that is no part: not ours to remove. */
    assert_int_equal(clean_part_of(store, FAKE_TASK, PART ".1"), ERR_NONE);
    assert_int_equal(clean_part_of(store, OWNER, OWNER ".1"), ERR_NONE);
    assert_true(is_there(store, PART ".1"));
    assert_true(is_there(store, OWNER ".1"));
    /* After the task that gave it away, and after the part itself; twice, too. */
    for (int i = 0; i < 2; i++) {
        assert_int_equal(clean_part_of(store, OWNER, PART ".1"), ERR_NONE);
        assert_int_equal(clean_part_of(store, PART, PART ".2"), ERR_NONE);
    }
    assert_false(is_there(store, PART ".1"));
    assert_false(is_there(store, PART ".2"));
    assert_true(is_there(store, OWNER ".1"));
    /* One that has not committed never will. */
    assert_int_equal(clean_part_of(store, PART, PART ".3"), ERR_NONE);
    enum store_fate fate = STORE_FATE_NONE;
    assert_true(store_session_fate(store, PART ".3", &fate, &err));
    assert_int_equal(fate, STORE_FATE_REVOKED);
    store_free(store);
    temp_dir_remove(&dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_may_hold_others_stays_on_the_list),
        cmocka_unit_test(a_disk_that_outlived_its_snapshot_is_detached),
        cmocka_unit_test(a_part_goes_with_the_task_that_it_is_of),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
