/* SPDX-License-Identifier: Apache-2.0 */
/* The step engine with steps of the test's own: order, undo, probe, cancel, lease, tidying. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/worker/fake_run.h"
#include "worker/runner/steps.h"

struct script {
    struct fake_run *fake;
    const char *fail_run, *fail_undo, *probe_done, *probe_unwanted, *probe_fail;
    enum err_code fail_code; /* default io-error */
    const char *cancel_in;   /* the step in which somebody cancels */
    const char *lose_in;     /* the step in which the lease is lost */
    struct buf calls;
};

static struct script *script_of(struct task_run *run)
{
    return run->state;
}

static bool is(const struct task_run *run, const char *name)
{
    return name && strcmp(run->step, name) == 0;
}

static bool do_run(struct task_run *run, struct err *err)
{
    struct script *s = script_of(run);
    buf_printf(&s->calls, "+%s ", run->step);
    if (is(run, s->cancel_in))
        s->fake->stopped = ERR_CANCELLED;
    if (is(run, s->lose_in))
        s->fake->lease_lost = true;
    if (!run_before_mutation(run, err))
        return false;
    char *thing = xasprintf("id-of-%s", run->step);
    SCOPED_FREE char *name = xasprintf("disk.%s", run->step);
    run_handle_set(run, name, thing);
    free(thing);
    if (strcmp(run->step, "c") == 0)
        run->committed = true;
    if (is(run, s->fail_run))
        return err_set(err, s->fail_code ? s->fail_code : ERR_IO, 0, "broken");
    return run_check(run, err);
}

static bool do_undo(struct task_run *run, struct err *err)
{
    struct script *s = script_of(run);
    buf_printf(&s->calls, "-%s ", run->step);
    SCOPED_FREE char *name = xasprintf("disk.%s", run->step);
    if (is(run, s->fail_undo))
        return err_set(err, ERR_ENGINE_BUSY, 409, "locked");
    if (!run_before_mutation(run, err))
        return false;
    run_handle_drop(run, name);
    return true;
}

static enum probe_answer do_probe(struct task_run *run, struct err *err)
{
    struct script *s = script_of(run);
    if (is(run, s->probe_fail)) {
        err_set(err, ERR_ENGINE_UNREACHABLE, 0, "no answer");
        return PROBE_FAILED;
    }
    if (is(run, s->probe_unwanted))
        return PROBE_UNWANTED;
    return is(run, s->probe_done) ? PROBE_DONE : PROBE_TODO;
}

static const struct step steps[] = {
    {.name = "a", .run = do_run, .undo = do_undo, .probe = do_probe},
    {.name = "b",
     .run = do_run,
     .undo = do_undo,
     .probe = do_probe,
     .stat = offsetof(struct wire_stats, copy_ms)},
    {.name = "c", .run = do_run, .undo = do_undo, .probe = do_probe},
    {.name = "d", .run = do_run, .undo = NULL, .probe = NULL, .flags = STEP_TIDY},
    {.name = "e", .run = do_run, .undo = NULL, .probe = NULL, .flags = STEP_TIDY},
};

static bool go(struct script *s, struct fake_run *f, struct err *err)
{
    fake_run_init(f);
    buf_init(&s->calls, 10000);
    s->fake = f;
    f->run.state = s;
    bool ok = steps_run(&f->run, steps, ARRAY_LEN(steps), err);
    assert_false(f->seq_broken);
    return ok;
}

static void end(struct script *s, struct fake_run *f)
{
    buf_done(&s->calls);
    fake_run_done(f);
}

static void test_order_and_events(void **state)
{
    (void)state;
    struct script s = {0};
    struct fake_run f;
    struct err err = ERR_INIT;
    assert_true(go(&s, &f, &err));
    assert_string_equal(buf_str(&s.calls), "+a +b +c +d +e ");
    /* Handles are cumulative, and published as soon as they are there. */
    assert_non_null(strstr(buf_str(&f.log),
                           "a:started a:handle(disk.a=id-of-a) a:done(disk.a=id-of-a) "
                           "b:started(disk.a=id-of-a) b:handle(disk.a=id-of-a,disk.b=id-of-b)"));
    assert_int_equal(f.aheads, 5);
    assert_int_equal(f.run.warnings_count, 0);
    end(&s, &f);
}

