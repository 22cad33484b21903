/* SPDX-License-Identifier: Apache-2.0 */
/* Key files, passphrases, and the objects in keys/ that they open. */
#include "worker/store/keys.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "proto/base/clock.h"
#include "proto/base/file.h"
#include "proto/base/id.h"
#include "proto/base/log.h"
#include "worker/store/bytes.h"

enum {
    LOG2_N = 17,     /* 128 MiB, some tenths of a second */
    LOG2_N_MIN = 14, /* below, guessing is cheap */
    LOG2_N_MAX = 20, /* 1 GiB: what a hostile object may make us allocate */
    PASSPHRASE_MIN = 8,
    PASSPHRASE_MAX = 1024,
    KEYS_MAX = 64, /* objects that are tried */
};

/* An outer key, as somebody has it. */
struct outer {
    char *passphrase; /* or NULL: */
    uint8_t key[CRYPT_SECRET_BYTES];
};

static void outer_done(struct outer *o)
{
    if (o->passphrase)
        explicit_bzero(o->passphrase, strlen(o->passphrase));
    free(o->passphrase);
    explicit_bzero(o, sizeof *o);
}
#define SCOPED_OUTER __attribute__((cleanup(outer_done), unused))

static void text_wipe(char **text)
{
    if (*text)
        explicit_bzero(*text, strlen(*text));
    free(*text);
}
#define SCOPED_SECRET_TEXT __attribute__((cleanup(text_wipe), unused))

/* ---- key files */

static const char line_head[] = "oxbow-key-1 ";

void key_line_encode(const uint8_t key[CRYPT_SECRET_BYTES], char out[KEY_LINE_BYTES])
{
    size_t at = sizeof line_head - 1;
    memcpy(out, line_head, at);
    hex_encode(key, CRYPT_SECRET_BYTES, out + at);
    at += (size_t)2 * CRYPT_SECRET_BYTES;
    uint32_t crc = crc32c(out, at);
    (void)snprintf(out + at, KEY_LINE_BYTES - at, " %08" PRIx32, crc);
}

bool key_line_decode(const char *line, uint8_t ret_key[CRYPT_SECRET_BYTES], struct err *err)
{
    char hex[2 * CRYPT_SECRET_BYTES + 1], again[KEY_LINE_BYTES];
    size_t head = sizeof line_head - 1;
    uint8_t key[CRYPT_SECRET_BYTES];
    if (strlen(line) != KEY_LINE_BYTES - 1 || memcmp(line, line_head, head) != 0)
        return err_set(err, ERR_STORE_KEY, 0, "is no key file");
    memcpy(hex, line + head, sizeof hex - 1);
    hex[sizeof hex - 1] = '\0';
    bool ok = hex_decode(hex, key, sizeof key);
    if (ok)
        key_line_encode(key, again);
    ok = (ok && strcmp(line, again) == 0) ||
         err_set(err, ERR_STORE_KEY, 0, "is a damaged key file: its checksum is wrong");
    if (ok)
        memcpy(ret_key, key, sizeof key);
    explicit_bzero(hex, sizeof hex);
    explicit_bzero(key, sizeof key);
    explicit_bzero(again, sizeof again);
    return ok;
}

bool store_key_file_make(const char *path, struct err *err)
{
    uint8_t key[CRYPT_SECRET_BYTES];
    char line[KEY_LINE_BYTES + 1];
    random_bytes(key, sizeof key);
    key_line_encode(key, line);
    line[KEY_LINE_BYTES - 1] = '\n';
    SCOPED_FD int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    bool ok = fd >= 0;
    if (!ok)
        err_set_errno(err, errno, "make key file '%s'", path);
    ok = ok && file_write_full(fd, line, KEY_LINE_BYTES, err) &&
         (fsync(fd) == 0 || err_set_errno(err, errno, "sync '%s'", path)) &&
         file_sync_parent(AT_FDCWD, path, err);
    explicit_bzero(key, sizeof key);
    explicit_bzero(line, sizeof line);
    return ok;
}

