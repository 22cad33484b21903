/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The commit of a session. The order is the promise (docs/store-format.md, "Order of writes"): each
 * step is durable before the next begins, and the last one decides.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/base/clock.h"
#include "worker/store/blob.h"
#include "worker/store/bytes.h"
#include "worker/store/fate.h"
#include "worker/store/packfile.h"
#include "worker/store/writer.h"

static bool check_complete(struct store_session *s, struct err *err)
{
    if (s->state != SESSION_OPEN)
        return err_set(err, ERR_INTERNAL, 0, "it has ended already");
    if (s->n_active > 0)
        return err_set(err, ERR_INTERNAL, 0, "%u streams are still open", s->n_active);
    for (size_t i = 0; i < s->n_disks; i++)
        if (!s->disks[i]->is_finished)
            return err_set(err, ERR_INTERNAL, 0, "disk %s is not finished", s->disks[i]->id);
    return true;
}

/* ---- 1: packs */

bool session_seal_packs(struct store_session *s, struct err *err)
{
    bool ok = true;
    for (struct store_stream *stream = s->idle; ok && stream; stream = stream->next)
        ok = stream_finish(stream, err);
    session_join_sealer(s);
    return ok && session_check(s, err);
}

/* ---- 2: the directories that hold them */

static bool sync_pack_dirs(struct store_session *s, struct err *err)
{
    bool touched[256] = {false};
    for (size_t i = 0; i < s->n_packs; i++)
        touched[s->packs[i].id[0]] = true;
    for (unsigned i = 0; i < 256; i++) {
        char dir[16];
        (void)snprintf(dir, sizeof dir, "packs/%02x", i);
        if (touched[i] && !object_sync_dir(s->store->dirfd, dir, err))
            return false;
    }
    /* Somebody else may have made a directory we use and not synced it yet. */
    return s->n_packs == 0 || object_sync_dir(s->store->dirfd, "packs", err);
}

/* ---- 3: manifests, blobs, point.json */

static bool make_manifest_dir(struct store_session *s, struct err *err)
{
    SCOPED_FREE char *dir = xasprintf("manifests/%s", s->id);
    if (mkdirat(s->store->dirfd, dir, OBJECT_DIR_MODE) != 0)
        return err_set_errno(err, errno, "make directory '%s'", dir);
    s->has_manifest_dir = true;
    return true;
}

static bool write_blobs(struct store_session *s, struct record_blob *blobs, struct err *err)
{
    for (size_t i = 0; i < s->n_blobs; i++) {
        const struct session_blob *from = &s->blobs[i];
        SCOPED_FREE char *path = xasprintf("manifests/%s/%s", s->id, from->name);
        size_t len = from->len;
        SCOPED_FREE uint8_t *sealed =
            s->store->crypt
                ? blob_seal(s->store->crypt, s->id, from->name, from->data, from->len, &len)
                : NULL;
        const void *bytes = sealed ? sealed : from->data;
        if (!object_create(s->store->dirfd, path, bytes, len, err))
            return false;
        blobs[i] = (struct record_blob){.name = from->name, .size_bytes = len};
        digest_sha256(bytes, len, blobs[i].digest);
    }
    return true;
}

static bool write_manifests(struct store_session *s, struct record_disk *disks, struct err *err)
{
    for (size_t i = 0; i < s->n_disks; i++) {
        struct store_disk *from = s->disks[i];
        disks[i].disk = (struct store_point_disk){
            .id = from->id, .size_bytes = from->size_bytes, .stats = from->stats};
        if (!disk_write_manifest(from, disks[i].manifest_digest, err))
            return false;
    }
    return true;
}

