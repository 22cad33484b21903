/* SPDX-License-Identifier: Apache-2.0 */
/* Cancelling in every state, and the status request. */
#include <string.h>

#include "tests/unit/coordinator/bed.h"

static void cancel(struct bed *bed, const char *request, const char *task)
{
    const struct wire_cancel c = {.request = S(request), .task = S(task)};
    bed_request(bed, WIRE_CANCEL, &c, &(struct bed_props){.reply_to = "canceller"});
    SCOPED_SENT struct sent s = bed_take_for(bed, WIRE_ACCEPTED, "canceller");
}

/* The canceller's last reply. */
static void expect_cancelled(struct bed *bed, int64_t tasks, int64_t cancelled)
{
    SCOPED_SENT struct sent s = bed_take_for(bed, WIRE_FINISHED, "canceller");
    const struct wire_finished *f = s.m.as;
    assert_string_equal(f->kind, "cancel");
    assert_string_equal(f->status, "succeeded");
    assert_int_equal(f->tasks_total, tasks);
    assert_int_equal(f->tasks_cancelled, cancelled);
}

static void expect_finished(struct bed *bed, const char *status)
{
    SCOPED_SENT struct sent s = bed_take_for(bed, WIRE_FINISHED, "replies");
    assert_string_equal(((const struct wire_finished *)s.m.as)->status, status);
}

static void an_offered_selection(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    bed_backup(bed, "name-1", request);
    struct hold h = bed_offer(bed);
    cancel(bed, request, NULL);
    expect_cancelled(bed, 1, 1);
    expect_finished(bed, "cancelled");
    bed_claim_denied(bed, &h, "w1", 0);
    bed_check(bed);
}

static void a_running_selection(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    bed_backup(bed, "nobody", request);
    struct hold h = bed_offer(bed);
    bed_claim(bed, &h, "w1");
    cancel(bed, request, NULL);
    assert_int_equal(bed_count(bed, WIRE_STOP), 1);
    assert_int_equal(bed_count(bed, WIRE_FINISHED), 0);
    bed_result(bed, &h, "cancelled");
    expect_cancelled(bed, 1, 1);
    /* "nobody" is not called missing: nobody looked. */
    assert_int_equal(bed_count(bed, WIRE_OUTCOME), 1);
    expect_finished(bed, "cancelled");
    bed_check(bed);
}

static void waiting_offered_and_running(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    bed_presence(bed, "w1", "dc1", 1);
    char request[ID_BYTES];
    bed_backup(bed, NULL, request);
    struct hold inventory = bed_offer(bed);
    bed_claim(bed, &inventory, "w1");
    bed_inventory(bed, &inventory, 1, 10);
    struct hold done = bed_offer(bed);
    bed_claim(bed, &done, "w1");
    bed_result(bed, &done, "succeeded");
    struct hold running = bed_offer(bed), offered = bed_offer(bed);
    bed_claim(bed, &running, "w1");
    bed_drop(bed);
    cancel(bed, request, NULL);
    SCOPED_SENT struct sent stop = bed_take(bed, WIRE_STOP);
    assert_string_equal(((const struct wire_stop *)stop.m.as)->task, running.task);
    assert_string_equal(stop.key, "worker.w1");
    assert_int_equal(bed_count(bed, WIRE_STOP), 0);
    assert_int_equal(bed_count(bed, WIRE_OUTCOME), 8);
    assert_int_equal(bed_count(bed, WIRE_FINISHED), 0);
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
    bed_claim_denied(bed, &offered, "w1", 0);
    bed_result(bed, &running, "cancelled");
    expect_cancelled(bed, 9, 9);
    expect_finished(bed, "cancelled");
    assert_int_equal(bed_count(bed, WIRE_OUTCOME), 9);
    /* Once more: nothing to do, and that is fine. */
    cancel(bed, request, NULL);
    expect_cancelled(bed, 0, 0);
    bed_check(bed);
}

static void one_task_of_several(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    bed_presence(bed, "w1", "dc1", 4);
    char request[ID_BYTES];
    bed_backup(bed, NULL, request);
    struct hold inventory = bed_offer(bed);
    bed_claim(bed, &inventory, "w1");
    bed_inventory(bed, &inventory, 1, 2);
    struct hold one = bed_offer(bed), two = bed_offer(bed);
    cancel(bed, NULL, one.task);
    expect_cancelled(bed, 1, 1);
    assert_int_equal(bed_count(bed, WIRE_FINISHED), 0);
    bed_claim(bed, &two, "w1");
    bed_result(bed, &two, "succeeded");
    expect_finished(bed, "partly");
    bed_check(bed);
}

static void a_task_that_succeeds_all_the_same(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = bed_backup_one(bed, "w1", request);
    bed_claim(bed, &h, "w1");
    cancel(bed, request, NULL);
    bed_result(bed, &h, "succeeded");
    expect_cancelled(bed, 1, 0);
    expect_finished(bed, "succeeded");
    bed_check(bed);
}

