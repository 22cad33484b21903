/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/store/record.h"

#include <inttypes.h>
#include <stddef.h>
#include <string.h>

#include "proto/base/clock.h"
#include "proto/base/id.h"
#include "worker/store/blob.h"
#include "worker/store/bytes.h"
#include "worker/store/object.h"

/* ---- reading members */

json_t *record_load(const char *text, size_t len, const char *what, struct err *err)
{
    json_error_t at;
    json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &at);
    if (json_is_object(root))
        return root;
    err_set(err, ERR_STORE_CORRUPT, 0, "%s: not a JSON object: %s", what, root ? "" : at.text);
    json_decref(root);
    return NULL;
}

const char *record_text(const json_t *object, const char *key, size_t max, struct err *err)
{
    const char *text = json_string_value(json_object_get(object, key));
    if (!text)
        err_set(err, ERR_STORE_CORRUPT, 0, "\"%s\" is not a string", key);
    else if (strlen(text) > max)
        err_set(err, ERR_STORE_CORRUPT, 0, "\"%s\" is longer than %zu bytes", key, max);
    else
        return text;
    return NULL;
}

static const char *get_slug(const json_t *object, const char *key, unsigned max, struct err *err)
{
    const char *text = record_text(object, key, max, err);
    if (text && !id_is_slug(text, max)) {
        err_set(err, ERR_STORE_CORRUPT, 0, "\"%s\" is not a name", key);
        return NULL;
    }
    return text;
}

bool record_number(const json_t *object, const char *key, uint64_t *out, struct err *err)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return err_set(err, ERR_STORE_CORRUPT, 0, "\"%s\" is not a number", key);
    *out = (uint64_t)json_integer_value(value);
    return true;
}

bool record_bytes(const json_t *object, const char *key, uint8_t *out, size_t len, struct err *err)
{
    const char *text = record_text(object, key, 2 * len, err);
    if (!text)
        return false;
    return hex_decode(text, out, len) ||
           err_set(err, ERR_STORE_CORRUPT, 0, "\"%s\" is not %zu bytes in hex", key, len);
}

void record_set_bytes(json_t *object, const char *key, const uint8_t *data, size_t len)
{
    SCOPED_FREE char *hex = xmalloc(2 * len + 1);
    hex_encode(data, len, hex);
    json_object_set_new(object, key, json_string(hex));
}

static bool get_digest(const json_t *object, const char *key, uint8_t out[DIGEST_BYTES],
                       struct err *err)
{
    return record_bytes(object, key, out, DIGEST_BYTES, err);
}

/* Features that somebody newer has used. An absent list is an empty one. */
static bool has_features(const json_t *root, const char *key, const char **ret_first)
{
    const json_t *list = json_object_get(json_object_get(root, "features"), key);
    if (json_array_size(list) == 0)
        return false;
    const char *first = json_string_value(json_array_get(list, 0));
    *ret_first = first ? first : "?";
    return true;
}

static const char encryption[] = "encryption";
static const char part[] = "part"; /* of points only */

struct incompat {
    bool is_encrypted, is_part;
};

/* The features that a reader must know. `is_point`: else it is repo.json. */
static bool check_incompat(const json_t *root, const char *what, bool is_point,
                           struct incompat *ret, struct err *err)
{
    const json_t *list = json_object_get(json_object_get(root, "features"), "incompat");
    *ret = (struct incompat){0};
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *name = json_string_value(json_array_get(list, i));
        if (name && strcmp(name, encryption) == 0)
            ret->is_encrypted = true;
        else if (name && is_point && strcmp(name, part) == 0)
            ret->is_part = true;
        else
            return err_set(err, ERR_STORE_VERSION, 0,
                           "%s needs the feature '%.64s', which this version does not know", what,
                           name ? name : "?");
    }
    return true;
}

static bool check_format(const json_t *root, const char *what, bool is_point, struct incompat *ret,
                         struct err *err)
{
    uint64_t format = 0;
    if (!record_number(root, "format", &format, err))
        return err_wrap(err, "%s", what);
    if (format != RECORD_FORMAT)
        return err_set(err, ERR_STORE_VERSION, 0,
                       "%s has format %" PRIu64 ", this version knows %d", what, format,
                       RECORD_FORMAT);
    return check_incompat(root, what, is_point, ret, err);
}

/* ---- canonical text and checksum */

