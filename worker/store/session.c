/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions: beginning, failing, giving up. commit.c has the good end. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "proto/base/clock.h"
#include "proto/base/id.h"
#include "proto/base/log.h"
#include "worker/store/fate.h"
#include "worker/store/packfile.h"
#include "worker/store/writer.h"

enum { UNSEALED_PACKS_MAX = 4 }; /* waiting for their fsync; more than that and the streams wait */

/* ---- failing */

bool session_fail(struct store_session *session, const struct err *err)
{
    pthread_mutex_lock(&session->lock);
    err_keep_first(&session->failure, err);
    atomic_store(&session->is_failed, true);
    pthread_mutex_unlock(&session->lock);
    return false;
}

bool session_check(struct store_session *session, struct err *err)
{
    if (!atomic_load(&session->is_failed))
        return true;
    pthread_mutex_lock(&session->lock);
    *err = session->failure;
    pthread_mutex_unlock(&session->lock);
    return false;
}

size_t session_next_pack(struct store_session *session, uint8_t ret_id[PACK_ID_BYTES])
{
    pthread_mutex_lock(&session->lock);
    size_t n = session->n_packs++;
    session->packs = xreallocarray(session->packs, n + 1, sizeof *session->packs);
    session->packs[n] = (struct session_pack){.number = DEDUP_NO_PACK};
    pack_id_of_session(session->store->repo_id, session->id, (uint32_t)n, session->packs[n].id);
    memcpy(ret_id, session->packs[n].id, PACK_ID_BYTES);
    pthread_mutex_unlock(&session->lock);
    return n;
}

void session_pack_begins(struct store_session *session, size_t n, uint32_t number)
{
    pthread_mutex_lock(&session->lock);
    session->packs[n].number = number;
    pthread_mutex_unlock(&session->lock);
}

void session_pack_ends(struct store_session *session, size_t n, bool may_be_sealed)
{
    pthread_mutex_lock(&session->lock);
    session->packs[n].may_be_sealed = may_be_sealed;
    pthread_mutex_unlock(&session->lock);
}

/* ---- the sealer: fsync of finished packs beside the work on the next ones */

static void seal_job_free(void *item)
{
    struct seal_job *job = item;
    (void)close(job->fd);
    free(job);
}

static void *sealer_main(void *arg)
{
    struct store_session *session = arg;
    struct seal_job *job;
    while ((job = queue_pop(session->seals))) {
        struct err err = ERR_INIT;
        if (!object_seal_pack(job->fd, job->path, &err))
            session_fail(session, &err);
        free(job);
    }
    return NULL;
}

void session_join_sealer(struct store_session *session)
{
    if (!session->has_sealer)
        return;
    queue_close(session->seals);
    pthread_join(session->sealer, NULL);
    session->has_sealer = false;
}

/* ---- beginning */

static bool is_name(const char *text, bool may_be_empty)
{
    return text && strlen(text) <= STORE_NAME_MAX && (may_be_empty || text[0] != '\0');
}

static bool check_options(const struct store *store, const struct store_session_opts *opts,
                          struct err *err)
{
    if (store->repo.write_refused)
        return err_set(err, ERR_STORE_VERSION, 0,
                       "repository '%s' may only be read by this version: a newer one has turned "
                       "on a feature that writers must know",
                       store->path);
    if (!store_needs_key(store, KEY_TO_WRITE, err))
        return err_wrap(err, "repository '%s'", store->path);
    if (!opts->id || !session_id_is_valid(opts->id))
        return err_set(err, ERR_BAD_ARGUMENT, 0, "'%.100s' is no session id",
                       opts->id ? opts->id : "");
    if (!is_name(opts->vm_id, false) || !is_name(opts->vm_name, false) ||
        (opts->worker && !is_name(opts->worker, true)))
        return err_set(err, ERR_BAD_ARGUMENT, 0,
                       "session %s: a name is missing or longer than %d bytes", opts->id,
                       STORE_NAME_MAX);
    if (opts->part_of && !id_is_slug(opts->part_of, STORE_SESSION_ID_MAX))
        return err_set(err, ERR_BAD_ARGUMENT, 0, "session %s: '%.100s' is no task id", opts->id,
                       opts->part_of);
    return true;
}

