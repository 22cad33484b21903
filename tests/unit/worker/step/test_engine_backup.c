/* SPDX-License-Identifier: Apache-2.0 */
/* The end of a backup of the engine's own, against a scripted engine: which snapshot is known as
 * its own, and that no other is touched. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/worker/step/engine_run.h"
#include "worker/step/engine_backup.h"

#define BACKUP    "dddddddd-0000-4000-8000-000000000001"
#define SNAP(n)   "eeeeeeee-0000-4000-8000-00000000000" #n
#define ONE       "GET vms/" FAKE_VM "/backups/" BACKUP
#define FINALIZE  "POST vms/" FAKE_VM "/backups/" BACKUP "/finalize"
#define SNAPSHOTS "GET vms/" FAKE_VM "/snapshots"
#define LOOK(n)   SNAPSHOTS "/" SNAP(n)
#define DELETE(n) "DELETE vms/" FAKE_VM "/snapshots/" SNAP(n)
#define OWN_TEXT  "Auto-generated for Backup VM"
#define AS(phase, more)                                                                            \
    "{\"id\":\"" BACKUP "\",\"phase\":\"" phase                                                    \
    "\",\"creation_date\":1000,\"modification_date\":2000" more "}"
#define NAMED(n) ",\"snapshot\":{\"id\":\"" SNAP(n) "\"}"
#define SNAPSHOT(n, text, date, status)                                                            \
    "{\"id\":\"" SNAP(n) "\",\"description\":\"" text "\",\"date\":" date                          \
                         ",\"snapshot_status\":\"" status "\",\"snapshot_type\":\"regular\"}"

struct fixture {
    struct fake_engine *fake;
    struct fake_run f;
};

static bool end(struct fixture *x, const struct fake_line *script, struct err *err)
{
    *x = (struct fixture){.fake = fake_engine_new(script)};
    engine_run_begin(&x->f, x->fake, NULL);
    return engine_backup_end(&x->f.run, FAKE_VM, BACKUP, engine_snapshot_handle, &x->f.run, err);
}

static const char *handle(const struct fixture *x, const char *snapshot)
{
    return handles_get2(&x->f.run.handles, HANDLE_BACKUP_SNAPSHOT, snapshot);
}

static void stop(struct fixture *x)
{
    engine_run_end(&x->f, x->fake);
}

/* It becomes a handle before the end is asked for; that it has gone is proved by a look. */
static void a_snapshot_that_the_engine_merges(void **state)
{
    (void)state;
    struct fixture x;
    struct err err = ERR_INIT;
    assert_true(end(&x,
                    (const struct fake_line[]){{ONE, 200, AS("ready", NAMED(1)), 0},
                                               {ONE, 200, AS("ready", NAMED(1)), 0},
                                               {FINALIZE, 200, "{}", 0},
                                               {ONE, 200, AS("finalizing", NAMED(1)), 0},
                                               {ONE, 200, AS("succeeded", ""), 0},
                                               {ONE, 200, AS("succeeded", ""), 0},
                                               {LOOK(1), 404, NULL, 0},
                                               {0}},
                    &err));
    assert_string_equal(handle(&x, SNAP(1)), FAKE_VM);
    assert_true(engine_snapshots_remove(&x.f.run, &err));
    assert_int_equal(x.f.run.handles.count, 0);
    stop(&x);
}

/* "succeeded" says nothing of it. */
static void a_snapshot_that_the_engine_leaves(void **state)
{
    (void)state;
    struct fixture x;
    struct err err = ERR_INIT;
    assert_true(
        end(&x,
            (const struct fake_line[]){{ONE, 200, AS("succeeded", NAMED(1)), 0},
                                       {LOOK(1), 200, SNAPSHOT(1, OWN_TEXT, "1500", "ok"), 0},
                                       {"GET events?max=100", 200, "{}", 0},
                                       {DELETE(1), 200, "{}", 0},
                                       {LOOK(1), 404, NULL, 0},
                                       {0}},
            &err));
    assert_true(engine_snapshots_remove(&x.f.run, &err));
    assert_int_equal(x.f.run.handles.count, 0);
    stop(&x);
}

/* A backup that fails names none any more: the engine's clock tells. */
static void a_failed_backup_knows_its_snapshot_by_time(void **state)
{
    (void)state;
    struct fixture x;
    struct err err = ERR_INIT;
    assert_true(
        end(&x,
            (const struct fake_line[]){
                {ONE, 200, AS("failed", ""), 0},
                {SNAPSHOTS, 200,
                 "{\"snapshot\":[" SNAPSHOT(1, OWN_TEXT, "999", "ok") "," SNAPSHOT(
                     2, OWN_TEXT, "1500",
                     "ok") "," SNAPSHOT(3, OWN_TEXT " by hand", "1500",
                                        "ok") "," SNAPSHOT(4, "nightly", "1500",
                                                           "ok") "," SNAPSHOT(5, OWN_TEXT, "2001",
                                                                              "ok") "]}",
                 0},
                {0}},
            &err));
    assert_int_equal(x.f.run.handles.count, 1);
    assert_string_equal(handle(&x, SNAP(2)), FAKE_VM);
    stop(&x);
}

static void one_that_is_not_there_is_over(void **state)
{
    (void)state;
    struct fixture x;
    struct err err = ERR_INIT;
    assert_true(end(&x, (const struct fake_line[]){{ONE, 404, NULL, 0}, {0}}, &err));
    assert_int_equal(x.f.run.handles.count, 0);
    stop(&x);
}

/* Whatever a handle says: only what the engine itself describes so. */
static void another_snapshot_is_refused(void **state)
{
    (void)state;
    struct fixture x;
    struct err err = ERR_INIT;
    assert_true(end(&x,
                    (const struct fake_line[]){
                        {ONE, 404, NULL, 0},
                        {LOOK(4), 200, SNAPSHOT(4, "before the update", "1500", "ok"), 0},
                        {0}},
                    &err));
    handles_set(&x.f.run.handles, HANDLE_BACKUP_SNAPSHOT SNAP(4), FAKE_VM);
    assert_false(engine_snapshots_remove(&x.f.run, &err));
    assert_int_equal(err.code, ERR_REFUSED);
    assert_string_equal(handle(&x, SNAP(4)), FAKE_VM);
    stop(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_snapshot_that_the_engine_merges),
        cmocka_unit_test(a_snapshot_that_the_engine_leaves),
        cmocka_unit_test(a_failed_backup_knows_its_snapshot_by_time),
        cmocka_unit_test(one_that_is_not_there_is_over),
        cmocka_unit_test(another_snapshot_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
