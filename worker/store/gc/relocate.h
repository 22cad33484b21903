/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Relocated packs (docs/store-format.md, "Relocated packs"): a pack of the same name with fewer
 * frames, or with healed ones, and the footer of the original. Rewriting copies frames byte by
 * byte, so it needs no key.
 *
 * Threads: reentrant.
 */
#pragma once

#include "worker/store/framecode.h"
#include "worker/store/packfile.h"

/* Where a frame lies now. */
struct frame_place {
    uint64_t offset;     /* of its header; 0 = it is gone */
    uint32_t stored_len; /* of the bytes after the header */
};

struct relocation {
    uint64_t footer_offset; /* in the original pack */
    uint32_t n_frames;
    struct frame_place *places;
};
enum {
    RELOCATION_HEAD_BYTES = 24,
    RELOCATION_PLACE_BYTES = 16,
    RELOCATION_BYTES_MAX = RELOCATION_HEAD_BYTES + RELOCATION_PLACE_BYTES * PACK_FRAMES_MAX + 4,
};

/* The caller frees. */
uint8_t *relocation_encode(const struct relocation *r, size_t *ret_len);
/* `end`: where the table stands; all frames lie before it. The caller calls relocation_done(). */
bool relocation_decode(const uint8_t *in, size_t len, uint64_t end, struct relocation *ret,
                       struct err *err);
void relocation_done(struct relocation *r);
/* The table of a relocated pack. */
bool relocation_read(int fd, const struct trailer *trailer, struct relocation *ret,
                     struct err *err);

/* ---- the bytes of a pack as they lie there, relocated or not; no digest but the footer's is
 * checked */
struct raw_pack {
    int fd;
    char path[64];
    uint64_t file_len;
    struct pack_header header;
    struct trailer trailer;
    struct relocation relocation; /* of an original pack: its frame table in the same form */
};
/* `whole`: check the footer's digest too, which means to read it; else its frame table is read
 * alone. not-found when there is no such pack. The caller calls raw_pack_close(). */
bool raw_pack_open(int dirfd, const uint8_t id[PACK_ID_BYTES], bool whole, struct raw_pack *ret,
                   struct err *err);
void raw_pack_close(struct raw_pack *p);

/* The bytes of a frame with its header, both checksums checked. `out` has FRAME_BYTES_MAX; returns
 * their number, 0 on error. */
size_t raw_pack_frame(const struct raw_pack *p, uint32_t frame, uint8_t *out, struct err *err);

/* ---- a file that takes the place of a pack */
struct pack_output {
    int fd;
    uint64_t len;
    char dir[64], path[64]; /* of the pack */
    char *temp;
};
/* `path` is the pack's. */
bool pack_output_begin(int dirfd, const char *path, struct pack_output *ret, struct err *err);
bool pack_output_put(struct pack_output *o, const void *data, size_t len, struct err *err);
/* Put it in place, durably, if all went well so far; else `err` is set already, and the file goes.
 * Returns whether it is in place. */
bool pack_output_end(int dirfd, struct pack_output *o, bool ok, struct err *err);

/* ---- rewriting */
enum rewrite_action { REWRITE_DROP, REWRITE_COPY, REWRITE_REPLACE, REWRITE_COPY_AS_IT_IS };
struct rewrite {
    void *context;
    /* What becomes of a frame. REPLACE: *ret_bytes is the new header and stored bytes. */
    enum rewrite_action (*choose)(void *context, uint32_t frame, const uint8_t **ret_bytes,
                                  size_t *ret_len);
};
/* Put a relocated pack in the place of this one. A frame to copy whose checksums are wrong is
 * store-corrupt, and nothing is changed then (COPY_AS_IT_IS does not look). `ret_len`: its new
 * length. */
bool raw_pack_rewrite(int dirfd, const struct raw_pack *p, const struct rewrite *how,
                      uint64_t *ret_len, struct err *err);
