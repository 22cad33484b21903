/* SPDX-License-Identifier: Apache-2.0 */
/* Results, retries, leftovers and clean-ups, deadlines. */
#include <string.h>

#include "coordinator/rates.h"
#include "coordinator/result.h"
#include "tests/unit/coordinator/bed.h"

static const struct wire_outcome *take_outcome(struct bed *bed, struct sent *s)
{
    *s = bed_take(bed, WIRE_OUTCOME);
    return s->m.as;
}

static struct hold running_backup(struct bed *bed)
{
    char request[ID_BYTES];
    struct hold h = bed_backup_one(bed, "w1", request);
    bed_claim(bed, &h, "w1");
    bed_drop(bed);
    return h;
}

static void waits_grow_and_end(void **state)
{
    (void)state;
    assert_int_equal(result_retry_ms("soon", 1, false), 10 * 1000);
    assert_int_equal(result_retry_ms("soon", 2, false), 20 * 1000);
    assert_int_equal(result_retry_ms("soon", 50, false), 600 * 1000);
    assert_int_equal(result_retry_ms("later", 1, false), 60 * 1000);
    assert_int_equal(result_retry_ms("later", 1000000, false), RESULT_RETRY_MAX_MS);
    assert_int_equal(result_retry_ms("elsewhere", 1, false), 2 * 1000);
    assert_int_equal(result_retry_ms("never", 1, true), 30 * 1000);
    assert_int_equal(result_retry_ms("never", 1000000, true), RESULT_RETRY_MAX_MS);
}

static void the_outcome_carries_all_of_the_result(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = bed_backup_one(bed, "w1", request);
    bed_wait(bed, 5000);
    bed_claim(bed, &h, "w1");
    bed_drop(bed);
    struct wire_warning warning = {
        .code = S("unsupported"), .disk = S("d2"), .message = S("a direct LUN was skipped")};
    struct wire_stats stats = {.copy_ms = 7, .bytes_read = 8};
    const struct wire_result r = {.task = h.task,
                                  .worker = h.worker,
                                  .attempt = 1,
                                  .fence = h.fence,
                                  .status = S("succeeded"),
                                  .point = S("p1"),
                                  .warnings = {&warning, 1},
                                  .stats = &stats};
    bed_event(bed, WIRE_RESULT, &r, NULL);
    SCOPED_SENT struct sent s = {0};
    const struct wire_outcome *o = take_outcome(bed, &s);
    assert_string_equal(o->point, "p1");
    assert_int_equal(o->warnings.count, 1);
    assert_string_equal(o->warnings.v[0].disk, "d2");
    assert_int_equal(o->stats->copy_ms, 7);
    assert_int_equal(o->stats->wait_ms, 5000);
    /* The same result again, and after a restart: one outcome, one end. */
    bed_drop(bed);
    bed_event(bed, WIRE_RESULT, &r, NULL);
    bed_restart(bed);
    bed_event(bed, WIRE_RESULT, &r, NULL);
    assert_int_equal(bed->count, 0);
    bed_check(bed);
}

/* --- Rates --- */
static void copied(struct bed *bed, int64_t mib, int64_t ms)
{
    struct hold h = running_backup(bed);
    struct wire_path_stats paths[] = {
        {.path = S("attach"), .disks = 1, .bytes_read = mib << 20, .copy_ms = ms},
        {.path = S("imageio"), .disks = 1, .bytes_read = 1 << 20, .copy_ms = 1}};
    struct wire_stats stats = {.paths = {paths, 2}};
    const struct wire_result r = {.task = h.task,
                                  .worker = h.worker,
                                  .attempt = 1,
                                  .fence = h.fence,
                                  .status = S("succeeded"),
                                  .point = S("p1"),
                                  .stats = &stats};
    bed_event(bed, WIRE_RESULT, &r, NULL);
    bed_drop(bed);
}

