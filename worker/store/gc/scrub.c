/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scrubbing: packs are read in the order of their names, which are random, from a cursor on; a run
 * takes a share of all names, so N runs of a share of 1/N read everything that was there at the
 * first of them, whatever the time between them. What is damaged is healed, or marked and written
 * down for the points it hurts.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/clock.h"
#include "proto/base/log.h"
#include "worker/store/blob.h"
#include "worker/store/bytes.h"
#include "worker/store/crew.h"
#include "worker/store/gc/collect.h"
#include "worker/store/gc/damage.h"
#include "worker/store/gc/heal.h"
#include "worker/store/gc/relocate.h"
#include "worker/store/gc/repair.h"
#include "worker/store/reader.h"

enum { CURSOR_END = 1 << 16, CURSOR_TEXT_MAX = 64, SAVE_EVERY = 64 /* packs */ };
#define WINDOW_BLOCKS (UINT64_C(4) << 20) /* 16 GiB of a disk at a time */

struct scrub {
    struct store *store;
    const struct store_scrub_opts *opts;
    struct store_scrub_result *result;
    struct view view;
    pthread_mutex_t lock; /* guards `bad` and `result` while a pack's frames are checked */
    struct bad_frames bad;
    uint8_t (*checked)[PACK_ID_BYTES]; /* out of turn */
    size_t n_checked;
    int64_t started_ms;
    uint32_t from, len; /* of the names' first two bytes, CURSOR_END in all */
};

static bool is_cancelled(struct scrub *s, struct err *err)
{
    if (!s->opts->cancelled || !s->opts->cancelled(s->opts->context))
        return false;
    err_set(err, ERR_CANCELLED, 0, "scrubbing was cancelled");
    return true;
}

/* A frame will be read. Keep to the bandwidth: the bytes read so far should have taken this long.
 */
static void pace(struct scrub *s, uint64_t bytes)
{
    pthread_mutex_lock(&s->lock);
    s->result->frames++;
    uint64_t sum = s->result->bytes_read += bytes;
    pthread_mutex_unlock(&s->lock);
    if (s->opts->bytes_per_s == 0)
        return;
    int64_t due_ms = (int64_t)(sum * 1000 / s->opts->bytes_per_s);
    int64_t spent_ms = clock_mono_ms(clock_system()) - s->started_ms;
    if (due_ms > spent_ms)
        clock_sleep_ms(clock_system(), due_ms - spent_ms);
}

/* ---- the cursor */

static const char cursor_head[] = "oxbow-scrub 1 ";

static size_t cursor_text(uint32_t at, char out[CURSOR_TEXT_MAX])
{
    int n = snprintf(out, CURSOR_TEXT_MAX, "%s%" PRIu32 " ", cursor_head, at);
    n += snprintf(out + n, CURSOR_TEXT_MAX - (size_t)n, "%08" PRIx32 "\n", crc32c(out, (size_t)n));
    return (size_t)n;
}

uint32_t scrub_cursor_read(struct store *store)
{
    SCOPED_BUF struct buf text;
    struct err err = ERR_INIT;
    char want[CURSOR_TEXT_MAX];
    if (!object_read(store->dirfd, "scrub/cursor", CURSOR_TEXT_MAX, &text, &err) ||
        strncmp(buf_str(&text), cursor_head, sizeof cursor_head - 1) != 0)
        return 0; /* lost: begin anew */
    unsigned long at = strtoul(buf_str(&text) + sizeof cursor_head - 1, NULL, 10);
    size_t len = cursor_text((uint32_t)(at % CURSOR_END), want);
    return text.len == len && memcmp(buf_str(&text), want, len) == 0 ? (uint32_t)at : 0;
}

static void save_cursor(const struct scrub *s, uint32_t done)
{
    char text[CURSOR_TEXT_MAX];
    struct err err = ERR_INIT;
    size_t len = cursor_text((s->from + done) % CURSOR_END, text);
    if (!object_replace(s->store->dirfd, "scrub", "cursor", text, len, &err))
        log_err(LOG_LEVEL_WARN, "store_scrub_cursor", &err);
}

/* How far from the cursor a name is. */
static uint32_t distance(const struct scrub *s, const uint8_t *name)
{
    return ((uint32_t)name[0] << 8 | name[1]) + CURSOR_END - s->from;
}

