/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SHA-256 of sixteen messages at once, each in one lane of the processor's 512-bit vectors: for
 * many equally long messages still faster than sha256x2.h. Threads: reentrant.
 */
#pragma once

#include "worker/store/sha256x2.h"

enum { SHA256_LANES = 16 };

/* The states of all lanes, word by word. */
struct sha256x16 {
    uint32_t words[8][SHA256_LANES] __attribute__((aligned(64)));
};

/* False: this processor, or the operating system, lacks the vectors, and sha256x16_blocks() may not
 * be called. */
bool sha256x16_available(void);

/* All lanes begin with the same state. */
void sha256x16_start(struct sha256x16 *s, const struct sha256_state *from);

/* Take in `n` blocks of each message. Any alignment. */
void sha256x16_blocks(struct sha256x16 *s, const uint8_t *const data[SHA256_LANES], size_t n);

/* The digest of a lane. */
void sha256x16_digest(const struct sha256x16 *s, size_t lane, uint8_t out[32]);
