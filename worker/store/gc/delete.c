/* SPDX-License-Identifier: Apache-2.0 */
/* Deleting and protecting points; open sessions. */
#include "worker/store/gc/delete.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "worker/store/bytes.h"
#include "worker/store/fate.h"
#include "worker/store/gc/collect.h"
#include "worker/store/object.h"
#include "worker/store/upkeep.h"

/* The whole id of a point that is there, damaged or not. The caller frees. */
static char *find_point(struct store *store, const char *prefix,
                        const struct store_point_list *list, struct err *err)
{
    const char *found = NULL;
    for (size_t i = 0; i < list->count; i++) {
        const char *id = list->items[i].id;
        if (strcmp(id, prefix) == 0)
            return xstrdup(id);
        if (strncmp(id, prefix, strlen(prefix)) != 0)
            continue;
        if (found) {
            err_set(err, ERR_CONFLICT, 0, "'%s' may be point %s or %s: give more of it", prefix,
                    found, id);
            return NULL;
        }
        found = id;
    }
    if (!found) {
        err_set(err, ERR_NOT_FOUND, 0, "repository '%s': there is no point '%s'", store->path,
                prefix);
        return NULL;
    }
    return xstrdup(found);
}

/* ---- deleting */

/* The newest good point of the VM that `id` belongs to is that one. */
static bool is_last_good(const struct store_point_list *list, const char *id)
{
    const struct store_point_info *self = NULL;
    for (size_t i = 0; i < list->count; i++)
        if (strcmp(list->items[i].id, id) == 0)
            self = &list->items[i];
    if (!self || self->damage)
        return false;
    for (size_t i = 0; i < list->count; i++) {
        const struct store_point_info *other = &list->items[i];
        if (other != self && !other->damage && strcmp(other->vm_id, self->vm_id) == 0)
            return false;
    }
    return true;
}

/* A directory is listed, not asked for one name: that a name is not there may be remembered by the
 * client of a network file system. */
static bool is_in(struct store *store, const char *dir, const char *name, bool *ret,
                  struct err *err)
{
    SCOPED_NAMES struct object_names names = {0};
    if (!object_list_fresh(store->dirfd, dir, &names, err)) {
        if (err->code != ERR_NOT_FOUND)
            return err_wrap(err, "repository '%s'", store->path);
        err_clear(err); /* there has never been one */
    }
    *ret = object_names_have(&names, name);
    return true;
}

/* A name in `deleting/` for one attempt. The caller frees. */
static char *attempt_name(const char *id)
{
    uint8_t random[8];
    char hex[2 * sizeof random + 1];
    random_bytes(random, sizeof random);
    hex_encode(random, sizeof random, hex);
    return xasprintf("%s.%s", id, hex);
}

enum attempt { ATTEMPT_DONE, ATTEMPT_PROTECTED, ATTEMPT_STOPPED, ATTEMPT_FAILED };

/* Announce, then look, then make the tombstone of the announcement itself: who has protected the
 * point meanwhile has removed it, so that there is nothing to be made (docs/store-format.md,
 * "Protection"). */
static enum attempt attempt_deletion(struct store *store, const char *id, struct err *err)
{
    SCOPED_FREE char *fate = xasprintf("fate/%s", id), *name = attempt_name(id);
    SCOPED_FREE char *announcement = xasprintf("deleting/%s", name);
    SCOPED_FREE char *tombstone = xasprintf("deleted/%s", id);
    bool is_protected = false, is_deleted = false;
    if (linkat(store->dirfd, fate, store->dirfd, announcement, 0) != 0) {
        err_set_errno(err, errno, "link '%s'", announcement);
        return ATTEMPT_FAILED;
    }
    bool ok = is_in(store, "protected", id, &is_protected, err);
    if (ok && !is_protected && renameat(store->dirfd, announcement, store->dirfd, tombstone) == 0)
        is_deleted = true;
    int errnum = errno;
    /* Also where there was a tombstone already: then the announcement is still there. */
    (void)unlinkat(store->dirfd, announcement, 0);
    if (!ok || is_protected)
        return ok ? ATTEMPT_PROTECTED : ATTEMPT_FAILED;
    /* A network file system may have lost the answer of a rename that was made. */
    if (!is_deleted && (errnum != ENOENT || !is_in(store, "deleted", id, &is_deleted, err))) {
        if (!err_is_set(err))
            err_set_errno(err, errnum, "rename '%s'", announcement);
        return ATTEMPT_FAILED;
    }
    if (!is_deleted)
        return ATTEMPT_STOPPED;
    return object_sync_dir(store->dirfd, "deleted", err) ? ATTEMPT_DONE : ATTEMPT_FAILED;
}

