/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/store/dedup.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
    WAYS = 8,         /* entries of a bucket */
    STRIPES = 64,     /* locks of the cache */
    TAG_BYTES = 24,   /* of a chunk id kept in an entry; the bucket comes from the rest */
    HOOKS_MIN = 1024, /* first size of the hook table */
    HUGE_PAGE_BYTES = 2 << 20,
    SMALL_CHUNKS = 512 /* more of them, and the whole table is needed */
};

struct entry {
    uint8_t tag[TAG_BYTES];
    struct location where; /* pack number + 1; 0 = empty */
};

struct bucket {
    struct entry ways[WAYS];
};

enum pack_state { PACK_OPEN, PACK_COMMITTED, PACK_DEAD };

struct known_pack {
    struct pack_ref ref;
    uint32_t owner; /* while PACK_OPEN */
    enum pack_state state;
    uint64_t
        loaded_at;    /* value of `inserted` when its chunks were last loaded, plus 1; 0 = never */
    uint8_t *dropped; /* bit f % 8 of byte f / 8: frame f is not known any more */
    uint32_t n_dropped_bytes;
};

struct hook {
    uint64_t prefix;
    uint32_t pack; /* number + 1; 0 = empty */
};

struct dedup {
    struct bucket *buckets;
    uint64_t n_buckets; /* a power of two */
    struct {
        pthread_mutex_t lock; /* guards the buckets whose number is this modulo STRIPES */
        uint32_t victim;      /* next way to overwrite */
    } stripes[STRIPES];
    _Atomic uint64_t inserted; /* into the cache, ever */

    pthread_rwlock_t packs_lock; /* guards everything below; leaf lock */
    struct known_pack *packs;
    uint32_t n_packs, cap_packs;
    uint32_t *by_id; /* hash of pack ids -> number + 1; open addressing */
    uint32_t n_by_id;
    uint32_t next_owner;
    struct hook *hooks; /* open addressing */
    size_t n_hooks, cap_hooks, max_hooks;
};

/* The table is looked into before it is written to: page by page, each would be the page of zeroes
 * first, and all processors interrupted when that is replaced. So once it is known to be needed,
 * all of it is made at once, in large pages where there are any. What is in it stays; a kernel that
 * does not know that (before 5.14) costs time. */
static void make_present(struct dedup *d)
{
    size_t bytes = d->n_buckets * sizeof *d->buckets;
    size_t skip = HUGE_PAGE_BYTES - (uintptr_t)d->buckets % HUGE_PAGE_BYTES;
    if (bytes < skip + HUGE_PAGE_BYTES)
        return;
    char *from = (char *)d->buckets + skip;
    size_t len = (bytes - skip) / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
    (void)madvise(from, len, MADV_HUGEPAGE);
    (void)madvise(from, len, MADV_POPULATE_WRITE);
}

struct dedup *dedup_new(size_t cache_bytes, size_t hooks_max)
{
    struct dedup *d = ALLOC_NEW(struct dedup);
    d->n_buckets = STRIPES;
    while (d->n_buckets * 2 * sizeof(struct bucket) <= cache_bytes)
        d->n_buckets *= 2;
    d->buckets = xcalloc(d->n_buckets, sizeof *d->buckets);
    for (size_t i = 0; i < STRIPES; i++)
        pthread_mutex_init(&d->stripes[i].lock, NULL);
    pthread_rwlock_init(&d->packs_lock, NULL);
    d->n_by_id = 256;
    d->by_id = xcalloc(d->n_by_id, sizeof *d->by_id);
    d->next_owner = DEDUP_COMMITTED + 1;
    d->max_hooks = hooks_max;
    d->cap_hooks = HOOKS_MIN;
    d->hooks = xcalloc(d->cap_hooks, sizeof *d->hooks);
    return d;
}

void dedup_free(struct dedup *d)
{
    if (!d)
        return;
    for (size_t i = 0; i < STRIPES; i++)
        pthread_mutex_destroy(&d->stripes[i].lock);
    pthread_rwlock_destroy(&d->packs_lock);
    for (uint32_t i = 0; i < d->n_packs; i++)
        free(d->packs[i].dropped);
    free(d->buckets);
    free(d->packs);
    free(d->by_id);
    free(d->hooks);
    free(d);
}

