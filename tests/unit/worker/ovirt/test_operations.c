/* SPDX-License-Identifier: Apache-2.0 */
/* The typed operations: the requests they make, in order, and how they end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/worker/ovirt/fixture.h"
#include "worker/ovirt/attachment.h"
#include "worker/ovirt/nic.h"
#include "worker/ovirt/snapshot.h"
#include "worker/ovirt/vm.h"

#define VM    "aaaaaaaa-0000-4000-8000-000000000001"
#define VM2   "aaaaaaaa-0000-4000-8000-000000000002"
#define PROXY "bbbbbbbb-0000-4000-8000-000000000001"
#define DISK  "cccccccc-0000-4000-8000-000000000001"
#define SNAP  "dddddddd-0000-4000-8000-000000000001"
#define CLUS  "eeeeeeee-0000-4000-8000-000000000001"
#define CLUS2 "eeeeeeee-0000-4000-8000-000000000002"
#define MARK  "oxbow task=x fence=1"

/* --- Snapshots ------------------------------------------------------------------------------- */
#define SNAPS "vms/" VM "/snapshots"
#define SNAP_AS(status)                                                                            \
    "{\"id\":\"" SNAP "\",\"description\":\"" MARK "\",\"snapshot_status\":\"" status              \
    "\",\"snapshot_type\":\"regular\",\"date\":1767630835851}"

static void snapshot_is_made_and_waited_for(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){{"POST " SNAPS, 202, SNAP_AS("locked"), 0},
                                         {"GET " SNAPS "/" SNAP, 200, SNAP_AS("locked"), 0},
                                         {"GET " SNAPS "/" SNAP, 200, SNAP_AS("ok"), 0},
                                         {0}});
    const char *disks[] = {DISK};
    SCOPED_FREE char *id = ovirt_snapshot_create(x.session, VM, MARK, disks, 1, NULL, &x.err);
    assert_string_equal(id, SNAP);
    int64_t time_ms = 0;
    assert_true(ovirt_snapshot_wait_ok(x.session, VM, id, 60000, &time_ms, &x.err));
    assert_int_equal(time_ms, 1767630835851);
    stop(&x);
}

static void snapshot_whose_answer_was_lost_is_found_by_description(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){
                  {"POST " SNAPS, 0, NULL, FAKE_DROP},
                  {"GET " SNAPS, 200,
                   "{\"snapshot\":[{\"id\":\"1\",\"description\":\"Active VM\"},"
                   "{\"id\":\"2\",\"description\":\"" MARK "0\"}," SNAP_AS("locked") "]}",
                   0},
                  {0}});
    const char *disks[] = {DISK};
    SCOPED_FREE char *id = ovirt_snapshot_create(x.session, VM, MARK, disks, 1, NULL, &x.err);
    assert_string_equal(id, SNAP);
    stop(&x);
}

static void snapshot_that_may_be_there_is_called_unknown(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){
                  {"POST " SNAPS, 0, NULL, FAKE_DROP},
                  {"GET " SNAPS, 403, "{\"detail\":\"User is not authorized\"}", 0},
                  {"POST " SNAPS, 202, "{}", 0},
                  {"GET " SNAPS, 200, "{}", 0},
                  {"POST " SNAPS, 409, "{\"detail\":\"[VM is previewing a Snapshot.]\"}", 0},
                  {0}});
    const char *disks[] = {DISK};
    bool unknown = false;
    struct ovirt_snapshot_how how = {.ret_unknown = &unknown};
    assert_null(ovirt_snapshot_create(x.session, VM, MARK, disks, 1, &how, &x.err));
    assert_true(unknown); /* the answer is lost, and nobody may look */
    unknown = false;
    err_clear(&x.err);
    assert_null(ovirt_snapshot_create(x.session, VM, MARK, disks, 1, &how, &x.err));
    assert_true(unknown); /* accepted, and not to be seen */
    unknown = false;
    err_clear(&x.err);
    assert_null(ovirt_snapshot_create(x.session, VM, MARK, disks, 1, &how, &x.err));
    assert_false(unknown); /* refused */
    stop(&x);
}

static void snapshot_does_not_wait_for_a_lock_if_asked_so(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){{"POST " SNAPS, 409,
                                          "{\"detail\":\"[VM is locked. Please try again in a few "
                                          "minutes.]\"}",
                                          0},
                                         {0}});
    const char *disks[] = {DISK};
    bool unknown = false;
    struct ovirt_snapshot_how how = {.no_wait = true, .ret_unknown = &unknown};
    assert_null(ovirt_snapshot_create(x.session, VM, MARK, disks, 1, &how, &x.err));
    assert_code(&x, ERR_ENGINE_BUSY);
    assert_false(unknown);
    stop(&x);
}

static void snapshot_answer_without_an_id_is_looked_up(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){
                  {"POST " SNAPS, 202, "{}", 0},
                  {"GET " SNAPS, 200, "{\"snapshot\":[" SNAP_AS("locked") "]}", 0},
                  {"POST " SNAPS, 202, NULL, 0},
                  {"GET " SNAPS, 200, "{}", 0},
                  {0}});
    const char *disks[] = {DISK};
    SCOPED_FREE char *id = ovirt_snapshot_create(x.session, VM, MARK, disks, 1, NULL, &x.err);
    assert_string_equal(id, SNAP);
    assert_null(ovirt_snapshot_create(x.session, VM, MARK, disks, 1, NULL, &x.err));
    assert_code(&x, ERR_ENGINE_PROTOCOL);
    stop(&x);
}

static void bad_snapshots_are_refused(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){{0}});
    const char *good[] = {DISK}, *bad[] = {"x"};
    assert_null(ovirt_snapshot_create(x.session, "x", MARK, good, 1, NULL, &x.err));
    assert_code(&x, ERR_BAD_ARGUMENT);
    err_clear(&x.err);
    assert_null(ovirt_snapshot_create(x.session, VM, "", good, 1, NULL, &x.err));
    assert_code(&x, ERR_BAD_ARGUMENT);
    err_clear(&x.err);
    assert_null(ovirt_snapshot_create(x.session, VM, MARK, good, 0, NULL, &x.err));
    assert_code(&x, ERR_BAD_ARGUMENT);
    err_clear(&x.err);
    assert_null(ovirt_snapshot_create(x.session, VM, MARK, bad, 1, NULL, &x.err));
    assert_code(&x, ERR_BAD_ARGUMENT);
    err_clear(&x.err);
    assert_null(ovirt_snapshot_create(x.session, VM, "\xff", good, 1, NULL, &x.err));
    assert_code(&x, ERR_BAD_ARGUMENT);
    stop(&x);
}