static bool is_due(const struct scrub *s, const uint8_t *name)
{
    return distance(s, name) % CURSOR_END < s->len;
}

/* ---- reading packs */

static void found_bad(struct scrub *s, const struct pack_ref *ref, uint32_t frame, bool whole_pack,
                      const struct err *why)
{
    struct bad_frame bad = {.ref = *ref, .frame = frame, .whole_pack = whole_pack};
    (void)snprintf(bad.why, sizeof bad.why, "%.150s", why->message);
    pthread_mutex_lock(&s->lock);
    bad_frames_add(&s->bad, &bad);
    pthread_mutex_unlock(&s->lock);
}

static bool check_frame(struct scrub *s, const struct pack_ref *ref, struct open_pack *pack,
                        uint32_t frame)
{
    struct err err = ERR_INIT;
    const struct frame_entry *entry = &pack->footer.frames[frame];
    if (entry->offset == 0)
        return true; /* compacted away */
    pace(s, FRAME_HEADER_BYTES + (uint64_t)entry->stored_len);
    if (!store_can_restore(s->store)) { /* as far as that goes without a key */
        if (open_pack_check_sums(s->store, pack, (uint16_t)frame, FRAME_FROM_DISK, &err))
            return true;
    } else {
        struct frame *data =
            open_pack_frame(s->store, pack, (uint16_t)frame, FRAME_FROM_DISK, &err);
        if (data) {
            frame_free(data);
            return true;
        }
    }
    if (err.code != ERR_STORE_CORRUPT && err.code != ERR_IO)
        return false;
    found_bad(s, ref, frame, false, &err);
    return true;
}

/* The frames of a pack, which threads take in turn. */
struct pack_check {
    struct scrub *scrub;
    const struct pack_ref *ref;
    struct open_pack *pack;
    atomic_uint next;
    atomic_bool is_failed;
};

static void check_frames(void *context)
{
    struct pack_check *c = context;
    uint32_t frame;
    while (!atomic_load(&c->is_failed) &&
           (frame = atomic_fetch_add(&c->next, 1)) < c->pack->footer.n_frames)
        if (!check_frame(c->scrub, c->ref, c->pack, frame))
            atomic_store(&c->is_failed, true);
}

static bool check_pack(struct scrub *s, const struct pack_ref *ref, struct err *err)
{
    struct err why = ERR_INIT;
    struct open_pack *pack = open_pack_load(s->store, ref, &why);
    if (pack && memcmp(pack->digest, ref->digest, DIGEST_BYTES) != 0) {
        err_set(&why, ERR_STORE_CORRUPT, 0, "'%s' is not the pack that was written", pack->path);
        open_pack_free(pack);
        pack = NULL;
    }
    if (!pack && why.code != ERR_STORE_CORRUPT && why.code != ERR_IO) {
        *err = why;
        return false;
    }
    s->result->packs++;
    if (!pack) {
        found_bad(s, ref, 0, true, &why);
        return true;
    }
    struct pack_check check = {.scrub = s, .ref = ref, .pack = pack};
    crew_run(frame_crew(s->store, s->opts->threads), check_frames, &check);
    open_pack_free(pack);
    return !atomic_load(&check.is_failed) ||
           err_set(err, ERR_IO, 0, "a frame could not be checked");
}

struct due_pack {
    const struct pack_use *use;
    uint32_t distance;
};

static int compare_due(const void *a, const void *b)
{
    const struct due_pack *x = a, *y = b;
    if (x->distance != y->distance)
        return x->distance < y->distance ? -1 : 1;
    return memcmp(x->use->ref.id, y->use->ref.id, PACK_ID_BYTES);
}

static bool check_packs(struct scrub *s, struct err *err)
{
    size_t n = usage_count(s->view.usage), n_due = 0;
    SCOPED_FREE struct due_pack *due = xcalloc(n + 1, sizeof *due);
    for (size_t i = 0; i < n; i++) {
        const struct pack_use *use = usage_at(s->view.usage, i);
        if (is_due(s, use->ref.id))
            due[n_due++] = (struct due_pack){use, distance(s, use->ref.id) % CURSOR_END};
    }
    qsort(due, n_due, sizeof *due, compare_due);
    for (size_t i = 0; i < n_due; i++) {
        if (!check_pack(s, &due[i].use->ref, err) || is_cancelled(s, err))
            return false;
        if (i % SAVE_EVERY == SAVE_EVERY - 1)
            save_cursor(s, due[i].distance);
        if (s->opts->progress)
            s->opts->progress(s->opts->context, i + 1, n_due);
    }
    return true;
}

