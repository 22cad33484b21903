/* SPDX-License-Identifier: Apache-2.0 */
/* Listing and opening restore points. */
#include "worker/store/point.h"

#include <inttypes.h>
#include <string.h>

#include "worker/store/blob.h"
#include "worker/store/bytes.h"
#include "worker/store/fate.h"
#include "worker/store/gc/damage.h"

/* ---- loading one point */

static bool check_record(struct store *store, const char *session, const struct point_record *r,
                         struct err *err)
{
    if (strcmp(r->info.id, session) != 0)
        return err_set(err, ERR_STORE_CORRUPT, 0, "point.json belongs to session %s", r->info.id);
    if (strcmp(r->repository, store->repo.uuid) != 0)
        return err_set(err, ERR_STORE_CORRUPT, 0, "point.json belongs to repository %s",
                       r->repository);
    return true;
}

/* The verified point.json of a commit record. */
static bool load_record(struct store *store, const char *session, const struct fate *fate,
                        struct point_record *ret_record, struct err *err)
{
    SCOPED_FREE char *path = xasprintf("manifests/%s/point.json", session);
    SCOPED_BUF struct buf text;
    if (!object_read(store->dirfd, path, STORE_POINT_JSON_MAX, &text, err)) {
        if (err->code == ERR_NOT_FOUND)
            err->code = ERR_STORE_CORRUPT; /* a commit record promises it */
        return false;
    }
    uint8_t digest[DIGEST_BYTES];
    digest_sha256(buf_str(&text), text.len, digest);
    if (memcmp(digest, fate->point_digest, DIGEST_BYTES) != 0)
        return err_set(err, ERR_STORE_CORRUPT, 0, "'%s': wrong digest", path);
    struct point_record record;
    if (!point_record_decode(buf_str(&text), text.len, store->crypt, &record, err))
        return false;
    if (!check_record(store, session, &record, err)) {
        point_record_done(&record);
        return false;
    }
    *ret_record = record;
    return true;
}

/* ---- listing */

static void list_add(struct store_point_list *list, const struct store_point_info *info)
{
    /* Grown by powers of two: full whenever the count is one. */
    if ((list->count & (list->count - 1)) == 0)
        list->items =
            xreallocarray(list->items, list->count ? list->count * 2 : 1, sizeof *list->items);
    list->items[list->count++] = *info;
}

static void info_done(struct store_point_info *info)
{
    free(info->id);
    free(info->vm_id);
    free(info->vm_name);
    free(info->worker);
    free(info->part_of);
    free(info->damage);
    *info = (struct store_point_info){0};
}

void store_point_list_done(struct store_point_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        info_done(&list->items[i]);
    free(list->items);
    *list = (struct store_point_list){0};
}

static bool is_wanted(const char *want, const char *have)
{
    return !want || (have && strcmp(want, have) == 0);
}

static bool matches(const struct store_point_filter *filter, const struct store_point_info *info)
{
    static const struct store_point_filter all = {0};
    const struct store_point_filter *f = filter ? filter : &all;
    return is_wanted(f->vm_id, info->vm_id) && is_wanted(f->vm_name, info->vm_name) &&
           is_wanted(f->part_of, info->part_of) && (f->parts || f->part_of || !info->part_of);
}

/* True when the trouble is with the point; false when the file system has trouble with us. */
static bool is_damage(const struct err *err)
{
    return err->code == ERR_STORE_CORRUPT || err->code == ERR_STORE_VERSION || err->code == ERR_IO;
}

/* What a scrub has found, or NULL. The caller frees. */
static char *known_damage(struct store *store, const char *session,
                          const struct object_names *known)
{
    struct damage damage;
    struct err err = ERR_INIT;
    if (!object_names_have(known, session))
        return NULL;
    if (!damage_read(store, session, &damage, &err))
        return xstrdup(err.message);
    char *text = damage.count > 0 ? damage_text(&damage) : NULL;
    damage_done(&damage);
    return text;
}

