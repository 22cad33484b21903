/* SPDX-License-Identifier: Apache-2.0 */
/* Limits of bandwidth: rates by a clock that moves only when told, hours, sharing, stopping. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "worker/copy/rate.h"

#define MIB (UINT64_C(1) << 20)

/* Sleeping moves it; threads may share it. */
struct moved_clock {
    struct clock clock;
    _Atomic int64_t mono_ms, wall_offset_ms;
};

static int64_t moved_mono(const struct clock *c)
{
    return atomic_load(&((const struct moved_clock *)c)->mono_ms);
}

static int64_t moved_wall(const struct clock *c)
{
    return moved_mono(c) + atomic_load(&((const struct moved_clock *)c)->wall_offset_ms);
}

static void moved_sleep(const struct clock *c, int64_t ms)
{
    struct moved_clock *m = (struct moved_clock *)(uintptr_t)c;
    assert_true(ms > 0 && ms <= 200); /* a stop is seen within this */
    atomic_fetch_add(&m->mono_ms, ms);
}

static const struct clock_ops moved_ops = {
    .mono_ms = moved_mono, .wall_ms = moved_wall, .sleep_ms = moved_sleep};

/* Noon of the first day of 1970, UTC. */
static struct moved_clock noon(void)
{
    return (struct moved_clock){
        .clock = {.ops = &moved_ops}, .mono_ms = 1000, .wall_offset_ms = 12 * 3600 * 1000 - 1000};
}

static struct rate_limits *limits_of(const struct rate_rule *rules, size_t count,
                                     const struct moved_clock *clock)
{
    struct err err = ERR_INIT;
    struct rate_limits *l = rate_limits_new(rules, count, &clock->clock, &err);
    if (!l)
        fail_msg("%s", err.message);
    return l;
}

/* How long `mib` MiB take in pieces of 1 MiB. */
static int64_t pass_ms(const struct rate_gate *gate, struct moved_clock *clock, int mib)
{
    struct err err = ERR_INIT;
    int64_t start = atomic_load(&clock->mono_ms);
    for (int i = 0; i < mib; i++)
        assert_true(rate_pass(gate, MIB, &err));
    return atomic_load(&clock->mono_ms) - start;
}

static void test_the_rate_is_kept(void **state)
{
    (void)state;
    struct moved_clock clock = noon();
    const struct rate_rule rules[] = {{.bytes_per_s = 4 * MIB}};
    SCOPED(rate_limits) struct rate_limits *l = limits_of(rules, 1, &clock);
    const struct rate_gate gate = {.limits = l};
    int64_t ms = pass_ms(&gate, &clock, 17); /* the first one is free, and owed */
    assert_in_range(ms, 4000, 4100);
    ms = pass_ms(&gate, &clock, 400);
    assert_in_range(ms, 99900, 100500);
    /* A pause is worth a fifth of a second, not more. */
    atomic_fetch_add(&clock.mono_ms, 3600 * 1000);
    ms = pass_ms(&gate, &clock, 16);
    assert_in_range(ms, 3400, 3900);
}

static void test_nothing_is_limited_without_a_rule(void **state)
{
    (void)state;
    struct moved_clock clock = noon();
    SCOPED(rate_limits) struct rate_limits *l = limits_of(NULL, 0, &clock);
    const struct rate_gate gate = {.limits = l, .domain_id = "d1"}, none = {0};
    assert_int_equal(pass_ms(&gate, &clock, 1000), 0);
    assert_int_equal(pass_ms(&none, &clock, 1000), 0);
    assert_false(rate_concerns(&gate));
    assert_false(rate_concerns(&none));
}

static void test_a_domain_has_its_own_bucket_beside_the_workers(void **state)
{
    (void)state;
    struct moved_clock clock = noon();
    const struct rate_rule rules[] = {
        {.bytes_per_s = 100 * MIB},
        {.bytes_per_s = 10 * MIB, .storage_domain = "slow"},
        {.bytes_per_s = 20 * MIB, .storage_domain = "id-2"},
    };
    SCOPED(rate_limits) struct rate_limits *l = limits_of(rules, 3, &clock);
    const struct rate_gate slow = {.limits = l, .domain_id = "id-1", .domain_name = "slow"};
    const struct rate_gate by_id = {.limits = l, .domain_id = "id-2", .domain_name = "x"};
    const struct rate_gate other = {.limits = l, .domain_id = "id-3", .domain_name = "fast"};
    assert_in_range(pass_ms(&slow, &clock, 100), 9600, 10100);
    assert_in_range(pass_ms(&by_id, &clock, 100), 4600, 5100);
    assert_in_range(pass_ms(&other, &clock, 1000), 9600, 10100);
}