char *record_canonical(const json_t *object, const char *const *without)
{
    json_t *rest = json_copy((json_t *)(uintptr_t)object);
    for (; *without; without++)
        json_object_del(rest, *without);
    char *text = json_dumps(rest, JSON_SORT_KEYS | JSON_COMPACT);
    json_decref(rest);
    if (!text)
        abort(); /* out of memory */
    return text;
}

/* SHA-256 of the canonical text without "checksum". */
static void self_checksum(const json_t *root, char out[2 * DIGEST_BYTES + 1])
{
    static const char *const without[] = {"checksum", NULL};
    SCOPED_FREE char *text = record_canonical(root, without);
    uint8_t digest[DIGEST_BYTES];
    digest_sha256(text, strlen(text), digest);
    hex_encode(digest, DIGEST_BYTES, out);
}

void record_set_checksum(json_t *object)
{
    char checksum[2 * DIGEST_BYTES + 1];
    self_checksum(object, checksum);
    json_object_set_new(object, "checksum", json_string(checksum));
}

bool record_check_checksum(const json_t *object, struct err *err)
{
    const char *checksum = record_text(object, "checksum", (size_t)2 * DIGEST_BYTES, err);
    if (!checksum)
        return false;
    char want[2 * DIGEST_BYTES + 1];
    self_checksum(object, want);
    return strcmp(checksum, want) == 0 || err_set(err, ERR_STORE_CORRUPT, 0, "wrong checksum");
}

char *record_text_of(const json_t *object)
{
    char *text = json_dumps(object, JSON_SORT_KEYS | JSON_INDENT(2));
    if (!text)
        abort(); /* out of memory */
    char *line = xasprintf("%s\n", text);
    free(text);
    return line;
}

/* ---- repo.json */

char *repo_record_encode(const char *uuid, int64_t created_ms, bool is_encrypted)
{
    char created[CLOCK_TEXT_BYTES];
    clock_format_utc(created_ms, created);
    json_t *root = json_pack("{s:s, s:i, s:s, s:s, s:{s:[], s:[], s:[]}}", "type",
                             "oxbow-repository", "format", RECORD_FORMAT, "uuid", uuid, "created",
                             created, "features", "incompat", "write_incompat", "compat");
    if (is_encrypted)
        json_array_append_new(json_object_get(json_object_get(root, "features"), "incompat"),
                              json_string(encryption));
    record_set_checksum(root);
    char *text = record_text_of(root);
    json_decref(root);
    return text;
}

static bool decode_repo(const json_t *root, struct repo_record *r, struct err *err)
{
    const char *type = record_text(root, "type", 64, err);
    if (!type)
        return false;
    if (strcmp(type, "oxbow-repository") != 0)
        return err_set(err, ERR_STORE_CORRUPT, 0, "\"type\" is '%s'", type);
    /* The format first: a newer one may do its checksum in another way. */
    struct incompat incompat = {0};
    if (!check_format(root, "repo.json", false, &incompat, err))
        return false;
    r->is_encrypted = incompat.is_encrypted;
    const char *uuid = record_text(root, "uuid", 36, err);
    if (!uuid || !record_check_checksum(root, err))
        return false;
    if (!id_is_valid(uuid))
        return err_set(err, ERR_STORE_CORRUPT, 0, "\"uuid\" is no UUID");
    memcpy(r->uuid, uuid, sizeof r->uuid);
    const char *feature;
    r->write_refused = has_features(root, "write_incompat", &feature);
    return true;
}

bool repo_record_decode(const char *text, size_t len, struct repo_record *ret_record,
                        struct err *err)
{
    json_t *root = record_load(text, len, "repo.json", err);
    if (!root)
        return false;
    struct repo_record r = {0};
    bool ok = decode_repo(root, &r, err);
    json_decref(root);
    if (!ok)
        return err->code == ERR_STORE_VERSION ? false : err_wrap(err, "repo.json");
    *ret_record = r;
    return true;
}

/* ---- statistics */

static const struct {
    const char *key;
    size_t at;
} stat_fields[] = {
    {"read_bytes", offsetof(struct store_stats, read_bytes)},
    {"zero_bytes", offsetof(struct store_stats, zero_bytes)},
    {"unchanged_bytes", offsetof(struct store_stats, unchanged_bytes)},
    {"dedup_bytes", offsetof(struct store_stats, dedup_bytes)},
    {"stored_raw_bytes", offsetof(struct store_stats, stored_raw_bytes)},
    {"stored_bytes", offsetof(struct store_stats, stored_bytes)},
    {"chunks", offsetof(struct store_stats, chunks)},
    {"packs", offsetof(struct store_stats, packs)},
};