static bool read_key_file(const char *path, struct outer *out, struct err *err)
{
    SCOPED_SECRET_TEXT char *line = file_read_secret(path, err);
    if (!line)
        return false;
    return key_line_decode(line, out->key, err) || err_wrap(err, "'%s'", path);
}

static bool read_passphrase(const char *path, bool is_new, struct outer *out, struct err *err)
{
    SCOPED_SECRET_TEXT char *line = file_read_secret(path, err);
    if (!line)
        return false;
    size_t len = strlen(line);
    if (len > PASSPHRASE_MAX || (is_new && len < PASSPHRASE_MIN))
        return err_set(err, ERR_STORE_KEY, 0, "'%s': a passphrase has %d to %d bytes", path,
                       PASSPHRASE_MIN, PASSPHRASE_MAX);
    out->passphrase = TAKE(line);
    return true;
}

static const char *variable(const char *name)
{
    const char *value = getenv(name);
    return value && value[0] ? value : NULL;
}

void store_opts_from_environment(struct store_opts *opts)
{
    if (opts->key_file || opts->passphrase_file)
        return;
    opts->key_file = variable(STORE_KEY_FILE_VARIABLE);
    opts->passphrase_file = variable(STORE_PASSPHRASE_FILE_VARIABLE);
}

/* ---- key objects */

static const char *const not_bound[] = {"checksum", "tag", "wrapped", NULL};

static bool decode_kdf(const json_t *root, struct key_record *r, struct err *err)
{
    const json_t *kdf = json_object_get(root, "kdf");
    const char *name = record_text(kdf, "name", 64, err);
    uint64_t log2_n = 0, r_factor = 0, p = 0;
    if (!name)
        return false;
    if (strcmp(name, "key-file") == 0)
        return true;
    if (strcmp(name, "scrypt") != 0)
        return err_set(err, ERR_STORE_VERSION, 0, "is made with '%s', which this version lacks",
                       name);
    if (!record_number(kdf, "log2_n", &log2_n, err) || !record_number(kdf, "r", &r_factor, err) ||
        !record_number(kdf, "p", &p, err))
        return false;
    if (log2_n < LOG2_N_MIN || log2_n > LOG2_N_MAX || r_factor != 8 || p != 1)
        return err_set(err, ERR_STORE_CORRUPT, 0, "scrypt's parameters are out of range");
    r->log2_n = (unsigned)log2_n;
    return true;
}

static bool decode_key(const json_t *root, struct key_record *r, struct err *err)
{
    uint64_t format = 0;
    const char *type = record_text(root, "type", 64, err);
    if (!type || !record_number(root, "format", &format, err))
        return false;
    if (strcmp(type, "oxbow-key") != 0 || format != RECORD_FORMAT)
        return err_set(err, ERR_STORE_VERSION, 0, "is no key of a format that this version knows");
    const char *id = record_text(root, "id", STORE_KEY_ID_CHARS, err);
    const char *repository = id ? record_text(root, "repository", 36, err) : NULL;
    const char *label = repository ? record_text(root, "label", STORE_NAME_MAX, err) : NULL;
    const char *created = label ? record_text(root, "created", sizeof r->created - 1, err) : NULL;
    const char *grants = created ? record_text(root, "grants", 16, err) : NULL;
    if (!grants || !record_check_checksum(root, err))
        return false;
    r->grants_restore = strcmp(grants, "restore") == 0;
    if (!r->grants_restore && strcmp(grants, "write") != 0)
        return err_set(err, ERR_STORE_VERSION, 0, "grants '%s', which this version lacks", grants);
    (void)snprintf(r->id, sizeof r->id, "%s", id);
    (void)snprintf(r->repository, sizeof r->repository, "%s", repository);
    (void)snprintf(r->label, sizeof r->label, "%s", label);
    (void)snprintf(r->created, sizeof r->created, "%s", created);
    r->aad = record_canonical(root, not_bound);
    return decode_kdf(root, r, err) && record_bytes(root, "salt", r->salt, sizeof r->salt, err) &&
           record_bytes(root, "tag", r->tag, sizeof r->tag, err) &&
           record_bytes(root, "wrapped", r->wrapped, sizeof r->wrapped, err);
}