static void test_hours(void **state)
{
    (void)state;
    static const struct {
        const char *hours;
        int at_minute;
        bool holds;
    } rows[] = {
        {"08:00-18:00", 12 * 60, true},         {"08:00-18:00", 18 * 60, false},
        {"08:00-18:00", 8 * 60, true},          {"08:00-18:00", 8 * 60 - 1, false},
        {"22:00-06:00", 23 * 60, true},         {"22:00-06:00", 5 * 60 + 59, true},
        {"22:00-06:00", 6 * 60, false},         {"00:00-24:00", 0, true},
        {"00:00-24:00", 24 * 60 - 1, true},     {"00:00-00:00", 777, true},
        {"01:00-02:00,03:00-04:00", 90, true},  {"01:00-02:00,03:00-04:00", 150, false},
        {"01:00-02:00,03:00-04:00", 210, true},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct moved_clock clock = noon();
        clock.wall_offset_ms = (int64_t)rows[i].at_minute * 60 * 1000 - 1000;
        const struct rate_rule rule = {.bytes_per_s = MIB, .hours = rows[i].hours};
        SCOPED(rate_limits) struct rate_limits *l = limits_of(&rule, 1, &clock);
        const struct rate_gate gate = {.limits = l};
        if ((pass_ms(&gate, &clock, 3) > 0) != rows[i].holds)
            fail_msg("%s at minute %d", rows[i].hours, rows[i].at_minute);
    }
}

static void test_of_several_the_smallest_that_holds(void **state)
{
    (void)state;
    struct moved_clock clock = noon();
    const struct rate_rule rules[] = {
        {.bytes_per_s = 2 * MIB},
        {.bytes_per_s = 1 * MIB, .hours = "11:00-13:00"},
        {.bytes_per_s = 64 * MIB, .hours = "00:00-24:00"},
    };
    SCOPED(rate_limits) struct rate_limits *l = limits_of(rules, 3, &clock);
    const struct rate_gate gate = {.limits = l};
    assert_in_range(pass_ms(&gate, &clock, 60), 58000, 60100);
    atomic_fetch_add(&clock.wall_offset_ms, 3 * 3600 * 1000); /* the hour is over */
    assert_in_range(pass_ms(&gate, &clock, 60), 28000, 31100);
}

static void test_bad_hours_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      "8:00-18:00",
                                      "08:00",
                                      "08:00-25:00",
                                      "08:60-09:00",
                                      "24:00-01:00",
                                      "08:00-18:00,",
                                      "08:00 - 18:00",
                                      "08:00-18:00;",
                                      "ab:cd-ef:gh"};
    const struct moved_clock clock = noon();
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct err err = ERR_INIT;
        const struct rate_rule rule = {.bytes_per_s = 1, .hours = bad[i]};
        if (rate_limits_new(&rule, 1, &clock.clock, &err))
            fail_msg("'%s' was taken", bad[i]);
        assert_int_equal(err.code, ERR_BAD_ARGUMENT);
    }
}

/* Many threads share a bucket: together they keep its rate. */
enum { THREADS = 8, EACH_MIB = 5 };

static void *pass_some(void *arg)
{
    struct err err = ERR_INIT;
    for (int i = 0; i < EACH_MIB; i++) {
        if (!rate_pass(arg, MIB, &err))
            return arg;
    }
    return NULL;
}

static void test_streams_share_it(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    const struct rate_rule rule = {.bytes_per_s = 100 * MIB};
    SCOPED(rate_limits) struct rate_limits *l = rate_limits_new(&rule, 1, clock_system(), &err);
    struct rate_gate gate = {.limits = l};
    pthread_t ids[THREADS];
    int64_t start = clock_mono_ms(clock_system());
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&ids[i], NULL, pass_some, &gate), 0);
    for (int i = 0; i < THREADS; i++) {
        void *failed = &gate;
        pthread_join(ids[i], &failed);
        assert_null(failed);
    }
    /* 40 MiB at 100 MiB/s, the first one free. */
    assert_true(clock_mono_ms(clock_system()) - start >= 385);
}

