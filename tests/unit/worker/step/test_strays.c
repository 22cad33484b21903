/* SPDX-License-Identifier: Apache-2.0 */
/* What an earlier attempt's last call made unheard, against a scripted engine: only what is ours is
 * taken off and cancelled. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/worker/step/engine_run.h"
#include "worker/step/strays.h"

#define SNAP         "dddddddd-0000-4000-8000-000000000001"
#define PROXY_1      "bbbbbbbb-0000-4000-8000-000000000001"
#define PROXY_2      "bbbbbbbb-0000-4000-8000-000000000002"
#define DISK_1       "cccccccc-0000-4000-8000-000000000001"
#define DISK_2       "cccccccc-0000-4000-8000-000000000002"
#define VOLUME_1     "eeeeeeee-0000-4000-8000-000000000001"
#define VOLUME_2     "eeeeeeee-0000-4000-8000-000000000002"
#define DOMAIN       "ffffffff-0000-4000-8000-000000000001"
#define TRANSFER     "99999999-0000-4000-8000-00000000000"
#define ATTACHED     "/diskattachments/"
#define DETACH(p, d) "DELETE vms/" p ATTACHED d "?detach_only=true"
#define LOOK(p, d)   "GET vms/" p ATTACHED d
#define THERE(d)     "{\"id\":\"" d "\"}"

struct fixture {
    struct fake_engine *fake;
    struct fake_run f;
    struct wire_journal_entry entries[3];
};

static void start(struct fixture *x, const struct fake_line *script)
{
    *x = (struct fixture){.fake = fake_engine_new(script)};
    engine_run_begin(&x->f, x->fake, NULL);
    x->f.offer.attempt = 3;
}

static void stop(struct fixture *x)
{
    engine_run_end(&x->f, x->fake);
}

/* Attempt 1 had disk 1 on proxy 1, attempt 2 had both disks on proxy 2, and the last entry says
 * what is a lie or a mistake: the VM itself. */
static void set_journal(struct fixture *x)
{
    static char one[] = "attachment." DISK_1, two[] = "attachment." DISK_2, snapshot[] = "snapshot";
    static char proxy_1[] = PROXY_1, proxy_2[] = PROXY_2, vm[] = FAKE_VM;
    static struct wire_handle first[] = {{one, proxy_1}, {snapshot, proxy_1}},
                              second[] = {{one, proxy_2}, {two, proxy_2}}, third[] = {{one, vm}};
    x->entries[0].handles = (struct wire_handles){first, 2};
    x->entries[1].handles = (struct wire_handles){second, 2};
    x->entries[2].handles = (struct wire_handles){third, 1};
    x->f.offer.journal = (struct wire_journal){x->entries, 3};
}

static void disks_leave_the_proxies_of_all_attempts(void **state)
{
    (void)state;
    struct fixture x;
    struct err err = ERR_INIT;
    start(&x, (const struct fake_line[]){{LOOK(PROXY_1, DISK_1), 404, NULL, 0},
                                         {LOOK(PROXY_2, DISK_1), 200, THERE(DISK_1), 0},
                                         {DETACH(PROXY_2, DISK_1), 200, "{}", 0},
                                         {LOOK(PROXY_2, DISK_1), 404, NULL, 0},
                                         {LOOK(PROXY_2, DISK_2), 200, THERE(DISK_2), 0},
                                         {DETACH(PROXY_2, DISK_2), 200, "{}", 0},
                                         {LOOK(PROXY_2, DISK_2), 404, NULL, 0},
                                         {0}});
    set_journal(&x);
    assert_true(strays_detach(&x.f.run, NULL, &err));
    assert_int_equal(x.f.run.handles.count, 0);
    stop(&x);
}

static void one_disk_alone_and_on_after_a_failure(void **state)
{
    (void)state;
    struct fixture x;
    struct err err = ERR_INIT;
    start(&x, (const struct fake_line[]){
                  {LOOK(PROXY_1, DISK_1), 200, THERE(DISK_1), 0},
                  {DETACH(PROXY_1, DISK_1), 403, "{\"detail\":\"not authorized\"}", 0},
                  {LOOK(PROXY_2, DISK_1), 200, THERE(DISK_1), 0},
                  {DETACH(PROXY_2, DISK_1), 200, "{}", 0},
                  {LOOK(PROXY_2, DISK_1), 404, NULL, 0},
                  {0}});
    set_journal(&x);
    assert_false(strays_detach(&x.f.run, DISK_1, &err));
    assert_int_equal(err.code, ERR_ENGINE_DENIED);
    assert_string_equal(handles_get(&x.f.run.handles, "attachment." DISK_1), PROXY_1);
    stop(&x);
}