bool key_record_decode(const char *text, size_t len, struct key_record *ret_record, struct err *err)
{
    json_t *root = record_load(text, len, "key", err);
    if (!root)
        return false;
    struct key_record r = {0};
    bool ok = decode_key(root, &r, err);
    json_decref(root);
    if (!ok) {
        key_record_done(&r);
        return false;
    }
    *ret_record = r;
    return true;
}

void key_record_done(struct key_record *r)
{
    free(r->aad);
    *r = (struct key_record){0};
}
#define SCOPED_KEY __attribute__((cleanup(key_record_done), unused))

static bool outer_key(const struct outer *o, const uint8_t salt[CRYPT_SALT_BYTES], unsigned log2_n,
                      uint8_t out[CRYPT_SECRET_BYTES], struct err *err)
{
    if (!o->passphrase)
        memcpy(out, o->key, CRYPT_SECRET_BYTES);
    else if (!crypt_stretch(o->passphrase, salt, log2_n, out))
        return err_set(err, ERR_INTERNAL, 0,
                       "scrypt with N = 2^%u needs %" PRIu64
                       " MiB of memory, which could not be had",
                       log2_n, (UINT64_C(1) << log2_n) >> 10);
    return true;
}

/* ---- making one */

static json_t *key_json(const struct store *store, const char *id, const char *label,
                        bool grants_restore, unsigned log2_n, const uint8_t salt[CRYPT_SALT_BYTES])
{
    char created[CLOCK_TEXT_BYTES];
    clock_format_utc(clock_wall_ms(clock_system()), created);
    json_t *root =
        json_pack("{s:s, s:i, s:s, s:s, s:s, s:s, s:s, s:{s:s}}", "type", "oxbow-key", "format",
                  RECORD_FORMAT, "id", id, "repository", store->repo.uuid, "created", created,
                  "label", label, "grants", grants_restore ? "restore" : "write", "kdf", "name",
                  log2_n ? "scrypt" : "key-file");
    if (!root)
        return NULL;
    json_t *kdf = json_object_get(root, "kdf");
    if (log2_n) {
        json_object_set_new(kdf, "log2_n", json_integer(log2_n));
        json_object_set_new(kdf, "r", json_integer(8));
        json_object_set_new(kdf, "p", json_integer(1));
    }
    record_set_bytes(root, "salt", salt, CRYPT_SALT_BYTES);
    return root;
}

static bool wrap_into(json_t *root, const struct crypt_secrets *secrets, bool grants_restore,
                      const struct outer *outer, unsigned log2_n,
                      const uint8_t salt[CRYPT_SALT_BYTES], struct err *err)
{
    uint8_t key[CRYPT_SECRET_BYTES], tag[CRYPT_TAG_BYTES], both[2 * CRYPT_SECRET_BYTES];
    if (!outer_key(outer, salt, log2_n, key, err))
        return false;
    memcpy(both, secrets->write, CRYPT_SECRET_BYTES);
    memcpy(both + CRYPT_SECRET_BYTES, grants_restore ? secrets->restore : secrets->public,
           CRYPT_SECRET_BYTES);
    SCOPED_FREE char *aad = record_canonical(root, not_bound);
    crypt_wrap(key, salt, (struct crypt_aad){aad, strlen(aad)}, both, sizeof both, both, tag);
    record_set_bytes(root, "tag", tag, sizeof tag);
    record_set_bytes(root, "wrapped", both, sizeof both);
    record_set_checksum(root);
    explicit_bzero(key, sizeof key);
    return true;
}

static bool put_key(struct store *store, const char *id, const char *text, struct err *err)
{
    SCOPED_FREE char *name = xasprintf("%s.json", id);
    enum put_outcome outcome =
        object_put_if_absent(store->dirfd, "keys", name, text, strlen(text), err);
    if (outcome == PUT_EXISTS)
        return err_set(err, ERR_EXISTS, 0, "'keys/%s' is there", name);
    return outcome == PUT_CREATED;
}

