/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What restore points refer to: packs, and frames of them. Built from manifests; the collector's
 * idea of what is alive.
 *
 * Threads: a usage belongs to one thread at a time.
 */
#pragma once

#include "worker/store/repo.h"

struct pack_use {
    struct pack_ref ref;
    uint8_t *bits;    /* bit f % 8 of byte f / 8: frame f is referred to */
    uint32_t n_bytes; /* of bits; 0 when frames were not asked for */
    uint32_t points;  /* that refer to the pack */
};

struct usage;

struct usage *usage_new(void);
void usage_free(struct usage *u);
DEFINE_SCOPED(usage, usage_free);

/* Add what a committed session's point refers to; `frames`: which frames too, which means to read
 * the whole map of each disk. On error some of it may have been added. */
bool usage_add_point(struct usage *u, struct store *store, const char *session, bool frames,
                     struct err *err);

/* NULL: nothing refers to the pack. Borrowed, until the next change. */
const struct pack_use *usage_find(const struct usage *u, const uint8_t id[PACK_ID_BYTES]);
static inline bool pack_use_has(const struct pack_use *use, uint32_t frame)
{
    return use && frame / 8 < use->n_bytes && (use->bits[frame / 8] >> frame % 8 & 1);
}
size_t usage_count(const struct usage *u);
/* The packs, in no order. */
const struct pack_use *usage_at(const struct usage *u, size_t i);
