/* SPDX-License-Identifier: Apache-2.0 */
/* Reading all of a disk, frame by frame. */
#include <inttypes.h>
#include <string.h>

#include "worker/store/packfile.h"
#include "worker/store/reader.h"

enum {
    WINDOW_RECORDS = 128 << 10,        /* a window is closed when it has so many */
    STEP_BLOCKS = 1 << 18,             /* of the map looked at at once: 1 GiB */
    RECORDS_KEPT = 2 * WINDOW_RECORDS, /* of the window's memory */
};

struct store_walk {
    struct store_reader *reader;
    uint64_t at, end;           /* blocks: [at, end) has not been looked at */
    struct map_records records; /* of the window, by place */
    size_t next;                /* record */
    size_t ahead;               /* the first record of the pack opened ahead last */
};

struct store_walk *store_walk_new(struct store_reader *reader)
{
    struct store_walk *walk = ALLOC_NEW(struct store_walk);
    walk->reader = reader;
    walk->end = disk_blocks(reader->map.size_bytes);
    return walk;
}

void store_walk_free(struct store_walk *walk)
{
    if (!walk)
        return;
    map_records_done(&walk->records);
    free(walk);
}

static int compare_places(const void *a, const void *b)
{
    const struct map_record *x = a, *y = b;
    if (x->where.pack != y->where.pack)
        return x->where.pack < y->where.pack ? -1 : 1;
    if (x->where.frame != y->where.frame)
        return x->where.frame < y->where.frame ? -1 : 1;
    return x->block < y->block ? -1 : x->block > y->block;
}

static uint64_t next_step(const struct store_walk *walk)
{
    return walk->end - walk->at < STEP_BLOCKS ? walk->end - walk->at : STEP_BLOCKS;
}

/* What comes before a range that cannot be read is handed out first. */
static bool fill_window(struct store_walk *walk, struct err *err)
{
    walk->records.count = 0;
    walk->next = walk->ahead = 0;
    if (walk->records.capacity > RECORDS_KEPT)
        map_records_done(&walk->records);
    while (walk->at < walk->end && walk->records.count < WINDOW_RECORDS) {
        size_t before = walk->records.count;
        uint64_t n = next_step(walk);
        if (!reader_map(walk->reader, walk->at, n, &walk->records, err)) {
            walk->records.count = before;
            if (before == 0)
                return false;
            err_clear(err);
            break;
        }
        walk->at += n;
    }
    if (walk->records.count > 0)
        qsort(walk->records.items, walk->records.count, sizeof *walk->records.items,
              compare_places);
    return true;
}

void walk_skip(struct store_walk *walk, uint64_t *ret_block, uint64_t *ret_n)
{
    *ret_block = walk->at;
    *ret_n = next_step(walk);
    walk->at += *ret_n;
}

static bool same_frame(const struct map_record *a, const struct map_record *b)
{
    return a->where.pack == b->where.pack && a->where.frame == b->where.frame;
}

/* The first part of a pack is busy with opening that one, unless it was opened ahead; the second
 * one opens the pack behind it. */
static uint32_t pack_ahead(struct store_walk *walk)
{
    const struct map_record *r = walk->records.items;
    size_t at = walk->next;
    if (walk->ahead > at || at == 0 || r[at - 1].where.pack != r[at].where.pack)
        return NO_PACK;
    while (walk->ahead < walk->records.count && r[walk->ahead].where.pack <= r[at].where.pack)
        walk->ahead++;
    return walk->ahead < walk->records.count ? r[walk->ahead].where.pack : NO_PACK;
}

struct store_part *store_walk_next(struct store_walk *walk, struct err *err)
{
    if (walk->next == walk->records.count && !fill_window(walk, err))
        return NULL;
    size_t left = walk->records.count - walk->next, n = 0;
    if (left == 0) /* there may be no items at all */
        return NULL;
    const struct map_record *first = walk->records.items + walk->next;
    while (n < left && same_frame(first, first + n))
        n++;
    struct store_part *part = xmalloc(sizeof *part + n * sizeof *first);
    part->reader = walk->reader;
    part->pack_ahead = pack_ahead(walk);
    part->n = n;
    memcpy(part->records, first, n * sizeof *first);
    walk->next += n;
    return part;
}

void store_part_open_ahead(const struct store_part *part)
{
    struct err unused = ERR_INIT;
    struct store *store = part->reader->store;
    if (part->pack_ahead != NO_PACK)
        cache_unpin(store->packs,
                    pack_pin(store, &part->reader->map.packs[part->pack_ahead], &unused));
}

void store_part_free(struct store_part *part)
{
    free(part);
}

uint64_t store_part_bytes(const struct store_part *part)
{
    uint64_t blocks = 0;
    for (size_t i = 0; i < part->n; i++)
        blocks += map_record_blocks(&part->records[i]);
    return blocks * STORE_BLOCK_BYTES;
}

uint64_t store_part_offset(const struct store_part *part)
{
    return part->records[0].block * STORE_BLOCK_BYTES;
}

static bool hand_over(const struct store_part *part, const struct frame *frame, store_piece_fn take,
                      void *context, struct err *err)
{
    for (size_t i = 0; i < part->n; i++) {
        const struct map_record *r = &part->records[i];
        if (r->where.first + map_record_blocks(r) > frame->blocks)
            return err_set(err, ERR_STORE_CORRUPT, 0,
                           "%s offset %" PRIu64 ": the map points beyond a frame",
                           part->reader->name, r->block * STORE_BLOCK_BYTES);
        if (!take(context, frame->data + (size_t)r->where.first * STORE_BLOCK_BYTES,
                  (size_t)map_record_blocks(r) * STORE_BLOCK_BYTES, r->block * STORE_BLOCK_BYTES,
                  err))
            return false;
    }
    return true;
}

bool store_part_read(const struct store_part *part, store_piece_fn take, void *context,
                     struct err *err)
{
    const struct store_reader *reader = part->reader;
    const struct map_record *first = &part->records[0];
    store_part_open_ahead(part);
    struct frame *frame = frame_load(reader->store, &reader->map.packs[first->where.pack],
                                     first->where.frame, FRAME_FROM_CACHE, err);
    if (!frame)
        return err_wrap(err, "%s offset %" PRIu64, reader->name, first->block * STORE_BLOCK_BYTES);
    bool ok = hand_over(part, frame, take, context, err);
    frame_free(frame);
    return ok;
}
