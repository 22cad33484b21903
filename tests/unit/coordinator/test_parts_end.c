/* SPDX-License-Identifier: Apache-2.0 */
/* Parts whose main task ends, is lost or is cancelled, of a backup or a restore: nobody comes
 * between them and their end, and nothing of them is left. */
#include <string.h>

#include "tests/unit/coordinator/wide_bed.h"

/* --- The main task's ends --- */
static void the_main_tasks_end_stops_its_parts(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = wide_backup(bed, 3, request);
    ASK(.give = GIVE(1) | GIVE(2));
    struct hold one = wide_running_part(bed, "w2"), two = bed_offer(bed);
    bed_drop(bed);
    bed_result(bed, &h, "succeeded");
    SCOPED_SENT struct sent stop = bed_take_for(bed, WIRE_STOP, "worker.w2");
    assert_string_equal(((const struct wire_stop *)stop.m.as)->task, one.task);
    assert_int_equal(wide_state(bed, &two), TASK_CANCELLED);
    assert_int_equal(bed_count(bed, WIRE_PARTED), 0);
    assert_int_equal(bed_count(bed, WIRE_FINISHED), 1);
    bed_claim_denied(bed, &two, "w3", 0);
    bed_drop(bed);
    bed_restart(bed);
    /* It had committed already: nobody but us knows of its point. */
    wide_part_succeeds(bed, &one);
    wide_expect_cleanup(bed, &one, one.task);
    assert_int_equal(bed_count(bed, WIRE_PARTED), 0);
    assert_int_equal(bed_count(bed, WIRE_FINISHED), 0);
    bed_check(bed);
}

static void the_next_attempt_waits_for_the_parts(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = wide_backup(bed, 3, request);
    ASK(.give = GIVE(1) | GIVE(2));
    struct hold one = wide_running_part(bed, "w2"), two = wide_running_part(bed, "w3");
    bed_drop(bed);
    for (int i = 0; i < 3; i++) { /* the parts live, the main task does not */
        bed_wait(bed, 50 * 1000);
        bed_copying(bed, &one, i, 3);
        bed_copying(bed, &two, i, 3);
        for (int w = 2; w <= 4; w++) {
            SCOPED_FREE char *name = xasprintf("w%d", w);
            bed_presence(bed, name, "dc1", 4);
        }
    }
    assert_int_equal(wide_state(bed, &h), TASK_WAITING);
    assert_int_equal(bed_count(bed, WIRE_STOP), 2);
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
    ASK(.give = GIVE(1)); /* the lost one is not dead: it is not answered */
    assert_int_equal(bed_count(bed, WIRE_PARTED), 0);
    wide_part_succeeds(bed, &one);
    bed_restart(bed);
    bed_turn(bed);
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
    bed_result(bed, &two, "cancelled");
    struct hold again = bed_offer(bed);
    assert_string_equal(again.task, h.task);
    assert_int_equal(again.attempt, 2);
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0); /* it looks after the point of part 1 */
    bed_claim(bed, &again, "w2");
    /* It gives away anew; the numbers are its own. */
    bed_drop(bed);
    wide_ask(bed, &again, (struct ask){.give = GIVE(1)});
    SCOPED_SENT struct sent told = wide_parted(bed, &again);
    assert_int_equal(((const struct wire_parted *)told.m.as)->states.count, 1);
    assert_string_equal(wide_part(&told, 1)->state, "waiting");
    struct hold third = wide_running_part(bed, "w3");
    assert_string_not_equal(third.task, one.task);
    ASK(.give = GIVE(2), .withdraw = GIVE(1)); /* from the first attempt */
    assert_int_equal(wide_state(bed, &third), TASK_RUNNING);
    bed_check(bed);
}

static void a_failed_attempt_waits_for_its_parts_too(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = wide_backup(bed, 2, request);
    ASK(.give = GIVE(1));
    struct hold one = wide_running_part(bed, "w2");
    bed_fail(bed, &h, ERR_ENGINE_UNREACHABLE, NULL);
    bed_drop(bed);
    bed_wait(bed, 11 * 1000);
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
    bed_result(bed, &one, "cancelled");
    struct hold again = bed_offer(bed);
    assert_string_equal(again.task, h.task);
    bed_check(bed);
}

static void a_main_task_that_is_given_up_leaves_its_points(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    bed->conf.max_attempts = 1;
    char request[ID_BYTES];
    struct hold h = wide_backup(bed, 3, request);
    ASK(.give = GIVE(1) | GIVE(2));
    struct hold one = wide_running_part(bed, "w2"), two = wide_running_part(bed, "w3");
    wide_part_succeeds(bed, &one);
    bed_wait(bed, 100 * 1000);
    bed_copying(bed, &two, 1, 2);
    bed_drop(bed);
    bed_wait(bed, 25 * 1000);
    wide_workers(bed, 4);
    assert_int_equal(wide_state(bed, &h), TASK_FAILED);
    /* The snapshot cannot go before part 2 has let go of it. */
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
    bed_result(bed, &two, "cancelled");
    wide_expect_cleanup(bed, &one, h.task);
    bed_check(bed);
}

