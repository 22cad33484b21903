/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/store/crypt.h"

#include <assert.h>
#include <string.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/kdf.h>
#include <openssl/params.h>

#include "worker/store/object.h"

/* What cannot fail but by a broken libcrypto: then nothing may be written or believed. */
#define CRYPTO_MUST(call)                                                                          \
    do {                                                                                           \
        bool crypto_ok_ = (call);                                                                  \
        assert(crypto_ok_);                                                                        \
        (void)crypto_ok_;                                                                          \
    } while (0)

enum { NONCE_BYTES = 12 };

struct crypt {
    uint8_t uuid[16];
    struct crypt_secrets secrets;
    uint8_t id_key[CRYPT_SECRET_BYTES];
    uint8_t use_keys[CRYPT_USES][CRYPT_SECRET_BYTES];
    uint8_t frame_key[CRYPT_SECRET_BYTES]; /* goes into the keys of envelopes */
};

/* ---- primitives */

static void hkdf(const void *key, size_t key_len, const void *salt, size_t salt_len,
                 const void *info, size_t info_len, uint8_t out[CRYPT_SECRET_BYTES])
{
    EVP_KDF *kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
    EVP_KDF_CTX *ctx = kdf ? EVP_KDF_CTX_new(kdf) : NULL;
    char digest[] = "SHA256";
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)(uintptr_t)key, key_len),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, (void *)(uintptr_t)salt, salt_len),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, (void *)(uintptr_t)info, info_len),
        OSSL_PARAM_construct_end(),
    };
    CRYPTO_MUST(ctx && EVP_KDF_derive(ctx, out, CRYPT_SECRET_BYTES, params) == 1);
    EVP_KDF_CTX_free(ctx);
    EVP_KDF_free(kdf);
}

static void message_key(const uint8_t key[CRYPT_SECRET_BYTES], const uint8_t salt[CRYPT_SALT_BYTES],
                        uint8_t out[CRYPT_SECRET_BYTES])
{
    unsigned len = CRYPT_SECRET_BYTES;
    CRYPTO_MUST(HMAC(EVP_sha256(), key, CRYPT_SECRET_BYTES, salt, CRYPT_SALT_BYTES, out, &len) &&
                len == CRYPT_SECRET_BYTES);
}

/* The longest message is a frame or a blob: far below the limit of an int. */
static int as_int(size_t len)
{
    assert(len <= 1u << 30);
    return (int)len;
}

static EVP_CIPHER_CTX *gcm_new(const uint8_t key[CRYPT_SECRET_BYTES],
                               const uint8_t salt[CRYPT_SALT_BYTES], bool is_seal)
{
    static const uint8_t nonce[NONCE_BYTES];
    uint8_t once[CRYPT_SECRET_BYTES];
    message_key(key, salt, once);
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    CRYPTO_MUST(
        ctx && EVP_CipherInit_ex2(ctx, EVP_aes_256_gcm(), once, nonce, is_seal ? 1 : 0, NULL) == 1);
    OPENSSL_cleanse(once, sizeof once);
    return ctx;
}

static void gcm_aad(EVP_CIPHER_CTX *ctx, const uint8_t *uuid, struct crypt_aad aad)
{
    int n;
    if (uuid)
        CRYPTO_MUST(EVP_CipherUpdate(ctx, NULL, &n, uuid, 16) == 1);
    if (aad.len > 0)
        CRYPTO_MUST(EVP_CipherUpdate(ctx, NULL, &n, aad.data, as_int(aad.len)) == 1);
}

static void seal(const uint8_t key[CRYPT_SECRET_BYTES], const uint8_t salt[CRYPT_SALT_BYTES],
                 const uint8_t *uuid, struct crypt_aad aad, const void *in, size_t len,
                 uint8_t *out, uint8_t tag[CRYPT_TAG_BYTES])
{
    int n = 0, end = 0;
    uint8_t none[16];
    EVP_CIPHER_CTX *ctx = gcm_new(key, salt, true);
    gcm_aad(ctx, uuid, aad);
    if (len > 0)
        CRYPTO_MUST(EVP_CipherUpdate(ctx, out, &n, in, as_int(len)) == 1);
    CRYPTO_MUST(EVP_CipherFinal_ex(ctx, none, &end) == 1 && (size_t)n == len && end == 0);
    CRYPTO_MUST(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, CRYPT_TAG_BYTES, tag) == 1);
    EVP_CIPHER_CTX_free(ctx);
}

