/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a disk has in common with a disk of another point, its parent as a rule: taken over by
 * reference where that may be referred to, copied where not, reported as lost where it cannot be
 * read.
 */
#include <assert.h>
#include <inttypes.h>

#include "proto/base/log.h"
#include "worker/store/unit.h"

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
        ok = unit_write(copy, u->disk, r->block + at / STORE_BLOCK_BYTES, data + at,
                        len - at < unit ? len - at : unit, err);
    ok = ok && unit_settle(copy, err);
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
        struct map_record same = map_record_part(r, 0, map_record_blocks(r), number);
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
    struct map_record last = map_record_part(r, n - 1, 1, r->where.pack);
    if (n > 1) {
        struct map_record first = map_record_part(r, 0, n - 1, r->where.pack);
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
    bool ok = check_source(disk, from, err) && stream_check_range(disk, offset, len, err) &&
              unit_settle(u, err);
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
