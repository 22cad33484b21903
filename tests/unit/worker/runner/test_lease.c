/* SPDX-License-Identifier: Apache-2.0 */
/* The lease against a clock of the test's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/worker/fake_run.h"
#include "worker/runner/lease.h"

enum { LEASE_MS = 30 * 1000, OUTAGE_MS = 600 * 1000 };

struct setup {
    struct fake_clock clock;
    int asked;
    struct lease *lease;
};

static void ask(void *ctx)
{
    ((struct setup *)ctx)->asked++;
}

static void setup_init(struct setup *s)
{
    *s = (struct setup){.clock = {.clock = {.ops = &fake_clock_ops}, .now_ms = 100000}};
    s->lease = lease_new(&(struct lease_opts){.clock = &s->clock.clock,
                                              .lease_ms = LEASE_MS,
                                              .outage_ms = OUTAGE_MS,
                                              .ask = ask,
                                              .ctx = s},
                         s->clock.now_ms);
}

static enum lease_state look(struct setup *s, struct err *err)
{
    return lease_wait(s->lease, 0, err);
}

static void test_renewal_counts_from_sending(void **state)
{
    (void)state;
    struct setup s;
    setup_init(&s);
    struct err err = ERR_INIT;
    assert_int_equal(look(&s, &err), LEASE_VALID);
    s.clock.now_ms += 20 * 1000;
    int64_t sent = s.clock.now_ms;
    s.clock.now_ms += 5 * 1000;
    lease_confirmed(s.lease, sent);
    s.clock.now_ms = sent + LEASE_MS - 1;
    assert_int_equal(look(&s, &err), LEASE_VALID);
    s.clock.now_ms = sent + LEASE_MS;
    assert_int_equal(look(&s, &err), LEASE_PENDING);
    assert_int_equal(s.asked, 1);
    lease_free(s.lease);
}

static void test_stale_is_not_renewed_by_the_broker_alone(void **state)
{
    (void)state;
    struct setup s;
    setup_init(&s);
    struct err err = ERR_INIT;
    s.clock.now_ms += LEASE_MS + 1000;
    lease_confirmed(s.lease, s.clock.now_ms);
    assert_int_equal(look(&s, &err), LEASE_PENDING);
    lease_granted(s.lease, s.clock.now_ms);
    assert_int_equal(look(&s, &err), LEASE_VALID);
    lease_free(s.lease);
}

static void test_a_copy_asks_about_a_stale_lease(void **state)
{
    (void)state;
    struct setup s;
    setup_init(&s);
    assert_false(lease_is_lost(s.lease));
    assert_int_equal(s.asked, 0);
    s.clock.now_ms += LEASE_MS;
    lease_set_connected(s.lease, false);
    assert_false(lease_is_lost(s.lease));
    assert_int_equal(s.asked, 0);
    lease_set_connected(s.lease, true);
    for (int i = 0; i < 3; i++)
        assert_false(lease_is_lost(s.lease));
    assert_int_equal(s.asked, 1);
    s.clock.now_ms += LEASE_MS / 2 + 1;
    assert_false(lease_is_lost(s.lease));
    assert_int_equal(s.asked, 2);
    lease_denied(s.lease);
    s.clock.now_ms += LEASE_MS;
    assert_true(lease_is_lost(s.lease));
    assert_int_equal(s.asked, 2);
    lease_free(s.lease);
}

static void test_denied_is_final(void **state)
{
    (void)state;
    struct setup s;
    setup_init(&s);
    struct err err = ERR_INIT;
    lease_denied(s.lease);
    lease_granted(s.lease, s.clock.now_ms);
    assert_int_equal(look(&s, &err), LEASE_LOST);
    assert_int_equal(err.code, ERR_LEASE_LOST);
    assert_true(lease_is_lost(s.lease));
    lease_free(s.lease);
}

static void test_gives_up_when_nobody_answers(void **state)
{
    (void)state;
    struct setup s;
    setup_init(&s);
    struct err err = ERR_INIT;
    s.clock.now_ms += LEASE_MS;
    int64_t start = s.clock.now_ms;
    enum lease_state answer;
    while ((answer = look(&s, &err)) == LEASE_PENDING)
        s.clock.now_ms += 500;
    assert_int_equal(answer, LEASE_LOST);
    assert_in_range(s.clock.now_ms - start, OUTAGE_MS, OUTAGE_MS + 1000);
    /* Again after half a lease, not at every look. */
    assert_in_range(s.asked, OUTAGE_MS / LEASE_MS, 2 * OUTAGE_MS / LEASE_MS + 1);
    lease_free(s.lease);
}

