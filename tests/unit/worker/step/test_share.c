/* SPDX-License-Identifier: Apache-2.0 */
/* Who copies what: examples, and what holds of any. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proto/base/alloc.h"
#include "worker/step/share.h"

#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)
#define TIB (UINT64_C(1) << 40)

static const struct share_opts three = {.workers = 3, .align_bytes = GIB, .min_bytes = 4 * GIB};

static uint64_t random_next(uint64_t *seed)
{
    *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return *seed >> 33;
}

/* Of data in [begin, end). */
static uint64_t data_in(const struct share_disk *d, uint64_t begin, uint64_t end)
{
    uint64_t sum = 0, mapped = 0;
    for (size_t i = 0; d->data && i < d->data->count; i++) {
        const struct extent *x = &d->data->items[i];
        mapped = x->offset + x->len;
        if (!x->is_data || mapped <= begin || x->offset >= end)
            continue;
        sum += (mapped < end ? mapped : end) - (x->offset > begin ? x->offset : begin);
    }
    return sum + (mapped < end ? end - (mapped > begin ? mapped : begin) : 0);
}

static const struct share_piece *first_from(const struct share_plan *plan, size_t disk,
                                            uint64_t offset)
{
    const struct share_piece *first = NULL;
    for (size_t w = 0; w < plan->count; w++) {
        for (size_t i = 0; i < plan->v[w].count; i++) {
            const struct share_piece *p = &plan->v[w].pieces[i];
            if (p->disk == disk && p->offset + p->len_bytes > offset &&
                (!first || p->offset < first->offset))
                first = p;
        }
    }
    return first;
}

/* The pieces of one disk in all shares: are they all its data, each byte once? */
static void check_disk(const struct share_plan *plan, size_t disk, const struct share_disk *d,
                       const struct share_opts *opts)
{
    uint64_t at = 0;
    const struct share_piece *p;
    while ((p = first_from(plan, disk, at))) {
        assert_true(p->len_bytes > 0 && p->offset >= at);
        if (p->offset > at) { /* left out: a hole, and a large one */
            assert_true(opts->hole_bytes > 0 && p->offset - at >= opts->hole_bytes);
            assert_int_equal(data_in(d, at, p->offset), 0);
            assert_int_equal(p->offset % 4096, 0);
        } else {
            assert_true(p->offset % opts->align_bytes == 0 || opts->hole_bytes > 0);
        }
        at = p->offset + p->len_bytes;
    }
    assert_true(at == d->size_bytes ||
                (opts->hole_bytes > 0 && at < d->size_bytes && data_in(d, at, d->size_bytes) == 0));
    size_t holders = 0;
    for (size_t w = 0; w < plan->count; w++) {
        bool has = false;
        for (size_t i = 0; i < plan->v[w].count; i++)
            has = has || plan->v[w].pieces[i].disk == disk;
        holders += has;
    }
    if (d->is_whole)
        assert_true(holders <= 1);
}

/* What the header promises, of any plan. */
static void check_plan(const struct share_plan *plan, const struct share_disk *disks, size_t count,
                       const struct share_opts *opts)
{
    uint64_t bytes = 0, sum = 0;
    assert_in_range(plan->count, 1, opts->workers > 1 ? opts->workers : 1);
    for (size_t w = 0; w < plan->count; w++) {
        const struct share *s = &plan->v[w];
        uint64_t cost = 0;
        for (size_t i = 0; i < s->count; i++) {
            const struct share_piece *p = &s->pieces[i];
            assert_true(p->disk < count);
            assert_true(p->cost_bytes <= p->len_bytes);
            cost += p->cost_bytes;
            sum += p->len_bytes;
            if (i == 0)
                continue;
            const struct share_piece *before = &s->pieces[i - 1];
            if (before->disk == p->disk)
                assert_true(before->offset + before->len_bytes < p->offset); /* else joined */
            else
                assert_true(before->disk < p->disk);
        }
        assert_int_equal(cost, s->cost_bytes);
        assert_true(s->cost_bytes <= plan->v[0].cost_bytes);
        if (w > 0) {
            assert_in_range(s->count, 1, SHARE_PIECES_MAX);
            assert_true(s->cost_bytes >= opts->min_bytes && s->cost_bytes > 0);
        }
    }
    for (size_t i = 0; i < count; i++) {
        check_disk(plan, i, &disks[i], opts);
        bytes += disks[i].size_bytes;
    }
    if (opts->hole_bytes == 0)
        assert_int_equal(sum, bytes);
    assert_true(sum <= bytes);
}

static void make(const struct share_disk *disks, size_t count, const struct share_opts *opts,
                 struct share_plan *ret)
{
    share_out(disks, count, opts, ret);
    check_plan(ret, disks, count, opts);
}

