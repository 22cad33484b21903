/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/store/sha256x2.h"

#include <assert.h>
#include <endian.h>
#include <string.h>

const struct sha256_state sha256_start = {{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                           0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19}};

const uint32_t sha256_constants[64] __attribute__((aligned(16))) = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

void sha256_state_digest(const struct sha256_state *s, uint8_t out[32])
{
    for (size_t i = 0; i < 8; i++) {
        uint32_t word = htobe32(s->words[i]);
        memcpy(out + 4 * i, &word, sizeof word);
    }
}

#if defined(__x86_64__)

#include <cpuid.h>
#include <immintrin.h>

bool sha256x2_available(void)
{
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_SSSE3) || !(c & bit_SSE4_1))
        return false;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_SHA);
}

#define WITH_SHA __attribute__((target("sha,sse4.1,ssse3")))
#define INLINE   static inline __attribute__((always_inline)) WITH_SHA

/* A message on its way: the state in the order that the instructions want, and 16 words of the
 * schedule. */
struct lane {
    __m128i abef, cdgh;
    __m128i m[4];
};

INLINE void lane_load(struct lane *l, const struct sha256_state *s)
{
    __m128i low = _mm_loadu_si128((const __m128i *)(const void *)&s->words[0]);
    __m128i high = _mm_loadu_si128((const __m128i *)(const void *)&s->words[4]);
    low = _mm_shuffle_epi32(low, 0xB1);   /* c d a b */
    high = _mm_shuffle_epi32(high, 0x1B); /* e f g h */
    l->abef = _mm_alignr_epi8(low, high, 8);
    l->cdgh = _mm_blend_epi16(high, low, 0xF0);
}

INLINE void lane_store(const struct lane *l, struct sha256_state *s)
{
    __m128i low = _mm_shuffle_epi32(l->abef, 0x1B);  /* f e b a */
    __m128i high = _mm_shuffle_epi32(l->cdgh, 0xB1); /* d c h g */
    _mm_storeu_si128((__m128i *)(void *)&s->words[0], _mm_blend_epi16(low, high, 0xF0));
    _mm_storeu_si128((__m128i *)(void *)&s->words[4], _mm_alignr_epi8(high, low, 8));
}

INLINE void lane_words(struct lane *l, const uint8_t *data)
{
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    for (int i = 0; i < 4; i++)
        l->m[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(const void *)data + i), swap);
}

/* Four rounds with the words m[at], after the schedule has made them when they are not of the
 * message itself. */
INLINE void lane_rounds(struct lane *l, int group)
{
    int at = group % 4;
    if (group >= 4) {
        const __m128i before = l->m[(at + 3) % 4];
        __m128i sum = _mm_sha256msg1_epu32(l->m[at], l->m[(at + 1) % 4]);
        sum = _mm_add_epi32(sum, _mm_alignr_epi8(before, l->m[(at + 2) % 4], 4));
        l->m[at] = _mm_sha256msg2_epu32(sum, before);
    }
    __m128i k = _mm_load_si128((const __m128i *)(const void *)sha256_constants + group);
    __m128i words = _mm_add_epi32(l->m[at], k);
    l->cdgh = _mm_sha256rnds2_epu32(l->cdgh, l->abef, words);
    l->abef = _mm_sha256rnds2_epu32(l->abef, l->cdgh, _mm_shuffle_epi32(words, 0x0E));
}

WITH_SHA void sha256x2_blocks(struct sha256_state *a, struct sha256_state *b, const uint8_t *data_a,
                              const uint8_t *data_b, size_t n)
{
    struct lane x, y;
    lane_load(&x, a);
    lane_load(&y, b);
    for (; n > 0; n--, data_a += SHA256_BLOCK_BYTES, data_b += SHA256_BLOCK_BYTES) {
        const struct lane was_x = x, was_y = y;
        lane_words(&x, data_a);
        lane_words(&y, data_b);
#pragma GCC unroll 16
        for (int group = 0; group < 16; group++) {
            lane_rounds(&x, group);
            lane_rounds(&y, group);
        }
        x.abef = _mm_add_epi32(x.abef, was_x.abef);
        x.cdgh = _mm_add_epi32(x.cdgh, was_x.cdgh);
        y.abef = _mm_add_epi32(y.abef, was_y.abef);
        y.cdgh = _mm_add_epi32(y.cdgh, was_y.cdgh);
    }
    lane_store(&x, a);
    lane_store(&y, b);
}

#else

bool sha256x2_available(void)
{
    return false;
}

void sha256x2_blocks(struct sha256_state *a, struct sha256_state *b, const uint8_t *data_a,
                     const uint8_t *data_b, size_t n)
{
    (void)a;
    (void)b;
    (void)data_a;
    (void)data_b;
    (void)n;
    assert(!"sha256x2_available() said no");
}

#endif
