/* SPDX-License-Identifier: Apache-2.0 */
/* Several disks at once: the slot limit, the first error, cancel, progress. */
#include <assert.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/worker/fake_run.h"
#include "worker/step/parallel.h"

enum { DISKS = 12 };

struct load {
    struct fake_run fake;
    uint64_t sizes[DISKS];
    _Atomic int now, most, done;
    int fail_at; /* -1 = none */
    bool slow;
    void (*tick)(void *ctx);
    pthread_t task_thread;
    int ticks, ticks_elsewhere; /* of the task thread */
};

static int setup(void **state)
{
    struct load *l = ALLOC_NEW(struct load);
    fake_run_init(&l->fake);
    l->fake.settings.disks_at_once = 3;
    l->fake.settings.copy_threads = 2;
    l->fake.run.clock = clock_system();
    l->fail_at = -1;
    for (int i = 0; i < DISKS; i++)
        l->sizes[i] = 1000;
    *state = l;
    return 0;
}

static int teardown(void **state)
{
    struct load *l = *state;
    fake_run_done(&l->fake);
    free(l);
    return 0;
}

/* "Copies" until told to stop, at most 20 ms. */
static bool work(void *ctx, size_t index, const struct copy_opts *copy, struct err *err)
{
    struct load *l = ctx;
    int now = atomic_fetch_add(&l->now, 1) + 1;
    int most = atomic_load(&l->most);
    while (now > most && !atomic_compare_exchange_weak(&l->most, &most, now)) {
    }
    assert(copy->threads == 2);
    bool ok = true;
    for (int i = 0; ok && i < 20; i++) {
        clock_sleep_ms(clock_system(), l->slow ? 5 : 1);
        copy->progress(copy->context, (uint64_t)(i + 1) * 50, 1000);
        if (copy->cancelled(copy->context))
            ok = err_set(err, ERR_CANCELLED, 0, "cancelled");
        if (ok && (int)index == l->fail_at && i == 5)
            ok = err_set(err, ERR_IO, 5, "broken disk");
    }
    atomic_fetch_sub(&l->now, 1);
    atomic_fetch_add(&l->done, ok);
    return ok;
}

static bool run_all(struct load *l, struct err *err)
{
    struct parallel_opts opts = {
        .count = DISKS, .sizes = l->sizes, .work = work, .ctx = l, .tick = l->tick};
    return parallel_run(&l->fake.run, &opts, err);
}

static void test_all_within_the_limit(void **state)
{
    struct load *l = *state;
    struct err err = ERR_INIT;
    assert_true(run_all(l, &err));
    assert_int_equal(l->done, DISKS);
    assert_in_range(l->most, 1, 3);
    assert_true(l->fake.copyings >= 1);
}

static void test_the_first_error_stops_the_others(void **state)
{
    struct load *l = *state;
    l->fail_at = 1;
    struct err err = ERR_INIT;
    assert_false(run_all(l, &err));
    assert_int_equal(err.code, ERR_IO);
    assert_true(l->done < DISKS);
    assert_int_equal(l->now, 0); /* all threads have ended */
}

static void test_stop(void **state)
{
    struct load *l = *state;
    l->fake.stopped = ERR_LEASE_LOST;
    struct err err = ERR_INIT;
    assert_false(run_all(l, &err));
    assert_int_equal(err.code, ERR_LEASE_LOST); /* the true reason, not `cancelled` */
}

static void count_tick(void *ctx)
{
    struct load *l = ctx;
    l->ticks++;
    l->ticks_elsewhere += !pthread_equal(pthread_self(), l->task_thread);
}

/* While the disks are copied the task's thread is free for other things. */
static void test_ticks(void **state)
{
    struct load *l = *state;
    l->tick = count_tick;
    l->task_thread = pthread_self();
    l->fake.settings.disks_at_once = 1;
    l->slow = true;
    struct err err = ERR_INIT;
    assert_true(run_all(l, &err));
    assert_true(l->ticks >= 1);
    assert_int_equal(l->ticks_elsewhere, 0);
}

static void test_nothing_to_do(void **state)
{
    struct load *l = *state;
    struct err err = ERR_INIT;
    struct parallel_opts none = {.work = work, .ctx = l};
    assert_true(parallel_run(&l->fake.run, &none, &err));
    assert_int_equal(l->done, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_all_within_the_limit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_first_error_stops_the_others, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stop, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ticks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nothing_to_do, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