static bool add_key(struct store *store, const struct crypt_secrets *secrets,
                    const struct outer *outer, const char *label, bool grants_restore,
                    char ret_id[STORE_KEY_ID_CHARS + 1], struct err *err)
{
    uint8_t random[KEY_ID_BYTES], salt[CRYPT_SALT_BYTES];
    char id[STORE_KEY_ID_CHARS + 1];
    random_bytes(random, sizeof random);
    random_bytes(salt, sizeof salt);
    hex_encode(random, sizeof random, id);
    unsigned wanted = store->opts.scrypt_log2_n ? store->opts.scrypt_log2_n : LOG2_N;
    unsigned log2_n = outer->passphrase ? wanted : 0;
    json_t *root = key_json(store, id, label, grants_restore, log2_n, salt);
    if (!root)
        return err_set(err, ERR_BAD_ARGUMENT, 0, "the label is not valid UTF-8");
    bool ok = wrap_into(root, secrets, grants_restore, outer, log2_n, salt, err);
    SCOPED_FREE char *text = ok ? record_text_of(root) : NULL;
    json_decref(root);
    if (!ok || !put_key(store, id, text, err))
        return err_wrap(err, "make a key");
    memcpy(ret_id, id, sizeof id);
    return true;
}

bool keys_make(struct store *store, const struct crypt_secrets *secrets,
               const struct store_opts *opts, struct err *err)
{
    char id[STORE_KEY_ID_CHARS + 1];
    if (!opts->key_file && !opts->passphrase_file)
        return err_set(err, ERR_BAD_ARGUMENT, 0,
                       "an encrypted repository needs a key file or a passphrase");
    if (opts->key_file) {
        SCOPED_OUTER struct outer outer = {0};
        if (!read_key_file(opts->key_file, &outer, err) ||
            !add_key(store, secrets, &outer, "", true, id, err))
            return false;
    }
    if (opts->passphrase_file) {
        SCOPED_OUTER struct outer outer = {0};
        if (!read_passphrase(opts->passphrase_file, true, &outer, err) ||
            !add_key(store, secrets, &outer, "", true, id, err))
            return false;
    }
    return true;
}

/* ---- opening */

static bool unwrap(const struct key_record *r, const struct outer *outer, struct crypt_secrets *out,
                   bool *ret_opened, struct err *err)
{
    uint8_t key[CRYPT_SECRET_BYTES], both[2 * CRYPT_SECRET_BYTES];
    *ret_opened = false;
    assert(r->aad); /* of a decoded record */
    if ((r->log2_n != 0) != (outer->passphrase != NULL))
        return true; /* of the other kind */
    if (!outer_key(outer, r->salt, r->log2_n, key, err))
        return false;
    *ret_opened = crypt_unwrap(key, r->salt, (struct crypt_aad){r->aad, strlen(r->aad)}, r->wrapped,
                               sizeof r->wrapped, both, r->tag);
    if (*ret_opened) {
        *out = (struct crypt_secrets){.can_write = true, .can_restore = r->grants_restore};
        memcpy(out->write, both, CRYPT_SECRET_BYTES);
        memcpy(r->grants_restore ? out->restore : out->public, both + CRYPT_SECRET_BYTES,
               CRYPT_SECRET_BYTES);
        if (r->grants_restore)
            *ret_opened = crypt_secrets_derive(out);
    }
    explicit_bzero(key, sizeof key);
    explicit_bzero(both, sizeof both);
    return true;
}

static bool read_key(struct store *store, const char *name, struct key_record *ret_record,
                     struct err *err)
{
    SCOPED_FREE char *path = xasprintf("keys/%s", name);
    SCOPED_BUF struct buf text;
    if (!object_read(store->dirfd, path, KEY_JSON_MAX, &text, err) ||
        !key_record_decode(buf_str(&text), text.len, ret_record, err))
        return err_wrap(err, "'%s'", path);
    const char *id = ret_record->id;
    if (strcmp(ret_record->repository, store->repo.uuid) == 0 &&
        strncmp(id, name, strlen(id)) == 0 && strcmp(name + strlen(id), ".json") == 0)
        return true;
    key_record_done(ret_record);
    return err_set(err, ERR_STORE_CORRUPT, 0, "'%s' is of another repository or key", path);
}

