/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The collector. Its order is the proof (docs/store-format.md, "Garbage"): packs are listed, then
 * pins, fates and points are looked at; what nobody refers to is marked; pins, fates and points are
 * looked at again; what is marked and still not referred to is removed.
 */
#include "worker/store/gc/collect.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/base/log.h"
#include "worker/store/bytes.h"
#include "worker/store/gc/relocate.h"

enum { COMPACT_BELOW_PERCENT = 50 };

enum pack_plan {
    PLAN_STAY,
    PLAN_DEAD,    /* of a session that was revoked: nobody may refer to it */
    PLAN_REMOVE,  /* nobody refers to it: marked */
    PLAN_COMPACT, /* few frames are referred to: the others are marked */
};

struct pack_entry {
    uint8_t id[PACK_ID_BYTES];
    enum pack_plan plan;
    uint64_t bytes;
};

struct collector {
    struct store *store;
    const struct store_collect_opts *opts;
    struct store_collect_result *result;
    struct view view;
    struct pack_entry *packs;
    size_t n_packs, cap_packs;
    struct object_names open; /* sessions without fate, seen after the packs were listed */
    struct mark_list new_marks;
};

static bool is_cancelled(const struct collector *c, struct err *err)
{
    if (!c->opts->cancelled || !c->opts->cancelled(c->opts->context))
        return false;
    err_set(err, ERR_CANCELLED, 0, "collecting garbage was cancelled");
    return true;
}

/* ---- the packs that are there */

static void add_pack(struct collector *c, const char *dir, const char *name)
{
    char hex[2 * PACK_ID_BYTES + 1];
    struct pack_entry e = {.plan = PLAN_STAY};
    size_t len = strlen(name);
    if (len != sizeof hex - 1 + 3 || strcmp(name + len - 3, ".pk") != 0)
        return;
    memcpy(hex, name, sizeof hex - 1);
    hex[sizeof hex - 1] = '\0';
    SCOPED_FREE char *path = xasprintf("packs/%s/%s", dir, name);
    struct stat st;
    if (!hex_decode(hex, e.id, PACK_ID_BYTES) || strncmp(dir, hex, 2) != 0 ||
        fstatat(c->store->dirfd, path, &st, AT_SYMLINK_NOFOLLOW) != 0)
        return;
    e.bytes = (uint64_t)st.st_size;
    if (c->n_packs == c->cap_packs) {
        c->cap_packs = c->cap_packs ? c->cap_packs * 2 : 256;
        c->packs = xreallocarray(c->packs, c->cap_packs, sizeof *c->packs);
    }
    c->packs[c->n_packs++] = e;
    c->result->packs_before++;
    c->result->bytes_before += e.bytes;
}

static bool list_packs(struct collector *c, struct err *err)
{
    SCOPED_NAMES struct object_names dirs = {0};
    if (!object_list_fresh(c->store->dirfd, "packs", &dirs, err))
        return false;
    for (size_t i = 0; i < dirs.count; i++) {
        SCOPED_FREE char *path = xasprintf("packs/%s", dirs.items[i]);
        SCOPED_NAMES struct object_names files = {0};
        if (strlen(dirs.items[i]) != 2)
            continue;
        if (!object_list(c->store->dirfd, path, &files, err))
            return false;
        for (size_t k = 0; k < files.count; k++)
            add_pack(c, dirs.items[i], files.items[k]);
        if (!c->opts->dry_run)
            c->result->temps_swept += object_sweep_temps(c->store->dirfd, path);
        if (is_cancelled(c, err))
            return false;
    }
    return true;
}

/* ---- sessions that somebody knows to be dead */

static bool revoke_dead(struct collector *c, struct err *err)
{
    if (!c->opts->is_dead || c->opts->dry_run)
        return true;
    struct store_session_list open;
    if (!store_sessions_open(c->store, &open, err))
        return false;
    bool ok = true;
    for (size_t i = 0; ok && i < open.count; i++) {
        bool was_committed;
        if (c->opts->is_dead(c->opts->context, open.ids[i]))
            ok = store_session_revoke(c->store, open.ids[i], &was_committed, err);
    }
    store_session_list_done(&open);
    return ok;
}

/* ---- what to do with a pack nobody refers to */

/* The session in the header of a pack; false when there is none to be read. */
static bool read_owner(const struct collector *c, const struct pack_entry *e,
                       struct pack_header *ret_header)
{
    char path[64];
    uint8_t bytes[PACK_HEADER_BYTES];
    struct err err = ERR_INIT;
    pack_path(e->id, path);
    SCOPED_FD int fd = openat(c->store->dirfd, path, O_RDONLY | O_CLOEXEC);
    return fd >= 0 && pread(fd, bytes, sizeof bytes, 0) == (ssize_t)sizeof bytes &&
           pack_header_decode(bytes, ret_header, &err);
}