/* ---- points */

/* Where a bad frame hurts a disk. */
static void hurt_by_records(const struct scrub *s, const struct store_reader *reader,
                            const char *disk, const struct map_records *records, struct damage *d)
{
    for (size_t i = 0; i < records->count; i++) {
        const struct map_record *r = &records->items[i];
        const struct pack_ref *ref = &reader->map.packs[r->where.pack];
        const struct bad_frame *bad = bad_frames_find(&s->bad, ref->id, r->where.frame);
        if (!bad || bad->is_healed)
            continue;
        struct damage_range range = {.offset = r->block * STORE_BLOCK_BYTES,
                                     .len = (uint64_t)map_record_blocks(r) * STORE_BLOCK_BYTES,
                                     .has_frame = true,
                                     .ref = *ref,
                                     .frame = r->where.frame};
        (void)snprintf(range.disk, sizeof range.disk, "%s", disk);
        memcpy(range.why, bad->why, sizeof range.why);
        damage_add(d, &range);
    }
}

static void hurt_by(struct damage *d, const char *disk, uint64_t len, const struct err *why)
{
    struct damage_range range = {.len = len};
    (void)snprintf(range.disk, sizeof range.disk, "%s", disk);
    (void)snprintf(range.why, sizeof range.why, "%.150s", why->message);
    damage_add(d, &range);
}

/* Of a sealed map without a key: it is not known which part of the disk the frame is. */
static void hurt_by_use_table(const struct scrub *s, const struct manifest *map, const char *disk,
                              struct damage *d)
{
    for (size_t i = 0; i < s->bad.count; i++) {
        const struct bad_frame *bad = &s->bad.items[i];
        for (uint32_t p = 0; p < map->n_packs && !bad->is_healed; p++) {
            if (memcmp(map->packs[p].id, bad->ref.id, PACK_ID_BYTES) != 0 ||
                !(bad->whole_pack || frame_use_has(&map->uses[p], bad->frame)))
                continue;
            struct damage_range range = {.len = map->size_bytes,
                                         .has_frame = true,
                                         .ref = map->packs[p],
                                         .frame = bad->frame};
            (void)snprintf(range.disk, sizeof range.disk, "%s", disk);
            memcpy(range.why, bad->why, sizeof range.why);
            damage_add(d, &range);
        }
    }
}

static bool uses_bad_pack(const struct scrub *s, const struct manifest *map)
{
    for (size_t i = 0; i < s->bad.count; i++)
        for (uint32_t k = 0; k < map->n_packs && !s->bad.items[i].is_healed; k++)
            if (memcmp(map->packs[k].id, s->bad.items[i].ref.id, PACK_ID_BYTES) == 0)
                return true;
    return false;
}

static void check_disk(const struct scrub *s, struct store_point *point,
                       const struct record_disk *disk, bool whole_map, struct damage *d)
{
    struct err err = ERR_INIT;
    const char *id = disk->disk.id;
    SCOPED(store_reader) struct store_reader *reader = store_disk_open(point, id, &err);
    if (!reader)
        return hurt_by(d, id, disk->disk.size_bytes, &err);
    if (!whole_map && !uses_bad_pack(s, &reader->map))
        return;
    if (s->store->crypt && !crypt_can_write(s->store->crypt)) {
        hurt_by_use_table(s, &reader->map, id, d);
        return;
    }
    uint64_t blocks = disk_blocks(reader->map.size_bytes);
    for (uint64_t at = 0; at < blocks; at += WINDOW_BLOCKS) {
        SCOPED_MAP_RECORDS struct map_records records = {0};
        uint64_t n = blocks - at < WINDOW_BLOCKS ? blocks - at : WINDOW_BLOCKS;
        if (!reader_map(reader, at, n, &records, &err))
            return hurt_by(d, id, disk->disk.size_bytes, &err);
        hurt_by_records(s, reader, id, &records, d);
    }
}

