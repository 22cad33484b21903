/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "proto/base/log.h"
#include "worker/store/fate.h"
#include "worker/store/gc/collect.h"
#include "worker/store/gc/pins.h"

void view_init(struct view *v, struct store *store, bool frames)
{
    *v = (struct view){.store = store, .frames = frames, .usage = usage_new()};
}

static void forget_pins(struct view *v)
{
    free(v->pinned);
    v->pinned = NULL;
    v->n_pinned = 0;
    object_names_done(&v->pinned_points);
    v->pins_everything = false;
}

void view_done(struct view *v)
{
    forget_pins(v);
    object_names_done(&v->fates);
    object_names_done(&v->deleted);
    object_names_done(&v->revoked);
    object_names_done(&v->bequeathed);
    object_names_done(&v->live);
    usage_free(v->usage);
    v->usage = NULL;
}

static void names_add(struct object_names *names, const char *name)
{
    /* Grown by powers of two: full whenever the count is one. */
    if ((names->count & (names->count - 1)) == 0)
        names->items =
            xreallocarray(names->items, names->count ? names->count * 2 : 1, sizeof *names->items);
    names->items[names->count++] = xstrdup(name);
}

/* ---- pins */

struct seen_pin {
    char *session;
    struct pin pin;
    bool is_bad;
};

struct seen_pins {
    struct seen_pin *items;
    size_t count;
};

static void seen_pins_done(struct seen_pins *seen)
{
    for (size_t i = 0; i < seen->count; i++) {
        free(seen->items[i].session);
        pin_done(&seen->items[i].pin);
    }
    free(seen->items);
    *seen = (struct seen_pins){0};
}

static bool read_pin(struct store *store, const char *name, struct seen_pins *seen, struct err *err)
{
    SCOPED_FREE char *path = xasprintf("pins/%s", name);
    SCOPED_FREE char *session = xstrdup(name);
    SCOPED_BUF struct buf bytes;
    if (!pin_session(session))
        return true;
    struct seen_pin one = {0};
    if (!object_read(store->dirfd, path, PINS_BYTES_MAX, &bytes, err) ||
        !pin_decode((const uint8_t *)buf_str(&bytes), bytes.len, store->repo_id, &one.pin, err)) {
        bool is_gone = err->code == ERR_NOT_FOUND; /* its session has ended meanwhile */
        err_wrap(err, "'%s'", path);
        if (!is_gone && err->code != ERR_STORE_CORRUPT && err->code != ERR_STORE_VERSION)
            return false;
        if (!is_gone)
            log_err(LOG_LEVEL_WARN, "store_pin_unreadable", err);
        err_clear(err);
        if (is_gone)
            return true;
        one.is_bad = true;
    }
    one.session = TAKE(session);
    seen->items[seen->count++] = one;
    return true;
}

static bool read_pins(struct store *store, struct seen_pins *seen, struct err *err)
{
    SCOPED_NAMES struct object_names names = {0};
    if (!object_list_fresh(store->dirfd, "pins", &names, err)) {
        if (err->code != ERR_NOT_FOUND)
            return false;
        err_clear(err); /* nobody has ever pinned */
        return true;
    }
    seen->items = xcalloc(names.count + 1, sizeof *seen->items);
    for (size_t i = 0; i < names.count; i++)
        if (!read_pin(store, names.items[i], seen, err))
            return false;
    return true;
}

static int compare_ids(const void *a, const void *b)
{
    return memcmp(a, b, PACK_ID_BYTES);
}

/* Those of sessions without a fate count. */
static void take_pins(struct view *v, const struct seen_pins *seen)
{
    forget_pins(v);
    size_t n = 0;
    for (size_t i = 0; i < seen->count; i++)
        n += seen->items[i].pin.n_packs;
    v->pinned = xcalloc(n + 1, sizeof *v->pinned);
    for (size_t i = 0; i < seen->count; i++) {
        const struct seen_pin *s = &seen->items[i];
        if (object_names_have(&v->fates, s->session))
            continue;
        v->pins_everything = v->pins_everything || s->is_bad;
        if (s->is_bad)
            continue;
        for (size_t k = 0; k < s->pin.n_packs; k++)
            memcpy(v->pinned[v->n_pinned++], s->pin.packs[k], PACK_ID_BYTES);
        if (s->pin.point[0] != '\0')
            names_add(&v->pinned_points, s->pin.point);
    }
    qsort(v->pinned, v->n_pinned, sizeof *v->pinned, compare_ids);
    object_names_sort(&v->pinned_points);
}

