/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks of any size, that grow and shrink from point to point: random chains of points, each with
 * the one before as its parent, written, or kept where nothing has changed. Every point is what the
 * disk was, down to the byte, and stays it.
 */
#include <stdio.h>
#include <string.h>

#include "proto/base/log.h"
#include "support.h"

enum { MIB = 1 << 20, BLOCK = STORE_BLOCK_BYTES, SIZE_MAX_BYTES = 3 * MIB, POINTS = 6 };

struct chain {
    struct store *store;
    uint64_t seed;
    unsigned number;
    struct disk_image images[POINTS];
};

static uint64_t below(struct chain *c, uint64_t n)
{
    return random_next(&c->seed) % n;
}

/* Sizes around which things are cut, and any others. */
static size_t any_size(struct chain *c)
{
    static const size_t edges[] = {0, 512, BLOCK, 2 * BLOCK, 64 * BLOCK, MIB, 2 * MIB};
    size_t size = below(c, 3) == 0 ? below(c, SIZE_MAX_BYTES) : edges[below(c, ARRAY_LEN(edges))];
    switch (below(c, 4)) {
    case 0:
        return size + 1;
    case 1:
        return size > 0 ? size - 1 : 0;
    case 2:
        return size + below(c, 700);
    default:
        return size;
    }
}

/* What the disk is now: the same as before as far as both go, then zeroes, or something new. */
static struct disk_image next_image(struct chain *c, const struct disk_image *before)
{
    size_t size = any_size(c), old = before ? before->size : 0, both = size < old ? size : old;
    struct disk_image image = {.id = "d", .data = xcalloc(1, size + 1), .size = size};
    if (before)
        memcpy(image.data, before->data, both);
    if (below(c, 3) > 0)
        for (size_t at = both; at < size; at++) /* fill_text() writes by eight bytes */
            image.data[at] = (uint8_t)(at * 7 + c->number + 1);
    return image;
}

/* Take what is the same from the parent in runs of blocks, and write the rest. */
static bool keep_or_write(struct chain *c, struct store_session *session,
                          const struct disk_image *image, const struct disk_image *before,
                          struct store_reader *parent, struct err *err)
{
    const struct store_disk_opts opts = {
        .id = image->id, .size_bytes = image->size, .parent = parent};
    struct store_disk *disk = store_disk_begin(session, &opts, err);
    struct store_stream *stream = disk ? store_stream_begin(session, err) : NULL;
    if (!stream)
        return false;
    bool ok = true;
    for (size_t at = 0, len; ok && at < image->size; at += len) {
        len = (1 + below(c, 40)) * BLOCK;
        len = len < image->size - at ? len : image->size - at;
        size_t old = before->size > at ? before->size - at : 0, both = len < old ? len : old;
        /* What lies beyond the parent's end is zero. */
        bool is_same = memcmp(image->data + at, before->data + (both > 0 ? at : 0), both) == 0;
        for (size_t i = both; i < len && is_same; i++)
            is_same = image->data[at + i] == 0;
        ok = is_same && below(c, 4) > 0
                 ? store_stream_keep(stream, disk, at, len, NULL, err)
                 : store_stream_write(stream, disk, at, image->data + at, len, err);
    }
    store_stream_end(stream);
    return ok && store_disk_finish(disk, NULL, err);
}

static void back_up(struct chain *c, unsigned i)
{
    struct err err = ERR_INIT;
    char id[32], parent_id[32];
    (void)snprintf(id, sizeof id, "c%u.%u", c->number, i);
    (void)snprintf(parent_id, sizeof parent_id, "c%u.%u", c->number, i - 1);
    struct disk_image *before = i > 0 ? &c->images[i - 1] : NULL;
    c->images[i] = next_image(c, before);
    struct store_session_opts opts = session_opts(id);
    struct store_session *session = store_session_begin(c->store, &opts, &err);
    MUST(session, &err);
    struct store_point *point = before ? store_point_open(c->store, parent_id, &err) : NULL;
    struct store_reader *parent = point ? store_disk_open(point, "d", &err) : NULL;
    MUST(!before || parent, &err);
    bool keeps = parent && below(c, 3) > 0;
    MUST(keeps
             ? keep_or_write(c, session, &c->images[i], before, parent, &err)
             : write_image(session, &c->images[i], (1 + below(c, 300)) * BLOCK, parent, NULL, &err),
         &err);
    MUST(store_session_commit(session, NULL, &err), &err);
    store_session_free(session);
    store_reader_free(parent);
    store_point_free(point);
}

/* The map covers the disk, and says nothing of holes that are none. */
static void check_map(const struct chain *c, const char *id, const struct disk_image *image)
{
    struct err err = ERR_INIT;
    uint64_t at = 0;
    SCOPED(store_point) struct store_point *point = store_point_open(c->store, id, &err);
    MUST(point, &err);
    SCOPED(store_reader) struct store_reader *reader = store_disk_open(point, "d", &err);
    MUST(reader, &err);
    SCOPED_EXTENTS struct extents map = EXTENTS_INIT;
    MUST(store_disk_extents(reader, 0, image->size, &map, &err), &err);
    for (size_t i = 0; i < map.count; at += map.items[i++].len)
        for (size_t k = 0; k < map.items[i].len && !map.items[i].is_data; k++)
            assert_int_equal(image->data[map.items[i].offset + k], 0);
    assert_int_equal(at, image->size);
}

static void test_chains_of_sizes(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    char *dir = temp_dir();
    SCOPED_FREE char *path = xasprintf("%s/repo", dir);
    struct chain c = {.store = store_init(path, NULL, &err), .seed = 5};
    MUST(c.store, &err);
    for (c.number = 0; c.number < 25; c.number++) {
        for (unsigned i = 0; i < POINTS; i++)
            back_up(&c, i);
        for (unsigned i = 0; i < POINTS; i++) {
            char id[32];
            (void)snprintf(id, sizeof id, "c%u.%u", c.number, i);
            MUST(check_image(c.store, id, &c.images[i], &err), &err);
            MUST(store_verify_point(c.store, id, NULL, NULL, &err), &err);
            check_map(&c, id, &c.images[i]);
            free(c.images[i].data);
        }
    }
    store_free(c.store);
    remove_tree(dir);
    free(dir);
}

int main(void)
{
    log_set_level(LOG_LEVEL_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chains_of_sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