/* Whoever is stopped while it waits ends, and what it did not take is not owed. */
struct stopper {
    struct moved_clock *clock;
    int64_t at_ms;
};

static bool is_stopped(void *ctx)
{
    const struct stopper *s = ctx;
    return atomic_load(&s->clock->mono_ms) >= s->at_ms;
}

static void test_a_wait_can_be_stopped(void **state)
{
    (void)state;
    struct moved_clock clock = noon();
    struct err err = ERR_INIT;
    const struct rate_rule rule = {.bytes_per_s = MIB};
    SCOPED(rate_limits) struct rate_limits *l = limits_of(&rule, 1, &clock);
    struct stopper stopper = {.clock = &clock, .at_ms = 5000};
    const struct rate_gate stopped = {.limits = l, .stopped = is_stopped, .ctx = &stopper};
    const struct rate_gate gate = {.limits = l};
    assert_true(rate_pass(&gate, 100 * MIB, &err)); /* owed for 100 s */
    assert_false(rate_pass(&stopped, MIB, &err));
    assert_int_equal(err.code, ERR_CANCELLED);
    assert_in_range(atomic_load(&clock.mono_ms), 5000, 5200);
    assert_in_range(pass_ms(&gate, &clock, 1), 95000, 97000);
}

/* --- Sources and targets ---------------------------------------------------------------------- */
struct counter {
    struct source source;
    struct target target;
    uint64_t bytes, largest, zeroed, reserved;
    unsigned flushed, failed, closed;
};

static bool count_extents(struct source *s, uint64_t offset, uint64_t len, struct extents *out,
                          struct err *err)
{
    (void)s;
    (void)err;
    extents_add(out, offset, len, true);
    return true;
}

static bool count_pread(struct source *s, void *buf, size_t len, uint64_t offset, struct err *err)
{
    struct counter *c = (struct counter *)s;
    (void)err;
    memset(buf, (int)(offset / MIB + 1), len);
    c->bytes += len;
    c->largest = len > c->largest ? len : c->largest;
    return true;
}

static void count_close(struct source *s)
{
    ((struct counter *)s)->closed++;
}

static void test_a_source_behind_a_gate(void **state)
{
    (void)state;
    static const struct source_ops ops = {count_extents, count_pread, count_close};
    struct moved_clock clock = noon();
    struct err err = ERR_INIT;
    const struct rate_rule rule = {.bytes_per_s = 4 * MIB};
    SCOPED(rate_limits) struct rate_limits *l = limits_of(&rule, 1, &clock);
    const struct rate_gate gate = {.limits = l}, none = {0};
    struct counter c = {.source = {.ops = &ops, .size_bytes = 16 * MIB, .piece_bytes = 4096}};
    assert_ptr_equal(source_limited_open(&c.source, &none), &c.source);
    assert_null(source_limited_open(NULL, &gate));
    struct source *s = source_limited_open(&c.source, &gate);
    assert_int_equal(s->size_bytes, 16 * MIB);
    assert_int_equal(s->piece_bytes, 4096);
    uint8_t *buf = xmalloc(16 * MIB);
    int64_t start = atomic_load(&clock.mono_ms);
    assert_true(s->ops->pread(s, buf, 16 * MIB - 100, 0, &err));
    assert_in_range(atomic_load(&clock.mono_ms) - start, 3600, 4000);
    assert_int_equal(c.bytes, 16 * MIB - 100);
    assert_int_equal(c.largest, MIB);
    for (unsigned i = 0; i < 16; i++) {
        assert_int_equal(buf[i * MIB], i + 1);
        assert_int_equal(buf[i * MIB + MIB - 101], i + 1);
    }
    struct extents map = {0};
    assert_true(s->ops->extents(s, 0, 16 * MIB, &map, &err));
    assert_int_equal(map.count, 1);
    extents_done(&map);
    source_close(s);
    assert_int_equal(c.closed, 1);
    free(buf);
}

