/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One thread's pipeline. A call is cut into units of 512 KiB; a unit goes through three
 * passes:
 *
 *     classify   each block: zero, equal to the parent's, or to be stored (with its leaf digest)
 *     cut        runs of blocks to be stored into chunks, by their leaf digests
 *     place      each chunk: known somewhere, or appended to the frame being filled
 *
 * A chunk whose end a unit does not have is carried over to the next one, which begins with its
 * blocks: how data is cut, and with it what is found again, depends on the data alone and not on
 * the sizes of writes. It waits until the stream writes elsewhere, or ends.
 *
 * A full frame is compressed and appended to the thread's pack; a full pack goes to the sealer.
 * Nothing is shared with other threads but the deduplication tables and the disk's map.
 */
#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "proto/base/log.h"
#include "worker/store/packfile.h"
#include "worker/store/writer.h"

/* A unit stays in the processor's cache from the first pass to the last. */
enum { UNIT_BLOCKS = 128, CARRY_BLOCKS_MAX = CHUNK_BLOCKS_MAX - 1 };
enum { UNIT_AND_CARRY_BLOCKS = UNIT_BLOCKS + CARRY_BLOCKS_MAX };

enum block_kind { BLOCK_ZERO, BLOCK_SAME, BLOCK_NEW };

/* A unit on its way. Its blocks are the carried ones, all of them BLOCK_NEW, and then those of the
 * write. */
struct unit {
    struct store_stream *stream;
    struct store_disk *disk; /* also of what is carried */
    uint64_t block;          /* of the disk */
    uint32_t n, carried;
    const uint8_t *data; /* of the write: all blocks, but the last one if the disk's end cuts it */
    const uint8_t *last; /* the last block */
    uint8_t *carry;      /* CARRY_BLOCKS_MAX */
    struct store_stats stats;
    struct map_records records;
    uint8_t kinds[UNIT_AND_CARRY_BLOCKS];
    uint8_t leaves[UNIT_AND_CARRY_BLOCKS * DIGEST_BYTES];
    uint8_t padded[STORE_BLOCK_BYTES];
};

static struct unit *unit_new(struct store_stream *stream)
{
    struct unit *u = ALLOC_NEW(struct unit);
    u->stream = stream;
    u->carry = xaligned(STORE_BLOCK_BYTES, (size_t)CARRY_BLOCKS_MAX * STORE_BLOCK_BYTES);
    return u;
}

static void unit_free(struct unit *u)
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

static bool settle(struct unit *u, struct err *err);

/* ---- streams */

struct store_stream *store_stream_begin(struct store_session *session, struct err *err)
{
    if (!session_check(session, err))
        return NULL;
    pthread_mutex_lock(&session->lock);
    struct store_stream *s = session->idle;
    if (s)
        session->idle = s->next;
    session->n_active++;
    pthread_mutex_unlock(&session->lock);
    if (s) {
        s->next = NULL;
        return s;
    }
    s = ALLOC_NEW(struct store_stream);
    s->session = session;
    s->hasher = hasher_new(crypt_id_key(session->store->crypt));
    s->coder = frame_coder_new(session->store->crypt);
    s->frame = xaligned(STORE_BLOCK_BYTES, FRAME_RAW_MAX);
    s->encoded = xmalloc(FRAME_BYTES_MAX);
    s->unit = unit_new(s);
    return s;
}

void store_stream_end(struct store_stream *stream)
{
    if (!stream)
        return;
    struct store_session *session = stream->session;
    struct err err = ERR_INIT;
    if (session_check(session, &err) && !settle(stream->unit, &err))
        session_fail(session, &err);
    pthread_mutex_lock(&session->lock);
    stream->next = session->idle;
    session->idle = stream;
    session->n_active--;
    pthread_mutex_unlock(&session->lock);
}

