/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Up to 512 KiB of a disk on the way from a call of store_stream_write() into the stream's frame,
 * in three passes:
 *
 *     classify   each block: zero, equal to the parent's, or to be stored (with its leaf digest)
 *     cut        runs of blocks to be stored into chunks, by their leaf digests
 *     place      each chunk: known somewhere, or appended to the frame being filled
 *
 * A chunk whose end a unit does not have is carried over to the next one, which begins with its
 * blocks: how data is cut, and with it what is found again, depends on the data alone and not on
 * the sizes of writes. It waits until the stream writes elsewhere, or ends.
 *
 * Threads: the stream's.
 */
#pragma once

#include "worker/store/writer.h"

/* A unit stays in the processor's cache from the first pass to the last. */
enum { UNIT_BLOCKS = 128, CARRY_BLOCKS_MAX = CHUNK_BLOCKS_MAX - 1 };
enum { UNIT_AND_CARRY_BLOCKS = UNIT_BLOCKS + CARRY_BLOCKS_MAX };

enum block_kind { BLOCK_ZERO, BLOCK_SAME, BLOCK_NEW };

/* A unit on its way. Its blocks are the carried ones, all of them BLOCK_NEW, and then those of the
 * write. */
struct unit {
    struct store_stream *stream;
    struct store_disk *disk; /* also of what is carried */
    uint64_t block;          /* of the disk */
    uint32_t n, carried;
    const uint8_t *data; /* of the write: all blocks, but the last one if the disk's end cuts it */
    const uint8_t *last; /* the last block */
    uint8_t *carry;      /* CARRY_BLOCKS_MAX */
    struct store_stats stats;
    struct map_records records;
    uint8_t kinds[UNIT_AND_CARRY_BLOCKS];
    uint8_t leaves[UNIT_AND_CARRY_BLOCKS * DIGEST_BYTES];
    uint8_t padded[STORE_BLOCK_BYTES];
};

struct unit *unit_new(struct store_stream *stream);
void unit_free(struct unit *u);

/* `len` bytes at block `block` of the disk: at most UNIT_BLOCKS. They must be its whole blocks, but
 * for the last one of the disk. What is carried and does not go on here is settled first. */
bool unit_write(struct unit *u, struct store_disk *disk, uint64_t block, const uint8_t *data,
                size_t len, struct err *err);
/* What is carried ends here. */
bool unit_settle(struct unit *u, struct err *err);