#define LIST      "GET imagetransfers"
#define DISKS     "GET vms/" FAKE_VM "/snapshots/" SNAP "/disks"
#define VOLUME(v) "GET storagedomains/" DOMAIN "/disksnapshots/" v
#define OPEN(n, disk, direction, phase)                                                            \
    "{\"id\":\"" TRANSFER #n "\",\"image\":{\"id\":\"" disk "\"},\"direction\":\"" direction       \
    "\",\"phase\":\"" phase "\"}"
#define TRANSFERS(list) "{\"image_transfer\":[" list "]}"
#define IN_SNAPSHOT(disk, volume)                                                                  \
    "{\"id\":\"" disk "\",\"image_id\":\"" volume "\",\"provisioned_size\":\"1048576\","           \
    "\"format\":\"cow\",\"storage_type\":\"image\",\"status\":\"ok\","                             \
    "\"storage_domains\":{\"storage_domain\":[{\"id\":\"" DOMAIN "\"}]}}"
#define BOTH_DISKS                                                                                 \
    "{\"disk\":[" IN_SNAPSHOT(DISK_1, VOLUME_1) "," IN_SNAPSHOT(DISK_2, VOLUME_2) "]}"
#define STATUS(v, s) "{\"id\":\"" v "\",\"status\":\"" s "\"}"
#define CANCEL(n)    "POST imagetransfers/" TRANSFER #n "/cancel"

static bool ended(const struct fake_line *script, const char *own, struct err *err)
{
    struct fixture x;
    start(&x, script);
    if (own)
        handles_set(&x.f.run.handles, "transfer." DISK_1, own);
    bool ok = strays_end_transfers(&x.f.run, FAKE_VM, SNAP, err);
    stop(&x);
    return ok;
}

static void a_transfer_of_our_volume_is_cancelled(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    assert_true(ended(
        (const struct fake_line[]){{LIST, 200,
                                    TRANSFERS(OPEN(1, DISK_1, "download", "transferring") "," OPEN(
                                        2, DISK_2, "download", "finished_success")),
                                    0},
                                   {DISKS, 200, BOTH_DISKS, 0},
                                   {VOLUME(VOLUME_1), 200, STATUS(VOLUME_1, "locked"), 0},
                                   {CANCEL(1), 200, "{}", 0},
                                   {"GET imagetransfers/" TRANSFER "1", 404, NULL, 0},
                                   {0}},
        NULL, &err));
}

/* Of another snapshot of the disk, an upload, one of two, and our own. */
static void other_transfers_are_left_alone(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    assert_true(ended(
        (const struct fake_line[]){
            {LIST, 200, TRANSFERS(OPEN(1, DISK_1, "download", "transferring")), 0},
            {DISKS, 200, BOTH_DISKS, 0},
            {VOLUME(VOLUME_1), 200, STATUS(VOLUME_1, "ok"), 0},
            {0}},
        NULL, &err));
    assert_true(
        ended((const struct fake_line[]){{LIST, 200,
                                          TRANSFERS(OPEN(1, DISK_1, "upload", "transferring")), 0},
                                         {DISKS, 200, BOTH_DISKS, 0},
                                         {0}},
              NULL, &err));
    assert_true(ended(
        (const struct fake_line[]){{LIST, 200,
                                    TRANSFERS(OPEN(1, DISK_1, "download", "transferring") "," OPEN(
                                        2, DISK_1, "download", "initializing")),
                                    0},
                                   {DISKS, 200, BOTH_DISKS, 0},
                                   {0}},
        NULL, &err));
    assert_true(ended(
        (const struct fake_line[]){
            {LIST, 200, TRANSFERS(OPEN(1, DISK_1, "download", "transferring")), 0},
            {DISKS, 200, BOTH_DISKS, 0},
            {VOLUME(VOLUME_1), 200, STATUS(VOLUME_1, "locked"), 0},
            {0}},
        TRANSFER "1", &err));
}

static void a_snapshot_that_has_gone_has_no_transfers(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    assert_true(ended((const struct fake_line[]){{LIST, 200, "{}", 0}, {0}}, NULL, &err));
    assert_true(ended(
        (const struct fake_line[]){
            {LIST, 200, TRANSFERS(OPEN(1, DISK_1, "download", "transferring")), 0},
            {DISKS, 404, NULL, 0},
            {0}},
        NULL, &err));
    /* Who may not see them has none. */
    assert_true(
        ended((const struct fake_line[]){{LIST, 403, "{\"detail\":\"not authorized\"}", 0}, {0}},
              NULL, &err));
    assert_false(
        ended((const struct fake_line[]){{LIST, 405, "{\"detail\":\"no\"}", 0}, {0}}, NULL, &err));
    assert_int_equal(err.code, ERR_UNSUPPORTED);
}