static void a_task_that_fails_while_it_stops(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = bed_backup_one(bed, "w1", request);
    bed_claim(bed, &h, "w1");
    cancel(bed, request, NULL);
    bed_fail(bed, &h, ERR_ENGINE_BUSY, NULL); /* else it would be tried again */
    expect_cancelled(bed, 1, 1);
    expect_finished(bed, "cancelled");
    bed_check(bed);
}

static void a_task_whose_worker_is_lost(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = bed_backup_one(bed, "w1", request);
    bed_claim(bed, &h, "w1");
    bed_step(bed, &h, "snapshot", "handle", "snapshot", "snap-1", NULL);
    cancel(bed, request, NULL);
    bed_restart(bed);
    bed_wait(bed, 121 * 1000);
    expect_cancelled(bed, 1, 1);
    expect_finished(bed, "cancelled");
    SCOPED_SENT struct sent s = bed_take(bed, WIRE_OFFER);
    const struct wire_offer *o = s.m.as;
    assert_string_equal(o->kind, "cleanup");
    assert_string_equal(o->cleanup.v[0].id, "snap-1");
    bed_check(bed);
}

/* Its worker died before it could tell of its snapshot, or with the guest frozen. */
static void a_task_lost_in_the_middle_of_its_snapshot(void **state)
{
    (void)state;
    static const struct {
        const char *step, *state;
        bool cleanup;
    } cases[] = {
        {"quiesce", "started", true},
        {"snapshot", "started", true},
        {"revoke-earlier", "done", false},
        {"precheck", "failed", false},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
        char request[ID_BYTES];
        struct hold h = bed_backup_one(bed, "w1", request);
        bed_claim(bed, &h, "w1");
        bed_step(bed, &h, cases[i].step, cases[i].state, NULL);
        cancel(bed, request, NULL);
        bed_restart(bed);
        bed_wait(bed, 121 * 1000);
        expect_cancelled(bed, 1, 1);
        assert_int_equal(bed_count(bed, WIRE_OFFER), cases[i].cleanup);
        if (!cases[i].cleanup)
            continue;
        SCOPED_SENT struct sent s = bed_take(bed, WIRE_OFFER);
        const struct wire_offer *o = s.m.as;
        assert_string_equal(o->kind, "cleanup");
        assert_int_equal(o->cleanup.count, 1);
        assert_string_equal(o->cleanup.v[0].kind, "snapshot");
        assert_string_equal(o->cleanup.v[0].vm, h.vm);
        assert_string_equal(o->cleanup.v[0].id, WIRE_LEFTOVER_ALL);
        bed_check(bed);
    }
}

static void a_task_between_two_attempts(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = bed_backup_one(bed, "w1", request);
    bed_claim(bed, &h, "w1");
    bed_step(bed, &h, "snapshot", "failed", "snapshot", "snap-1", NULL);
    bed_fail(bed, &h, ERR_ENGINE_BUSY, NULL);
    cancel(bed, request, NULL);
    expect_cancelled(bed, 1, 1);
    SCOPED_SENT struct sent s = bed_take(bed, WIRE_OFFER);
    assert_string_equal(((const struct wire_offer *)s.m.as)->kind, "cleanup");
    bed_check(bed);
}

static void a_cleanup_goes_on_unless_it_is_meant(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = bed_backup_one(bed, "w1", request);
    bed_claim(bed, &h, "w1");
    struct wire_leftover left = {.kind = S("snapshot"), .vm = S("vm-1"), .id = S("s1")};
    bed_fail(bed, &h, ERR_ENGINE_AUTH, &(struct wire_leftovers){&left, 1});
    struct hold c = bed_offer(bed);
    cancel(bed, request, NULL);
    expect_cancelled(bed, 0, 0);
    cancel(bed, NULL, c.task); /* somebody removed it by hand */
    expect_cancelled(bed, 1, 1);
    bed_claim_denied(bed, &c, "w1", 0);
    bed_check(bed);
}

static void two_cancellers(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = bed_backup_one(bed, "w1", request);
    bed_claim(bed, &h, "w1");
    cancel(bed, request, NULL);
    cancel(bed, NULL, h.task);
    assert_int_equal(bed_count(bed, WIRE_STOP), 1);
    bed_restart(bed);
    bed_result(bed, &h, "cancelled");
    expect_cancelled(bed, 1, 1);
    expect_cancelled(bed, 1, 1);
    bed_check(bed);
}

