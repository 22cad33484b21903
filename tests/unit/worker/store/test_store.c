/* SPDX-License-Identifier: Apache-2.0 */
/* The repository as its users see it: round trips, deduplication, incremental points, refusals. */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/base/file.h"
#include "tests/unit/worker/store/support.h"

enum { MIB = 1 << 20, BLOCK = STORE_BLOCK_BYTES };

struct fixture {
    char *dir;
    char *path;
    struct store *store;
    struct err err;
};

static int setup(void **state)
{
    struct fixture *f = ALLOC_NEW(struct fixture);
    f->dir = temp_dir();
    f->path = xasprintf("%s/repo", f->dir);
    /* Small packs, so that a few MiB make several. */
    f->store = store_init(f->path, &(struct store_opts){.pack_bytes = MIB}, &f->err);
    MUST(f->store, &f->err);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    store_free(f->store);
    remove_tree(f->dir);
    free(f->dir);
    free(f->path);
    free(f);
    return 0;
}

/* ---- round trips */

static void round_trip(struct fixture *f, const char *id, uint8_t *data, size_t size)
{
    struct disk_image image = {.id = "disk-1", .data = data, .size = size};
    MUST(backup_image(f->store, id, &image, NULL, NULL, &f->err), &f->err);
    MUST(check_image(f->store, id, &image, &f->err), &f->err);
    MUST(store_verify_point(f->store, id, NULL, NULL, &f->err), &f->err);
}

static void test_round_trip_sizes(void **state)
{
    struct fixture *f = *state;
    const size_t sizes[] = {
        0,      1,      511,    4095, 4096,     4097,        8191,           65536,
        262143, 262144, 262145, MIB,  MIB + 12, 3 * MIB - 1, 5 * MIB + 4097, 9 * MIB + 513};
    uint8_t *data = xmalloc(10 * MIB);
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        char id[32];
        (void)snprintf(id, sizeof id, "size-%zu.1", i);
        (i % 2 ? fill_random : fill_text)(data, sizes[i], 100 + i);
        round_trip(f, id, data, sizes[i]);
    }
    free(data);
}

static void test_round_trip_sparse(void **state)
{
    struct fixture *f = *state;
    const size_t size = 24 * MIB + 100;
    uint8_t *data = xcalloc(1, size);
    uint64_t seed = 7;
    for (size_t at = 0; at < size;) { /* runs of data and of zeroes, of any length and alignment */
        size_t len = random_next(&seed) % 300000;
        len = size - at < len ? size - at : len;
        if (random_next(&seed) % 3 == 0)
            fill_text(data + at, len, seed);
        at += len;
    }
    round_trip(f, "sparse.1", data, size);
    free(data);
}

static void test_zero_blocks_are_not_stored(void **state)
{
    struct fixture *f = *state;
    struct disk_image image = {.id = "d", .data = xcalloc(1, 16 * MIB), .size = 16 * MIB};
    struct store_stats stats;
    MUST(backup_image(f->store, "zero.1", &image, NULL, &stats, &f->err), &f->err);
    assert_int_equal(stats.zero_bytes, 16 * MIB);
    assert_int_equal(stats.stored_bytes, 0);
    assert_int_equal(count_files(f->path, "packs/"), 0);
    image.data[5 * MIB] = 1;
    MUST(backup_image(f->store, "zero.2", &image, NULL, &stats, &f->err), &f->err);
    assert_int_equal(stats.stored_raw_bytes, BLOCK);
    assert_int_equal(stats.zero_bytes, 16 * MIB - BLOCK);
    MUST(check_image(f->store, "zero.2", &image, &f->err), &f->err);
    free(image.data);
}

static void test_extents(void **state)
{
    struct fixture *f = *state;
    struct disk_image image = {.id = "d", .data = xcalloc(1, 8 * MIB), .size = 8 * MIB};
    fill_random(image.data + MIB, 2 * MIB, 1);
    fill_random(image.data + 7 * MIB, 10, 2);
    MUST(backup_image(f->store, "extents.1", &image, NULL, NULL, &f->err), &f->err);
    struct store_point *point = store_point_open(f->store, "extents", &f->err);
    MUST(point, &f->err);
    struct store_reader *reader = store_disk_open(point, "d", &f->err);
    MUST(reader, &f->err);
    store_point_free(point); /* a reader may outlive it */

    struct extents map = EXTENTS_INIT;
    MUST(store_disk_extents(reader, 0, 8 * MIB, &map, &f->err), &f->err);
    const struct extent want[] = {{0, MIB, false},
                                  {MIB, 2 * MIB, true},
                                  {3 * MIB, 4 * MIB, false},
                                  {7 * MIB, BLOCK, true},
                                  {7 * MIB + BLOCK, MIB - BLOCK, false}};
    assert_int_equal(map.count, ARRAY_LEN(want));
    for (size_t i = 0; i < map.count; i++) {
        assert_int_equal(map.items[i].offset, want[i].offset);
        assert_int_equal(map.items[i].len, want[i].len);
        assert_int_equal(map.items[i].is_data, want[i].is_data);
    }
    /* Cut to any range, aligned or not. */
    extents_reset(&map);
    MUST(store_disk_extents(reader, MIB - 1, 3, &map, &f->err), &f->err);
    assert_int_equal(map.count, 2);
    assert_int_equal(map.items[0].len, 1);
    assert_int_equal(map.items[1].len, 2);
    assert_true(map.items[1].is_data);
    extents_reset(&map);
    MUST(store_disk_extents(reader, 4 * MIB, 0, &map, &f->err), &f->err);
    assert_int_equal(map.count, 0);
    MUST_FAIL(store_disk_extents(reader, 8 * MIB, 1, &map, &f->err), &f->err, ERR_BAD_ARGUMENT);
    uint8_t byte;
    MUST_FAIL(store_disk_read(reader, &byte, 1, 8 * MIB, &f->err), &f->err, ERR_BAD_ARGUMENT);
    MUST_FAIL(store_disk_read(reader, &byte, 1, UINT64_MAX, &f->err), &f->err, ERR_BAD_ARGUMENT);
    MUST(store_disk_read(reader, &byte, 0, 8 * MIB, &f->err), &f->err);
    extents_done(&map);
    store_reader_free(reader);
    free(image.data);
}