/* The engine may attach a disk for a worker that has died, after all that anybody did about it. */
static void expect_hold(const struct wire_leftovers *left, const char *vm, const char *disk)
{
    for (size_t i = 0; i < left->count; i++) {
        const struct wire_leftover *l = &left->v[i];
        if (strcmp(l->kind, "attachment") == 0 && strcmp(l->vm, vm) == 0 &&
            strcmp(l->id, disk) == 0)
            return;
    }
    fail_msg("disk %s on %s is not in the list", disk, vm);
}

/* The clean-up after `h`, which leaves `held`, or nothing. */
static void expect_clean_up(struct bed *bed, const struct hold *h, const char *worker,
                            const struct wire_leftovers *held)
{
    SCOPED_SENT struct sent s = bed_take(bed, WIRE_OFFER);
    const struct wire_offer *o = s.m.as;
    assert_string_equal(o->kind, "cleanup");
    assert_string_equal(o->cleanup_task, h->task);
    expect_hold(&o->cleanup, "proxy-2", "d1");
    expect_hold(&o->cleanup, "proxy-3", "d1");
    struct hold cleanup = {.attempt = o->attempt};
    snprintf(cleanup.task, sizeof cleanup.task, "%s", o->task);
    snprintf(cleanup.kind, sizeof cleanup.kind, "%s", o->kind);
    bed_claim(bed, &cleanup, worker);
    if (held)
        bed_fail(bed, &cleanup, ERR_CONFLICT, held);
    else
        bed_result(bed, &cleanup, "succeeded");
    assert_int_equal(wide_state(bed, &cleanup), held ? TASK_WAITING : TASK_SUCCEEDED);
}

static void a_clean_up_looks_where_parts_had_attached(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    bed->conf.max_attempts = 1;
    char request[ID_BYTES];
    struct hold h = wide_backup(bed, 3, request);
    ASK(.give = GIVE(1) | GIVE(2));
    struct hold one = wide_running_part(bed, "w2"), two = wide_running_part(bed, "w3");
    bed_step(bed, &one, "attach", "handle", "attachment.d1", "proxy-2", NULL);
    bed_step(bed, &one, "attach", "undone", NULL);
    bed_fail(bed, &one, ERR_ENGINE_FAULT, NULL);
    bed_step(bed, &two, "attach", "handle", "attachment.d1", "proxy-3", NULL);
    wide_part_succeeds(bed, &two);
    bed_drop(bed);
    struct wire_leftover snapshot = {.kind = S("snapshot"), .vm = S("vm-1"), .id = S("s1")};
    const struct wire_leftovers held = {&snapshot, 1};
    bed_fail(bed, &h, ERR_ENGINE_AUTH, &held);
    assert_int_equal(wide_state(bed, &h), TASK_FAILED);
    expect_clean_up(bed, &h, "w4", &held);
    bed_wait(bed, 600 * 1000);
    wide_workers(bed, 4);
    expect_clean_up(bed, &h, "w4", NULL); /* all of it once more: it was not there before */
    bed_check(bed);
}

static void a_lost_part_is_looked_after_when_all_is_over(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = wide_backup(bed, 2, request);
    ASK(.give = GIVE(1));
    struct hold one = wide_running_part(bed, "w2");
    bed_step(bed, &one, "attach", "handle", "attachment.d1", "proxy-2", NULL);
    for (int i = 0; i < 3; i++) { /* the main task lives, the part does not */
        bed_wait(bed, 50 * 1000);
        bed_copying(bed, &h, i, 3);
        bed_presence(bed, "w3", "dc1", 4);
    }
    assert_int_equal(wide_state(bed, &one), TASK_FAILED);
    struct hold cleanup = bed_offer(bed); /* of the part */
    bed_claim(bed, &cleanup, "w3");
    bed_result(bed, &cleanup, "succeeded");
    bed_drop(bed);
    bed_result(bed, &h, "succeeded"); /* and its snapshot has gone */
    SCOPED_SENT struct sent s = bed_take(bed, WIRE_OFFER);
    const struct wire_offer *o = s.m.as;
    assert_string_equal(o->kind, "cleanup");
    assert_string_equal(o->cleanup_task, h.task);
    assert_int_equal(o->cleanup.count, 1);
    expect_hold(&o->cleanup, "proxy-2", "d1");
    bed_check(bed);
}