/* ---- packs */

static uint32_t id_slot(const uint32_t *table, uint32_t size, const struct known_pack *packs,
                        const uint8_t id[PACK_ID_BYTES])
{
    uint32_t at;
    memcpy(&at, id, sizeof at); /* ids are random */
    for (at &= size - 1; table[at] != 0; at = (at + 1) & (size - 1))
        if (memcmp(packs[table[at] - 1].ref.id, id, PACK_ID_BYTES) == 0)
            break;
    return at;
}

/* With the lock held for writing. */
static uint32_t pack_number(struct dedup *d, const uint8_t id[PACK_ID_BYTES])
{
    uint32_t slot = id_slot(d->by_id, d->n_by_id, d->packs, id);
    if (d->by_id[slot] != 0)
        return d->by_id[slot] - 1;
    if (d->n_packs == d->cap_packs) {
        d->cap_packs = d->cap_packs ? d->cap_packs * 2 : 64;
        d->packs = xreallocarray(d->packs, d->cap_packs, sizeof *d->packs);
    }
    struct known_pack *p = &d->packs[d->n_packs++];
    *p = (struct known_pack){.state = PACK_DEAD};
    memcpy(p->ref.id, id, PACK_ID_BYTES);
    d->by_id[slot] = d->n_packs;
    if (d->n_packs > d->n_by_id / 2) {
        free(d->by_id);
        d->n_by_id *= 2;
        d->by_id = xcalloc(d->n_by_id, sizeof *d->by_id);
        for (uint32_t i = 0; i < d->n_packs; i++)
            d->by_id[id_slot(d->by_id, d->n_by_id, d->packs, d->packs[i].ref.id)] = i + 1;
    }
    return d->n_packs - 1;
}

uint32_t dedup_pack_begin(struct dedup *d, const uint8_t id[PACK_ID_BYTES], uint32_t owner)
{
    pthread_rwlock_wrlock(&d->packs_lock);
    uint32_t pack = pack_number(d, id);
    d->packs[pack].owner = owner;
    d->packs[pack].state = PACK_OPEN;
    pthread_rwlock_unlock(&d->packs_lock);
    return pack;
}

void dedup_pack_seal(struct dedup *d, uint32_t pack, const uint8_t digest[DIGEST_BYTES])
{
    pthread_rwlock_wrlock(&d->packs_lock);
    memcpy(d->packs[pack].ref.digest, digest, DIGEST_BYTES);
    pthread_rwlock_unlock(&d->packs_lock);
}

uint32_t dedup_pack_committed(struct dedup *d, const struct pack_ref *ref)
{
    pthread_rwlock_wrlock(&d->packs_lock);
    uint32_t before = d->n_packs, pack = pack_number(d, ref->id);
    struct known_pack *p = &d->packs[pack];
    if (pack >= before) {
        p->ref = *ref;
        p->state = PACK_COMMITTED;
    }
    bool same = memcmp(p->ref.digest, ref->digest, DIGEST_BYTES) == 0;
    pthread_rwlock_unlock(&d->packs_lock);
    return same ? pack : DEDUP_NO_PACK;
}

uint32_t dedup_pack_adopt(struct dedup *d, const struct pack_ref *ref)
{
    pthread_rwlock_wrlock(&d->packs_lock);
    uint32_t before = d->n_packs, pack = pack_number(d, ref->id);
    struct known_pack *p = &d->packs[pack];
    if (pack >= before)
        p->ref = *ref;
    bool same = memcmp(p->ref.digest, ref->digest, DIGEST_BYTES) == 0;
    if (same)
        p->state = PACK_COMMITTED;
    pthread_rwlock_unlock(&d->packs_lock);
    return same ? pack : DEDUP_NO_PACK;
}

void dedup_pack_get(struct dedup *d, uint32_t pack, struct pack_ref *out)
{
    pthread_rwlock_rdlock(&d->packs_lock);
    assert(pack < d->n_packs);
    *out = d->packs[pack].ref;
    pthread_rwlock_unlock(&d->packs_lock);
}

void dedup_pack_drop(struct dedup *d, uint32_t pack)
{
    pthread_rwlock_wrlock(&d->packs_lock);
    d->packs[pack].state = PACK_DEAD;
    pthread_rwlock_unlock(&d->packs_lock);
}