static void test_huge_sparse_disk(void **state)
{
    struct fixture *f = *state;
    const uint64_t size = UINT64_C(64) << 40, last = size - BLOCK;
    uint8_t block[BLOCK];
    struct store_session_opts opts = session_opts("huge.1");
    SCOPED(store_session) struct store_session *s = store_session_begin(f->store, &opts, &f->err);
    MUST(s, &f->err);
    struct store_disk *disk =
        store_disk_begin(s, &(struct store_disk_opts){.id = "d", .size_bytes = size}, &f->err);
    MUST(disk, &f->err);
    struct store_stream *stream = store_stream_begin(s, &f->err);
    const uint64_t offsets[] = {last, 0, UINT64_C(40) << 40, UINT64_C(17) << 40};
    for (size_t i = 0; i < ARRAY_LEN(offsets); i++) {
        fill_random(block, BLOCK, offsets[i]);
        MUST(store_stream_write(stream, disk, offsets[i], block, BLOCK, &f->err), &f->err);
    }
    store_stream_end(stream);
    MUST(store_disk_finish(disk, NULL, &f->err), &f->err);
    MUST(store_session_commit(s, NULL, &f->err), &f->err);

    SCOPED(store_point) struct store_point *point = store_point_open(f->store, "huge", &f->err);
    MUST(point, &f->err);
    SCOPED(store_reader) struct store_reader *r = store_disk_open(point, "d", &f->err);
    MUST(r, &f->err);
    for (size_t i = 0; i < ARRAY_LEN(offsets); i++) {
        uint8_t got[BLOCK];
        fill_random(block, BLOCK, offsets[i]);
        MUST(store_disk_read(r, got, BLOCK, offsets[i], &f->err), &f->err);
        assert_memory_equal(got, block, BLOCK);
    }
    struct extents map = EXTENTS_INIT;
    MUST(store_disk_extents(r, 0, size, &map, &f->err), &f->err);
    assert_int_equal(map.count, 7);
    extents_done(&map);
    struct store_verify_result result;
    MUST(store_verify_point(f->store, "huge", NULL, &result, &f->err), &f->err);
    assert_int_equal(result.checked_bytes, ARRAY_LEN(offsets) * BLOCK); /* its one frame, once */
}

/* ---- deduplication */

static void test_second_backup_stores_nothing(void **state)
{
    struct fixture *f = *state;
    struct disk_image image = {.id = "d", .data = xmalloc(20 * MIB), .size = 20 * MIB};
    fill_text(image.data, image.size, 11);
    struct store_stats stats;
    MUST(backup_image(f->store, "first.1", &image, NULL, &stats, &f->err), &f->err);
    assert_in_range(stats.stored_bytes, image.size / 4, image.size);
    MUST(backup_image(f->store, "second.1", &image, NULL, &stats, &f->err), &f->err);
    assert_int_equal(stats.stored_raw_bytes, 0);
    assert_int_equal(stats.dedup_bytes, image.size);

    /* The same from a process that knows the indexes only. Sampled: it may miss a little. */
    store_free(f->store);
    f->store = store_open(f->path, &(struct store_opts){.pack_bytes = MIB}, &f->err);
    MUST(f->store, &f->err);
    image.id = "another-disk";
    MUST(backup_image(f->store, "third.1", &image, NULL, &stats, &f->err), &f->err);
    assert_true(stats.stored_raw_bytes <= image.size / 50);
    MUST(check_image(f->store, "third.1", &image, &f->err), &f->err);
    free(image.data);
}

static void test_dedup_within_a_session(void **state)
{
    struct fixture *f = *state;
    struct disk_image a = {.id = "a", .data = xmalloc(12 * MIB), .size = 12 * MIB};
    fill_text(a.data, 4 * MIB, 5);
    memcpy(a.data + 4 * MIB, a.data, 4 * MIB);
    memcpy(a.data + 8 * MIB, a.data, 4 * MIB);
    struct disk_image b = {.id = "b", .data = a.data, .size = 4 * MIB};
    struct store_session_opts opts = session_opts("within.1");
    struct store_session *s = store_session_begin(f->store, &opts, &f->err);
    MUST(s, &f->err);
    struct store_stats stats;
    MUST(write_image(s, &a, 0, NULL, &stats, &f->err), &f->err);
    /* The chunk over the seam of the copies is there once more. */
    assert_in_range(stats.stored_raw_bytes, 4 * MIB, 4 * MIB + 64 * BLOCK);
    assert_int_equal(stats.stored_raw_bytes + stats.dedup_bytes, 12 * MIB);
    MUST(write_image(s, &b, 0, NULL, &stats, &f->err), &f->err);
    assert_in_range(stats.stored_raw_bytes, 0, 64 * BLOCK); /* its end cuts the last chunk */
    MUST(store_session_commit(s, NULL, &f->err), &f->err);
    store_session_free(s);
    MUST(check_image(f->store, "within.1", &a, &f->err), &f->err);
    MUST(check_image(f->store, "within.1", &b, &f->err), &f->err);
    free(a.data);
}

