/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The disk fills up at the first, second, ... write of a story: each time the desk stops with a
 * clear error, and after a restart and a redelivery the story ends as if nothing had happened. And:
 * rows that cannot be read harm nobody else.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <sqlite3.h>

#include "tests/unit/coordinator/bed.h"

/* SQLite's own door for tests. */
static long writes_left = -1; /* -1 = no limit */

static ssize_t limited_pwrite(int fd, const void *data, size_t len, off_t offset)
{
    if (writes_left == 0) {
        errno = ENOSPC;
        return -1;
    }
    if (writes_left > 0)
        writes_left--;
    return pwrite(fd, data, len, offset);
}

static void limit_disk(bool on)
{
    sqlite3_vfs *vfs = sqlite3_vfs_find(NULL);
    sqlite3_syscall_ptr call = on ? (sqlite3_syscall_ptr)limited_pwrite : NULL;
    (void)vfs->xSetSystemCall(vfs, "pwrite", call);
    (void)vfs->xSetSystemCall(vfs, "pwrite64", call);
}

/* One message, as the loop would do it: not acknowledged while the desk fails, so delivered again
 * after the restart. True when the disk was full. */
static bool deliver(struct bed *bed, bool is_request, enum wire_type type, const void *message,
                    const char *message_id)
{
    struct err err = ERR_INIT;
    size_t len;
    SCOPED_FREE char *body = wire_encode(type, message, &len, &err);
    assert_non_null(body);
    const struct desk_message m = {.source = is_request ? DESK_REQUEST : DESK_EVENT,
                                   .type = wire_type_name(type),
                                   .message_id = message_id,
                                   .reply_to = is_request ? "replies" : NULL,
                                   .body = body,
                                   .len = len};
    bool full = false;
    for (int i = 0; i < 2; i++) {
        bool ok = desk_begin(bed->desk, &err) && desk_handle(bed->desk, &m, &err) == DESK_DONE;
        if (ok) {
            struct err commit = ERR_INIT;
            if (desk_commit(bed->desk, &commit)) {
                bed_gather(bed);
                return full;
            }
            err = commit;
        }
        assert_int_equal(err.code, ERR_NO_SPACE);
        assert_true(ledger_is_broken(desk_core(bed->desk)->ledger));
        desk_rollback(bed->desk);
        writes_left = -1; /* somebody made room */
        bed_restart(bed);
        err_clear(&err);
        full = true;
    }
    fail_msg("fails again although there is room");
    return full;
}

/* A backup of one VM in seven messages. True when the disk was full somewhere. */
static bool tell_story(struct bed *bed)
{
    bool full = false;
    char *names[] = {S("name-1"), S("nobody")};
    struct wire_select select = {.names = {names, 2}};
    const struct wire_backup b = {.select = &select};
    full |= deliver(bed, true, WIRE_BACKUP, &b, "m1");
    struct hold h = bed_offer(bed);
    snprintf(h.worker, sizeof h.worker, "w1");
    const struct wire_claim c1 = {.task = h.task, .worker = h.worker, .attempt = 1};
    full |= deliver(bed, false, WIRE_CLAIM, &c1, "m2");
    struct wire_vm_item vm = {.id = S("vm-1"), .name = S("name-1")};
    struct wire_item_list list = {.vms = &vm, .vms_count = 1};
    const struct wire_items items = {
        .task = h.task, .worker = h.worker, .attempt = 1, .fence = 1, .page = 1, .items = &list};
    full |= deliver(bed, false, WIRE_ITEMS, &items, "m3");
    const struct wire_result r1 = {.task = h.task,
                                   .worker = h.worker,
                                   .attempt = 1,
                                   .fence = 1,
                                   .status = S("succeeded"),
                                   .pages = 1};
    full |= deliver(bed, false, WIRE_RESULT, &r1, "m4");
    struct hold k = bed_offer(bed);
    const struct wire_claim c2 = {.task = k.task, .worker = h.worker, .attempt = 1};
    full |= deliver(bed, false, WIRE_CLAIM, &c2, "m5");
    struct wire_handle handle = {S("snapshot"), S("s1")};
    const struct wire_step step = {.task = k.task,
                                   .worker = h.worker,
                                   .attempt = 1,
                                   .fence = 1,
                                   .seq = 1,
                                   .step = S("snapshot"),
                                   .state = S("handle"),
                                   .handles = {&handle, 1}};
    full |= deliver(bed, false, WIRE_STEP, &step, "m6");
    struct wire_leftover left = {.kind = S("snapshot"), .vm = S("vm-1"), .id = S("s1")};
    const struct wire_result r2 = {.task = k.task,
                                   .worker = h.worker,
                                   .attempt = 1,
                                   .fence = 1,
                                   .status = S("succeeded"),
                                   .point = S("p1"),
                                   .leftovers = {&left, 1}};
    full |= deliver(bed, false, WIRE_RESULT, &r2, "m7");
    return full;
}

static void check_end(struct bed *bed)
{
    assert_int_equal(bed_count(bed, WIRE_ACCEPTED), 1);
    assert_int_equal(bed_count(bed, WIRE_OUTCOME), 2);
    assert_int_equal(bed_count(bed, WIRE_GRANT), 2);
    SCOPED_SENT struct sent f = bed_take(bed, WIRE_FINISHED);
    assert_string_equal(((const struct wire_finished *)f.m.as)->status, "partly");
    SCOPED_SENT struct sent o = bed_take(bed, WIRE_OFFER);
    assert_string_equal(((const struct wire_offer *)o.m.as)->kind, "cleanup");
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
    bed_check(bed);
}

