/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Instants that are easy to misjudge: the highest numbers have left no trace, because a later write
 * of zeroes hit their place. They are one in a thousand or so, hence looked for here, and each must
 * pass; and next to each there are lies, of a zero write that was torn or lost, which must not.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "proto/base/alloc.h"
#include "proto/base/file.h"
#include "tests/sandbox/guest/judge.h"

enum { MIB = 1 << 20, DISKS = 2 };

static const struct pattern_spec small = {
    .vm = "web1",
    .seed = 4711,
    .common_seed = 1,
    .disk_count = DISKS,
    .disks = {{"disk-a", MIB, 50, 60, 1}, {"disk-b", MIB, 5, 0, 1}},
};

/* A guest of the kill matrix, and what the judge once said about its instant 1784: "as of write
 * 1782, disk-a block 32 must hold write 912, but holds zeroes; ...", of 12 blocks. Write 1783 is a
 * record in block 37 of the disk, write 1784 zeroes 32 to 47. */
static const struct pattern_spec matrix = {
    .vm = "c02v2",
    .seed = 1039,
    .common_seed = 1,
    .disk_count = DISKS,
    .disks = {{"disk-a", 16 * MIB, 40, 20, 2}, {"disk-b", 8 * MIB, 40, 0, 1}},
};
enum { MATRIX_INSTANT = 1784 };

/* The disks in files, which are moved to any instant and then spoilt. */
struct guest {
    const struct pattern_spec *spec;
    char dir[64];
    char *paths[DISKS];
    int fds[DISKS];
    uint64_t n;
};

static void put(struct guest *g, size_t disk, uint64_t block, const void *bytes, size_t len)
{
    struct err err = ERR_INIT;
    assert_true(file_pwrite_full(g->fds[disk], bytes, len, block * PATTERN_BLOCK, &err));
}

static void begin(struct guest *g, const struct pattern_spec *spec)
{
    unsigned char block[PATTERN_BLOCK];
    *g = (struct guest){.spec = spec};
    snprintf(g->dir, sizeof g->dir, "/tmp/instants-test-XXXXXX");
    assert_non_null(mkdtemp(g->dir));
    for (size_t i = 0; i < DISKS; i++) {
        g->paths[i] = xasprintf("%s/%s.raw", g->dir, spec->disks[i].id);
        g->fds[i] = open(g->paths[i], O_RDWR | O_CREAT | O_CLOEXEC, 0644);
        assert_int_equal(ftruncate(g->fds[i], (off_t)spec->disks[i].size_bytes), 0);
        for (uint64_t b = 0; b < spec->disks[i].size_bytes / PATTERN_BLOCK; b++) {
            if (pattern_initial(spec, i, b, block))
                put(g, i, b, block, sizeof block);
        }
    }
}

static void end(struct guest *g)
{
    for (size_t i = 0; i < DISKS; i++) {
        (void)close(g->fds[i]);
        (void)unlink(g->paths[i]);
        free(g->paths[i]);
    }
    (void)rmdir(g->dir);
}

static void advance(struct guest *g, uint64_t to)
{
    unsigned char bytes[PATTERN_GROUP_BLOCKS * PATTERN_BLOCK];
    while (g->n < to) {
        struct pattern_write w = pattern_write_at(g->spec, ++g->n);
        memset(bytes, 0, sizeof bytes);
        if (w.kind == PATTERN_RECORD)
            pattern_record(g->spec, g->n, bytes);
        put(g, w.disk, w.block, bytes, w.block_count * PATTERN_BLOCK);
    }
}

static struct judge_verdict judge(const struct guest *g, uint64_t after, uint64_t before)
{
    const struct judge_opts opts = {
        .spec = g->spec, .images = {g->paths[0], g->paths[1]}, .after = after, .before = before};
    struct judge_verdict v;
    struct err err = ERR_INIT;
    if (!judge_images(&opts, &v, &err))
        fail_msg("%s", err.message);
    return v;
}