static void disks_of_a_snapshot(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){
                  {"GET " SNAPS "/" SNAP "/disks", 200,
                   "{\"disk\":[{\"id\":\"" DISK "\",\"image_id\":\"" VM
                   "\",\"provisioned_size\":\"4096\",\"snapshot\":{\"id\":\"" SNAP "\"}}]}",
                   0},
                  {"GET " SNAPS "/" SNAP "/disks", 200,
                   "{\"disk\":[{\"id\":\"" DISK "\"},{\"name\":\"no id\"}]}", 0},
                  {"GET " SNAPS "/" SNAP "/disks", 404, NULL, 0},
                  {0}});
    struct ovirt_disks disks;
    assert_true(ovirt_snapshot_disks(x.session, VM, SNAP, &disks, &x.err));
    assert_int_equal(disks.count, 1);
    assert_string_equal(disks.v[0].snapshot_id, SNAP);
    ovirt_disks_done(&disks);
    assert_false(ovirt_snapshot_disks(x.session, VM, SNAP, &disks, &x.err));
    assert_code(&x, ERR_ENGINE_PROTOCOL);
    err_clear(&x.err);
    assert_false(ovirt_snapshot_disks(x.session, VM, SNAP, &disks, &x.err));
    assert_code(&x, ERR_NOT_FOUND);
    stop(&x);
}

static void snapshot_that_vanishes_has_failed(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){{"GET " SNAPS "/" SNAP, 200, SNAP_AS("locked"), 0},
                                         {"GET " SNAPS "/" SNAP, 404, NULL, 0},
                                         {0}});
    assert_false(ovirt_snapshot_wait_ok(x.session, VM, SNAP, 60000, NULL, &x.err));
    assert_code(&x, ERR_SNAPSHOT_FAILED);
    stop(&x);
}

static void snapshot_wait_has_a_limit(void **state)
{
    (void)state;
    struct fixture x;
    struct fake_line script[100] = {{0}};
    for (int i = 0; i < 99; i++)
        script[i] = (struct fake_line){"GET " SNAPS "/" SNAP, 200, SNAP_AS("locked"), 0};
    start(&x, script);
    assert_false(ovirt_snapshot_wait_ok(x.session, VM, SNAP, 30000, NULL, &x.err));
    assert_code(&x, ERR_SNAPSHOT_FAILED);
    assert_non_null(strstr(x.err.message, "still locked after 30 s"));
    script[fake_engine_seen_count(x.fake)] = (struct fake_line){0};
    stop(&x);
}

#define NO_EVENTS                                                                                  \
    {                                                                                              \
        "GET events?max=100", 200, "{}", 0                                                         \
    }
static bool delete_snapshot(struct fixture *x, unsigned tries)
{
    struct ovirt_merge how = {.tries = tries, .limit_ms = 3600 * 1000};
    return ovirt_snapshot_delete(x->session, VM, SNAP, "oxbow task=x", &how, &x->err);
}

static void locked_snapshot_is_not_waited_for_as_long_as_a_merge(void **state)
{
    (void)state;
    struct fixture x;
    struct fake_line script[30] = {{0}};
    for (int i = 0; i < 29; i++)
        script[i] = (struct fake_line){"GET " SNAPS "/" SNAP, 200, SNAP_AS("locked"), 0};
    start(&x, script);
    struct ovirt_merge how = {.limit_ms = 3600 * 1000, .locked_ms = 20 * 1000};
    assert_false(ovirt_snapshot_delete(x.session, VM, SNAP, "oxbow task=x", &how, &x.err));
    assert_code(&x, ERR_MERGE_FAILED);
    assert_non_null(strstr(x.err.message, "still locked after 20 s"));
    script[fake_engine_seen_count(x.fake)] = (struct fake_line){0};
    stop(&x);
}

static void merge_survives_the_race_after_delete(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){
                  {"GET " SNAPS "/" SNAP, 200, SNAP_AS("ok"), 0},
                  NO_EVENTS,
                  {"DELETE " SNAPS "/" SNAP, 200, "{\"status\":\"complete\"}", 0},
                  /* still reads ok for a moment */
                  {"GET " SNAPS "/" SNAP, 200, SNAP_AS("ok"), 0},
                  {"GET " SNAPS "/" SNAP, 200, SNAP_AS("locked"), 0},
                  {"GET " SNAPS "/" SNAP, 404, NULL, 0},
                  {0}});
    assert_true(delete_snapshot(&x, 1));
    stop(&x);
}

static void failed_merge_is_tried_again(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){{"GET " SNAPS "/" SNAP, 200, SNAP_AS("ok"), 0},
                                         NO_EVENTS,
                                         {"DELETE " SNAPS "/" SNAP, 200, "{}", 0},
                                         {"GET " SNAPS "/" SNAP, 200, SNAP_AS("locked"), 0},
                                         {"GET " SNAPS "/" SNAP, 200, SNAP_AS("ok"), 0},
                                         NO_EVENTS,
                                         {"DELETE " SNAPS "/" SNAP, 200, "{}", 0},
                                         {"GET " SNAPS "/" SNAP, 404, NULL, 0},
                                         {0}});
    assert_true(delete_snapshot(&x, 2));
    stop(&x);
}

static void merge_that_keeps_failing_is_reported(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){{"GET " SNAPS "/" SNAP, 200, SNAP_AS("ok"), 0},
                                         NO_EVENTS,
                                         {"DELETE " SNAPS "/" SNAP, 200, "{}", 0},
                                         {"GET " SNAPS "/" SNAP, 200, SNAP_AS("locked"), 0},
                                         {"GET " SNAPS "/" SNAP, 200, SNAP_AS("ok"), 0},
                                         {0}});
    assert_false(delete_snapshot(&x, 1));
    assert_code(&x, ERR_MERGE_FAILED);
    stop(&x);
}

#define EVENT(index)                                                                               \
    "{\"id\":\"" #index "\",\"index\":\"" #index "\",\"code\":\"357\",\"vm\":{\"id\":\"" VM "\"}}"
#define EVENTS(list)                                                                               \
    {                                                                                              \
        "GET events?max=100", 200, "{\"event\":[" list "]}", 0                                     \
    }