/* As if it were not in the table: nothing is told of it. */
static void test_an_unwanted_step(void **state)
{
    (void)state;
    struct script s = {.probe_unwanted = "b"};
    struct fake_run f;
    struct err err = ERR_INIT;
    assert_true(go(&s, &f, &err));
    assert_string_equal(buf_str(&s.calls), "+a +c +d +e ");
    assert_null(strstr(buf_str(&f.log), "b:"));
    end(&s, &f);
}

static void test_undo_in_reverse(void **state)
{
    (void)state;
    struct script s = {.fail_run = "b"};
    struct fake_run f;
    struct err err = ERR_INIT;
    assert_false(go(&s, &f, &err));
    assert_int_equal(err.code, ERR_IO);
    assert_string_equal(err.message, "b: broken");
    assert_string_equal(buf_str(&s.calls), "+a +b -b -a ");
    assert_int_equal(f.run.handles.count, 0);
    struct wire_leftovers l = handles_leftovers(&f.run.handles, FAKE_VM);
    assert_int_equal(l.count, 0);
    assert_non_null(strstr(buf_str(&f.log), "b:failed(disk.a=id-of-a,disk.b=id-of-b) "
                                            "b:undone(disk.a=id-of-a) a:undone"));
    end(&s, &f);
}

static void test_failed_undo_is_a_leftover(void **state)
{
    (void)state;
    struct script s = {.fail_run = "c", .fail_undo = "b"};
    struct fake_run f;
    struct err err = ERR_INIT;
    /* c commits before it fails in this script: undo it as a failure before the commit. */
    assert_false(go(&s, &f, &err));
    assert_string_equal(buf_str(&s.calls), "+a +b +c -c -b -a ");
    assert_int_equal(err.code, ERR_IO); /* the first error is the result */
    struct wire_leftovers l = handles_leftovers(&f.run.handles, FAKE_VM);
    assert_int_equal(l.count, 1);
    assert_string_equal(l.v[0].kind, "disk");
    assert_string_equal(l.v[0].id, "id-of-b");
    leftovers_done(&l);
    assert_int_equal(f.run.warnings_count, 1);
    assert_string_equal(f.run.warnings[0].code, "engine-busy");
    assert_non_null(strstr(buf_str(&f.log), "b:undo-failed"));
    end(&s, &f);
}

static void test_probe_skips(void **state)
{
    (void)state;
    struct script s = {.probe_done = "b"};
    struct fake_run f;
    struct err err = ERR_INIT;
    assert_true(go(&s, &f, &err));
    assert_string_equal(buf_str(&s.calls), "+a +c +d +e ");
    assert_non_null(strstr(buf_str(&f.log), "b:done"));
    assert_null(strstr(buf_str(&f.log), "b:started"));
    end(&s, &f);
}

static void test_probed_step_is_undone_too(void **state)
{
    (void)state;
    struct script s = {.probe_done = "b", .fail_run = "c"};
    struct fake_run f;
    struct err err = ERR_INIT;
    assert_false(go(&s, &f, &err));
    assert_string_equal(buf_str(&s.calls), "+a +c -c -b -a ");
    end(&s, &f);
}

static void test_probe_failure_fails(void **state)
{
    (void)state;
    struct script s = {.probe_fail = "b"};
    struct fake_run f;
    struct err err = ERR_INIT;
    assert_false(go(&s, &f, &err));
    assert_int_equal(err.code, ERR_ENGINE_UNREACHABLE);
    assert_string_equal(buf_str(&s.calls), "+a -b -a ");
    end(&s, &f);
}

static void test_cancel_undoes_all(void **state)
{
    (void)state;
    struct script s = {.cancel_in = "b"};
    struct fake_run f;
    struct err err = ERR_INIT;
    assert_false(go(&s, &f, &err));
    assert_int_equal(err.code, ERR_CANCELLED);
    /* b was refused its mutation; the undo may mutate though the cancel still stands. */
    assert_string_equal(buf_str(&s.calls), "+a +b -b -a ");
    assert_int_equal(f.run.handles.count, 0);
    end(&s, &f);
}

static void test_cancel_after_commit_finishes(void **state)
{
    (void)state;
    struct script s = {.cancel_in = "d"};
    struct fake_run f;
    struct err err = ERR_INIT;
    assert_true(go(&s, &f, &err));
    assert_string_equal(buf_str(&s.calls), "+a +b +c +d +e ");
    end(&s, &f);
}