static void test_uncommitted_chunks_are_not_used(void **state)
{
    struct fixture *f = *state;
    struct disk_image image = {.id = "d", .data = xmalloc(4 * MIB), .size = 4 * MIB};
    fill_text(image.data, image.size, 21);
    struct store_session_opts opts = session_opts("open.1");
    struct store_session *open_one = store_session_begin(f->store, &opts, &f->err);
    MUST(open_one, &f->err);
    MUST(write_image(open_one, &image, 0, NULL, NULL, &f->err), &f->err);
    struct store_stats stats;
    MUST(backup_image(f->store, "other.1", &image, NULL, &stats, &f->err), &f->err);
    assert_int_equal(stats.dedup_bytes, 0);
    store_session_free(open_one); /* aborted: its packs go */
    MUST(backup_image(f->store, "after.1", &image, NULL, &stats, &f->err), &f->err);
    assert_int_equal(stats.stored_raw_bytes, 0);
    MUST(check_image(f->store, "other.1", &image, &f->err), &f->err);
    MUST(check_image(f->store, "after.1", &image, &f->err), &f->err);
    free(image.data);
}

/* How data is cut does not depend on the sizes of writes, nor on where a disk's other writes are:
 * chunks cross from one call to the next. Odd sizes, and a disk that ends within a block. */
static void test_chunks_cross_calls(void **state)
{
    struct fixture *f = *state;
    const size_t size = 6 * MIB + 100, steps[] = {3 * BLOCK, BLOCK, 100 * BLOCK, 7 * MIB};
    struct disk_image image = {.id = "d", .data = xmalloc(size), .size = size};
    fill_text(image.data, size, 32);
    memset(image.data + MIB + 5 * BLOCK, 0, 40 * BLOCK);
    struct store_stats stats;
    MUST(backup_image(f->store, "steps.0", &image, NULL, NULL, &f->err), &f->err);
    for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
        char id[32];
        (void)snprintf(id, sizeof id, "steps.%zu", i + 1);
        struct store_session_opts opts = session_opts(id);
        struct store_session *s = store_session_begin(f->store, &opts, &f->err);
        MUST(s, &f->err);
        MUST(write_image(s, &image, steps[i], NULL, &stats, &f->err), &f->err);
        assert_int_equal(stats.stored_raw_bytes, 0);
        assert_int_equal(stats.zero_bytes, 40 * BLOCK);
        assert_int_equal(stats.dedup_bytes, size - 100 + BLOCK - 40 * BLOCK);
        MUST(store_session_commit(s, NULL, &f->err), &f->err);
        store_session_free(s);
        MUST(check_image(f->store, id, &image, &f->err), &f->err);
    }
    free(image.data);
}

/* A chunk that waits for its end belongs to its disk and its place, wherever the stream goes on. */
static void test_stream_goes_elsewhere(void **state)
{
    struct fixture *f = *state;
    struct disk_image a = {.id = "a", .data = xcalloc(1, 2 * MIB), .size = 2 * MIB};
    struct disk_image b = {.id = "b", .data = xcalloc(1, 2 * MIB), .size = 2 * MIB};
    struct store_session_opts opts = session_opts("jumps.1");
    struct store_session *s = store_session_begin(f->store, &opts, &f->err);
    MUST(s, &f->err);
    struct store_disk_opts da = {.id = "a", .size_bytes = a.size};
    struct store_disk_opts db = {.id = "b", .size_bytes = b.size};
    struct store_disk *disk_a = store_disk_begin(s, &da, &f->err);
    struct store_disk *disk_b = store_disk_begin(s, &db, &f->err);
    struct store_stream *stream = store_stream_begin(s, &f->err);
    MUST(disk_a && disk_b && stream, &f->err);
    for (size_t i = 0; i < 60; i++) { /* backwards, and both disks in turn */
        struct disk_image *image = i % 2 ? &b : &a;
        size_t at = (59 - i) * 8 * BLOCK, len = (1 + i % 8) * BLOCK;
        fill_random(image->data + at, len, i + 1);
        MUST(
            store_stream_write(stream, i % 2 ? disk_b : disk_a, at, image->data + at, len, &f->err),
            &f->err);
    }
    struct store_stats stats_a, stats_b;
    MUST(store_disk_finish(disk_a, &stats_a, &f->err), &f->err); /* the last write was to b */
    store_stream_end(stream);
    MUST(store_disk_finish(disk_b, &stats_b, &f->err), &f->err);
    assert_int_equal(stats_a.stored_raw_bytes + stats_b.stored_raw_bytes,
                     stats_a.read_bytes + stats_b.read_bytes);
    MUST(store_session_commit(s, NULL, &f->err), &f->err);
    store_session_free(s);
    MUST(check_image(f->store, "jumps.1", &a, &f->err), &f->err);
    MUST(check_image(f->store, "jumps.1", &b, &f->err), &f->err);
    free(a.data);
    free(b.data);
}

static void test_finish_before_the_stream_ends_is_refused(void **state)
{
    struct fixture *f = *state;
    uint8_t data[3 * BLOCK];
    fill_random(data, sizeof data, 83); /* in which no chunk ends */
    struct store_session_opts opts = session_opts("early.1");
    struct store_session *s = store_session_begin(f->store, &opts, &f->err);
    struct store_disk *disk = store_disk_begin(
        s, &(struct store_disk_opts){.id = "d", .size_bytes = sizeof data}, &f->err);
    MUST(disk, &f->err);
    struct store_stream *stream = store_stream_begin(s, &f->err);
    MUST(store_stream_write(stream, disk, 0, data, sizeof data, &f->err), &f->err);
    MUST_FAIL(store_disk_finish(disk, NULL, &f->err), &f->err, ERR_BAD_ARGUMENT);
    store_stream_end(stream);
    MUST_FAIL(store_session_commit(s, NULL, &f->err), &f->err, ERR_BAD_ARGUMENT);
    store_session_free(s);
}

