/* SPDX-License-Identifier: Apache-2.0 */
/* Claims, grants, fences, leases, presence, limits. */
#include <string.h>

#include "tests/unit/coordinator/bed.h"

static struct task task_of(struct bed *bed, const struct hold *h)
{
    struct err err = ERR_INIT;
    struct task t;
    assert_true(ledger_task_get(desk_core(bed->desk)->ledger, h->task, &t, &err));
    assert_non_null(t.id);
    return t;
}

static enum task_state state_of(struct bed *bed, const struct hold *h)
{
    SCOPED_TASK struct task t = task_of(bed, h);
    return t.state;
}

static void claim_again(struct bed *bed, const struct hold *h, const char *message_id,
                        int64_t fence)
{
    const struct wire_claim claim = {
        .task = S(h->task), .worker = S(h->worker), .attempt = h->attempt, .fence = fence};
    bed_event(bed, WIRE_CLAIM, &claim, message_id);
}

static void only_one_worker_gets_a_task(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = bed_backup_one(bed, "w1", request);
    bed_claim(bed, &h, "w1");
    bed_claim_denied(bed, &h, "w2", 0);
    struct hold wrong = h;
    wrong.attempt = 2;
    bed_claim_denied(bed, &wrong, "w1", 0);
    id_new(wrong.task);
    bed_claim_denied(bed, &wrong, "w1", 0);
    assert_int_equal(state_of(bed, &h), TASK_RUNNING);
    bed_result(bed, &h, "succeeded");
    bed_claim_denied(bed, &h, "w1", 0);
    bed_claim_denied(bed, &h, "w1", h.fence);
    bed_check(bed);
}

static void a_doubled_claim_gets_the_same_grant(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = bed_backup_one(bed, "w1", request);
    snprintf(h.worker, sizeof h.worker, "w1");
    claim_again(bed, &h, "m1", 0);
    SCOPED_SENT struct sent first = bed_take(bed, WIRE_GRANT);
    h.fence = ((const struct wire_grant *)first.m.as)->fence;
    bed_step(bed, &h, "precheck", "started", NULL);
    /* The broker delivers the same message again, after the step even. */
    claim_again(bed, &h, "m1", 0);
    SCOPED_SENT struct sent again = bed_take(bed, WIRE_GRANT);
    assert_int_equal(((const struct wire_grant *)again.m.as)->fence, h.fence);
    bed_restart(bed);
    claim_again(bed, &h, "m1", 0);
    SCOPED_SENT struct sent third = bed_take(bed, WIRE_GRANT);
    assert_int_equal(((const struct wire_grant *)third.m.as)->fence, h.fence);
    assert_int_equal(state_of(bed, &h), TASK_RUNNING);
}

/* The grant came too late, the worker had given the offer back and claims once more: no second
 * grant; the first one counts as soon as its run is heard of. */
static void a_second_claim_before_any_step_is_not_answered(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = bed_backup_one(bed, "w1", request);
    bed_claim(bed, &h, "w1");
    bed_drop(bed);
    claim_again(bed, &h, "m2", 0);
    assert_int_equal(bed->count, 0);
    bed_step(bed, &h, "precheck", "started", NULL);
    bed_wait(bed, 100 * 1000);
    assert_int_equal(state_of(bed, &h), TASK_RUNNING);
}

/* ... and if it never is, the lease runs out, however often the worker asks. */
static void a_run_never_heard_of_ends_in_time(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = bed_backup_one(bed, "w1", request);
    bed_claim(bed, &h, "w1");
    for (int i = 0; i < 7; i++) {
        bed_wait(bed, 17 * 1000);
        claim_again(bed, &h, i % 2 ? "m2" : "m3", 0);
        bed_presence(bed, "w1", "dc1", 4);
    }
    assert_int_equal(state_of(bed, &h), TASK_RUNNING);
    bed_wait(bed, 2 * 1000);
    struct hold next = bed_offer(bed);
    assert_int_equal(next.attempt, 2);
    bed_claim_denied(bed, &h, "w1", 0);
    bed_claim(bed, &next, "w1");
    assert_true(next.fence > h.fence);
}