static bool list_keys(struct store *store, struct object_names *ret_names, struct err *err)
{
    if (object_list(store->dirfd, "keys", ret_names, err))
        return true;
    if (err->code != ERR_NOT_FOUND)
        return false;
    err_clear(err);
    return true;
}

/* Try one outer key on all objects. The first failure that is not "another key" goes to `trouble`.
 */
static bool try_outer(struct store *store, const struct object_names *names,
                      const struct outer *outer, struct err *trouble)
{
    for (size_t i = 0; i < names->count && i < KEYS_MAX; i++) {
        struct err one = ERR_INIT;
        SCOPED_KEY struct key_record record = {0};
        SCOPED_SECRETS struct crypt_secrets secrets = {0};
        bool is_opened = false;
        if (read_key(store, names->items[i], &record, &one) &&
            unwrap(&record, outer, &secrets, &is_opened, &one) && is_opened) {
            store->crypt = crypt_new(store->repo_id, &secrets);
            memcpy(store->key_id, record.id, sizeof store->key_id);
            return true;
        }
        if (err_is_set(&one))
            err_keep_first(trouble, &one);
    }
    return false;
}

static bool open_with(struct store *store, const struct store_opts *opts, struct err *err)
{
    SCOPED_NAMES struct object_names names = {0};
    struct err trouble = ERR_INIT;
    if (!list_keys(store, &names, err))
        return false;
    if (opts->key_file) {
        SCOPED_OUTER struct outer outer = {0};
        if (!read_key_file(opts->key_file, &outer, err))
            return false;
        if (try_outer(store, &names, &outer, &trouble))
            return true;
    }
    if (opts->passphrase_file) {
        SCOPED_OUTER struct outer outer = {0};
        if (!read_passphrase(opts->passphrase_file, false, &outer, err))
            return false;
        if (try_outer(store, &names, &outer, &trouble))
            return true;
    }
    return err_set(
        err, ERR_STORE_KEY, 0, "none of its %zu keys is opened by %s%s%s%s%s", names.count,
        opts->key_file ? opts->key_file : "", opts->key_file && opts->passphrase_file ? " or " : "",
        opts->passphrase_file ? opts->passphrase_file : "", err_is_set(&trouble) ? "; and " : "",
        err_is_set(&trouble) ? trouble.message : "");
}

bool keys_open(struct store *store, const struct store_opts *opts, struct err *err)
{
    bool is_given = opts->key_file || opts->passphrase_file;
    if (!store->repo.is_encrypted && is_given)
        return err_set(err, ERR_STORE_KEY, 0,
                       "a key was given, but the repository is not encrypted");
    if (!store->repo.is_encrypted)
        return true;
    if (is_given)
        return open_with(store, opts, err);
    if (!opts->keyless)
        return err_set(err, ERR_STORE_KEY, 0,
                       "it is encrypted: a key file or passphrase is needed");
    store->crypt = crypt_new(store->repo_id, NULL);
    return true;
}

bool store_needs_key(const struct store *store, enum key_right right, struct err *err)
{
    const struct crypt *c = store->crypt;
    if (!c || (right == KEY_TO_WRITE ? crypt_can_write(c) : crypt_can_restore(c)))
        return true;
    if (!crypt_can_write(c))
        return err_set(err, ERR_STORE_KEY, 0, "it is encrypted, and was opened without a key");
    return err_set(err, ERR_STORE_KEY, 0, "the key in use may write backups, but not read them");
}

/* ---- for people */

bool store_is_encrypted(const struct store *store)
{
    return store->crypt != NULL;
}

bool store_can_restore(const struct store *store)
{
    return !store->crypt || crypt_can_restore(store->crypt);
}

void store_key_list_done(struct store_key_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        free(list->items[i].label);
        free(list->items[i].created);
        free(list->items[i].damage);
    }
    free(list->items);
    *list = (struct store_key_list){0};
}