static void only_later_attempts_look(void **state)
{
    (void)state;
    struct fake_run f;
    struct err held = ERR_INIT, lost = ERR_INIT;
    err_set(&held, ERR_CONFLICT, 409, "attached to other VMs");
    err_set(&lost, ERR_LEASE_LOST, 0, "lost");
    fake_run_init(&f);
    assert_false(strays_may_hold(&f.run, &held));
    f.offer.attempt = 2;
    assert_true(strays_may_hold(&f.run, &held));
    assert_false(strays_may_hold(&f.run, &lost));
    fake_run_done(&f);
}

#define BACKUP      "88888888-0000-4000-8000-00000000000"
#define BACKUPS     "GET vms/" FAKE_VM "/backups"
#define MARK(fence) "oxbow task=" FAKE_TASK " fence=" fence
#define IS(n, text, phase)                                                                         \
    "{\"id\":\"" BACKUP n "\",\"description\":\"" text "\",\"phase\":\"" phase "\"}"
#define SNAPSHOTS(kinds) "{\"snapshot\":[" kinds "]}"
#define KIND(type)       "{\"id\":\"" SNAP "\",\"snapshot_type\":\"" type "\"}"

static bool ended_backups(const struct fake_line *script, struct err *err)
{
    struct fixture x;
    start(&x, script);
    x.f.run.fence = 7;
    bool ok = strays_end_backups(&x.f.run, err);
    stop(&x);
    return ok;
}

/* One of an earlier fence, with the transfers of its disks; not our own, nor somebody else's. */
static void backups_of_earlier_attempts_are_ended(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    assert_true(ended_backups(
        (const struct fake_line[]){
            {BACKUPS, 200,
             "{\"backup\":[" IS("1", MARK("6"), "ready") "," IS("2", MARK("7"), "ready") "," IS(
                 "3", MARK("5"), "succeeded") "," IS("4", "nightly", "ready") "]}",
             0},
            {"GET vms/" FAKE_VM "/snapshots", 200, SNAPSHOTS(KIND("active")), 0},
            {BACKUPS "/" BACKUP "1/disks", 200,
             "{\"disk\":[{\"id\":\"" DISK_1 "\",\"backup_mode\":\"full\"}]}", 0},
            {LIST, 200,
             TRANSFERS(OPEN(1, DISK_1, "download", "transferring") "," OPEN(
                 2, DISK_2, "download", "transferring") "," OPEN(3, DISK_1, "upload",
                                                                 "transferring")),
             0},
            {"POST imagetransfers/" TRANSFER "1/cancel", 200, "{}", 0},
            {"GET imagetransfers/" TRANSFER "1", 404, NULL, 0},
            {BACKUPS "/" BACKUP "1", 200, IS("1", MARK("6"), "ready"), 0},
            {BACKUPS "/" BACKUP "1", 200, IS("1", MARK("6"), "ready"), 0},
            {"POST vms/" FAKE_VM "/backups/" BACKUP "1/finalize", 200, "{}", 0},
            {BACKUPS "/" BACKUP "1", 200, IS("1", MARK("6"), "finalizing"), 0},
            {BACKUPS "/" BACKUP "1", 200, IS("1", MARK("6"), "succeeded"), 0},
            {BACKUPS "/" BACKUP "1", 404, NULL, 0},
            {0}},
        &err));
}

#define HYBRID(phase)                                                                              \
    "{\"id\":\"" BACKUP "1\",\"description\":\"" MARK("6") "\",\"phase\":\"" phase                 \
                                                           "\",\"snapshot\":{\"id\":\"" SNAP       \
                                                           "\"}}"

/* It holds its disks alone, whatever snapshots there are; and its own goes with it. */
static void a_hybrid_backup_goes_with_its_snapshot(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    assert_true(ended_backups(
        (const struct fake_line[]){
            {BACKUPS, 200, "{\"backup\":[" HYBRID("ready") "]}", 0},
            {BACKUPS "/" BACKUP "1/disks", 200, "{\"disk\":[{\"id\":\"" DISK_1 "\"}]}", 0},
            {LIST, 200, TRANSFERS(OPEN(1, DISK_1, "download", "transferring")), 0},
            {"POST imagetransfers/" TRANSFER "1/cancel", 200, "{}", 0},
            {"GET imagetransfers/" TRANSFER "1", 404, NULL, 0},
            {BACKUPS "/" BACKUP "1", 200, HYBRID("ready"), 0},
            {BACKUPS "/" BACKUP "1", 200, HYBRID("ready"), 0},
            {"POST vms/" FAKE_VM "/backups/" BACKUP "1/finalize", 200, "{}", 0},
            {BACKUPS "/" BACKUP "1", 200, HYBRID("finalizing"), 0},
            {BACKUPS "/" BACKUP "1", 200, IS("1", MARK("6"), "succeeded"), 0},
            {BACKUPS "/" BACKUP "1", 200, IS("1", MARK("6"), "succeeded"), 0},
            {"GET vms/" FAKE_VM "/snapshots/" SNAP, 404, NULL, 0},
            {0}},
        &err));
}