static void answers_name_the_claim(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = bed_backup_one(bed, "w1", request);
    snprintf(h.worker, sizeof h.worker, "w1");
    claim_again(bed, &h, "claim-7", 0);
    SCOPED_SENT struct sent grant = bed_take(bed, WIRE_GRANT);
    assert_string_equal(grant.correlation_id, "claim-7");
    snprintf(h.worker, sizeof h.worker, "w2");
    claim_again(bed, &h, "claim-8", 0);
    SCOPED_SENT struct sent deny = bed_take(bed, WIRE_DENY);
    assert_string_equal(deny.correlation_id, "claim-8");
}

/* A worker that was killed and restarted gets its old offer again. The attempt must not go on: the
 * next one looks after what the first one did. */
static void a_forgotten_run_is_not_granted_again(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = bed_backup_one(bed, "w1", request);
    bed_claim(bed, &h, "w1");
    bed_step(bed, &h, "snapshot", "handle", "snapshot", "s1", NULL);
    bed_wait(bed, 1000);
    bed_claim_denied(bed, &h, "w1", 0);
    assert_int_equal(state_of(bed, &h), TASK_RUNNING);
    bed_wait(bed, 58 * 1000);
    assert_int_equal(state_of(bed, &h), TASK_RUNNING);
    bed_wait(bed, 2 * 1000);
    struct hold next = bed_offer(bed);
    assert_string_equal(next.task, h.task);
    assert_int_equal(next.attempt, 2);
    bed_check(bed);
}

static void fences_rise_per_vm_over_all_requests(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    int64_t last = 0;
    for (int i = 0; i < 4; i++) {
        char request[ID_BYTES];
        struct hold h = bed_backup_one(bed, "w1", request);
        bed_claim(bed, &h, "w1");
        assert_true(h.fence > last);
        last = h.fence;
        bed_result(bed, &h, "succeeded");
        bed_drop(bed);
        if (i % 2)
            bed_restart(bed);
    }
}

static void two_requests_for_one_vm_take_turns(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char one[ID_BYTES], two[ID_BYTES];
    struct hold first = bed_backup_one(bed, "w1", one);
    bed_drop(bed);
    bed_backup(bed, "name-1", two);
    struct hold inventory = bed_offer(bed);
    bed_claim(bed, &inventory, "w1");
    bed_inventory(bed, &inventory, 1, 1);
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
    bed_claim(bed, &first, "w1");
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
    bed_result(bed, &first, "succeeded");
    struct hold second = bed_offer(bed);
    assert_string_equal(second.vm, "vm-1");
    assert_string_not_equal(second.task, first.task);
    bed_check(bed);
}

static void events_renew_the_lease(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = bed_backup_one(bed, "w1", request);
    bed_claim(bed, &h, "w1");
    for (int i = 0; i < 4; i++) {
        bed_wait(bed, 100 * 1000);
        bed_copying(bed, &h, i, 100);
    }
    bed_wait(bed, 100 * 1000);
    bed_step(bed, &h, "commit", "started", NULL);
    bed_wait(bed, 100 * 1000);
    const struct wire_running running = {h.task, h.fence};
    bed_presence_running(bed, "w1", "dc1", 4, &running, 1);
    bed_wait(bed, 100 * 1000);
    claim_again(bed, &h, "m9", h.fence); /* reconfirmed after an outage */
    SCOPED_SENT struct sent s = bed_take(bed, WIRE_GRANT);
    assert_int_equal(((const struct wire_grant *)s.m.as)->fence, h.fence);
    bed_wait(bed, 119 * 1000);
    assert_int_equal(state_of(bed, &h), TASK_RUNNING);
    bed_wait(bed, 2 * 1000);
    assert_int_equal(state_of(bed, &h), TASK_OFFERED);
    bed_check(bed);
}

