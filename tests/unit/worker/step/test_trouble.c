/* SPDX-License-Identifier: Apache-2.0 */
/* What has gone while it was backed up, and a storage domain that fills up: against a scripted
 * engine. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <cmocka.h>

#include "tests/unit/worker/step/engine_run.h"
#include "worker/step/gone.h"
#include "worker/step/space.h"

#define SNAP     "dddddddd-0000-4000-8000-000000000001"
#define DC       "eeeeeeee-0000-4000-8000-000000000001"
#define VM_PATH  "GET vms/" FAKE_VM
#define VM_THERE "{\"id\":\"" FAKE_VM "\",\"name\":\"web\"}"

struct fixture {
    struct fake_engine *fake;
    struct fake_run f;
};

static void start(struct fixture *x, const struct fake_line *script)
{
    x->fake = fake_engine_new(script);
    engine_run_begin(&x->f, x->fake, NULL);
}

static void stop(struct fixture *x)
{
    engine_run_end(&x->f, x->fake);
}

static enum err_code explained(struct fixture *x, enum err_code code, const char *snapshot,
                               struct err *err)
{
    err_clear(err);
    err_set(err, code, 400, "the engine's own words");
    assert_false(gone_explain(&x->f.run, snapshot, err));
    assert_non_null(strstr(err->message, "the engine's own words"));
    return err->code;
}

static void gone_things_are_called_so(void **state)
{
    (void)state;
    struct fixture x;
    struct err err = ERR_INIT;
    start(&x,
          (const struct fake_line[]){{VM_PATH, 404, NULL, 0},
                                     {VM_PATH, 200, VM_THERE, 0},
                                     {VM_PATH "/snapshots/" SNAP, 404, NULL, 0},
                                     {VM_PATH, 200, VM_THERE, 0},
                                     {VM_PATH "/snapshots/" SNAP, 200, "{\"id\":\"" SNAP "\"}", 0},
                                     {VM_PATH, 200, VM_THERE, 0},
                                     {VM_PATH, 403, "{\"detail\":\"not authorized\"}", 0},
                                     {0}});
    assert_int_equal(explained(&x, ERR_CONFLICT, SNAP, &err), ERR_NOT_FOUND);
    assert_non_null(strstr(err.message, "VM was deleted"));
    assert_int_equal(explained(&x, ERR_NOT_FOUND, SNAP, &err), ERR_SNAPSHOT_FAILED);
    assert_int_equal(explained(&x, ERR_ENGINE_REFUSED, SNAP, &err), ERR_ENGINE_REFUSED);
    assert_int_equal(explained(&x, ERR_SNAPSHOT_FAILED, NULL, &err), ERR_SNAPSHOT_FAILED);
    /* One that may not be looked at has not gone. */
    assert_int_equal(explained(&x, ERR_CONFLICT, NULL, &err), ERR_CONFLICT);
    /* These say nothing of the kind: no look. */
    assert_int_equal(explained(&x, ERR_ENGINE_BUSY, SNAP, &err), ERR_ENGINE_BUSY);
    assert_int_equal(explained(&x, ERR_CANCELLED, SNAP, &err), ERR_CANCELLED);
    stop(&x);
}

#define DOMAINS "GET datacenters/" DC "/storagedomains"
#define DOMAIN(id, size)                                                                           \
    "{\"id\":\"" id "\",\"name\":\"data-" id "\",\"status\":\"active\"" size "}"