bool store_keys_list(struct store *store, struct store_key_list *ret_list, struct err *err)
{
    SCOPED_NAMES struct object_names names = {0};
    if (!list_keys(store, &names, err))
        return err_wrap(err, "repository '%s'", store->path);
    struct store_key_list list = {0};
    list.items = xcalloc(names.count + 1, sizeof *list.items);
    for (size_t i = 0; i < names.count; i++) {
        struct store_key_info *k = &list.items[list.count++];
        struct err one = ERR_INIT;
        SCOPED_KEY struct key_record r = {0};
        if (!read_key(store, names.items[i], &r, &one)) {
            (void)snprintf(k->id, sizeof k->id, "%.*s", STORE_KEY_ID_CHARS, names.items[i]);
            k->damage = xstrdup(one.message);
        } else {
            memcpy(k->id, r.id, sizeof k->id);
            k->is_passphrase = r.log2_n != 0;
            k->grants_restore = r.grants_restore;
            k->is_used = strcmp(r.id, store->key_id) == 0;
        }
        k->label = xstrdup(r.label);
        k->created = xstrdup(r.created);
    }
    *ret_list = list;
    return true;
}

bool store_key_add(struct store *store, const struct store_key_opts *opts,
                   char ret_id[STORE_KEY_ID_CHARS + 1], struct err *err)
{
    SCOPED_OUTER struct outer outer = {0};
    const char *label = opts->label ? opts->label : "";
    if (!store->crypt)
        return err_set(err, ERR_STORE_KEY, 0, "repository '%s' is not encrypted", store->path);
    if (!store_needs_key(store, KEY_TO_RESTORE, err))
        return err_wrap(err, "repository '%s'", store->path);
    if (!opts->key_file == !opts->passphrase_file || strlen(label) > STORE_NAME_MAX)
        return err_set(err, ERR_BAD_ARGUMENT, 0,
                       "either a key file or a passphrase, and a label of at most %d bytes",
                       STORE_NAME_MAX);
    bool ok = opts->key_file ? read_key_file(opts->key_file, &outer, err)
                             : read_passphrase(opts->passphrase_file, true, &outer, err);
    return ok && add_key(store, crypt_secrets_of(store->crypt), &outer, label, !opts->is_write_only,
                         ret_id, err);
}

/* Somebody may have removed ours at the same time: then this one stays. */
static bool remove_unless_last(struct store *store, const char *path, const char *name,
                               const struct buf *text, struct err *err)
{
    SCOPED_FREE char *mine = xasprintf("keys/%s.json", store->key_id);
    if (unlinkat(store->dirfd, path, 0) != 0)
        return err_set_errno(err, errno, "remove '%s'", path);
    if (!object_sync_dir(store->dirfd, "keys", err))
        return false;
    if (faccessat(store->dirfd, mine, F_OK, 0) == 0)
        return true;
    (void)object_put_if_absent(store->dirfd, "keys", name, text->data, text->len, err);
    err_clear(err);
    return err_set(err, ERR_CONFLICT, 0, "the key in use was removed by somebody else just now");
}

bool store_key_remove(struct store *store, const char *id, struct err *err)
{
    if (!store->crypt || !store_needs_key(store, KEY_TO_RESTORE, err))
        return err_is_set(err) ? err_wrap(err, "repository '%s'", store->path)
                               : err_set(err, ERR_STORE_KEY, 0, "repository '%s' is not encrypted",
                                         store->path);
    if (!id_is_slug(id, STORE_KEY_ID_CHARS))
        return err_set(err, ERR_BAD_ARGUMENT, 0, "'%.64s' is no key id", id);
    if (strcmp(id, store->key_id) == 0)
        return err_set(err, ERR_REFUSED, 0,
                       "key %s is the one in use: open the repository with the key that is to stay",
                       id);
    SCOPED_FREE char *name = xasprintf("%s.json", id);
    SCOPED_FREE char *path = xasprintf("keys/%s", name);
    SCOPED_BUF struct buf text;
    if (!object_read(store->dirfd, path, KEY_JSON_MAX, &text, err))
        return err->code == ERR_NOT_FOUND ? err_wrap(err, "there is no key %s", id) : false;
    return remove_unless_last(store, path, name, &text, err);
}
