/* SPDX-License-Identifier: Apache-2.0 */
/* Reading a disk of a restore point. */
#include "worker/store/reader.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/base/file.h"
#include "worker/store/bytes.h"
#include "worker/store/packfile.h"

enum { PAGE_CACHE_BYTES = 1 << 20 };

/* A decoded page of the map. */
struct map_page {
    size_t n;
    struct map_record records[];
};

void map_records_add(struct map_records *list, const struct map_record *record)
{
    if (list->count == list->capacity) {
        list->capacity = list->capacity ? list->capacity * 2 : 64;
        list->items = xreallocarray(list->items, list->capacity, sizeof *list->items);
    }
    list->items[list->count++] = *record;
}

void map_records_done(struct map_records *list)
{
    free(list->items);
    *list = (struct map_records){0};
}

/* ---- opening */

static bool read_tail(struct store_reader *r, const uint8_t want_digest[DIGEST_BYTES],
                      struct err *err)
{
    struct stat st;
    if (fstat(r->fd, &st) != 0)
        return err_set_errno(err, errno, "stat");
    uint64_t file_len = (uint64_t)st.st_size;
    uint8_t header[MANIFEST_HEADER_BYTES], end[TRAILER_BYTES], repository[16];
    struct trailer trailer;
    if (file_len < MANIFEST_HEADER_BYTES + TRAILER_BYTES)
        return err_set(err, ERR_STORE_CORRUPT, 0, "cut short: %" PRIu64 " bytes", file_len);
    if (!file_pread_full(r->fd, header, sizeof header, 0, err) ||
        !manifest_header_decode(header, repository, err) ||
        !file_pread_full(r->fd, end, sizeof end, file_len - TRAILER_BYTES, err) ||
        !trailer_decode(end, TRAILER_MANIFEST, file_len, MANIFEST_TAIL_MAX, &trailer, err))
        return false;
    if (memcmp(repository, r->store->repo_id, sizeof repository) != 0)
        return err_set(err, ERR_STORE_CORRUPT, 0, "belongs to another repository");
    SCOPED_FREE uint8_t *tail = xmalloc(trailer.tail_len + 1u);
    if (!file_pread_full(r->fd, tail, trailer.tail_len, trailer.tail_offset, err))
        return false;
    uint8_t digest[DIGEST_BYTES];
    digest_sha256(tail, trailer.tail_len, digest);
    if (memcmp(digest, want_digest, DIGEST_BYTES) != 0)
        return err_set(err, ERR_STORE_CORRUPT, 0, "wrong digest");
    return manifest_tail_decode(tail, trailer.tail_len, trailer.tail_offset,
                                r->store->crypt != NULL, &r->map, err);
}

static bool open_manifest(struct store_reader *r, const struct store_point *point,
                          const struct record_disk *disk, struct err *err)
{
    const char *session = point->record.info.id;
    SCOPED_FREE char *path = xasprintf("manifests/%s/%s.mf", session, disk->disk.id);
    r->fd = openat(r->store->dirfd, path, O_RDONLY | O_CLOEXEC);
    if (r->fd < 0 && errno == ENOENT)
        return err_set(err, ERR_STORE_CORRUPT, ENOENT, "'%s' is missing", path);
    if (r->fd < 0)
        return err_set_errno(err, errno, "open '%s'", path);
    if (!read_tail(r, disk->manifest_digest, err))
        return err_wrap(err, "'%s'", path);
    if (strcmp(r->map.disk_id, disk->disk.id) != 0 || strcmp(r->map.session, session) != 0 ||
        r->map.size_bytes != disk->disk.size_bytes)
        return err_set(err, ERR_STORE_CORRUPT, 0, "'%s' is of another disk", path);
    return true;
}

struct store_reader *store_disk_open(struct store_point *point, const char *disk_id,
                                     struct err *err)
{
    const char *session = point->record.info.id;
    const struct record_disk *disk = point_disk(point, disk_id);
    if (!disk) {
        err_set(err, ERR_NOT_FOUND, 0, "point %s has no disk '%s'", session, disk_id);
        return NULL;
    }
    SCOPED(store_reader) struct store_reader *r = ALLOC_NEW(struct store_reader);
    r->store = point->store;
    r->fd = -1;
    r->name = xasprintf("point %s disk %s", session, disk_id);
    r->is_of_part = point->record.info.part_of != NULL;
    r->stats = disk->disk.stats;
    if (!open_manifest(r, point, disk, err)) {
        err_wrap(err, "%s", r->name);
        return NULL;
    }
    r->pages = cache_new(PAGE_CACHE_BYTES, free);
    return TAKE(r);
}