static void pause_ms(long ms)
{
    (void)nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

static bool never(void *context)
{
    (void)context;
    return false;
}

/* The copy of disks in domain `a` and in one that nobody knows; the reserve is 1 MiB. */
struct copying {
    struct fixture x;
    struct space_watch *watch;
    struct space_guard guard;
};

static bool is_stopped(struct copying *c)
{
    struct copy_opts opts = space_guard_opts(&c->guard);
    return opts.cancelled(opts.context);
}

static void begin_copy(struct copying *c, const struct fake_line *script)
{
    static const struct copy_opts inner = {.threads = 3, .cancelled = never};
    static const char *const domains[] = {NULL, "a"};
    start(&c->x, script);
    c->x.f.settings.reserve_domain_bytes = 1 << 20;
    c->x.f.settings.space_watch_s = 3600;
    c->watch = space_watch_begin(&c->x.f.run, &(struct space_watch_opts){.datacenter_id = DC,
                                                                         .domain_ids = domains,
                                                                         .count = 2,
                                                                         .what = "restore"});
    c->guard = (struct space_guard){.watch = c->watch, .inner = &inner};
    assert_int_equal(space_guard_opts(&c->guard).threads, 3);
}

/* It ends with that error, or well. */
static enum err_code end_copy(struct copying *c, enum err_code code, struct err *err)
{
    if (code != ERR_NONE)
        err_set(err, code, 0, "of the copy");
    space_watch_end(c->watch, code == ERR_NONE, err);
    stop(&c->x);
    return err->code;
}

static bool watched(const char *domains, struct err *err)
{
    struct copying c;
    begin_copy(&c, (const struct fake_line[]){{DOMAINS, 200, domains, 0}, {0}});
    for (int i = 0; i < 1000 && !fake_engine_has_seen(c.x.fake); i++)
        pause_ms(10);
    /* For the answer to be judged; with less time the test sees less, but never fails. */
    for (int i = 0; i < 20 && !is_stopped(&c); i++)
        pause_ms(10);
    err_clear(err);
    return end_copy(&c, ERR_CANCELLED, err) == ERR_CANCELLED;
}

static void roomy_domains_stop_nothing(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    assert_true(
        watched("{\"storage_domain\":[" DOMAIN("a", ",\"available\":\"524288\"") "]}", &err));
    assert_true(
        watched("{\"storage_domain\":[" DOMAIN("a", ",\"available\":\"1048576\"") "," DOMAIN(
                    "b", ",\"available\":\"0\"") "]}",
                &err));                                                       /* not one of ours */
    assert_true(watched("{\"storage_domain\":[" DOMAIN("a", "") "]}", &err)); /* not told */
    assert_true(watched("{}", &err));
}

/* In a domain with less than half of the reserve; somebody has `stopped` the task, or not. */
static enum err_code copied_in_low_domain(enum err_code code, enum err_code stopped,
                                          struct err *err)
{
    struct copying c;
    begin_copy(&c, (const struct fake_line[]){
                       {DOMAINS, 200,
                        "{\"storage_domain\":[" DOMAIN("a", ",\"available\":\"524287\"") "]}", 0},
                       {0}});
    for (int i = 0; i < 1000 && !is_stopped(&c); i++)
        pause_ms(10);
    assert_true(is_stopped(&c));
    c.x.f.stopped = stopped;
    return end_copy(&c, code, err);
}

static void low_domain_ends_the_copy(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    assert_int_equal(copied_in_low_domain(ERR_CANCELLED, ERR_NONE, &err), ERR_NO_SPACE);
    assert_non_null(strstr(err.message, "data-a"));
    assert_non_null(strstr(err.message, "the restore is given up"));
}

static void other_ends_stay_what_they_are(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    assert_int_equal(copied_in_low_domain(ERR_NONE, ERR_NONE, &err), ERR_NONE);
    assert_int_equal(copied_in_low_domain(ERR_IO, ERR_NONE, &err), ERR_IO);
    err_clear(&err);
    assert_int_equal(copied_in_low_domain(ERR_CANCELLED, ERR_CANCELLED, &err), ERR_CANCELLED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gone_things_are_called_so),
        cmocka_unit_test(roomy_domains_stop_nothing),
        cmocka_unit_test(low_domain_ends_the_copy),
        cmocka_unit_test(other_ends_stay_what_they_are),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