static void strangers_do_not_renew(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = bed_backup_one(bed, "w1", request);
    bed_claim(bed, &h, "w1");
    bed_wait(bed, 119 * 1000);
    struct hold wrong_fence = h, wrong_worker = h;
    wrong_fence.fence = 77;
    snprintf(wrong_worker.worker, sizeof wrong_worker.worker, "w2");
    bed_copying(bed, &wrong_fence, 1, 2);
    bed_copying(bed, &wrong_worker, 1, 2);
    bed_step(bed, &wrong_fence, "copy", "started", NULL);
    bed_step(bed, &wrong_worker, "copy", "done", NULL);
    const struct wire_running running = {h.task, h.fence};
    bed_presence_running(bed, "w2", "dc1", 4, &running, 1);
    bed_result(bed, &wrong_fence, "succeeded");
    bed_result(bed, &wrong_worker, "failed");
    bed_claim_denied(bed, &wrong_fence, "w1", 77);
    assert_int_equal(state_of(bed, &h), TASK_RUNNING);
    bed_wait(bed, 2 * 1000);
    assert_int_equal(state_of(bed, &h), TASK_OFFERED);
    bed_check(bed);
}

/* The next attempt is told what the first one held and under which fence. */
static void a_lost_attempt_hands_over_its_journal(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = bed_backup_one(bed, "w1", request);
    bed_claim(bed, &h, "w1");
    bed_step(bed, &h, "snapshot", "started", "session", "s.1", NULL);
    bed_step(bed, &h, "snapshot", "handle", "session", "s.1", "snapshot", "snap-1", NULL);
    bed_wait(bed, 121 * 1000);
    struct hold two = bed_offer(bed);
    assert_int_equal(two.attempt, 2);
    bed_claim(bed, &two, "w2");
    assert_true(two.fence > h.fence);
    bed_wait(bed, 121 * 1000); /* lost before any step */
    SCOPED_SENT struct sent s = bed_take(bed, WIRE_OFFER);
    const struct wire_offer *o = s.m.as;
    assert_int_equal(o->attempt, 3);
    assert_int_equal(o->journal.count, 4);
    const struct wire_journal_entry *last = &o->journal.v[3];
    assert_int_equal(last->fence, two.fence);
    assert_string_equal(last->worker, "w2");
    assert_string_equal(last->step, "grant");
    /* Readers look at the newest entry of the highest fence: the snapshot is still held. */
    assert_int_equal(last->handles.count, 2);
    assert_string_equal(o->journal.v[0].step, "grant");
    assert_int_equal(o->journal.v[0].fence, h.fence);
    assert_int_equal(o->journal.v[0].handles.count, 0);
    assert_string_equal(o->journal.v[2].state, "handle");
    bed_check(bed);
}

static void a_long_journal_is_cut_but_keeps_every_attempt(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    bed->conf.max_attempts = 10;
    char request[ID_BYTES];
    struct hold h = bed_backup_one(bed, "w1", request);
    for (int attempt = 1; attempt <= 3; attempt++) {
        bed_claim(bed, &h, "w1");
        for (int i = 0; i < 300; i++)
            bed_step(bed, &h, "copy", "done", "snapshot", attempt == 3 ? "third" : "other", NULL);
        bed_wait(bed, 121 * 1000);
        if (attempt < 3)
            h = bed_offer(bed);
    }
    SCOPED_SENT struct sent s = bed_take(bed, WIRE_OFFER);
    const struct wire_offer *o = s.m.as;
    assert_int_equal(o->journal.count, WIRE_JOURNAL_MAX);
    bool fences[4] = {false};
    for (size_t i = 0; i < o->journal.count; i++)
        fences[o->journal.v[i].attempt] = true;
    assert_true(fences[1] && fences[2] && fences[3]);
    const struct wire_journal_entry *last = &o->journal.v[o->journal.count - 1];
    assert_string_equal(last->handles.v[0].value, "third");
}

static void lost_too_often_is_quarantined_and_cleaned_up(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = bed_backup_one(bed, "w1", request);
    for (int attempt = 1; attempt <= 3; attempt++) {
        assert_int_equal(h.attempt, attempt);
        bed_claim(bed, &h, "w1");
        bed_step(bed, &h, "attach", "handle", "snapshot", "snap-1", "attachment.d1", "proxy-1",
                 NULL);
        bed_wait(bed, 121 * 1000);
        if (attempt < 3)
            h = bed_offer(bed);
    }
    SCOPED_SENT struct sent s = bed_take(bed, WIRE_OUTCOME);
    const struct wire_outcome *o = s.m.as;
    assert_string_equal(o->status, "failed");
    assert_string_equal(o->error->code, "quarantined");
    assert_int_equal(o->attempts, 3);
    assert_true(o->cleanup_open);
    SCOPED_SENT struct sent c = bed_take(bed, WIRE_OFFER);
    const struct wire_offer *cleanup = c.m.as;
    assert_string_equal(cleanup->kind, "cleanup");
    assert_string_equal(cleanup->cleanup_task, h.task);
    assert_string_equal(cleanup->vm, "vm-1");
    assert_int_equal(cleanup->cleanup.count, 2);
    SCOPED_SENT struct sent f = bed_take(bed, WIRE_FINISHED);
    assert_string_equal(((const struct wire_finished *)f.m.as)->status, "failed");
    bed_check(bed);
}