/* Data shifted by whole blocks is found again: chunks are cut by content. */
static void test_dedup_survives_a_shift(void **state)
{
    struct fixture *f = *state;
    const size_t size = 16 * MIB;
    struct disk_image image = {.id = "d", .data = xmalloc(size), .size = size};
    fill_text(image.data, size, 31);
    MUST(backup_image(f->store, "plain.1", &image, NULL, NULL, &f->err), &f->err);
    memmove(image.data + 5 * BLOCK, image.data, size - 5 * BLOCK);
    fill_text(image.data, 5 * BLOCK, 99);
    struct store_stats stats;
    MUST(backup_image(f->store, "shifted.1", &image, NULL, &stats, &f->err), &f->err);
    assert_true(stats.stored_raw_bytes <=
                5 * BLOCK + 2 * 64 * BLOCK); /* the first, the last chunk */
    MUST(check_image(f->store, "shifted.1", &image, &f->err), &f->err);
    free(image.data);
}

/* ---- a parent */

static struct store_reader *open_reader(struct fixture *f, const char *id, const char *disk)
{
    struct store_point *point = store_point_open(f->store, id, &f->err);
    MUST(point, &f->err);
    struct store_reader *reader = store_disk_open(point, disk, &f->err);
    MUST(reader, &f->err);
    store_point_free(point);
    return reader;
}

static void test_parent_stores_changed_blocks_only(void **state)
{
    struct fixture *f = *state;
    const size_t size = 16 * MIB;
    struct disk_image image = {.id = "d", .data = xmalloc(size + MIB), .size = size};
    fill_text(image.data, size + MIB, 41);
    memset(image.data + 3 * MIB, 0, MIB);
    MUST(backup_image(f->store, "day.1", &image, NULL, NULL, &f->err), &f->err);
    uint64_t seed = 3;
    for (int i = 0; i < 60; i++) /* in 60 different blocks */
        image.data[(size_t)i * 64 * BLOCK + random_next(&seed) % BLOCK] ^= 0x55;
    memset(image.data + 9 * MIB, 0, 10 * BLOCK); /* and some freed */
    image.size = size + MIB;                     /* and the disk has grown */
    SCOPED(store_reader) struct store_reader *parent = open_reader(f, "day.1", "d");
    struct store_stats stats;
    MUST(backup_image(f->store, "day.2", &image, parent, &stats, &f->err), &f->err);
    assert_in_range(stats.stored_raw_bytes, 50 * BLOCK + MIB, 60 * BLOCK + MIB);
    assert_true(stats.unchanged_bytes > 14 * MIB);
    assert_int_equal(stats.read_bytes, stats.zero_bytes + stats.unchanged_bytes +
                                           stats.dedup_bytes + stats.stored_raw_bytes);
    MUST(check_image(f->store, "day.2", &image, &f->err), &f->err);
    MUST(store_verify_point(f->store, "day.2", NULL, NULL, &f->err), &f->err);
    free(image.data);
}

static void test_keep_takes_the_parent_unread(void **state)
{
    struct fixture *f = *state;
    const size_t size = 8 * MIB + 100;
    struct disk_image image = {.id = "d", .data = xmalloc(size), .size = size};
    fill_random(image.data, size, 51);
    memset(image.data + MIB, 0, 3 * BLOCK);
    MUST(backup_image(f->store, "base.1", &image, NULL, NULL, &f->err), &f->err);
    fill_random(image.data + 4 * MIB, 64 * BLOCK, 52); /* what "dirty" says */
    SCOPED(store_reader) struct store_reader *parent = open_reader(f, "base.1", "d");
    struct store_session_opts opts = session_opts("cbt.1");
    SCOPED(store_session) struct store_session *s = store_session_begin(f->store, &opts, &f->err);
    MUST(s, &f->err);
    struct store_disk *disk = store_disk_begin(
        s, &(struct store_disk_opts){.id = "d", .size_bytes = size, .parent = parent}, &f->err);
    MUST(disk, &f->err);
    struct store_stream *stream = store_stream_begin(s, &f->err);
    const uint64_t dirty = 4 * MIB, end = dirty + 64 * BLOCK;
    MUST(store_stream_keep(stream, disk, 0, dirty, NULL, &f->err), &f->err);
    MUST(store_stream_write(stream, disk, dirty, image.data + dirty, 64 * BLOCK, &f->err), &f->err);
    MUST(store_stream_keep(stream, disk, end, size - end, NULL, &f->err), &f->err);
    store_stream_end(stream);
    struct store_stats stats;
    MUST(store_disk_finish(disk, &stats, &f->err), &f->err);
    assert_int_equal(stats.stored_raw_bytes, 64 * BLOCK);
    MUST(store_session_commit(s, NULL, &f->err), &f->err);
    MUST(check_image(f->store, "cbt.1", &image, &f->err), &f->err);
    free(image.data);
}

/* ---- points */

