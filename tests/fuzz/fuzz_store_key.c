/* SPDX-License-Identifier: Apache-2.0 */
/* What opens an encrypted repository: key objects, key files, sealed blobs, and what a sealed point
 * holds, which is sealed here so that it is reached. The first byte picks one. */
#include <stdint.h>
#include <string.h>

#include "worker/store/blob.h"
#include "worker/store/keys.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint8_t uuid[16] = {1};

static struct crypt *a_crypt(void)
{
    struct crypt_secrets secrets = {
        .can_write = true, .can_restore = true, .write = {2}, .restore = {3}};
    if (!crypt_secrets_derive(&secrets))
        __builtin_trap();
    return crypt_new(uuid, &secrets);
}

static void try_object(const uint8_t *data, size_t size)
{
    struct key_record r;
    struct err err = ERR_INIT;
    if (!key_record_decode((const char *)data, size, &r, &err))
        return;
    if (r.log2_n != 0 && (r.log2_n < 14 || r.log2_n > 20))
        __builtin_trap();
    key_record_done(&r);
}

static void try_line(const uint8_t *data, size_t size)
{
    uint8_t key[CRYPT_SECRET_BYTES];
    char again[KEY_LINE_BYTES];
    struct err err = ERR_INIT;
    SCOPED_FREE char *line = xstrndup((const char *)data, size);
    if (!key_line_decode(line, key, &err))
        return;
    key_line_encode(key, again);
    if (strcmp(line, again) != 0)
        __builtin_trap(); /* a key has one form */
}

static void try_blob(const uint8_t *data, size_t size)
{
    SCOPED(crypt) struct crypt *crypt = a_crypt();
    SCOPED_BUF struct buf bytes;
    struct err err = ERR_INIT;
    size_t len;
    buf_init(&bytes, BLOB_FILE_MAX);
    if (buf_add(&bytes, data, size) && blob_open(crypt, "s.1", "vm.ovf", &bytes, &err))
        __builtin_trap(); /* nobody sealed it */
    SCOPED_FREE uint8_t *sealed = blob_seal(crypt, "s.1", "vm.ovf", data, size, &len);
    buf_reset(&bytes);
    if (!buf_add(&bytes, sealed, len))
        return; /* too large */
    err_clear(&err);
    if (!blob_open(crypt, "s.1", "vm.ovf", &bytes, &err) || bytes.len != size ||
        (size > 0 && memcmp(bytes.data, data, size) != 0))
        __builtin_trap();
}

/* Messages quote the input. */
static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/* The data is the plain text of "sealed". */
static void try_point(const uint8_t *data, size_t size)
{
    static const char *const without[] = {"sealed", NULL};
    SCOPED(crypt) struct crypt *crypt = a_crypt();
    uint8_t salt[CRYPT_SALT_BYTES] = {4}, tag[CRYPT_TAG_BYTES];
    SCOPED_FREE uint8_t *text = xmalloc(size + 1);
    json_t *root =
        json_pack("{s:s, s:i, s:s, s:s, s:{s:s, s:s}, s:s, s:i, s:[], s:[], s:{s:[s]}}", "type",
                  "oxbow-point", "format", 1, "repository", "01000000-0000-4000-8000-000000000000",
                  "session", "s.1", "vm", "id", "v", "name", "", "worker", "w", "created_ms", 5,
                  "disks", "blobs", "features", "incompat", "encryption");
    json_object_set_new(root, "stats",
                        json_pack("{s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i}", "read_bytes", 0,
                                  "zero_bytes", 0, "unchanged_bytes", 0, "dedup_bytes", 0,
                                  "stored_raw_bytes", 0, "stored_bytes", 0, "chunks", 0, "packs",
                                  0));
    SCOPED_FREE char *aad = record_canonical(root, without);
    crypt_seal(crypt, CRYPT_POINT, salt, (struct crypt_aad){aad, strlen(aad)}, data, size, text,
               tag);
    json_t *sealed = json_object();
    record_set_bytes(sealed, "salt", salt, sizeof salt);
    record_set_bytes(sealed, "tag", tag, sizeof tag);
    record_set_bytes(sealed, "data", text, size);
    json_object_set_new(root, "sealed", sealed);
    SCOPED_FREE char *whole = record_text_of(root);
    json_decref(root);
    struct point_record r;
    struct err err = ERR_INIT;
    if (point_record_decode(whole, strlen(whole), crypt, &r, &err)) {
        if (strlen(r.info.vm_name) > STORE_NAME_MAX)
            __builtin_trap();
        point_record_done(&r);
    } else if (ends_with(err.message, "is not authentic")) {
        __builtin_trap(); /* it was sealed right */
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const tries[])(const uint8_t *, size_t) = {try_object, try_line, try_blob,
                                                             try_point};
    if (size > 0)
        tries[data[0] % ARRAY_LEN(tries)](data + 1, size - 1);
    return 0;
}