/* The rate that the next backup's offer carries, in MiB/s; -1 = none. */
static int64_t offered_rate(struct bed *bed, int64_t *ret_samples)
{
    char request[ID_BYTES];
    bed_presence(bed, "w1", "dc1", 9);
    bed_backup(bed, "name-1", request);
    struct hold inventory = bed_offer(bed);
    bed_claim(bed, &inventory, "w1");
    bed_inventory(bed, &inventory, 1, 1);
    SCOPED_SENT struct sent s = bed_take(bed, WIRE_OFFER);
    const struct wire_offer *o = s.m.as;
    assert_string_equal(o->kind, "backup");
    int64_t rate = -1;
    if (o->rates.count > 0) {
        assert_int_equal(o->rates.count, 1); /* the other path read too little */
        assert_string_equal(o->rates.v[0].path, "attach");
        *ret_samples = o->rates.v[0].samples;
        rate = o->rates.v[0].bytes_per_s >> 20;
    }
    struct hold h = {.attempt = o->attempt};
    snprintf(h.task, sizeof h.task, "%s", o->task);
    bed_claim(bed, &h, "w1");
    bed_result(bed, &h, "succeeded");
    bed_drop(bed);
    return rate;
}

static void rates_are_averaged_and_offered(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    int64_t samples = 0;
    assert_int_equal(offered_rate(bed, &samples), -1);
    copied(bed, 63, 1000); /* too little to be measured by */
    copied(bed, 1000, 0);  /* and in no time */
    assert_int_equal(offered_rate(bed, &samples), -1);
    copied(bed, 100, 1000);
    assert_int_equal(offered_rate(bed, &samples), 100);
    assert_int_equal(samples, 1);
    copied(bed, 400, 2000);
    assert_int_equal(offered_rate(bed, &samples), 150); /* the mean of two */
    copied(bed, 150, 1000);
    copied(bed, 150, 1000);
    copied(bed, 550, 1000);
    assert_int_equal(offered_rate(bed, &samples), 250); /* a quarter of the way */
    assert_int_equal(samples, 5);
    bed_restart(bed);
    assert_int_equal(offered_rate(bed, &samples), 250);
    /* Nobody has taken it for a month: it begins anew. */
    bed_wait(bed, RATES_KEEP_MS + 1);
    assert_int_equal(offered_rate(bed, &samples), -1);
    copied(bed, 80, 1000);
    assert_int_equal(offered_rate(bed, &samples), 80);
    assert_int_equal(samples, 1);
    /* What no disk can do must not make an offer that no worker can read. */
    for (int i = 0; i < 50; i++)
        copied(bed, (INT64_C(1) << 33) - 1, 1);
    assert_true(offered_rate(bed, &samples) > 1000000);
    bed_check(bed);
}

static void too_many_warnings_do_not_lose_the_outcome(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    struct hold h = running_backup(bed);
    static char text[WIRE_TEXT_MAX + 1];
    memset(text, 'x', WIRE_TEXT_MAX);
    struct wire_warning warnings[WIRE_WARNINGS_MAX];
    for (size_t i = 0; i < WIRE_WARNINGS_MAX; i++)
        warnings[i] = (struct wire_warning){.code = S("unsupported"), .message = text};
    const struct wire_result r = {.task = h.task,
                                  .worker = h.worker,
                                  .attempt = 1,
                                  .fence = h.fence,
                                  .status = S("succeeded"),
                                  .point = S("p1"),
                                  .warnings = {warnings, WIRE_WARNINGS_MAX}};
    bed_event(bed, WIRE_RESULT, &r, NULL);
    SCOPED_SENT struct sent s = {0};
    assert_string_equal(take_outcome(bed, &s)->status, "succeeded");
}

static void retry_advice_is_followed(void **state)
{
    (void)state;
    const struct {
        enum err_code code;
        int64_t wait_ms;
    } cases[] = {{ERR_ENGINE_BUSY, 10 * 1000}, {ERR_NO_SPACE, 60 * 1000}, {ERR_IO, 2 * 1000}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
        struct hold h = running_backup(bed);
        bed_fail(bed, &h, cases[i].code, NULL);
        assert_int_equal(bed_count(bed, WIRE_OUTCOME), 0);
        int64_t wait_ms;
        struct err err = ERR_INIT;
        bed_wait(bed, cases[i].wait_ms - 1000);
        assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
        assert_true(desk_wait_ms(bed->desk, 100000, &wait_ms, &err));
        assert_in_range(wait_ms, 1, 1000); /* the loop wakes up in time */
        bed_wait(bed, 1000);
        struct hold again = bed_offer(bed);
        assert_string_equal(again.task, h.task);
        assert_int_equal(again.attempt, 2);
        bed_check(bed);
    }
}