/* Never seen locked for settle_ms: only an event newer than the DELETE says that it failed. */
static void merge_failure_without_a_lock_needs_an_event(void **state)
{
    (void)state;
    struct fixture x;
    const struct fake_line look = {"GET " SNAPS "/" SNAP, 200, SNAP_AS("ok"), 0};
    start(&x, (const struct fake_line[]){look,
                                         EVENTS(EVENT(41)),
                                         {"DELETE " SNAPS "/" SNAP, 200, "{}", 0},
                                         look,
                                         look,
                                         EVENTS(EVENT(41)), /* an old story */
                                         look,
                                         EVENTS(EVENT(42) "," EVENT(41)),
                                         {0}});
    struct engine_conf conf = fake_engine_conf(x.fake);
    conf.settle_ms = 1; /* over at the second look */
    engine_session_free(x.session);
    engine_free(x.engine);
    x.engine = engine_new(&conf, &x.err);
    x.session = engine_session_new(x.engine, NULL);
    assert_false(delete_snapshot(&x, 1));
    assert_code(&x, ERR_MERGE_FAILED);
    stop(&x);
}

static void foreign_snapshots_are_never_deleted(void **state)
{
    (void)state;
    static const char *const others[] = {"before the update", "", "oxbow task=y fence=1",
                                         "my oxbow task=x"};
    for (size_t i = 0; i < ARRAY_LEN(others); i++) {
        struct fixture x;
        SCOPED_FREE char *body = xasprintf(
            "{\"id\":\"" SNAP "\",\"description\":\"%s\",\"snapshot_status\":\"ok\"}", others[i]);
        const struct fake_line script[] = {{"GET " SNAPS "/" SNAP, 200, body, 0}, {0}};
        start(&x, script);
        assert_false(delete_snapshot(&x, 1));
        assert_code(&x, ERR_REFUSED);
        stop(&x);
    }
}

static void snapshot_being_merged_already_is_waited_for(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){{"GET " SNAPS "/" SNAP, 200, SNAP_AS("locked"), 0},
                                         {"GET " SNAPS "/" SNAP, 200, SNAP_AS("locked"), 0},
                                         {"GET " SNAPS "/" SNAP, 404, NULL, 0},
                                         {0}});
    assert_true(delete_snapshot(&x, 1));
    stop(&x);
}

static void lost_delete_is_settled_by_its_effect(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){{"GET " SNAPS "/" SNAP, 200, SNAP_AS("ok"), 0},
                                         NO_EVENTS,
                                         {"DELETE " SNAPS "/" SNAP, 0, NULL, FAKE_DROP},
                                         {"GET " SNAPS "/" SNAP, 200, SNAP_AS("locked"), 0},
                                         {"GET " SNAPS "/" SNAP, 200, SNAP_AS("locked"), 0},
                                         {"GET " SNAPS "/" SNAP, 404, NULL, 0},
                                         {0}});
    assert_true(delete_snapshot(&x, 1));
    stop(&x);
}

static void ovf_of_a_snapshot_is_byte_exact(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){
                  {"GET " SNAPS "/" SNAP "?all_content=true", 200,
                   "{\"id\":\"" SNAP "\",\"initialization\":{\"configuration\":{\"type\":\"ovf\","
                   "\"data\":\"<a>\\u00e4\\n\\t\\\"&amp;</a>\\n\"}}}",
                   0},
                  {"GET " SNAPS "/" SNAP "?all_content=true", 200, "{\"id\":\"" SNAP "\"}", 0},
                  {0}});
    SCOPED_BUF struct buf ovf;
    assert_true(ovirt_snapshot_ovf(x.session, VM, SNAP, &ovf, &x.err));
    assert_string_equal(buf_str(&ovf), "<a>\xc3\xa4\n\t\"&amp;</a>\n");
    buf_done(&ovf);
    assert_false(ovirt_snapshot_ovf(x.session, VM, SNAP, &ovf, &x.err));
    assert_code(&x, ERR_ENGINE_PROTOCOL);
    stop(&x);
}

static void snapshots_are_listed_by_marker(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){
                  {"GET " SNAPS, 200,
                   "{\"snapshot\":[{\"id\":\"1\",\"description\":\"Active VM\",\"snapshot_type\":"
                   "\"active\"}," SNAP_AS("ok") "]}",
                   0},
                  {"GET " SNAPS, 200, "{}", 0},
                  {0}});
    struct ovirt_snapshots list;
    assert_true(ovirt_snapshots_list(x.session, VM, "oxbow task=", &list, &x.err));
    assert_int_equal(list.count, 1);
    assert_string_equal(list.v[0].id, SNAP);
    assert_string_equal(list.v[0].type, "regular");
    ovirt_snapshots_done(&list);
    assert_true(ovirt_snapshots_list(x.session, VM, NULL, &list, &x.err));
    assert_int_equal(list.count, 0);
    ovirt_snapshots_done(&list);
    stop(&x);
}

/* --- Attachments ----------------------------------------------------------------------------- */
#define ATTACH "vms/" PROXY "/diskattachments"
#define ATTACHED(active)                                                                           \
    "{\"id\":\"" DISK "\",\"active\":\"" active "\",\"disk\":{\"id\":\"" DISK "\"}}"

static void attach_and_detach(void **state)
{
    (void)state;
    struct fixture x;
    start(&x,
          (const struct fake_line[]){{"POST " ATTACH, 201, ATTACHED("true"), 0},
                                     {"DELETE " ATTACH "/" DISK "?detach_only=true", 200, "{}", 0},
                                     {"GET " ATTACH "/" DISK, 200, ATTACHED("true"), 0},
                                     {"GET " ATTACH "/" DISK, 404, NULL, 0},
                                     {0}});
    assert_true(ovirt_attach_snapshot_disk(x.session, PROXY, DISK, SNAP, NULL, &x.err));
    assert_non_null(
        strstr(fake_engine_seen(x.fake, 0)->body, "\"snapshot\":{\"id\":\"" SNAP "\"}"));
    assert_true(ovirt_detach(x.session, PROXY, DISK, 60000, &x.err));
    stop(&x);
}

static void attach_needs_both_ids(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){{0}});
    const char *bad[] = {NULL, "", "x", "../../vms"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        err_clear(&x.err);
        assert_false(ovirt_attach_snapshot_disk(x.session, PROXY, DISK, bad[i], NULL, &x.err));
        assert_code(&x, ERR_BAD_ARGUMENT);
        err_clear(&x.err);
        assert_false(ovirt_detach(x.session, PROXY, bad[i], 1, &x.err));
        assert_code(&x, ERR_BAD_ARGUMENT);
    }
    stop(&x);
}

static void lost_attach_is_found_on_the_proxy(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){{"POST " ATTACH, 0, NULL, FAKE_DROP},
                                         {"GET " ATTACH "/" DISK, 200, ATTACHED("true"), 0},
                                         {0}});
    assert_true(ovirt_attach_snapshot_disk(x.session, PROXY, DISK, SNAP, NULL, &x.err));
    stop(&x);
}