/* --- Status --- */
static void status_of_everything(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = bed_backup_one(bed, "w1", request);
    bed_claim(bed, &h, "w1");
    bed_presence(bed, "w2", "dc1", 1);
    bed_drop(bed);
    const struct wire_status ask = {0};
    bed_request(bed, WIRE_STATUS, &ask, NULL);
    bed_drop_type(bed, WIRE_ACCEPTED);
    SCOPED_SENT struct sent s1 = bed_take(bed, WIRE_PAGE);
    const struct wire_item_list *requests = ((const struct wire_page *)s1.m.as)->items;
    assert_int_equal(requests->requests_count, 1);
    assert_string_equal(requests->requests[0].id, request);
    assert_string_equal(requests->requests[0].state, "running");
    assert_int_equal(requests->requests[0].tasks_total, 1);
    SCOPED_SENT struct sent s2 = bed_take(bed, WIRE_PAGE);
    const struct wire_item_list *workers = ((const struct wire_page *)s2.m.as)->items;
    assert_int_equal(workers->workers_count, 2);
    assert_string_equal(workers->workers[0].name, "w1");
    assert_int_equal(workers->workers[0].running, 1);
    assert_int_equal(workers->workers[0].slots, 12);
    SCOPED_SENT struct sent s3 = bed_take(bed, WIRE_PAGE);
    assert_true(((const struct wire_page *)s3.m.as)->items->gauges_count > 0);
    SCOPED_SENT struct sent s4 = bed_take(bed, WIRE_FINISHED);
    const struct wire_finished *f = s4.m.as;
    assert_string_equal(f->kind, "status");
    assert_int_equal(f->pages, 3);
    assert_int_equal(bed->count, 0);
}

static void status_of_one_request(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    bed_presence(bed, "w1", "dc1", 300);
    char request[ID_BYTES];
    bed_backup(bed, NULL, request);
    struct hold inventory = bed_offer(bed);
    bed_claim(bed, &inventory, "w1");
    bed_inventory(bed, &inventory, 1, 450);
    struct hold h = bed_offer(bed);
    bed_claim(bed, &h, "w1");
    bed_copying(bed, &h, 5, 50);
    bed_drop(bed);
    const struct wire_status ask = {.request = request};
    bed_request(bed, WIRE_STATUS, &ask, NULL);
    bed_drop_type(bed, WIRE_ACCEPTED);
    SCOPED_SENT struct sent head = bed_take(bed, WIRE_PAGE);
    assert_int_equal(((const struct wire_page *)head.m.as)->items->requests_count, 1);
    size_t tasks = 0, running = 0;
    while (bed_count(bed, WIRE_PAGE) > 0) {
        SCOPED_SENT struct sent s = bed_take(bed, WIRE_PAGE);
        const struct wire_item_list *items = ((const struct wire_page *)s.m.as)->items;
        for (size_t i = 0; i < items->tasks_count; i++) {
            const struct wire_task_item *t = &items->tasks[i];
            tasks++;
            if (strcmp(t->state, "running") != 0)
                continue;
            running++;
            assert_string_equal(t->worker, "w1");
            assert_int_equal(t->bytes_done, 5);
        }
    }
    assert_int_equal(tasks, 451); /* the selection is one of them */
    assert_int_equal(running, 1);
}

/* Pages shrink until they fit a message. */
static void long_texts_make_more_pages(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    bed_presence(bed, "w1", "dc1", 300);
    char request[ID_BYTES];
    bed_backup(bed, NULL, request);
    struct hold inventory = bed_offer(bed);
    bed_claim(bed, &inventory, "w1");
    bed_inventory(bed, &inventory, 1, 200);
    static char text[WIRE_TEXT_MAX + 1];
    memset(text, 'x', WIRE_TEXT_MAX);
    for (int i = 0; i < 200; i++) {
        struct hold h = bed_offer(bed);
        bed_claim(bed, &h, "w1");
        struct wire_error error = {.code = S("engine-auth"), .retry = S("never"), .message = text};
        const struct wire_result r = {.task = h.task,
                                      .worker = h.worker,
                                      .attempt = h.attempt,
                                      .fence = h.fence,
                                      .status = S("failed"),
                                      .error = &error};
        bed_event(bed, WIRE_RESULT, &r, NULL);
    }
    bed_drop(bed);
    const struct wire_status ask = {.request = request};
    bed_request(bed, WIRE_STATUS, &ask, NULL);
    size_t pages = bed_count(bed, WIRE_PAGE);
    assert_true(pages > 2);
    SCOPED_SENT struct sent s = bed_take(bed, WIRE_FINISHED);
    assert_int_equal(((const struct wire_finished *)s.m.as)->pages, pages);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_offered_selection),
        cmocka_unit_test(a_running_selection),
        cmocka_unit_test(waiting_offered_and_running),
        cmocka_unit_test(one_task_of_several),
        cmocka_unit_test(a_task_that_succeeds_all_the_same),
        cmocka_unit_test(a_task_that_fails_while_it_stops),
        cmocka_unit_test(a_task_whose_worker_is_lost),
        cmocka_unit_test(a_task_lost_in_the_middle_of_its_snapshot),
        cmocka_unit_test(a_task_between_two_attempts),
        cmocka_unit_test(a_cleanup_goes_on_unless_it_is_meant),
        cmocka_unit_test(two_cancellers),
        cmocka_unit_test(status_of_everything),
        cmocka_unit_test(status_of_one_request),
        cmocka_unit_test(long_texts_make_more_pages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