/* The one backup task of a request, as status tells it. */
static void expect_waiting(struct bed *bed, const char *request, int64_t attempt, int64_t wait_ms,
                           const char *code)
{
    const struct wire_status m = {.request = S(request)};
    bed_drop(bed);
    bed_request(bed, WIRE_STATUS, &m, &(struct bed_props){.reply_to = "asker"});
    for (;;) {
        SCOPED_SENT struct sent s = bed_take_for(bed, WIRE_PAGE, "asker");
        const struct wire_item_list *items = ((const struct wire_page *)s.m.as)->items;
        for (size_t i = 0; i < items->tasks_count; i++) {
            const struct wire_task_item *t = &items->tasks[i];
            if (strcmp(t->kind, "backup") != 0)
                continue;
            assert_int_equal(t->attempt, attempt);
            assert_int_equal(t->wait_ms, wait_ms);
            assert_int_equal(t->attempts_max, 3);
            assert_string_equal(t->error->code, code);
            return;
        }
    }
}

static void a_waiting_task_says_why(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = bed_backup_one(bed, "w1", request);
    bed_claim(bed, &h, "w1");
    bed_fail(bed, &h, ERR_ENGINE_BUSY, NULL);
    expect_waiting(bed, request, 2, 10000, "engine-busy");
    bed_wait(bed, 4000);
    expect_waiting(bed, request, 2, 6000, "engine-busy");
    bed_wait(bed, 6000);
    h = bed_offer(bed);
    bed_claim(bed, &h, "w1");
    bed_wait(bed, 3600 * 1000); /* never heard of again */
    expect_waiting(bed, request, 3, 0, "timeout");
}

static void never_means_never(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    struct hold h = running_backup(bed);
    bed_fail(bed, &h, ERR_ENGINE_AUTH, NULL);
    SCOPED_SENT struct sent s = {0};
    const struct wire_outcome *o = take_outcome(bed, &s);
    assert_string_equal(o->error->code, "engine-auth");
    assert_string_equal(o->error->message, "it did not work");
    assert_int_equal(o->attempts, 1);
}

static void attempts_end(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    struct hold h = running_backup(bed);
    bed_fail(bed, &h, ERR_ENGINE_BUSY, NULL);
    for (int i = 2; i <= 3; i++) {
        bed_wait(bed, 3600 * 1000 / 4);
        bed_presence(bed, "w1", "dc1", 4);
        h = bed_offer(bed);
        bed_claim(bed, &h, "w1");
        bed_fail(bed, &h, ERR_ENGINE_BUSY, NULL);
    }
    SCOPED_SENT struct sent s = {0};
    const struct wire_outcome *o = take_outcome(bed, &s);
    assert_string_equal(o->error->code, "engine-busy");
    assert_int_equal(o->attempts, 3);
    bed_check(bed);
}

static void elsewhere_means_another_worker(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    struct hold h = running_backup(bed);
    bed_presence(bed, "w2", "dc1", 4);
    bed_fail(bed, &h, ERR_IO, NULL);
    bed_wait(bed, 3000);
    struct hold again = bed_offer(bed);
    bed_claim_denied(bed, &again, "w1", 0);
    bed_wait(bed, 3000);
    again = bed_offer(bed);
    bed_claim(bed, &again, "w2");
    bed_result(bed, &again, "succeeded");
    bed_check(bed);
}

static void elsewhere_gives_in_when_there_is_nobody_else(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    struct hold h = running_backup(bed);
    bed_fail(bed, &h, ERR_IO, NULL);
    bed_wait(bed, 3000);
    struct hold again = bed_offer(bed);
    bed_claim(bed, &again, "w1");
}

static void released_is_no_attempt(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    struct hold h = running_backup(bed);
    for (int i = 0; i < 10; i++) {
        bed_result(bed, &h, "released");
        h = bed_offer(bed);
        bed_claim(bed, &h, "w1");
    }
    bed_result(bed, &h, "succeeded");
    SCOPED_SENT struct sent s = {0};
    assert_int_equal(take_outcome(bed, &s)->attempts, 1);
    bed_check(bed);
}