void store_reader_free(struct store_reader *reader)
{
    if (!reader)
        return;
    cache_free(reader->pages);
    manifest_done(&reader->map);
    if (reader->fd >= 0)
        (void)close(reader->fd);
    free(reader->name);
    free(reader);
}

uint64_t store_reader_size(const struct store_reader *reader)
{
    return reader->map.size_bytes;
}

uint64_t store_reader_data(const struct store_reader *reader)
{
    return reader->map.data_blocks * STORE_BLOCK_BYTES;
}

uint64_t store_reader_pieces(const struct store_reader *reader)
{
    return reader->map.n_records;
}

/* ---- the map */

struct page_request {
    struct store_reader *reader;
    uint32_t number;
};

static void *load_page(void *context, size_t *ret_bytes, struct err *err)
{
    const struct page_request *request = context;
    struct store_reader *r = request->reader;
    const struct page_entry *entry = &r->map.pages[request->number];
    SCOPED_FREE uint8_t *stored = xmalloc(entry->stored_len);
    struct map_page *page = xmalloc(sizeof *page + entry->n_records * sizeof *page->records);
    page->n = entry->n_records;
    if (!store_needs_key(r->store, KEY_TO_WRITE, err) ||
        !file_pread_full(r->fd, stored, entry->stored_len, entry->offset, err) ||
        !page_decode(&r->map, r->store->crypt, stored, entry, page->records, err)) {
        free(page);
        return NULL;
    }
    *ret_bytes = sizeof *page + page->n * sizeof *page->records;
    return page;
}

/* The first page that may hold something at or after the block: the last one that begins at or
 * before it, or else the first one. */
static uint32_t find_page(const struct manifest *map, uint64_t block)
{
    uint32_t low = 0, high = map->n_pages;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        *(map->pages[middle].first_block <= block ? &low : &high) = middle;
    }
    return low;
}

