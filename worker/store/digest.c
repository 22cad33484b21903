/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/store/digest.h"

#include <assert.h>
#include <endian.h>
#include <string.h>

#include <isa-l/crc.h>
#include <isa-l/mem_routines.h>
#include <openssl/evp.h>

#include "worker/store/sha256x16.h"
#include "worker/store/store.h"

enum { HMAC_PAD_BYTES = 64, MANY_MIN = 9 /* messages for which all lanes are worth it */ };

struct hasher {
    EVP_MD *sha256; /* fetched once: an implicit fetch costs as much as a small block */
    EVP_MD_CTX *ctx;
    bool is_keyed;
    bool has_lanes;                   /* the processor does two messages at once, */
    bool has_many;                    /* and sixteen */
    struct sha256_state inner, outer; /* what messages begin with; outer: when keyed */
    uint8_t inner_pad[HMAC_PAD_BYTES], outer_pad[HMAC_PAD_BYTES]; /* of HMAC (RFC 2104) */
};

/* A digest cannot fail but by a broken libcrypto, and then no backup may go on. */
#define CRYPTO_MUST(call)                                                                          \
    do {                                                                                           \
        int crypto_ok_ = (call);                                                                   \
        assert(crypto_ok_ == 1);                                                                   \
        (void)crypto_ok_;                                                                          \
    } while (0)

struct hasher *hasher_new(const uint8_t *key)
{
    struct hasher *h = ALLOC_NEW(struct hasher);
    h->sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    h->ctx = EVP_MD_CTX_new();
    assert(h->sha256 && h->ctx);
    CRYPTO_MUST(EVP_DigestInit_ex2(h->ctx, h->sha256, NULL));
    h->has_lanes = sha256x2_available();
    h->has_many = h->has_lanes && sha256x16_available();
    h->inner = sha256_start;
    if (!key)
        return h;
    h->is_keyed = true;
    for (size_t i = 0; i < HMAC_PAD_BYTES; i++) {
        uint8_t byte = i < DIGEST_BYTES ? key[i] : 0;
        h->inner_pad[i] = byte ^ 0x36;
        h->outer_pad[i] = byte ^ 0x5c;
    }
    h->outer = sha256_start;
    if (h->has_lanes) /* both at once */
        sha256x2_blocks(&h->inner, &h->outer, h->inner_pad, h->outer_pad, 1);
    return h;
}

void hasher_free(struct hasher *h)
{
    if (!h)
        return;
    EVP_MD_CTX_free(h->ctx);
    EVP_MD_free(h->sha256);
    explicit_bzero(h, sizeof *h);
    free(h);
}

static void tagged(struct hasher *h, uint8_t tag, const void *data, size_t len,
                   uint8_t out[DIGEST_BYTES])
{
    CRYPTO_MUST(EVP_DigestInit_ex2(h->ctx, NULL, NULL));
    if (h->is_keyed)
        CRYPTO_MUST(EVP_DigestUpdate(h->ctx, h->inner_pad, HMAC_PAD_BYTES));
    CRYPTO_MUST(EVP_DigestUpdate(h->ctx, &tag, 1));
    CRYPTO_MUST(EVP_DigestUpdate(h->ctx, data, len));
    CRYPTO_MUST(EVP_DigestFinal_ex(h->ctx, out, NULL));
    if (!h->is_keyed)
        return;
    CRYPTO_MUST(EVP_DigestInit_ex2(h->ctx, NULL, NULL));
    CRYPTO_MUST(EVP_DigestUpdate(h->ctx, h->outer_pad, HMAC_PAD_BYTES));
    CRYPTO_MUST(EVP_DigestUpdate(h->ctx, out, DIGEST_BYTES));
    CRYPTO_MUST(EVP_DigestFinal_ex(h->ctx, out, NULL));
}

void hasher_leaf(struct hasher *h, const void *block, uint8_t out[DIGEST_BYTES])
{
    tagged(h, 0, block, STORE_BLOCK_BYTES, out);
}

/* ---- two leaves at once, and sixteen */

/* The last block of a message that has `prefix` + `len` bytes in all: after the `tail` bytes of
 * data that are left comes the padding (FIPS 180-4, 5.1.1). */
static void pad(uint8_t block[SHA256_BLOCK_BYTES], size_t tail, uint64_t len)
{
    uint64_t bits = htobe64(len * 8);
    memset(block + tail, 0, SHA256_BLOCK_BYTES - tail);
    block[tail] = 0x80;
    memcpy(block + SHA256_BLOCK_BYTES - sizeof bits, &bits, sizeof bits);
}