static void the_next_attempt_knows_where_parts_had_attached(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = wide_backup(bed, 2, request);
    ASK(.give = GIVE(1));
    struct hold one = wide_running_part(bed, "w2");
    bed_step(bed, &one, "precheck", "done", NULL);
    bed_step(bed, &one, "attach", "handle", "attachment.d1", "proxy-2", "attachment.d2", "proxy-2",
             NULL);
    bed_step(bed, &one, "attach", "undone", NULL);
    bed_result(bed, &one, "cancelled");
    bed_drop(bed);
    bed_fail(bed, &h, ERR_ENGINE_UNREACHABLE, NULL);
    bed_wait(bed, 100 * 1000);
    wide_workers(bed, 4);
    SCOPED_SENT struct sent s = bed_take(bed, WIRE_OFFER);
    const struct wire_offer *o = s.m.as;
    assert_string_equal(o->task, h.task);
    const struct wire_journal_entry *of_part = &o->journal.v[0];
    assert_string_equal(of_part->worker, "w2");
    assert_int_equal(of_part->fence, h.fence);
    assert_int_equal(of_part->handles.count, 2);
    assert_string_equal(of_part->handles.v[1].name, "attachment.d2");
    /* What the attempt itself holds is the newest of its fence, as ever. */
    const struct wire_journal_entry *newest = &o->journal.v[o->journal.count - 1];
    assert_int_equal(newest->fence, h.fence);
    assert_string_equal(newest->handles.v[0].name, "snapshot");
    size_t of_parts = 0;
    for (size_t i = 0; i < o->journal.count; i++)
        of_parts += strcmp(o->journal.v[i].worker, "w2") == 0;
    assert_int_equal(of_parts, 1);
    bed_check(bed);
}

static void another_backup_of_the_vm_waits_for_the_parts(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES], other[ID_BYTES];
    struct hold h = wide_backup(bed, 2, request);
    ASK(.give = GIVE(1));
    struct hold part = wide_running_part(bed, "w2");
    bed_result(bed, &h, "succeeded");
    bed_drop(bed);
    bed_backup(bed, "name-1", other);
    struct hold inventory = bed_offer(bed);
    bed_claim(bed, &inventory, "w1");
    bed_inventory(bed, &inventory, 1, 1);
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
    bed_result(bed, &part, "cancelled");
    struct hold next = bed_offer(bed);
    assert_string_equal(next.kind, "backup");
    assert_string_not_equal(next.task, h.task);
    bed_check(bed);
}

/* --- Cancelling --- */
static void cancel(struct bed *bed, const char *request, const char *task)
{
    const struct wire_cancel c = {.request = S(request), .task = S(task)};
    bed_request(bed, WIRE_CANCEL, &c, NULL);
    bed_drop_type(bed, WIRE_ACCEPTED);
}

static void a_cancel_reaches_the_parts(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = wide_backup(bed, 4, request);
    ASK(.give = GIVE(1) | GIVE(2));
    struct hold one = wide_running_part(bed, "w2");
    bed_drop(bed);
    cancel(bed, request, NULL);
    assert_int_equal(bed_count(bed, WIRE_STOP), 2);
    {
        SCOPED_SENT struct sent told = wide_parted(bed, &h);
        assert_string_equal(wide_part(&told, 1)->state, "running");
        assert_string_equal(wide_part(&told, 2)->state, "cancelled");
    }
    /* Parts that it had asked for just before it heard of it. */
    ASK(.give = GIVE(3));
    wide_expect(bed, &h, 3, "cancelled");
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
    bed_result(bed, &one, "cancelled");
    wide_expect(bed, &h, 1, "cancelled");
    assert_int_equal(bed_count(bed, WIRE_FINISHED), 0);
    bed_result(bed, &h, "cancelled");
    assert_int_equal(bed_count(bed, WIRE_FINISHED), 2);
    bed_check(bed);
}

static void a_part_may_be_cancelled_alone(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = wide_backup(bed, 2, request);
    ASK(.give = GIVE(1));
    struct hold one = wide_running_part(bed, "w2");
    bed_drop(bed);
    cancel(bed, NULL, one.task);
    assert_int_equal(bed_count(bed, WIRE_STOP), 1);
    bed_result(bed, &one, "cancelled");
    wide_expect(bed, &h, 1, "cancelled");
    SCOPED_SENT struct sent finished = bed_take(bed, WIRE_FINISHED);
    assert_int_equal(((const struct wire_finished *)finished.m.as)->tasks_cancelled, 1);
    assert_int_equal(wide_state(bed, &h), TASK_RUNNING);
    bed_check(bed);
}

