/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What decoding a frame needs, kept for the next one: a coder, a hasher and the stored bytes, and
 * the memory of decoded frames. Memory of this size that is given back and taken anew each time
 * costs a page fault for each of its pages.
 *
 * Threads: any, at once.
 */
#pragma once

#include "worker/store/digest.h"
#include "worker/store/framecode.h"
#include "worker/store/store.h"

struct decoder_pool;

/* `crypt` is the repository's or NULL; borrowed. */
struct decoder_pool *decoder_pool_new(const struct crypt *crypt);
/* All decoders and frames must have been given back. NULL is fine. */
void decoder_pool_free(struct decoder_pool *pool);

/* For one thread. */
struct decoder {
    struct decoder *next;
    struct frame_coder *coder;
    struct hasher *hasher; /* NULL without a key */
    uint8_t *bytes; /* DECODER_BYTES, aligned: a frame with the rest of its first and last block */
};
enum { DECODER_BYTES = FRAME_BYTES_MAX + 2 * STORE_BLOCK_BYTES };
/* Give it back with decoder_give(). */
struct decoder *decoder_take(struct decoder_pool *pool);
void decoder_give(struct decoder_pool *pool, struct decoder *decoder);

/* A decoded frame. */
struct frame {
    struct decoder_pool *pool; /* where it came from */
    struct frame *next;        /* of the pool's idle ones */
    uint32_t blocks;
    uint32_t blocks_max; /* that there is room for */
    /* blocks * STORE_BLOCK_BYTES; aligned, so that it can be written with O_DIRECT as it is. */
    uint8_t data[] __attribute__((aligned(STORE_BLOCK_BYTES)));
};
/* With any bytes in it, perhaps those of another frame. */
struct frame *frame_new(struct decoder_pool *pool, uint32_t blocks);
/* NULL is fine. */
void frame_free(void *frame);
