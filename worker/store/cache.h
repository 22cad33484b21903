/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A cache of loaded objects with a bound in bytes, least recently used first to go. An object in
 * use is pinned and never freed; two threads that want the same one load it once.
 *
 * Threads: any, at once. The loader runs without the lock.
 */
#pragma once

#include <stdint.h>

#include "proto/base/alloc.h"
#include "proto/base/err.h"

struct cache;
struct cache_item; /* pinned */

enum { CACHE_KEY_BYTES = 20 };
struct cache_key {
    uint8_t bytes[CACHE_KEY_BYTES];
};

typedef void (*cache_free_fn)(void *value);
/* Makes the value; *ret_bytes is what it counts for. NULL = failed. */
typedef void *(*cache_load_fn)(void *context, size_t *ret_bytes, struct err *err);

struct cache *cache_new(size_t max_bytes, cache_free_fn value_free);
/* Nothing may be pinned. */
void cache_free(struct cache *c);
/* Forget all values; those in use go with their last pin. */
void cache_clear(struct cache *c);

/* The item of the key, loaded if it is not there. NULL when loading failed. Unpin with
 * cache_unpin(). */
struct cache_item *cache_pin(struct cache *c, const struct cache_key *key, cache_load_fn load,
                             void *context, struct err *err);
void *cache_value(const struct cache_item *item);
/* NULL is fine. */
void cache_unpin(struct cache *c, struct cache_item *item);