static void test_outage_does_not_count_until_its_limit(void **state)
{
    (void)state;
    struct setup s;
    setup_init(&s);
    struct err err = ERR_INIT;
    lease_set_connected(s.lease, false);
    s.clock.now_ms += LEASE_MS;
    for (int i = 0; i < 5 * 60; i++) {
        assert_int_equal(look(&s, &err), LEASE_PENDING);
        s.clock.now_ms += 1000;
    }
    assert_int_equal(s.asked, 0); /* nobody to ask */
    lease_set_connected(s.lease, true);
    assert_int_equal(look(&s, &err), LEASE_PENDING);
    assert_int_equal(s.asked, 1);
    lease_granted(s.lease, s.clock.now_ms);
    assert_int_equal(look(&s, &err), LEASE_VALID);

    /* A new outage has its own full time, and an end. */
    lease_set_connected(s.lease, false);
    s.clock.now_ms += LEASE_MS;
    int64_t start = s.clock.now_ms;
    enum lease_state answer;
    while ((answer = look(&s, &err)) == LEASE_PENDING)
        s.clock.now_ms += 1000;
    assert_int_equal(answer, LEASE_LOST);
    assert_in_range(s.clock.now_ms - start, OUTAGE_MS, OUTAGE_MS + 2000);
    lease_free(s.lease);
}

static void test_who_leaves_waits_less(void **state)
{
    (void)state;
    struct setup s;
    setup_init(&s);
    struct err err = ERR_INIT;
    lease_set_connected(s.lease, false);
    s.clock.now_ms += LEASE_MS;
    assert_int_equal(look(&s, &err), LEASE_PENDING);
    lease_limit_outage(s.lease, 20 * 1000);
    lease_limit_outage(s.lease, OUTAGE_MS); /* never more again */
    s.clock.now_ms += 19 * 1000;
    assert_int_equal(look(&s, &err), LEASE_PENDING);
    s.clock.now_ms += 2 * 1000;
    assert_int_equal(look(&s, &err), LEASE_LOST);
    assert_int_equal(err.code, ERR_LEASE_LOST);
    lease_free(s.lease);
}

static void test_waits_for_what_was_written_ahead(void **state)
{
    (void)state;
    struct setup s;
    setup_init(&s);
    struct err err = ERR_INIT;
    lease_ahead_sent(s.lease);
    lease_ahead_sent(s.lease);
    assert_int_equal(look(&s, &err), LEASE_PENDING);
    lease_ahead_confirmed(s.lease);
    assert_int_equal(look(&s, &err), LEASE_PENDING);
    assert_int_equal(s.asked, 0); /* the lease itself is fine */
    lease_ahead_confirmed(s.lease);
    assert_int_equal(look(&s, &err), LEASE_VALID);
    lease_free(s.lease);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_renewal_counts_from_sending),
        cmocka_unit_test(test_stale_is_not_renewed_by_the_broker_alone),
        cmocka_unit_test(test_a_copy_asks_about_a_stale_lease),
        cmocka_unit_test(test_denied_is_final),
        cmocka_unit_test(test_gives_up_when_nobody_answers),
        cmocka_unit_test(test_outage_does_not_count_until_its_limit),
        cmocka_unit_test(test_who_leaves_waits_less),
        cmocka_unit_test(test_waits_for_what_was_written_ahead),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
