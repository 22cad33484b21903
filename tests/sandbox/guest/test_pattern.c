/* SPDX-License-Identifier: Apache-2.0 */
/* The judge of guest images: it must pass every true instant and catch every kind of lie. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "proto/base/alloc.h"
#include "proto/base/file.h"
#include "tests/sandbox/guest/judge.h"

enum { MIB = 1 << 20, DISKS = 2 };

static const struct pattern_spec spec = {
    .vm = "web1",
    .seed = 4711,
    .common_seed = 1,
    .disk_count = DISKS,
    .disks = {{"disk-a", 8 * MIB, 50, 60, 2}, {"disk-b", 5 * MIB + 512, 5, 0, 1}},
};

/* A guest's disks in files, which the test moves to any instant and then spoils. */
struct guest_files {
    char dir[64];
    char *paths[DISKS];
    int fds[DISKS];
    uint64_t n;
};

static void lay_down(struct guest_files *g, size_t disk)
{
    struct err err = ERR_INIT;
    unsigned char block[PATTERN_BLOCK];
    for (uint64_t i = 0; i < spec.disks[disk].size_bytes / PATTERN_BLOCK; i++) {
        if (pattern_initial(&spec, disk, i, block))
            assert_true(
                file_pwrite_full(g->fds[disk], block, sizeof block, i * PATTERN_BLOCK, &err));
    }
}

static int setup(void **state)
{
    struct guest_files *g = ALLOC_NEW(struct guest_files);
    snprintf(g->dir, sizeof g->dir, "/tmp/pattern-test-XXXXXX");
    if (!mkdtemp(g->dir))
        return -1;
    for (size_t i = 0; i < DISKS; i++) {
        g->paths[i] = xasprintf("%s/%s.raw", g->dir, spec.disks[i].id);
        g->fds[i] = open(g->paths[i], O_RDWR | O_CREAT | O_CLOEXEC, 0644);
        if (ftruncate(g->fds[i], (off_t)spec.disks[i].size_bytes) != 0)
            return -1;
        lay_down(g, i);
    }
    *state = g;
    return 0;
}

static int teardown(void **state)
{
    struct guest_files *g = *state;
    for (size_t i = 0; i < DISKS; i++) {
        (void)close(g->fds[i]);
        (void)unlink(g->paths[i]);
        free(g->paths[i]);
    }
    (void)rmdir(g->dir);
    free(g);
    return 0;
}

/* Do write n on the one disk it belongs to, if `only` is that disk or DISKS (any). */
static void do_write(struct guest_files *g, uint64_t n, size_t only)
{
    struct err err = ERR_INIT;
    struct pattern_write w = pattern_write_at(&spec, n);
    if (only != DISKS && only != w.disk)
        return;
    SCOPED_FREE unsigned char *bytes = xcalloc(w.block_count, PATTERN_BLOCK);
    if (w.kind == PATTERN_RECORD)
        pattern_record(&spec, n, bytes);
    assert_true(file_pwrite_full(g->fds[w.disk], bytes, w.block_count * PATTERN_BLOCK,
                                 w.block * PATTERN_BLOCK, &err));
}

static void advance(struct guest_files *g, uint64_t to)
{
    while (g->n < to)
        do_write(g, ++g->n, DISKS);
}

static struct judge_verdict judge(struct guest_files *g, const struct judge_opts *how)
{
    struct judge_opts opts = *how;
    opts.spec = &spec;
    struct judge_verdict v;
    struct err err = ERR_INIT;
    bool chosen = false;
    for (size_t i = 0; i < DISKS; i++)
        chosen = chosen || opts.images[i];
    for (size_t i = 0; !chosen && i < DISKS; i++)
        opts.images[i] = g->paths[i];
    if (!judge_images(&opts, &v, &err))
        fail_msg("%s", err.message);
    return v;
}

static void expect_good(struct guest_files *g, uint64_t s)
{
    struct judge_verdict v = judge(g, &(struct judge_opts){.before = UINT64_MAX});
    if (!v.good)
        fail_msg("instant %" PRIu64 ": %s", s, v.why);
    assert_in_range(s, v.s_min, v.s_max);
}