/* *ret_protected: it is not deleted, and will not be by this call. */
static bool delete_point(struct store *store, const char *id, bool *ret_protected, struct err *err)
{
    *ret_protected = false;
    if (!object_make_dir(store->dirfd, "deleted", err) ||
        !object_make_dir(store->dirfd, "deleting", err))
        return false;
    /* Stopped by somebody who has not protected it after all, or by a collector's broom. */
    for (int tries = 0; tries < OBJECT_TRIES; tries++) {
        switch (attempt_deletion(store, id, err)) {
        case ATTEMPT_DONE:
            return true;
        case ATTEMPT_PROTECTED:
            *ret_protected = true;
            return true;
        case ATTEMPT_FAILED:
            return false;
        case ATTEMPT_STOPPED:
            break;
        }
    }
    return err_set(err, ERR_CONFLICT, 0, "somebody stops it again and again");
}

bool delete_planned(struct store *store, const char *id, bool *ret_protected, struct err *err)
{
    return delete_point(store, id, ret_protected, err);
}

bool store_point_delete(struct store *store, const char *id_or_prefix, bool last_too,
                        struct err *err)
{
    struct store_point_list list;
    if (!store_points_list(store, NULL, &list, err))
        return false;
    SCOPED_FREE char *id = find_point(store, id_or_prefix, &list, err);
    bool ok = id != NULL, is_protected = false;
    ok = ok && is_in(store, "protected", id, &is_protected, err);
    if (ok && !is_protected && !last_too && is_last_good(&list, id))
        ok = err_set(err, ERR_REFUSED, 0, "point %s is the last good one of its VM", id);
    if (ok && !is_protected)
        ok = delete_point(store, id, &is_protected, err) || err_wrap(err, "delete point %s", id);
    if (ok && is_protected)
        ok = err_set(err, ERR_REFUSED, 0, "point %s is protected", id);
    store_point_list_done(&list);
    return ok;
}

/* ---- part points */

/* A committed session that has no tombstone. */
static bool is_there(struct store *store, const char *id, bool *ret, struct err *err)
{
    struct fate fate;
    bool is_deleted = false;
    if (!session_id_is_valid(id))
        return err_set(err, ERR_BAD_ARGUMENT, 0, "'%.100s' is no point id", id);
    if (!fate_read(store->dirfd, id, &fate, err) || !is_in(store, "deleted", id, &is_deleted, err))
        return false;
    *ret = fate.kind == FATE_COMMIT && !is_deleted;
    return true;
}

/* A record that cannot be read says nothing: then the caller knows. */
static bool check_is_part(struct store *store, const char *id, struct err *err)
{
    SCOPED(store_point) struct store_point *point = store_point_open_any(store, id, err);
    if (point)
        return store_point_info(point)->part_of ||
               err_set(err, ERR_REFUSED, 0, "point %s is not a part", id);
    bool is_damaged = err->code == ERR_STORE_CORRUPT || err->code == ERR_STORE_VERSION;
    if (is_damaged)
        err_clear(err);
    return is_damaged;
}

static bool delete_part(struct store *store, const char *id, struct err *err)
{
    bool has_it = false, is_protected = false;
    if (!is_there(store, id, &has_it, err))
        return false;
    if (!has_it)
        return true;
    if (!check_is_part(store, id, err)) {
        if (err->code != ERR_NOT_FOUND) /* deleted just now */
            return false;
        err_clear(err);
        return true;
    }
    if (!delete_point(store, id, &is_protected, err))
        return false;
    return !is_protected || err_set(err, ERR_REFUSED, 0, "it is protected");
}

bool store_part_point_delete(struct store *store, const char *id, struct err *err)
{
    return delete_part(store, id, err) || err_wrap(err, "delete part point %s", id);
}