static void leases_rest_while_the_broker_is_away(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = bed_backup_one(bed, "w1", request);
    bed_claim(bed, &h, "w1");
    bed_wait(bed, 100 * 1000);
    desk_set_connected(bed->desk, false);
    bed_wait(bed, 3600 * 1000);
    assert_int_equal(state_of(bed, &h), TASK_RUNNING);
    desk_set_connected(bed->desk, true);
    bed_wait(bed, 119 * 1000);
    assert_int_equal(state_of(bed, &h), TASK_RUNNING);
    bed_wait(bed, 2000);
    assert_int_equal(state_of(bed, &h), TASK_OFFERED);
}

static void leases_begin_anew_after_a_restart(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = bed_backup_one(bed, "w1", request);
    bed_claim(bed, &h, "w1");
    bed_wait(bed, 110 * 1000);
    bed_restart(bed);
    bed_wait(bed, 110 * 1000);
    assert_int_equal(state_of(bed, &h), TASK_RUNNING);
    bed_step(bed, &h, "copy", "started", NULL); /* the same run goes on under the same fence */
    bed_result(bed, &h, "succeeded");
    assert_int_equal(state_of(bed, &h), TASK_SUCCEEDED);
    bed_check(bed);
}

static void a_worker_that_forgot_its_task_loses_it_early(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = bed_backup_one(bed, "w1", request);
    bed_claim(bed, &h, "w1");
    bed_step(bed, &h, "precheck", "started", NULL);
    bed_presence(bed, "w1", "dc1", 4);
    bed_wait(bed, 20 * 1000);
    bed_presence(bed, "w1", "dc1", 4);
    bed_wait(bed, 39 * 1000);
    assert_int_equal(state_of(bed, &h), TASK_RUNNING);
    bed_wait(bed, 2 * 1000);
    assert_int_equal(state_of(bed, &h), TASK_OFFERED);
    bed_check(bed);
}

static void one_presence_without_the_task_is_nothing(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = bed_backup_one(bed, "w1", request);
    bed_claim(bed, &h, "w1");
    const struct wire_running running = {h.task, h.fence};
    bed_presence(bed, "w1", "dc1", 4);
    bed_presence_running(bed, "w1", "dc1", 4, &running, 1);
    bed_presence(bed, "w1", "dc1", 4);
    bed_wait(bed, 100 * 1000);
    assert_int_equal(state_of(bed, &h), TASK_RUNNING);
}

/* --- Limits --- */
/* Offers of a request for `count` VMs. */
static void back_up(struct bed *bed, const char *worker, int first, int count)
{
    char request[ID_BYTES];
    bed_backup(bed, NULL, request);
    struct hold inventory = bed_offer(bed);
    bed_claim(bed, &inventory, worker);
    bed_inventory(bed, &inventory, first, count);
    bed_drop_type(bed, WIRE_PROGRESS);
}

static void offers_follow_the_free_slots(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    bed_presence(bed, "w1", "dc1", 2);
    back_up(bed, "w1", 1, 20);
    assert_int_equal(bed_count(bed, WIRE_OFFER), 4); /* 2 free and 2 more */
    struct hold h = bed_offer(bed);
    bed_claim(bed, &h, "w1");
    assert_int_equal(bed_count(bed, WIRE_OFFER), 3);
    bed_presence(bed, "w2", "dc1", 3);
    assert_int_equal(bed_count(bed, WIRE_OFFER), 6);
    bed_result(bed, &h, "succeeded");
    assert_int_equal(bed_count(bed, WIRE_OFFER), 7);
}