static void retract(const struct store_session *s)
{
    SCOPED_FREE char *path = xasprintf("sessions/%s", s->id);
    (void)unlinkat(s->store->dirfd, path, 0);
}

/* sessions/<session>: for people and for garbage collection. */
static bool announce(const struct store_session *s, struct err *err)
{
    char created[CLOCK_TEXT_BYTES];
    clock_format_utc(clock_wall_ms(clock_system()), created);
    json_t *root =
        json_pack("{s:s, s:i, s:s, s:s, s:{s:s, s:s}, s:s}", "type", "oxbow-session", "format", 1,
                  "session", s->id, "created", created, "vm", "id", s->vm_id, "name",
                  s->store->crypt ? "" : s->vm_name, "worker", s->worker);
    char *text = root ? json_dumps(root, JSON_SORT_KEYS | JSON_INDENT(2)) : NULL;
    json_decref(root);
    if (!text)
        return err_set(err, ERR_BAD_ARGUMENT, 0, "a name is not valid UTF-8");
    enum put_outcome outcome =
        object_put_if_absent(s->store->dirfd, "sessions", s->id, text, strlen(text), err);
    free(text);
    if (outcome == PUT_EXISTS)
        return err_set(err, ERR_EXISTS, 0, "it was begun before");
    if (outcome == PUT_UNKNOWN || outcome == PUT_UNSYNCED)
        retract(s);
    return outcome == PUT_CREATED;
}

static bool check_fate(const struct store_session *s, struct err *err)
{
    struct fate fate;
    if (!fate_read(s->store->dirfd, s->id, &fate, err))
        return false;
    if (fate.kind == FATE_COMMIT)
        return err_set(err, ERR_EXISTS, 0, "it has committed");
    if (fate_is_death(&fate))
        return err_set(err, ERR_STORE_REVOKED, 0, "it was declared dead");
    return true;
}

static bool start(struct store_session *s, struct err *err)
{
    if (!check_fate(s, err) || !store_load_indexes(s->store, err)) {
        retract(s);
        return false;
    }
    s->owner = dedup_owner_new(s->store->dedup);
    s->seals = queue_new(UNSEALED_PACKS_MAX, seal_job_free);
    int errnum = pthread_create(&s->sealer, NULL, sealer_main, s);
    if (errnum != 0) {
        retract(s);
        return err_set_errno(err, errnum, "start a thread");
    }
    s->has_sealer = true;
    s->state = SESSION_OPEN;
    return true;
}

struct store_session *store_session_begin(struct store *store,
                                          const struct store_session_opts *opts, struct err *err)
{
    if (!check_options(store, opts, err))
        return NULL;
    SCOPED(store_session) struct store_session *s = ALLOC_NEW(struct store_session);
    s->store = store;
    s->state = SESSION_ABORTED; /* nothing to give up yet */
    s->id = xstrdup(opts->id);
    s->vm_id = xstrdup(opts->vm_id);
    s->vm_name = xstrdup(opts->vm_name);
    s->worker = xstrdup(opts->worker ? opts->worker : "");
    s->part_of = opts->part_of ? xstrdup(opts->part_of) : NULL;
    pthread_mutex_init(&s->lock, NULL);
    referrer_init(&s->referrer);
    if (!store_make_directories(store, err) || !announce(s, err) || !start(s, err)) {
        err_wrap(err, "session %s", opts->id);
        return NULL;
    }
    return TAKE(s);
}

/* ---- blobs */

static bool blob_name_is_valid(const char *name)
{
    size_t len = strlen(name);
    return id_is_slug(name, 64) && strcmp(name, "point.json") != 0 &&
           (len < 3 || strcmp(name + len - 3, ".mf") != 0);
}

static bool add_blob(struct store_session *session, const char *name, const void *data, size_t len,
                     struct err *err)
{
    if (session->n_blobs == STORE_BLOBS_MAX)
        return err_set(err, ERR_TOO_LARGE, 0, "more than %d blobs", STORE_BLOBS_MAX);
    for (size_t i = 0; i < session->n_blobs; i++)
        if (strcmp(session->blobs[i].name, name) == 0)
            return err_set(err, ERR_EXISTS, 0, "blob '%s' was put before", name);
    session->blobs = xreallocarray(session->blobs, session->n_blobs + 1, sizeof *session->blobs);
    struct session_blob *blob = &session->blobs[session->n_blobs++];
    blob->name = xstrdup(name);
    blob->data = xmalloc(len + 1);
    blob->len = len;
    if (len > 0)
        memcpy(blob->data, data, len);
    return true;
}