/* The first record of the page that ends after the block. */
static size_t find_record(const struct map_page *page, uint64_t block)
{
    size_t low = 0, high = page->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (map_record_end(&page->records[middle]) <= block)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Append the part of a record in [block, end). False when it overlaps the one before it. */
static bool add_cut(struct map_records *out, const struct map_record *r, uint64_t block,
                    uint64_t end)
{
    uint64_t from = r->block > block ? r->block : block;
    uint64_t to = map_record_end(r) < end ? map_record_end(r) : end;
    if (out->count > 0 && from < map_record_end(&out->items[out->count - 1]))
        return false;
    map_records_add(out, &(struct map_record){
                             .block = from,
                             .where = {.pack = r->where.pack,
                                       .frame = r->where.frame,
                                       .first = (uint8_t)(r->where.first + (from - r->block)),
                                       .blocks_less_1 = (uint8_t)(to - from - 1)},
                         });
    return true;
}

bool reader_map(struct store_reader *reader, uint64_t block, uint64_t n, struct map_records *out,
                struct err *err)
{
    const struct manifest *map = &reader->map;
    uint64_t end = block + n;
    for (uint32_t p = find_page(map, block); p < map->n_pages && map->pages[p].first_block < end;
         p++) {
        struct page_request request = {.reader = reader, .number = p};
        struct cache_key key = {0};
        put_u32(key.bytes, p);
        struct cache_item *item = cache_pin(reader->pages, &key, load_page, &request, err);
        if (!item)
            return err_wrap(err, "%s", reader->name);
        const struct map_page *page = cache_value(item);
        bool ok = true;
        for (size_t i = find_record(page, block); ok && i < page->n && page->records[i].block < end;
             i++)
            ok = add_cut(out, &page->records[i], block, end);
        cache_unpin(reader->pages, item);
        if (!ok)
            return err_set(err, ERR_STORE_CORRUPT, 0, "%s: pages of the map overlap", reader->name);
    }
    return true;
}

void frame_uses_free(struct frame_use *uses, uint32_t n_packs)
{
    for (uint32_t i = 0; uses && i < n_packs; i++)
        free(uses[i].bits);
    free(uses);
}

static bool uses_of_pages(struct store_reader *reader, struct frame_use *uses, struct err *err)
{
    const struct manifest *map = &reader->map;
    uint64_t end = disk_blocks(map->size_bytes);
    for (uint32_t p = 0; p < map->n_pages; p++) {
        SCOPED_MAP_RECORDS struct map_records records = {0};
        uint64_t from = map->pages[p].first_block;
        uint64_t to = p + 1 < map->n_pages ? map->pages[p + 1].first_block : end;
        if (!reader_map(reader, from, to - from, &records, err))
            return false;
        for (size_t i = 0; i < records.count; i++)
            frame_use_add(&uses[records.items[i].where.pack], records.items[i].where.frame);
    }
    return true;
}

bool reader_frame_uses(struct store_reader *reader, struct frame_use **ret_uses, struct err *err)
{
    const struct manifest *map = &reader->map;
    struct frame_use *uses = xcalloc(map->n_packs + 1u, sizeof *uses);
    for (uint32_t i = 0; map->uses && i < map->n_packs; i++) {
        uses[i].len = map->uses[i].len;
        uses[i].bits = xmalloc(uses[i].len);
        memcpy(uses[i].bits, map->uses[i].bits, uses[i].len);
    }
    if (!map->uses && !uses_of_pages(reader, uses, err)) {
        frame_uses_free(uses, map->n_packs);
        return false;
    }
    *ret_uses = uses;
    return true;
}

/* ---- reading */

static bool check_range(const struct store_reader *r, uint64_t offset, uint64_t len,
                        struct err *err)
{
    if (offset > r->map.size_bytes || len > r->map.size_bytes - offset)
        return err_set(err, ERR_BAD_ARGUMENT, 0,
                       "%s: %" PRIu64 " bytes at offset %" PRIu64 " are beyond its end, %" PRIu64,
                       r->name, len, offset, r->map.size_bytes);
    return true;
}

/* The records that touch a range of bytes. */
static bool map_bytes(struct store_reader *r, uint64_t offset, uint64_t len,
                      struct map_records *out, struct err *err)
{
    uint64_t first = offset / STORE_BLOCK_BYTES;
    uint64_t end = disk_blocks(offset + len);
    return len == 0 || reader_map(r, first, end - first, out, err);
}

bool store_disk_extents(struct store_reader *reader, uint64_t offset, uint64_t len,
                        struct extents *out, struct err *err)
{
    SCOPED_MAP_RECORDS struct map_records records = {0};
    if (!check_range(reader, offset, len, err) || !map_bytes(reader, offset, len, &records, err))
        return false;
    uint64_t at = offset, end = offset + len;
    for (size_t i = 0; i < records.count; i++) {
        uint64_t from = records.items[i].block * STORE_BLOCK_BYTES;
        uint64_t to = map_record_end(&records.items[i]) * STORE_BLOCK_BYTES;
        from = from > at ? from : at;
        to = to < end ? to : end;
        extents_add(out, at, from - at, false);
        extents_add(out, from, to - from, true);
        at = to;
    }
    extents_add(out, at, end - at, false);
    return true;
}

/* Copy what a record has of [offset, offset + len) into buf. */
static bool read_record(struct store_reader *r, const struct map_record *record, uint8_t *buf,
                        size_t len, uint64_t offset, struct err *err)
{
    struct cache_item *item =
        frame_pin(r->store, &r->map.packs[record->where.pack], record->where.frame, err);
    if (!item)
        return false;
    const struct frame *frame = frame_of(item);
    bool ok = record->where.first + map_record_blocks(record) <= frame->blocks;
    if (ok) {
        uint64_t from = record->block * STORE_BLOCK_BYTES;
        uint64_t to = map_record_end(record) * STORE_BLOCK_BYTES;
        const uint8_t *data = frame->data + (size_t)record->where.first * STORE_BLOCK_BYTES;
        uint64_t at = from > offset ? from : offset;
        uint64_t end = to < offset + len ? to : offset + len;
        memcpy(buf + (at - offset), data + (at - from), (size_t)(end - at));
    } else {
        err_set(err, ERR_STORE_CORRUPT, 0, "the map points beyond a frame");
    }
    cache_unpin(r->store->frames, item);
    return ok;
}

static void zero_bytes(uint8_t *buf, uint64_t base, uint64_t from, uint64_t to)
{
    if (to > from)
        memset(buf + (from - base), 0, (size_t)(to - from));
}

bool store_disk_read(struct store_reader *reader, void *buf, size_t len, uint64_t offset,
                     struct err *err)
{
    SCOPED_MAP_RECORDS struct map_records records = {0};
    if (!check_range(reader, offset, len, err) || !map_bytes(reader, offset, len, &records, err))
        return false;
    uint64_t at = offset, end = offset + len;
    for (size_t i = 0; i < records.count; i++) {
        const struct map_record *record = &records.items[i];
        zero_bytes(buf, offset, at, record->block * STORE_BLOCK_BYTES);
        if (!read_record(reader, record, buf, len, offset, err))
            return err_wrap(err, "%s offset %" PRIu64, reader->name,
                            record->block * STORE_BLOCK_BYTES);
        at = map_record_end(record) * STORE_BLOCK_BYTES;
    }
    zero_bytes(buf, offset, at, end);
    return true;
}
