/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SHA-256 of two messages at once, with the processor's SHA instructions: their latency hides each
 * other's, so that two go in little more than the time of one. Threads: reentrant.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SHA256_BLOCK_BYTES = 64 };

/* A state between blocks (FIPS 180-4, 6.2): eight words. */
struct sha256_state {
    uint32_t words[8];
};
extern const struct sha256_state sha256_start;
extern const uint32_t sha256_constants[64];

/* False: this processor lacks the instructions, and nothing else here may be called. */
bool sha256x2_available(void);

/* Take in `n` blocks of each message. Any alignment. */
void sha256x2_blocks(struct sha256_state *a, struct sha256_state *b, const uint8_t *data_a,
                     const uint8_t *data_b, size_t n);

/* The digest of a state: its words, big-endian. */
void sha256_state_digest(const struct sha256_state *s, uint8_t out[32]);