static bool list_session(struct store *store, const char *session, const struct object_names *known,
                         const struct store_point_filter *filter, struct store_point_list *list,
                         struct err *err)
{
    struct err why = ERR_INIT;
    struct fate fate;
    struct point_record record = {0};
    struct store_point_info info = {0};
    if (fate_read(store->dirfd, session, &fate, &why)) {
        if (fate.kind != FATE_COMMIT)
            return true;
        if (load_record(store, session, &fate, &record, &why)) {
            if (matches(filter, &record.info)) {
                info = record.info;
                record.info = (struct store_point_info){0};
                info.damage = known_damage(store, session, known);
                list_add(list, &info);
            }
            point_record_done(&record);
            return true;
        }
    }
    if (!is_damage(&why)) {
        *err = why;
        return err_wrap(err, "point %s", session);
    }
    info = (struct store_point_info){
        .id = xstrdup(session),
        .vm_id = xstrdup(""),
        .vm_name = xstrdup(""),
        .worker = xstrdup(""),
        .damage = xstrdup(why.message),
    };
    list_add(list, &info);
    return true;
}

static int compare_points(const void *a, const void *b)
{
    const struct store_point_info *x = a, *y = b;
    if (x->created_ms != y->created_ms)
        return x->created_ms < y->created_ms ? -1 : 1;
    return strcmp(x->id, y->id);
}

bool store_points_list(struct store *store, const struct store_point_filter *filter,
                       struct store_point_list *ret_list, struct err *err)
{
    SCOPED_NAMES struct object_names fates = {0}, deleted = {0}, known = {0};
    if (!object_list(store->dirfd, "fate", &fates, err) || !damage_list(store, &known, err))
        return err_wrap(err, "repository '%s'", store->path);
    if (!store_list_deleted(store, &deleted, err))
        return false;
    struct store_point_list list = {0};
    for (size_t i = 0; i < fates.count; i++) {
        if (!session_id_is_valid(fates.items[i]) || object_names_have(&deleted, fates.items[i]))
            continue;
        if (!list_session(store, fates.items[i], &known, filter, &list, err)) {
            store_point_list_done(&list);
            return err_wrap(err, "repository '%s'", store->path);
        }
    }
    if (list.count > 0)
        qsort(list.items, list.count, sizeof *list.items, compare_points);
    *ret_list = list;
    return true;
}

/* ---- opening */

/* One that cannot be read is none. */
static bool is_part_point(struct store *store, const char *session, const struct fate *fate)
{
    struct point_record record = {0};
    struct err ignored = ERR_INIT;
    if (!load_record(store, session, fate, &record, &ignored))
        return false;
    bool is_part = record.info.part_of != NULL;
    point_record_done(&record);
    return is_part;
}

/* Of the committed, undeleted sessions: the one of that name, or the only one with that prefix, not
 * counting part points if those are not wanted. The caller frees. */
static char *find_session(struct store *store, const char *prefix, bool parts_too,
                          struct fate *ret_fate, struct err *err)
{
    SCOPED_NAMES struct object_names fates = {0}, deleted = {0};
    if (!object_list(store->dirfd, "fate", &fates, err) ||
        !store_list_deleted(store, &deleted, err))
        return NULL;
    SCOPED_FREE char *found = NULL;
    for (size_t i = 0; i < fates.count; i++) {
        const char *name = fates.items[i];
        bool is_exact = strcmp(name, prefix) == 0;
        if (strncmp(name, prefix, strlen(prefix)) != 0 || object_names_have(&deleted, name))
            continue;
        struct fate fate;
        if (!fate_read(store->dirfd, name, &fate, err))
            return NULL;
        if (fate.kind != FATE_COMMIT ||
            (!is_exact && !parts_too && is_part_point(store, name, &fate)))
            continue;
        if (found) {
            err_set(err, ERR_CONFLICT, 0, "'%s' may be point %s or %s: give more of it", prefix,
                    found, name);
            return NULL;
        }
        found = xstrdup(name);
        *ret_fate = fate;
        if (is_exact) /* sorted: it comes before all it is a prefix of */
            break;
    }
    if (!found)
        err_set(err, ERR_NOT_FOUND, 0, "there is no point '%s'", prefix);
    return TAKE(found);
}

struct store_point *point_open_session(struct store *store, const char *session,
                                       const struct fate *fate, struct err *err)
{
    struct store_point *point = ALLOC_NEW(struct store_point);
    point->store = store;
    if (!load_record(store, session, fate, &point->record, err)) {
        free(point);
        err_wrap(err, "point %s", session);
        return NULL;
    }
    return point;
}