#define TAKEN "{\"detail\":\"[Cannot attach Virtual Disk. The disk is already attached to VM.]\"}"
static void half_done_attach_is_completed(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){
                  {"POST " ATTACH, 400, "{\"detail\":\"[Failed to hot-plug disk]\"}", 0},
                  {"GET " ATTACH "/" DISK, 200, ATTACHED("false"), 0},
                  {"POST " ATTACH, 409, TAKEN, 0},
                  {"GET " ATTACH "/" DISK, 200, ATTACHED("false"), 0},
                  {"PUT " ATTACH "/" DISK, 200, ATTACHED("true"), 0},
                  {0}});
    assert_true(ovirt_attach_snapshot_disk(x.session, PROXY, DISK, SNAP, NULL, &x.err));
    assert_string_equal(fake_engine_seen(x.fake, 4)->body, "{\"active\":\"true\"}");
    stop(&x);
}

static void disk_that_was_there_before_is_a_conflict(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){{"POST " ATTACH, 409, TAKEN, 0}, {0}});
    assert_false(ovirt_attach_snapshot_disk(x.session, PROXY, DISK, SNAP, NULL, &x.err));
    assert_code(&x, ERR_CONFLICT);
    stop(&x);
}

static void attachments_are_listed(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){
                  {"GET " ATTACH, 200, "{\"disk_attachment\":[" ATTACHED("true") "]}", 0}, {0}});
    struct ovirt_attachments list;
    assert_true(ovirt_attachments_list(x.session, PROXY, &list, &x.err));
    assert_true(ovirt_attachments_find(&list, DISK)->active);
    assert_null(ovirt_attachments_find(&list, VM));
    ovirt_attachments_done(&list);
    stop(&x);
}

/* --- Disks ----------------------------------------------------------------------------------- */
static const struct ovirt_disk_spec spec = {
    .id = DISK, .storage_domain_id = CLUS, .format = "raw", .size_bytes = 4096};

static void disk_is_made_waited_for_and_deleted(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){
                  {"POST disks", 0, NULL, FAKE_DROP},
                  {"GET disks/" DISK, 200, "{\"id\":\"" DISK "\",\"status\":\"locked\"}", 0},
                  {"GET disks/" DISK, 200, "{\"id\":\"" DISK "\",\"status\":\"locked\"}", 0},
                  {"GET disks/" DISK, 200, "{\"id\":\"" DISK "\",\"status\":\"ok\"}", 0},
                  {"DELETE disks/" DISK, 200, "{}", 0},
                  {"GET disks/" DISK, 200, "{\"id\":\"" DISK "\",\"status\":\"locked\"}", 0},
                  {"GET disks/" DISK, 404, NULL, 0},
                  {"DELETE disks/" DISK, 404, NULL, 0},
                  {"GET disks/" DISK, 404, NULL, 0},
                  {0}});
    assert_true(ovirt_disk_create(x.session, &spec, &x.err));
    assert_true(ovirt_disk_wait_ok(x.session, DISK, 60000, &x.err));
    assert_true(ovirt_disk_delete(x.session, DISK, 60000, &x.err));
    assert_true(ovirt_disk_delete(x.session, DISK, 60000, &x.err));
    stop(&x);
}

static void disk_that_becomes_illegal_has_failed(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){{"GET disks/" DISK, 200, "{\"status\":\"illegal\"}", 0},
                                         {"GET disks/" DISK, 404, NULL, 0},
                                         {0}});
    assert_false(ovirt_disk_wait_ok(x.session, DISK, 60000, &x.err));
    assert_code(&x, ERR_ENGINE_FAULT);
    err_clear(&x.err);
    assert_false(ovirt_disk_wait_ok(x.session, DISK, 60000, &x.err));
    assert_code(&x, ERR_ENGINE_FAULT);
    stop(&x);
}

static void bad_disk_specs_are_refused(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){{0}});
    struct ovirt_disk_spec bad[] = {spec, spec, spec, spec, spec};
    bad[0].id = "x";
    bad[1].storage_domain_id = NULL;
    bad[2].format = "qcow2";
    bad[3].size_bytes = 1000;
    bad[4].size_bytes = 0;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        err_clear(&x.err);
        assert_false(ovirt_disk_create(x.session, &bad[i], &x.err));
        assert_code(&x, ERR_BAD_ARGUMENT);
    }
    stop(&x);
}

/* --- VMs ------------------------------------------------------------------------------------- */
struct names {
    char text[512];
    bool refuse;
};

static bool note_name(void *ctx, const struct ovirt_vm_row *row, struct err *err)
{
    struct names *n = ctx;
    if (n->refuse)
        return err_set(err, ERR_INTERNAL, 0, "enough");
    size_t len = strlen(n->text);
    (void)snprintf(n->text + len, sizeof n->text - len, "%s%s", row->name,
                   row->is_hosted_engine ? "(engine) " : " ");
    return true;
}

#define ROW(id, name, cluster)                                                                     \
    "{\"id\":\"" id "\",\"name\":\"" name "\",\"status\":\"up\",\"cluster\":{\"id\":\"" cluster    \
    "\"}}"
#define SEARCH(text, page)                                                                         \
    {                                                                                              \
        "GET vms?search=" text "sortby name page " #page "&max=2", 200, 0, 0                       \
    }
#define PAGE_OF(text, page, body)                                                                  \
    {                                                                                              \
        "GET vms?search=" text "sortby name page " #page "&max=2", 200, "{\"vm\":[" body "]}", 0   \
    }

static void search_reads_all_pages(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){
                  PAGE_OF("", 1, ROW(VM, "a", CLUS) "," ROW(VM2, "b", CLUS)),
                  /* the list has shifted: b again */
                  PAGE_OF("", 2,
                          ROW(VM2, "b", CLUS) "," ROW("aaaaaaaa-0000-4000-8000-000000000003", "c",
                                                      CLUS2)),
                  PAGE_OF("", 3,
                          "{\"id\":\"aaaaaaaa-0000-4000-8000-000000000004\",\"name\":\"he\","
                          "\"origin\":\"managed_hosted_engine\"}"),
                  {"GET vms?search=sortby name page 4&max=2", 200, "{}", 0},
                  {0}});
    struct names n = {.text = ""};
    struct ovirt_vm_search what = {.page_size = 2};
    assert_true(ovirt_vm_search(x.session, &what, note_name, &n, &x.err));
    assert_string_equal(n.text, "a b c he(engine) ");
    stop(&x);
}

