/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cryptography of an encrypted repository (docs/store-format.md, "Encryption"). Two secrets:
 * the write secret is in the digests, and seals maps and lists; the restore secret opens what was
 * sealed to its public key: the data. Whoever holds neither can still do upkeep.
 *
 * A message has a random salt of its own, hence a key of its own, hence a constant nonce. The
 * repository's UUID comes before all other associated data.
 *
 * Threads: a crypt is immutable, and used by any number of threads; an envelope is a value.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/base/alloc.h"
#include "proto/base/err.h"

enum {
    CRYPT_SALT_BYTES = 16,
    CRYPT_TAG_BYTES = 16,
    CRYPT_SECRET_BYTES = 32,
    CRYPT_PUBLIC_BYTES = 32,
    CRYPT_SEAL_BYTES = CRYPT_SALT_BYTES + CRYPT_TAG_BYTES, /* before the ciphertext, where both
                                                              stand together */
};

/* What a key gives. */
struct crypt_secrets {
    bool can_write, can_restore;
    uint8_t write[CRYPT_SECRET_BYTES];
    uint8_t restore[CRYPT_SECRET_BYTES]; /* X25519 private key; when can_restore */
    uint8_t public[CRYPT_PUBLIC_BYTES];  /* its public key; when can_write */
};
/* Fresh ones, for a new repository. */
void crypt_secrets_new(struct crypt_secrets *out);
/* Fill in `public` from `restore`. False when libcrypto refuses the key. */
bool crypt_secrets_derive(struct crypt_secrets *s);
void crypt_secrets_wipe(struct crypt_secrets *s);
#define SCOPED_SECRETS __attribute__((cleanup(crypt_secrets_wipe), unused))

struct crypt;
/* Of the repository `uuid`. NULL `secrets`: an encrypted repository without a key. */
struct crypt *crypt_new(const uint8_t uuid[16], const struct crypt_secrets *secrets);
void crypt_free(struct crypt *c);
DEFINE_SCOPED(crypt, crypt_free);

bool crypt_can_write(const struct crypt *c);
bool crypt_can_restore(const struct crypt *c);
/* The secrets given; NULL without. Borrowed. */
const struct crypt_secrets *crypt_secrets_of(const struct crypt *c);
/* The HMAC key of leaves and chunk ids, 32 bytes; NULL for a NULL crypt (plain digests). Borrowed.
 * Asserts can_write. */
const uint8_t *crypt_id_key(const struct crypt *c);

/* Bytes that are authenticated and not encrypted. */
struct crypt_aad {
    const void *data;
    size_t len;
};

/* ---- under the write secret (all of these assert can_write) */
enum crypt_use { CRYPT_LIST, CRYPT_MAP, CRYPT_POINT };
enum { CRYPT_USES = 3 };

/* `out` has `len` bytes and may be `in`. `salt` is new and random, or made by the caller, who never
 * uses it twice for the same use. */
void crypt_seal(const struct crypt *c, enum crypt_use use, const uint8_t salt[CRYPT_SALT_BYTES],
                struct crypt_aad aad, const void *in, size_t len, uint8_t *out,
                uint8_t tag[CRYPT_TAG_BYTES]);
/* False: it was not sealed with this secret, or has been changed; `out` is undefined then. */
bool crypt_open(const struct crypt *c, enum crypt_use use, const uint8_t salt[CRYPT_SALT_BYTES],
                struct crypt_aad aad, const void *in, size_t len, uint8_t *out,
                const uint8_t tag[CRYPT_TAG_BYTES]);

/* ---- to the public key */
struct envelope {
    uint8_t public[CRYPT_PUBLIC_BYTES]; /* of the ephemeral key: goes with each message */
    uint8_t key[CRYPT_SECRET_BYTES];
};
/* A fresh one, for any number of messages. Asserts can_write. */
void envelope_new(const struct crypt *c, struct envelope *out);
/* The one with this public part. False when it is not a usable key. Asserts can_restore. */
bool envelope_find(const struct crypt *c, const uint8_t public[CRYPT_PUBLIC_BYTES],
                   struct envelope *out);
void envelope_wipe(struct envelope *e);
void envelope_seal(const struct crypt *c, const struct envelope *e,
                   const uint8_t salt[CRYPT_SALT_BYTES], struct crypt_aad aad, const void *in,
                   size_t len, uint8_t *out, uint8_t tag[CRYPT_TAG_BYTES]);
bool envelope_open(const struct crypt *c, const struct envelope *e,
                   const uint8_t salt[CRYPT_SALT_BYTES], struct crypt_aad aad, const void *in,
                   size_t len, uint8_t *out, const uint8_t tag[CRYPT_TAG_BYTES]);

/* ---- for key objects: under any key. Without a repository's UUID before the associated data. */
void crypt_wrap(const uint8_t key[CRYPT_SECRET_BYTES], const uint8_t salt[CRYPT_SALT_BYTES],
                struct crypt_aad aad, const void *in, size_t len, uint8_t *out,
                uint8_t tag[CRYPT_TAG_BYTES]);
bool crypt_unwrap(const uint8_t key[CRYPT_SECRET_BYTES], const uint8_t salt[CRYPT_SALT_BYTES],
                  struct crypt_aad aad, const void *in, size_t len, uint8_t *out,
                  const uint8_t tag[CRYPT_TAG_BYTES]);
/* scrypt with r = 8, p = 1 and N = 2^log2_n: 128 * 8 * N bytes of memory. False when that much
 * cannot be had. */
bool crypt_stretch(const char *passphrase, const uint8_t salt[CRYPT_SALT_BYTES], unsigned log2_n,
                   uint8_t out[CRYPT_SECRET_BYTES]);
