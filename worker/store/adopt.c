/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a dead attempt has stored, for the next one (docs/store-format.md, "Bequests"). The names of
 * a session's packs follow from its id, so they are found without a list. A pack is taken when it
 * is known to be durable and its footer is right; then its name is made durable; then it is pinned,
 * and the marks are looked at, as for every pack of another session.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "proto/base/log.h"
#include "worker/store/packfile.h"
#include "worker/store/writer.h"

enum {
    MISSING_MAX = 32, /* names in a row that are not there: the last one was before them. Streams
                         take a number, then make the file; a collector may have removed some */
    HOOK_SAMPLE = 64, /* of chunks, beside the first one of each frame */
};

/* Packs that may be adopted. */
struct estate {
    struct store *store;
    const char *dead_id;
    struct pack_ref *packs;
    uint32_t n_packs, cap_packs;
    struct index_hook *hooks; /* pack = number in `packs` */
    uint32_t n_hooks, cap_hooks;
    struct store_adopted sum;
};

static void estate_done(struct estate *e)
{
    free(e->packs);
    free(e->hooks);
}

/* ---- finding them */

enum found { FOUND_NONE, FOUND_UNUSABLE, FOUND };

/* Whether the fsync of its writer has come back: then it has no write permission any more. */
static enum found look_at_file(struct store *store, const char *path, uint64_t *ret_bytes)
{
    struct stat st;
    if (fstatat(store->dirfd, path, &st, AT_SYMLINK_NOFOLLOW) != 0) {
        if (errno == ENOENT)
            return FOUND_NONE;
        log_warn("store_pack_not_adopted", LOG_STR("pack", path),
                 LOG_STR("message", strerror(errno)));
        return FOUND_NONE; /* many of them end the search */
    }
    if (!S_ISREG(st.st_mode) || (st.st_mode & (S_IWUSR | S_IWGRP | S_IWOTH)) != 0) {
        log_info("store_pack_not_adopted", LOG_STR("pack", path),
                 LOG_STR("message", "its writer has not finished it"));
        return FOUND_UNUSABLE;
    }
    *ret_bytes = (uint64_t)st.st_size;
    return FOUND;
}

static void add_hook(struct estate *e, const struct chunk_entry *chunk)
{
    if (e->n_hooks == e->cap_hooks) {
        e->cap_hooks = e->cap_hooks ? e->cap_hooks * 2 : 1024;
        e->hooks = xreallocarray(e->hooks, e->cap_hooks, sizeof *e->hooks);
    }
    e->hooks[e->n_hooks++] =
        (struct index_hook){.prefix = chunk_prefix(chunk->id), .pack = e->n_packs};
}

/* A writer that reads the same disk again begins its frames where the dead one has. */
static void add_pack(struct estate *e, const struct open_pack *pack, const struct pack_ref *ref,
                     uint64_t bytes)
{
    const struct footer *f = &pack->footer;
    uint32_t frame = UINT32_MAX;
    for (uint32_t i = 0; i < f->n_chunks; i++) {
        struct chunk_entry c = footer_chunk(f, i);
        if (c.frame != frame || chunk_prefix(c.id) % HOOK_SAMPLE == 0)
            add_hook(e, &c);
        frame = c.frame;
    }
    if (e->n_packs == e->cap_packs) {
        e->cap_packs = e->cap_packs ? e->cap_packs * 2 : 64;
        e->packs = xreallocarray(e->packs, e->cap_packs, sizeof *e->packs);
    }
    e->packs[e->n_packs] = *ref;
    memcpy(e->packs[e->n_packs++].digest, pack->digest, DIGEST_BYTES);
    e->sum.packs++;
    e->sum.bytes += bytes;
    e->sum.raw_bytes += (uint64_t)f->n_leaves * STORE_BLOCK_BYTES;
}