void stream_free(struct store_stream *stream)
{
    if (!stream)
        return;
    pack_writer_free(stream->pack);
    hook_set_done(&stream->hooks);
    hasher_free(stream->hasher);
    frame_coder_free(stream->coder);
    unit_free(stream->unit);
    free(stream->frame);
    free(stream->encoded);
    free(stream);
}

/* ---- frames */

/* Write out the frame being filled. */
static bool flush_frame(struct store_stream *s, struct store_stats *stats, struct err *err)
{
    if (s->frame_blocks == 0)
        return true;
    struct frame_header header;
    const struct store *store = s->session->store;
    size_t len = frame_encode(
        s->coder, store->opts.zstd_level, store->crypt ? &s->pack->envelope : NULL, s->frame,
        s->frame_blocks * STORE_BLOCK_BYTES, s->frame_chunks, s->encoded, &header);
    if (!pack_writer_append(s->pack, &header, s->encoded, len, err))
        return false;
    stats->stored_bytes += len;
    s->frame_blocks = 0;
    s->frame_chunks = 0;
    return !pack_writer_is_full(s->pack) || pack_writer_finish(TAKE(s->pack), err);
}

bool stream_flush(struct store_stream *stream, struct err *err)
{
    const struct map_records none = {0};
    struct store_stats stats = {0};
    if (!flush_frame(stream, &stats, err))
        return false;
    if (stats.stored_bytes > 0) /* a frame may be shared: it counts for the disk that wrote last */
        disk_merge(stream->unit->disk, &none, &stats);
    return true;
}