static void one_offer_goes_out_where_nobody_is_known(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    back_up(bed, "w1", 1, 5);
    assert_int_equal(bed_count(bed, WIRE_OFFER), 1);
    struct hold h = bed_offer(bed);
    bed_claim(bed, &h, "w1");
    assert_int_equal(bed_count(bed, WIRE_OFFER), 1);
}

static void limits_hold(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", "dc2", NULL);
    bed->conf.limits.max_running = 3;
    bed->zones[1].max_running = 1;
    bed_presence(bed, "w1", "dc1", 10);
    bed_presence(bed, "w2", "dc2", 10);
    char request[ID_BYTES];
    bed_backup(bed, NULL, request);
    struct hold one = bed_offer(bed), two = bed_offer(bed);
    bed_claim(bed, &one, "w1");
    bed_inventory(bed, &one, 1, 10);
    bed_claim(bed, &two, "w2");
    bed_inventory(bed, &two, 100, 10);
    /* dc2 may have one only; the first two were offered when dc2 was not known yet. */
    assert_int_equal(bed_count(bed, WIRE_OFFER), 3);
    struct hold holds[3];
    size_t in_dc2 = 0;
    for (size_t i = 0; i < 3; i++) {
        holds[i] = bed_offer(bed);
        bool dc2 = strlen(holds[i].vm) > strlen("vm-10");
        in_dc2 += dc2;
        bed_claim(bed, &holds[i], dc2 ? "w2" : "w1");
    }
    assert_true(in_dc2 <= 1);
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
    bed_result(bed, &holds[0], "succeeded");
    assert_int_equal(bed_count(bed, WIRE_OFFER), 1);
    bed_check(bed);
}

static void a_claim_over_the_limit_waits(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    bed_presence(bed, "w1", "dc1", 10);
    back_up(bed, "w1", 1, 2);
    struct hold one = bed_offer(bed), two = bed_offer(bed);
    bed_drop(bed);
    bed->conf.limits.per_lane.backup = 1;
    bed_claim(bed, &one, "w1");
    bed_claim_denied(bed, &two, "w1", 0);
    assert_int_equal(state_of(bed, &two), TASK_WAITING);
    bed_claim_denied(bed, &two, "w1", 0); /* that attempt is over */
    bed_wait(bed, 10 * 1000);
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
    bed_result(bed, &one, "succeeded");
    struct hold again = bed_offer(bed);
    assert_string_equal(again.task, two.task);
    assert_int_equal(again.attempt, 2);
    bed_claim(bed, &again, "w1");
    bed_result(bed, &again, "succeeded");
    bed_drop_type(bed, WIRE_PROGRESS);
    SCOPED_SENT struct sent s1 = bed_take(bed, WIRE_OUTCOME);
    SCOPED_SENT struct sent s2 = bed_take(bed, WIRE_OUTCOME);
    /* Being held back is no attempt. */
    assert_int_equal(((const struct wire_outcome *)s2.m.as)->attempts, 1);
}

static void restores_do_not_wait_behind_backups(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    bed->conf.limits.max_running = 2;
    bed_presence(bed, "w1", "dc1", 10);
    back_up(bed, "w1", 1, 10);
    struct hold one = bed_offer(bed), two = bed_offer(bed);
    bed_claim(bed, &one, "w1");
    bed_claim(bed, &two, "w1");
    struct wire_restore_opts opts = {.point = S("p"), .name = S("n")};
    const struct wire_restore r = {.options = &opts};
    bed_request(bed, WIRE_RESTORE, &r, NULL);
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
    bed_result(bed, &one, "succeeded");
    struct hold next = bed_offer(bed);
    assert_string_equal(next.kind, "restore");
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
}

static void an_offer_nobody_takes_is_renewed_when_somebody_could(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = bed_backup_one(bed, "w1", request);
    for (int i = 0; i < 5; i++) {
        bed_wait(bed, 30 * 1000);
        bed_presence(bed, "w1", "dc1", 4);
    }
    struct hold again = bed_offer(bed);
    assert_string_equal(again.task, h.task);
    assert_int_equal(again.attempt, 2);
    bed_claim_denied(bed, &h, "w1", 0); /* the first one was there after all */
    bed_claim(bed, &again, "w1");
    bed_check(bed);
}