static void search_filters_clusters_and_quotes_names(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){
                  PAGE_OF("tag=\"backup\" ", 1, ROW(VM, "a", CLUS) "," ROW(VM2, "b", CLUS2)),
                  {"GET vms?search=tag=\"backup\" sortby name page 2&max=2", 200, "{}", 0},
                  /* a name search gives more than the exact name */
                  PAGE_OF("name=\"a\" ", 1, ROW(VM, "a", CLUS) "," ROW(VM2, "A", CLUS)),
                  {"GET vms?search=name=\"a\" sortby name page 2&max=2", 200, "{}", 0},
                  PAGE_OF("cluster=x and tag=y ", 1, ROW(VM, "a", CLUS)),
                  {"GET vms?search=cluster=x and tag=y sortby name page 2&max=2", 200, "{}", 0},
                  {0}});
    char id[] = CLUS, name[] = "default";
    struct ovirt_cluster one = {.id = id, .name = name};
    struct ovirt_clusters clusters = {.v = &one, .count = 1};
    struct names n = {.text = ""};
    struct ovirt_vm_search by_tag = {.tag = "backup", .clusters = &clusters, .page_size = 2};
    assert_true(ovirt_vm_search(x.session, &by_tag, note_name, &n, &x.err));
    struct ovirt_vm_search by_name = {.name = "a", .page_size = 2};
    assert_true(ovirt_vm_search(x.session, &by_name, note_name, &n, &x.err));
    struct ovirt_vm_search by_words = {.expression = "cluster=x and tag=y", .page_size = 2};
    assert_true(ovirt_vm_search(x.session, &by_words, note_name, &n, &x.err));
    assert_string_equal(n.text, "a a a ");
    stop(&x);
}

static void bad_searches_are_refused(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){{0}});
    const char *bad[] = {"tag=x sortby name", "page 2", "name=a page 3", "a\nb", "Sortby name"};
    struct names n = {.text = ""};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct ovirt_vm_search what = {.expression = bad[i]};
        err_clear(&x.err);
        assert_false(ovirt_vm_search(x.session, &what, note_name, &n, &x.err));
        assert_code(&x, ERR_BAD_ARGUMENT);
    }
    /* No VM can have such a name: nothing is asked, nothing is found. */
    err_clear(&x.err);
    struct ovirt_vm_search injected = {.name = "a\" or name=\"b"};
    assert_true(ovirt_vm_search(x.session, &injected, note_name, &n, &x.err));
    assert_false(err_is_set(&x.err));
    assert_string_equal(n.text, "");
    stop(&x);
}

static void search_the_engine_refuses_is_a_bad_argument(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){
                  {"GET vms?search=x=y sortby name page 1&max=100", 400,
                   "{\"reason\":\"Operation Failed\",\"detail\":\"[bad search]\"}", 0},
                  {"GET vms?search=x=y sortby name page 1&max=100", 403, "{\"detail\":\"no\"}", 0},
                  {0}});
    struct names n = {.text = ""};
    struct ovirt_vm_search what = {.expression = "x=y"};
    assert_false(ovirt_vm_search(x.session, &what, note_name, &n, &x.err));
    assert_code(&x, ERR_BAD_ARGUMENT);
    err_clear(&x.err);
    assert_false(ovirt_vm_search(x.session, &what, note_name, &n, &x.err));
    assert_code(&x, ERR_ENGINE_DENIED);
    stop(&x);
}

static void quoted_words_may_look_like_paging(void **state)
{
    (void)state;
    struct fixture x;
    start(&x,
          (const struct fake_line[]){
              {"GET vms?search=name=\"my page\" sortby name page 1&max=100", 200, "{}", 0}, {0}});
    struct names n = {.text = ""};
    struct ovirt_vm_search what = {.expression = "name=\"my page\""};
    assert_true(ovirt_vm_search(x.session, &what, note_name, &n, &x.err));
    stop(&x);
}

static void search_has_limits_and_can_be_stopped(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){PAGE_OF("", 1, ROW(VM, "a", CLUS) "," ROW(VM2, "b", CLUS)),
                                         PAGE_OF("", 1, ROW(VM, "a", CLUS)),
                                         {0}});
    struct names n = {.text = ""};
    struct ovirt_vm_search what = {.page_size = 2, .max_vms = 1};
    assert_false(ovirt_vm_search(x.session, &what, note_name, &n, &x.err));
    assert_code(&x, ERR_TOO_LARGE);
    err_clear(&x.err);
    n.refuse = true;
    what.max_vms = 0;
    assert_false(ovirt_vm_search(x.session, &what, note_name, &n, &x.err));
    assert_code(&x, ERR_INTERNAL);
    stop(&x);
}

struct detail {
    size_t disks, tags;
    uint64_t bytes;
};

static bool note_detail(void *ctx, const struct ovirt_vm_row *row, struct err *err)
{
    (void)err;
    struct detail *d = ctx;
    *d = (struct detail){row->disks, row->tags_count, row->provisioned_bytes};
    return true;
}

static void details_count_disks_and_tags(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){
                  {"GET vms/" VM, 200, ROW(VM, "a", CLUS), 0},
                  {"GET vms/" VM "?follow=tags,disk_attachments.disk", 200,
                   "{\"id\":\"" VM "\",\"tags\":{\"tag\":[{\"name\":\"t1\"},{\"name\":\"t2\"}]},"
                   "\"disk_attachments\":{\"disk_attachment\":[{\"disk\":{\"provisioned_size\":"
                   "\"10\"}},{\"disk\":{\"provisioned_size\":\"5\"}}]}}",
                   0},
                  {"GET vms/" VM2, 404, NULL, 0},
                  {0}});
    struct detail d = {0};
    assert_true(ovirt_vm_lookup(x.session, VM, NULL, true, note_detail, &d, &x.err));
    assert_int_equal(d.disks, 2);
    assert_int_equal(d.tags, 2);
    assert_int_equal(d.bytes, 15);
    assert_false(ovirt_vm_lookup(x.session, VM2, NULL, true, note_detail, &d, &x.err));
    assert_code(&x, ERR_NOT_FOUND);
    stop(&x);
}

#define FIND_PAGE(page) "GET vms?search=name=\"w\" sortby name page " #page "&max=100"
static void proxy_is_found_by_name(void **state)
{
    (void)state;
    struct fixture x;
    start(&x,
          (const struct fake_line[]){
              {FIND_PAGE(1), 200, "{\"vm\":[" ROW(VM, "w", CLUS) "]}", 0},
              {FIND_PAGE(2), 200, "{}", 0},
              {FIND_PAGE(1), 200, "{}", 0},
              {FIND_PAGE(1), 200, "{\"vm\":[" ROW(VM, "w", CLUS) "," ROW(VM2, "w", CLUS2) "]}", 0},
              {FIND_PAGE(2), 200, "{}", 0},
              {0}});
    SCOPED_FREE char *id = ovirt_vm_find(x.session, "w", NULL, &x.err);
    assert_string_equal(id, VM);
    assert_null(ovirt_vm_find(x.session, "w", NULL, &x.err));
    assert_code(&x, ERR_NOT_FOUND);
    err_clear(&x.err);
    assert_null(ovirt_vm_find(x.session, "w", NULL, &x.err));
    assert_code(&x, ERR_CONFLICT);
    stop(&x);
}