static void test_points_list_and_open(void **state)
{
    struct fixture *f = *state;
    uint8_t block[BLOCK];
    fill_text(block, sizeof block, 1);
    struct disk_image image = {.id = "d", .data = block, .size = sizeof block};
    MUST(backup_image(f->store, "aaaa1111.1", &image, NULL, NULL, &f->err), &f->err);
    MUST(backup_image(f->store, "aaaa2222.1", &image, NULL, NULL, &f->err), &f->err);
    struct store_session_opts opts = {.id = "bbbb.10", .vm_id = "vm-2", .vm_name = "db \xc3\xbc"};
    struct store_session *s = store_session_begin(f->store, &opts, &f->err);
    MUST(s, &f->err);
    MUST(write_image(s, &image, 0, NULL, NULL, &f->err), &f->err);
    json_t *meta = json_pack("{s:s, s:[s]}", "engine", "https://e/", "warnings", "w");
    MUST(store_session_commit(s, meta, &f->err), &f->err);
    store_session_free(s);
    json_decref(meta);
    s = store_session_begin(
        f->store, &(struct store_session_opts){.id = "cccc.1", .vm_id = "v", .vm_name = "n"},
        &f->err);
    MUST(s, &f->err); /* open: not a point */

    struct store_point_list list;
    MUST(store_points_list(f->store, NULL, &list, &f->err), &f->err);
    assert_int_equal(list.count, 3);
    store_point_list_done(&list);
    struct store_point_filter filter = {.vm_name = "db \xc3\xbc"};
    MUST(store_points_list(f->store, &filter, &list, &f->err), &f->err);
    assert_int_equal(list.count, 1);
    assert_string_equal(list.items[0].id, "bbbb.10");
    assert_string_equal(list.items[0].vm_id, "vm-2");
    assert_int_equal(list.items[0].size_bytes, BLOCK);
    assert_null(list.items[0].damage);
    assert_true(list.items[0].created_ms > 0);
    store_point_list_done(&list);
    filter = (struct store_point_filter){.vm_id = "vm-1"};
    MUST(store_points_list(f->store, &filter, &list, &f->err), &f->err);
    assert_int_equal(list.count, 2);
    store_point_list_done(&list);

    MUST_FAIL(store_point_open(f->store, "aaaa", &f->err), &f->err, ERR_CONFLICT);
    MUST_FAIL(store_point_open(f->store, "zzzz", &f->err), &f->err, ERR_NOT_FOUND);
    MUST_FAIL(store_point_open(f->store, "cccc.1", &f->err), &f->err, ERR_NOT_FOUND);
    MUST_FAIL(store_point_open(f->store, "../fate/aaaa", &f->err), &f->err, ERR_BAD_ARGUMENT);
    MUST_FAIL(store_point_open(f->store, "", &f->err), &f->err, ERR_BAD_ARGUMENT);
    struct store_point *point = store_point_open(f->store, "bb", &f->err);
    MUST(point, &f->err);
    assert_string_equal(store_point_info(point)->vm_name, "db \xc3\xbc");
    assert_int_equal(store_point_disk_count(point), 1);
    assert_string_equal(store_point_disk(point, 0)->id, "d");
    assert_int_equal(store_point_disk(point, 0)->size_bytes, BLOCK);
    assert_null(store_point_disk(point, 1));
    const char *engine = json_string_value(json_object_get(store_point_meta(point), "engine"));
    assert_string_equal(engine, "https://e/");
    MUST_FAIL(store_disk_open(point, "nope", &f->err), &f->err, ERR_NOT_FOUND);
    store_point_free(point);
    store_session_free(s);
}

/* An exact id is found although it is a prefix of others. */
static void test_exact_id_beats_prefix(void **state)
{
    struct fixture *f = *state;
    uint8_t block[BLOCK] = {1};
    struct disk_image image = {.id = "d", .data = block, .size = sizeof block};
    MUST(backup_image(f->store, "task.1", &image, NULL, NULL, &f->err), &f->err);
    MUST(backup_image(f->store, "task.10", &image, NULL, NULL, &f->err), &f->err);
    struct store_point *point = store_point_open(f->store, "task.1", &f->err);
    MUST(point, &f->err);
    assert_string_equal(store_point_info(point)->id, "task.1");
    store_point_free(point);
}

static void test_deleted_points_are_gone(void **state)
{
    struct fixture *f = *state;
    uint8_t block[BLOCK] = {1};
    struct disk_image image = {.id = "d", .data = block, .size = sizeof block};
    MUST(backup_image(f->store, "gone.1", &image, NULL, NULL, &f->err), &f->err);
    SCOPED_FREE char *tombstone = xasprintf("%s/deleted/gone.1", f->path);
    MUST(file_write_atomic(AT_FDCWD, tombstone, "", 0, 0440, &f->err), &f->err);
    MUST_FAIL(store_point_open(f->store, "gone.1", &f->err), &f->err, ERR_NOT_FOUND);
    struct store_point_list list;
    MUST(store_points_list(f->store, NULL, &list, &f->err), &f->err);
    assert_int_equal(list.count, 0);
    store_point_list_done(&list);
}

