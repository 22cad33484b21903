/* SPDX-License-Identifier: Apache-2.0 */
/* A disk being written: its map, and the manifest made of it. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "proto/base/file.h"
#include "proto/base/id.h"
#include "worker/store/writer.h"

/* ---- beginning */

static bool check_disk(struct store_session *session, const struct store_disk_opts *opts,
                       struct err *err)
{
    if (!opts->id || !id_is_slug(opts->id, STORE_DISK_ID_MAX))
        return err_set(err, ERR_BAD_ARGUMENT, 0, "'%.100s' is no disk id",
                       opts->id ? opts->id : "");
    if (opts->size_bytes > STORE_DISK_BYTES_MAX)
        return err_set(err, ERR_TOO_LARGE, 0, "disk %s: %" PRIu64 " bytes are more than 1 PiB",
                       opts->id, opts->size_bytes);
    if (session->n_disks == STORE_DISKS_MAX)
        return err_set(err, ERR_TOO_LARGE, 0, "more than %d disks", STORE_DISKS_MAX);
    for (size_t i = 0; i < session->n_disks; i++)
        if (strcmp(session->disks[i]->id, opts->id) == 0)
            return err_set(err, ERR_EXISTS, 0, "disk %s was begun before", opts->id);
    if (opts->parent && opts->parent->store != session->store)
        return err_set(err, ERR_BAD_ARGUMENT, 0, "disk %s: its parent is in another repository",
                       opts->id);
    return true;
}

/* The store's numbers of the packs that a disk of another point refers to, all of them pinned. The
 * caller frees. */
static uint32_t *pin_packs_of(struct store_session *session, const struct store_reader *from)
{
    const struct manifest *map = &from->map;
    uint32_t *packs = xcalloc(map->n_packs + 1u, sizeof *packs);
    for (uint32_t i = 0; i < map->n_packs; i++)
        packs[i] = dedup_pack_committed(session->store->dedup, &map->packs[i]);
    session_pin_parent(session, map->session, map, packs);
    return packs;
}

static void stats_add(struct store_stats *sum, const struct store_stats *add)
{
    sum->read_bytes += add->read_bytes;
    sum->zero_bytes += add->zero_bytes;
    sum->unchanged_bytes += add->unchanged_bytes;
    sum->dedup_bytes += add->dedup_bytes;
    sum->stored_raw_bytes += add->stored_raw_bytes;
    sum->stored_bytes += add->stored_bytes;
    sum->chunks += add->chunks;
}

static struct keep_source *find_source(const struct store_disk *disk,
                                       const struct store_reader *from)
{
    for (size_t i = 0; i < disk->n_sources; i++)
        if (strcmp(disk->sources[i]->point, from->map.session) == 0 &&
            strcmp(disk->sources[i]->disk_id, from->map.disk_id) == 0)
            return disk->sources[i];
    return NULL;
}

/* With the lock held. */
static struct keep_source *add_source(struct store_disk *disk, const struct store_reader *from)
{
    struct keep_source *s = ALLOC_NEW(struct keep_source);
    memcpy(s->point, from->map.session, sizeof s->point);
    memcpy(s->disk_id, from->map.disk_id, sizeof s->disk_id);
    s->packs = pin_packs_of(disk->session, from);
    disk->sources = xreallocarray(disk->sources, disk->n_sources + 1, sizeof *disk->sources);
    disk->sources[disk->n_sources++] = s;
    if (from->is_of_part)
        stats_add(&disk->stats, &from->stats);
    return s;
}

const uint32_t *disk_source_packs(struct store_disk *disk, const struct store_reader *from)
{
    if (from == disk->parent)
        return disk->parent_packs;
    pthread_mutex_lock(&disk->lock);
    const struct keep_source *s = find_source(disk, from);
    if (!s)
        s = add_source(disk, from);
    pthread_mutex_unlock(&disk->lock);
    return s->packs;
}

struct store_disk *store_disk_begin(struct store_session *session,
                                    const struct store_disk_opts *opts, struct err *err)
{
    struct store_disk *disk = NULL;
    pthread_mutex_lock(&session->lock);
    if (check_disk(session, opts, err)) {
        disk = ALLOC_NEW(struct store_disk);
        disk->session = session;
        disk->id = xstrdup(opts->id);
        disk->size_bytes = opts->size_bytes;
        disk->parent = opts->parent;
        pthread_mutex_init(&disk->lock, NULL);
        session->disks =
            xreallocarray(session->disks, session->n_disks + 1, sizeof *session->disks);
        session->disks[session->n_disks++] = disk;
    }
    pthread_mutex_unlock(&session->lock);
    if (disk && disk->parent)
        disk->parent_packs = pin_packs_of(session, disk->parent);
    return disk;
}