static void freeze_says_why_it_failed(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){
                  {"POST vms/" VM "/freezefilesystems", 200, "{\"status\":\"complete\"}", 0},
                  {"POST vms/" VM "/thawfilesystems", 409,
                   "{\"status\":\"failed\",\"fault\":{\"reason\":\"Operation Failed\",\"detail\":"
                   "\"[Cannot thaw Filesystems. VM is not up.]\"}}",
                   0},
                  {"POST vms/" VM "/freezefilesystems", 403, "{\"detail\":\"no\"}", 0},
                  {0}});
    assert_true(ovirt_vm_freeze(x.session, VM, &x.err));
    assert_false(ovirt_vm_thaw(x.session, VM, &x.err));
    assert_code(&x, ERR_QUIESCE_FAILED);
    assert_non_null(strstr(x.err.message, "VM is not up"));
    err_clear(&x.err);
    assert_false(ovirt_vm_freeze(x.session, VM, &x.err));
    assert_code(&x, ERR_ENGINE_DENIED);
    stop(&x);
}

static void only_marked_vms_are_removed_and_never_their_disks(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){
                  {"GET vms/" VM, 200, "{\"id\":\"" VM "\",\"description\":\"shop\"}", 0},
                  {"GET vms/" VM, 200, "{\"id\":\"" VM "\",\"description\":\"" MARK "\"}", 0},
                  {"DELETE vms/" VM "?detach_only=true", 200, "{}", 0},
                  {"GET vms/" VM, 404, NULL, 0},
                  {"GET vms/" VM, 404, NULL, 0},
                  {"GET vms/" VM, 200, "{\"id\":\"" VM "\"}", 0},
                  {0}});
    assert_false(ovirt_vm_delete(x.session, VM, MARK, 60000, &x.err));
    assert_code(&x, ERR_REFUSED);
    err_clear(&x.err);
    assert_true(ovirt_vm_delete(x.session, VM, MARK, 60000, &x.err));
    assert_true(ovirt_vm_delete(x.session, VM, MARK, 60000, &x.err));
    assert_false(ovirt_vm_delete(x.session, VM, "", 60000, &x.err));
    assert_code(&x, ERR_REFUSED);
    stop(&x);
}

#define ROOT(version)                                                                              \
    {                                                                                              \
        "GET ", 200, "{\"product_info\":{\"version\":" version "}}", 0                             \
    }
#define V457 "{\"major\":\"4\",\"minor\":\"5\",\"build\":\"7\"}"
static const struct ovirt_vm_new as = {.name = "new", .cluster_id = CLUS, .description = MARK};

static void vm_whose_answer_was_lost_is_found_by_name_and_marker(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){
                  ROOT(V457),
                  {"POST vms", 0, NULL, FAKE_DROP},
                  {"GET vms?search=name=\"new\" sortby name page 1&max=100", 200,
                   "{\"vm\":[{\"id\":\"" VM2 "\",\"name\":\"new\",\"description\":\"other\"},"
                   "{\"id\":\"" VM "\",\"name\":\"new\",\"description\":\"" MARK "\"}]}",
                   0},
                  {"GET vms?search=name=\"new\" sortby name page 2&max=100", 200, "{}", 0},
                  {0}});
    json_auto_t *saved = json_pack("{s:s}", "memory", "1073741824");
    SCOPED_FREE char *id = ovirt_vm_create_from_json(x.session, saved, &as, &x.err);
    assert_string_equal(id, VM);
    stop(&x);
}

static void taken_name_is_an_error(void **state)
{
    (void)state;
    struct fixture x;
    start(
        &x,
        (const struct fake_line[]){
            {"POST vms", 409,
             "{\"detail\":\"[Import VM failed - VM Name already exists in the Data Center.]\"}", 0},
            {0}});
    static const char ovf[] = "<Envelope><Content><Name>old</Name></Content></Envelope>";
    assert_null(ovirt_vm_create_from_ovf(
        x.session, (struct slice){.data = ovf, .len = sizeof ovf - 1}, &as, &x.err));
    assert_code(&x, ERR_EXISTS);
    const char *body = fake_engine_seen(x.fake, 0)->body;
    assert_non_null(strstr(body, "<Name>new</Name>"));
    assert_non_null(strstr(body, "\"regenerate_ids\":\"true\""));
    assert_non_null(strstr(body, "<Description>" MARK "</Description>"));
    stop(&x);
}

static void start_is_not_repeated_on_a_running_vm(void **state)
{
    (void)state;
    struct fixture x;
    start(&x,
          (const struct fake_line[]){{"GET vms/" VM, 200, "{\"status\":\"up\"}", 0},
                                     {"GET vms/" VM, 200, "{\"status\":\"down\"}", 0},
                                     {"POST vms/" VM "/start", 0, NULL, FAKE_DROP},
                                     {"GET vms/" VM, 200, "{\"status\":\"wait_for_launch\"}", 0},
                                     {"GET vms/" VM, 200, "{\"status\":\"powering_up\"}", 0},
                                     {"GET vms/" VM, 200, "{\"status\":\"up\"}", 0},
                                     {0}});
    assert_true(ovirt_vm_start(x.session, VM, &x.err));
    assert_true(ovirt_vm_start(x.session, VM, &x.err));
    assert_true(ovirt_vm_wait(x.session, VM, "up", 60000, &x.err));
    stop(&x);
}

static void vm_that_falls_down_again_has_not_started(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){{"GET vms/" VM, 200, "{\"status\":\"down\"}", 0},
                                         {"GET vms/" VM, 200, "{\"status\":\"powering_up\"}", 0},
                                         {"GET vms/" VM, 200, "{\"status\":\"down\"}", 0},
                                         {0}});
    assert_false(ovirt_vm_wait(x.session, VM, "up", 60000, &x.err));
    assert_code(&x, ERR_ENGINE_FAULT);
    stop(&x);
}

