/* SPDX-License-Identifier: Apache-2.0 */
/* Parts of a backup that other workers do: who gets them, what their main task is told, what is
 * shown. */
#include <string.h>

#include "tests/unit/coordinator/wide_bed.h"

/* --- Giving away --- */
static void parts_become_tasks(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = wide_backup(bed, 3, request);
    ASK(.give = GIVE(1) | GIVE(2));
    SCOPED_SENT struct sent told = wide_parted(bed, &h);
    assert_int_equal(((const struct wire_parted *)told.m.as)->states.count, 2);
    for (int n = 1; n <= 2; n++) {
        SCOPED_SENT struct sent s = bed_take(bed, WIRE_OFFER);
        const struct wire_offer *o = s.m.as;
        assert_string_equal(s.key, "oxbow.tasks.dc1.backup");
        assert_string_equal(o->kind, "backup-part");
        assert_string_equal(o->request, request);
        assert_string_equal(o->vm, "vm-1");
        assert_string_equal(o->vm_name, "name-1");
        assert_int_equal(o->backup->workers, 3);
        assert_string_equal(o->part->of, h.task);
        assert_int_equal(o->part->n, n);
        assert_string_equal(o->part->snapshot, "s1");
        assert_string_equal(o->part->pieces.v[0].image, "i1");
        const struct wire_part_state *p = wide_part(&told, n);
        assert_string_equal(p->task, o->task);
        assert_string_equal(p->state, "waiting");
        assert_null(p->worker);
        assert_int_equal(p->fence, 0);
    }
    bed_check(bed);
}

static void asked_again_is_no_new_part(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = wide_backup(bed, 3, request);
    ASK(.give = GIVE(1));
    bed_drop(bed);
    ASK(.give = GIVE(1));
    ASK(.give = NONE);
    assert_int_equal(bed_count(bed, WIRE_PARTED), 2);
    bed_restart(bed);
    ASK(.give = GIVE(1));
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
    wide_expect(bed, &h, 1, "waiting");
    /* ... nor when it has ended. */
    ASK(.withdraw = GIVE(1));
    ASK(.give = GIVE(1));
    wide_expect(bed, &h, 1, "cancelled");
    bed_check(bed);
}

static void every_worker_gets_one(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = wide_backup(bed, 4, request);
    ASK(.give = GIVE(1) | GIVE(2));
    bed_drop_type(bed, WIRE_PARTED);
    struct hold one = bed_offer(bed), two = bed_offer(bed);
    bed_claim_denied(bed, &one, "w1", 0); /* the main task runs there */
    bed_claim(bed, &two, "w2");
    wide_expect(bed, &h, 2, "running");
    /* It is offered again soon, as another attempt: the old offer is void. */
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
    bed_wait(bed, 300);
    bed_claim_denied(bed, &one, "w3", 0);
    one = bed_offer(bed);
    bed_claim_denied(bed, &one, "w2", 0); /* another part runs there */
    bed_wait(bed, 600);
    one = bed_offer(bed);
    bed_claim(bed, &one, "w3");
    SCOPED_SENT struct sent told = wide_parted(bed, &h);
    assert_string_equal(wide_part(&told, 1)->worker, "w3");
    assert_string_equal(wide_part(&told, 2)->worker, "w2");
    assert_int_equal(wide_part(&told, 1)->fence, 1);
    bed_check(bed);
}

static void who_is_done_takes_another(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = wide_backup(bed, 4, request);
    ASK(.give = GIVE(1) | GIVE(2));
    struct hold one = wide_running_part(bed, "w2");
    wide_part_succeeds(bed, &one);
    struct hold two = wide_running_part(bed, "w2");
    assert_string_not_equal(one.task, two.task);
}