static void test_blobs(void **state)
{
    struct fixture *f = *state;
    struct store_session_opts opts = session_opts("blobs.1");
    struct store_session *s = store_session_begin(f->store, &opts, &f->err);
    MUST(s, &f->err);
    MUST(store_session_put_blob(s, "vm.ovf", "<ovf/>", 6, &f->err), &f->err);
    MUST(store_session_put_blob(s, "empty", NULL, 0, &f->err), &f->err);
    MUST_FAIL(store_session_put_blob(s, "vm.ovf", "x", 1, &f->err), &f->err, ERR_EXISTS);
    const char *const bad[] = {"point.json", "x.mf", ".mf", "", "a/b", "..", "UPPER"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        MUST_FAIL(store_session_put_blob(s, bad[i], "x", 1, &f->err), &f->err, ERR_BAD_ARGUMENT);
    MUST_FAIL(store_session_put_blob(s, "big", bad, (size_t)STORE_BLOB_MAX + 1, &f->err), &f->err,
              ERR_TOO_LARGE);
    MUST(store_session_commit(s, NULL, &f->err), &f->err); /* no disk at all: a diskless VM */
    store_session_free(s);
    struct store_point *point = store_point_open(f->store, "blobs.1", &f->err);
    MUST(point, &f->err);
    assert_int_equal(store_point_blob_count(point), 2);
    assert_string_equal(store_point_blob_name(point, 0), "vm.ovf");
    assert_null(store_point_blob_name(point, 2));
    struct buf bytes;
    MUST(store_point_blob(point, "vm.ovf", &bytes, &f->err), &f->err);
    assert_string_equal(buf_str(&bytes), "<ovf/>");
    buf_done(&bytes);
    MUST(store_point_blob(point, "empty", &bytes, &f->err), &f->err);
    assert_int_equal(bytes.len, 0);
    buf_done(&bytes);
    MUST_FAIL(store_point_blob(point, "nope", &bytes, &f->err), &f->err, ERR_NOT_FOUND);
    store_point_free(point);
}

/* ---- sessions */

static void test_revoked_session_cannot_commit(void **state)
{
    struct fixture *f = *state;
    struct disk_image image = {.id = "d", .data = xmalloc(3 * MIB), .size = 3 * MIB};
    fill_random(image.data, image.size, 61);
    struct store_session_opts opts = session_opts("zombie.1");
    struct store_session *s = store_session_begin(f->store, &opts, &f->err);
    MUST(s, &f->err);
    MUST(write_image(s, &image, 0, NULL, NULL, &f->err), &f->err);
    bool was_committed = true;
    MUST(store_session_revoke(f->store, "zombie.1", &was_committed, &f->err), &f->err);
    assert_false(was_committed);
    MUST_FAIL(store_session_commit(s, NULL, &f->err), &f->err, ERR_STORE_REVOKED);
    MUST_FAIL(store_session_commit(s, NULL, &f->err), &f->err, ERR_STORE_REVOKED);
    store_session_free(s);
    assert_int_equal(count_files(f->path, "packs/"), 0);
    assert_int_equal(count_files(f->path, "manifests/"), 0);
    assert_int_equal(count_files(f->path, "sessions/"), 0);
    MUST_FAIL(store_point_open(f->store, "zombie.1", &f->err), &f->err, ERR_NOT_FOUND);
    /* Nor can it come back, nor one that was revoked before it began. */
    MUST_FAIL(store_session_begin(f->store, &opts, &f->err), &f->err, ERR_STORE_REVOKED);
    MUST(store_session_revoke(f->store, "never.1", &was_committed, &f->err), &f->err);
    MUST(store_session_revoke(f->store, "never.1", &was_committed, &f->err), &f->err);
    opts.id = "never.1";
    MUST_FAIL(store_session_begin(f->store, &opts, &f->err), &f->err, ERR_STORE_REVOKED);
    free(image.data);
}

static void test_committed_session_cannot_be_revoked(void **state)
{
    struct fixture *f = *state;
    uint8_t block[BLOCK] = {1};
    struct disk_image image = {.id = "d", .data = block, .size = sizeof block};
    MUST(backup_image(f->store, "done.1", &image, NULL, NULL, &f->err), &f->err);
    bool was_committed = false;
    MUST(store_session_revoke(f->store, "done.1", &was_committed, &f->err), &f->err);
    assert_true(was_committed);
    MUST(check_image(f->store, "done.1", &image, &f->err), &f->err);
    MUST_FAIL(backup_image(f->store, "done.1", &image, NULL, NULL, &f->err), &f->err, ERR_EXISTS);
    MUST(check_image(f->store, "done.1", &image, &f->err), &f->err);
}

static void test_abort_removes_everything(void **state)
{
    struct fixture *f = *state;
    struct disk_image image = {.id = "d", .data = xmalloc(5 * MIB), .size = 5 * MIB};
    fill_random(image.data, image.size, 71);
    struct store_session_opts opts = session_opts("abort.1");
    struct store_session *s = store_session_begin(f->store, &opts, &f->err);
    MUST(s, &f->err);
    MUST(write_image(s, &image, 0, NULL, NULL, &f->err), &f->err);
    struct store_stats stats;
    store_session_stats(s, &stats);
    assert_true(stats.packs >= 4);
    assert_int_equal(stats.stored_raw_bytes, image.size);
    assert_true(count_files(f->path, "packs/") >= 4);
    assert_int_equal(count_files(f->path, "sessions/"), 1);
    MUST(store_session_abort(s, &f->err), &f->err);
    MUST(store_session_abort(s, &f->err), &f->err);
    store_session_free(s);
    assert_int_equal(count_files(f->path, "packs/"), 0);
    assert_int_equal(count_files(f->path, "sessions/"), 0);
    assert_int_equal(count_files(f->path, "fate/"), 1); /* revoked for ever */
    free(image.data);
}

static void test_bad_arguments(void **state)
{
    struct fixture *f = *state;
    struct store_session_opts opts = session_opts("Bad/Name");
    MUST_FAIL(store_session_begin(f->store, &opts, &f->err), &f->err, ERR_BAD_ARGUMENT);
    opts = session_opts("args.1");
    opts.vm_name = "\xff\xfe";
    MUST_FAIL(store_session_begin(f->store, &opts, &f->err), &f->err, ERR_BAD_ARGUMENT);
    opts = session_opts("args.1");
    struct store_session *s = store_session_begin(f->store, &opts, &f->err);
    MUST(s, &f->err);
    MUST_FAIL(store_session_begin(f->store, &opts, &f->err), &f->err, ERR_EXISTS);
    struct store_disk_opts d = {.id = "d", .size_bytes = 10000};
    struct store_disk *disk = store_disk_begin(s, &d, &f->err);
    MUST(disk, &f->err);
    MUST_FAIL(store_disk_begin(s, &d, &f->err), &f->err, ERR_EXISTS);
    d = (struct store_disk_opts){.id = "../x", .size_bytes = 1};
    MUST_FAIL(store_disk_begin(s, &d, &f->err), &f->err, ERR_BAD_ARGUMENT);
    d = (struct store_disk_opts){.id = "y", .size_bytes = STORE_DISK_BYTES_MAX + 1};
    MUST_FAIL(store_disk_begin(s, &d, &f->err), &f->err, ERR_TOO_LARGE);
    MUST_FAIL(store_session_commit(s, NULL, &f->err), &f->err, ERR_INTERNAL); /* not finished */
    store_session_free(s);

    const struct {
        uint64_t offset;
        size_t len;
    } bad[] = {{1, 4096}, {0, 100}, {8192, 1807}, {8192, 4096}, {12288, 1}, {4096, 4097}};
    uint8_t data[8192] = {1};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        char id[32];
        (void)snprintf(id, sizeof id, "write.%zu", i);
        opts = session_opts(id);
        s = store_session_begin(f->store, &opts, &f->err);
        MUST(s, &f->err);
        d = (struct store_disk_opts){.id = "d", .size_bytes = 10000};
        disk = store_disk_begin(s, &d, &f->err);
        MUST(disk, &f->err);
        struct store_stream *stream = store_stream_begin(s, &f->err);
        MUST(stream, &f->err);
        MUST_FAIL(store_stream_write(stream, disk, bad[i].offset, data, bad[i].len, &f->err),
                  &f->err, ERR_BAD_ARGUMENT);
        store_stream_end(stream);
        /* The session is failed: a caller that forgets the error cannot commit. */
        MUST_FAIL(store_session_commit(s, NULL, &f->err), &f->err, ERR_BAD_ARGUMENT);
        store_session_free(s);
    }
}

