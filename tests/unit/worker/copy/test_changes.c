/* SPDX-License-Identifier: Apache-2.0 */
/* From a host's map of changes to what is read and what is kept: whole blocks, and nothing that
 * changed is ever kept. And from its map of zeroes to what is read of a device. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proto/base/alloc.h"
#include "worker/copy/transfer.h"

#define B ((uint64_t)STORE_BLOCK_BYTES)

struct range {
    uint64_t len;
    bool dirty, zero;
};

static void check(const struct range *ranges, size_t count, const struct extent *want, size_t n)
{
    struct imageio_extent list[8];
    struct imageio_map map = {.v = list, .count = count};
    uint64_t at = 0;
    for (size_t i = 0; i < count; i++) {
        list[i] = (struct imageio_extent){at, ranges[i].len, ranges[i].zero, ranges[i].dirty};
        at += ranges[i].len;
    }
    SCOPED_EXTENTS struct extents got = EXTENTS_INIT;
    transfer_changes(&map, at, &got);
    assert_int_equal(got.count, n);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(got.items[i].offset, want[i].offset);
        assert_int_equal(got.items[i].len, want[i].len);
        assert_int_equal(got.items[i].is_data, want[i].is_data);
    }
}
#define CHECK(ranges, ...)                                                                         \
    do {                                                                                           \
        const struct extent want[] = {__VA_ARGS__};                                                \
        check(ranges, ARRAY_LEN(ranges), want, ARRAY_LEN(want));                                   \
    } while (0)

static void whole_blocks(void **state)
{
    (void)state;
    const struct range plain[] = {{2 * B, false, false}, {3 * B, true, false}, {B, false, false}};
    CHECK(plain, {0, 2 * B, false}, {2 * B, 3 * B, true}, {5 * B, B, false});
    const struct range all[] = {{4 * B, true, true}};
    CHECK(all, {0, 4 * B, true});
    const struct range none[] = {{4 * B, false, false}};
    CHECK(none, {0, 4 * B, false});
}

/* A clean range that is cut by whether it reads as zeroes is one all the same. */
static void zeroes_do_not_cut(void **state)
{
    (void)state;
    const struct range cut[] = {
        {B / 2, false, false}, {B, false, true}, {B / 2, false, false}, {B, true, true}};
    CHECK(cut, {0, 2 * B, false}, {2 * B, B, true});
}

/* A block that is clean in part only is read; the last one of an odd-sized disk is whole. */
static void half_blocks_have_changed(void **state)
{
    (void)state;
    const struct range odd[] = {{B + 100, false, false},
                                {100, true, false},
                                {2 * B - 200, false, false},
                                {B / 2, false, false}};
    CHECK(odd, {0, B, false}, {B, B, true}, {2 * B, B + B / 2, false});
    const struct range small[] = {{100, true, false}, {B, false, false}, {100, true, false}};
    CHECK(small, {0, B + 200, true});
}

/* What the map does not cover has changed. */
static void a_short_map(void **state)
{
    (void)state;
    struct imageio_extent one = {0, B, false, false};
    struct imageio_map map = {.v = &one, .count = 1};
    SCOPED_EXTENTS struct extents got = EXTENTS_INIT;
    transfer_changes(&map, 3 * B, &got);
    assert_int_equal(got.count, 2);
    assert_false(got.items[0].is_data);
    assert_true(got.items[1].is_data);
    assert_int_equal(got.items[1].len, 2 * B);
    struct imageio_map empty = {0};
    extents_reset(&got);
    transfer_changes(&empty, 3 * B, &got);
    assert_int_equal(got.count, 1);
    assert_true(got.items[0].is_data);
}

static void close_device(struct source *device)
{
    free(device);
}

/* What the map does not tell is data. */
static void a_mapped_device(void **state)
{
    (void)state;
    static const struct source_ops ops = {.close = close_device}; /* its own map is not asked */
    struct source *device = ALLOC_NEW(struct source);
    *device = (struct source){.ops = &ops, .size_bytes = 16 * B};
    struct imageio_extent v[] = {{.offset = 0, .len = 2 * B},
                                 {.offset = 2 * B, .len = 12 * B, .zero = true},
                                 {.offset = 14 * B, .len = B}};
    struct imageio_map map = {.v = v, .count = 3};
    SCOPED(source) struct source *from = source_mapped_open(device, &map);
    SCOPED_EXTENTS struct extents got = EXTENTS_INIT;
    struct err err = ERR_INIT;
    assert_true(from->ops->extents(from, B, 15 * B, &got, &err));
    static const struct extent want[] = {
        {B, B, true}, {2 * B, 12 * B, false}, {14 * B, 2 * B, true}};
    assert_int_equal(got.count, 3);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(got.items[i].offset, want[i].offset);
        assert_int_equal(got.items[i].len, want[i].len);
        assert_int_equal(got.items[i].is_data, want[i].is_data);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_blocks),
        cmocka_unit_test(zeroes_do_not_cut),
        cmocka_unit_test(half_blocks_have_changed),
        cmocka_unit_test(a_short_map),
        cmocka_unit_test(a_mapped_device),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
