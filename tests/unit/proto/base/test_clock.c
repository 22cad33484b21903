/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "proto/base/clock.h"

static void test_system_clock(void **state)
{
    (void)state;
    const struct clock *c = clock_system();
    int64_t before = clock_mono_ms(c);
    clock_sleep_ms(c, 20);
    assert_true(clock_mono_ms(c) - before >= 20);
    assert_true(clock_wall_ms(c) > INT64_C(1600000000000)); /* after 2020 */
}

static void test_format(void **state)
{
    (void)state;
    char text[CLOCK_TEXT_BYTES];
    clock_format_utc(0, text);
    assert_string_equal(text, "1970-01-01T00:00:00Z");
    clock_format_utc(INT64_C(1795896360999), text);
    assert_string_equal(text, "2026-11-28T20:06:00Z");
    clock_format_utc(INT64_C(253402300799000), text);
    assert_string_equal(text, "9999-12-31T23:59:59Z");
    clock_format_utc(INT64_MAX, text); /* absurd, but no harm */
    assert_true(strlen(text) < CLOCK_TEXT_BYTES);
    clock_format_utc(INT64_MIN, text);
    assert_true(strlen(text) < CLOCK_TEXT_BYTES);
}

static void test_backoff(void **state)
{
    (void)state;
    struct backoff b = BACKOFF(100, 1500);
    static const int64_t most[] = {100, 200, 400, 800, 1500, 1500, 1500};
    for (int round = 0; round < 50; round++) {
        for (size_t i = 0; i < sizeof most / sizeof most[0]; i++) {
            int64_t wait = backoff_next_ms(&b);
            assert_true(wait <= most[i]);
            assert_true(wait >= most[i] - most[i] / 4);
        }
        backoff_reset(&b);
    }
}

static void test_backoff_differs(void **state)
{
    (void)state;
    int64_t first = -1;
    for (int i = 0; i < 1000; i++) {
        struct backoff b = BACKOFF(1000000, 2000000);
        int64_t wait = backoff_next_ms(&b);
        if (first >= 0 && wait != first)
            return;
        first = wait;
    }
    fail_msg("no jitter");
}

/* A clock of a test's own. */
static int64_t nine(const struct clock *c)
{
    (void)c;
    return 9;
}

static void test_replaceable(void **state)
{
    (void)state;
    static const struct clock_ops ops = {.mono_ms = nine, .wall_ms = nine};
    struct clock fake = {.ops = &ops};
    assert_int_equal(clock_mono_ms(&fake), 9);
    assert_int_equal(clock_wall_ms(&fake), 9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_system_clock), cmocka_unit_test(test_format),
        cmocka_unit_test(test_backoff),      cmocka_unit_test(test_backoff_differs),
        cmocka_unit_test(test_replaceable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
