/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/store/unit.h"

#include <assert.h>
#include <string.h>

#include "proto/base/log.h"
#include "worker/store/packfile.h"

struct unit *unit_new(struct store_stream *stream)
{
    struct unit *u = ALLOC_NEW(struct unit);
    u->stream = stream;
    u->carry = xaligned(STORE_BLOCK_BYTES, (size_t)CARRY_BLOCKS_MAX * STORE_BLOCK_BYTES);
    return u;
}

void unit_free(struct unit *u)
{
    if (!u)
        return;
    map_records_done(&u->records);
    free(u->carry);
    free(u);
}

static const uint8_t *unit_block(const struct unit *u, uint32_t i)
{
    if (i < u->carried)
        return u->carry + (size_t)i * STORE_BLOCK_BYTES;
    return i + 1 == u->n ? u->last : u->data + (size_t)(i - u->carried) * STORE_BLOCK_BYTES;
}

/* ---- pass 1: classify */

static void classify(struct unit *u)
{
    uint32_t begin = u->carried; /* of a run of blocks that are not zero */
    const uint8_t *blocks[CHUNK_BLOCKS_MAX];
    for (uint32_t i = u->carried; i < u->n; i++) {
        const uint8_t *block = unit_block(u, i);
        bool is_zero = block_is_zero(block, STORE_BLOCK_BYTES);
        u->kinds[i] = is_zero ? BLOCK_ZERO : BLOCK_NEW;
        if (is_zero)
            u->stats.zero_bytes += STORE_BLOCK_BYTES;
        else
            blocks[i - begin] = block;
        uint32_t run = i + (is_zero ? 0 : 1) - begin;
        if (is_zero || run == CHUNK_BLOCKS_MAX || i + 1 == u->n) {
            hasher_leaves(u->stream->hasher, blocks, run, u->leaves + (size_t)begin * DIGEST_BYTES);
            begin = i + 1;
        }
    }
}

/* Mark the blocks of one record of the parent that are the same here, and refer to them. */
static void compare_record(struct unit *u, const struct map_record *r, uint32_t number,
                           const struct footer *footer)
{
    if (r->where.frame >= footer->n_frames ||
        !session_may_refer(u->stream->session, number, r->where.frame))
        return;
    const struct frame_entry *frame = &footer->frames[r->where.frame];
    uint32_t n = map_record_blocks(r), run = 0;
    if ((r->where.first + n) * STORE_BLOCK_BYTES > frame->raw_len)
        return;
    for (uint32_t i = 0; i <= n; i++) {
        size_t at = (size_t)(r->block - u->block) + i;
        bool is_same = i < n && u->kinds[at] == BLOCK_NEW &&
                       memcmp(u->leaves + at * DIGEST_BYTES,
                              footer_leaf(footer, frame, r->where.first + i), LEAF_BYTES) == 0;
        if (is_same) {
            u->kinds[at] = BLOCK_SAME;
            run++;
        } else if (run > 0) {
            struct map_record same = map_record_part(r, i - run, run, number);
            records_join(&u->records, &same);
            u->stats.unchanged_bytes += (uint64_t)run * STORE_BLOCK_BYTES;
            run = 0;
        }
    }
}

/* A pack of the parent that cannot be used costs space, not this backup: its blocks are stored
 * again. */
static void compare_parent(struct unit *u)
{
    struct store *store = u->stream->session->store;
    const struct store_disk *disk = u->disk;
    SCOPED_MAP_RECORDS struct map_records records = {0};
    struct err err = ERR_INIT;
    if (!reader_map(disk->parent, u->block + u->carried, u->n - u->carried, &records, &err)) {
        log_err(LOG_LEVEL_WARN, "store_parent_unreadable", &err);
        return;
    }
    struct cache_item *item = NULL;
    uint32_t pinned = 0;
    for (size_t i = 0; i < records.count; i++) {
        const struct map_record *r = &records.items[i];
        uint32_t number = disk->parent_packs[r->where.pack];
        if (number == DEDUP_NO_PACK)
            continue;
        if (!item || pinned != r->where.pack) {
            cache_unpin(store->packs, item);
            item = pack_pin(store, &disk->parent->map.packs[r->where.pack], &err);
            pinned = r->where.pack;
        }
        if (item) {
            compare_record(u, r, number, &pack_of(item)->footer);
        } else {
            log_err(LOG_LEVEL_WARN, "store_parent_pack_unusable", &err);
            err_clear(&err);
            dedup_pack_drop(store->dedup, number);
        }
    }
    cache_unpin(store->packs, item);
}