static void expect_good(const struct guest *g, uint64_t after, uint64_t before)
{
    struct judge_verdict v = judge(g, after, before);
    if (!v.good)
        fail_msg("instant %" PRIu64 " by %" PRIu64 "..%" PRIu64 ": %s", g->n, after, before, v.why);
    assert_in_range(g->n, v.s_min, v.s_max);
    assert_in_range(v.s, after, before);
}

static bool covers(const struct pattern_write *w, size_t disk, uint64_t block)
{
    return w->disk == disk && block >= w->block && block < w->block + w->block_count;
}

/* Whether instant s shows no record of write s - 1, nor anything of write s but zeroes. */
static bool hides_a_record(const struct pattern_spec *spec, uint64_t s)
{
    struct pattern_write zero = pattern_write_at(spec, s), hidden = pattern_write_at(spec, s - 1);
    return zero.kind != PATTERN_RECORD && hidden.kind == PATTERN_RECORD &&
           covers(&zero, hidden.disk, hidden.block);
}

static void test_the_instant_of_the_matrix(void **state)
{
    (void)state;
    struct guest g;
    assert_true(hides_a_record(&matrix, MATRIX_INSTANT));
    begin(&g, &matrix);
    advance(&g, MATRIX_INSTANT);
    expect_good(&g, MATRIX_INSTANT, MATRIX_INSTANT);
    expect_good(&g, MATRIX_INSTANT - 3, MATRIX_INSTANT + 3);
    expect_good(&g, 0, UINT64_MAX);
    end(&g);
}

/* The bytes of a write's blocks, as they are now. */
static void take(const struct guest *g, const struct pattern_write *w, unsigned char *out)
{
    struct err err = ERR_INIT;
    assert_true(file_pread_full(g->fds[w->disk], out, w->block_count * PATTERN_BLOCK,
                                w->block * PATTERN_BLOCK, &err));
}

static bool is_zero(const unsigned char *block)
{
    static const unsigned char zeroes[PATTERN_BLOCK];
    return memcmp(block, zeroes, PATTERN_BLOCK) == 0;
}

/* With the guest at instant s - 1 and write s of zeroes to come: every way of doing part of it, one
 * block left out or one alone done, is a lie where there was something to zero. */
static unsigned expect_torn_is_bad(struct guest *g, uint64_t s)
{
    unsigned char old[PATTERN_GROUP_BLOCKS * PATTERN_BLOCK];
    unsigned char zeroes[PATTERN_GROUP_BLOCKS * PATTERN_BLOCK] = {0};
    struct pattern_write w = pattern_write_at(g->spec, s);
    unsigned full = 0, lies = 0;
    take(g, &w, old);
    for (uint64_t i = 0; i < w.block_count; i++)
        full += !is_zero(old + i * PATTERN_BLOCK);
    for (uint64_t i = 0; full > 1 && i < w.block_count; i++) {
        if (is_zero(old + i * PATTERN_BLOCK))
            continue;
        put(g, w.disk, w.block, zeroes, w.block_count * PATTERN_BLOCK);
        put(g, w.disk, w.block + i, old + i * PATTERN_BLOCK, PATTERN_BLOCK);
        struct judge_verdict v = judge(g, s - 1, s);
        assert_false(v.good);
        put(g, w.disk, w.block, old, w.block_count * PATTERN_BLOCK);
        put(g, w.disk, w.block + i, zeroes, PATTERN_BLOCK);
        v = judge(g, s - 1, s);
        assert_false(v.good);
        lies += 2;
    }
    put(g, w.disk, w.block, old, w.block_count * PATTERN_BLOCK);
    return lies;
}

static void test_records_under_zeroes(void **state)
{
    (void)state;
    struct guest g;
    unsigned found = 0, lies = 0;
    begin(&g, &small);
    for (uint64_t s = 2; found < 30; s++) {
        if (!hides_a_record(&small, s))
            continue;
        advance(&g, s - 1);
        expect_good(&g, s - 1, s - 1);
        if (found < 5)
            lies += expect_torn_is_bad(&g, s);
        advance(&g, s);
        expect_good(&g, s, s);
        expect_good(&g, 0, UINT64_MAX);
        /* Neither the write before nor the one after, if that leaves a trace. */
        assert_false(judge(&g, s - 1, s - 1).good);
        if (pattern_write_at(&small, s + 1).kind == PATTERN_RECORD)
            assert_false(judge(&g, s + 1, s + 1).good);
        found++;
    }
    assert_true(lies > 50);
    end(&g);
}

