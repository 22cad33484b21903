/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Verifying a restore point: everything that a restore would read. A disk is taken in windows, so
 * that memory is bounded; the places a window refers to are sorted by pack and frame, so that each
 * frame is read once, in order, by one of the threads.
 */
#include <inttypes.h>
#include <pthread.h>
#include <string.h>

#include "proto/base/clock.h"
#include "proto/base/file.h"
#include "worker/store/blob.h"
#include "worker/store/packfile.h"
#include "worker/store/reader.h"

enum { THREADS_MAX = 64, REPORT_EVERY_MS = 200 };
#define WINDOW_BLOCKS (UINT64_C(4) << 20) /* 16 GiB */

struct verify {
    struct store *store;
    const struct store_verify_opts *opts;
    uint64_t total_bytes;
    /* Of the window. */
    struct store_reader *reader;
    const char *disk_id;
    const struct map_record *records; /* sorted by place */
    size_t count;
    pthread_mutex_t lock; /* guards what follows, and serialises the callbacks */
    size_t next;          /* record */
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

/* ---- checking the records that lie in one frame */

static bool same_frame(const struct map_record *a, const struct map_record *b)
{
    return a->where.pack == b->where.pack && a->where.frame == b->where.frame;
}

/* The blocks the frame has; 0 when it cannot be used. */
static uint32_t check_frame(struct verify *v, const struct map_record *r, struct err *err)
{
    const struct pack_ref *ref = &v->reader->map.packs[r->where.pack];
    uint32_t blocks = 0;
    if (!v->opts->quick && v->result.sums_only)
        return frame_check_sums(v->store, ref, r->where.frame, err);
    if (!v->opts->quick) {
        struct frame *frame = frame_load(v->store, ref, r->where.frame, err);
        blocks = frame ? frame->blocks : 0;
        free(frame);
        return blocks;
    }
    struct cache_item *item = pack_pin(v->store, ref, err);
    if (!item)
        return 0;
    const struct open_pack *pack = pack_of(item);
    if (r->where.frame < pack->footer.n_frames)
        blocks = pack->footer.frames[r->where.frame].raw_len / STORE_BLOCK_BYTES;
    else
        err_set(err, ERR_STORE_CORRUPT, 0, "'%s' frame %u is not there", pack->path,
                r->where.frame);
    cache_unpin(v->store->packs, item);
    return blocks;
}

static void check_group(struct verify *v, const struct map_record *records, size_t n)
{
    struct err why = ERR_INIT, beyond = ERR_INIT;
    uint32_t blocks = check_frame(v, records, &why);
    err_set(&beyond, ERR_STORE_CORRUPT, 0, "the map points beyond a frame");
    pthread_mutex_lock(&v->lock);
    if (!v->opts->quick)
        v->result.checked_bytes += (uint64_t)blocks * STORE_BLOCK_BYTES;
    for (size_t i = 0; i < n; i++) {
        const struct map_record *r = &records[i];
        if (blocks == 0)
            damaged_record(v, r, &why);
        else if (r->where.first + map_record_blocks(r) > blocks)
            damaged_record(v, r, &beyond);
        v->done_bytes += (uint64_t)map_record_blocks(r) * STORE_BLOCK_BYTES;
    }
    report_progress(v, false);
    pthread_mutex_unlock(&v->lock);
}

static size_t take_group(struct verify *v, size_t *ret_first)
{
    pthread_mutex_lock(&v->lock);
    size_t first = v->next, end = first;
    if (!v->is_cancelled)
        while (end < v->count && same_frame(&v->records[first], &v->records[end]))
            end++;
    v->next = end;
    pthread_mutex_unlock(&v->lock);
    *ret_first = first;
    return end - first;
}

static void *check_main(void *arg)
{
    struct verify *v = arg;
    size_t first, n;
    while ((n = take_group(v, &first)) > 0)
        check_group(v, &v->records[first], n);
    return NULL;
}

/* ---- windows, disks, blobs */

static int compare_places(const void *a, const void *b)
{
    const struct location *x = &((const struct map_record *)a)->where;
    const struct location *y = &((const struct map_record *)b)->where;
    if (x->pack != y->pack)
        return x->pack < y->pack ? -1 : 1;
    if (x->frame != y->frame)
        return x->frame < y->frame ? -1 : 1;
    return (int)x->first - (int)y->first;
}

static void check_window(struct verify *v, struct map_records *records)
{
    if (records->count == 0)
        return;
    qsort(records->items, records->count, sizeof *records->items, compare_places);
    v->records = records->items;
    v->count = records->count;
    v->next = 0;
    pthread_t threads[THREADS_MAX];
    unsigned want = v->opts->threads > THREADS_MAX ? THREADS_MAX : v->opts->threads, n = 0;
    while (n + 1 < want && pthread_create(&threads[n], NULL, check_main, v) == 0)
        n++;
    check_main(v); /* this one helps, and is enough when no thread can be had */
    for (unsigned i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
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

/* Nobody can tell which part of the disk a frame is of: any damage is one to all of it. */
static void check_closed_frame(struct verify *v, uint32_t pack, uint32_t frame)
{
    struct err why = ERR_INIT;
    const struct map_record where = {.where = {.pack = pack, .frame = (uint16_t)frame}};
    uint32_t blocks = check_frame(v, &where, &why);
    if (blocks == 0)
        report_damage(v, v->disk_id, 0, v->reader->map.size_bytes, &why);
    else if (!v->opts->quick)
        v->result.checked_bytes += (uint64_t)blocks * STORE_BLOCK_BYTES;
    v->done_bytes += (uint64_t)blocks * STORE_BLOCK_BYTES;
    report_progress(v, false);
}

static void check_closed(struct verify *v)
{
    struct err err = ERR_INIT;
    const struct manifest *map = &v->reader->map;
    if (!check_closed_pages(v->reader, &err))
        report_damage(v, v->disk_id, 0, map->size_bytes, &err);
    for (uint32_t p = 0; p < map->n_packs && !v->is_cancelled; p++)
        for (uint32_t f = 0; f < map->uses[p].len * 8 && !v->is_cancelled; f++)
            if (frame_use_has(&map->uses[p], f))
                check_closed_frame(v, p, f);
}

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
        check_closed(v);
        return;
    }
    uint64_t blocks = disk_blocks(reader->map.size_bytes);
    for (uint64_t at = 0; at < blocks && !v->is_cancelled; at += WINDOW_BLOCKS) {
        uint64_t n = blocks - at < WINDOW_BLOCKS ? blocks - at : WINDOW_BLOCKS;
        SCOPED_MAP_RECORDS struct map_records records = {0};
        if (reader_map(reader, at, n, &records, &err)) {
            check_window(v, &records);
            continue;
        }
        uint64_t offset = at * STORE_BLOCK_BYTES, end = (at + n) * STORE_BLOCK_BYTES;
        end = end < reader->map.size_bytes ? end : reader->map.size_bytes;
        report_damage(v, v->disk_id, offset, end - offset, &err);
        err_clear(&err);
    }
}

static void check_blobs(struct verify *v, const struct store_point *point)
{
    for (size_t i = 0; i < point->record.n_blobs; i++) {
        struct err err = ERR_INIT;
        SCOPED_BUF struct buf bytes;
        const struct record_blob *blob = &point->record.blobs[i];
        buf_init(&bytes, BLOB_FILE_MAX);
        if (!(v->result.sums_only ? point_blob_read(point, blob, &bytes, &err)
                                  : store_point_blob(point, blob->name, &bytes, &err)))
            report_damage(v, NULL, 0, point->record.blobs[i].size_bytes, &err);
    }
}

bool store_verify_point(struct store *store, const char *id_or_prefix,
                        const struct store_verify_opts *opts,
                        struct store_verify_result *ret_result, struct err *err)
{
    const struct store_verify_opts defaults = {.threads = 1};
    SCOPED(store_point) struct store_point *point = store_point_open(store, id_or_prefix, err);
    if (!point)
        return false;
    struct verify v = {.store = store, .opts = opts ? opts : &defaults};
    pthread_mutex_init(&v.lock, NULL);
    v.result.sums_only = !store_can_restore(store);
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