static json_t *stats_encode(const struct store_stats *stats)
{
    json_t *object = json_object();
    for (size_t i = 0; i < ARRAY_LEN(stat_fields); i++) {
        uint64_t value = 0;
        memcpy(&value, (const char *)stats + stat_fields[i].at, sizeof value);
        json_object_set_new(object, stat_fields[i].key, json_integer((json_int_t)value));
    }
    return object;
}

static bool stats_decode(const json_t *object, struct store_stats *stats, struct err *err)
{
    const json_t *from = json_object_get(object, "stats");
    for (size_t i = 0; i < ARRAY_LEN(stat_fields); i++) {
        uint64_t value = 0;
        if (!record_number(from, stat_fields[i].key, &value, err))
            return err_wrap(err, "\"stats\"");
        memcpy((char *)stats + stat_fields[i].at, &value, sizeof value);
    }
    return true;
}

/* ---- point.json: making */

static json_t *disks_encode(const struct point_record *r)
{
    json_t *list = json_array();
    for (size_t i = 0; i < r->n_disks; i++) {
        const struct record_disk *d = &r->disks[i];
        char digest[2 * DIGEST_BYTES + 1];
        hex_encode(d->manifest_digest, DIGEST_BYTES, digest);
        json_array_append_new(list,
                              json_pack("{s:s, s:I, s:s, s:o}", "id", d->disk.id, "size_bytes",
                                        (json_int_t)d->disk.size_bytes, "manifest_sha256", digest,
                                        "stats", stats_encode(&d->disk.stats)));
    }
    return list;
}

static json_t *blobs_encode(const struct point_record *r)
{
    json_t *list = json_array();
    for (size_t i = 0; i < r->n_blobs; i++) {
        const struct record_blob *b = &r->blobs[i];
        char digest[2 * DIGEST_BYTES + 1];
        hex_encode(b->digest, DIGEST_BYTES, digest);
        json_array_append_new(list, json_pack("{s:s, s:I, s:s}", "name", b->name, "size_bytes",
                                              (json_int_t)b->size_bytes, "sha256", digest));
    }
    return list;
}

static void add_incompat(json_t *root, const char *name)
{
    json_array_append_new(json_object_get(json_object_get(root, "features"), "incompat"),
                          json_string(name));
}

static const char *const without_sealed[] = {"sealed", NULL};

/* "sealed": the VM's name and meta, and the proof that all the rest is ours. */
static void seal_point(json_t *root, const struct point_record *r, const json_t *meta,
                       const struct crypt *crypt)
{
    SCOPED_FREE char *aad = record_canonical(root, without_sealed);
    json_t *inner = json_pack("{s:s}", "vm_name", r->info.vm_name);
    if (meta)
        json_object_set(inner, "meta", (json_t *)(uintptr_t)meta);
    char *text = json_dumps(inner, JSON_SORT_KEYS | JSON_COMPACT);
    json_decref(inner);
    if (!text)
        abort(); /* out of memory: the names were encoded before */
    uint8_t salt[CRYPT_SALT_BYTES], tag[CRYPT_TAG_BYTES], *data = (uint8_t *)text;
    random_bytes(salt, sizeof salt);
    size_t len = strlen(text);
    crypt_seal(crypt, CRYPT_POINT, salt, (struct crypt_aad){aad, strlen(aad)}, data, len, data,
               tag);
    json_t *sealed = json_object();
    record_set_bytes(sealed, "salt", salt, sizeof salt);
    record_set_bytes(sealed, "tag", tag, sizeof tag);
    record_set_bytes(sealed, "data", data, len);
    json_object_set_new(root, "sealed", sealed);
    free(text);
}

