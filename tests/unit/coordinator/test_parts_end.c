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
        TWICE(another_backup_of_the_vm_waits_for_the_parts),
        TWICE(a_cancel_reaches_the_parts),
        TWICE(a_part_may_be_cancelled_alone),
        TWICE(a_main_task_between_attempts_is_cancelled_while_a_part_stops),
        TWICE(the_deadline_reaches_the_parts),
        ONCE(a_restore_has_parts_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
