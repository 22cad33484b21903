/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which chunks are known, in bounded memory, shared by all sessions of a store.
 *
 * Two levels. A cache maps chunk ids to places: it holds what this process stored lately and the
 * chunk lists of packs that were loaded. Hooks (a sample of all chunks of committed sessions) tell
 * which pack to load: its neighbours come with it. What falls out of either costs deduplication,
 * never data.
 *
 * Packs of a session that is still open are known to that session only; they become known to all by
 * its commit, and are forgotten by its abort.
 *
 * Threads: any, at once. Locks: `packs` is a leaf lock; a stripe lock may be held while taking it.
 */
#pragma once

#include "worker/store/index.h"
#include "worker/store/pack.h"

struct dedup;

enum { DEDUP_COMMITTED = 0, DEDUP_NO_PACK = UINT32_MAX };

/* `hooks_max`: entries. */
struct dedup *dedup_new(size_t cache_bytes, size_t hooks_max);
void dedup_free(struct dedup *d);

/* A fresh owner: one per session. */
uint32_t dedup_owner_new(struct dedup *d);
/* All packs of the owner are committed / are gone. */
void dedup_owner_commit(struct dedup *d, uint32_t owner);
void dedup_owner_drop(struct dedup *d, uint32_t owner);

/* The store-wide number of a new pack being written; its digest comes with dedup_pack_seal(). */
uint32_t dedup_pack_begin(struct dedup *d, const uint8_t id[PACK_ID_BYTES], uint32_t owner);
void dedup_pack_seal(struct dedup *d, uint32_t pack, const uint8_t digest[DIGEST_BYTES]);
/* The number of a committed pack, known before or not. DEDUP_NO_PACK when it is known with another
 * digest: one of the two records is wrong. */
uint32_t dedup_pack_committed(struct dedup *d, const struct pack_ref *ref);
/* The same of a sealed pack of a bequeathed session: whatever this process knew of it before, the
 * pack is like one that is committed now. */
uint32_t dedup_pack_adopt(struct dedup *d, const struct pack_ref *ref);
void dedup_pack_get(struct dedup *d, uint32_t pack, struct pack_ref *out);
/* Its footer cannot be used: nothing of it is known any more. */
void dedup_pack_drop(struct dedup *d, uint32_t pack);
/* Chunks in this frame are not known any more. */
void dedup_frame_drop(struct dedup *d, uint32_t pack, uint32_t frame);
/* True for a pack that the owner is writing. */
bool dedup_pack_is_of(struct dedup *d, uint32_t pack, uint32_t owner);

/* Where the chunk lies, if that is known to the owner. */
bool dedup_find(struct dedup *d, const uint8_t id[DIGEST_BYTES], uint32_t owner,
                struct location *ret_where);
/* The same; but an unknown chunk is noted to lie at `mine`, and false returned. Of two threads that
 * claim a chunk at once, one gets false and the other its place. */
bool dedup_claim(struct dedup *d, const uint8_t id[DIGEST_BYTES], uint32_t owner,
                 const struct location *mine, struct location *ret_where);

/* Remember a hook of a committed session. Ignored when full. */
void dedup_hook_add(struct dedup *d, uint64_t prefix, uint32_t pack);
/* The committed pack that holds this chunk by its hook, or DEDUP_NO_PACK when there is no hook. */
uint32_t dedup_hook_find(struct dedup *d, const uint8_t id[DIGEST_BYTES]);
/* True when the pack's chunks are not in the cache, or may have fallen out of it: the caller loads
 * its footer and calls dedup_load_footer(). True is said once; serialise the callers, so that a
 * second one finds the chunks loaded. */
bool dedup_wants_load(struct dedup *d, uint32_t pack);
/* Put the chunks of a loaded pack into the cache. */
void dedup_load_footer(struct dedup *d, uint32_t pack, const struct footer *footer);