static struct counter *of_target(struct target *t)
{
    return (struct counter *)((char *)t - offsetof(struct counter, target));
}

static bool count_pwrite(struct target *t, const void *buf, size_t len, uint64_t offset,
                         struct err *err)
{
    (void)buf;
    (void)offset;
    (void)err;
    of_target(t)->bytes += len;
    return true;
}

static void count_expect(struct target *t, uint64_t data_bytes, uint64_t pieces)
{
    t->takes_pieces = t->waits = data_bytes > pieces;
}

static bool count_reserve(struct target *t, uint64_t offset, uint64_t len, struct err *err)
{
    (void)offset;
    (void)err;
    of_target(t)->reserved += len;
    return true;
}

static bool count_zero(struct target *t, uint64_t offset, uint64_t len, struct err *err)
{
    (void)offset;
    (void)err;
    of_target(t)->zeroed += len;
    return true;
}

static bool count_flush(struct target *t, struct err *err)
{
    (void)err;
    of_target(t)->flushed++;
    return true;
}

static void count_fail(struct target *t)
{
    of_target(t)->failed++;
}

static void count_close_target(struct target *t)
{
    of_target(t)->closed++;
}

static void test_a_target_behind_a_gate(void **state)
{
    (void)state;
    static const struct target_ops ops = {.pwrite = count_pwrite,
                                          .expect = count_expect,
                                          .reserve = count_reserve,
                                          .zero = count_zero,
                                          .flush = count_flush,
                                          .fail = count_fail,
                                          .close = count_close_target};
    struct moved_clock clock = noon();
    struct err err = ERR_INIT;
    const struct rate_rule rule = {.bytes_per_s = 4 * MIB, .storage_domain = "d"};
    SCOPED(rate_limits) struct rate_limits *l = limits_of(&rule, 1, &clock);
    const struct rate_gate gate = {.limits = l, .domain_id = "d"}, other = {.limits = l};
    struct counter c = {.target = {.ops = &ops, .size_bytes = 64 * MIB, .is_zero = true}};
    assert_ptr_equal(target_limited_open(&c.target, &other), &c.target);
    struct target *t = target_limited_open(&c.target, &gate);
    assert_true(t->is_zero);
    assert_false(t->takes_pieces);
    t->ops->expect(t, 2, 1);
    assert_true(t->takes_pieces && t->waits);
    t->ops->expect(t, 1, 1);
    assert_false(t->takes_pieces || t->waits);
    uint8_t *buf = xcalloc(1, 8 * MIB);
    int64_t start = atomic_load(&clock.mono_ms);
    assert_true(t->ops->zero(t, 0, 64 * MIB, &err));   /* costs no bandwidth */
    assert_true(t->ops->reserve(t, 0, 8 * MIB, &err)); /* nor does this */
    assert_int_equal(atomic_load(&clock.mono_ms), start);
    assert_true(t->ops->pwrite(t, buf, 8 * MIB, 0, &err));
    assert_in_range(atomic_load(&clock.mono_ms) - start, 1600, 2000);
    assert_true(t->ops->flush(t, &err));
    (t->ops->fail)(t); /* cmocka has a macro of that name */
    target_close(t);
    assert_int_equal(c.bytes, 8 * MIB);
    assert_int_equal(c.zeroed, 64 * MIB);
    assert_int_equal(c.reserved, 8 * MIB);
    assert_int_equal(c.flushed + c.failed + c.closed, 3);
    free(buf);
}

int main(void)
{
    setenv("TZ", "UTC", 1);
    tzset();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_rate_is_kept),
        cmocka_unit_test(test_nothing_is_limited_without_a_rule),
        cmocka_unit_test(test_a_domain_has_its_own_bucket_beside_the_workers),
        cmocka_unit_test(test_hours),
        cmocka_unit_test(test_of_several_the_smallest_that_holds),
        cmocka_unit_test(test_bad_hours_are_refused),
        cmocka_unit_test(test_streams_share_it),
        cmocka_unit_test(test_a_wait_can_be_stopped),
        cmocka_unit_test(test_a_source_behind_a_gate),
        cmocka_unit_test(test_a_target_behind_a_gate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
