/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/store/blob.h"

#include <string.h>

#include "worker/store/bytes.h"
#include "worker/store/object.h"

enum {
    BLOB_VERSION = 1,
    HEAD_BYTES = 16,
    SALT_AT = HEAD_BYTES,
    TAG_AT = SALT_AT + CRYPT_SALT_BYTES,
    PUBLIC_AT = TAG_AT + CRYPT_TAG_BYTES,
    AAD_MAX = HEAD_BYTES + STORE_SESSION_ID_MAX + 1 + STORE_NAME_MAX,
};
static const char blob_magic[8] = {'O', 'X', 'B', 'W', 'S', 'E', 'A', 'L'};

static struct crypt_aad blob_aad(const uint8_t head[HEAD_BYTES], const char *session,
                                 const char *name, uint8_t out[AAD_MAX])
{
    size_t session_len = strnlen(session, STORE_SESSION_ID_MAX);
    size_t name_len = strnlen(name, STORE_NAME_MAX), at = HEAD_BYTES;
    memcpy(out, head, HEAD_BYTES);
    memcpy(out + at, session, session_len);
    at += session_len;
    out[at++] = 0;
    memcpy(out + at, name, name_len);
    return (struct crypt_aad){out, at + name_len};
}

uint8_t *blob_seal(const struct crypt *crypt, const char *session, const char *name,
                   const void *data, size_t len, size_t *ret_len)
{
    uint8_t *out = xcalloc(1, BLOB_SEAL_BYTES + len), aad[AAD_MAX];
    struct envelope envelope;
    memcpy(out, blob_magic, sizeof blob_magic);
    put_u32(out + 8, BLOB_VERSION);
    random_bytes(out + SALT_AT, CRYPT_SALT_BYTES);
    envelope_new(crypt, &envelope);
    memcpy(out + PUBLIC_AT, envelope.public, CRYPT_PUBLIC_BYTES);
    envelope_seal(crypt, &envelope, out + SALT_AT, blob_aad(out, session, name, aad), data, len,
                  out + BLOB_SEAL_BYTES, out + TAG_AT);
    envelope_wipe(&envelope);
    *ret_len = BLOB_SEAL_BYTES + len;
    return out;
}

bool blob_open(const struct crypt *crypt, const char *session, const char *name, struct buf *bytes,
               struct err *err)
{
    uint8_t *in = (uint8_t *)bytes->data, aad[AAD_MAX];
    struct envelope envelope;
    if (bytes->len < BLOB_SEAL_BYTES || memcmp(in, blob_magic, sizeof blob_magic) != 0)
        return err_set(err, ERR_STORE_CORRUPT, 0, "is not sealed");
    if (get_u32(in + 8) != BLOB_VERSION || get_u32(in + 12) != 0)
        return err_set(err, ERR_STORE_VERSION, 0, "was sealed by a newer version");
    size_t len = bytes->len - BLOB_SEAL_BYTES;
    bool ok = envelope_find(crypt, in + PUBLIC_AT, &envelope) &&
              envelope_open(crypt, &envelope, in + SALT_AT, blob_aad(in, session, name, aad),
                            in + BLOB_SEAL_BYTES, len, in + BLOB_SEAL_BYTES, in + TAG_AT);
    envelope_wipe(&envelope);
    if (!ok)
        return err_set(err, ERR_STORE_CORRUPT, 0, "is not authentic");
    memmove(in, in + BLOB_SEAL_BYTES, len);
    in[len] = 0; /* a buffer is followed by one */
    bytes->len = len;
    return true;
}
