/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `index/<session>.ix`: which chunks a committed session stored, sampled (docs/store-format.md,
 * "Indexes"). An accelerator: losing one costs deduplication, never data. Encoding and decoding
 * only; the decoder takes hostile input. Threads: reentrant.
 */
#pragma once

#include <endian.h>
#include <string.h>

#include "worker/store/pack.h"

enum { INDEX_BYTES_MAX = 256 << 20 };

/* A sampled chunk: the first 8 bytes of its id and the pack that holds it. */
struct index_hook {
    uint64_t prefix;
    uint32_t pack; /* of the index's table */
};

struct index {
    uint32_t n_packs, n_hooks;
    struct pack_ref *packs;
    struct index_hook *hooks;
};

static inline uint64_t chunk_prefix(const uint8_t id[DIGEST_BYTES])
{
    uint64_t v;
    memcpy(&v, id, sizeof v);
    return le64toh(v);
}

/* The caller frees. */
uint8_t *index_encode(const struct index *ix, const uint8_t repository[16], size_t *ret_len);
/* The caller calls index_done(). */
bool index_decode(const uint8_t *in, size_t len, const uint8_t repository[16],
                  struct index *ret_index, struct err *err);
void index_done(struct index *ix);

/*
 * The sample of a writer: every chunk while there are few, then every 2nd, ... 64th (of those whose
 * prefix is a multiple), so that small sessions are found and large ones do not fill the memory.
 * Zero-initialise; hook_set_done() frees.
 */
struct hook_set {
    struct index_hook *items;
    uint32_t count, capacity;
    uint32_t sample; /* 0 = nothing added yet */
};
void hook_set_add(struct hook_set *set, const uint8_t id[DIGEST_BYTES], uint32_t pack);
void hook_set_done(struct hook_set *set);