static bool write_point(struct store_session *s, const struct record_disk *disks,
                        const struct record_blob *blobs, const json_t *meta,
                        uint8_t ret_digest[DIGEST_BYTES], struct err *err)
{
    struct point_record record = {
        .info = {.id = s->id,
                 .vm_id = s->vm_id,
                 .vm_name = s->vm_name,
                 .worker = s->worker,
                 .part_of = s->part_of,
                 .created_ms = clock_wall_ms(clock_system())},
        .n_disks = s->n_disks,
        .n_blobs = s->n_blobs,
        .disks = (struct record_disk *)(uintptr_t)disks,
        .blobs = (struct record_blob *)(uintptr_t)blobs,
    };
    if (record.info.created_ms < 0)
        record.info.created_ms = 0;
    memcpy(record.repository, s->store->repo.uuid, sizeof record.repository);
    store_session_stats(s, &record.stats);
    size_t len;
    SCOPED_FREE char *text = point_record_encode(&record, meta, s->store->crypt, &len, err);
    if (!text)
        return false;
    digest_sha256(text, len, ret_digest);
    SCOPED_FREE char *path = xasprintf("manifests/%s/point.json", s->id);
    return object_create(s->store->dirfd, path, text, len, err);
}

static bool write_records(struct store_session *s, const json_t *meta,
                          uint8_t ret_digest[DIGEST_BYTES], struct err *err)
{
    SCOPED_FREE struct record_disk *disks = xcalloc(s->n_disks + 1, sizeof *disks);
    SCOPED_FREE struct record_blob *blobs = xcalloc(s->n_blobs + 1, sizeof *blobs);
    SCOPED_FREE char *dir = xasprintf("manifests/%s", s->id);
    return make_manifest_dir(s, err) && write_manifests(s, disks, err) &&
           write_blobs(s, blobs, err) && write_point(s, disks, blobs, meta, ret_digest, err) &&
           object_sync_dir(s->store->dirfd, dir, err) &&
           object_sync_dir(s->store->dirfd, "manifests", err);
}

/* ---- 4: the index */

static uint32_t local_pack(const struct index *ix, const uint32_t *numbers, uint32_t number)
{
    for (uint32_t i = 0; i < ix->n_packs; i++)
        if (numbers[i] == number)
            return i;
    return UINT32_MAX;
}

static void add_hooks(const struct hook_set *hooks, const uint32_t *numbers, struct index *ix)
{
    uint32_t last = 0, last_local = UINT32_MAX; /* hooks come in runs of one pack */
    for (uint32_t i = 0; i < hooks->count; i++) {
        const struct index_hook *hook = &hooks->items[i];
        if (last_local == UINT32_MAX || hook->pack != last) {
            last = hook->pack;
            last_local = local_pack(ix, numbers, last);
        }
        ix->hooks[ix->n_hooks++] = (struct index_hook){.prefix = hook->prefix, .pack = last_local};
    }
}

/* Its own packs and those it has adopted, whose session has no index. Returns the store's numbers;
 * the caller frees, and calls index_done(). */
static uint32_t *fill_index(const struct store_session *s, struct index *ix)
{
    size_t n_packs = s->n_packs + s->adopted.n_packs, n_hooks = s->adopted.hooks.count;
    for (const struct store_stream *stream = s->idle; stream; stream = stream->next)
        n_hooks += stream->hooks.count;
    uint32_t *numbers = xcalloc(n_packs + 1, sizeof *numbers);
    *ix = (struct index){.n_packs = (uint32_t)n_packs};
    ix->packs = xcalloc(n_packs + 1, sizeof *ix->packs);
    ix->hooks = xcalloc(n_hooks + 1, sizeof *ix->hooks);
    for (size_t i = 0; i < n_packs; i++) {
        numbers[i] = i < s->n_packs ? s->packs[i].number : s->adopted.packs[i - s->n_packs];
        dedup_pack_get(s->store->dedup, numbers[i], &ix->packs[i]);
    }
    for (const struct store_stream *stream = s->idle; stream; stream = stream->next)
        add_hooks(&stream->hooks, numbers, ix);
    add_hooks(&s->adopted.hooks, numbers, ix);
    return numbers;
}