/* ---- pass 2 and 3: cut and place */

/* Load the pack that a hook names, so that its chunks are known. */
static void load_hooked_pack(struct store *store, uint32_t pack)
{
    pthread_mutex_lock(&store->load_lock);
    if (dedup_wants_load(store->dedup, pack)) {
        struct err err = ERR_INIT;
        struct pack_ref ref;
        dedup_pack_get(store->dedup, pack, &ref);
        struct cache_item *item = pack_pin(store, &ref, &err);
        if (item) {
            dedup_load_footer(store->dedup, pack, &pack_of(item)->footer);
        } else {
            log_err(LOG_LEVEL_WARN, "store_pack_unusable", &err);
            dedup_pack_drop(store->dedup, pack);
        }
        cache_unpin(store->packs, item);
    }
    pthread_mutex_unlock(&store->load_lock);
}

/* Whether the session may refer to a place that was found. Forgets it otherwise, so that looking
 * again finds another one or none. */
static bool may_use(struct store_stream *s, const struct location *where)
{
    if (session_may_refer(s->session, where->pack, where->frame))
        return true;
    dedup_frame_drop(s->session->store->dedup, where->pack, where->frame);
    return false;
}

static bool find_usable(struct store_stream *s, const uint8_t id[DIGEST_BYTES],
                        struct location *ret_where)
{
    while (dedup_find(s->session->store->dedup, id, s->session->owner, ret_where))
        if (may_use(s, ret_where))
            return true;
    return false;
}

static bool is_known(struct store_stream *s, const uint8_t id[DIGEST_BYTES],
                     struct location *ret_where)
{
    struct store *store = s->session->store;
    if (find_usable(s, id, ret_where))
        return true;
    uint32_t pack = dedup_hook_find(store->dedup, id);
    if (pack == DEDUP_NO_PACK)
        return false;
    load_hooked_pack(store, pack);
    return find_usable(s, id, ret_where);
}

static void refer(struct unit *u, uint32_t i, const struct location *where)
{
    struct map_record record = {.block = u->block + i, .where = *where};
    records_join(&u->records, &record);
}

/* They lie side by side, but for what was carried, and the last one of a disk that its end cuts. */
static void copy_blocks(const struct unit *u, uint32_t i, uint32_t n, uint8_t *out)
{
    for (uint32_t end = i + n, run; i < end; i += run, out += (size_t)run * STORE_BLOCK_BYTES) {
        run = 1;
        const uint8_t *from = unit_block(u, i);
        while (i + run < end && unit_block(u, i + run) == from + (size_t)run * STORE_BLOCK_BYTES)
            run++;
        memcpy(out, from, (size_t)run * STORE_BLOCK_BYTES);
    }
}

/* Append a new chunk to the frame. False with no error: another thread has just stored it, and
 * `where` tells its place. */
static bool append_chunk(struct unit *u, uint32_t i, uint32_t n, const uint8_t id[DIGEST_BYTES],
                         struct location *where, struct err *err)
{
    struct store_stream *s = u->stream;
    if (s->frame_blocks + n > FRAME_BLOCKS_MAX && !stream_flush_frame(s, &u->stats, err))
        return false;
    if (!s->pack && !(s->pack = pack_writer_new(s->session, err)))
        return false;
    struct location mine = {
        .pack = s->pack->number,
        .frame = (uint16_t)s->pack->footer.n_frames,
        .first = (uint8_t)s->frame_blocks,
        .blocks_less_1 = (uint8_t)(n - 1),
    };
    while (dedup_claim(s->session->store->dedup, id, s->session->owner, &mine, where))
        if (may_use(s, where))
            return false;
    copy_blocks(u, i, n, s->frame + (size_t)s->frame_blocks * STORE_BLOCK_BYTES);
    footer_add_chunk(&s->pack->footer, id, (uint8_t)s->frame_blocks,
                     u->leaves + (size_t)i * DIGEST_BYTES, n);
    hook_set_add(&s->hooks, id, s->pack->number);
    s->frame_blocks += n;
    s->frame_chunks++;
    *where = mine;
    return true;
}

