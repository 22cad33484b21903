/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/store/sha256x16.h"

#include <assert.h>

void sha256x16_start(struct sha256x16 *s, const struct sha256_state *from)
{
    for (size_t i = 0; i < 8; i++)
        for (size_t lane = 0; lane < SHA256_LANES; lane++)
            s->words[i][lane] = from->words[i];
}

void sha256x16_digest(const struct sha256x16 *s, size_t lane, uint8_t out[32])
{
    struct sha256_state one;
    for (size_t i = 0; i < 8; i++)
        one.words[i] = s->words[i][lane];
    sha256_state_digest(&one, out);
}

#if defined(__x86_64__)

#include <immintrin.h>

bool sha256x16_available(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw");
}

#define WITH_VECTORS __attribute__((target("avx512f,avx512bw")))
#define INLINE       static inline __attribute__((always_inline)) WITH_VECTORS

/* Rows of 16 words, one message each, become columns: r[i] gets word i of all messages. */
INLINE void transpose(__m512i r[16])
{
    __m512i t[16];
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) { /* words of two rows in turn */
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) { /* of four */
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) { /* quarters of rows: of eight, then of all */
        __m512i a = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
        __m512i b = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
        __m512i c = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
        __m512i d = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
        t[i] = _mm512_shuffle_i32x4(a, c, 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(b, d, 0x88);
        t[i + 8] = _mm512_shuffle_i32x4(a, c, 0xdd);
        t[i + 12] = _mm512_shuffle_i32x4(b, d, 0xdd);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++)
        r[i] = t[i];
}

INLINE void load_words(const uint8_t *const data[SHA256_LANES], size_t at, __m512i w[16])
{
    const __m512i swap = _mm512_broadcast_i32x4(
        _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203)); /* big-endian */
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++)
        w[i] = _mm512_shuffle_epi8(_mm512_loadu_si512(data[i] + at), swap);
    transpose(w);
}

enum { XOR = 0x96, CHOOSE = 0xca, MAJORITY = 0xe8 }; /* of three, as a table of eight bits */

/* The functions of FIPS 180-4, 4.1.2. The numbers of bits must be constants. */
#define BIG_SIGMA(x, a, b, c)                                                                      \
    _mm512_ternarylogic_epi32(_mm512_ror_epi32(x, a), _mm512_ror_epi32(x, b),                      \
                              _mm512_ror_epi32(x, c), XOR)
#define SMALL_SIGMA(x, a, b, c)                                                                    \
    _mm512_ternarylogic_epi32(_mm512_ror_epi32(x, a), _mm512_ror_epi32(x, b),                      \
                              _mm512_srli_epi32(x, c), XOR)

/* The schedule's word for round t >= 16 takes the place of the one for t - 16. */
INLINE void next_word(__m512i w[16], int t)
{
    __m512i sum = _mm512_add_epi32(w[t & 15], w[(t + 9) & 15]);
    sum = _mm512_add_epi32(sum, SMALL_SIGMA(w[(t + 1) & 15], 7, 18, 3));
    w[t & 15] = _mm512_add_epi32(sum, SMALL_SIGMA(w[(t + 14) & 15], 17, 19, 10));
}

/* Round t; the variables are not moved: `a` is s[-t & 7], and so on. */
INLINE void one_round(__m512i s[8], __m512i word, int t)
{
    __m512i a = s[-t & 7], b = s[(1 - t) & 7], c = s[(2 - t) & 7];
    __m512i e = s[(4 - t) & 7], f = s[(5 - t) & 7], g = s[(6 - t) & 7];
    __m512i k = _mm512_set1_epi32((int)sha256_constants[t]);
    __m512i sum = _mm512_add_epi32(_mm512_add_epi32(s[(7 - t) & 7], _mm512_add_epi32(word, k)),
                                   _mm512_ternarylogic_epi32(e, f, g, CHOOSE));
    sum = _mm512_add_epi32(sum, BIG_SIGMA(e, 6, 11, 25));
    s[(3 - t) & 7] = _mm512_add_epi32(s[(3 - t) & 7], sum);
    sum = _mm512_add_epi32(sum, _mm512_ternarylogic_epi32(a, b, c, MAJORITY));
    s[(7 - t) & 7] = _mm512_add_epi32(sum, BIG_SIGMA(a, 2, 13, 22));
}

WITH_VECTORS void sha256x16_blocks(struct sha256x16 *state, const uint8_t *const data[SHA256_LANES],
                                   size_t n)
{
    __m512i s[8], w[16];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++)
        s[i] = _mm512_load_si512(state->words[i]);
    for (size_t at = 0; n > 0; n--, at += SHA256_BLOCK_BYTES) {
        load_words(data, at, w);
#pragma GCC unroll 16
        for (int t = 0; t < 16; t++)
            one_round(s, w[t], t);
#pragma GCC unroll 48
        for (int t = 16; t < 64; t++) {
            next_word(w, t);
            one_round(s, w[t & 15], t);
        }
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) {
            s[i] = _mm512_add_epi32(s[i], _mm512_load_si512(state->words[i]));
            _mm512_store_si512(state->words[i], s[i]);
        }
    }
}

#else

bool sha256x16_available(void)
{
    return false;
}

void sha256x16_blocks(struct sha256x16 *state, const uint8_t *const data[SHA256_LANES], size_t n)
{
    (void)state;
    (void)data;
    (void)n;
    assert(!"sha256x16_available() said no");
}

#endif