static bool write_index(struct store_session *s, struct err *err)
{
    struct index ix;
    size_t len;
    if (s->n_packs + s->adopted.n_packs == 0)
        return true;
    SCOPED_FREE uint32_t *numbers = fill_index(s, &ix);
    SCOPED_FREE uint8_t *bytes = index_encode(&ix, s->store->repo_id, &len);
    index_done(&ix);
    if (len > INDEX_BYTES_MAX)
        return true; /* nobody would read it */
    SCOPED_FREE char *path = xasprintf("index/%s.ix", s->id);
    return object_create(s->store->dirfd, path, bytes, len, err) &&
           object_sync_dir(s->store->dirfd, "index", err);
}

/* ---- 5: the commit record */

/* What stands after our try. A link that failed with an I/O error may have been made: then the
 * revocation of our own session finds out, and makes sure that it cannot come into being later. */
static bool try_commit(struct store_session *s, const struct fate *mine, struct fate *ret_stands,
                       enum fate_doubt *ret_doubt, struct err *err)
{
    if (fate_decide(s->store->dirfd, s->id, mine, ret_stands, ret_doubt, err))
        return true;
    if (*ret_doubt != FATE_MAYBE)
        return false;
    struct fate revoke = fate_new(FATE_REVOKE, NULL);
    struct err ignored = ERR_INIT;
    enum fate_doubt doubt;
    if (!fate_decide(s->store->dirfd, s->id, &revoke, ret_stands, &doubt, &ignored))
        return false;
    *ret_doubt = FATE_SURELY_NOT;
    if (fate_is(ret_stands, &revoke))
        return false; /* with the error of the link */
    err_clear(err);
    return true;
}

static bool decide(struct store_session *s, const uint8_t digest[DIGEST_BYTES], struct err *err)
{
    struct fate mine = fate_new(FATE_COMMIT, digest), stands;
    enum fate_doubt doubt;
    if (!try_commit(s, &mine, &stands, &doubt, err)) {
        if (doubt == FATE_SURELY_NOT)
            return false;
        s->state = SESSION_UNKNOWN;
        return err_wrap(err,
                        "it is not known whether the commit was made; nothing was removed, and "
                        "the next attempt will settle it");
    }
    if (fate_is(&stands, &mine)) {
        s->state = SESSION_COMMITTED;
        return true;
    }
    if (fate_is_death(&stands))
        return err_set(err, ERR_STORE_REVOKED, 0, "it was declared dead by a later attempt");
    s->state = SESSION_UNKNOWN; /* never remove what a commit record may name */
    return err_set(err, ERR_INTERNAL, 0, "somebody else has committed it");
}

/* Whatever failed: when the session has been declared dead, that is the reason, since its files are
 * swept from then on. */
static void prefer_revocation(const struct store_session *s, struct err *err)
{
    struct fate fate;
    struct err ignored = ERR_INIT;
    if (s->state != SESSION_OPEN || err->code == ERR_STORE_REVOKED ||
        !fate_read(s->store->dirfd, s->id, &fate, &ignored) || !fate_is_death(&fate))
        return;
    err_clear(err);
    err_set(err, ERR_STORE_REVOKED, 0, "it was declared dead by a later attempt");
}

bool store_session_commit(struct store_session *session, const json_t *meta, struct err *err)
{
    uint8_t digest[DIGEST_BYTES];
    if (!session_check(session, err))
        return false;
    if (!check_complete(session, err))
        return err_wrap(err, "session %s", session->id);
    bool ok = session_seal_packs(session, err) && sync_pack_dirs(session, err) &&
              write_records(session, meta, digest, err) && write_index(session, err) &&
              decide(session, digest, err);
    if (!ok) {
        prefer_revocation(session, err);
        err_wrap(err, "commit session %s", session->id);
        return session_fail(session, err);
    }
    dedup_owner_commit(session->store->dedup, session->owner);
    session_unpin(session); /* not before the fate */
    SCOPED_FREE char *path = xasprintf("sessions/%s", session->id);
    (void)unlinkat(session->store->dirfd, path, 0);
    return true;
}
