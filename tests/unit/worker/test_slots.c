/* SPDX-License-Identifier: Apache-2.0 */
/* Offers, claims and slots; and messages on their way. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "proto/base/alloc.h"
#include "worker/claims.h"
#include "worker/flights.h"
#include "worker/slots.h"

#define T1 "11111111-1111-4111-8111-111111111111"
#define T2 "22222222-2222-4222-8222-222222222222"
#define T3 "33333333-3333-4333-8333-333333333333"

static struct job *offer(struct slots *s, const char *task, int attempt, enum lane lane)
{
    SCOPED_FREE char *text =
        xasprintf("{\"task\":\"%s\",\"request\":\"%s\",\"kind\":\"backup\","
                  "\"zone\":\"z\",\"lane\":\"%s\",\"attempt\":%d,\"vm\":\"%s\","
                  "\"vm_name\":\"v\",\"backup\":{}}",
                  task, task, lane_name(lane), attempt, task);
    struct wire_message m = {0};
    struct err err = ERR_INIT;
    if (!wire_decode("oxbow.offer.v1", text, strlen(text), &m, &err))
        fail_msg("%s", err.message);
    return slots_add(s, &m, lane, 1);
}

static void test_lanes_have_their_own_slots(void **state)
{
    (void)state;
    struct slots s;
    slots_init(&s, 1, 2, 1);
    struct job *a = offer(&s, T1, 1, LANE_BACKUP), *b = offer(&s, T2, 1, LANE_BACKUP),
               *c = offer(&s, T3, 1, LANE_BACKUP);
    assert_true(slots_can_claim(&s, a));
    a->state = JOB_CLAIMED;
    assert_true(slots_can_claim(&s, b));
    b->state = JOB_RUNNING;
    assert_false(slots_can_claim(&s, c)); /* one claimed, one runs */
    assert_int_equal(slots_not_running(&s, LANE_BACKUP), 1);
    assert_int_equal(slots_not_running(&s, LANE_RESTORE), 1);
    assert_int_equal(slots_count_running(&s), 1);
    b->fence = 7;
    slots_remove(&s, b);
    assert_true(slots_can_claim(&s, c));
    assert_true(slots_has_ended(&s, T2, 7));
    assert_false(slots_has_ended(&s, T2, 8));
    assert_false(slots_has_ended(&s, T1, 0));
    slots_done(&s);
}

static void test_a_task_runs_once(void **state)
{
    (void)state;
    struct slots s;
    slots_init(&s, 1, 4, 1);
    struct job *old = offer(&s, T1, 1, LANE_BACKUP);
    old->state = JOB_RUNNING;
    struct job *new = offer(&s, T1, 2, LANE_BACKUP);
    assert_false(slots_can_claim(&s, new)); /* not before the old run has ended */
    assert_false(slots_can_run(&s, new));
    assert_ptr_equal(slots_find(&s, T1, 1), old);
    assert_ptr_equal(slots_find(&s, T1, 2), new);
    assert_null(slots_find(&s, T1, 3));
    assert_ptr_equal(slots_running_task(&s, T1), old);
    slots_remove(&s, old);
    assert_true(slots_can_claim(&s, new));
    assert_true(slots_can_run(&s, new));
    for (int i = 0; i < 4; i++)
        offer(&s, T2, i + 1, LANE_BACKUP)->state = JOB_RUNNING;
    assert_false(slots_can_run(&s, new));
    slots_done(&s);
}

static void test_claims(void **state)
{
    (void)state;
    static struct claims c;
    char ids[CLAIMS_KEPT + 10][ID_BYTES];
    assert_null(claims_find(&c, ""));
    assert_null(claims_find(&c, T1));
    for (int i = 0; i < CLAIMS_KEPT + 10; i++) {
        id_new(ids[i]);
        claims_add(&c, ids[i], i % 3, 1000 + i);
    }
    for (int i = 0; i < 10; i++)
        assert_null(claims_find(&c, ids[i])); /* too long ago */
    for (int i = 10; i < CLAIMS_KEPT + 10; i++) {
        const struct claim *claim = claims_find(&c, ids[i]);
        assert_non_null(claim);
        assert_int_equal(claim->sent_ms, 1000 + i);
        assert_int_equal(claim->fence, i % 3);
    }
}

static void test_flights(void **state)
{
    (void)state;
    struct flights f = {0};
    uint64_t tokens[200];
    for (int i = 0; i < 200; i++)
        tokens[i] = flights_add(&f, FLIGHT_EVENT, i, note_new(NOTE_EVENT, T1, i));
    struct flight got;
    /* Mostly in order, some not, none twice. */
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 200; i++) {
            int at = i % 10 == 0 && i + 5 < 200 ? i + 5 : i;
            bool taken = flights_take(&f, tokens[at], &got);
            if (!taken)
                continue;
            assert_int_equal(round, 0);
            assert_int_equal(got.sent_ms, at);
            assert_int_equal(got.note->fence, at);
            note_free(got.note);
        }
        if (round == 0) {
            for (int i = 0; i < 200; i++) {
                if (flights_take(&f, tokens[i], &got))
                    note_free(got.note);
            }
        }
    }
    assert_int_equal(f.count, 0);
    for (int i = 0; i < 100; i++)
        (void)flights_add(&f, FLIGHT_CLAIM, i, NULL);
    assert_false(flights_take(&f, tokens[0], &got));
    assert_int_equal(f.count, 100);
    flights_done(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lanes_have_their_own_slots),
        cmocka_unit_test(test_a_task_runs_once),
        cmocka_unit_test(test_claims),
        cmocka_unit_test(test_flights),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