/* From the inner hashes of HMAC to the outer ones. */
static void two_outer(const struct hasher *h, struct sha256_state *a, struct sha256_state *b)
{
    uint8_t block_a[SHA256_BLOCK_BYTES], block_b[SHA256_BLOCK_BYTES];
    sha256_state_digest(a, block_a);
    sha256_state_digest(b, block_b);
    pad(block_a, DIGEST_BYTES, HMAC_PAD_BYTES + DIGEST_BYTES);
    pad(block_b, DIGEST_BYTES, HMAC_PAD_BYTES + DIGEST_BYTES);
    *a = h->outer;
    *b = h->outer;
    sha256x2_blocks(a, b, block_a, block_b, 1);
}

/* The tag moves a block of data by one byte: 63 bytes of it fill the first message block, its last
 * byte begins the last one. */
static void two_leaves(const struct hasher *h, const uint8_t *a, const uint8_t *b, uint8_t *out_a,
                       uint8_t *out_b)
{
    enum { HEAD = SHA256_BLOCK_BYTES - 1, WHOLE = (STORE_BLOCK_BYTES - 1) / SHA256_BLOCK_BYTES };
    uint8_t block_a[SHA256_BLOCK_BYTES] = {0}, block_b[SHA256_BLOCK_BYTES] = {0};
    struct sha256_state x = h->inner, y = h->inner;
    size_t prefix = h->is_keyed ? HMAC_PAD_BYTES : 0;
    memcpy(block_a + 1, a, HEAD);
    memcpy(block_b + 1, b, HEAD);
    sha256x2_blocks(&x, &y, block_a, block_b, 1);
    sha256x2_blocks(&x, &y, a + HEAD, b + HEAD, WHOLE);
    block_a[0] = a[STORE_BLOCK_BYTES - 1];
    block_b[0] = b[STORE_BLOCK_BYTES - 1];
    pad(block_a, 1, prefix + 1 + STORE_BLOCK_BYTES);
    pad(block_b, 1, prefix + 1 + STORE_BLOCK_BYTES);
    sha256x2_blocks(&x, &y, block_a, block_b, 1);
    if (h->is_keyed)
        two_outer(h, &x, &y);
    sha256_state_digest(&x, out_a);
    sha256_state_digest(&y, out_b);
}

/* The first `n` of sixteen. */
static void many_leaves(const struct hasher *h, const uint8_t *const blocks[SHA256_LANES], size_t n,
                        uint8_t *out)
{
    enum { HEAD = SHA256_BLOCK_BYTES - 1, WHOLE = (STORE_BLOCK_BYTES - 1) / SHA256_BLOCK_BYTES };
    uint8_t ends[SHA256_LANES][SHA256_BLOCK_BYTES];
    const uint8_t *at[SHA256_LANES], *data[SHA256_LANES];
    struct sha256x16 s;
    size_t prefix = h->is_keyed ? HMAC_PAD_BYTES : 0;
    for (size_t i = 0; i < SHA256_LANES; i++) {
        ends[i][0] = 0;
        memcpy(ends[i] + 1, blocks[i], HEAD);
        at[i] = ends[i];
        data[i] = blocks[i] + HEAD;
    }
    sha256x16_start(&s, &h->inner);
    sha256x16_blocks(&s, at, 1);
    sha256x16_blocks(&s, data, WHOLE);
    for (size_t i = 0; i < SHA256_LANES; i++) {
        ends[i][0] = blocks[i][STORE_BLOCK_BYTES - 1];
        pad(ends[i], 1, prefix + 1 + STORE_BLOCK_BYTES);
    }
    sha256x16_blocks(&s, at, 1);
    if (h->is_keyed) {
        for (size_t i = 0; i < SHA256_LANES; i++) {
            sha256x16_digest(&s, i, ends[i]);
            pad(ends[i], DIGEST_BYTES, HMAC_PAD_BYTES + DIGEST_BYTES);
        }
        sha256x16_start(&s, &h->outer);
        sha256x16_blocks(&s, at, 1);
    }
    for (size_t i = 0; i < n; i++)
        sha256x16_digest(&s, i, out + i * DIGEST_BYTES);
}

void hasher_leaves(struct hasher *h, const uint8_t *const *blocks, size_t n, uint8_t *out)
{
    size_t i = 0;
    for (; h->has_many && n - i >= MANY_MIN;) {
        const uint8_t *lanes[SHA256_LANES]; /* those too many do the first one again */
        size_t k = n - i < SHA256_LANES ? n - i : SHA256_LANES;
        for (size_t lane = 0; lane < SHA256_LANES; lane++)
            lanes[lane] = blocks[i + (lane < k ? lane : 0)];
        many_leaves(h, lanes, k, out);
        i += k;
        out += k * DIGEST_BYTES;
    }
    for (; h->has_lanes && i + 2 <= n; i += 2, out += (size_t)2 * DIGEST_BYTES)
        two_leaves(h, blocks[i], blocks[i + 1], out, out + DIGEST_BYTES);
    for (; i < n; i++, out += DIGEST_BYTES)
        hasher_leaf(h, blocks[i], out);
}