void dedup_frame_drop(struct dedup *d, uint32_t pack, uint32_t frame)
{
    pthread_rwlock_wrlock(&d->packs_lock);
    struct known_pack *p = &d->packs[pack];
    if (frame / 8 >= p->n_dropped_bytes) {
        uint32_t n = frame / 8 + 16;
        p->dropped = xreallocarray(p->dropped, n, 1);
        memset(p->dropped + p->n_dropped_bytes, 0, n - p->n_dropped_bytes);
        p->n_dropped_bytes = n;
    }
    p->dropped[frame / 8] |= (uint8_t)(1u << frame % 8);
    pthread_rwlock_unlock(&d->packs_lock);
}

bool dedup_pack_is_of(struct dedup *d, uint32_t pack, uint32_t owner)
{
    pthread_rwlock_rdlock(&d->packs_lock);
    bool is = d->packs[pack].state == PACK_OPEN && d->packs[pack].owner == owner;
    pthread_rwlock_unlock(&d->packs_lock);
    return is;
}

uint32_t dedup_owner_new(struct dedup *d)
{
    pthread_rwlock_wrlock(&d->packs_lock);
    uint32_t owner = d->next_owner++;
    pthread_rwlock_unlock(&d->packs_lock);
    return owner;
}

static void owner_end(struct dedup *d, uint32_t owner, enum pack_state state)
{
    pthread_rwlock_wrlock(&d->packs_lock);
    for (uint32_t i = 0; i < d->n_packs; i++)
        if (d->packs[i].state == PACK_OPEN && d->packs[i].owner == owner)
            d->packs[i].state = state;
    pthread_rwlock_unlock(&d->packs_lock);
}

void dedup_owner_commit(struct dedup *d, uint32_t owner)
{
    owner_end(d, owner, PACK_COMMITTED);
}

void dedup_owner_drop(struct dedup *d, uint32_t owner)
{
    owner_end(d, owner, PACK_DEAD);
}

static bool place_usable(struct dedup *d, const struct location *where, uint32_t owner)
{
    pthread_rwlock_rdlock(&d->packs_lock);
    const struct known_pack *p = &d->packs[where->pack - 1];
    bool usable = p->state == PACK_COMMITTED || (p->state == PACK_OPEN && p->owner == owner);
    if (where->frame / 8u < p->n_dropped_bytes &&
        p->dropped[where->frame / 8] >> where->frame % 8 & 1)
        usable = false;
    pthread_rwlock_unlock(&d->packs_lock);
    return usable;
}

/* ---- the cache */

static struct bucket *bucket_of(struct dedup *d, const uint8_t id[DIGEST_BYTES], size_t *ret_stripe)
{
    uint64_t n;
    memcpy(&n, id + TAG_BYTES, sizeof n);
    n &= d->n_buckets - 1;
    *ret_stripe = n % STRIPES;
    return &d->buckets[n];
}

/* The entry of the chunk that the owner may use, or NULL. With the stripe's lock held. */
static struct entry *bucket_find(struct dedup *d, struct bucket *b, const uint8_t id[DIGEST_BYTES],
                                 uint32_t owner)
{
    for (size_t i = 0; i < WAYS; i++) {
        struct entry *e = &b->ways[i];
        if (e->where.pack != 0 && memcmp(e->tag, id, TAG_BYTES) == 0 &&
            place_usable(d, &e->where, owner))
            return e;
    }
    return NULL;
}

static void bucket_insert(struct dedup *d, struct bucket *b, size_t stripe,
                          const uint8_t id[DIGEST_BYTES], const struct location *where)
{
    struct entry *e = NULL;
    for (size_t i = 0; i < WAYS && !e; i++)
        if (b->ways[i].where.pack == 0)
            e = &b->ways[i];
    if (!e)
        e = &b->ways[d->stripes[stripe].victim++ % WAYS];
    memcpy(e->tag, id, TAG_BYTES);
    e->where = *where;
    e->where.pack++;
    if (atomic_fetch_add_explicit(&d->inserted, 1, memory_order_relaxed) + 1 == SMALL_CHUNKS)
        make_present(d);
}