static struct store_point *find_and_open(struct store *store, const char *id_or_prefix,
                                         bool parts_too, struct err *err)
{
    struct fate fate;
    if (!session_id_is_valid(id_or_prefix)) {
        err_set(err, ERR_BAD_ARGUMENT, 0, "'%.*s' is no point id", STORE_SESSION_ID_MAX,
                id_or_prefix);
        return NULL;
    }
    SCOPED_FREE char *session = find_session(store, id_or_prefix, parts_too, &fate, err);
    if (!session) {
        err_wrap(err, "repository '%s'", store->path);
        return NULL;
    }
    return point_open_session(store, session, &fate, err);
}

struct store_point *store_point_open_any(struct store *store, const char *id_or_prefix,
                                         struct err *err)
{
    return find_and_open(store, id_or_prefix, true, err);
}

struct store_point *store_point_open(struct store *store, const char *id_or_prefix, struct err *err)
{
    SCOPED(store_point)
    struct store_point *point = find_and_open(store, id_or_prefix, false, err);
    if (!point || !point->record.info.part_of)
        return TAKE(point);
    err_set(err, ERR_REFUSED, 0, "point %s is only a part, copied for task %s, not a whole VM",
            point->record.info.id, point->record.info.part_of);
    return NULL;
}

void store_point_free(struct store_point *point)
{
    if (!point)
        return;
    point_record_done(&point->record);
    free(point);
}

const struct store_point_info *store_point_info(const struct store_point *point)
{
    return &point->record.info;
}

size_t store_point_disk_count(const struct store_point *point)
{
    return point->record.n_disks;
}

const struct store_point_disk *store_point_disk(const struct store_point *point, size_t i)
{
    return i < point->record.n_disks ? &point->record.disks[i].disk : NULL;
}

const struct record_disk *point_disk(const struct store_point *point, const char *disk_id)
{
    for (size_t i = 0; i < point->record.n_disks; i++)
        if (strcmp(point->record.disks[i].disk.id, disk_id) == 0)
            return &point->record.disks[i];
    return NULL;
}

const json_t *store_point_meta(const struct store_point *point)
{
    return json_object_get(point->record.json, "meta");
}

const json_t *store_point_json(const struct store_point *point)
{
    return point->record.json;
}

size_t store_point_blob_count(const struct store_point *point)
{
    return point->record.n_blobs;
}

const char *store_point_blob_name(const struct store_point *point, size_t i)
{
    return i < point->record.n_blobs ? point->record.blobs[i].name : NULL;
}

bool point_blob_read(const struct store_point *point, const struct record_blob *blob,
                     struct buf *out, struct err *err)
{
    const char *id = point->record.info.id;
    SCOPED_FREE char *path = xasprintf("manifests/%s/%s", id, blob->name);
    if (!object_read(point->store->dirfd, path, BLOB_FILE_MAX, out, err)) {
        if (err->code == ERR_NOT_FOUND)
            err->code = ERR_STORE_CORRUPT;
        return err_wrap(err, "point %s", id);
    }
    uint8_t digest[DIGEST_BYTES];
    digest_sha256(buf_str(out), out->len, digest);
    if (out->len != blob->size_bytes || memcmp(digest, blob->digest, DIGEST_BYTES) != 0) {
        buf_done(out);
        return err_set(err, ERR_STORE_CORRUPT, 0, "point %s: '%s': wrong digest", id, path);
    }
    return true;
}

bool store_point_blob(const struct store_point *point, const char *name, struct buf *out,
                      struct err *err)
{
    const struct record_blob *blob = NULL;
    const struct crypt *crypt = point->store->crypt;
    const char *id = point->record.info.id;
    for (size_t i = 0; i < point->record.n_blobs; i++)
        if (strcmp(point->record.blobs[i].name, name) == 0)
            blob = &point->record.blobs[i];
    buf_init(out, BLOB_FILE_MAX);
    if (!blob)
        return err_set(err, ERR_NOT_FOUND, 0, "point %s has no '%s'", id, name);
    if (!store_needs_key(point->store, KEY_TO_RESTORE, err))
        return err_wrap(err, "point %s", id);
    if (!point_blob_read(point, blob, out, err))
        return false;
    if (!crypt || blob_open(crypt, id, name, out, err))
        return true;
    buf_done(out);
    return err_wrap(err, "point %s: '%s'", id, name);
}
