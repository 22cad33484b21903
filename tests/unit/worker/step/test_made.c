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

/* --- A name that is taken ----------------------------------------------------------------------
 */
#define MARK            "oxbow restoring task=" FAKE_TASK " fence=3"
#define FIND_PAGE(page) "GET vms?search=name=\"new\" sortby name page " #page "&max=100"
#define CALLED_NEW      "{\"vm\":[{\"id\":\"" VM "\",\"name\":\"new\",\"status\":\"down\"}]}"
#define LOOK(text)      "GET vms/" VM, 200, "{\"id\":\"" VM "\",\"description\":\"" text "\"}", 0

static bool is_freed(const struct fake_line *script, int64_t attempt, enum err_code code,
                     enum err_code *ret_code)
{
    struct fixture x;
    struct err err = ERR_INIT;
    start(&x, script, 9);
    x.f.offer.attempt = attempt;
    err_set(&err, code, 0, "VM 'new' cannot be made");
    bool ok = made_name_freed(&x.f.run, "new", &err);
    *ret_code = err.code;
    stop(&x);
    return ok;
}

/* The engine was slow with the call of an attempt that is dead. */
static void a_name_that_an_earlier_attempt_took_is_freed(void **state)
{
    (void)state;
    enum err_code code;
    const struct fake_line script[] = {{FIND_PAGE(1), 200, CALLED_NEW, 0},
                                       {FIND_PAGE(2), 200, "{}", 0},
                                       {LOOK(MARK)},
                                       {LOOK(MARK)},
                                       {LOOK(MARK)},
                                       {"DELETE vms/" VM "?detach_only=true", 200, "{}", 0},
                                       {"GET vms/" VM, 404, NULL, 0},
                                       {0}};
    assert_true(is_freed(script, 2, ERR_EXISTS, &code));
    assert_int_equal(code, ERR_NONE);
}

static void a_name_of_somebody_elses_stays_taken(void **state)
{
    (void)state;
    enum err_code code;
    const struct fake_line others[] = {
        {FIND_PAGE(1), 200, CALLED_NEW, 0}, {FIND_PAGE(2), 200, "{}", 0}, {LOOK("the shop")}, {0}};
    const struct fake_line none[] = {{FIND_PAGE(1), 200, "{}", 0}, {0}}, unasked[] = {{0}};
    assert_false(is_freed(others, 2, ERR_EXISTS, &code));
    assert_int_equal(code, ERR_EXISTS);
    assert_false(is_freed(none, 2, ERR_EXISTS, &code)); /* a MAC address, say */
    assert_int_equal(code, ERR_EXISTS);
    assert_false(is_freed(unasked, 1, ERR_EXISTS, &code)); /* nobody was there before us */
    assert_int_equal(code, ERR_EXISTS);
    assert_false(is_freed(unasked, 2, ERR_ENGINE_FAULT, &code));
    assert_int_equal(code, ERR_ENGINE_FAULT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_marks_come_off),
        cmocka_unit_test(a_mark_outlives_a_lost_lease),
        cmocka_unit_test(the_next_attempt_takes_it_off),
        cmocka_unit_test(a_refusal_is_a_warning),
        cmocka_unit_test(a_name_that_an_earlier_attempt_took_is_freed),
        cmocka_unit_test(a_name_of_somebody_elses_stays_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