static void finish_puts_description_and_protection_back(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){
                  {"PUT vms/" VM, 200, "{}", 0}, {"PUT vms/" VM, 200, "{}", 0}, {0}});
    json_auto_t *saved =
        json_pack("{s:s, s:s}", "description", "the shop", "delete_protected", "true");
    assert_true(ovirt_vm_finish(x.session, VM, saved, &x.err));
    json_auto_t *plain = json_object();
    assert_true(ovirt_vm_finish(x.session, VM, plain, &x.err));
    assert_string_equal(fake_engine_seen(x.fake, 0)->body,
                        "{\"description\":\"the shop\",\"delete_protected\":\"true\"}");
    assert_string_equal(fake_engine_seen(x.fake, 1)->body, "{\"description\":\"\"}");
    stop(&x);
}

static void finish_whose_answer_was_lost_is_found_by_its_description(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){
                  {"PUT vms/" VM, 0, NULL, FAKE_DROP},
                  {"GET vms/" VM, 200, "{\"description\":\"the shop\"}", 0},
                  {"PUT vms/" VM, 0, NULL, FAKE_DROP},
                  {"GET vms/" VM, 200, "{\"description\":\"oxbow restoring\"}", 0},
                  {"PUT vms/" VM, 200, "{}", 0},
                  {0}});
    json_auto_t *saved = json_pack("{s:s}", "description", "the shop");
    assert_true(ovirt_vm_finish(x.session, VM, saved, &x.err));
    json_auto_t *plain = json_object();
    assert_true(ovirt_vm_finish(x.session, VM, plain, &x.err));
    stop(&x);
}

static void description_gets_names(void **state)
{
    (void)state;
    struct fixture x;
    start(
        &x,
        (const struct fake_line[]){
            {"GET vms/" VM "?all_content=true&follow=nics,disk_attachments.disk,tags,cdroms,"
             "watchdogs,graphics_consoles",
             200,
             "{\"id\":\"" VM "\",\"name\":\"a\",\"status\":\"up\",\"cluster\":{\"id\":\"" CLUS
             "\"},\"virtio_scsi\":{\"enabled\":\"true\"},\"link\":[],\"actions\":{},"
             "\"initialization\":{\"configuration\":{\"data\":\"<x/>\"}},"
             "\"nics\":{\"nic\":[{\"name\":\"n\",\"vnic_profile\":{\"id\":\"p\"}}]},"
             "\"disk_attachments\":{\"disk_attachment\":[{\"id\":\"" DISK
             "\",\"active\":\"true\",\"interface\":\"virtio\",\"disk\":{\"id\":\"" DISK
             "\",\"status\":\"ok\",\"storage_domains\":{\"storage_domain\":[{\"id\":\"s\"}]}}"
             "}]}}",
             0},
            {"GET clusters", 200, "{\"cluster\":[{\"id\":\"" CLUS "\",\"name\":\"Default\"}]}", 0},
            {"GET storagedomains", 200, "{\"storage_domain\":[{\"id\":\"s\",\"name\":\"data\"}]}",
             0},
            {"GET vnicprofiles", 200,
             "{\"vnic_profile\":[{\"id\":\"p\",\"name\":\"lan\",\"network\":{\"id\":\"w\"}}]}", 0},
            {"GET networks", 200, "{\"network\":[{\"id\":\"w\",\"name\":\"net\"}]}", 0},
            {0}});
    struct ovirt_vm vm;
    assert_true(ovirt_vm_get(x.session, VM, &vm, &x.err));
    assert_true(vm.virtio_scsi);
    struct ovirt_disks disks;
    assert_true(ovirt_vm_disks(&vm, &disks, &x.err));
    assert_int_equal(disks.count, 1);
    assert_int_equal(disks.v[0].fit, OVIRT_DISK_FIT);
    assert_string_equal(ovirt_disks_find(&disks, DISK)->interface, "virtio");
    ovirt_disks_done(&disks);
    json_auto_t *d = ovirt_vm_describe(x.session, &vm, &x.err);
    SCOPED_FREE char *text = json_dumps(d, JSON_COMPACT | JSON_SORT_KEYS);
    static const char *const wanted[] = {
        "\"cluster\":{\"id\":\"" CLUS "\",\"name\":\"Default\"}",
        "\"storage_domain\":[{\"id\":\"s\",\"name\":\"data\"}]",
        "\"network\":{\"id\":\"w\",\"name\":\"net\"}",
        "\"vnic_profile\":{\"id\":\"p\",\"name\":\"lan\",",
    };
    for (size_t i = 0; i < ARRAY_LEN(wanted); i++) {
        if (!strstr(text, wanted[i]))
            fail_msg("no %s in %s", wanted[i], text);
    }
    assert_null(strstr(text, "<x/>"));
    assert_null(strstr(text, "actions"));
    ovirt_vm_done(&vm);
    stop(&x);
}

static void warn(void *ctx, const char *message)
{
    (void)message;
    ++*(unsigned *)ctx;
}

static void nics_are_restored_once(void **state)
{
    (void)state;
    struct fixture x;
    start(&x,
          (const struct fake_line[]){
              {"GET vms/" VM "/nics", 200, "{\"nic\":[{\"name\":\"nic0\"}]}", 0},
              {"GET vnicprofiles", 200, "{}", 0},
              {"GET networks", 200, "{}", 0},
              {"POST vms/" VM "/nics", 409,
               "{\"detail\":\"[MAC Address 56:6f is already in use by VM or snapshot: a.]\"}", 0},
              {"POST vms/" VM "/nics", 201, "{\"id\":\"n\"}", 0},
              {0}});
    json_auto_t *saved =
        json_loads("{\"nics\":{\"nic\":[{\"name\":\"nic0\"},{\"name\":\"nic1\",\"mac\":{"
                   "\"address\":\"56:6f\"},\"vnic_profile\":{\"id\":\"p\"}}]}}",
                   0, NULL);
    unsigned warnings = 0;
    struct ovirt_nics_how how = {.warn = warn, .ctx = &warnings};
    assert_true(ovirt_nics_restore(x.session, VM, saved, &how, &x.err));
    assert_int_equal(warnings, 2); /* no profile, another MAC */
    assert_non_null(strstr(fake_engine_seen(x.fake, 3)->body, "56:6f"));
    assert_null(strstr(fake_engine_seen(x.fake, 4)->body, "56:6f"));
    stop(&x);
}