void disk_free(struct store_disk *disk)
{
    if (!disk)
        return;
    pthread_mutex_destroy(&disk->lock);
    map_records_done(&disk->records);
    free(disk->parent_packs);
    for (size_t i = 0; i < disk->n_sources; i++) {
        free(disk->sources[i]->packs);
        free(disk->sources[i]);
    }
    free(disk->sources);
    free(disk->id);
    free(disk);
}

/* ---- collecting */

void records_join(struct map_records *list, const struct map_record *record)
{
    if (list->count > 0) {
        struct map_record *last = &list->items[list->count - 1];
        if (map_records_join(last, record)) {
            last->where.blocks_less_1 =
                (uint8_t)(last->where.blocks_less_1 + record->where.blocks_less_1 + 1);
            return;
        }
    }
    map_records_add(list, record);
}

void disk_merge(struct store_disk *disk, const struct map_records *records,
                const struct store_stats *stats)
{
    pthread_mutex_lock(&disk->lock);
    for (size_t i = 0; i < records->count; i++)
        map_records_add(&disk->records, &records->items[i]);
    stats_add(&disk->stats, stats);
    pthread_mutex_unlock(&disk->lock);
}

void store_disk_stats(struct store_disk *disk, struct store_stats *ret_stats)
{
    pthread_mutex_lock(&disk->lock);
    *ret_stats = disk->stats;
    pthread_mutex_unlock(&disk->lock);
}

void store_session_stats(struct store_session *session, struct store_stats *ret_stats)
{
    struct store_stats sum = {0};
    pthread_mutex_lock(&session->lock);
    for (size_t i = 0; i < session->n_disks; i++) {
        struct store_stats one;
        store_disk_stats(session->disks[i], &one);
        stats_add(&sum, &one);
    }
    sum.packs = session->n_packs;
    pthread_mutex_unlock(&session->lock);
    *ret_stats = sum;
}

/* ---- finishing */

static int compare_records(const void *a, const void *b)
{
    const struct map_record *x = a, *y = b;
    return x->block < y->block ? -1 : x->block > y->block;
}

/* Sort and join in place. */
static bool settle_records(struct store_disk *disk, struct err *err)
{
    struct map_records sorted = disk->records;
    disk->records = (struct map_records){0};
    if (sorted.count > 0)
        qsort(sorted.items, sorted.count, sizeof *sorted.items, compare_records);
    struct map_records joined = {.items = sorted.items, .capacity = sorted.capacity};
    bool ok = true;
    for (size_t i = 0; ok && i < sorted.count; i++) {
        struct map_record record = sorted.items[i]; /* joined.count <= i: safe in place */
        if (joined.count > 0 && record.block < map_record_end(&joined.items[joined.count - 1]))
            ok = err_set(err, ERR_BAD_ARGUMENT, 0, "disk %s: block %" PRIu64 " was written twice",
                         disk->id, record.block);
        else
            records_join(&joined, &record);
    }
    disk->records = joined;
    return ok;
}

/* Write out the frames of streams that nobody uses now, so that the statistics are complete. */
static bool flush_idle(struct store_session *session, struct err *err)
{
    pthread_mutex_lock(&session->lock);
    struct store_stream *list = session->idle;
    session->idle = NULL;
    pthread_mutex_unlock(&session->lock);
    bool ok = true;
    while (list) {
        struct store_stream *stream = list;
        list = stream->next;
        ok = ok && stream_flush(stream, err);
        pthread_mutex_lock(&session->lock);
        stream->next = session->idle;
        session->idle = stream;
        pthread_mutex_unlock(&session->lock);
    }
    return ok;
}

bool store_disk_finish(struct store_disk *disk, struct store_stats *ret_stats, struct err *err)
{
    if (!session_check(disk->session, err))
        return false;
    if (atomic_load(&disk->n_carries) > 0)
        err_set(err, ERR_BAD_ARGUMENT, 0, "disk %s: a stream that wrote to it has not ended",
                disk->id);
    if (err_is_set(err) || !flush_idle(disk->session, err))
        return session_fail(disk->session, err);
    pthread_mutex_lock(&disk->lock);
    bool ok = settle_records(disk, err);
    disk->is_finished = ok;
    disk->parent = NULL;
    if (ok && ret_stats)
        *ret_stats = disk->stats;
    pthread_mutex_unlock(&disk->lock);
    return ok || session_fail(disk->session, err);
}

/* ---- the manifest */

