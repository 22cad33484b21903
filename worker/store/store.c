/* SPDX-License-Identifier: Apache-2.0 */
/* Making and opening a repository, and its deduplication tables. */
#include "worker/store/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "proto/base/clock.h"
#include "proto/base/file.h"
#include "proto/base/id.h"
#include "proto/base/log.h"
#include "worker/store/bytes.h"
#include "worker/store/fate.h"
#include "worker/store/keys.h"
#include "worker/store/packfile.h"
#include "worker/store/repo.h"

static const char *const directories[] = {"packs",    "manifests", "fate",    "deleted",   "index",
                                          "sessions", "pins",      "marks",   "protected", "damage",
                                          "scrub",    "keys",      "deleting"};

bool session_id_is_valid(const char *id)
{
    return id_is_slug(id, STORE_SESSION_ID_MAX);
}

/* ---- options */

static bool set_options(struct store *store, const struct store_opts *opts, struct err *err)
{
    struct store_opts o = opts ? *opts : (struct store_opts){0};
    if (o.zstd_level == 0)
        o.zstd_level = 1;
    if (o.pack_bytes == 0)
        o.pack_bytes = 96 << 20;
    if (o.frame_cache_bytes == 0)
        o.frame_cache_bytes = 32 << 20;
    if (o.footer_cache_bytes == 0)
        o.footer_cache_bytes = 24 << 20;
    if (o.dedup_cache_bytes == 0)
        o.dedup_cache_bytes = 32 << 20;
    if (o.dedup_hooks_max == 0)
        o.dedup_hooks_max = 4 << 20;
    if (o.zstd_level < -50 || o.zstd_level > 19)
        return err_set(err, ERR_BAD_ARGUMENT, 0, "zstd level %d is not in -50..19", o.zstd_level);
    if (o.pack_bytes < 64 << 10 || o.pack_bytes > UINT64_C(4) << 30)
        return err_set(err, ERR_BAD_ARGUMENT, 0, "pack size %" PRIu64 " is not in 64 KiB..4 GiB",
                       o.pack_bytes);
    if (o.scrypt_log2_n != 0 && (o.scrypt_log2_n < 14 || o.scrypt_log2_n > 20))
        return err_set(err, ERR_BAD_ARGUMENT, 0, "the work factor %u is not in 14..20",
                       o.scrypt_log2_n);
    o.key_file = NULL; /* borrowed for the call only */
    o.passphrase_file = NULL;
    store->opts = o;
    return true;
}

/* ---- opening */

static bool uuid_bytes(const char *uuid, uint8_t out[16])
{
    char hex[33];
    size_t n = 0;
    for (const char *at = uuid; *at; at++)
        if (*at != '-' && n < 32)
            hex[n++] = *at >= 'A' && *at <= 'F' ? (char)(*at - 'A' + 'a') : *at;
    hex[n] = '\0';
    return hex_decode(hex, out, 16);
}

static bool read_repo_json(struct store *store, struct err *err)
{
    SCOPED_BUF struct buf text;
    if (!object_read(store->dirfd, "repo.json", REPO_JSON_MAX, &text, err)) {
        if (err->code != ERR_NOT_FOUND)
            return err_wrap(err, "repository '%s'", store->path);
        err_clear(err);
        return err_set(err, ERR_NOT_FOUND, 0, "'%s' is not a repository: it has no repo.json",
                       store->path);
    }
    if (!repo_record_decode(buf_str(&text), text.len, &store->repo, err))
        return err_wrap(err, "repository '%s'", store->path);
    return uuid_bytes(store->repo.uuid, store->repo_id) ||
           err_set(err, ERR_STORE_CORRUPT, 0, "repository '%s': bad UUID", store->path);
}

static struct store *store_new(const char *path)
{
    struct store *store = ALLOC_NEW(struct store);
    store->path = xstrdup(path);
    store->dirfd = -1;
    pthread_mutex_init(&store->load_lock, NULL);
    return store;
}