static void expect_bad(struct guest_files *g, const char *why)
{
    struct judge_verdict v = judge(g, &(struct judge_opts){.before = UINT64_MAX});
    assert_false(v.good);
    if (!strstr(v.why, why))
        fail_msg("'%s' not in: %s", why, v.why);
}

/* A write near `from` that is a record, and that no write up to `to` overwrites. */
static uint64_t lasting_record(uint64_t from, uint64_t to)
{
    for (uint64_t n = from; n > 0; n--) {
        struct pattern_write w = pattern_write_at(&spec, n);
        bool lasts = w.kind == PATTERN_RECORD;
        for (uint64_t later = n + 1; lasts && later <= to; later++) {
            struct pattern_write x = pattern_write_at(&spec, later);
            lasts = x.disk != w.disk || w.block < x.block || w.block >= x.block + x.block_count;
        }
        if (lasts)
            return n;
    }
    fail();
    return 0;
}

static void test_every_instant_is_good(void **state)
{
    struct guest_files *g = *state;
    for (uint64_t s = 0; s < 300; s++) {
        advance(g, s);
        expect_good(g, s);
    }
    advance(g, 20000); /* every block overwritten many times */
    expect_good(g, 20000);
}

static void test_bracket(void **state)
{
    struct guest_files *g = *state;
    uint64_t s = lasting_record(500, 500);
    advance(g, s);
    assert_true(judge(g, &(struct judge_opts){.after = s, .before = s}).good);
    assert_true(judge(g, &(struct judge_opts){.after = s - 5, .before = s + 5}).good);
    struct judge_verdict v = judge(g, &(struct judge_opts){.after = 0, .before = s - 1});
    assert_false(v.good); /* it holds a write of the future */
    assert_non_null(strstr(v.why, "not within"));
    v = judge(g, &(struct judge_opts){.after = s + 200, .before = s + 300});
    assert_false(v.good); /* an acknowledged write is missing at the end */
    assert_non_null(strstr(v.why, "not within"));
}

static void test_lost_write(void **state)
{
    struct guest_files *g = *state;
    uint64_t lost = lasting_record(400, 1000);
    for (uint64_t n = 1; n <= 1000; n++) {
        if (n != lost)
            do_write(g, n, DISKS);
    }
    expect_bad(g, "must hold write");
}

static void test_lost_zero_write(void **state)
{
    struct guest_files *g = *state;
    uint64_t lost = 0;
    for (uint64_t n = 1; n <= 1000; n++) {
        struct pattern_write w = pattern_write_at(&spec, n);
        if (w.kind == PATTERN_ZERO_GROUP && !lost && n > 700)
            lost = n;
        else
            do_write(g, n, DISKS);
    }
    assert_true(lost > 0);
    expect_bad(g, "must hold zeroes");
}

static void test_torn_image(void **state)
{
    struct guest_files *g = *state;
    advance(g, 900);
    /* A copier that read this block later than the rest. */
    do_write(g, 950, DISKS);
    assert_int_equal(pattern_write_at(&spec, 950).kind, PATTERN_RECORD);
    expect_bad(g, "as of write 950");
}

static void test_disks_of_two_instants(void **state)
{
    struct guest_files *g = *state;
    advance(g, 900);
    for (uint64_t n = 901; n <= 960; n++)
        do_write(g, n, 1);
    expect_bad(g, "disk-a");
    /* Each disk for itself is fine: only together they lie. */
    assert_true(judge(g, &(struct judge_opts){.images = {g->paths[0]}, .before = UINT64_MAX}).good);
    assert_true(
        judge(g, &(struct judge_opts){.images = {NULL, g->paths[1]}, .before = UINT64_MAX}).good);
}

static void test_subset_of_disks(void **state)
{
    struct guest_files *g = *state;
    advance(g, 777);
    struct judge_verdict v =
        judge(g, &(struct judge_opts){.images = {NULL, g->paths[1]}, .before = UINT64_MAX});
    assert_true(v.good);
    assert_in_range(777, v.s_min, v.s_max);
    v = judge(g, &(struct judge_opts){.images = {NULL, g->paths[1]}, .after = 777, .before = 777});
    assert_true(v.good);
    assert_int_equal(v.s, 777);
}