/* ---- chunks: short messages, for which libcrypto's own work is most of the time */

enum { SHORT_LEAVES = 64, SHORT_BLOCKS = 1 + SHORT_LEAVES * DIGEST_BYTES / SHA256_BLOCK_BYTES };

/* A message of at most SHORT_LEAVES leaves, padded. */
struct short_message {
    uint8_t bytes[SHORT_BLOCKS * SHA256_BLOCK_BYTES];
    size_t blocks;
};

static void short_message(const struct hasher *h, struct short_message *m, const uint8_t *leaves,
                          size_t n)
{
    size_t len = 1 + n * DIGEST_BYTES, prefix = h->is_keyed ? HMAC_PAD_BYTES : 0;
    m->bytes[0] = 1;
    memcpy(m->bytes + 1, leaves, n * DIGEST_BYTES);
    /* An odd number of bytes, by 1 or 33 more than whole blocks: the padding fits in the last. */
    m->blocks = len / SHA256_BLOCK_BYTES + 1;
    pad(m->bytes + (m->blocks - 1) * SHA256_BLOCK_BYTES, len % SHA256_BLOCK_BYTES, prefix + len);
}

/* Two at once as long as both last; then the longer one, twice. */
static void two_short(const struct hasher *h, const struct short_message *a,
                      const struct short_message *b, uint8_t *out_a, uint8_t *out_b)
{
    struct sha256_state x = h->inner, y = h->inner, unused = h->inner;
    size_t both = a->blocks < b->blocks ? a->blocks : b->blocks;
    bool is_a = a->blocks > both;
    const uint8_t *rest = (is_a ? a : b)->bytes + both * SHA256_BLOCK_BYTES;
    sha256x2_blocks(&x, &y, a->bytes, b->bytes, both);
    sha256x2_blocks(is_a ? &x : &y, &unused, rest, rest, (is_a ? a : b)->blocks - both);
    if (h->is_keyed)
        two_outer(h, &x, &y);
    sha256_state_digest(&x, out_a);
    sha256_state_digest(&y, out_b);
}

void hasher_chunks(struct hasher *h, const uint8_t *leaves, const uint8_t *sizes, size_t n,
                   uint8_t *out)
{
    struct short_message messages[2];
    uint8_t *outs[2], again[DIGEST_BYTES];
    unsigned waiting = 0;
    for (size_t i = 0; i < n; i++) {
        if (!h->has_lanes || sizes[i] > SHORT_LEAVES) {
            tagged(h, 1, leaves, (size_t)sizes[i] * DIGEST_BYTES, out);
        } else {
            short_message(h, &messages[waiting], leaves, sizes[i]);
            outs[waiting++] = out;
        }
        if (waiting == 2) {
            two_short(h, &messages[0], &messages[1], outs[0], outs[1]);
            waiting = 0;
        }
        leaves += (size_t)sizes[i] * DIGEST_BYTES;
        out += DIGEST_BYTES;
    }
    if (waiting > 0)
        two_short(h, &messages[0], &messages[0], outs[0], again);
}

void hasher_chunk(struct hasher *h, const uint8_t *leaves, size_t n, uint8_t out[DIGEST_BYTES])
{
    uint8_t size = (uint8_t)n;
    if (n <= SHORT_LEAVES)
        hasher_chunks(h, leaves, &size, 1, out);
    else
        tagged(h, 1, leaves, n * DIGEST_BYTES, out);
}

void digest_sha256(const void *data, size_t len, uint8_t out[DIGEST_BYTES])
{
    CRYPTO_MUST(EVP_Digest(data, len, out, NULL, EVP_sha256(), NULL));
}

/* ISA-L takes pointers to non-const and only reads through them. */
static void *unconst(const void *p)
{
    return (void *)(uintptr_t)p;
}

uint32_t crc32c(const void *data, size_t len)
{
    const uint8_t *at = data;
    uint32_t crc = ~UINT32_C(0);
    while (len > 0) { /* its length is an int */
        size_t part = len < (1u << 30) ? len : 1u << 30;
        crc = crc32_iscsi(unconst(at), (int)part, crc);
        at += part;
        len -= part;
    }
    return ~crc;
}

bool block_is_zero(const void *data, size_t len)
{
    return isal_zero_detect(unconst(data), len) == 0;
}