static enum pack_plan plan_by_owner(struct collector *c, const struct pack_entry *e)
{
    struct pack_header header;
    if (!read_owner(c, e, &header)) /* torn, or damaged */
        return c->open.count == 0 ? PLAN_REMOVE : PLAN_STAY;
    if (object_names_have(&c->view.revoked, header.session))
        return PLAN_DEAD;
    if (object_names_have(&c->view.fates, header.session))
        return PLAN_REMOVE;
    if (object_names_have(&c->open, header.session) || c->opts->dry_run)
        return PLAN_STAY;
    /* Neither announced nor ended: its announcement was lost. Revoking is always safe. */
    struct err err = ERR_INIT;
    struct fate stands = {.kind = FATE_NONE};
    if (!store_declare_dead(c->store, header.session, FATE_REVOKE, &stands, &err)) {
        log_err(LOG_LEVEL_WARN, "store_revoke_failed", &err);
        return PLAN_STAY;
    }
    return stands.kind == FATE_REVOKE ? PLAN_DEAD : PLAN_STAY;
}

/* ---- which frames of a pack are dead */

/* The dead frames of a pack, when they are more than the limit: bits, which the caller frees. */
static uint8_t *dead_frames(const struct collector *c, const struct pack_use *use,
                            uint32_t *ret_bytes)
{
    struct raw_pack pack;
    struct err err = ERR_INIT;
    if (!raw_pack_open(c->store->dirfd, use->ref.id, false, &pack, &err))
        return NULL; /* verification will tell */
    uint32_t n = pack.relocation.n_frames;
    uint8_t *bits = xcalloc(1, n / 8 + 1u);
    uint64_t all = 0, live = 0;
    for (uint32_t i = 0; i < n; i++) {
        const struct frame_place *p = &pack.relocation.places[i];
        all += p->stored_len;
        if (pack_use_has(use, i))
            live += p->stored_len;
        else
            bits[i / 8] |= (uint8_t)(1u << i % 8);
    }
    raw_pack_close(&pack);
    int percent = c->opts->compact_below_percent;
    percent = percent == 0 ? COMPACT_BELOW_PERCENT : percent;
    if (live >= all || live * 100 >= all * (uint64_t)percent) {
        free(bits);
        return NULL;
    }
    *ret_bytes = n / 8 + 1u;
    return bits;
}

/* ---- planning */

static void plan_referred(struct collector *c, struct pack_entry *e, const struct pack_use *use)
{
    uint32_t n_bytes = 0;
    if (!c->view.frames || view_is_pinned(&c->view, e->id))
        return;
    SCOPED_FREE uint8_t *bits = dead_frames(c, use, &n_bytes);
    if (!bits)
        return;
    e->plan = PLAN_COMPACT;
    mark_list_add(&c->new_marks, e->id, MARK_GARBAGE, bits, n_bytes);
}

static bool make_plan(struct collector *c, struct err *err)
{
    for (size_t i = 0; i < c->n_packs; i++) {
        struct pack_entry *e = &c->packs[i];
        const struct pack_use *use = usage_find(c->view.usage, e->id);
        if (use)
            plan_referred(c, e, use);
        else
            e->plan = plan_by_owner(c, e);
        if (!use && e->plan == PLAN_STAY)
            c->result->packs_held++;
        if (e->plan == PLAN_REMOVE && marks_of_pack(c->store->marks, e->id) != MARKED_ALL)
            mark_list_add(&c->new_marks, e->id, MARK_GARBAGE, NULL, 0);
        if (is_cancelled(c, err))
            return false;
    }
    return true;
}

/* ---- acting */

static void remove_pack(struct collector *c, const struct pack_entry *e, uint64_t *counter)
{
    char path[64];
    pack_path(e->id, path);
    if (!c->opts->dry_run && unlinkat(c->store->dirfd, path, 0) != 0)
        return; /* another collector was faster, or the next run will do it */
    ++*counter;
    c->result->bytes_freed += e->bytes;
}

struct compaction {
    const struct collector *c;
    const struct pack_use *use;
    const uint8_t *id;
};

static enum rewrite_action keep_or_drop(void *context, uint32_t frame, const uint8_t **ret_bytes,
                                        size_t *ret_len)
{
    const struct compaction *x = context;
    (void)ret_bytes;
    (void)ret_len;
    return !pack_use_has(x->use, frame) && marks_has(x->c->store->marks, x->id, frame)
               ? REWRITE_DROP
               : REWRITE_COPY;
}