bool stream_finish(struct store_stream *stream, struct err *err)
{
    if (!stream_flush(stream, err))
        return false;
    return !stream->pack || pack_writer_finish(TAKE(stream->pack), err);
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

static struct map_record shifted(const struct map_record *r, uint32_t skip, uint32_t n,
                                 uint32_t pack)
{
    return (struct map_record){
        .block = r->block + skip,
        .where = {.pack = pack,
                  .frame = r->where.frame,
                  .first = (uint8_t)(r->where.first + skip),
                  .blocks_less_1 = (uint8_t)(n - 1)},
    };
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
            struct map_record same = shifted(r, i - run, run, number);
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
    if (s->frame_blocks + n > FRAME_BLOCKS_MAX && !flush_frame(s, &u->stats, err))
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

/* What is carried ends here. */
static bool settle(struct unit *u, struct err *err)
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

/* ---- writing */

static bool check_write(const struct store_disk *disk, uint64_t offset, uint64_t len,
                        struct err *err)
{
    if (offset > disk->size_bytes || len > disk->size_bytes - offset)
        return err_set(err, ERR_BAD_ARGUMENT, 0,
                       "%" PRIu64 " bytes at offset %" PRIu64 " are beyond its end, %" PRIu64, len,
                       offset, disk->size_bytes);
    if (offset % STORE_BLOCK_BYTES != 0 ||
        (len % STORE_BLOCK_BYTES != 0 && offset + len != disk->size_bytes))
        return err_set(err, ERR_BAD_ARGUMENT, 0,
                       "%" PRIu64 " bytes at offset %" PRIu64 " are not whole blocks", len, offset);
    return !disk->is_finished || err_set(err, ERR_BAD_ARGUMENT, 0, "it is finished already");
}

/* `len` bytes at block `block` of the disk: at most UNIT_BLOCKS. */
static bool write_unit(struct unit *u, struct store_disk *disk, uint64_t block, const uint8_t *data,
                       size_t len, struct err *err)
{
    if ((u->disk != disk || u->block + u->carried != block) && !settle(u, err))
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

bool store_stream_write(struct store_stream *stream, struct store_disk *disk, uint64_t offset,
                        const void *data, size_t len, struct err *err)
{
    assert(disk->session == stream->session);
    if (!session_check(stream->session, err))
        return false;
    bool ok = check_write(disk, offset, len, err);
    const uint8_t *at = data;
    while (ok && len > 0) {
        size_t part = (size_t)UNIT_BLOCKS * STORE_BLOCK_BYTES;
        part = len < part ? len : part;
        ok = write_unit(stream->unit, disk, offset / STORE_BLOCK_BYTES, at, part, err);
        at += part;
        offset += part;
        len -= part;
    }
    if (!ok) {
        err_wrap(err, "disk %s", disk->id);
        return session_fail(stream->session, err);
    }
    return true;
}

/* ---- keeping */

/* One call. */
struct keeping {
    struct unit *unit;
    struct store_reader *from;
    const uint32_t *packs; /* its packs' numbers in the store's table; DEDUP_NO_PACK = unusable */
    uint64_t end;          /* of the range */
    struct extents *lost;
};

/* The bytes of a record of the source, up to the end of its disk. The caller frees. */
static uint8_t *read_source(struct store_reader *from, const struct map_record *r, size_t *ret_len,
                            struct err *err)
{
    uint64_t offset = r->block * STORE_BLOCK_BYTES;
    size_t len = (size_t)map_record_blocks(r) * STORE_BLOCK_BYTES;
    if (len > from->map.size_bytes - offset)
        len = (size_t)(from->map.size_bytes - offset);
    SCOPED_FREE uint8_t *data = xmalloc(len);
    if (!store_disk_read(from, data, len, offset, err))
        return NULL;
    *ret_len = len;
    return TAKE(data);
}

/* Blocks of the source that must not be referred to where they lie: store them anew. */
static bool copy_record(struct unit *u, const struct map_record *r, const uint8_t *data, size_t len,
                        struct err *err)
{
    struct unit *copy = unit_new(u->stream);
    const size_t unit = (size_t)UNIT_BLOCKS * STORE_BLOCK_BYTES;
    bool ok = true;
    for (size_t at = 0; ok && at < len; at += unit) /* a record may be longer than a unit */
        ok = write_unit(copy, u->disk, r->block + at / STORE_BLOCK_BYTES, data + at,
                        len - at < unit ? len - at : unit, err);
    ok = ok && settle(copy, err);
    unit_free(copy);
    return ok;
}

/* What is not there any more. False, with the error that tells why, when nobody wants to know. */
static bool lose(const struct keeping *k, uint64_t from, uint64_t to, struct err *err)
{
    struct extents *lost = k->lost;
    if (!lost)
        return false;
    log_err(LOG_LEVEL_WARN, "store_source_unreadable", err);
    err_clear(err);
    uint64_t begin = lost->count > 0
                         ? lost->items[lost->count - 1].offset + lost->items[lost->count - 1].len
                         : k->unit->block * STORE_BLOCK_BYTES;
    extents_add(lost, begin, from - begin, false);
    extents_add(lost, from, to - from, true);
    /* it will be written */
    k->unit->stats.read_bytes -= disk_blocks(to - from) * STORE_BLOCK_BYTES;
    return true;
}

/* `may_refer`: else it is copied in any case. */
static bool keep_record(const struct keeping *k, const struct map_record *r, bool may_refer,
                        struct err *err)
{
    struct unit *u = k->unit;
    uint32_t number = k->packs[r->where.pack];
    uint64_t bytes = (uint64_t)map_record_blocks(r) * STORE_BLOCK_BYTES;
    if (may_refer && number != DEDUP_NO_PACK &&
        session_may_refer(u->stream->session, number, r->where.frame)) {
        struct map_record same = shifted(r, 0, map_record_blocks(r), number);
        records_join(&u->records, &same);
        u->stats.unchanged_bytes += bytes;
        return true;
    }
    size_t len = 0;
    SCOPED_FREE uint8_t *data = read_source(k->from, r, &len, err);
    if (!data) {
        uint64_t to = map_record_end(r) * STORE_BLOCK_BYTES;
        return lose(k, r->block * STORE_BLOCK_BYTES, to < k->end ? to : k->end, err);
    }
    u->stats.read_bytes -= bytes; /* the copy counts */
    return copy_record(u, r, data, len, err);
}

/* The source's last block, if its end cuts it and the disk goes on: what the block has behind that
 * end, which is not zero where the source had shrunk, must not come back. */
static bool is_cut_block(const struct keeping *k, uint64_t block)
{
    uint64_t size = k->from->map.size_bytes;
    return size % STORE_BLOCK_BYTES != 0 && k->unit->disk->size_bytes > size &&
           block == size / STORE_BLOCK_BYTES;
}

/* A record, its last block by itself if need be. */
static bool keep_parts(const struct keeping *k, const struct map_record *r, struct err *err)
{
    uint32_t n = map_record_blocks(r);
    if (!is_cut_block(k, map_record_end(r) - 1))
        return keep_record(k, r, true, err);
    struct map_record last = shifted(r, n - 1, 1, r->where.pack);
    if (n > 1) {
        struct map_record first = shifted(r, 0, n - 1, r->where.pack);
        if (!keep_record(k, &first, true, err))
            return false;
    }
    return keep_record(k, &last, false, err);
}

/* From `offset` on, to the end of the range, which is not empty. */
static bool keep(const struct keeping *k, uint64_t offset, struct err *err)
{
    SCOPED_MAP_RECORDS struct map_records records = {0};
    struct unit *u = k->unit;
    uint64_t first = offset / STORE_BLOCK_BYTES, n = disk_blocks(k->end) - first;
    u->block = first;
    u->stats.read_bytes = n * STORE_BLOCK_BYTES;
    if (!reader_map(k->from, first, n, &records, err))
        return lose(k, offset, k->end, err);
    for (size_t i = 0; i < records.count; i++)
        if (!keep_parts(k, &records.items[i], err))
            return false;
    return true;
}

bool store_stream_keep(struct store_stream *stream, struct store_disk *disk, uint64_t offset,
                       uint64_t len, struct extents *lost, struct err *err)
{
    assert(disk->parent);
    return store_stream_keep_from(stream, disk, disk->parent, offset, len, lost, err);
}

/* What a part has read and stored was counted when its point was first kept from. */
static void count_kept(struct unit *u, const struct store_reader *from)
{
    if (from->is_of_part)
        u->stats = (struct store_stats){0};
    else
        u->stats.zero_bytes = u->stats.read_bytes - u->stats.unchanged_bytes;
}

static bool check_source(const struct store_disk *disk, const struct store_reader *from,
                         struct err *err)
{
    return from->store == disk->session->store ||
           err_set(err, ERR_BAD_ARGUMENT, 0, "%s is in another repository", from->name);
}

bool store_stream_keep_from(struct store_stream *stream, struct store_disk *disk,
                            struct store_reader *from, uint64_t offset, uint64_t len,
                            struct extents *lost, struct err *err)
{
    assert(disk->session == stream->session);
    if (!session_check(stream->session, err))
        return false;
    struct unit *u = stream->unit;
    struct keeping k = {.unit = u, .from = from, .end = offset + len, .lost = lost};
    bool ok =
        check_source(disk, from, err) && check_write(disk, offset, len, err) && settle(u, err);
    u->disk = disk;
    u->records.count = 0;
    u->stats = (struct store_stats){0};
    if (lost)
        extents_reset(lost);
    if (ok)
        k.packs = disk_source_packs(disk, from);
    ok = ok && (len == 0 || keep(&k, offset, err));
    if (!ok) {
        err_wrap(err, "disk %s", disk->id);
        return session_fail(stream->session, err);
    }
    if (lost && lost->count > 0) {
        uint64_t at = lost->items[lost->count - 1].offset + lost->items[lost->count - 1].len;
        extents_add(lost, at, offset + len - at, false);
    }
    count_kept(u, from);
    disk_merge(disk, &u->records, &u->stats);
    return true;
}
