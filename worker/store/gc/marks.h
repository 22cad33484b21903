/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Marks: frames that nobody may newly refer to (docs/store-format.md, "Garbage"). They lie in the
 * immutable lists of `marks/`, are never taken back, and so only ever become more.
 *
 * Threads: the codec is reentrant; a table may be used by any number of threads at once.
 */
#pragma once

#include "worker/store/object.h"
#include "worker/store/pack.h"

enum { MARK_BITS_MAX = 8192, MARKS_BYTES_MAX = 256 << 20 };

enum mark_why { MARK_GARBAGE = 0, MARK_DAMAGED = 1 };

/* Frames of one pack: bit f % 8 of bits[f / 8] for frame f; no bits at all means every frame. */
struct mark {
    uint8_t id[PACK_ID_BYTES];
    enum mark_why why;
    uint32_t n_bits_bytes;
    uint8_t *bits;
};

struct mark_list {
    struct mark *items;
    size_t count, capacity;
};
/* Copies the bits. `n_bits_bytes` 0: the whole pack. */
void mark_list_add(struct mark_list *list, const uint8_t id[PACK_ID_BYTES], enum mark_why why,
                   const uint8_t *bits, uint32_t n_bits_bytes);
void mark_list_done(struct mark_list *list);
#define SCOPED_MARKS __attribute__((cleanup(mark_list_done), unused))

/* The bytes of a list, which has its content twice; the caller frees. */
uint8_t *mark_list_encode(const struct mark_list *list, const uint8_t repository[16],
                          size_t *ret_len);
/* From either copy. The caller calls mark_list_done(). */
bool mark_list_decode(const uint8_t *in, size_t len, const uint8_t repository[16],
                      struct mark_list *ret_list, struct err *err);

/* Make a list durable. Nothing happens for an empty one. */
bool mark_list_put(int dirfd, const uint8_t repository[16], const struct mark_list *list,
                   struct err *err);

/* ---- the table: what all lists say together */
struct marks;

struct marks *marks_new(void);
void marks_free(struct marks *m);

/* Read the lists that were not read before. A list that cannot be decoded makes the table blind:
 * everything counts as marked. False when the file system fails. */
bool marks_refresh(struct marks *m, int dirfd, const uint8_t repository[16], struct err *err);

enum marked { MARKED_NONE, MARKED_SOME, MARKED_ALL };
/* What is marked of a pack. */
enum marked marks_of_pack(struct marks *m, const uint8_t id[PACK_ID_BYTES]);
bool marks_has(struct marks *m, const uint8_t id[PACK_ID_BYTES], uint32_t frame);
/* A list could not be decoded. */
bool marks_are_blind(struct marks *m);