static void test_overlap_is_refused(void **state)
{
    struct fixture *f = *state;
    uint8_t data[3 * BLOCK];
    fill_random(data, sizeof data, 81);
    struct store_session_opts opts = session_opts("overlap.1");
    struct store_session *s = store_session_begin(f->store, &opts, &f->err);
    struct store_disk *disk = store_disk_begin(
        s, &(struct store_disk_opts){.id = "d", .size_bytes = sizeof data}, &f->err);
    MUST(disk, &f->err);
    struct store_stream *stream = store_stream_begin(s, &f->err);
    MUST(store_stream_write(stream, disk, 0, data, 2 * BLOCK, &f->err), &f->err);
    MUST(store_stream_write(stream, disk, BLOCK, data, 2 * BLOCK, &f->err), &f->err);
    store_stream_end(stream);
    MUST_FAIL(store_disk_finish(disk, NULL, &f->err), &f->err, ERR_BAD_ARGUMENT);
    MUST_FAIL(store_session_commit(s, NULL, &f->err), &f->err, ERR_BAD_ARGUMENT);
    store_session_free(s);
}

/* ---- the repository */

static void test_init_and_open_refusals(void **state)
{
    struct fixture *f = *state;
    MUST_FAIL(store_init(f->path, NULL, &f->err), &f->err, ERR_EXISTS);
    SCOPED_FREE char *other = xasprintf("%s/a/b/c", f->dir);
    MUST_FAIL(store_open(other, NULL, &f->err), &f->err, ERR_NOT_FOUND);
    struct store *store = store_init(other, NULL, &f->err);
    MUST(store, &f->err);
    assert_string_not_equal(store_uuid(store), store_uuid(f->store));
    uint64_t space;
    MUST(store_free_space(store, &space, &f->err), &f->err);
    assert_true(space > 0);
    store_free(store);
    MUST_FAIL(store_init(f->dir, NULL, &f->err), &f->err, ERR_EXISTS); /* not empty */
    struct store_opts opts = {.zstd_level = 30};
    MUST_FAIL(store_open(other, &opts, &f->err), &f->err, ERR_BAD_ARGUMENT);
    opts = (struct store_opts){.pack_bytes = 5};
    MUST_FAIL(store_open(other, &opts, &f->err), &f->err, ERR_BAD_ARGUMENT);
}

static void replace_in_file(struct fixture *f, const char *name, const char *from, const char *to)
{
    SCOPED_FREE char *path = xasprintf("%s/%s", f->path, name);
    SCOPED_BUF struct buf text;
    MUST(file_read_all(AT_FDCWD, path, MIB, &text, &f->err), &f->err);
    const char *at = strstr(buf_str(&text), from);
    assert_non_null(at);
    SCOPED_FREE char *changed =
        xasprintf("%.*s%s%s", (int)(at - text.data), text.data, to, at + strlen(from));
    MUST(file_write_atomic(AT_FDCWD, path, changed, strlen(changed), 0440, &f->err), &f->err);
}

static void test_unknown_versions_are_refused(void **state)
{
    struct fixture *f = *state;
    replace_in_file(f, "repo.json", "\"format\": 1", "\"format\": 2");
    MUST_FAIL(store_open(f->path, NULL, &f->err), &f->err, ERR_STORE_VERSION);
    replace_in_file(f, "repo.json", "\"format\": 2", "\"format\": 1");
    replace_in_file(f, "repo.json", "\"incompat\": []", "\"incompat\": [\"sharding\"]");
    struct store *store = store_open(f->path, NULL, &f->err);
    assert_null(store);
    assert_int_equal(f->err.code, ERR_STORE_VERSION);
    assert_non_null(strstr(f->err.message, "sharding"));
    err_clear(&f->err);
    replace_in_file(f, "repo.json", "[\"sharding\"]", "[]");
    store = store_open(f->path, NULL, &f->err);
    MUST(store, &f->err);
    store_free(store);
    /* A changed value without a new checksum. */
    replace_in_file(f, "repo.json", "\"compat\": []", "\"compat\": [\"x\"]");
    MUST_FAIL(store_open(f->path, NULL, &f->err), &f->err, ERR_STORE_CORRUPT);
}

