/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proto/base/clock.h"
#include "proto/base/cond.h"

struct signal {
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    bool given;
};

static void *give(void *arg)
{
    struct signal *s = arg;
    pthread_mutex_lock(&s->mutex);
    s->given = true;
    pthread_cond_signal(&s->cond);
    pthread_mutex_unlock(&s->mutex);
    return NULL;
}

/* Waits for it, and returns whether it came in time. */
static bool wait_for(struct signal *s, int64_t limit_ms)
{
    struct timespec until = cond_after_ms(limit_ms);
    while (!s->given && cond_wait_until(&s->cond, &s->mutex, &until))
        ;
    return s->given;
}

static void a_signal_ends_the_wait(void **state)
{
    (void)state;
    struct signal s = {.mutex = PTHREAD_MUTEX_INITIALIZER};
    cond_init(&s.cond);
    pthread_mutex_lock(&s.mutex);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, give, &s), 0);
    bool came = wait_for(&s, 600 * 1000);
    pthread_mutex_unlock(&s.mutex);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(came);
    pthread_cond_destroy(&s.cond);
}

static void the_limit_ends_the_wait(void **state)
{
    (void)state;
    struct signal s = {.mutex = PTHREAD_MUTEX_INITIALIZER};
    cond_init(&s.cond);
    int64_t began_ms = clock_mono_ms(clock_system());
    pthread_mutex_lock(&s.mutex);
    bool came = wait_for(&s, 30);
    pthread_mutex_unlock(&s.mutex);
    assert_false(came);
    assert_true(clock_mono_ms(clock_system()) - began_ms >= 29); /* both in whole milliseconds */
    pthread_cond_destroy(&s.cond);
}

static void times_are_carried_over(void **state)
{
    (void)state;
    static const int64_t waits_ms[] = {0, 1, 999, 1000, 1001, 1999, 86400 * 1000 + 7};
    for (size_t i = 0; i < sizeof waits_ms / sizeof waits_ms[0]; i++) {
        struct timespec now = cond_after_ms(0), then = cond_after_ms(waits_ms[i]);
        assert_in_range(then.tv_nsec, 0, 999999999);
        int64_t ns = (then.tv_sec - now.tv_sec) * INT64_C(1000000000) + then.tv_nsec - now.tv_nsec;
        assert_true(ns >= waits_ms[i] * 1000000);
        assert_true(ns < (waits_ms[i] + 60 * 1000) * 1000000); /* a machine that is busy */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_signal_ends_the_wait),
        cmocka_unit_test(the_limit_ends_the_wait),
        cmocka_unit_test(times_are_carried_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
