/* SPDX-License-Identifier: Apache-2.0 */
/* Handles, markers, warnings and the throttle of a run. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/worker/fake_run.h"

static void test_handles(void **state)
{
    (void)state;
    struct handles h = {0};
    assert_null(handles_get(&h, "snapshot"));
    handles_set(&h, "snapshot", "s1");
    handles_set(&h, "attachment.d1", "p1");
    handles_set(&h, "snapshot", handles_get(&h, "snapshot")); /* itself: copied first */
    assert_string_equal(handles_get(&h, "snapshot"), "s1");
    assert_string_equal(handles_get2(&h, HANDLE_ATTACHMENT, "d1"), "p1");
    for (int i = 0; i < 50; i++) {
        SCOPED_FREE char *name = xasprintf("disk.%d", i);
        handles_set(&h, name, "x");
    }
    assert_int_equal(h.count, 52);
    handles_drop(&h, "snapshot");
    handles_drop(&h, "snapshot");
    assert_int_equal(h.count, 51);
    assert_string_equal(handles_get(&h, "disk.49"), "x");
    handles_done(&h);
}

static void test_leftovers_in_the_order_of_removal(void **state)
{
    (void)state;
    struct handles h = {0};
    handles_set(&h, "session", "t.1");
    handles_set(&h, "quiesced", "yes");
    handles_set(&h, "snapshot", "s1");
    handles_set(&h, "disk.0", "d9");
    handles_set(&h, "vm", "v9");
    handles_set(&h, "attachment.d1", "p1");
    handles_set(&h, "exported", "host1:/x.ova");
    handles_set(&h, "clone.web-export-1", "*");
    handles_set(&h, "backup-snapshot.s7", "v7");
    struct wire_leftovers l = handles_leftovers(&h, FAKE_VM);
    assert_int_equal(l.count, 6);
    assert_string_equal(l.v[0].kind, "attachment");
    assert_string_equal(l.v[0].vm, "p1");
    assert_string_equal(l.v[0].id, "d1");
    assert_string_equal(l.v[1].kind, "backup-snapshot");
    assert_string_equal(l.v[1].vm, "v7");
    assert_string_equal(l.v[1].id, "s7");
    assert_string_equal(l.v[2].kind, "clone");
    assert_string_equal(l.v[2].vm, "*");
    assert_string_equal(l.v[2].id, "web-export-1");
    assert_string_equal(l.v[3].kind, "snapshot");
    assert_string_equal(l.v[3].vm, FAKE_VM);
    assert_string_equal(l.v[4].kind, "vm");
    assert_string_equal(l.v[4].vm, "v9");
    assert_string_equal(l.v[5].kind, "disk");
    assert_string_equal(l.v[5].id, "d9");
    leftovers_done(&l);
    handles_done(&h);
}

static void test_inherit_the_newest_of_the_highest_fence(void **state)
{
    (void)state;
    struct wire_handle one[] = {{(char[]){"snapshot"}, (char[]){"s1"}}};
    struct wire_handle two[] = {{(char[]){"snapshot"}, (char[]){"s1"}},
                                {(char[]){"attachment.d1"}, (char[]){"p1"}}};
    struct wire_journal_entry entries[] = {
        {.attempt = 1, .fence = 4, .handles = {one, 1}},
        {.attempt = 2, .fence = 6, .handles = {one, 1}},
        {.attempt = 2, .fence = 6, .handles = {two, 2}},
        {.attempt = 1, .fence = 4, .handles = {NULL, 0}}, /* a zombie's late word */
    };
    struct handles h = {0};
    handles_inherit(&h, &(struct wire_journal){entries, 4});
    assert_int_equal(h.count, 2);
    assert_string_equal(handles_get(&h, "attachment.d1"), "p1");
    handles_done(&h);
    handles_inherit(&h, &(struct wire_journal){NULL, 0});
    assert_int_equal(h.count, 0);
}

static void test_markers(void **state)
{
    (void)state;
    struct fake_run f;
    fake_run_init(&f);
    SCOPED_FREE char *marker = run_marker(&f.run);
    assert_string_equal(marker, "oxbow task=" FAKE_TASK " fence=7");
    assert_true(marker_is_ours(marker, NULL));
    assert_true(marker_is_ours(marker, FAKE_TASK));
    assert_false(marker_is_ours(marker, FAKE_VM));
    assert_int_equal(marker_fence(marker), 7);
    SCOPED_FREE char *restoring = run_marker_restoring(&f.run);
    assert_string_equal(restoring, "oxbow restoring task=" FAKE_TASK " fence=7");
    assert_true(marker_is_ours(restoring, FAKE_TASK));
    static const char *const foreign[] = {
        "",
        "Active VM",
        "oxbow task=",
        "oxbow task=" FAKE_TASK,
        "oxbow task=" FAKE_TASK " fence=",
        "oxbow task=" FAKE_TASK " fence=7x",
        "oxbow task=" FAKE_TASK " fence=7 ",
        "oxbow task=" FAKE_TASK " fence=-7",
        "oxbow task=" FAKE_TASK " fence=1234567890123456789",
        "oxbow task=not-a-uuid fence=7",
        " oxbow task=" FAKE_TASK " fence=7",
        "Oxbow task=" FAKE_TASK " fence=7",
    };
    for (size_t i = 0; i < ARRAY_LEN(foreign); i++)
        assert_false(marker_is_ours(foreign[i], NULL));
    assert_false(marker_is_ours(NULL, NULL));
    fake_run_done(&f);
}

static void test_warnings_are_limited(void **state)
{
    (void)state;
    struct fake_run f;
    fake_run_init(&f);
    for (int i = 0; i < WIRE_WARNINGS_MAX + 5; i++)
        run_warn(&f.run, "unsupported", "d1", "number %d", i);
    assert_int_equal(f.run.warnings_count, WIRE_WARNINGS_MAX);
    assert_int_equal(f.run.warnings_dropped, 5);
    fake_run_done(&f);
}

static void test_copying_is_throttled(void **state)
{
    (void)state;
    struct fake_run f;
    fake_run_init(&f);
    for (int i = 0; i < 100; i++) {
        run_copying(&f.run, i, 100, 5);
        f.clock.now_ms += 100;
    }
    assert_int_equal(f.copyings, 5); /* ten seconds, one each two */
    fake_run_done(&f);
}

static void test_only_a_lost_lease_stops_the_tidying(void **state)
{
    (void)state;
    struct fake_run f;
    fake_run_init(&f);
    struct err err = ERR_INIT;
    f.stopped = ERR_CANCELLED;
    assert_false(run_check(&f.run, &err));
    assert_int_equal(err.code, ERR_CANCELLED);
    err_clear(&err);
    f.run.phase = RUN_TIDY;
    assert_true(run_before_mutation(&f.run, &err));
    f.stopped = ERR_LEASE_LOST;
    assert_false(run_before_mutation(&f.run, &err));
    assert_int_equal(err.code, ERR_LEASE_LOST);
    fake_run_done(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_handles),
        cmocka_unit_test(test_leftovers_in_the_order_of_removal),
        cmocka_unit_test(test_inherit_the_newest_of_the_highest_fence),
        cmocka_unit_test(test_markers),
        cmocka_unit_test(test_warnings_are_limited),
        cmocka_unit_test(test_copying_is_throttled),
        cmocka_unit_test(test_only_a_lost_lease_stops_the_tidying),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