static void flip_bit(struct guest_files *g, size_t disk, uint64_t offset)
{
    unsigned char byte;
    assert_int_equal(pread(g->fds[disk], &byte, 1, (off_t)offset), 1);
    byte ^= 0x10;
    assert_int_equal(pwrite(g->fds[disk], &byte, 1, (off_t)offset), 1);
}

static void test_flipped_bit_in_record(void **state)
{
    struct guest_files *g = *state;
    advance(g, 600);
    struct pattern_write w = pattern_write_at(&spec, lasting_record(600, 600));
    flip_bit(g, w.disk, w.block * PATTERN_BLOCK + 3000);
    expect_bad(g, "neither a record");
}

static void test_flipped_bit_elsewhere(void **state)
{
    struct guest_files *g = *state;
    advance(g, 600);
    uint64_t hot, block = 0;
    while (pattern_find_hot(&spec, 0, block, &hot))
        block++;
    flip_bit(g, 0, block * PATTERN_BLOCK + 17);
    expect_bad(g, "which no write hits");
    flip_bit(g, 0, block * PATTERN_BLOCK + 17);
    expect_good(g, 600);
    flip_bit(g, 1, spec.disks[1].size_bytes - 1);
    expect_bad(g, "last 512 bytes");
}

static void test_record_of_another_guest_or_place(void **state)
{
    struct guest_files *g = *state;
    struct err err = ERR_INIT;
    advance(g, 600);
    struct pattern_spec other = spec;
    other.seed++;
    unsigned char block[PATTERN_BLOCK];
    struct pattern_write w = pattern_write_at(&spec, lasting_record(600, 600));
    pattern_record(&other, 600, block);
    assert_true(
        file_pwrite_full(g->fds[w.disk], block, sizeof block, w.block * PATTERN_BLOCK, &err));
    expect_bad(g, "neither a record");
    pattern_record(&spec, lasting_record(500, 600), block); /* a true record, one that moved */
    assert_true(
        file_pwrite_full(g->fds[w.disk], block, sizeof block, w.block * PATTERN_BLOCK, &err));
    expect_bad(g, "does not belong there");
}

static void test_zeroed_and_short_images(void **state)
{
    struct guest_files *g = *state;
    advance(g, 600);
    assert_int_equal(ftruncate(g->fds[0], 0), 0);
    assert_int_equal(ftruncate(g->fds[0], (off_t)spec.disks[0].size_bytes), 0);
    expect_bad(g, "disk-a");
    assert_int_equal(ftruncate(g->fds[0], (off_t)spec.disks[0].size_bytes - 512), 0);
    expect_bad(g, "bytes, not");
}

static void test_hot_blocks_are_numbered(void **state)
{
    (void)state;
    for (size_t d = 0; d < DISKS; d++) {
        uint64_t next = 0, hot;
        for (uint64_t b = 0; b < spec.disks[d].size_bytes / PATTERN_BLOCK; b++) {
            if (!pattern_find_hot(&spec, d, b, &hot))
                continue;
            assert_int_equal(hot, next++);
            assert_int_equal(pattern_hot_block(&spec, d, hot), b);
        }
        assert_int_equal(next, pattern_hot_count(&spec, d));
    }
}

static void test_share_of_zeroes(void **state)
{
    (void)state;
    struct pattern_spec one = spec, many = spec;
    one.zeroes = 1; /* as without a word about it */
    many.zeroes = 16;
    unsigned count[3] = {0};
    for (uint64_t n = 1; n <= 6400; n++) {
        struct pattern_write a = pattern_write_at(&spec, n), b = pattern_write_at(&one, n);
        assert_int_equal(a.kind, b.kind);
        assert_int_equal(a.block, b.block);
        count[pattern_write_at(&many, n).kind]++;
    }
    assert_in_range(count[PATTERN_ZERO_GROUP], 1400, 1800);
    assert_in_range(count[PATTERN_ZERO], 1400, 1800);
}