static void an_owner_that_gave_up_its_lease_is_lost_and_has_not_failed(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    struct hold h = running_backup(bed);
    bed_step(bed, &h, "snapshot", "handle", "snapshot", "s1", NULL);
    bed_fail(bed, &h, ERR_LEASE_LOST, NULL);
    assert_int_equal(bed_count(bed, WIRE_OUTCOME), 0);
    struct hold again = bed_offer(bed);
    bed_claim(bed, &again, "w1");
    assert_true(again.fence > h.fence);
    bed_result(bed, &again, "succeeded");
    SCOPED_SENT struct sent s = {0};
    assert_int_equal(take_outcome(bed, &s)->attempts, 2);
    bed_check(bed);
}

static void what_a_cancelled_owner_without_lease_left_is_cleaned_up(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    bed->conf.deadline_s = 50;
    struct hold h = running_backup(bed);
    bed_step(bed, &h, "snapshot", "handle", "snapshot", "s1", NULL);
    bed_wait(bed, 51 * 1000);
    bed_fail(bed, &h, ERR_LEASE_LOST, NULL);
    SCOPED_SENT struct sent s = {0};
    const struct wire_outcome *o = take_outcome(bed, &s);
    assert_string_equal(o->error->code, "timeout");
    assert_true(o->cleanup_open);
    bed_check(bed);
}

/* --- Leftovers --- */
static struct wire_leftover snapshot = {
    .kind = (char *)(uintptr_t) "snapshot",
    .vm = (char *)(uintptr_t) "vm-1",
    .id = (char *)(uintptr_t) "snap-1",
};
static const struct wire_leftovers one_snapshot = {&snapshot, 1};

static struct hold claim_cleanup(struct bed *bed, size_t things)
{
    SCOPED_SENT struct sent s = bed_take_for(bed, WIRE_OFFER, "oxbow.tasks.dc1.upkeep");
    const struct wire_offer *o = s.m.as;
    assert_string_equal(o->kind, "cleanup");
    assert_int_equal(o->cleanup.count, things);
    struct hold h = {.attempt = o->attempt};
    snprintf(h.task, sizeof h.task, "%s", o->task);
    snprintf(h.kind, sizeof h.kind, "cleanup");
    bed_claim(bed, &h, "w1");
    return h;
}

/* The backup stands although its snapshot could not be merged. */
static void a_failed_merge_does_not_spoil_the_copy(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    struct hold h = running_backup(bed);
    const struct wire_result r = {.task = h.task,
                                  .worker = h.worker,
                                  .attempt = 1,
                                  .fence = h.fence,
                                  .status = S("succeeded"),
                                  .point = S("p1"),
                                  .leftovers = one_snapshot};
    bed_event(bed, WIRE_RESULT, &r, NULL);
    SCOPED_SENT struct sent s = {0};
    const struct wire_outcome *o = take_outcome(bed, &s);
    assert_string_equal(o->status, "succeeded");
    assert_true(o->cleanup_open);
    SCOPED_SENT struct sent f = bed_take(bed, WIRE_FINISHED);
    assert_string_equal(((const struct wire_finished *)f.m.as)->status, "succeeded");
    /* Tried for ever, more and more slowly. */
    struct hold c = claim_cleanup(bed, 1);
    for (int i = 0; i < 12; i++) {
        bed_fail(bed, &c, i % 2 ? ERR_MERGE_FAILED : ERR_ENGINE_AUTH, NULL);
        bed_wait(bed, 3600 * 1000);
        bed_presence(bed, "w1", "dc1", 4);
        c = claim_cleanup(bed, 1);
    }
    bed_wait(bed, 121 * 1000); /* lost, too */
    c = claim_cleanup(bed, 1);
    bed_result(bed, &c, "succeeded");
    bed_wait(bed, 7200 * 1000);
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
    assert_int_equal(bed_count(bed, WIRE_OUTCOME), 0);
    bed_check(bed);
}

static void a_cleanup_that_leaves_something_goes_on(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    struct hold h = running_backup(bed);
    struct wire_leftover two[] = {snapshot, {.kind = S("attachment"), .vm = S("p"), .id = S("d")}};
    bed_fail(bed, &h, ERR_ENGINE_AUTH, &(struct wire_leftovers){two, 2});
    struct hold c = claim_cleanup(bed, 2);
    const struct wire_result r = {.task = c.task,
                                  .worker = c.worker,
                                  .attempt = c.attempt,
                                  .fence = c.fence,
                                  .status = S("succeeded"),
                                  .leftovers = one_snapshot};
    bed_event(bed, WIRE_RESULT, &r, NULL);
    bed_wait(bed, 60 * 1000);
    c = claim_cleanup(bed, 1);
    bed_result(bed, &c, "succeeded");
    bed_wait(bed, 7200 * 1000);
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
    bed_check(bed);
}