static bool open_directory(struct store *store, struct err *err)
{
    store->dirfd = open(store->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (store->dirfd < 0)
        return err_set_errno(err, errno, "open repository '%s'", store->path);
    atomic_init(&store->likes_direct, file_likes_direct(store->dirfd));
    return true;
}

static bool unlock(struct store *store, const struct store_opts *opts, struct err *err)
{
    const struct store_opts none = {0};
    return keys_open(store, opts ? opts : &none, err) ||
           err_wrap(err, "repository '%s'", store->path);
}

static void make_tables(struct store *store)
{
    const struct store_opts *o = &store->opts;
    store->packs = cache_new(o->footer_cache_bytes, open_pack_free);
    store->frames = cache_new(o->frame_cache_bytes, frame_free);
    store->decoders = decoder_pool_new(store->crypt);
    store->marks = marks_new();
}

struct store *store_open(const char *path, const struct store_opts *opts, struct err *err)
{
    SCOPED(store) struct store *store = store_new(path);
    if (!set_options(store, opts, err) || !open_directory(store, err) ||
        !read_repo_json(store, err) || !unlock(store, opts, err))
        return NULL;
    make_tables(store);
    return TAKE(store);
}

void store_free(struct store *store)
{
    if (!store)
        return;
    cache_free(store->frames);
    cache_free(store->packs);
    decoder_pool_free(store->decoders);
    dedup_free(store->dedup);
    marks_free(store->marks);
    crypt_free(store->crypt);
    object_names_done(&store->loaded_indexes);
    pthread_mutex_destroy(&store->load_lock);
    if (store->dirfd >= 0)
        (void)close(store->dirfd);
    free(store->path);
    free(store);
}

const char *store_uuid(const struct store *store)
{
    return store->repo.uuid;
}

bool store_free_space(const struct store *store, uint64_t *ret_bytes, struct err *err)
{
    struct statvfs vfs;
    if (fstatvfs(store->dirfd, &vfs) != 0)
        return err_set_errno(err, errno, "free space of repository '%s'", store->path);
    *ret_bytes = (uint64_t)vfs.f_bavail * vfs.f_frsize;
    return true;
}

/* ---- making */

/* Nothing but what an unfinished store_init left, and lost+found. */
static bool check_empty(struct store *store, struct err *err)
{
    int fd = dup(store->dirfd);
    DIR *stream = fd < 0 ? NULL : fdopendir(fd);
    if (!stream)
        return err_set_errno(err, errno, "list '%s'", store->path);
    rewinddir(stream);
    bool ok = true;
    const struct dirent *entry;
    while (ok && (entry = readdir(stream))) {
        const char *name = entry->d_name;
        bool known = name[0] == '.' || strcmp(name, "lost+found") == 0;
        for (size_t i = 0; i < ARRAY_LEN(directories); i++)
            known = known || strcmp(name, directories[i]) == 0;
        if (strcmp(name, "repo.json") == 0)
            ok = err_set(err, ERR_EXISTS, 0, "'%s' is a repository already", store->path);
        else if (!known)
            ok = err_set(err, ERR_EXISTS, 0, "'%s' is not empty: it has '%s'", store->path, name);
    }
    (void)closedir(stream);
    return ok;
}

static bool make_keys(struct store *store, const struct store_opts *opts, struct err *err)
{
    SCOPED_SECRETS struct crypt_secrets secrets;
    crypt_secrets_new(&secrets);
    return keys_make(store, &secrets, opts, err);
}

static bool make_repository(struct store *store, const struct store_opts *opts, struct err *err)
{
    char *uuid = store->repo.uuid;
    bool encrypt = opts && opts->encrypt;
    id_new(uuid);
    if (!uuid_bytes(uuid, store->repo_id))
        return err_set(err, ERR_INTERNAL, 0, "'%s' is no UUID", uuid);
    if (encrypt && !make_keys(store, opts, err))
        return false;
    if (!encrypt && opts && (opts->key_file || opts->passphrase_file))
        return err_set(err, ERR_BAD_ARGUMENT, 0, "a key is of no use if it is not to be encrypted");
    SCOPED_FREE char *text = repo_record_encode(uuid, clock_wall_ms(clock_system()), encrypt);
    switch (object_put_if_absent(store->dirfd, ".", "repo.json", text, strlen(text), err)) {
    case PUT_CREATED:
        return true;
    case PUT_EXISTS:
        return err_set(err, ERR_EXISTS, 0, "somebody else made it just now");
    case PUT_FAILED:
    case PUT_UNKNOWN:
    case PUT_UNSYNCED:
        break;
    }
    return false;
}

struct store *store_init(const char *path, const struct store_opts *opts, struct err *err)
{
    SCOPED(store) struct store *store = store_new(path);
    if (!set_options(store, opts, err) || !file_make_dirs(path, OBJECT_DIR_MODE, err) ||
        !open_directory(store, err) || !check_empty(store, err) ||
        !store_make_directories(store, err))
        return NULL;
    if (!make_repository(store, opts, err) || !file_sync_parent(AT_FDCWD, path, err)) {
        err_wrap(err, "make repository '%s'", path);
        return NULL;
    }
    if (!read_repo_json(store, err) || !unlock(store, opts, err))
        return NULL;
    make_tables(store);
    return TAKE(store);
}

/* ---- the indexes of committed sessions */

static void load_index(struct store *store, const char *session, struct err *err)
{
    SCOPED_FREE char *path = xasprintf("index/%s.ix", session);
    SCOPED_BUF struct buf bytes;
    struct index ix;
    if (!object_read(store->dirfd, path, INDEX_BYTES_MAX, &bytes, err))
        return;
    if (!index_decode((const uint8_t *)buf_str(&bytes), bytes.len, store->repo_id, &ix, err))
        return;
    uint32_t *numbers = xcalloc(ix.n_packs + 1u, sizeof *numbers);
    for (uint32_t i = 0; i < ix.n_packs; i++)
        numbers[i] = marks_of_pack(store->marks, ix.packs[i].id) == MARKED_ALL
                         ? DEDUP_NO_PACK
                         : dedup_pack_committed(store->dedup, &ix.packs[i]);
    for (uint32_t i = 0; i < ix.n_hooks; i++)
        if (numbers[ix.hooks[i].pack] != DEDUP_NO_PACK)
            dedup_hook_add(store->dedup, ix.hooks[i].prefix, numbers[ix.hooks[i].pack]);
    free(numbers);
    index_done(&ix);
}

/* With load_lock held. A session without a readable commit record is not one to refer to. */
static void load_session_index(struct store *store, const char *session)
{
    struct err err = ERR_INIT;
    struct fate fate;
    if (!fate_read(store->dirfd, session, &fate, &err) || fate.kind != FATE_COMMIT)
        return;
    load_index(store, session, &err);
    if (err_is_set(&err))
        log_err(LOG_LEVEL_WARN, "store_index_ignored", &err);
}

static void without_suffix(struct object_names *names, const char *suffix)
{
    size_t kept = 0;
    for (size_t i = 0; i < names->count; i++) {
        char *end = strrchr(names->items[i], '.');
        if (end && strcmp(end, suffix) == 0) {
            *end = '\0';
            names->items[kept++] = names->items[i];
        } else {
            free(names->items[i]);
        }
    }
    names->count = kept;
    object_names_sort(names);
}

bool store_list_deleted(struct store *store, struct object_names *ret_names, struct err *err)
{
    if (object_list(store->dirfd, "deleted", ret_names, err))
        return true;
    if (err->code != ERR_NOT_FOUND)
        return err_wrap(err, "repository '%s'", store->path);
    err_clear(err); /* a copy made by a tool that leaves empty directories out */
    return true;
}

bool store_make_directories(struct store *store, struct err *err)
{
    for (size_t i = 0; i < ARRAY_LEN(directories); i++)
        if (!object_make_dir(store->dirfd, directories[i], err))
            return err_wrap(err, "repository '%s'", store->path);
    return true;
}

bool store_load_indexes(struct store *store, struct err *err)
{
    SCOPED_NAMES struct object_names indexes = {0}, fates = {0};
    if (!object_list(store->dirfd, "index", &indexes, err) ||
        !object_list(store->dirfd, "fate", &fates, err) ||
        !marks_refresh(store->marks, store->dirfd, store->repo_id, err))
        return err_wrap(err, "repository '%s'", store->path);
    without_suffix(&indexes, ".ix");
    pthread_mutex_lock(&store->load_lock);
    if (!store->dedup) /* who only reads needs none */
        store->dedup = dedup_new(store->opts.dedup_cache_bytes, store->opts.dedup_hooks_max);
    struct object_names seen = {0};
    seen.items = xcalloc(indexes.count + 1, sizeof *seen.items);
    for (size_t i = 0; i < indexes.count; i++) {
        const char *session = indexes.items[i];
        /* Of deleted points too: other points may keep their packs, and marks say which are gone.
         */
        if (!object_names_have(&fates, session))
            continue;
        if (!object_names_have(&store->loaded_indexes, session))
            load_session_index(store, session);
        seen.items[seen.count++] = xstrdup(session);
    }
    object_names_done(&store->loaded_indexes);
    store->loaded_indexes = seen;
    pthread_mutex_unlock(&store->load_lock);
    return true;
}
