/* SPDX-License-Identifier: Apache-2.0 */
/* What sessions and points leave behind, but packs. Failing to remove something is no error: it
 * stays for the next time. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "worker/store/gc/collect.h"
#include "worker/store/gc/pins.h"
#include "worker/store/packfile.h"

static const char *const temp_dirs[] = {"fate",  "sessions",  "deleted", "index", "pins",
                                        "marks", "protected", "damage",  "scrub"};

/* Names in a directory; none when it cannot be listed. */
static struct object_names names_in(const struct view *v, const char *dir)
{
    struct object_names names = {0};
    struct err err = ERR_INIT;
    if (!object_list(v->store->dirfd, dir, &names, &err))
        return (struct object_names){0};
    return names;
}

static bool remove_at(const struct view *v, const char *dir, const char *name, int flags)
{
    SCOPED_FREE char *path = xasprintf("%s/%s", dir, name);
    return unlinkat(v->store->dirfd, path, flags) == 0;
}

static bool is_dead(const struct view *v, const char *session)
{
    return object_names_have(&v->revoked, session) || object_names_have(&v->bequeathed, session) ||
           object_names_have(&v->deleted, session);
}

/* The announcements and pins of sessions that have ended. */
static void sweep_sessions(const struct view *v, struct store_collect_result *result)
{
    SCOPED_NAMES struct object_names sessions = names_in(v, "sessions"), pins = names_in(v, "pins");
    for (size_t i = 0; i < sessions.count; i++)
        if (object_names_have(&v->fates, sessions.items[i]))
            result->sessions_swept += remove_at(v, "sessions", sessions.items[i], 0);
    for (size_t i = 0; i < pins.count; i++) {
        SCOPED_FREE char *session = xstrdup(pins.items[i]);
        if (pin_session(session) && object_names_have(&v->fates, session))
            (void)remove_at(v, "pins", pins.items[i], 0);
    }
}

static void sweep_manifests(const struct view *v)
{
    SCOPED_NAMES struct object_names dirs = names_in(v, "manifests");
    for (size_t i = 0; i < dirs.count; i++) {
        if (!is_dead(v, dirs.items[i]) || v->pins_everything ||
            object_names_have(&v->pinned_points, dirs.items[i]))
            continue;
        SCOPED_FREE char *dir = xasprintf("manifests/%s", dirs.items[i]);
        SCOPED_NAMES struct object_names files = names_in(v, dir);
        for (size_t k = 0; k < files.count; k++)
            (void)remove_at(v, dir, files.items[k], 0);
        (void)remove_at(v, "manifests", dirs.items[i], AT_REMOVEDIR);
    }
}

static bool any_pack_exists(const struct view *v, const struct index *ix)
{
    char path[64];
    struct stat st;
    for (uint32_t i = 0; i < ix->n_packs; i++) {
        pack_path(ix->packs[i].id, path);
        if (fstatat(v->store->dirfd, path, &st, AT_SYMLINK_NOFOLLOW) == 0 || errno != ENOENT)
            return true;
    }
    return false;
}

/* An index serves as long as a pack of it is there, whoever refers to it. */
static bool index_serves(const struct view *v, const char *name)
{
    SCOPED_FREE char *path = xasprintf("index/%s", name);
    SCOPED_BUF struct buf bytes;
    struct err err = ERR_INIT;
    struct index ix;
    if (!object_read(v->store->dirfd, path, INDEX_BYTES_MAX, &bytes, &err))
        return true; /* not now */
    if (!index_decode((const uint8_t *)buf_str(&bytes), bytes.len, v->store->repo_id, &ix, &err))
        return false;
    bool serves = any_pack_exists(v, &ix);
    index_done(&ix);
    return serves;
}

static void sweep_indexes(const struct view *v)
{
    SCOPED_NAMES struct object_names files = names_in(v, "index");
    for (size_t i = 0; i < files.count; i++) {
        SCOPED_FREE char *session = xstrdup(files.items[i]);
        char *dot = strrchr(session, '.');
        if (!dot || strcmp(dot, ".ix") != 0)
            continue;
        *dot = '\0';
        if (object_names_have(&v->revoked, session) || object_names_have(&v->bequeathed, session) ||
            (object_names_have(&v->deleted, session) && !index_serves(v, files.items[i])))
            (void)remove_at(v, "index", files.items[i], 0);
    }
}

static void sweep_of_deleted(const struct view *v, const char *dir)
{
    SCOPED_NAMES struct object_names files = names_in(v, dir);
    for (size_t i = 0; i < files.count; i++)
        if (object_names_have(&v->deleted, files.items[i]))
            (void)remove_at(v, dir, files.items[i], 0);
}

/* Announcements of deletions: who made one that is still wanted makes it anew. */
static void sweep_deletions(const struct view *v)
{
    SCOPED_NAMES struct object_names files = names_in(v, "deleting");
    for (size_t i = 0; i < files.count; i++)
        (void)remove_at(v, "deleting", files.items[i], 0);
}

void sweep_leftovers(const struct view *v, struct store_collect_result *result)
{
    sweep_sessions(v, result);
    sweep_manifests(v);
    sweep_indexes(v);
    sweep_of_deleted(v, "damage");
    sweep_of_deleted(v, "protected");
    sweep_deletions(v);
    for (size_t i = 0; i < ARRAY_LEN(temp_dirs); i++)
        result->temps_swept += object_sweep_temps(v->store->dirfd, temp_dirs[i]);
}