static void a_main_task_between_attempts_is_cancelled_while_a_part_stops(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = wide_backup(bed, 2, request);
    ASK(.give = GIVE(1));
    struct hold one = wide_running_part(bed, "w2");
    bed_fail(bed, &h, ERR_ENGINE_UNREACHABLE, NULL);
    bed_drop(bed);
    cancel(bed, request, NULL);
    assert_int_equal(wide_state(bed, &h), TASK_CANCELLED);
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
    wide_part_succeeds(bed, &one);
    bool of_part = false, of_main = false;
    while (bed_count(bed, WIRE_OFFER) > 0) {
        SCOPED_SENT struct sent s = bed_take(bed, WIRE_OFFER);
        const struct wire_offer *o = s.m.as;
        assert_string_equal(o->kind, "cleanup");
        of_part |= strcmp(o->cleanup_task, one.task) == 0;
        of_main |= strcmp(o->cleanup_task, h.task) == 0;
    }
    assert_true(of_part); /* its point */
    assert_true(of_main); /* the snapshot */
    bed_check(bed);
}

static void the_deadline_reaches_the_parts(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = wide_backup(bed, 2, request);
    ASK(.give = GIVE(1));
    struct hold one = wide_running_part(bed, "w2");
    for (int i = 0; i < 72; i++) { /* 7200 s */
        bed_wait(bed, 100 * 1000);
        bed_copying(bed, &h, i, 100);
        bed_copying(bed, &one, i, 100);
    }
    bed_wait(bed, 1000);
    assert_int_equal(bed_count(bed, WIRE_STOP), 2);
    bed_result(bed, &one, "cancelled");
    assert_int_equal(wide_state(bed, &one), TASK_CANCELLED);
}

/* --- Restore --- */
static void a_restore_has_parts_too(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    wide_workers(bed, 3);
    char *disks[] = {S("d0")};
    struct wire_restore_opts opts = {
        .point = S("p1"), .name = S("new"), .workers = 2, .disks = {disks, 1}};
    const struct wire_restore m = {.options = &opts};
    bed_request(bed, WIRE_RESTORE, &m, NULL);
    struct hold h = bed_offer(bed);
    bed_claim(bed, &h, "w1");
    bed_step(bed, &h, "create", "handle", "vm", "v9", "disk.1", "d1", NULL);
    ASK(.give = GIVE(1), .restore = true);
    SCOPED_SENT struct sent s = bed_take(bed, WIRE_OFFER);
    const struct wire_offer *o = s.m.as;
    assert_string_equal(s.key, "oxbow.tasks.dc1.restore");
    assert_string_equal(o->kind, "restore-part");
    assert_null(o->vm);
    assert_string_equal(o->part->point, "p1");
    assert_string_equal(o->part->pieces.v[0].from, "d0");
    assert_string_equal(o->restore->name, "new");
    assert_int_equal(o->restore->disks.count, 0); /* the pieces say it */
    struct hold part = {.attempt = 1};
    snprintf(part.task, sizeof part.task, "%s", o->task);
    snprintf(part.kind, sizeof part.kind, "%s", o->kind);
    bed_claim_denied(bed, &part, "w1", 0);
    bed_wait(bed, 300);
    part = wide_running_part(bed, "w2");
    bed_step(bed, &part, "attach", "handle", "attachment.d1", "proxy-2", NULL);
    bed_fail(bed, &h, ERR_ENGINE_UNREACHABLE, NULL);
    bed_drop(bed);
    bed_wait(bed, 100 * 1000);
    bed_copying(bed, &part, 1, 2);
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0); /* no VM to tell by, and yet it waits */
    bed_wait(bed, 121 * 1000);
    wide_workers(bed, 3);
    /* Lost: its attachment is removed, and it has no point. The disk is the main task's. */
    bool again = false, cleaned = false;
    while (bed_count(bed, WIRE_OFFER) > 0) {
        SCOPED_SENT struct sent next = bed_take(bed, WIRE_OFFER);
        const struct wire_offer *n = next.m.as;
        again |= strcmp(n->task, h.task) == 0;
        if (strcmp(n->kind, "cleanup") != 0)
            continue;
        cleaned = true;
        assert_int_equal(n->cleanup.count, 1);
        assert_string_equal(n->cleanup.v[0].kind, "attachment");
    }
    assert_true(again);
    assert_true(cleaned);
    bed_check(bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TWICE(the_main_tasks_end_stops_its_parts),
        ONCE(the_next_attempt_waits_for_the_parts),
        TWICE(a_failed_attempt_waits_for_its_parts_too),
        ONCE(a_main_task_that_is_given_up_leaves_its_points),
        ONCE(a_clean_up_looks_where_parts_had_attached),
        ONCE(a_lost_part_is_looked_after_when_all_is_over),
        ONCE(the_next_attempt_knows_where_parts_had_attached),
        TWICE(another_backup_of_the_vm_waits_for_the_parts),
        TWICE(a_cancel_reaches_the_parts),
        TWICE(a_part_may_be_cancelled_alone),
        TWICE(a_main_task_between_attempts_is_cancelled_while_a_part_stops),
        TWICE(the_deadline_reaches_the_parts),
        ONCE(a_restore_has_parts_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