static void a_worker_in_the_same_proxy_gets_none(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct wire_presence p = {
        .worker = S("w1"), .zone = S("dc1"), .proxy = S("proxy1"), .state = S("up")};
    p.slots_backup = p.slots_upkeep = p.slots_restore = 4;
    bed_event(bed, WIRE_PRESENCE, &p, NULL);
    p.worker = S("w2");
    bed_event(bed, WIRE_PRESENCE, &p, NULL);
    struct hold h = wide_offer(bed, 2, request);
    bed_claim(bed, &h, "w1");
    ASK(.give = GIVE(1));
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
    p.worker = S("w3");
    p.proxy = S("proxy3");
    bed_event(bed, WIRE_PRESENCE, &p, NULL);
    struct hold part = bed_offer(bed);
    bed_claim_denied(bed, &part, "w2", 0);
    bed_wait(bed, 300);
    part = bed_offer(bed);
    bed_claim(bed, &part, "w3");
}

static void nothing_is_offered_where_nobody_could(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    bed_presence(bed, "w1", "dc1", 4);
    struct hold h = wide_offer(bed, 4, request);
    bed_claim(bed, &h, "w1");
    ASK(.give = GIVE(1) | GIVE(2));
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
    wide_expect(bed, &h, 1, "waiting");
    bed_presence(bed, "w2", "dc1", 1);
    struct hold one = bed_offer(bed);
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0); /* one taker, one offer */
    bed_claim(bed, &one, "w2");
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
    bed_presence(bed, "w3", "dc2", 4); /* another zone */
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
    wide_part_succeeds(bed, &one);
    assert_int_equal(bed_count(bed, WIRE_OFFER), 1);
}

static void parts_come_first(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES], other[ID_BYTES];
    wide_workers(bed, 2);
    bed->conf.limits.max_running = 3;
    struct hold h = wide_offer(bed, 2, request);
    bed_claim(bed, &h, "w1");
    bed_backup(bed, NULL, other);
    struct hold inventory = bed_offer(bed);
    bed_claim(bed, &inventory, "w1");
    bed_inventory(bed, &inventory, 2, 10);
    bed_drop(bed); /* two of them are offered */
    ASK(.give = GIVE(1));
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0); /* limits hold for parts */
    bed->conf.limits.max_running = 4;
    bed_presence(bed, "w3", "dc1", 1);
    struct hold part = bed_offer(bed);
    assert_string_equal(part.kind, "backup-part");
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
}

static void more_than_was_asked_for_is_refused(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = wide_backup(bed, 2, request);
    ASK(.give = GIVE(1) | GIVE(2));
    assert_int_equal(bed_count(bed, WIRE_OFFER), 1);
    SCOPED_SENT struct sent told = wide_parted(bed, &h);
    assert_string_equal(wide_part(&told, 1)->state, "waiting");
    assert_string_equal(wide_part(&told, 2)->state, "failed");
    assert_string_equal(wide_part(&told, 2)->error->code, "refused");
    bed_check(bed);
}

static void without_the_option_there_are_none(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    wide_workers(bed, 3);
    struct hold h = bed_backup_one(bed, "w1", request);
    bed_claim(bed, &h, "w1");
    ASK(.give = GIVE(1));
    wide_expect(bed, &h, 1, "failed");
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
}

static void senseless_parts_are_buried(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = wide_backup(bed, 2, request);
    ASK(.give = GIVE(1), .length = 11); /* of a disk of 10 bytes */
    assert_int_equal(bed_count(bed, WIRE_PARTED), 0);
    ASK(.give = NONE);
    SCOPED_SENT struct sent told = wide_parted(bed, &h);
    assert_int_equal(((const struct wire_parted *)told.m.as)->states.count, 0);
    struct err why = ERR_INIT;
    SCOPED_FREE char *body = xasprintf(
        "{\"task\":\"%s\",\"worker\":\"w1\",\"attempt\":1,\"fence\":%d,\"parts\":[{\"of\":\"%s\","
        "\"n\":1,\"point\":\"p\",\"pieces\":[{\"disk\":\"d\",\"path\":\"attach\",\"size_bytes\":1,"
        "\"offset\":0,\"length\":1}]}]}",
        h.task, (int)h.fence, h.task);
    const struct bed_props props = {.type = "oxbow.parts.v1"};
    assert_int_equal(bed_feed(bed, false, &props, body, &why), DESK_BURY);
    assert_non_null(strstr(why.message, "needs a snapshot"));
    bed_check(bed);
}