static bool unseal(const uint8_t key[CRYPT_SECRET_BYTES], const uint8_t salt[CRYPT_SALT_BYTES],
                   const uint8_t *uuid, struct crypt_aad aad, const void *in, size_t len,
                   uint8_t *out, const uint8_t tag[CRYPT_TAG_BYTES])
{
    int n = 0, end = 0;
    uint8_t none[16];
    EVP_CIPHER_CTX *ctx = gcm_new(key, salt, false);
    gcm_aad(ctx, uuid, aad);
    if (len > 0)
        CRYPTO_MUST(EVP_CipherUpdate(ctx, out, &n, in, as_int(len)) == 1);
    CRYPTO_MUST(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, CRYPT_TAG_BYTES,
                                    (void *)(uintptr_t)tag) == 1);
    bool ok = EVP_CipherFinal_ex(ctx, none, &end) == 1;
    EVP_CIPHER_CTX_free(ctx);
    return ok;
}

/* ---- secrets */

static EVP_PKEY *private_key(const uint8_t secret[CRYPT_SECRET_BYTES])
{
    return EVP_PKEY_new_raw_private_key(EVP_PKEY_X25519, NULL, secret, CRYPT_SECRET_BYTES);
}

static bool public_of(const uint8_t secret[CRYPT_SECRET_BYTES], uint8_t out[CRYPT_PUBLIC_BYTES])
{
    size_t len = CRYPT_PUBLIC_BYTES;
    EVP_PKEY *key = private_key(secret);
    bool ok = key && EVP_PKEY_get_raw_public_key(key, out, &len) == 1;
    EVP_PKEY_free(key);
    return ok;
}

void crypt_secrets_new(struct crypt_secrets *out)
{
    *out = (struct crypt_secrets){.can_write = true, .can_restore = true};
    random_bytes(out->write, sizeof out->write);
    random_bytes(out->restore, sizeof out->restore);
    CRYPTO_MUST(crypt_secrets_derive(out));
}

bool crypt_secrets_derive(struct crypt_secrets *s)
{
    return public_of(s->restore, s->public);
}

void crypt_secrets_wipe(struct crypt_secrets *s)
{
    OPENSSL_cleanse(s, sizeof *s);
}

/* ---- a repository's */

static void derive(struct crypt *c, const char *label, uint8_t out[CRYPT_SECRET_BYTES])
{
    hkdf(c->secrets.write, CRYPT_SECRET_BYTES, c->uuid, sizeof c->uuid, label, strlen(label), out);
}

struct crypt *crypt_new(const uint8_t uuid[16], const struct crypt_secrets *secrets)
{
    struct crypt *c = ALLOC_NEW(struct crypt);
    memcpy(c->uuid, uuid, sizeof c->uuid);
    if (!secrets)
        return c;
    assert(secrets->can_write);
    c->secrets = *secrets;
    derive(c, "oxbow id 1", c->id_key);
    derive(c, "oxbow list 1", c->use_keys[CRYPT_LIST]);
    derive(c, "oxbow map 1", c->use_keys[CRYPT_MAP]);
    derive(c, "oxbow point 1", c->use_keys[CRYPT_POINT]);
    derive(c, "oxbow frame 1", c->frame_key);
    return c;
}

void crypt_free(struct crypt *c)
{
    if (!c)
        return;
    OPENSSL_cleanse(c, sizeof *c);
    free(c);
}

bool crypt_can_write(const struct crypt *c)
{
    return c->secrets.can_write;
}

bool crypt_can_restore(const struct crypt *c)
{
    return c->secrets.can_restore;
}

const struct crypt_secrets *crypt_secrets_of(const struct crypt *c)
{
    return c->secrets.can_write ? &c->secrets : NULL;
}

const uint8_t *crypt_id_key(const struct crypt *c)
{
    if (!c)
        return NULL;
    assert(c->secrets.can_write);
    return c->id_key;
}

void crypt_seal(const struct crypt *c, enum crypt_use use, const uint8_t salt[CRYPT_SALT_BYTES],
                struct crypt_aad aad, const void *in, size_t len, uint8_t *out,
                uint8_t tag[CRYPT_TAG_BYTES])
{
    assert(c->secrets.can_write);
    seal(c->use_keys[use], salt, c->uuid, aad, in, len, out, tag);
}

bool crypt_open(const struct crypt *c, enum crypt_use use, const uint8_t salt[CRYPT_SALT_BYTES],
                struct crypt_aad aad, const void *in, size_t len, uint8_t *out,
                const uint8_t tag[CRYPT_TAG_BYTES])
{
    assert(c->secrets.can_write);
    return unseal(c->use_keys[use], salt, c->uuid, aad, in, len, out, tag);
}

/* ---- envelopes */