static void the_disk_fills_up_at_every_write(void **state)
{
    (void)state;
    limit_disk(true);
    long n = 0;
    for (bool full = true; full; n++) {
        SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
        writes_left = n;
        full = tell_story(bed);
        writes_left = -1;
        check_end(bed);
    }
    limit_disk(false);
    print_message("%ld writes\n", n - 1);
    assert_true(n > 20);
}

/* --- Rows that cannot be read --- */
static void spoil(struct bed *bed, const char *sql)
{
    sqlite3 *db = NULL;
    assert_int_equal(sqlite3_open(bed->ledger, &db), SQLITE_OK);
    char *why = NULL;
    if (sqlite3_exec(db, sql, NULL, NULL, &why) != SQLITE_OK)
        fail_msg("%s", why);
    sqlite3_close(db);
}

static void an_unreadable_task_fails_and_the_others_go_on(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    bed_backup(bed, NULL, request);
    struct hold inventory = bed_offer(bed);
    bed_claim(bed, &inventory, "w1");
    bed_inventory(bed, &inventory, 1, 3); /* nobody is known: one offer at a time */
    struct hold one = bed_offer(bed);
    spoil(bed, "UPDATE task SET input = '{' WHERE vm = 'vm-2'");
    bed_claim(bed, &one, "w1");
    SCOPED_SENT struct sent s = bed_take(bed, WIRE_OUTCOME);
    assert_string_equal(((const struct wire_outcome *)s.m.as)->vm, "vm-2");
    assert_string_equal(((const struct wire_outcome *)s.m.as)->status, "failed");
    struct hold three = bed_offer(bed);
    assert_string_equal(three.vm, "vm-3");
    bed_check(bed);
}

static void an_unreadable_journal_is_left_out(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    bed->conf.max_attempts = 2;
    char request[ID_BYTES];
    struct hold h = bed_backup_one(bed, "w1", request);
    bed_claim(bed, &h, "w1");
    bed_step(bed, &h, "snapshot", "handle", "snapshot", "s1", NULL);
    bed_step(bed, &h, "attach", "handle", "snapshot", "s1", "attachment.d", "p", NULL);
    spoil(bed, "UPDATE journal SET body = '{' WHERE seq = 2");
    bed_wait(bed, 121 * 1000);
    SCOPED_SENT struct sent s = bed_take(bed, WIRE_OFFER);
    const struct wire_offer *o = s.m.as;
    assert_int_equal(o->journal.count, 2);
    struct hold again = {.attempt = o->attempt};
    snprintf(again.task, sizeof again.task, "%s", o->task);
    bed_claim(bed, &again, "w1");
    bed_wait(bed, 121 * 1000); /* lost again: quarantined, with what can be read */
    assert_int_equal(bed_count(bed, WIRE_OUTCOME), 1);
    bed_check(bed);
}

/* A fault inside, met by a message: it is buried, memory and ledger agree, the next one works. */
static void a_fault_inside_costs_one_message(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = bed_backup_one(bed, "w1", request);
    /* The attempt is there already: the grant meets a rule of the ledger. */
    spoil(bed, "INSERT INTO attempt(task, attempt, fence, worker, granted_ms)"
               " SELECT id, 1, 99, 'x', 0 FROM task WHERE vm = 'vm-1'");
    struct err why = ERR_INIT;
    SCOPED_FREE char *body =
        xasprintf("{\"task\":\"%s\",\"worker\":\"w1\",\"attempt\":1,\"fence\":0}", h.task);
    const struct bed_props props = {.type = "oxbow.claim.v1", .message_id = "m"};
    assert_int_equal(bed_feed(bed, false, &props, body, &why), DESK_BURY);
    assert_int_equal(why.code, ERR_INTERNAL);
    bed_check(bed);
    spoil(bed, "DELETE FROM attempt WHERE fence = 99");
    bed_claim(bed, &h, "w1");
    bed_check(bed);
}

/* A fault inside, met by a timer: the others rest for a moment, then go on. */
static void a_fault_in_a_timer_does_not_spin(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = bed_backup_one(bed, "w1", request);
    bed_claim(bed, &h, "w1");
    spoil(bed,
          "CREATE TRIGGER fault BEFORE UPDATE ON attempt BEGIN SELECT RAISE(ABORT, 'no'); END");
    bed_wait(bed, 121 * 1000);
    bed_presence(bed, "w1", "dc1", 4);
    int64_t wait_ms;
    struct err err = ERR_INIT;
    assert_true(desk_wait_ms(bed->desk, 60000, &wait_ms, &err));
    assert_in_range(wait_ms, 1000, 60000);
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
    bed_check(bed);
    spoil(bed, "DROP TRIGGER fault");
    bed_wait(bed, 126 * 1000); /* the lease began anew when memory was read back */
    assert_int_equal(bed_count(bed, WIRE_OFFER), 1);
    bed_check(bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_disk_fills_up_at_every_write),
        cmocka_unit_test(an_unreadable_task_fails_and_the_others_go_on),
        cmocka_unit_test(an_unreadable_journal_is_left_out),
        cmocka_unit_test(a_fault_inside_costs_one_message),
        cmocka_unit_test(a_fault_in_a_timer_does_not_spin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
