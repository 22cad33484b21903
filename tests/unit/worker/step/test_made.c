/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The end of a restore takes the marks off what it made, against a scripted engine. A mark that
 * could not be taken off because the lease was lost is not forgotten: the disk's handle stays in
 * the journal, and the next attempt takes it off.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/worker/step/engine_run.h"
#include "worker/step/made.h"
#include "worker/step/restore.h"

#define VM     "bbbbbbbb-0000-4000-8000-000000000001"
#define DISK_0 "cccccccc-0000-4000-8000-000000000001"
#define DISK_1 "cccccccc-0000-4000-8000-000000000002"
#define DISK_2 "cccccccc-0000-4000-8000-000000000003"

struct fixture {
    struct fake_engine *fake;
    struct fake_run f;
    int mutations_left; /* answers of the lease until it is lost; a mutation asks for two */
};

static bool before_mutation(void *ctx, struct err *err)
{
    struct fixture *x = ctx;
    if (x->mutations_left-- == 0)
        x->f.lease_lost = true;
    return run_before_mutation(&x->f.run, err);
}

static void start(struct fixture *x, const struct fake_line *script, int mutations)
{
    *x = (struct fixture){.fake = fake_engine_new(script), .mutations_left = 2 * mutations};
    engine_run_begin(&x->f, x->fake,
                     &(struct engine_hooks){.ctx = x, .before_mutation = before_mutation});
    handles_set(&x->f.run.handles, HANDLE_VM, VM);
    handles_set(&x->f.run.handles, HANDLE_DISK "0", DISK_0);
    handles_set(&x->f.run.handles, HANDLE_DISK "1", DISK_1);
    handles_set(&x->f.run.handles, HANDLE_DISK "2", DISK_2);
}

static void stop(struct fixture *x)
{
    engine_run_end(&x->f, x->fake);
}

static bool knows(const struct fixture *x, const char *name)
{
    return handles_get(&x->f.run.handles, name) != NULL;
}

static void all_marks_come_off(void **state)
{
    (void)state;
    struct fixture x;
    start(&x,
          (const struct fake_line[]){{"PUT disks/" DISK_2, 200, "{}", 0},
                                     {"PUT disks/" DISK_1, 200, "{}", 0},
                                     {"PUT disks/" DISK_0, 200, "{}", 0},
                                     {0}},
          9);
    made_drop_handles(&x.f.run);
    assert_int_equal(x.f.run.handles.count, 0);
    assert_int_equal(x.f.run.warnings_count, 0);
    assert_string_equal(fake_engine_seen(x.fake, 0)->body, "{\"description\":\"\"}");
    stop(&x);
}

static void a_mark_outlives_a_lost_lease(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){{"PUT disks/" DISK_2, 200, "{}", 0}, {0}}, 1);
    made_drop_handles(&x.f.run);
    assert_false(knows(&x, HANDLE_VM) || knows(&x, HANDLE_DISK "2"));
    assert_true(knows(&x, HANDLE_DISK "1") && knows(&x, HANDLE_DISK "0"));
    assert_int_equal(x.f.run.warnings_count, 0); /* nothing went wrong: somebody else does it */
    stop(&x);
}

/* With what is left in the journal. */
static void the_next_attempt_takes_it_off(void **state)
{
    (void)state;
    struct fixture x;
    struct err err = ERR_INIT;
    struct restore r = {0};
    start(&x,
          (const struct fake_line[]){
              {"PUT disks/" DISK_1, 200, "{}", 0}, {"PUT disks/" DISK_0, 200, "{}", 0}, {0}},
          9);
    handles_drop(&x.f.run.handles, HANDLE_VM);
    handles_drop(&x.f.run.handles, HANDLE_DISK "2");
    handles_set(&x.f.run.handles, HANDLE_RESTORED, VM);
    x.f.offer.attempt = 2;
    x.f.run.state = &r;
    assert_true(step_clear_earlier(&x.f.run, &err));
    assert_true(r.stands && x.f.run.committed);
    assert_string_equal(x.f.run.new_vm, VM);
    assert_false(knows(&x, HANDLE_DISK "1") || knows(&x, HANDLE_DISK "0"));
    assert_true(knows(&x, HANDLE_RESTORED));
    stop(&x);
}

/* An engine that refuses is no reason to come back: it is a description only. */
static void a_refusal_is_a_warning(void **state)
{
    (void)state;
    struct fixture x;
    start(
        &x,
        (const struct fake_line[]){{"PUT disks/" DISK_2, 403, "{\"detail\":\"not authorized\"}", 0},
                                   {"PUT disks/" DISK_1, 200, "{}", 0},
                                   {"PUT disks/" DISK_0, 200, "{}", 0},
                                   {0}},
        9);
    made_drop_handles(&x.f.run);
    assert_int_equal(x.f.run.handles.count, 0);
    assert_int_equal(x.f.run.warnings_count, 1);
    stop(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_marks_come_off),
        cmocka_unit_test(a_mark_outlives_a_lost_lease),
        cmocka_unit_test(the_next_attempt_takes_it_off),
        cmocka_unit_test(a_refusal_is_a_warning),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