/* A download of a disk may be of a snapshot's volume then, and anybody's. */
static void with_snapshots_no_transfer_is_touched(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    assert_true(ended_backups(
        (const struct fake_line[]){
            {BACKUPS, 200, "{\"backup\":[" IS("1", MARK("6"), "starting") "]}", 0},
            {"GET vms/" FAKE_VM "/snapshots", 200, SNAPSHOTS(KIND("active") "," KIND("regular")),
             0},
            {BACKUPS "/" BACKUP "1", 200, IS("1", MARK("6"), "starting"), 0},
            {BACKUPS "/" BACKUP "1", 200, IS("1", MARK("6"), "starting"), 0},
            {BACKUPS "/" BACKUP "1", 200, IS("1", MARK("6"), "failed"), 0},
            {BACKUPS "/" BACKUP "1", 200, IS("1", MARK("6"), "failed"), 0},
            {0}},
        &err));
    assert_true(ended_backups((const struct fake_line[]){{BACKUPS, 404, NULL, 0}, {0}}, &err));
}

#define MARKED(id, text)                                                                           \
    "{\"id\":\"" id "\",\"description\":\"" text                                                   \
    "\",\"snapshot_type\":\"regular\",\"snapshot_status\":\"ok\"}"
#define SNAP_2  "dddddddd-0000-4000-8000-000000000002"
#define ONE(id) "GET vms/" FAKE_VM "/snapshots/" id

static bool deleted(const struct fake_line *script, bool *ret_left, struct err *err)
{
    struct fixture x;
    struct ovirt_merge how = {.limit_ms = 1000};
    start(&x, script);
    bool ok = strays_delete_snapshots(&x.f.run, &how, err);
    const char *left = handles_get(&x.f.run.handles, "snapshot");
    *ret_left = left && strcmp(left, "*") == 0;
    stop(&x);
    return ok;
}

/* What an earlier attempt had asked for; not another task's, nor the user's. */
static void snapshots_of_the_task_are_deleted(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    bool left = true;
    assert_true(deleted(
        (const struct fake_line[]){
            {"GET vms/" FAKE_VM "/snapshots", 200,
             SNAPSHOTS(KIND("active") "," MARKED(SNAP, MARK("1")) "," MARKED(
                 SNAP_2, "oxbow task=77777777-0000-4000-8000-000000000001 fence=1")),
             0},
            {ONE(SNAP), 200, MARKED(SNAP, MARK("1")), 0},
            {"GET events?max=100", 200, "{}", 0},
            {"DELETE vms/" FAKE_VM "/snapshots/" SNAP, 200, "{}", 0},
            {ONE(SNAP), 404, NULL, 0},
            {0}},
        &left, &err));
    assert_false(left);
}

static void a_snapshot_that_stays_is_left_behind_by_name(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    bool left = false;
    assert_false(deleted(
        (const struct fake_line[]){
            {"GET vms/" FAKE_VM "/snapshots", 200, SNAPSHOTS(MARKED(SNAP, MARK("1"))), 0},
            {ONE(SNAP), 200, MARKED(SNAP, MARK("1")), 0},
            {"GET events?max=100", 200, "{}", 0},
            {"DELETE vms/" FAKE_VM "/snapshots/" SNAP, 403, "{\"detail\":\"not authorized\"}", 0},
            {0}},
        &left, &err));
    assert_int_equal(err.code, ERR_ENGINE_DENIED);
    assert_true(left);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(disks_leave_the_proxies_of_all_attempts),
        cmocka_unit_test(one_disk_alone_and_on_after_a_failure),
        cmocka_unit_test(a_transfer_of_our_volume_is_cancelled),
        cmocka_unit_test(other_transfers_are_left_alone),
        cmocka_unit_test(a_snapshot_that_has_gone_has_no_transfers),
        cmocka_unit_test(only_later_attempts_look),
        cmocka_unit_test(backups_of_earlier_attempts_are_ended),
        cmocka_unit_test(a_hybrid_backup_goes_with_its_snapshot),
        cmocka_unit_test(with_snapshots_no_transfer_is_touched),
        cmocka_unit_test(snapshots_of_the_task_are_deleted),
        cmocka_unit_test(a_snapshot_that_stays_is_left_behind_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