/* --- How they end --- */
static void a_part_that_succeeds_is_told(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = wide_backup(bed, 2, request);
    ASK(.give = GIVE(1));
    struct hold part = wide_running_part(bed, "w2");
    bed_copying(bed, &part, 5, 9);
    bed_drop(bed);
    wide_part_succeeds(bed, &part);
    assert_int_equal(bed_count(bed, WIRE_OUTCOME), 0);
    assert_int_equal(bed_count(bed, WIRE_FINISHED), 0);
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0); /* the main task deletes the point */
    bed_restart(bed);
    wide_part_succeeds(bed, &part); /* doubled */
    ASK(.give = NONE);
    SCOPED_FREE char *point = xasprintf("%s.%d", part.task, (int)part.fence);
    SCOPED_SENT struct sent told = wide_parted(bed, &h);
    const struct wire_part_state *p = wide_part(&told, 1);
    assert_string_equal(p->state, "succeeded");
    assert_string_equal(p->point, point);
    assert_string_equal(p->worker, "w2");
    assert_int_equal(p->stats->bytes_read, 7);
    assert_int_equal(p->bytes_done, 5);
    assert_int_equal(p->bytes_total, 9);
    assert_false(p->cleanup_open);
    bed_check(bed);
    bed_result(bed, &h, "succeeded");
    SCOPED_SENT struct sent outcome = bed_take(bed, WIRE_OUTCOME);
    assert_string_equal(((const struct wire_outcome *)outcome.m.as)->kind, "backup");
    SCOPED_SENT struct sent finished = bed_take(bed, WIRE_FINISHED);
    assert_int_equal(((const struct wire_finished *)finished.m.as)->tasks_total, 1);
    assert_int_equal(bed_count(bed, WIRE_OUTCOME), 0);
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
    bed_check(bed);
}

static void a_part_that_fails_is_not_tried_again(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = wide_backup(bed, 2, request);
    ASK(.give = GIVE(1));
    struct hold part = wide_running_part(bed, "w2");
    bed_drop(bed);
    bed_fail(bed, &part, ERR_ENGINE_BUSY, NULL);
    SCOPED_SENT struct sent told = wide_parted(bed, &h);
    assert_string_equal(wide_part(&told, 1)->state, "failed");
    assert_string_equal(wide_part(&told, 1)->error->code, "engine-busy");
    bed_wait(bed, 3600 * 1000);
    for (size_t i = 0; i < bed->count; i++)
        if (bed->sent[i].m.type == WIRE_OFFER)
            assert_string_not_equal(((const struct wire_offer *)bed->sent[i].m.as)->kind,
                                    "backup-part");
    bed_check(bed);
}

static void a_part_given_back_is_offered_again(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = wide_backup(bed, 2, request);
    ASK(.give = GIVE(1));
    struct hold part = wide_running_part(bed, "w2");
    bed_drop(bed);
    bed_result(bed, &part, "released"); /* its worker drains */
    wide_expect(bed, &h, 1, "waiting");
    struct hold again = wide_running_part(bed, "w3");
    assert_string_equal(again.task, part.task);
    assert_true(again.fence > part.fence);
    wide_expect(bed, &h, 1, "running");
    bed_check(bed);
}