char *point_record_encode(const struct point_record *r, const json_t *meta,
                          const struct crypt *crypt, size_t *ret_len, struct err *err)
{
    char created[CLOCK_TEXT_BYTES];
    clock_format_utc(r->info.created_ms, created);
    json_t *root = json_pack(
        "{s:s, s:i, s:s, s:s, s:{s:s, s:s}, s:s, s:s, s:I, s:o, s:o, s:o, s:{s:[], s:[]}}", "type",
        "oxbow-point", "format", RECORD_FORMAT, "repository", r->repository, "session", r->info.id,
        "vm", "id", r->info.vm_id, "name", r->info.vm_name, "worker", r->info.worker, "created",
        created, "created_ms", (json_int_t)r->info.created_ms, "disks", disks_encode(r), "blobs",
        blobs_encode(r), "stats", stats_encode(&r->stats), "features", "incompat", "compat");
    if (!root) {
        err_set(err, ERR_BAD_ARGUMENT, 0, "point.json: a name is not valid UTF-8");
        return NULL;
    }
    if (r->info.part_of) {
        json_object_set_new(root, "part_of", json_string(r->info.part_of));
        add_incompat(root, part);
    }
    if (crypt) {
        json_object_set_new(json_object_get(root, "vm"), "name", json_string(""));
        add_incompat(root, encryption);
        seal_point(root, r, meta, crypt);
    } else if (meta) {
        json_object_set(root, "meta", (json_t *)(uintptr_t)meta);
    }
    char *text = json_dumps(root, JSON_SORT_KEYS | JSON_INDENT(2));
    json_decref(root);
    if (!text || strlen(text) > STORE_POINT_JSON_MAX) {
        free(text);
        err_set(err, ERR_TOO_LARGE, 0, "point.json is larger than %d bytes", STORE_POINT_JSON_MAX);
        return NULL;
    }
    *ret_len = strlen(text);
    return text;
}

/* ---- point.json: reading */

static bool disk_decode(const json_t *from, struct record_disk *d, struct err *err)
{
    const char *id = get_slug(from, "id", STORE_DISK_ID_MAX, err);
    if (!id || !record_number(from, "size_bytes", &d->disk.size_bytes, err) ||
        !get_digest(from, "manifest_sha256", d->manifest_digest, err) ||
        !stats_decode(from, &d->disk.stats, err))
        return false;
    if (d->disk.size_bytes > STORE_DISK_BYTES_MAX)
        return err_set(err, ERR_STORE_CORRUPT, 0, "\"size_bytes\" is too large");
    d->disk.id = xstrdup(id);
    return true;
}

static bool blob_decode(const json_t *from, struct record_blob *b, struct err *err)
{
    const char *name = get_slug(from, "name", STORE_DISK_ID_MAX, err);
    if (!name || !record_number(from, "size_bytes", &b->size_bytes, err) ||
        !get_digest(from, "sha256", b->digest, err))
        return false;
    if (b->size_bytes > BLOB_FILE_MAX)
        return err_set(err, ERR_STORE_CORRUPT, 0, "\"size_bytes\" is too large");
    b->name = xstrdup(name);
    return true;
}

static bool lists_decode(const json_t *root, struct point_record *r, struct err *err)
{
    const json_t *disks = json_object_get(root, "disks"), *blobs = json_object_get(root, "blobs");
    if (!json_is_array(disks) || json_array_size(disks) > STORE_DISKS_MAX)
        return err_set(err, ERR_STORE_CORRUPT, 0, "\"disks\" is not a list of at most %d",
                       STORE_DISKS_MAX);
    if (!json_is_array(blobs) || json_array_size(blobs) > STORE_BLOBS_MAX)
        return err_set(err, ERR_STORE_CORRUPT, 0, "\"blobs\" is not a list of at most %d",
                       STORE_BLOBS_MAX);
    r->disks = xcalloc(json_array_size(disks) + 1, sizeof *r->disks);
    for (size_t i = 0; i < json_array_size(disks); i++) {
        if (!disk_decode(json_array_get(disks, i), &r->disks[i], err))
            return err_wrap(err, "disk %zu", i);
        r->n_disks++;
        r->info.size_bytes += r->disks[i].disk.size_bytes;
    }
    r->blobs = xcalloc(json_array_size(blobs) + 1, sizeof *r->blobs);
    for (size_t i = 0; i < json_array_size(blobs); i++) {
        if (!blob_decode(json_array_get(blobs, i), &r->blobs[i], err))
            return err_wrap(err, "blob %zu", i);
        r->n_blobs++;
    }
    return true;
}

