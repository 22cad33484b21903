/* SPDX-License-Identifier: Apache-2.0 */
/* What has gone while it was backed up, and a storage domain that fills up: against a scripted
 * engine. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <cmocka.h>

#include "tests/unit/worker/fake_run.h"
#include "tests/unit/worker/ovirt/fake_engine.h"
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
    fake_run_init(&x->f);
    x->f.run.engine = fake_engine_client(x->fake);
    x->f.run.session = engine_session_new(x->f.run.engine, NULL);
}

static void stop(struct fixture *x)
{
    engine_session_free(x->f.run.session);
    engine_free(x->f.run.engine);
    fake_run_done(&x->f);
    fake_engine_check(x->fake);
    fake_engine_free(x->fake);
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

/* One disk, in domain `a`; the reserve is 1 MiB. */
static bool watched(const char *domains, struct err *err)
{
    struct fixture x;
    start(&x, (const struct fake_line[]){{DOMAINS, 200, domains, 0}, {0}});
    x.f.settings.reserve_domain_bytes = 1 << 20;
    x.f.settings.space_watch_s = 3600;
    static char domain[] = "a", dc[] = DC;
    struct ovirt_disk disk = {.storage_domain_id = domain};
    struct backup_disk planned = {.disk = &disk};
    struct backup b = {.plan = &planned, .plan_count = 1};
    b.site.datacenter_id = dc;
    struct space_watch *w = space_watch_begin(&x.f.run, &b);
    for (int i = 0; i < 1000 && !fake_engine_has_seen(x.fake); i++)
        pause_ms(10);
    /* For the answer to be judged; with less time the test sees less, but never fails. */
    for (int i = 0; i < 20 && !space_watch_is_low(w); i++)
        pause_ms(10);
    bool ok = space_watch_end(w, err);
    stop(&x);
    return ok;
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
    assert_int_equal(err.code, ERR_NONE);
}

static void low_domain_ends_the_copy(void **state)
{
    (void)state;
    struct fixture x;
    struct err err = ERR_INIT;
    start(&x, (const struct fake_line[]){
                  {DOMAINS, 200,
                   "{\"storage_domain\":[" DOMAIN("a", ",\"available\":\"524287\"") "]}", 0},
                  {0}});
    x.f.settings.reserve_domain_bytes = 1 << 20;
    x.f.settings.space_watch_s = 3600;
    static char domain[] = "a", dc[] = DC;
    struct ovirt_disk disk = {.storage_domain_id = domain};
    struct backup_disk planned = {.disk = &disk};
    struct backup b = {.plan = &planned, .plan_count = 1};
    b.site.datacenter_id = dc;
    struct space_watch *w = space_watch_begin(&x.f.run, &b);
    for (int i = 0; i < 1000 && !space_watch_is_low(w); i++)
        pause_ms(10);
    assert_true(space_watch_is_low(w));
    assert_false(space_watch_end(w, &err));
    assert_int_equal(err.code, ERR_NO_SPACE);
    assert_non_null(strstr(err.message, "data-a"));
    stop(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gone_things_are_called_so),
        cmocka_unit_test(roomy_domains_stop_nothing),
        cmocka_unit_test(low_domain_ends_the_copy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