/* Its attachment must go before the main task can merge: the clean-up does not wait for the VM. */
static void a_lost_part_is_cleaned_up_while_its_main_task_runs(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = wide_backup(bed, 2, request);
    ASK(.give = GIVE(1));
    struct hold part = wide_running_part(bed, "w2");
    bed_step(bed, &part, "attach", "handle", "attachment.d1", "proxy-2", "session", "x", NULL);
    bed_drop(bed);
    bed_wait(bed, 100 * 1000);
    bed_copying(bed, &h, 1, 2); /* the main task lives */
    bed_presence(bed, "w3", "dc1", 4);
    bed_wait(bed, 25 * 1000);
    {
        SCOPED_SENT struct sent told = wide_parted(bed, &h);
        const struct wire_part_state *p = wide_part(&told, 1);
        assert_string_equal(p->state, "failed");
        assert_string_equal(p->error->code, "timeout");
        assert_true(p->cleanup_open);
    }
    SCOPED_SENT struct sent s = bed_take(bed, WIRE_OFFER);
    const struct wire_offer *o = s.m.as;
    assert_string_equal(o->kind, "cleanup");
    assert_string_equal(o->cleanup_task, part.task);
    assert_null(o->vm);
    assert_int_equal(o->cleanup.count, 2);
    SCOPED_FREE char *session = xasprintf("%s.%d", part.task, (int)part.fence);
    for (size_t i = 0; i < 2; i++) {
        const struct wire_leftover *l = &o->cleanup.v[i];
        bool attachment = strcmp(l->kind, "attachment") == 0;
        assert_string_equal(l->id, attachment ? "d1" : session);
        assert_true(attachment || strcmp(l->kind, "part") == 0);
    }
    struct hold cleanup = {.attempt = 1};
    snprintf(cleanup.task, sizeof cleanup.task, "%s", o->task);
    bed_claim(bed, &cleanup, "w3");
    wide_part_succeeds(bed, &part); /* too late: void */
    ASK(.give = NONE);
    wide_expect(bed, &h, 1, "failed");
    bed_result(bed, &cleanup, "succeeded");
    {
        SCOPED_SENT struct sent told = wide_parted(bed, &h); /* unasked */
        assert_false(wide_part(&told, 1)->cleanup_open);
    }
    bed_check(bed);
}

/* --- Withdrawing --- */
static void a_waiting_part_is_withdrawn_at_once(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = wide_backup(bed, 2, request);
    ASK(.give = GIVE(1));
    struct hold part = bed_offer(bed);
    ASK(.withdraw = GIVE(1) | GIVE(7)); /* 7 was never given: nothing */
    wide_expect(bed, &h, 1, "cancelled");
    bed_claim_denied(bed, &part, "w2", 0); /* the offer is still in the queue */
    ASK(.withdraw = GIVE(1));
    wide_expect(bed, &h, 1, "cancelled");
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
    bed_check(bed);
}

static void a_running_part_is_stopped(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = wide_backup(bed, 2, request);
    ASK(.give = GIVE(1));
    struct hold part = wide_running_part(bed, "w2");
    bed_drop(bed);
    ASK(.withdraw = GIVE(1));
    wide_expect(bed, &h, 1, "running");
    SCOPED_SENT struct sent stop = bed_take_for(bed, WIRE_STOP, "worker.w2");
    assert_string_equal(((const struct wire_stop *)stop.m.as)->reason, "withdrawn");
    ASK(.withdraw = GIVE(1));
    assert_int_equal(bed_count(bed, WIRE_STOP), 0); /* told once; presence repeats it */
    bed_drop(bed);
    bed_result(bed, &part, "cancelled");
    wide_expect(bed, &h, 1, "cancelled");
    bed_check(bed);
}

/* The commit was faster than the stop. */
static void a_withdrawn_part_may_still_succeed(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = wide_backup(bed, 2, request);
    ASK(.give = GIVE(1));
    struct hold part = wide_running_part(bed, "w2");
    ASK(.withdraw = GIVE(1));
    bed_drop(bed);
    wide_part_succeeds(bed, &part);
    wide_expect(bed, &h, 1, "succeeded");
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0); /* the main task finds it and deletes it */
    bed_check(bed);
}