/* The key that both sides come to. libcrypto refuses a shared secret of zeroes (RFC 7748, 6.1). */
static bool agree(const struct crypt *c, const uint8_t mine[CRYPT_SECRET_BYTES],
                  const uint8_t theirs[CRYPT_PUBLIC_BYTES], struct envelope *e)
{
    static const char label[] = "oxbow envelope 1";
    uint8_t shared[CRYPT_SECRET_BYTES] = {0};
    uint8_t info[sizeof label - 1 + 2 * CRYPT_PUBLIC_BYTES];
    size_t len = sizeof shared;
    EVP_PKEY *own = private_key(mine);
    EVP_PKEY *peer = EVP_PKEY_new_raw_public_key(EVP_PKEY_X25519, NULL, theirs, CRYPT_PUBLIC_BYTES);
    EVP_PKEY_CTX *ctx = own ? EVP_PKEY_CTX_new(own, NULL) : NULL;
    bool ok = peer && ctx && EVP_PKEY_derive_init(ctx) == 1 &&
              EVP_PKEY_derive_set_peer(ctx, peer) == 1 && EVP_PKEY_derive(ctx, shared, &len) == 1 &&
              len == sizeof shared;
    EVP_PKEY_CTX_free(ctx);
    EVP_PKEY_free(peer);
    EVP_PKEY_free(own);
    if (ok) {
        memcpy(info, label, sizeof label - 1);
        memcpy(info + sizeof label - 1, e->public, CRYPT_PUBLIC_BYTES);
        memcpy(info + sizeof label - 1 + CRYPT_PUBLIC_BYTES, c->secrets.public, CRYPT_PUBLIC_BYTES);
        hkdf(shared, sizeof shared, c->frame_key, sizeof c->frame_key, info, sizeof info, e->key);
    }
    OPENSSL_cleanse(shared, sizeof shared);
    return ok;
}

void envelope_new(const struct crypt *c, struct envelope *out)
{
    assert(c->secrets.can_write);
    uint8_t secret[CRYPT_SECRET_BYTES];
    random_bytes(secret, sizeof secret);
    CRYPTO_MUST(public_of(secret, out->public) && agree(c, secret, c->secrets.public, out));
    OPENSSL_cleanse(secret, sizeof secret);
}

bool envelope_find(const struct crypt *c, const uint8_t public[CRYPT_PUBLIC_BYTES],
                   struct envelope *out)
{
    assert(c->secrets.can_restore);
    memcpy(out->public, public, CRYPT_PUBLIC_BYTES);
    return agree(c, c->secrets.restore, public, out);
}

void envelope_wipe(struct envelope *e)
{
    OPENSSL_cleanse(e, sizeof *e);
}

void envelope_seal(const struct crypt *c, const struct envelope *e,
                   const uint8_t salt[CRYPT_SALT_BYTES], struct crypt_aad aad, const void *in,
                   size_t len, uint8_t *out, uint8_t tag[CRYPT_TAG_BYTES])
{
    seal(e->key, salt, c->uuid, aad, in, len, out, tag);
}

bool envelope_open(const struct crypt *c, const struct envelope *e,
                   const uint8_t salt[CRYPT_SALT_BYTES], struct crypt_aad aad, const void *in,
                   size_t len, uint8_t *out, const uint8_t tag[CRYPT_TAG_BYTES])
{
    return unseal(e->key, salt, c->uuid, aad, in, len, out, tag);
}

/* ---- key objects */

void crypt_wrap(const uint8_t key[CRYPT_SECRET_BYTES], const uint8_t salt[CRYPT_SALT_BYTES],
                struct crypt_aad aad, const void *in, size_t len, uint8_t *out,
                uint8_t tag[CRYPT_TAG_BYTES])
{
    seal(key, salt, NULL, aad, in, len, out, tag);
}

bool crypt_unwrap(const uint8_t key[CRYPT_SECRET_BYTES], const uint8_t salt[CRYPT_SALT_BYTES],
                  struct crypt_aad aad, const void *in, size_t len, uint8_t *out,
                  const uint8_t tag[CRYPT_TAG_BYTES])
{
    return unseal(key, salt, NULL, aad, in, len, out, tag);
}

bool crypt_stretch(const char *passphrase, const uint8_t salt[CRYPT_SALT_BYTES], unsigned log2_n,
                   uint8_t out[CRYPT_SECRET_BYTES])
{
    enum { R = 8, P = 1 };
    uint64_t n = UINT64_C(1) << log2_n;
    uint64_t memory = n * 128 * R + (1 << 20); /* what it needs, and a little */
    return EVP_PBE_scrypt(passphrase, strlen(passphrase), salt, CRYPT_SALT_BYTES, n, R, P, memory,
                          out, CRYPT_SECRET_BYTES) == 1;
}