static bool find_or_claim(struct dedup *d, const uint8_t id[DIGEST_BYTES], uint32_t owner,
                          const struct location *mine, struct location *ret_where)
{
    size_t stripe;
    struct bucket *b = bucket_of(d, id, &stripe);
    pthread_mutex_lock(&d->stripes[stripe].lock);
    const struct entry *e = bucket_find(d, b, id, owner);
    if (e) {
        *ret_where = e->where;
        ret_where->pack--;
    } else if (mine) {
        bucket_insert(d, b, stripe, id, mine);
    }
    pthread_mutex_unlock(&d->stripes[stripe].lock);
    return e != NULL;
}

bool dedup_find(struct dedup *d, const uint8_t id[DIGEST_BYTES], uint32_t owner,
                struct location *ret_where)
{
    return find_or_claim(d, id, owner, NULL, ret_where);
}

bool dedup_claim(struct dedup *d, const uint8_t id[DIGEST_BYTES], uint32_t owner,
                 const struct location *mine, struct location *ret_where)
{
    return find_or_claim(d, id, owner, mine, ret_where);
}

void dedup_load_footer(struct dedup *d, uint32_t pack, const struct footer *footer)
{
    for (uint32_t i = 0; i < footer->n_chunks; i++) {
        struct chunk_entry c = footer_chunk(footer, i);
        struct location where = {pack, c.frame, c.first, c.blocks_less_1}, known;
        /* As the committed owner: a place in an open pack does not count. */
        (void)dedup_claim(d, c.id, DEDUP_COMMITTED, &where, &known);
    }
}

/* ---- hooks */

static struct hook *hook_slot(struct hook *table, size_t size, uint64_t prefix)
{
    /* Prefixes are sampled by their low bits: mix the others in. */
    size_t at = (size_t)((prefix * UINT64_C(0x9e3779b97f4a7c15)) >> 20) & (size - 1);
    while (table[at].pack != 0 && table[at].prefix != prefix)
        at = (at + 1) & (size - 1);
    return &table[at];
}

static void hooks_grow(struct dedup *d)
{
    size_t size = d->cap_hooks * 2;
    struct hook *table = xcalloc(size, sizeof *table);
    for (size_t i = 0; i < d->cap_hooks; i++)
        if (d->hooks[i].pack != 0)
            *hook_slot(table, size, d->hooks[i].prefix) = d->hooks[i];
    free(d->hooks);
    d->hooks = table;
    d->cap_hooks = size;
}

void dedup_hook_add(struct dedup *d, uint64_t prefix, uint32_t pack)
{
    pthread_rwlock_wrlock(&d->packs_lock);
    if (d->n_hooks >= d->cap_hooks / 2 && d->n_hooks < d->max_hooks)
        hooks_grow(d);
    struct hook *h = hook_slot(d->hooks, d->cap_hooks, prefix);
    if (h->pack != 0 || d->n_hooks < d->max_hooks) {
        d->n_hooks += h->pack == 0;
        *h = (struct hook){.prefix = prefix, .pack = pack + 1};
    }
    pthread_rwlock_unlock(&d->packs_lock);
}

uint32_t dedup_hook_find(struct dedup *d, const uint8_t id[DIGEST_BYTES])
{
    uint32_t pack = DEDUP_NO_PACK;
    pthread_rwlock_rdlock(&d->packs_lock);
    const struct hook *h = hook_slot(d->hooks, d->cap_hooks, chunk_prefix(id));
    if (h->pack != 0 && d->packs[h->pack - 1].state == PACK_COMMITTED)
        pack = h->pack - 1;
    pthread_rwlock_unlock(&d->packs_lock);
    return pack;
}

bool dedup_wants_load(struct dedup *d, uint32_t pack)
{
    uint64_t inserted = atomic_load_explicit(&d->inserted, memory_order_relaxed);
    uint64_t capacity = d->n_buckets * WAYS;
    pthread_rwlock_wrlock(&d->packs_lock);
    struct known_pack *p = &d->packs[pack];
    /* Again only when so much came in since that it may have fallen out of the cache. */
    bool wants = p->loaded_at == 0 || inserted - (p->loaded_at - 1) >= capacity / 4;
    if (wants)
        p->loaded_at = inserted + 1;
    pthread_rwlock_unlock(&d->packs_lock);
    return wants;
}