/* --- What is shown --- */
static void progress_sums_the_parts(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = wide_backup(bed, 4, request);
    ASK(.give = GIVE(1) | GIVE(2) | GIVE(3));
    struct hold one = wide_running_part(bed, "w2"), two = wide_running_part(bed, "w3"),
                three = wide_running_part(bed, "w4");
    bed_copying(bed, &one, 30, 30);
    wide_part_succeeds(bed, &one);
    bed_copying(bed, &two, 10, 20);
    bed_copying(bed, &three, 1000, 1000);
    bed_fail(bed, &three, ERR_IO, NULL); /* what it did is done again */
    bed_wait(bed, 2000);
    bed_copying(bed, &h, 1, 100);
    bed_drop(bed);
    bed_wait(bed, 2000);
    bed_copying(bed, &two, 15, 20);
    assert_int_equal(bed_count(bed, WIRE_PROGRESS), 1);
    SCOPED_SENT struct sent s = bed_take(bed, WIRE_PROGRESS);
    const struct wire_progress *p = s.m.as;
    assert_string_equal(p->task, h.task);
    assert_string_equal(p->kind, "backup");
    assert_int_equal(p->bytes_done, 1 + 30 + 15);
    assert_int_equal(p->bytes_total, 100 + 30 + 20);
    assert_int_equal(p->rate_bps, 2000);
    assert_int_equal(p->tasks_total, 1);
}

static void status_shows_parts_below_their_main_task(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = wide_backup(bed, 3, request);
    ASK(.give = GIVE(1) | GIVE(2));
    struct hold one = wide_running_part(bed, "w2");
    bed_copying(bed, &h, 1, 100);
    bed_copying(bed, &one, 10, 20);
    bed_drop(bed);
    const char *ids[] = {request, h.task};
    for (size_t i = 0; i < ARRAY_LEN(ids); i++) {
        const struct wire_status q = {.request = S(ids[i])};
        bed_request(bed, WIRE_STATUS, &q, NULL);
        size_t at = 0;
        bool found = false;
        while (bed_count(bed, WIRE_PAGE) > 0) {
            SCOPED_SENT struct sent s = bed_take(bed, WIRE_PAGE);
            const struct wire_item_list *items = ((const struct wire_page *)s.m.as)->items;
            for (at = 0; at < items->tasks_count; at++) {
                const struct wire_task_item *t = &items->tasks[at];
                if (strcmp(t->id, h.task) != 0) {
                    assert_true(!t->part_of || found);
                    continue;
                }
                found = true;
                assert_null(t->part_of);
                assert_int_equal(t->bytes_done, 11);
                assert_int_equal(t->bytes_total, 120);
                assert_true(at + 2 < items->tasks_count);
                assert_string_equal(t[1].part_of, h.task);
                assert_string_equal(t[1].kind, "backup-part");
                assert_string_equal(t[1].worker, "w2");
                assert_int_equal(t[1].bytes_done, 10);
                assert_string_equal(t[2].part_of, h.task);
                assert_string_equal(t[2].state, "offered");
            }
        }
        assert_true(found);
        bed_drop(bed);
    }
    const struct wire_status q = {.request = S(one.task)};
    bed_request(bed, WIRE_STATUS, &q, NULL);
    SCOPED_SENT struct sent s = bed_take(bed, WIRE_PAGE);
    const struct wire_item_list *items = ((const struct wire_page *)s.m.as)->items;
    assert_int_equal(items->tasks_count, 1);
    assert_string_equal(items->tasks[0].id, one.task);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TWICE(parts_become_tasks),
        TWICE(asked_again_is_no_new_part),
        TWICE(every_worker_gets_one),
        TWICE(who_is_done_takes_another),
        TWICE(a_worker_in_the_same_proxy_gets_none),
        TWICE(nothing_is_offered_where_nobody_could),
        TWICE(parts_come_first),
        TWICE(more_than_was_asked_for_is_refused),
        TWICE(without_the_option_there_are_none),
        TWICE(senseless_parts_are_buried),
        ONCE(a_part_that_succeeds_is_told),
        TWICE(a_part_that_fails_is_not_tried_again),
        TWICE(a_part_given_back_is_offered_again),
        ONCE(a_lost_part_is_cleaned_up_while_its_main_task_runs),
        TWICE(a_waiting_part_is_withdrawn_at_once),
        TWICE(a_running_part_is_stopped),
        TWICE(a_withdrawn_part_may_still_succeed),
        ONCE(progress_sums_the_parts),
        ONCE(status_shows_parts_below_their_main_task),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