static void test_one_large_disk_is_cut(void **state)
{
    (void)state;
    const struct share_disk disk = {.size_bytes = 300 * GIB};
    struct share_plan plan;
    make(&disk, 1, &three, &plan);
    assert_int_equal(plan.count, 3);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(plan.v[i].count, 1);
        assert_int_equal(plan.v[i].cost_bytes, 100 * GIB);
    }
    share_plan_done(&plan);
}

static void test_one_that_cannot_be_cut(void **state)
{
    (void)state;
    const struct share_disk disks[] = {{.size_bytes = 300 * GIB, .is_whole = true},
                                       {.size_bytes = 40 * GIB, .is_whole = true},
                                       {.size_bytes = 41 * GIB, .is_whole = true}};
    struct share_plan plan;
    make(disks, 3, &three, &plan);
    assert_int_equal(plan.count, 3);
    assert_int_equal(plan.v[0].cost_bytes, 300 * GIB); /* ours, and no more */
    assert_int_equal(plan.v[1].cost_bytes, 41 * GIB);
    share_plan_done(&plan);
    make(disks, 1, &three, &plan);
    assert_int_equal(plan.count, 1);
    share_plan_done(&plan);
}

static void test_whole_disks_first(void **state)
{
    (void)state;
    const struct share_disk disks[] = {
        {.size_bytes = 100 * GIB}, {.size_bytes = 96 * GIB}, {.size_bytes = 104 * GIB}};
    struct share_plan plan;
    make(disks, 3, &three, &plan);
    assert_int_equal(plan.count, 3);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(plan.v[i].count, 1); /* near enough: none is cut */
    share_plan_done(&plan);
}

/* By what is read, not by size: here all data is at the end. */
static void test_data_is_what_counts(void **state)
{
    (void)state;
    SCOPED_EXTENTS struct extents map = EXTENTS_INIT;
    extents_add(&map, 0, TIB - 30 * GIB, false);
    extents_add(&map, TIB - 30 * GIB, 30 * GIB, true);
    const struct share_disk disk = {.size_bytes = TIB, .data = &map};
    struct share_plan plan;
    make(&disk, 1, &three, &plan);
    assert_int_equal(plan.count, 3);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(plan.v[i].cost_bytes, 10 * GIB);
    share_plan_done(&plan);
}

/* What is left out is not even asked for: the piece is all data. */
static void test_holes_are_left_out(void **state)
{
    (void)state;
    SCOPED_EXTENTS struct extents map = EXTENTS_INIT;
    extents_add(&map, 0, 10 * GIB, true);
    extents_add(&map, 10 * GIB, TIB - 20 * GIB, false);
    extents_add(&map, TIB - 10 * GIB, 10 * GIB, true);
    const struct share_disk disk = {.size_bytes = TIB, .data = &map};
    const struct share_opts opts = {
        .workers = 2, .align_bytes = GIB, .min_bytes = GIB, .hole_bytes = MIB};
    struct share_plan plan;
    make(&disk, 1, &opts, &plan);
    assert_int_equal(plan.count, 2);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(plan.v[i].count, 1);
        assert_int_equal(plan.v[i].pieces[0].len_bytes, 10 * GIB);
    }
    share_plan_done(&plan);
}

/* More holes than pieces are allowed: the largest go. */
static void test_many_holes(void **state)
{
    (void)state;
    SCOPED_EXTENTS struct extents map = EXTENTS_INIT;
    uint64_t at = 0;
    for (uint64_t i = 0; i < 10000; i++) {
        extents_add(&map, at, MIB, true);
        extents_add(&map, at + MIB, (1 + i % 7) * MIB, false);
        at += (2 + i % 7) * MIB;
    }
    const struct share_disk disk = {.size_bytes = at, .data = &map};
    const struct share_opts opts = {
        .workers = 2, .align_bytes = MIB, .min_bytes = GIB, .hole_bytes = MIB};
    struct share_plan plan;
    make(&disk, 1, &opts, &plan);
    assert_int_equal(plan.count, 2);
    assert_in_range(plan.v[1].count, SHARE_PIECES_MAX - 1, SHARE_PIECES_MAX);
    assert_in_range(plan.v[0].count, SHARE_OWN_MAX - 1, SHARE_OWN_MAX);
    share_plan_done(&plan);
}

static void test_not_worth_it(void **state)
{
    (void)state;
    const struct share_disk disks[] = {{.size_bytes = 5 * GIB}, {.size_bytes = 2 * GIB}};
    struct share_plan plan;
    make(disks, 2, &three, &plan); /* 7 GiB: two workers of 4 would be one too many */
    assert_int_equal(plan.count, 1);
    assert_int_equal(plan.v[0].count, 2);
    share_plan_done(&plan);
    make(NULL, 0, &three, &plan);
    assert_int_equal(plan.count, 1);
    assert_int_equal(plan.v[0].count, 0);
    share_plan_done(&plan);
    const struct share_disk nothing[] = {{.size_bytes = 0}, {.size_bytes = 0}};
    make(nothing, 2, &three, &plan);
    assert_int_equal(plan.count, 1);
    share_plan_done(&plan);
    const struct share_opts alone = {.workers = 0, .align_bytes = GIB};
    make(disks, 2, &alone, &plan);
    assert_int_equal(plan.count, 1);
    share_plan_done(&plan);
}