static void test_lease_lost_stops_before_the_next_mutation(void **state)
{
    (void)state;
    struct script s = {.lose_in = "b"};
    struct fake_run f;
    struct err err = ERR_INIT;
    assert_false(go(&s, &f, &err));
    assert_int_equal(err.code, ERR_LEASE_LOST);
    assert_string_equal(buf_str(&s.calls), "+a +b "); /* nothing is undone: it is not ours */
    assert_string_equal(handles_get(&f.run.handles, "disk.a"), "id-of-a");
    assert_null(handles_get(&f.run.handles, "disk.b"));
    end(&s, &f);
}

static bool undo_and_lose(struct task_run *run, struct err *err)
{
    script_of(run)->fake->lease_lost = true;
    return do_undo(run, err);
}

static void test_lease_lost_while_undoing(void **state)
{
    (void)state;
    static const struct step table[] = {
        {.name = "a", .run = do_run, .undo = do_undo},
        {.name = "b", .run = do_run, .undo = undo_and_lose},
    };
    struct script s = {.fail_run = "b", .fail_code = ERR_NO_SPACE};
    struct fake_run f;
    fake_run_init(&f);
    buf_init(&s.calls, 10000);
    s.fake = &f;
    f.run.state = &s;
    struct err err = ERR_INIT;
    assert_false(steps_run(&f.run, table, 2, &err));
    assert_int_equal(err.code, ERR_NO_SPACE);
    assert_string_equal(buf_str(&s.calls), "+a +b -b "); /* a is left for the next owner */
    assert_int_equal(f.run.handles.count, 2);
    end(&s, &f);
}

static void test_tidy_failure_is_a_warning(void **state)
{
    (void)state;
    struct script s = {.fail_run = "d", .fail_code = ERR_MERGE_FAILED};
    struct fake_run f;
    struct err err = ERR_INIT;
    assert_true(go(&s, &f, &err));
    assert_false(err_is_set(&err));
    assert_string_equal(buf_str(&s.calls), "+a +b +c +d +e ");
    assert_int_equal(f.run.warnings_count, 1);
    assert_string_equal(f.run.warnings[0].code, "merge-failed");
    end(&s, &f);
}

static void test_lease_lost_while_tidying(void **state)
{
    (void)state;
    struct script s = {.lose_in = "d"};
    struct fake_run f;
    struct err err = ERR_INIT;
    assert_false(go(&s, &f, &err));
    assert_int_equal(err.code, ERR_LEASE_LOST);
    assert_string_equal(buf_str(&s.calls), "+a +b +c +d ");
    end(&s, &f);
}

static bool run_slow(struct task_run *run, struct err *err)
{
    return run_sleep(run, 60 * 1000, err);
}

static void test_deadline_and_durations(void **state)
{
    (void)state;
    static const struct step table[] = {
        {.name = "copy", .run = run_slow, .stat = offsetof(struct wire_stats, copy_ms)},
        {.name = "copy2", .run = run_slow},
    };
    struct fake_run f;
    fake_run_init(&f);
    struct err err = ERR_INIT;
    f.run.deadline_mono_ms = f.clock.now_ms + 90 * 1000;
    f.offer.deadline_s = 90;
    int64_t start = f.clock.now_ms;
    assert_false(steps_run(&f.run, table, 2, &err));
    assert_int_equal(err.code, ERR_TIMEOUT);
    assert_int_equal(f.run.stats.copy_ms, 60 * 1000);
    assert_in_range(f.clock.now_ms - start, 90 * 1000, 91 * 1000);
    fake_run_done(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order_and_events),
        cmocka_unit_test(test_an_unwanted_step),
        cmocka_unit_test(test_undo_in_reverse),
        cmocka_unit_test(test_failed_undo_is_a_leftover),
        cmocka_unit_test(test_probe_skips),
        cmocka_unit_test(test_probed_step_is_undone_too),
        cmocka_unit_test(test_probe_failure_fails),
        cmocka_unit_test(test_cancel_undoes_all),
        cmocka_unit_test(test_cancel_after_commit_finishes),
        cmocka_unit_test(test_lease_lost_stops_before_the_next_mutation),
        cmocka_unit_test(test_lease_lost_while_undoing),
        cmocka_unit_test(test_tidy_failure_is_a_warning),
        cmocka_unit_test(test_lease_lost_while_tidying),
        cmocka_unit_test(test_deadline_and_durations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