static void expect_every_instant(const struct pattern_spec *spec)
{
    struct guest g;
    begin(&g, spec);
    for (uint64_t s = 0; s < 1000; s++) {
        advance(&g, s);
        expect_good(&g, s, s);
    }
    end(&g);
}

static void test_every_instant(void **state)
{
    (void)state;
    struct pattern_spec zeroing = small;
    expect_every_instant(&small);
    zeroing.zeroes = PATTERN_ZEROES_MAX; /* several records in a row under them, and zeroes there */
    expect_every_instant(&zeroing);
}

/* A record that is missing although nothing has hit its place is missed, whatever zeroes are
 * written elsewhere right after it. */
static void test_a_record_that_is_lost_beside_zeroes(void **state)
{
    (void)state;
    struct guest g;
    unsigned char old[PATTERN_BLOCK];
    struct pattern_write lost, zero, last;
    uint64_t s = 1000;
    do {
        lost = pattern_write_at(&small, ++s);
        zero = pattern_write_at(&small, s + 1);
        last = pattern_write_at(&small, s + 2);
    } while (lost.kind != PATTERN_RECORD || zero.kind == PATTERN_RECORD ||
             last.kind != PATTERN_RECORD || covers(&zero, lost.disk, lost.block) ||
             covers(&last, lost.disk, lost.block));
    begin(&g, &small);
    advance(&g, s - 1);
    take(&g, &lost, old);
    for (uint64_t at = s + 1; at <= s + 2; at++) {
        advance(&g, at);
        expect_good(&g, at, at);
        unsigned char record[PATTERN_BLOCK];
        take(&g, &lost, record);
        put(&g, lost.disk, lost.block, old, sizeof old);
        struct judge_verdict v = judge(&g, s - 1, s + 2);
        assert_false(v.good);
        assert_int_equal(v.wrong_blocks, 1);
        SCOPED_FREE char *text = xasprintf("must hold write %" PRIu64 ", but holds", s);
        assert_true(at == s + 1 || strstr(v.why, text));
        put(&g, lost.disk, lost.block, record, sizeof record);
    }
    end(&g);
}

static void expect_reason(const struct guest *g, uint64_t before, const char *reason)
{
    struct judge_verdict v = judge(g, 0, before);
    assert_false(v.good);
    if (!strstr(v.why, reason))
        fail_msg("'%s' not in: %s", reason, v.why);
}

static void test_the_reason_names_writes_and_blocks(void **state)
{
    (void)state;
    struct guest g;
    const unsigned char zeroes[PATTERN_GROUP_BLOCKS * PATTERN_BLOCK] = {0};
    begin(&g, &matrix);
    advance(&g, 1700);
    put(&g, 0, 32, zeroes, sizeof zeroes); /* 84 writes too early */
    expect_reason(&g, UINT64_MAX,
                  "as of write 1700, disk disk-a block 32 must hold write 912, but holds zeroes "
                  "(written by 487, next by 1784)");
    expect_reason(&g, UINT64_MAX, "in all 12 blocks of disk disk-a, from 32 to 47");
    advance(&g, MATRIX_INSTANT);
    expect_good(&g, 0, MATRIX_INSTANT);
    expect_reason(&g, MATRIX_INSTANT - 1, "instant 1784..1784, not within 0..1783");
    put(&g, 0, 48, zeroes, PATTERN_BLOCK);
    struct judge_verdict v = judge(&g, 0, UINT64_MAX);
    assert_false(v.good);
    assert_int_equal(v.highest, MATRIX_INSTANT - 2);
    assert_int_equal(v.nearest, MATRIX_INSTANT);
    assert_int_equal(v.wrong_blocks, 1);
    end(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_instant_of_the_matrix),
        cmocka_unit_test(test_records_under_zeroes),
        cmocka_unit_test(test_every_instant),
        cmocka_unit_test(test_a_record_that_is_lost_beside_zeroes),
        cmocka_unit_test(test_the_reason_names_writes_and_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
