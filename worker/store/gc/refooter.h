/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The footer of a pack, made again from its frames and from what is left of it. Frames say all but
 * where their chunks end; of that the damaged footer tells what it still has, and the rest is cut
 * as Oxbow cuts. Whether the result is right says its digest, which the caller knows. For
 * gc/repair.c. Threads: reentrant.
 */
#pragma once

#include "worker/store/gc/relocate.h"

/* The frames of a file. Zero-initialise; pack_frames_done() also closes fd. */
struct pack_frames {
    int fd;
    uint64_t len; /* of the file */
    uint32_t n_frames;
    struct frame_place *places;
    uint64_t end;                /* of the last one that was walked over */
    uint64_t original_footer_at; /* of a relocated pack; 0 = it is none */
};
void pack_frames_done(struct pack_frames *f);

/* Find the frames of an original pack, one after the other. `footer`: of which a damaged frame's
 * entry is believed, if it fits; NULL = none. `end`: frames lie before it. */
void pack_frames_walk(struct pack_frames *f, const uint8_t *footer, size_t footer_len,
                      uint64_t end);
/* How long the footer of these frames is, by their headers; 0 when that cannot be told. */
size_t pack_frames_footer_bytes(const struct pack_frames *f, bool is_sealed);

/* Make the footer again, in place. What cannot be known stays as it is; so does all of it when the
 * frames do not go with its length, or no key is there that may read them. */
void footer_again(struct store *store, const struct pack_frames *f, uint8_t *footer, size_t len);