/* ---- threads */

struct writer {
    struct store_session *session;
    struct store_disk *disk;
    const struct disk_image *image;
    size_t first, step;
    struct err err;
    bool ok;
};

static void *writer_main(void *arg)
{
    struct writer *w = arg;
    struct store_stream *stream = store_stream_begin(w->session, &w->err);
    w->ok = stream != NULL;
    const size_t unit = 512 << 10;
    for (size_t at = w->first * unit; w->ok && at < w->image->size; at += w->step * unit) {
        size_t len = w->image->size - at < unit ? w->image->size - at : unit;
        w->ok = store_stream_write(stream, w->disk, at, w->image->data + at, len, &w->err);
    }
    store_stream_end(stream);
    return NULL;
}

struct comparer {
    struct store_reader *reader;
    const struct disk_image *image;
    uint64_t seed;
    bool ok;
    struct err err;
};

static void *comparer_main(void *arg)
{
    struct comparer *c = arg;
    uint8_t *buf = xmalloc(MIB);
    c->ok = true;
    for (int i = 0; i < 60 && c->ok; i++) {
        size_t offset = random_next(&c->seed) % c->image->size;
        size_t len = random_next(&c->seed) % MIB;
        len = len < c->image->size - offset ? len : c->image->size - offset;
        c->ok = store_disk_read(c->reader, buf, len, offset, &c->err) &&
                memcmp(buf, c->image->data + offset, len) == 0;
    }
    free(buf);
    return NULL;
}

static void test_many_threads(void **state)
{
    struct fixture *f = *state;
    enum { N = 4 };
    struct disk_image image = {.id = "d", .data = xmalloc(24 * MIB), .size = 24 * MIB - 77};
    fill_text(image.data, 24 * MIB, 91);
    memcpy(image.data + 12 * MIB, image.data, 6 * MIB); /* the same chunks in several threads */
    struct store_session_opts opts = session_opts("threads.1");
    struct store_session *s = store_session_begin(f->store, &opts, &f->err);
    MUST(s, &f->err);
    struct store_disk *disk = store_disk_begin(
        s, &(struct store_disk_opts){.id = "d", .size_bytes = image.size}, &f->err);
    MUST(disk, &f->err);
    struct writer writers[N];
    pthread_t threads[N];
    for (size_t i = 0; i < N; i++) {
        writers[i] =
            (struct writer){.session = s, .disk = disk, .image = &image, .first = i, .step = N};
        assert_int_equal(pthread_create(&threads[i], NULL, writer_main, &writers[i]), 0);
    }
    for (size_t i = 0; i < N; i++)
        pthread_join(threads[i], NULL);
    for (size_t i = 0; i < N; i++)
        MUST(writers[i].ok, &writers[i].err);
    struct store_stats stats;
    MUST(store_disk_finish(disk, &stats, &f->err), &f->err);
    MUST(store_session_commit(s, NULL, &f->err), &f->err);
    store_session_free(s);

    /* A cache of two frames, so that threads fight for it. */
    store_free(f->store);
    f->store = store_open(
        f->path,
        &(struct store_opts){.frame_cache_bytes = 2 * MIB, .footer_cache_bytes = 3 * 65536},
        &f->err);
    MUST(f->store, &f->err);
    SCOPED(store_reader) struct store_reader *reader = open_reader(f, "threads.1", "d");
    struct comparer comparers[N];
    for (size_t i = 0; i < N; i++) {
        comparers[i] = (struct comparer){.reader = reader, .image = &image, .seed = i};
        assert_int_equal(pthread_create(&threads[i], NULL, comparer_main, &comparers[i]), 0);
    }
    for (size_t i = 0; i < N; i++)
        pthread_join(threads[i], NULL);
    for (size_t i = 0; i < N; i++)
        assert_true(comparers[i].ok);
    struct store_verify_opts verify = {.threads = 3};
    struct store_verify_result result;
    MUST(store_verify_point(f->store, "threads.1", &verify, &result, &f->err), &f->err);
    assert_int_equal(result.checked_bytes, stats.stored_raw_bytes); /* each frame once */
    free(image.data);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_round_trip_sizes),
        T(test_round_trip_sparse),
        T(test_zero_blocks_are_not_stored),
        T(test_extents),
        T(test_huge_sparse_disk),
        T(test_second_backup_stores_nothing),
        T(test_dedup_within_a_session),
        T(test_uncommitted_chunks_are_not_used),
        T(test_chunks_cross_calls),
        T(test_stream_goes_elsewhere),
        T(test_finish_before_the_stream_ends_is_refused),
        T(test_dedup_survives_a_shift),
        T(test_parent_stores_changed_blocks_only),
        T(test_keep_takes_the_parent_unread),
        T(test_points_list_and_open),
        T(test_exact_id_beats_prefix),
        T(test_deleted_points_are_gone),
        T(test_blobs),
        T(test_revoked_session_cannot_commit),
        T(test_committed_session_cannot_be_revoked),
        T(test_abort_removes_everything),
        T(test_bad_arguments),
        T(test_overlap_is_refused),
        T(test_init_and_open_refusals),
        T(test_unknown_versions_are_refused),
        T(test_many_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
