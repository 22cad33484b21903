/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Verifying a restore point: everything that a restore would read, by a few threads, each of which
 * takes the next frame. A disk is walked as by a restore (walk.c): memory is bounded by windows of
 * its map, and in a window, which holds some GiB of data whatever the disk's size, each frame is
 * read once, in the order of the packs.
 */
#include <inttypes.h>
#include <pthread.h>
#include <string.h>

#include "proto/base/clock.h"
#include "proto/base/file.h"
#include "worker/store/blob.h"
#include "worker/store/crew.h"
#include "worker/store/packfile.h"
#include "worker/store/reader.h"

enum { REPORT_EVERY_MS = 200 };

struct verify {
    struct store *store;
    const struct store_verify_opts *opts;
    unsigned threads;
    uint64_t total_bytes;
    bool sums_only;
    /* The disk. */
    struct store_reader *reader;
    const char *disk_id;
    pthread_mutex_t lock;    /* guards what follows, and serialises the callbacks */
    struct store_walk *walk; /* of a map that can be read */
    uint32_t pack, frame;    /* of one that cannot: the next one of its use table */
    uint64_t done_bytes;
    int64_t reported_ms;
    bool is_cancelled;
    struct store_verify_result result;
    struct err first;
};

/* ---- reporting; with the lock held */

static void report_damage(struct verify *v, const char *disk_id, uint64_t offset, uint64_t len,
                          const struct err *why)
{
    v->result.damaged_ranges++;
    if (disk_id)
        v->result.damaged_bytes += len;
    err_keep_first(&v->first, why);
    if (v->opts->damaged)
        v->opts->damaged(v->opts->context, disk_id, offset, len, why);
}

static void report_progress(struct verify *v, bool is_last)
{
    int64_t now = clock_mono_ms(clock_system());
    if (!is_last && now - v->reported_ms < REPORT_EVERY_MS)
        return;
    v->reported_ms = now;
    if (v->opts->progress)
        v->opts->progress(v->opts->context, v->done_bytes, v->total_bytes);
    if (v->opts->cancelled && v->opts->cancelled(v->opts->context))
        v->is_cancelled = true;
}

static void damaged_record(struct verify *v, const struct map_record *r, const struct err *why)
{
    uint64_t offset = r->block * STORE_BLOCK_BYTES;
    uint64_t len = (uint64_t)map_record_blocks(r) * STORE_BLOCK_BYTES;
    uint64_t size = v->reader->map.size_bytes;
    struct err wrapped = *why;
    err_wrap(&wrapped, "%s offset %" PRIu64, v->reader->name, offset);
    report_damage(v, v->disk_id, offset, len < size - offset ? len : size - offset, &wrapped);
}

/* ---- frames */

/* The blocks the frame has; 0 when it cannot be used. */
static uint32_t check_frame(struct verify *v, const struct pack_ref *ref, uint16_t number,
                            struct err *err)
{
    uint32_t blocks = 0;
    if (!v->opts->quick && v->sums_only)
        return frame_check_sums(v->store, ref, number, FRAME_FROM_DISK, err);
    if (!v->opts->quick) {
        struct frame *frame = frame_load(v->store, ref, number, FRAME_FROM_DISK, err);
        blocks = frame ? frame->blocks : 0;
        frame_free(frame);
        return blocks;
    }
    struct cache_item *item = pack_pin(v->store, ref, err);
    if (!item)
        return 0;
    const struct open_pack *pack = pack_of(item);
    if (number < pack->footer.n_frames)
        blocks = pack->footer.frames[number].raw_len / STORE_BLOCK_BYTES;
    else
        err_set(err, ERR_STORE_CORRUPT, 0, "'%s' frame %u is not there", pack->path, number);
    cache_unpin(v->store->packs, item);
    return blocks;
}

/* ---- a disk by its map */

static void damaged_map(struct verify *v, uint64_t block, uint64_t n, const struct err *why)
{
    uint64_t offset = block * STORE_BLOCK_BYTES, end = (block + n) * STORE_BLOCK_BYTES;
    end = end < v->reader->map.size_bytes ? end : v->reader->map.size_bytes;
    report_damage(v, v->disk_id, offset, end - offset, why);
}

static struct store_part *take_part(struct verify *v)
{
    struct store_part *part = NULL;
    struct err why = ERR_INIT, err = ERR_INIT;
    uint64_t bad_block = 0, n_bad = 0; /* one range, as long as nothing good comes between */
    pthread_mutex_lock(&v->lock);
    while (!v->is_cancelled && !(part = store_walk_next(v->walk, &err)) && err_is_set(&err)) {
        uint64_t block, n;
        walk_skip(v->walk, &block, &n);
        if (n_bad == 0) {
            bad_block = block;
            why = err;
        }
        n_bad += n;
        err_clear(&err);
        report_progress(v, false);
    }
    if (n_bad > 0)
        damaged_map(v, bad_block, n_bad, &why);
    pthread_mutex_unlock(&v->lock);
    return part;
}

static void check_part(struct verify *v, const struct store_part *part)
{
    struct err why = ERR_INIT, beyond = ERR_INIT;
    const struct location *where = &part->records[0].where;
    store_part_open_ahead(part);
    uint32_t blocks = check_frame(v, &v->reader->map.packs[where->pack], where->frame, &why);
    err_set(&beyond, ERR_STORE_CORRUPT, 0, "the map points beyond a frame");
    pthread_mutex_lock(&v->lock);
    if (!v->opts->quick)
        v->result.checked_bytes += (uint64_t)blocks * STORE_BLOCK_BYTES;
    for (size_t i = 0; i < part->n; i++) {
        const struct map_record *r = &part->records[i];
        if (blocks == 0)
            damaged_record(v, r, &why);
        else if (r->where.first + map_record_blocks(r) > blocks)
            damaged_record(v, r, &beyond);
        v->done_bytes += (uint64_t)map_record_blocks(r) * STORE_BLOCK_BYTES;
    }
    report_progress(v, false);
    pthread_mutex_unlock(&v->lock);
}