static void offers_of_a_deleted_queue_go_out_again_at_once(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = bed_backup_one(bed, "w1", request);
    struct err err = ERR_INIT;
    static const char *const others[] = {"oxbow.tasks.dc2.backup", "oxbow.tasks.dc1.restore",
                                         "oxbow.ledger"};
    for (size_t i = 0; i < ARRAY_LEN(others); i++) {
        assert_true(desk_begin(bed->desk, &err));
        assert_true(desk_queue_deleted(bed->desk, others[i], &err));
        bed_commit(bed);
        assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
    }
    assert_true(desk_begin(bed->desk, &err));
    assert_true(desk_queue_deleted(bed->desk, "oxbow.tasks.dc1.backup", &err));
    bed_commit(bed);
    assert_int_equal(bed_count(bed, WIRE_OFFER), 1);
    struct hold again = bed_offer(bed);
    assert_string_equal(again.task, h.task);
    assert_int_equal(again.attempt, 2);
    bed_claim_denied(bed, &h, "w1", 0); /* a worker had taken it before: no harm */
    bed_claim(bed, &again, "w1");
    assert_true(desk_begin(bed->desk, &err));
    assert_true(desk_queue_deleted(bed->desk, "oxbow.tasks.dc1.backup", &err));
    bed_commit(bed);
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0); /* it runs */
    bed_check(bed);
}

static void a_silent_worker_is_lost_and_no_longer_counted(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    bed_presence(bed, "w1", "dc1", 5);
    bed_presence(bed, "w2", "dc1", 5);
    struct err err = ERR_INIT;
    for (int i = 0; i < 30; i++) {
        bed_wait(bed, 10 * 1000);
        bed_presence(bed, "w1", "dc1", 5);
    }
    struct ledger *l = desk_core(bed->desk)->ledger;
    SCOPED_WORKER struct worker w1 = {0}, w2 = {0};
    assert_true(ledger_worker_get(l, "w1", &w1, &err) && ledger_worker_get(l, "w2", &w2, &err));
    assert_int_equal(w1.state, WORKER_UP);
    assert_int_equal(w2.state, WORKER_LOST);
    back_up(bed, "w1", 1, 20);
    assert_int_equal(bed_count(bed, WIRE_OFFER), 7);
    bed_presence(bed, "w2", "dc1", 5);
    assert_int_equal(bed_count(bed, WIRE_OFFER), 12);
}

static void a_leaving_worker_is_forgotten_a_draining_one_gets_nothing(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    bed_presence(bed, "w1", "dc1", 5);
    bed_presence(bed, "w2", "dc1", 5);
    struct wire_presence p = {.worker = S("w1"),
                              .zone = S("dc1"),
                              .state = S("draining"),
                              .slots_backup = 5,
                              .slots_upkeep = 5};
    bed_event(bed, WIRE_PRESENCE, &p, NULL);
    p.worker = S("w2");
    p.state = S("leaving");
    bed_event(bed, WIRE_PRESENCE, &p, NULL);
    back_up(bed, "w3", 1, 20);
    assert_int_equal(bed_count(bed, WIRE_OFFER), 1);
    struct err err = ERR_INIT;
    SCOPED_WORKER struct worker w2 = {0};
    assert_true(ledger_worker_get(desk_core(bed->desk)->ledger, "w2", &w2, &err));
    assert_int_equal(w2.n, 0);
}