static void the_next_attempt_answers_for_what_the_first_left(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    struct hold h = running_backup(bed);
    bed_step(bed, &h, "snapshot", "handle", "snapshot", "snap-1", NULL);
    bed_fail(bed, &h, ERR_ENGINE_BUSY, &one_snapshot);
    bed_wait(bed, 10 * 1000);
    assert_int_equal(bed_count(bed, WIRE_OFFER), 1); /* no clean-up beside the next attempt */
    struct hold again = bed_offer(bed);
    assert_string_equal(again.task, h.task);
    bed_claim(bed, &again, "w1");
    bed_result(bed, &again, "succeeded");
    SCOPED_SENT struct sent s = {0};
    assert_false(take_outcome(bed, &s)->cleanup_open);
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
    bed_check(bed);
}

/* A worker that was given up makes a snapshot after all, and says so late. */
static void late_news_is_cleaned_up(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    struct hold h = running_backup(bed);
    bed_wait(bed, 121 * 1000);
    struct hold again = bed_offer(bed);
    bed_claim(bed, &again, "w2");
    bed_step(bed, &h, "snapshot", "handle", "snapshot", "snap-late", NULL);
    bed_step(bed, &h, "snapshot", "done", "snapshot", "snap-late", "vm", "adopted", NULL);
    bed_presence(bed, "w1", "dc1", 4);
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0); /* not while the VM is being backed up */
    bed_result(bed, &again, "succeeded");
    SCOPED_SENT struct sent s = {0};
    const struct wire_outcome *o = take_outcome(bed, &s);
    assert_string_equal(o->status, "succeeded");
    assert_true(o->cleanup_open);
    struct hold c = claim_cleanup(bed, 1);
    bed_result(bed, &c, "succeeded");
    /* And later still: after the task's end. */
    bed_step(bed, &h, "snapshot", "handle", "snapshot", "snap-later", NULL);
    c = claim_cleanup(bed, 1);
    /* More news while that one runs. */
    bed_step(bed, &h, "attach", "handle", "attachment.d1", "proxy", NULL);
    bed_result(bed, &c, "succeeded");
    c = claim_cleanup(bed, 1);
    bed_result(bed, &c, "succeeded");
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
    h.seq--; /* a double of it is no news */
    bed_step(bed, &h, "attach", "handle", "attachment.d1", "proxy", NULL);
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
    bed_check(bed);
}

static void a_late_result_changes_nothing_but_its_leftovers_go(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    struct hold h = running_backup(bed);
    bed_wait(bed, 121 * 1000);
    struct hold again = bed_offer(bed);
    bed_claim(bed, &again, "w2");
    bed_result(bed, &h, "succeeded");
    assert_int_equal(bed_count(bed, WIRE_OUTCOME), 0);
    bed_result(bed, &again, "succeeded");
    SCOPED_SENT struct sent s = {0};
    assert_string_equal(take_outcome(bed, &s)->worker, "w2");
    bed_presence(bed, "w1", "dc1", 4);
    bed_fail(bed, &h, ERR_LEASE_LOST, &one_snapshot);
    struct hold c = claim_cleanup(bed, 1);
    bed_result(bed, &c, "succeeded");
    bed_check(bed);
}

static void a_failed_restore_is_removed(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    bed->conf.max_attempts = 1;
    bed_presence(bed, "w1", "dc1", 4);
    struct wire_restore_opts opts = {.point = S("p"), .name = S("n")};
    const struct wire_restore r = {.options = &opts};
    bed_request(bed, WIRE_RESTORE, &r, NULL);
    struct hold h = bed_offer(bed);
    bed_claim(bed, &h, "w1");
    bed_step(bed, &h, "disks", "handle", "vm", "new-vm", "disk.0", "d0", "attachment.d0", "proxy",
             NULL);
    bed_wait(bed, 121 * 1000);
    SCOPED_SENT struct sent s = {0};
    assert_string_equal(take_outcome(bed, &s)->error->code, "quarantined");
    bed_presence(bed, "w1", "dc1", 4);
    claim_cleanup(bed, 3);
    bed_check(bed);
}

