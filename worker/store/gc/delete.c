/* SPDX-License-Identifier: Apache-2.0 */
/* Deleting and protecting points; open sessions. */
#include "worker/store/gc/delete.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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

static bool exists(struct store *store, const char *dir, const char *name)
{
    SCOPED_FREE char *path = xasprintf("%s/%s", dir, name);
    struct stat st;
    return fstatat(store->dirfd, path, &st, AT_SYMLINK_NOFOLLOW) == 0;
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

static bool delete_point(struct store *store, const char *id, struct err *err)
{
    SCOPED_FREE char *fate = xasprintf("fate/%s", id);
    switch (object_link_if_absent(store->dirfd, fate, "deleted", id, err)) {
    case PUT_CREATED:
    case PUT_EXISTS:
        return true;
    case PUT_FAILED:
    case PUT_UNKNOWN:
    case PUT_UNSYNCED:
        break;
    }
    return false;
}

bool delete_planned(struct store *store, const char *id, bool *ret_protected, struct err *err)
{
    *ret_protected = exists(store, "protected", id);
    return *ret_protected || delete_point(store, id, err);
}

bool store_point_delete(struct store *store, const char *id_or_prefix, bool last_too,
                        struct err *err)
{
    struct store_point_list list;
    if (!object_make_dir(store->dirfd, "deleted", err) ||
        !store_points_list(store, NULL, &list, err))
        return false;
    SCOPED_FREE char *id = find_point(store, id_or_prefix, &list, err);
    bool ok = id != NULL;
    if (ok && exists(store, "protected", id))
        ok = err_set(err, ERR_REFUSED, 0, "point %s is protected", id);
    if (ok && !last_too && is_last_good(&list, id))
        ok = err_set(err, ERR_REFUSED, 0, "point %s is the last good one of its VM", id);
    ok = ok && (delete_point(store, id, err) || err_wrap(err, "delete point %s", id));
    store_point_list_done(&list);
    return ok;
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

bool store_point_protect(struct store *store, const char *id_or_prefix, struct err *err)
{
    SCOPED_FREE char *id = find_listed(store, id_or_prefix, err);
    if (!id)
        return false;
    SCOPED_FREE char *fate = xasprintf("fate/%s", id);
    if (!object_make_dir(store->dirfd, "protected", err))
        return false;
    enum put_outcome outcome = object_link_if_absent(store->dirfd, fate, "protected", id, err);
    if (outcome != PUT_CREATED && outcome != PUT_EXISTS)
        return err_wrap(err, "protect point %s", id);
    if (!exists(store, "deleted", id))
        return true;
    return err_set(err, ERR_NOT_FOUND, 0, "point %s has just been deleted", id);
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