static void compact_pack(struct collector *c, const struct pack_entry *e)
{
    struct compaction x = {.c = c, .use = usage_find(c->view.usage, e->id), .id = e->id};
    struct rewrite how = {.context = &x, .choose = keep_or_drop};
    struct raw_pack pack;
    struct err err = ERR_INIT;
    uint64_t len = 0;
    if (!raw_pack_open(c->store->dirfd, e->id, true, &pack, &err))
        return log_err(LOG_LEVEL_WARN, "store_compaction_skipped", &err);
    bool ok = raw_pack_rewrite(c->store->dirfd, &pack, &how, &len, &err);
    raw_pack_close(&pack);
    if (!ok)
        return log_err(LOG_LEVEL_WARN, "store_compaction_skipped", &err);
    c->result->packs_compacted++;
    c->result->bytes_freed += e->bytes > len ? e->bytes - len : 0;
}

/* Packs of sessions that were revoked: nobody refers to them, marked or not. Those of bequeathed
 * ones are like those of points. */
static void remove_dead(struct collector *c)
{
    for (size_t i = 0; i < c->n_packs; i++)
        if (c->packs[i].plan == PLAN_DEAD)
            remove_pack(c, &c->packs[i], &c->result->packs_dead);
}

static bool remove_unreferred(struct collector *c, struct err *err)
{
    for (size_t i = 0; i < c->n_packs; i++) {
        const struct pack_entry *e = &c->packs[i];
        if (e->plan != PLAN_REMOVE && e->plan != PLAN_COMPACT)
            continue;
        const struct pack_use *use = usage_find(c->view.usage, e->id);
        if (view_is_pinned(&c->view, e->id) || (e->plan == PLAN_REMOVE && use))
            c->result->packs_held++;
        else if (e->plan == PLAN_REMOVE)
            remove_pack(c, e, &c->result->packs_removed);
        else if (!c->opts->dry_run)
            compact_pack(c, e);
        else
            c->result->packs_compacted++;
        if (is_cancelled(c, err))
            return false;
    }
    return true;
}

/* Mark, then look; then remove. */
static bool collect_marked(struct collector *c, struct err *err)
{
    struct store *store = c->store;
    if (c->opts->dry_run)
        return remove_unreferred(c, err);
    if (!mark_list_put(store->dirfd, store->repo_id, &c->new_marks, err) ||
        !marks_refresh(store->marks, store->dirfd, store->repo_id, err) ||
        !view_look(&c->view, err))
        return false;
    if (marks_are_blind(store->marks) && c->view.blocked[0] == '\0')
        (void)snprintf(c->view.blocked, sizeof c->view.blocked,
                       "a list in 'marks/' cannot be read: what it marks is not known");
    return c->view.blocked[0] != '\0' || remove_unreferred(c, err);
}

static bool collect(struct collector *c, struct err *err)
{
    struct store *store = c->store;
    if (!revoke_dead(c, err) || !list_packs(c, err) || !view_look(&c->view, err) ||
        !sessions_without_fate(store, &c->view.fates, &c->open, err) ||
        !marks_refresh(store->marks, store->dirfd, store->repo_id, err))
        return false;
    c->result->sessions_open = c->open.count;
    c->result->points = c->view.live.count;
    if (!make_plan(c, err))
        return false;
    remove_dead(c);
    if (!c->opts->dry_run) /* before the marks: on a full disk this makes room for them */
        sweep_leftovers(&c->view, c->result);
    if (c->view.blocked[0] == '\0' && !collect_marked(c, err))
        return false;
    if (!c->opts->dry_run) /* indexes whose last pack has gone */
        sweep_leftovers(&c->view, c->result);
    memcpy(c->result->blocked, c->view.blocked, sizeof c->result->blocked);
    return true;
}

bool store_collect(struct store *store, const struct store_collect_opts *opts,
                   struct store_collect_result *ret_result, struct err *err)
{
    const struct store_collect_opts defaults = {0};
    struct store_collect_result result = {0};
    struct collector c = {.store = store, .opts = opts ? opts : &defaults, .result = &result};
    view_init(&c.view, store, c.opts->compact_below_percent >= 0);
    bool ok = store_make_directories(store, err) && collect(&c, err);
    view_done(&c.view);
    object_names_done(&c.open);
    mark_list_done(&c.new_marks);
    free(c.packs);
    if (ret_result)
        *ret_result = result;
    return ok || err_wrap(err, "collect garbage of '%s'", store->path);
}