/* --- Deadlines --- */
static void a_deadline_stops_the_task(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    struct hold h = running_backup(bed);
    const struct wire_running running = {h.task, h.fence};
    for (int i = 0; i < 119; i++) {
        bed_wait(bed, 60 * 1000);
        bed_presence_running(bed, "w1", "dc1", 4, &running, 1);
    }
    assert_int_equal(bed_count(bed, WIRE_STOP), 0);
    bed_wait(bed, 60 * 1000);
    SCOPED_SENT struct sent stop = bed_take_for(bed, WIRE_STOP, "worker.w1");
    assert_string_equal(((const struct wire_stop *)stop.m.as)->reason, "deadline");
    /* It may be lost with the worker's connection: said again. */
    bed_wait(bed, 30 * 1000);
    bed_presence_running(bed, "w1", "dc1", 4, &running, 1);
    assert_int_equal(bed_count(bed, WIRE_STOP), 1);
    bed_result(bed, &h, "cancelled");
    SCOPED_SENT struct sent s = {0};
    const struct wire_outcome *o = take_outcome(bed, &s);
    assert_string_equal(o->status, "failed");
    assert_string_equal(o->error->code, "timeout");
    bed_check(bed);
}

static void a_deadline_counts_from_the_first_grant_over_all_attempts(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = bed_backup_one(bed, "w1", request);
    bed_wait(bed, 100 * 3600 * 1000); /* waiting for a worker is not its fault */
    h = bed_count(bed, WIRE_OFFER) ? bed_offer(bed) : h;
    bed_claim(bed, &h, "w1");
    bed_step(bed, &h, "snapshot", "handle", "snapshot", "s1", NULL);
    bed_wait(bed, 121 * 1000); /* lost */
    h = bed_offer(bed);
    bed_drop(bed);
    bed_wait(bed, 7200 * 1000 - 120 * 1000);
    SCOPED_SENT struct sent s = {0};
    const struct wire_outcome *o = take_outcome(bed, &s);
    assert_string_equal(o->error->code, "timeout");
    assert_true(o->cleanup_open);
    bed_claim_denied(bed, &h, "w1", 0);
    bed_check(bed);
}

static void no_retry_after_the_deadline(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    bed->conf.deadline_s = 50;
    struct hold h = running_backup(bed);
    bed_fail(bed, &h, ERR_NO_SPACE, NULL);
    SCOPED_SENT struct sent s = {0};
    assert_string_equal(take_outcome(bed, &s)->error->code, "no-space");
}

static void success_at_the_last_moment_counts(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    bed->conf.deadline_s = 50;
    struct hold h = running_backup(bed);
    bed_wait(bed, 51 * 1000);
    assert_int_equal(bed_count(bed, WIRE_STOP), 1);
    bed_result(bed, &h, "succeeded");
    SCOPED_SENT struct sent s = {0};
    assert_string_equal(take_outcome(bed, &s)->status, "succeeded");
    bed_check(bed);
}

static void a_deadline_ends_the_wait_for_the_next_attempt(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    bed->conf.deadline_s = 200;
    struct hold h = running_backup(bed);
    bed_fail(bed, &h, ERR_NO_SPACE, NULL); /* again in 60 s */
    assert_int_equal(bed_count(bed, WIRE_OUTCOME), 0);
    bed_wait(bed, 59 * 1000);
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
    bed_wait(bed, 2 * 1000);
    h = bed_offer(bed);
    bed_claim(bed, &h, "w1");
    bed_fail(bed, &h, ERR_NO_SPACE, NULL); /* again in 120 s: 19 s before the deadline */
    assert_int_equal(bed_count(bed, WIRE_OUTCOME), 0);
    bed_claim_denied(bed, &h, "w1", 0);
    bed_wait(bed, 118 * 1000);
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0); /* waiting */
    bed_wait(bed, 22 * 1000);
    SCOPED_SENT struct sent s = {0};
    const struct wire_outcome *o = take_outcome(bed, &s);
    assert_string_equal(o->status, "failed");
    assert_string_equal(o->error->code, "timeout");
    bed_check(bed);
}