static void check_blobs(const struct store_point *point, struct damage *d)
{
    for (size_t i = 0; i < point->record.n_blobs; i++) {
        struct err err = ERR_INIT;
        SCOPED_BUF struct buf bytes;
        const struct record_blob *blob = &point->record.blobs[i];
        buf_init(&bytes, BLOB_FILE_MAX);
        bool ok = store_can_restore(point->store)
                      ? store_point_blob(point, blob->name, &bytes, &err)
                      : point_blob_read(point, blob, &bytes, &err);
        if (!ok && err.code != ERR_PERMISSION)
            hurt_by(d, "", point->record.blobs[i].size_bytes, &err);
    }
}

/* What hurts the point now; `whole`: look at its own files too. */
static bool examine_point(struct scrub *s, const char *id, bool whole, struct damage *d,
                          struct err *err)
{
    SCOPED(store_point) struct store_point *point = store_point_open_any(s->store, id, err);
    if (!point) {
        if (err->code == ERR_NOT_FOUND) { /* deleted meanwhile */
            err_clear(err);
            return true;
        }
        if (err->code != ERR_STORE_CORRUPT && err->code != ERR_IO)
            return false;
        hurt_by(d, "", 0, err);
        err_clear(err);
        return true;
    }
    if (whole)
        check_blobs(point, d);
    for (size_t i = 0; i < point->record.n_disks; i++)
        check_disk(s, point, &point->record.disks[i], whole, d);
    return true;
}

/* Names of sessions are not random: their digest is. */
static bool point_is_due(const struct scrub *s, const char *id)
{
    uint8_t digest[DIGEST_BYTES];
    digest_sha256(id, strlen(id), digest);
    return is_due(s, digest);
}

static bool examine_points(struct scrub *s, const struct object_names *known, struct err *err)
{
    const struct view *v = &s->view;
    for (size_t i = 0; i < v->fates.count; i++) {
        const char *id = v->fates.items[i];
        if (!session_id_is_valid(id) || object_names_have(&v->deleted, id) ||
            object_names_have(&v->revoked, id))
            continue;
        bool was_known = object_names_have(known, id);
        bool whole = was_known || point_is_due(s, id);
        struct damage d = {0};
        bool ok = examine_point(s, id, whole, &d, err);
        if (d.count > 0)
            s->result->points_damaged++;
        else if (was_known && ok)
            s->result->points_healed++;
        if (ok && s->opts->damaged && d.count > 0) {
            SCOPED_FREE char *text = damage_text(&d);
            s->opts->damaged(s->opts->context, id, text);
        }
        /* A point that was known to be damaged is asked about again in full, so this is all. */
        if (ok && (d.count > 0 || was_known))
            ok = damage_put(s->store, id, &d, err);
        damage_done(&d);
        if (!ok || is_cancelled(s, err))
            return false;
    }
    return true;
}

/* ---- marking and healing */

static bool check_once(struct scrub *s, const struct pack_ref *ref, struct err *err)
{
    for (size_t i = 0; i < s->n_checked; i++)
        if (memcmp(s->checked[i], ref->id, PACK_ID_BYTES) == 0)
            return true;
    s->checked = xreallocarray(s->checked, s->n_checked + 1, sizeof *s->checked);
    memcpy(s->checked[s->n_checked++], ref->id, PACK_ID_BYTES);
    return is_due(s, ref->id) || check_pack(s, ref, err);
}

/* All that a point refers to: what is known of its damage cannot be read. */
static bool recheck_point(struct scrub *s, const char *id, struct err *err)
{
    struct err why = ERR_INIT;
    SCOPED(store_point) struct store_point *point = store_point_open_any(s->store, id, &why);
    for (size_t i = 0; point && i < point->record.n_disks; i++) {
        SCOPED(store_reader)
        struct store_reader *reader = store_disk_open(point, point->record.disks[i].disk.id, &why);
        for (uint32_t p = 0; reader && p < reader->map.n_packs; p++)
            if (!check_once(s, &reader->map.packs[p], err))
                return false;
        err_clear(&why);
    }
    return true; /* what cannot be opened is found when the point itself is examined */
}