bool store_session_put_blob(struct store_session *session, const char *name, const void *data,
                            size_t len, struct err *err)
{
    if (!blob_name_is_valid(name))
        return err_set(err, ERR_BAD_ARGUMENT, 0, "'%.64s' is no blob name", name);
    if (len > STORE_BLOB_MAX)
        return err_set(err, ERR_TOO_LARGE, 0, "blob '%s' is larger than %d bytes", name,
                       STORE_BLOB_MAX);
    pthread_mutex_lock(&session->lock);
    bool ok = add_blob(session, name, data, len, err);
    pthread_mutex_unlock(&session->lock);
    return ok;
}

/* ---- giving up */

bool store_declare_dead(struct store *store, const char *session_id, enum fate_kind kind,
                        struct fate *ret_stands, struct err *err)
{
    if (!session_id_is_valid(session_id))
        return err_set(err, ERR_BAD_ARGUMENT, 0, "'%.100s' is no session id", session_id);
    struct fate mine = fate_new(kind, NULL);
    enum fate_doubt doubt;
    return fate_decide(store->dirfd, session_id, &mine, ret_stands, &doubt, err) ||
           err_wrap(err, "revoke session %s", session_id);
}

bool store_session_revoke(struct store *store, const char *session_id, bool *ret_was_committed,
                          struct err *err)
{
    struct fate stands = {.kind = FATE_NONE};
    if (!store_declare_dead(store, session_id, FATE_REVOKE, &stands, err))
        return false;
    *ret_was_committed = stands.kind == FATE_COMMIT;
    return true;
}

bool store_session_bequeath(struct store *store, const char *session_id, bool *ret_was_committed,
                            struct err *err)
{
    struct fate stands = {.kind = FATE_NONE};
    if (!store_declare_dead(store, session_id, FATE_BEQUEATH, &stands, err))
        return false;
    *ret_was_committed = stands.kind == FATE_COMMIT;
    return true;
}

static bool remove_file(int dirfd, const char *path, struct err *err)
{
    if (unlinkat(dirfd, path, 0) == 0 || errno == ENOENT)
        return true;
    struct err one = ERR_INIT;
    err_set_errno(&one, errno, "remove '%s'", path);
    err_keep_first(err, &one);
    return false;
}

static bool remove_packs(struct store_session *s, bool sealed_too, struct err *err)
{
    bool ok = true;
    char path[64];
    for (size_t i = 0; i < s->n_packs; i++) {
        if (s->packs[i].may_be_sealed && !sealed_too)
            continue;
        pack_path(s->packs[i].id, path);
        ok = remove_file(s->store->dirfd, path, err) && ok;
    }
    return ok;
}

/* Everything the session may have made but its fate and its packs. Goes on after errors. */
static bool remove_files(struct store_session *s, struct err *err)
{
    int dirfd = s->store->dirfd;
    bool ok = true;
    SCOPED_FREE char *index = xasprintf("index/%s.ix", s->id);
    SCOPED_FREE char *dir = xasprintf("manifests/%s", s->id);
    ok = remove_file(dirfd, index, err) && ok;
    for (size_t i = 0; i < s->n_disks; i++) {
        SCOPED_FREE char *file = xasprintf("%s/%s.mf", dir, s->disks[i]->id);
        ok = remove_file(dirfd, file, err) && ok;
    }
    for (size_t i = 0; i < s->n_blobs; i++) {
        SCOPED_FREE char *file = xasprintf("%s/%s", dir, s->blobs[i].name);
        ok = remove_file(dirfd, file, err) && ok;
    }
    SCOPED_FREE char *point = xasprintf("%s/point.json", dir);
    ok = remove_file(dirfd, point, err) && ok;
    (void)unlinkat(dirfd, dir, AT_REMOVEDIR);
    return ok;
}