static void a_lost_task_past_its_deadline_is_cleaned_up_not_tried_again(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    bed->conf.deadline_s = 50;
    struct hold h = running_backup(bed);
    bed_step(bed, &h, "snapshot", "handle", "snapshot", "s1", NULL);
    bed_wait(bed, 51 * 1000);
    assert_int_equal(bed_count(bed, WIRE_STOP), 1);
    bed_wait(bed, 70 * 1000);
    SCOPED_SENT struct sent s = {0};
    const struct wire_outcome *o = take_outcome(bed, &s);
    assert_string_equal(o->error->code, "timeout");
    assert_true(o->cleanup_open);
    SCOPED_SENT struct sent offer = bed_take(bed, WIRE_OFFER);
    const struct wire_offer *c = offer.m.as;
    assert_string_equal(c->kind, "cleanup");
    assert_int_equal(c->deadline_s, 0); /* it may take as long as it takes */
    struct hold cleanup = {.attempt = 1};
    snprintf(cleanup.task, sizeof cleanup.task, "%s", c->task);
    bed_claim(bed, &cleanup, "w1");
    const struct wire_running running = {cleanup.task, cleanup.fence};
    for (int i = 0; i < 200; i++) {
        bed_wait(bed, 60 * 1000);
        bed_presence_running(bed, "w1", "dc1", 4, &running, 1);
    }
    assert_int_equal(bed_count(bed, WIRE_STOP), 1);
    bed_result(bed, &cleanup, "succeeded");
    bed_check(bed);
}

/* It fails by itself, takes back what it did, and its deadline passes meanwhile: it is told, goes
 * on taking back, and what it says in the end counts. */
static void a_deadline_in_the_middle_of_taking_back(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    bed->conf.deadline_s = 50;
    struct hold h = running_backup(bed);
    bed_step(bed, &h, "copy", "failed", "snapshot", "s1", NULL);
    bed_wait(bed, 51 * 1000);
    assert_int_equal(bed_count(bed, WIRE_STOP), 1);
    bed_step(bed, &h, "snapshot", "undone", NULL);
    struct wire_leftover left = {.kind = S("attachment"), .vm = S("p1"), .id = S("d1")};
    bed_fail(bed, &h, ERR_NO_SPACE, &(struct wire_leftovers){&left, 1});
    SCOPED_SENT struct sent s = {0};
    const struct wire_outcome *o = take_outcome(bed, &s);
    assert_string_equal(o->status, "failed");
    assert_string_equal(o->error->code, "timeout");
    assert_true(o->cleanup_open);
    assert_int_equal(bed_count(bed, WIRE_OFFER), 1);
    bed_check(bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(waits_grow_and_end),
        cmocka_unit_test(the_outcome_carries_all_of_the_result),
        cmocka_unit_test(rates_are_averaged_and_offered),
        cmocka_unit_test(too_many_warnings_do_not_lose_the_outcome),
        cmocka_unit_test(retry_advice_is_followed),
        cmocka_unit_test(a_waiting_task_says_why),
        cmocka_unit_test(never_means_never),
        cmocka_unit_test(attempts_end),
        cmocka_unit_test(elsewhere_means_another_worker),
        cmocka_unit_test(elsewhere_gives_in_when_there_is_nobody_else),
        cmocka_unit_test(released_is_no_attempt),
        cmocka_unit_test(an_owner_that_gave_up_its_lease_is_lost_and_has_not_failed),
        cmocka_unit_test(what_a_cancelled_owner_without_lease_left_is_cleaned_up),
        cmocka_unit_test(a_failed_merge_does_not_spoil_the_copy),
        cmocka_unit_test(a_cleanup_that_leaves_something_goes_on),
        cmocka_unit_test(the_next_attempt_answers_for_what_the_first_left),
        cmocka_unit_test(late_news_is_cleaned_up),
        cmocka_unit_test(a_late_result_changes_nothing_but_its_leftovers_go),
        cmocka_unit_test(a_failed_restore_is_removed),
        cmocka_unit_test(a_deadline_stops_the_task),
        cmocka_unit_test(a_deadline_counts_from_the_first_grant_over_all_attempts),
        cmocka_unit_test(no_retry_after_the_deadline),
        cmocka_unit_test(a_deadline_ends_the_wait_for_the_next_attempt),
        cmocka_unit_test(a_lost_task_past_its_deadline_is_cleaned_up_not_tried_again),
        cmocka_unit_test(a_deadline_in_the_middle_of_taking_back),
        cmocka_unit_test(success_at_the_last_moment_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
