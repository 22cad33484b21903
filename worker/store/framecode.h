/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between the blocks of a frame and its bytes in a pack: compression, encryption, checksum. No I/O.
 * Threads: a coder belongs to one thread at a time.
 */
#pragma once

#include "worker/store/pack.h"

/* What a thread needs for it, kept between frames. */
struct frame_coder;
/* `crypt` is the repository's or NULL; borrowed. */
struct frame_coder *frame_coder_new(const struct crypt *crypt);
void frame_coder_free(struct frame_coder *coder);
DEFINE_SCOPED(frame_coder, frame_coder_free);

/* Encode `raw` of raw_len bytes, which `chunks` chunks fill, into `out` of FRAME_BYTES_MAX; fills
 * in `header`, which stands at its beginning. `envelope` is NULL in a repository that is not
 * encrypted. Returns the length of it all. */
enum { FRAME_BYTES_MAX = FRAME_HEADER_BYTES + FRAME_STORED_MAX };
size_t frame_encode(struct frame_coder *coder, int zstd_level, const struct envelope *envelope,
                    const uint8_t *raw, uint32_t raw_len, uint32_t chunks, uint8_t *out,
                    struct frame_header *ret_header);

/* The decoded header of `bytes`, once it and the stored bytes have the right sums. `len` is of all.
 */
bool frame_check(const uint8_t *bytes, size_t len, struct frame_header *ret_header,
                 struct err *err);
/* From checked bytes, which it may decrypt in place, to `raw` of header->raw_len. The crypt can
 * restore. */
bool frame_decode(struct frame_coder *coder, uint8_t *bytes, const struct frame_header *header,
                  uint8_t *raw, struct err *err);