static bool place_chunk(struct unit *u, uint32_t i, uint32_t n, struct err *err)
{
    uint8_t id[DIGEST_BYTES];
    struct location where;
    hasher_chunk(u->stream->hasher, u->leaves + (size_t)i * DIGEST_BYTES, n, id);
    bool known = is_known(u->stream, id, &where);
    if (!known && !append_chunk(u, i, n, id, &where, err)) {
        if (err_is_set(err))
            return false;
        known = true;
    }
    refer(u, i, &where);
    if (known) {
        u->stats.dedup_bytes += (uint64_t)n * STORE_BLOCK_BYTES;
    } else {
        u->stats.stored_raw_bytes += (uint64_t)n * STORE_BLOCK_BYTES;
        u->stats.chunks++;
    }
    return true;
}

/* A run of blocks that the unit's end cuts short is left over: `ret_rest` blocks. */
static bool cut_and_place(struct unit *u, uint32_t *ret_rest, struct err *err)
{
    uint32_t begin = 0;
    for (uint32_t i = 0; i < u->n; i++) {
        if (u->kinds[i] != BLOCK_NEW) {
            if (i > begin && !place_chunk(u, begin, i - begin, err))
                return false;
            begin = i + 1;
            continue;
        }
        uint32_t len = i + 1 - begin;
        bool is_cut = (u->leaves[(size_t)i * DIGEST_BYTES] & CHUNK_CUT_MASK) == 0;
        if (!is_cut && len < CHUNK_BLOCKS_MAX)
            continue;
        if (!place_chunk(u, begin, len, err))
            return false;
        begin = i + 1;
    }
    *ret_rest = u->n - begin;
    return true;
}

static void set_carried(struct unit *u, uint32_t n)
{
    if (u->carried == 0 && n > 0)
        atomic_fetch_add(&u->disk->n_carries, 1);
    else if (u->carried > 0 && n == 0)
        atomic_fetch_sub(&u->disk->n_carries, 1);
    u->carried = n;
}

/* The last `n` blocks begin the next unit. */
static void carry_over(struct unit *u, uint32_t n)
{
    uint32_t first = u->n - n, there = first == 0 ? u->carried : 0;
    assert(n == 0 || first == 0 || first >= u->carried); /* no chunk ends in what is carried */
    copy_blocks(u, first + there, n - there, u->carry + (size_t)there * STORE_BLOCK_BYTES);
    memmove(u->leaves, u->leaves + (size_t)first * DIGEST_BYTES, (size_t)n * DIGEST_BYTES);
    memset(u->kinds, BLOCK_NEW, n);
    u->block += first;
    set_carried(u, n);
}

bool unit_settle(struct unit *u, struct err *err)
{
    if (u->carried == 0)
        return true;
    u->stats = (struct store_stats){0};
    u->records.count = 0;
    u->n = u->carried;
    if (!place_chunk(u, 0, u->n, err))
        return false;
    set_carried(u, 0);
    disk_merge(u->disk, &u->records, &u->stats);
    return true;
}

/* ---- all three */

bool unit_write(struct unit *u, struct store_disk *disk, uint64_t block, const uint8_t *data,
                size_t len, struct err *err)
{
    if ((u->disk != disk || u->block + u->carried != block) && !unit_settle(u, err))
        return false;
    uint32_t n = (uint32_t)disk_blocks(len), rest;
    size_t cut = len % STORE_BLOCK_BYTES;
    u->disk = disk;
    u->block = block - u->carried;
    u->n = u->carried + n;
    u->data = data;
    u->last = data + (size_t)(n - 1) * STORE_BLOCK_BYTES;
    if (cut != 0) {
        memset(u->padded, 0, sizeof u->padded);
        memcpy(u->padded, u->last, cut);
        u->last = u->padded;
    }
    u->stats = (struct store_stats){.read_bytes = (uint64_t)n * STORE_BLOCK_BYTES};
    u->records.count = 0;
    classify(u);
    if (u->disk->parent)
        compare_parent(u);
    if (!cut_and_place(u, &rest, err))
        return false;
    carry_over(u, rest);
    disk_merge(u->disk, &u->records, &u->stats);
    return true;
}
