/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/store/cache.h"

#include <assert.h>
#include <pthread.h>
#include <string.h>

struct cache_item {
    struct cache_item *next_in_bucket;
    struct cache_item *newer, *older; /* the list of unpinned, loaded items */
    struct cache_key key;
    void *value; /* NULL while loading */
    size_t bytes;
    unsigned pins;
    bool is_failed;  /* out of the table already; goes with the last pin */
    bool is_dropped; /* likewise, and loaded or being so */
};

enum { BUCKETS = 256 };

struct cache {
    pthread_mutex_t lock; /* guards all of it */
    pthread_cond_t loaded;
    cache_free_fn value_free;
    size_t max_bytes, bytes; /* bytes: of all loaded items, pinned or not */
    struct cache_item *buckets[BUCKETS];
    struct cache_item *newest, *oldest;
};

struct cache *cache_new(size_t max_bytes, cache_free_fn value_free)
{
    struct cache *c = ALLOC_NEW(struct cache);
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->loaded, NULL);
    c->max_bytes = max_bytes;
    c->value_free = value_free;
    return c;
}

static struct cache_item **slot_of(struct cache *c, const struct cache_key *key)
{
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < CACHE_KEY_BYTES; i++)
        hash = (hash ^ key->bytes[i]) * 16777619u;
    struct cache_item **at = &c->buckets[hash % BUCKETS];
    while (*at && memcmp(&(*at)->key, key, sizeof *key) != 0)
        at = &(*at)->next_in_bucket;
    return at;
}

static void list_remove(struct cache *c, struct cache_item *item)
{
    *(item->newer ? &item->newer->older : &c->newest) = item->older;
    *(item->older ? &item->older->newer : &c->oldest) = item->newer;
    item->newer = item->older = NULL;
}

static void list_push(struct cache *c, struct cache_item *item)
{
    item->older = c->newest;
    *(c->newest ? &c->newest->newer : &c->oldest) = item;
    c->newest = item;
}

static void table_remove(struct cache *c, struct cache_item *item)
{
    struct cache_item **at = slot_of(c, &item->key);
    assert(*at == item);
    *at = item->next_in_bucket;
}

/* Take what is over the bound out of the cache; returns a chain (by next_in_bucket) to free without
 * the lock. */
static struct cache_item *evict(struct cache *c)
{
    struct cache_item *chain = NULL;
    while (c->bytes > c->max_bytes && c->oldest) {
        struct cache_item *item = c->oldest;
        list_remove(c, item);
        table_remove(c, item);
        c->bytes -= item->bytes;
        item->next_in_bucket = chain;
        chain = item;
    }
    return chain;
}

static void free_chain(struct cache *c, struct cache_item *chain)
{
    while (chain) {
        struct cache_item *next = chain->next_in_bucket;
        c->value_free(chain->value);
        free(chain);
        chain = next;
    }
}

void cache_free(struct cache *c)
{
    if (!c)
        return;
    c->max_bytes = 0;
    free_chain(c, evict(c));
    assert(c->bytes == 0);
    pthread_cond_destroy(&c->loaded);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

void cache_clear(struct cache *c)
{
    struct cache_item *chain = NULL;
    pthread_mutex_lock(&c->lock);
    for (size_t i = 0; i < BUCKETS; i++) {
        while (c->buckets[i]) {
            struct cache_item *item = c->buckets[i];
            c->buckets[i] = item->next_in_bucket;
            item->is_dropped = true;
            if (item->pins > 0)
                continue;
            list_remove(c, item);
            c->bytes -= item->bytes;
            item->next_in_bucket = chain;
            chain = item;
        }
    }
    pthread_mutex_unlock(&c->lock);
    free_chain(c, chain);
}

/* Load a new, pinned, tabled item. Enters and leaves with the lock held. */
static bool load_item(struct cache *c, struct cache_item *item, cache_load_fn load, void *context,
                      struct err *err)
{
    pthread_mutex_unlock(&c->lock);
    size_t bytes = 0;
    void *value = load(context, &bytes, err);
    pthread_mutex_lock(&c->lock);
    pthread_cond_broadcast(&c->loaded);
    if (!value) {
        if (!item->is_dropped)
            table_remove(c, item);
        item->is_failed = true;
        if (--item->pins == 0)
            free(item);
        return false;
    }
    item->value = value;
    item->bytes = bytes;
    c->bytes += bytes;
    return true;
}

/* Wait until a tabled item has been loaded by its first user. False: it failed, and the item may be
 * gone: look again. */
static bool await_item(struct cache *c, struct cache_item *item)
{
    if (item->pins++ == 0)
        list_remove(c, item);
    while (!item->value && !item->is_failed)
        pthread_cond_wait(&c->loaded, &c->lock);
    if (!item->is_failed)
        return true;
    if (--item->pins == 0)
        free(item);
    return false;
}

struct cache_item *cache_pin(struct cache *c, const struct cache_key *key, cache_load_fn load,
                             void *context, struct err *err)
{
    struct cache_item *got = NULL, *chain = NULL;
    pthread_mutex_lock(&c->lock);
    for (;;) {
        struct cache_item **slot = slot_of(c, key);
        struct cache_item *item = *slot;
        if (item) {
            if (!await_item(c, item))
                continue; /* whoever loaded it failed: try for ourselves, for an error of our own */
            got = item;
            break;
        }
        item = ALLOC_NEW(struct cache_item);
        item->key = *key;
        item->pins = 1;
        *slot = item;
        if (load_item(c, item, load, context, err)) {
            got = item;
            chain = evict(c);
        }
        break;
    }
    pthread_mutex_unlock(&c->lock);
    free_chain(c, chain);
    return got;
}

void *cache_value(const struct cache_item *item)
{
    return item->value;
}

void cache_unpin(struct cache *c, struct cache_item *item)
{
    if (!item)
        return;
    pthread_mutex_lock(&c->lock);
    assert(item->pins > 0);
    struct cache_item *chain = NULL;
    if (--item->pins == 0 && item->is_dropped) {
        c->bytes -= item->bytes;
        chain = item;
        chain->next_in_bucket = NULL;
    } else {
        if (item->pins == 0)
            list_push(c, item);
        chain = evict(c);
    }
    pthread_mutex_unlock(&c->lock);
    free_chain(c, chain);
}