bool store_part_points_delete(struct store *store, const char *part_of, size_t *ret_deleted,
                              struct err *err)
{
    const struct store_point_filter filter = {.part_of = part_of};
    struct store_point_list list;
    *ret_deleted = 0;
    if (!store_points_list(store, &filter, &list, err))
        return false;
    for (size_t i = 0; i < list.count; i++) {
        struct err one = ERR_INIT;
        if (!list.items[i].part_of) /* a damaged one: whose, nobody knows */
            continue;
        if (store_part_point_delete(store, list.items[i].id, &one))
            ++*ret_deleted;
        else
            err_keep_first(err, &one);
    }
    store_point_list_done(&list);
    return !err_is_set(err);
}

/* ---- protecting */

bool store_list_protected(struct store *store, struct object_names *ret_names, struct err *err)
{
    if (object_list(store->dirfd, "protected", ret_names, err))
        return true;
    if (err->code != ERR_NOT_FOUND)
        return err_wrap(err, "repository '%s'", store->path);
    err_clear(err); /* nothing has ever been */
    return true;
}

/* The caller frees. */
static char *find_listed(struct store *store, const char *id_or_prefix, struct err *err)
{
    struct store_point_list list;
    if (!store_points_list(store, NULL, &list, err))
        return NULL;
    char *id = find_point(store, id_or_prefix, &list, err);
    store_point_list_done(&list);
    return id;
}

/* Stop who has announced to delete the point: an announcement that is gone makes no tombstone. */
static bool stop_deletions(struct store *store, const char *id, struct err *err)
{
    SCOPED_NAMES struct object_names names = {0};
    size_t len = strlen(id);
    if (!object_list_fresh(store->dirfd, "deleting", &names, err)) {
        if (err->code != ERR_NOT_FOUND)
            return err_wrap(err, "repository '%s'", store->path);
        err_clear(err); /* nobody has ever deleted anything */
    }
    for (size_t i = 0; i < names.count; i++) {
        if (strncmp(names.items[i], id, len) != 0 || names.items[i][len] != '.')
            continue; /* one of another point, of which this name is a part, does it no harm */
        SCOPED_FREE char *path = xasprintf("deleting/%s", names.items[i]);
        if (unlinkat(store->dirfd, path, 0) != 0 && errno != ENOENT)
            return err_set_errno(err, errno, "remove '%s'", path);
    }
    return true;
}

bool store_point_protect(struct store *store, const char *id_or_prefix, struct err *err)
{
    SCOPED_FREE char *id = find_listed(store, id_or_prefix, err);
    if (!id)
        return false;
    SCOPED_FREE char *fate = xasprintf("fate/%s", id);
    if (!object_make_dir(store->dirfd, "protected", err))
        return false;
    /* Protect, then look, as deleting is to announce, then to look: one of the two sees the other.
     */
    enum put_outcome outcome = object_link_if_absent(store->dirfd, fate, "protected", id, err);
    if (outcome != PUT_CREATED && outcome != PUT_EXISTS)
        return err_wrap(err, "protect point %s", id);
    bool is_deleted = false;
    if (!stop_deletions(store, id, err) || !is_in(store, "deleted", id, &is_deleted, err))
        return err_wrap(err, "protect point %s", id);
    return !is_deleted || err_set(err, ERR_NOT_FOUND, 0, "point %s has just been deleted", id);
}

bool store_point_unprotect(struct store *store, const char *id_or_prefix, struct err *err)
{
    SCOPED_FREE char *id = find_listed(store, id_or_prefix, err);
    if (!id)
        return false;
    SCOPED_FREE char *path = xasprintf("protected/%s", id);
    if (unlinkat(store->dirfd, path, 0) != 0 && errno != ENOENT)
        return err_set_errno(err, errno, "remove '%s'", path);
    return true;
}

/* ---- open sessions */

bool store_sessions_open(struct store *store, struct store_session_list *ret_list, struct err *err)
{
    SCOPED_NAMES struct object_names fates = {0};
    struct object_names open = {0};
    if (!object_list_fresh(store->dirfd, "fate", &fates, err) ||
        !sessions_without_fate(store, &fates, &open, err))
        return err_wrap(err, "repository '%s'", store->path);
    *ret_list = (struct store_session_list){.ids = open.items, .count = open.count};
    return true;
}

void store_session_list_done(struct store_session_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        free(list->ids[i]);
    free(list->ids);
    *list = (struct store_session_list){0};
}