static enum found look_at_pack(struct estate *e, uint32_t n)
{
    struct pack_ref ref = {0};
    char path[64];
    uint64_t bytes = 0;
    pack_id_of_session(e->store->repo_id, e->dead_id, n, ref.id);
    pack_path(ref.id, path);
    enum found found = look_at_file(e->store, path, &bytes);
    if (found != FOUND)
        return found;
    struct err err = ERR_INIT;
    struct open_pack *pack = open_pack_load(e->store, &ref, &err);
    if (!pack) {
        log_err(LOG_LEVEL_WARN, "store_pack_not_adopted", &err);
        return FOUND_UNUSABLE;
    }
    add_pack(e, pack, &ref, bytes);
    open_pack_free(pack);
    return FOUND;
}

static void find_packs(struct estate *e)
{
    unsigned missing = 0;
    for (uint32_t n = 0; missing < MISSING_MAX && n < UINT32_MAX; n++)
        missing = look_at_pack(e, n) == FOUND_NONE ? missing + 1 : 0;
}

/* ---- taking them */

/* Whoever made the files has never come to sync their names. */
static bool sync_names(const struct estate *e, struct err *err)
{
    bool touched[256] = {false};
    for (uint32_t i = 0; i < e->n_packs; i++)
        touched[e->packs[i].id[0]] = true;
    for (unsigned i = 0; i < 256; i++) {
        char dir[16];
        (void)snprintf(dir, sizeof dir, "packs/%02x", i);
        if (touched[i] && !object_sync_dir(e->store->dirfd, dir, err))
            return false;
    }
    return object_sync_dir(e->store->dirfd, "packs", err);
}

static void take(struct store_session *s, const struct estate *e)
{
    struct dedup *d = s->store->dedup;
    struct adopted *a = &s->adopted;
    SCOPED_FREE uint32_t *numbers = xcalloc(e->n_packs, sizeof *numbers);
    for (uint32_t i = 0; i < e->n_packs; i++)
        numbers[i] = dedup_pack_adopt(d, &e->packs[i]);
    session_pin_packs(s, e->packs, numbers, e->n_packs);
    a->packs = xreallocarray(a->packs, a->n_packs + e->n_packs, sizeof *a->packs);
    for (uint32_t i = 0; i < e->n_packs; i++)
        if (numbers[i] != DEDUP_NO_PACK)
            a->packs[a->n_packs++] = numbers[i];
    struct hook_set *set = &a->hooks;
    set->items = xreallocarray(set->items, set->count + e->n_hooks + 1u, sizeof *set->items);
    for (uint32_t i = 0; i < e->n_hooks; i++) {
        uint32_t number = numbers[e->hooks[i].pack];
        if (number == DEDUP_NO_PACK)
            continue;
        dedup_hook_add(d, e->hooks[i].prefix, number);
        set->items[set->count++] =
            (struct index_hook){.prefix = e->hooks[i].prefix, .pack = number};
    }
    set->capacity = set->count;
}

static bool adopt(struct store_session *s, struct estate *e, struct err *err)
{
    struct fate fate;
    if (!session_id_is_valid(e->dead_id))
        return err_set(err, ERR_BAD_ARGUMENT, 0, "'%.100s' is no session id", e->dead_id);
    if (!fate_read(e->store->dirfd, e->dead_id, &fate, err))
        return false;
    if (!fate_is_death(&fate))
        return err_set(err, ERR_REFUSED, 0, "session %s is not dead", e->dead_id);
    if (fate.kind == FATE_REVOKE) /* its packs may go at any instant */
        return true;
    find_packs(e);
    if (e->n_packs == 0)
        return true;
    if (!sync_names(e, err))
        return false;
    take(s, e);
    return true;
}

bool store_session_adopt(struct store_session *session, const char *dead_id,
                         struct store_adopted *ret_adopted, struct err *err)
{
    struct estate e = {.store = session->store, .dead_id = dead_id};
    bool ok = session->state == SESSION_OPEN ||
              err_set(err, ERR_INTERNAL, 0, "session %s has ended", session->id);
    ok = ok && adopt(session, &e, err);
    *ret_adopted = ok ? e.sum : (struct store_adopted){0};
    estate_done(&e);
    return ok || err_wrap(err, "adopt the packs of session %s", dead_id);
}