/* --- Places ---------------------------------------------------------------------------------- */
static void places_are_found(void **state)
{
    (void)state;
    struct fixture x;
    start(&x,
          (const struct fake_line[]){
              {"GET datacenters", 200,
               "{\"data_center\":[{\"id\":\"" VM "\",\"name\":\"dc1\"},{\"id\":\"" VM2
               "\",\"name\":\"dc2\"}]}",
               0},
              {"GET datacenters", 200, "{}", 0},
              {"GET clusters", 200,
               "{\"cluster\":[{\"id\":\"" CLUS "\",\"name\":\"c1\",\"data_center\":{\"id\":\"" VM
               "\"}},{\"id\":\"" CLUS2 "\",\"name\":\"c2\",\"data_center\":{\"id\":\"" VM2
               "\"}},{\"id\":\"x\",\"name\":\"loose\"}]}",
               0},
              {"GET datacenters/" VM "/storagedomains", 200,
               "{\"storage_domain\":[{\"id\":\"s1\",\"name\":\"data\",\"status\":\"active\","
               "\"type\":\"data\",\"storage\":{\"type\":\"iscsi\"},\"available\":\"100\","
               "\"used\":50,\"critical_space_action_blocker\":\"5\"},"
               "{\"id\":\"s2\",\"name\":\"unseen\",\"status\":\"unknown\"}]}",
               0},
              {0}});
    struct ovirt_datacenter dc;
    assert_true(ovirt_datacenter_find(x.session, "dc2", &dc, &x.err));
    assert_string_equal(dc.id, VM2);
    ovirt_datacenter_done(&dc);
    assert_false(ovirt_datacenter_find(x.session, "dc2", &dc, &x.err));
    assert_code(&x, ERR_NOT_FOUND);
    err_clear(&x.err);
    struct ovirt_clusters clusters;
    assert_true(ovirt_clusters_list(x.session, VM, &clusters, &x.err));
    assert_int_equal(clusters.count, 1);
    assert_non_null(ovirt_clusters_find(&clusters, "c1"));
    assert_non_null(ovirt_clusters_find(&clusters, CLUS));
    assert_null(ovirt_clusters_find(&clusters, "c2"));
    ovirt_clusters_done(&clusters);
    struct ovirt_storage_domains domains;
    assert_true(ovirt_storage_domains_list(x.session, VM, &domains, &x.err));
    const struct ovirt_storage_domain *d = ovirt_storage_domains_find(&domains, "data");
    assert_true(d->block);
    assert_int_equal(d->available_bytes, 100);
    assert_int_equal(d->used_bytes, 50);
    assert_int_equal(d->block_action_gib, 5);
    assert_string_equal(d->status, "active");
    d = ovirt_storage_domains_find(&domains, "unseen");
    assert_true(d->available_bytes == UINT64_MAX);
    ovirt_storage_domains_done(&domains);
    stop(&x);
}

static void checkpoints_are_noticed(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){
                  ROOT(V457),
                  {"GET vms/" VM "/checkpoints", 200, "{\"checkpoint\":[{\"id\":\"c\"}]}", 0},
                  {"GET vms/" VM "/checkpoints", 200, "{}", 0},
                  {"GET vms/" VM "/checkpoints", 404, NULL, 0},
                  {0}});
    bool has = false;
    assert_true(ovirt_vm_has_checkpoints(x.session, VM, &has, &x.err));
    assert_true(has);
    assert_true(ovirt_vm_has_checkpoints(x.session, VM, &has, &x.err));
    assert_false(has);
    has = true;
    assert_true(ovirt_vm_has_checkpoints(x.session, VM, &has, &x.err));
    assert_false(has);
    stop(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(snapshot_is_made_and_waited_for),
        cmocka_unit_test(snapshot_whose_answer_was_lost_is_found_by_description),
        cmocka_unit_test(snapshot_answer_without_an_id_is_looked_up),
        cmocka_unit_test(bad_snapshots_are_refused),
        cmocka_unit_test(disks_of_a_snapshot),
        cmocka_unit_test(snapshot_that_vanishes_has_failed),
        cmocka_unit_test(snapshot_wait_has_a_limit),
        cmocka_unit_test(snapshot_that_may_be_there_is_called_unknown),
        cmocka_unit_test(snapshot_does_not_wait_for_a_lock_if_asked_so),
        cmocka_unit_test(locked_snapshot_is_not_waited_for_as_long_as_a_merge),
        cmocka_unit_test(merge_survives_the_race_after_delete),
        cmocka_unit_test(failed_merge_is_tried_again),
        cmocka_unit_test(merge_that_keeps_failing_is_reported),
        cmocka_unit_test(merge_failure_without_a_lock_needs_an_event),
        cmocka_unit_test(foreign_snapshots_are_never_deleted),
        cmocka_unit_test(snapshot_being_merged_already_is_waited_for),
        cmocka_unit_test(lost_delete_is_settled_by_its_effect),
        cmocka_unit_test(ovf_of_a_snapshot_is_byte_exact),
        cmocka_unit_test(snapshots_are_listed_by_marker),
        cmocka_unit_test(attach_and_detach),
        cmocka_unit_test(attach_needs_both_ids),
        cmocka_unit_test(lost_attach_is_found_on_the_proxy),
        cmocka_unit_test(half_done_attach_is_completed),
        cmocka_unit_test(disk_that_was_there_before_is_a_conflict),
        cmocka_unit_test(attachments_are_listed),
        cmocka_unit_test(disk_is_made_waited_for_and_deleted),
        cmocka_unit_test(disk_that_becomes_illegal_has_failed),
        cmocka_unit_test(bad_disk_specs_are_refused),
        cmocka_unit_test(search_reads_all_pages),
        cmocka_unit_test(search_filters_clusters_and_quotes_names),
        cmocka_unit_test(bad_searches_are_refused),
        cmocka_unit_test(search_the_engine_refuses_is_a_bad_argument),
        cmocka_unit_test(quoted_words_may_look_like_paging),
        cmocka_unit_test(search_has_limits_and_can_be_stopped),
        cmocka_unit_test(details_count_disks_and_tags),
        cmocka_unit_test(proxy_is_found_by_name),
        cmocka_unit_test(freeze_says_why_it_failed),
        cmocka_unit_test(only_marked_vms_are_removed_and_never_their_disks),
        cmocka_unit_test(vm_whose_answer_was_lost_is_found_by_name_and_marker),
        cmocka_unit_test(taken_name_is_an_error),
        cmocka_unit_test(start_is_not_repeated_on_a_running_vm),
        cmocka_unit_test(vm_that_falls_down_again_has_not_started),
        cmocka_unit_test(finish_puts_description_and_protection_back),
        cmocka_unit_test(finish_whose_answer_was_lost_is_found_by_its_description),
        cmocka_unit_test(description_gets_names),
        cmocka_unit_test(nics_are_restored_once),
        cmocka_unit_test(places_are_found),
        cmocka_unit_test(checkpoints_are_noticed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