static bool point_decode(const json_t *root, struct point_record *r, struct err *err)
{
    const json_t *vm = json_object_get(root, "vm");
    const char *session = get_slug(root, "session", STORE_SESSION_ID_MAX, err);
    const char *repository = session ? record_text(root, "repository", 36, err) : NULL;
    const char *vm_id = repository ? record_text(vm, "id", STORE_NAME_MAX, err) : NULL;
    const char *vm_name = vm_id ? record_text(vm, "name", STORE_NAME_MAX, err) : NULL;
    const char *worker = vm_name ? record_text(root, "worker", STORE_NAME_MAX, err) : NULL;
    uint64_t created_ms = 0;
    if (!worker || !record_number(root, "created_ms", &created_ms, err))
        return false;
    if (!id_is_valid(repository))
        return err_set(err, ERR_STORE_CORRUPT, 0, "\"repository\" is not a UUID");
    memcpy(r->repository, repository, sizeof r->repository);
    r->info.id = xstrdup(session);
    r->info.vm_id = xstrdup(vm_id);
    r->info.vm_name = xstrdup(vm_name);
    r->info.worker = xstrdup(worker);
    r->info.created_ms = (int64_t)created_ms;
    if (!stats_decode(root, &r->stats, err) || !lists_decode(root, r, err))
        return false;
    r->info.disks = (unsigned)r->n_disks;
    r->info.read_bytes = r->stats.read_bytes - r->stats.zero_bytes;
    r->info.stored_bytes = r->stats.stored_bytes;
    return true;
}

/* Put what is sealed to where it would stand in clear. */
static bool unseal_point(json_t *root, const struct crypt *crypt, struct err *err)
{
    const json_t *sealed = json_object_get(root, "sealed");
    const char *hex = record_text(sealed, "data", STORE_POINT_JSON_MAX, err);
    uint8_t salt[CRYPT_SALT_BYTES], tag[CRYPT_TAG_BYTES];
    if (!hex || !record_bytes(sealed, "salt", salt, sizeof salt, err) ||
        !record_bytes(sealed, "tag", tag, sizeof tag, err))
        return false;
    size_t len = strlen(hex) / 2;
    SCOPED_FREE uint8_t *data = xmalloc(len + 1);
    if (!record_bytes(sealed, "data", data, len, err))
        return false;
    SCOPED_FREE char *aad = record_canonical(root, without_sealed);
    if (!crypt_open(crypt, CRYPT_POINT, salt, (struct crypt_aad){aad, strlen(aad)}, data, len, data,
                    tag))
        return err_set(err, ERR_STORE_CORRUPT, 0, "is not authentic");
    json_t *inner = record_load((const char *)data, len, "\"sealed\"", err);
    if (!inner)
        return false;
    json_object_set(json_object_get(root, "vm"), "name", json_object_get(inner, "vm_name"));
    if (json_object_get(inner, "meta"))
        json_object_set(root, "meta", json_object_get(inner, "meta"));
    json_decref(inner);
    json_object_del(root, "sealed");
    return true;
}

static bool part_decode(const json_t *root, struct point_record *r, struct err *err)
{
    const char *part_of = get_slug(root, "part_of", STORE_SESSION_ID_MAX, err);
    if (!part_of)
        return false;
    r->info.part_of = xstrdup(part_of);
    return true;
}

static bool decode_checked(struct point_record *r, const struct crypt *crypt, struct err *err)
{
    struct incompat incompat = {0};
    if (!check_format(r->json, "point.json", true, &incompat, err))
        return false;
    bool ok = incompat.is_encrypted == (crypt != NULL);
    if (!ok)
        err_set(err, ERR_STORE_CORRUPT, 0, "is %sencrypted in a repository that is %s",
                crypt ? "not " : "", crypt ? "encrypted" : "not");
    if (ok && crypt && crypt_can_write(crypt))
        ok = unseal_point(r->json, crypt, err);
    ok = ok && point_decode(r->json, r, err) && (!incompat.is_part || part_decode(r->json, r, err));
    return ok || err_wrap(err, "point.json");
}

bool point_record_decode(const char *text, size_t len, const struct crypt *crypt,
                         struct point_record *ret_record, struct err *err)
{
    struct point_record r = {.json = record_load(text, len, "point.json", err)};
    if (!r.json)
        return false;
    if (!decode_checked(&r, crypt, err)) {
        point_record_done(&r);
        return false;
    }
    *ret_record = r;
    return true;
}

void point_record_done(struct point_record *r)
{
    free(r->info.id);
    free(r->info.vm_id);
    free(r->info.vm_name);
    free(r->info.worker);
    free(r->info.part_of);
    free(r->info.damage);
    for (size_t i = 0; i < r->n_disks; i++)
        free((char *)(uintptr_t)r->disks[i].disk.id);
    free(r->disks);
    for (size_t i = 0; i < r->n_blobs; i++)
        free(r->blobs[i].name);
    free(r->blobs);
    json_decref(r->json);
    *r = (struct point_record){0};
}