/* Frames that are written down as damaged, whether they are due or not: perhaps they can be healed
 * today, and perhaps they are good again. */
static bool recheck_known(struct scrub *s, const struct object_names *known, struct err *err)
{
    for (size_t i = 0; i < known->count; i++) {
        struct damage d;
        if (!damage_read(s->store, known->items[i], &d, err))
            return false;
        bool ok = !d.is_unreadable || recheck_point(s, known->items[i], err);
        for (size_t k = 0; k < d.count; k++) {
            const struct pack_use *use =
                d.ranges[k].has_frame ? usage_find(s->view.usage, d.ranges[k].ref.id) : NULL;
            ok = ok && (!use || check_once(s, &use->ref, err));
        }
        damage_done(&d);
        if (!ok)
            return false;
    }
    return true;
}

/* Packs that could not be opened: those that can be now are checked like the others. */
static bool repair_packs(struct scrub *s, struct err *err)
{
    for (size_t i = 0, n = s->bad.count; i < n; i++) {
        bool done = false;
        struct pack_ref ref = s->bad.items[i].ref;
        if (!s->bad.items[i].whole_pack)
            continue;
        if (!pack_repair(s->store, &ref, &done, err))
            return false;
        if (!done)
            continue;
        s->bad.items[i].whole_pack = false;
        s->bad.items[i].frame = BAD_PACK_ITSELF;
        s->bad.items[i].is_healed = true;
        if (!check_pack(s, &ref, err))
            return false;
    }
    return true;
}

static bool mark_bad(struct scrub *s, struct err *err)
{
    SCOPED_MARKS struct mark_list list = {0};
    uint8_t bits[MARK_BITS_MAX];
    for (size_t i = 0; i < s->bad.count; i++) {
        const struct bad_frame *bad = &s->bad.items[i];
        if (bad->is_healed || marks_has(s->store->marks, bad->ref.id, bad->frame))
            continue;
        memset(bits, 0, sizeof bits);
        bits[bad->frame / 8] = (uint8_t)(1u << bad->frame % 8);
        mark_list_add(&list, bad->ref.id, MARK_DAMAGED, bits,
                      bad->whole_pack ? 0 : bad->frame / 8 + 1);
    }
    return mark_list_put(s->store->dirfd, s->store->repo_id, &list, err);
}

static bool scrub(struct scrub *s, struct err *err)
{
    SCOPED_NAMES struct object_names known = {0};
    struct store *store = s->store;
    if (!view_look(&s->view, err) || !damage_list(store, &known, err) ||
        !marks_refresh(store->marks, store->dirfd, store->repo_id, err) || !check_packs(s, err) ||
        !recheck_known(s, &known, err) || (!s->opts->no_healing && !repair_packs(s, err)))
        return false;
    s->result->frames_damaged = s->bad.count;
    if (!s->opts->no_healing && !heal_frames(store, s->view.usage, &s->bad, err))
        return false;
    for (size_t i = 0; i < s->bad.count; i++)
        s->result->frames_healed += s->bad.items[i].is_healed;
    if (!mark_bad(s, err) || !examine_points(s, &known, err))
        return false;
    save_cursor(s, s->len);
    return true;
}

bool store_scrub(struct store *store, const struct store_scrub_opts *opts,
                 struct store_scrub_result *ret_result, struct err *err)
{
    const struct store_scrub_opts defaults = {0};
    struct store_scrub_result result = {0};
    struct scrub s = {.store = store, .opts = opts ? opts : &defaults, .result = &result};
    unsigned share = s.opts->share == 0 ? 1 : s.opts->share;
    s.started_ms = clock_mono_ms(clock_system());
    pthread_mutex_init(&s.lock, NULL);
    s.len = (CURSOR_END + share - 1) / share;
    view_init(&s.view, store, false);
    s.from = scrub_cursor_read(store);
    bool ok = store_make_directories(store, err) && scrub(&s, err);
    view_done(&s.view);
    pthread_mutex_destroy(&s.lock);
    bad_frames_done(&s.bad);
    free(s.checked);
    if (ret_result)
        *ret_result = result;
    return ok || err_wrap(err, "scrub '%s'", store->path);
}