/* A worker that is told to stop, goes on, and keeps saying so. */
static void who_does_not_stop_loses_the_task(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    bed->conf.stop_limit_s = 300;
    char request[ID_BYTES];
    struct hold h = bed_backup_one(bed, "w1", request);
    bed_claim(bed, &h, "w1");
    bed_step(bed, &h, "snapshot", "handle", "snapshot", "s1", NULL);
    const struct wire_cancel c = {.task = h.task};
    bed_request(bed, WIRE_CANCEL, &c, &(struct bed_props){.reply_to = "canceller"});
    const struct wire_running running = {h.task, h.fence};
    for (int i = 0; i < 9; i++) { /* within the limit it may tidy up */
        bed_wait(bed, 32 * 1000);
        bed_copying(bed, &h, i, 100);
        bed_presence_running(bed, "w1", "dc1", 4, &running, 1);
        assert_int_equal(bed_count(bed, WIRE_DENY), 0);
    }
    assert_int_equal(state_of(bed, &h), TASK_RUNNING);
    bed_wait(bed, 20 * 1000);
    SCOPED_SENT struct sent deny = bed_take_for(bed, WIRE_DENY, "worker.w1");
    assert_string_equal(((const struct wire_deny *)deny.m.as)->task, h.task);
    bed_claim_denied(bed, &h, "w1", h.fence);
    for (int i = 0; i < 4; i++) { /* nothing renews it any more */
        assert_int_equal(state_of(bed, &h), TASK_RUNNING);
        bed_wait(bed, 32 * 1000);
        bed_step(bed, &h, "copy", "started", "snapshot", "s1", NULL);
        bed_presence_running(bed, "w1", "dc1", 4, &running, 1);
    }
    assert_int_equal(state_of(bed, &h), TASK_CANCELLED);
    SCOPED_SENT struct sent offer = bed_take(bed, WIRE_OFFER);
    const struct wire_offer *o = offer.m.as;
    assert_string_equal(o->kind, "cleanup");
    assert_string_equal(o->cleanup.v[0].id, "s1");
    assert_int_equal(bed_count(bed, WIRE_DENY), 0);
    bed_check(bed);
}

/* A restart knows since when it was told. */
static void the_stop_limit_survives_a_restart(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    bed->conf.stop_limit_s = 300;
    char request[ID_BYTES];
    struct hold h = bed_backup_one(bed, "w1", request);
    bed_claim(bed, &h, "w1");
    const struct wire_cancel c = {.task = h.task};
    bed_request(bed, WIRE_CANCEL, &c, NULL);
    const struct wire_running running = {h.task, h.fence};
    bed_wait(bed, 60 * 1000);
    bed_presence_running(bed, "w1", "dc1", 4, &running, 1);
    bed->clock.mono_ms += 250 * 1000;
    bed->clock.wall_ms += 250 * 1000;
    bed_restart(bed);
    bed_drop(bed);
    bed_wait(bed, 6 * 1000);
    assert_int_equal(bed_count(bed, WIRE_DENY), 1);
    /* What it says at last still counts while nobody else has the task. */
    bed_result(bed, &h, "cancelled");
    assert_int_equal(state_of(bed, &h), TASK_CANCELLED);
    bed_check(bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_does_not_stop_loses_the_task),
        cmocka_unit_test(the_stop_limit_survives_a_restart),
        cmocka_unit_test(only_one_worker_gets_a_task),
        cmocka_unit_test(a_doubled_claim_gets_the_same_grant),
        cmocka_unit_test(a_second_claim_before_any_step_is_not_answered),
        cmocka_unit_test(a_run_never_heard_of_ends_in_time),
        cmocka_unit_test(answers_name_the_claim),
        cmocka_unit_test(a_forgotten_run_is_not_granted_again),
        cmocka_unit_test(fences_rise_per_vm_over_all_requests),
        cmocka_unit_test(two_requests_for_one_vm_take_turns),
        cmocka_unit_test(events_renew_the_lease),
        cmocka_unit_test(strangers_do_not_renew),
        cmocka_unit_test(a_lost_attempt_hands_over_its_journal),
        cmocka_unit_test(a_long_journal_is_cut_but_keeps_every_attempt),
        cmocka_unit_test(lost_too_often_is_quarantined_and_cleaned_up),
        cmocka_unit_test(leases_rest_while_the_broker_is_away),
        cmocka_unit_test(leases_begin_anew_after_a_restart),
        cmocka_unit_test(a_worker_that_forgot_its_task_loses_it_early),
        cmocka_unit_test(one_presence_without_the_task_is_nothing),
        cmocka_unit_test(offers_follow_the_free_slots),
        cmocka_unit_test(one_offer_goes_out_where_nobody_is_known),
        cmocka_unit_test(limits_hold),
        cmocka_unit_test(a_claim_over_the_limit_waits),
        cmocka_unit_test(restores_do_not_wait_behind_backups),
        cmocka_unit_test(an_offer_nobody_takes_is_renewed_when_somebody_could),
        cmocka_unit_test(offers_of_a_deleted_queue_go_out_again_at_once),
        cmocka_unit_test(a_silent_worker_is_lost_and_no_longer_counted),
        cmocka_unit_test(a_leaving_worker_is_forgotten_a_draining_one_gets_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