static void test_shared_content_is_shared(void **state)
{
    (void)state;
    /* Two guests, the same common seed: some of the other's chunks are found here. */
    static struct pattern_spec mine, other;
    mine = spec;
    mine.disks[0] = (struct pattern_disk){"disk-a", 256 * MIB, 90, 60, 1};
    other = mine;
    other.seed++;
    unsigned char a[PATTERN_BLOCK], b[PATTERN_BLOCK];
    unsigned same = 0;
    for (uint64_t i = 0; i < 64 && same == 0; i++) {
        if (!pattern_initial(&mine, 0, i * 64 + 5, a))
            continue;
        for (uint64_t k = 0; k < 1024 && same == 0; k++)
            same += pattern_initial(&other, 0, k * 64 + 5, b) && memcmp(a, b, sizeof a) == 0;
    }
    assert_true(same > 0);
}

static void test_spec_round_trip(void **state)
{
    struct guest_files *g = *state;
    SCOPED_FREE char *path = xasprintf("%s/spec.json", g->dir);
    struct pattern_spec back;
    struct err err = ERR_INIT;
    struct pattern_spec with_zeroes = spec;
    with_zeroes.zeroes = PATTERN_ZEROES_MAX;
    assert_true(pattern_spec_save(&with_zeroes, path, &err));
    assert_true(pattern_spec_load(path, &back, &err));
    assert_memory_equal(&back, &with_zeroes, sizeof spec);
    assert_true(pattern_spec_save(&spec, path, &err));
    assert_true(pattern_spec_load(path, &back, &err));
    assert_memory_equal(&back, &spec, sizeof spec);
    static const char twice[] =
        "{\"vm\":\"a\",\"seed\":1,\"disks\":[{\"id\":\"x\",\"size_bytes\":1048576},"
        "{\"id\":\"x\",\"size_bytes\":1048576}]}";
    static const char *const bad[] = {
        "",
        "[]",
        "{\"vm\":\"a\",\"seed\":1,\"disks\":[]}",
        "{\"vm\":\"a\",\"seed\":1,\"zeroes\":32,\"disks\":[{\"id\":\"x\",\"size_bytes\":1048576}]}",
        "{\"vm\":\"a\",\"seed\":1,\"zeroes\":-1,\"disks\":[{\"id\":\"x\",\"size_bytes\":1048576}]}",
        "{\"vm\":\"a\",\"seed\":-1,\"disks\":[{\"id\":\"x\",\"size_bytes\":1048576}]}",
        "{\"vm\":\"a\",\"seed\":1,\"disks\":[{\"id\":\"x\",\"size_bytes\":1}]}",
        "{\"vm\":\"a\",\"seed\":1,\"disks\":[{\"id\":\"x\",\"size_bytes\":1048576,\"odd\":1}]}",
        "{\"vm\":\"a\",\"seed\":1,\"disks\":[{\"id\":\"x\",\"size_bytes\":1048576,\"hot_mib\":0}]}",
        twice};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        err_clear(&err);
        assert_true(file_write_atomic(AT_FDCWD, path, bad[i], strlen(bad[i]), 0644, &err));
        assert_false(pattern_spec_load(path, &back, &err));
        assert_int_equal(err.code, ERR_BAD_ARGUMENT);
    }
    (void)unlink(path);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_every_instant_is_good),
        TEST(test_bracket),
        TEST(test_lost_write),
        TEST(test_lost_zero_write),
        TEST(test_torn_image),
        TEST(test_disks_of_two_instants),
        TEST(test_subset_of_disks),
        TEST(test_flipped_bit_in_record),
        TEST(test_flipped_bit_elsewhere),
        TEST(test_record_of_another_guest_or_place),
        TEST(test_zeroed_and_short_images),
        cmocka_unit_test(test_hot_blocks_are_numbered),
        cmocka_unit_test(test_share_of_zeroes),
        cmocka_unit_test(test_shared_content_is_shared),
        TEST(test_spec_round_trip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
