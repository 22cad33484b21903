/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The digests and checksums of the repository (docs/store-format.md, "Digests").
 *
 *     leaf  = SHA-256(0x00 || 4 KiB block)
 *     chunk = SHA-256(0x01 || leaf || leaf ...)
 *
 * In an encrypted repository both are HMAC-SHA-256 of the same bytes.
 *
 * Threads: a hasher belongs to one thread at a time.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/base/alloc.h"

enum { DIGEST_BYTES = 32, LEAF_BYTES = 16 /* a leaf as kept in pack footers: cut to this */ };

struct hasher;

/* `key`: of HMAC, DIGEST_BYTES, or NULL for plain SHA-256. Aborts when libcrypto cannot be used at
 * all. */
struct hasher *hasher_new(const uint8_t *key);
void hasher_free(struct hasher *h);

/* The leaf digest of STORE_BLOCK_BYTES bytes. */
void hasher_leaf(struct hasher *h, const void *block, uint8_t out[DIGEST_BYTES]);
/* The leaves of `n` blocks, one after the other in `out`: faster than one by one. */
void hasher_leaves(struct hasher *h, const uint8_t *const *blocks, size_t n, uint8_t *out);
/* The chunk id of `n` leaf digests of DIGEST_BYTES each. */
void hasher_chunk(struct hasher *h, const uint8_t *leaves, size_t n, uint8_t out[DIGEST_BYTES]);
/* The ids of `n` chunks whose leaves follow one another, sizes[i] of them each; one after the other
 * in `out`: faster than one by one. */
void hasher_chunks(struct hasher *h, const uint8_t *leaves, const uint8_t *sizes, size_t n,
                   uint8_t *out);

/* Plain SHA-256. Thread-safe. */
void digest_sha256(const void *data, size_t len, uint8_t out[DIGEST_BYTES]);

/* CRC-32C (Castagnoli) as in RFC 3720, with the usual inversions. Thread-safe. */
uint32_t crc32c(const void *data, size_t len);

/* True when all `len` bytes (a multiple of 64) are zero. */
bool block_is_zero(const void *data, size_t len);

DEFINE_SCOPED(hasher, hasher_free);