bool view_is_pinned(const struct view *v, const uint8_t id[PACK_ID_BYTES])
{
    return v->pins_everything ||
           bsearch(id, v->pinned, v->n_pinned, sizeof *v->pinned, compare_ids) != NULL;
}

/* ---- fates and points */

static bool has_tombstone(const struct view *v, const char *session)
{
    SCOPED_FREE char *path = xasprintf("deleted/%s", session);
    struct stat st;
    return fstatat(v->store->dirfd, path, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

/* A point that cannot be read: what it refers to is not known. */
static bool point_unreadable(struct view *v, const char *session, struct err *err)
{
    /* Deleted meanwhile, and swept by another collector. */
    if (has_tombstone(v, session)) {
        err_clear(err);
        return true;
    }
    if (err->code != ERR_STORE_CORRUPT && err->code != ERR_STORE_VERSION && err->code != ERR_IO)
        return false;
    if (v->blocked[0] == '\0')
        memcpy(v->blocked, err->message, sizeof v->blocked);
    err_clear(err);
    return true;
}

/* Sessions that were not known yet. */
struct news {
    struct object_names live, revoked, bequeathed;
};

static bool look_at_session(struct view *v, const char *session, struct news *news, struct err *err)
{
    struct fate fate;
    if (object_names_have(&v->deleted, session) || object_names_have(&v->live, session) ||
        object_names_have(&v->revoked, session) || object_names_have(&v->bequeathed, session))
        return true;
    if (!fate_read(v->store->dirfd, session, &fate, err))
        return point_unreadable(v, session, err);
    if (fate_is_death(&fate)) {
        names_add(fate.kind == FATE_REVOKE ? &news->revoked : &news->bequeathed, session);
        return true;
    }
    if (!usage_add_point(v->usage, v->store, session, v->frames, err))
        return point_unreadable(v, session, err);
    names_add(&news->live, session);
    return true;
}

/* Move the names of `from` over. */
static void names_join(struct object_names *to, struct object_names *from)
{
    to->items = xreallocarray(to->items, to->count + from->count + 1, sizeof *to->items);
    for (size_t i = 0; i < from->count; i++)
        to->items[to->count++] = from->items[i];
    free(from->items);
    *from = (struct object_names){0};
    /* Full to a power of two no more: names_add() is not used on joined lists. */
    object_names_sort(to);
}

static bool look_at_fates(struct view *v, struct err *err)
{
    object_names_done(&v->fates);
    object_names_done(&v->deleted);
    if (!object_list_fresh(v->store->dirfd, "fate", &v->fates, err) ||
        !store_list_deleted(v->store, &v->deleted, err))
        return false;
    v->blocked[0] = '\0';
    struct news news = {0};
    bool ok = true;
    for (size_t i = 0; ok && i < v->fates.count; i++)
        ok = !session_id_is_valid(v->fates.items[i]) ||
             look_at_session(v, v->fates.items[i], &news, err);
    names_join(&v->live, &news.live);
    names_join(&v->revoked, &news.revoked);
    names_join(&v->bequeathed, &news.bequeathed);
    return ok;
}

bool view_look(struct view *v, struct err *err)
{
    struct seen_pins seen = {0};
    bool ok = read_pins(v->store, &seen, err) && look_at_fates(v, err); /* in this order */
    if (ok)
        take_pins(v, &seen);
    seen_pins_done(&seen);
    return ok || err_wrap(err, "repository '%s'", v->store->path);
}

/* ---- open sessions */

bool sessions_without_fate(struct store *store, const struct object_names *fates,
                           struct object_names *ret_names, struct err *err)
{
    struct object_names names = {0};
    if (!object_list_fresh(store->dirfd, "sessions", &names, err)) {
        if (err->code != ERR_NOT_FOUND)
            return false;
        err_clear(err);
    }
    size_t kept = 0;
    for (size_t i = 0; i < names.count; i++) {
        if (session_id_is_valid(names.items[i]) && !object_names_have(fates, names.items[i]))
            names.items[kept++] = names.items[i];
        else
            free(names.items[i]);
    }
    names.count = kept;
    *ret_names = names;
    return true;
}