/* One large disk that cannot be cut, and crumbs: two others would have too little each. */
static void test_fewer_workers_when_shares_are_small(void **state)
{
    (void)state;
    const struct share_disk disks[] = {{.size_bytes = 100 * GIB, .is_whole = true},
                                       {.size_bytes = 3 * GIB},
                                       {.size_bytes = 3 * GIB}};
    struct share_plan plan;
    make(disks, 3, &three, &plan);
    assert_int_equal(plan.count, 2);
    assert_int_equal(plan.v[1].cost_bytes, 6 * GIB);
    share_plan_done(&plan);
}

static void test_many_small_disks(void **state)
{
    (void)state;
    struct share_disk disks[1000];
    for (size_t i = 0; i < ARRAY_LEN(disks); i++)
        disks[i] = (struct share_disk){.size_bytes = MIB};
    const struct share_opts opts = {.workers = 2, .align_bytes = MIB, .min_bytes = MIB};
    struct share_plan plan;
    make(disks, ARRAY_LEN(disks), &opts, &plan);
    assert_int_equal(plan.count, 2);
    assert_int_equal(plan.v[1].count, SHARE_PIECES_MAX); /* the rest is ours */
    share_plan_done(&plan);
}

/* Where every disk can be cut, nobody has much more than the average. */
static void check_balance(const struct share_plan *plan, uint64_t total,
                          const struct share_opts *opts)
{
    uint64_t average = total / plan->count;
    assert_true(plan->v[0].cost_bytes <= average + average / 8 + opts->align_bytes + plan->count);
}

static void make_map(struct extents *map, uint64_t size, uint64_t *seed, uint64_t *data)
{
    bool is_data = random_next(seed) % 2;
    /* Sometimes it covers less than the disk. */
    uint64_t end = random_next(seed) % 4 ? size : size / 2;
    for (uint64_t at = 0; at < end; is_data = !is_data) {
        uint64_t len = (1 + random_next(seed) % 500) * 4096;
        len = len < end - at ? len : end - at;
        extents_add(map, at, len, is_data);
        *data += is_data ? len : 0;
        at += len;
    }
    *data += size - end;
}

static void test_any(void **state)
{
    (void)state;
    for (uint64_t round = 0; round < 3000; round++) {
        uint64_t seed = round + 1, total = 0;
        struct share_disk disks[12];
        struct extents maps[12] = {0};
        size_t count = random_next(&seed) % 13;
        bool all_can_be_cut = random_next(&seed) % 2;
        for (size_t i = 0; i < count; i++) {
            disks[i] = (struct share_disk){.size_bytes = random_next(&seed) % (64 * MIB) +
                                                         (random_next(&seed) % 3 ? 0 : 511)};
            if (random_next(&seed) % 5 == 0)
                disks[i].size_bytes = random_next(&seed) % 2 ? 0 : 300 * MIB;
            disks[i].is_whole = !all_can_be_cut && random_next(&seed) % 2;
            if (random_next(&seed) % 3 == 0 && disks[i].size_bytes > 0) {
                make_map(&maps[i], disks[i].size_bytes, &seed, &total);
                disks[i].data = &maps[i];
            } else {
                total += disks[i].size_bytes;
            }
        }
        const struct share_opts opts = {.workers = (unsigned)(random_next(&seed) % 20),
                                        .align_bytes = MIB << random_next(&seed) % 5,
                                        .min_bytes = random_next(&seed) % (64 * MIB),
                                        .hole_bytes = random_next(&seed) % 2 * 65536};
        struct share_plan plan;
        share_out(disks, count, &opts, &plan);
        struct share_opts limits = opts;
        limits.workers = opts.workers < SHARE_WORKERS_MAX ? opts.workers : SHARE_WORKERS_MAX;
        check_plan(&plan, disks, count, &limits);
        if (all_can_be_cut)
            check_balance(&plan, total, &opts);
        share_plan_done(&plan);
        for (size_t i = 0; i < count; i++)
            extents_done(&maps[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_large_disk_is_cut),
        cmocka_unit_test(test_one_that_cannot_be_cut),
        cmocka_unit_test(test_whole_disks_first),
        cmocka_unit_test(test_data_is_what_counts),
        cmocka_unit_test(test_holes_are_left_out),
        cmocka_unit_test(test_many_holes),
        cmocka_unit_test(test_not_worth_it),
        cmocka_unit_test(test_fewer_workers_when_shares_are_small),
        cmocka_unit_test(test_many_small_disks),
        cmocka_unit_test(test_any),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