static void check_parts(void *context)
{
    struct verify *v = context;
    struct store_part *part;
    while ((part = take_part(v))) {
        check_part(v, part);
        store_part_free(part);
    }
}

/* ---- a disk whose map is sealed, without a key: what its tail says must be there */

static bool check_closed_pages(const struct store_reader *reader, struct err *err)
{
    SCOPED_FREE uint8_t *stored = xmalloc(PAGE_STORED_MAX);
    for (uint32_t i = 0; i < reader->map.n_pages; i++) {
        const struct page_entry *page = &reader->map.pages[i];
        uint8_t digest[DIGEST_BYTES];
        if (!file_pread_full(reader->fd, stored, page->stored_len, page->offset, err))
            return err_wrap(err, "%s", reader->name);
        digest_sha256(stored, page->stored_len, digest);
        if (memcmp(digest, page->digest, DIGEST_BYTES) != 0)
            return err_set(err, ERR_STORE_CORRUPT, 0, "%s: map page at %" PRIu64 ": wrong digest",
                           reader->name, page->offset);
    }
    return true;
}

static bool take_closed_frame(struct verify *v, uint32_t *ret_pack, uint16_t *ret_frame)
{
    const struct manifest *map = &v->reader->map;
    bool found = false;
    pthread_mutex_lock(&v->lock);
    while (!found && !v->is_cancelled && v->pack < map->n_packs) {
        found = frame_use_has(&map->uses[v->pack], v->frame);
        *ret_pack = v->pack;
        *ret_frame = (uint16_t)v->frame++;
        if (v->frame >= map->uses[v->pack].len * 8) {
            v->pack++;
            v->frame = 0;
        }
    }
    pthread_mutex_unlock(&v->lock);
    return found;
}

/* Nobody can tell which part of the disk a frame is of: any damage is one to all of it. */
static void check_closed_frames(void *context)
{
    struct verify *v = context;
    uint32_t pack;
    uint16_t frame;
    while (take_closed_frame(v, &pack, &frame)) {
        struct err why = ERR_INIT;
        uint32_t blocks = check_frame(v, &v->reader->map.packs[pack], frame, &why);
        pthread_mutex_lock(&v->lock);
        if (blocks == 0)
            report_damage(v, v->disk_id, 0, v->reader->map.size_bytes, &why);
        else if (!v->opts->quick)
            v->result.checked_bytes += (uint64_t)blocks * STORE_BLOCK_BYTES;
        v->done_bytes += (uint64_t)blocks * STORE_BLOCK_BYTES;
        report_progress(v, false);
        pthread_mutex_unlock(&v->lock);
    }
}

/* ---- disks and blobs */

static void check_disk(struct verify *v, struct store_point *point, const struct record_disk *disk)
{
    struct err err = ERR_INIT;
    SCOPED(store_reader) struct store_reader *reader = store_disk_open(point, disk->disk.id, &err);
    v->disk_id = disk->disk.id;
    v->reader = reader;
    if (!reader) {
        report_damage(v, v->disk_id, 0, disk->disk.size_bytes, &err);
        return;
    }
    if (v->store->crypt && !crypt_can_write(v->store->crypt)) {
        if (!check_closed_pages(reader, &err))
            report_damage(v, v->disk_id, 0, reader->map.size_bytes, &err);
        v->pack = v->frame = 0;
        crew_run(v->threads, check_closed_frames, v);
        return;
    }
    SCOPED(store_walk) struct store_walk *walk = store_walk_new(reader);
    v->walk = walk;
    crew_run(v->threads, check_parts, v);
}

static void check_blobs(struct verify *v, const struct store_point *point)
{
    for (size_t i = 0; i < point->record.n_blobs; i++) {
        struct err err = ERR_INIT;
        SCOPED_BUF struct buf bytes;
        const struct record_blob *blob = &point->record.blobs[i];
        buf_init(&bytes, BLOB_FILE_MAX);
        if (!(v->sums_only ? point_blob_read(point, blob, &bytes, &err)
                           : store_point_blob(point, blob->name, &bytes, &err)))
            report_damage(v, NULL, 0, point->record.blobs[i].size_bytes, &err);
    }
}

bool store_verify_point(struct store *store, const char *id_or_prefix,
                        const struct store_verify_opts *opts,
                        struct store_verify_result *ret_result, struct err *err)
{
    const struct store_verify_opts defaults = {0};
    SCOPED(store_point) struct store_point *point = store_point_open_any(store, id_or_prefix, err);
    if (!point)
        return false;
    struct verify v = {.store = store, .opts = opts ? opts : &defaults};
    pthread_mutex_init(&v.lock, NULL);
    v.threads = frame_crew(store, v.opts->threads);
    v.result.sums_only = v.sums_only = !store_can_restore(store);
    v.total_bytes = point->record.info.read_bytes;
    check_blobs(&v, point);
    for (size_t i = 0; i < point->record.n_disks && !v.is_cancelled; i++)
        check_disk(&v, point, &point->record.disks[i]);
    if (!v.is_cancelled)
        report_progress(&v, true);
    pthread_mutex_destroy(&v.lock);
    if (ret_result)
        *ret_result = v.result;
    if (v.is_cancelled)
        return err_set(err, ERR_CANCELLED, 0, "verification of point %s was cancelled",
                       point->record.info.id);
    if (!err_is_set(&v.first))
        return true;
    *err = v.first;
    return false;
}