/* Packs that are not finished: nobody adopts them, and an open file would keep its space. */
static bool drop_unfinished(struct store_session *s, struct err *err)
{
    for (struct store_stream *stream = s->idle; stream; stream = stream->next) {
        pack_writer_free(stream->pack);
        stream->pack = NULL;
    }
    return remove_packs(s, false, err);
}

/* On a full disk the record of the revocation may not fit before something is gone. */
static bool declare_self_dead(struct store_session *s, enum fate_kind kind, struct fate *ret_stands,
                              struct err *err)
{
    struct err first = ERR_INIT, ignored = ERR_INIT;
    if (store_declare_dead(s->store, s->id, kind, ret_stands, &first))
        return true;
    if (s->has_manifest_dir && remove_files(s, &ignored) &&
        store_declare_dead(s->store, s->id, kind, ret_stands, &(struct err)ERR_INIT))
        return true;
    err_keep_first(err, &first);
    return false;
}

/* The fate comes before the removal of sealed packs: others may refer to them from the instant at
 * which somebody bequeaths them (docs/store-format.md, "Garbage"). No commit of ours was tried
 * (SESSION_OPEN), so what only we can know goes before. */
static bool end_dead(struct store_session *s, enum fate_kind kind, struct err *err)
{
    struct fate stands = {.kind = FATE_NONE};
    bool ok = drop_unfinished(s, err);
    if (!declare_self_dead(s, kind, &stands, err))
        return false;
    if (stands.kind == FATE_COMMIT)
        return err_set(err, ERR_INTERNAL, 0, "session %s was committed by somebody else", s->id);
    if (stands.kind == FATE_REVOKE)
        ok = remove_packs(s, true, err) && ok;
    ok = remove_files(s, err) && ok;
    session_unpin(s); /* not before: who is announced and has no fate is open */
    retract(s);
    return ok;
}

bool store_session_abort(struct store_session *session, struct err *err)
{
    assert(session->n_active == 0);
    session_join_sealer(session);
    if (session->state != SESSION_OPEN)
        return true;
    session->state = SESSION_ABORTED;
    dedup_owner_drop(session->store->dedup, session->owner);
    return end_dead(session, FATE_REVOKE, err) || err_wrap(err, "give up session %s", session->id);
}

/* Somebody who has declared it dead has looked for its packs already. */
static bool finish_packs(struct store_session *s)
{
    struct fate fate;
    struct err err = ERR_INIT;
    if (s->state != SESSION_OPEN || atomic_load(&s->is_failed))
        return false;
    if (fate_read(s->store->dirfd, s->id, &fate, &err) && fate.kind == FATE_NONE &&
        session_seal_packs(s, &err))
        return true;
    if (err_is_set(&err))
        log_err(LOG_LEVEL_WARN, "store_session_not_left", &err);
    return false;
}

bool store_session_leave(struct store_session *session, struct err *err)
{
    assert(session->n_active == 0);
    if (!finish_packs(session))
        return store_session_abort(session, err);
    session->state = SESSION_ABORTED;
    dedup_owner_drop(session->store->dedup, session->owner);
    return end_dead(session, FATE_BEQUEATH, err) || err_wrap(err, "leave session %s", session->id);
}

void store_session_free(struct store_session *session)
{
    if (!session)
        return;
    struct err err = ERR_INIT;
    if (!store_session_abort(session, &err))
        log_err(LOG_LEVEL_WARN, "store_session_leftovers", &err);
    while (session->idle) {
        struct store_stream *next = session->idle->next;
        stream_free(session->idle);
        session->idle = next;
    }
    for (size_t i = 0; i < session->n_disks; i++)
        disk_free(session->disks[i]);
    for (size_t i = 0; i < session->n_blobs; i++) {
        free(session->blobs[i].name);
        free(session->blobs[i].data);
    }
    queue_free(session->seals);
    pthread_mutex_destroy(&session->lock);
    referrer_done(&session->referrer);
    free(session->disks);
    free(session->blobs);
    free(session->packs);
    free(session->adopted.packs);
    hook_set_done(&session->adopted.hooks);
    free(session->id);
    free(session->vm_id);
    free(session->vm_name);
    free(session->worker);
    free(session->part_of);
    free(session);
}