static int compare_numbers(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* The store's numbers of all packs the disk refers to, sorted. The caller frees. */
static uint32_t *pack_numbers(const struct map_records *records, uint32_t *ret_n)
{
    uint32_t *numbers = xcalloc(records->count + 1, sizeof *numbers);
    size_t n = 0, kept = 0;
    for (size_t i = 0; i < records->count; i++) /* runs of one pack are the rule */
        if (n == 0 || numbers[n - 1] != records->items[i].where.pack)
            numbers[n++] = records->items[i].where.pack;
    qsort(numbers, n, sizeof *numbers, compare_numbers);
    for (size_t i = 0; i < n; i++)
        if (kept == 0 || numbers[kept - 1] != numbers[i])
            numbers[kept++] = numbers[i];
    *ret_n = (uint32_t)kept;
    return numbers;
}

static void use_local_numbers(struct map_records *records, const uint32_t *numbers, uint32_t n)
{
    for (size_t i = 0; i < records->count; i++) {
        struct location *where = &records->items[i].where;
        const uint32_t *at = bsearch(&where->pack, numbers, n, sizeof *numbers, compare_numbers);
        where->pack = (uint32_t)(at - numbers);
    }
}

static bool write_pages(const struct crypt *crypt, const struct map_records *records,
                        struct manifest *m, int fd, uint64_t *offset, struct err *err)
{
    SCOPED_FREE uint8_t *stored = xmalloc(PAGE_STORED_MAX);
    for (size_t i = 0; i < records->count;) {
        size_t n = page_split(records->items + i, records->count - i);
        struct page_entry entry;
        page_encode(m, crypt, records->items + i, n, stored, &entry);
        entry.offset = *offset;
        if (!file_write_full(fd, stored, entry.stored_len, err))
            return false;
        *offset += entry.stored_len;
        if ((m->n_pages & (m->n_pages - 1)) == 0)
            m->pages = xreallocarray(m->pages, m->n_pages ? m->n_pages * 2 : 1, sizeof *m->pages);
        m->pages[m->n_pages++] = entry;
        i += n;
    }
    return true;
}

static bool write_file(const struct store_disk *disk, struct manifest *m, int fd,
                       uint8_t ret_digest[DIGEST_BYTES], struct err *err)
{
    uint8_t header[MANIFEST_HEADER_BYTES], end[TRAILER_BYTES];
    uint64_t offset = sizeof header;
    manifest_header_encode(disk->session->store->repo_id, header);
    if (!file_write_full(fd, header, sizeof header, err) ||
        !write_pages(disk->session->store->crypt, &disk->records, m, fd, &offset, err))
        return false;
    size_t len;
    SCOPED_FREE uint8_t *tail = manifest_tail_encode(m, &len);
    if (len > MANIFEST_TAIL_MAX)
        return err_set(err, ERR_TOO_LARGE, 0, "the map has too many pages");
    struct trailer trailer = {.tail_offset = offset, .tail_len = (uint32_t)len};
    trailer.file_len = offset + len + TRAILER_BYTES;
    digest_sha256(tail, len, trailer.tail_digest);
    trailer_encode(&trailer, TRAILER_MANIFEST, end);
    if (!file_write_full(fd, tail, len, err) || !file_write_full(fd, end, sizeof end, err))
        return false;
    memcpy(ret_digest, trailer.tail_digest, DIGEST_BYTES);
    return true;
}

static void fill_manifest(struct store_disk *disk, struct manifest *m)
{
    m->size_bytes = disk->size_bytes;
    m->n_records = disk->records.count;
    memcpy(m->disk_id, disk->id, strlen(disk->id));
    memcpy(m->session, disk->session->id, strlen(disk->session->id));
    for (size_t i = 0; i < disk->records.count; i++)
        m->data_blocks += map_record_blocks(&disk->records.items[i]);
    SCOPED_FREE uint32_t *numbers = pack_numbers(&disk->records, &m->n_packs);
    m->packs = xcalloc(m->n_packs + 1u, sizeof *m->packs);
    for (uint32_t i = 0; i < m->n_packs; i++)
        dedup_pack_get(disk->session->store->dedup, numbers[i], &m->packs[i]);
    use_local_numbers(&disk->records, numbers, m->n_packs);
    if (!disk->session->store->crypt)
        return;
    m->uses = xcalloc(m->n_packs + 1u, sizeof *m->uses);
    for (size_t i = 0; i < disk->records.count; i++) {
        const struct location *where = &disk->records.items[i].where;
        frame_use_add(&m->uses[where->pack], where->frame);
    }
}

bool disk_write_manifest(struct store_disk *disk, uint8_t ret_digest[DIGEST_BYTES], struct err *err)
{
    SCOPED_FREE char *path = xasprintf("manifests/%s/%s.mf", disk->session->id, disk->id);
    int fd =
        openat(disk->session->store->dirfd, path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_set_errno(err, errno, "create '%s'", path);
    struct manifest m = {0};
    fill_manifest(disk, &m);
    bool ok = write_file(disk, &m, fd, ret_digest, err);
    manifest_done(&m);
    if (!ok) {
        (void)close(fd);
        return err_wrap(err, "'%s'", path);
    }
    return object_seal(fd, path, err);
}
