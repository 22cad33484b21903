/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/store/decoder.h"

#include <pthread.h>

#include "proto/base/alloc.h"

/* Of frames kept for the next one. A frame that is nearly full takes as much memory as a full one
 * and can be any frame later; a small one takes what it needs. */
enum { IDLE_FRAMES_MAX = 8, FULL_BLOCKS_MIN = FRAME_BLOCKS_MAX / 2 };

struct decoder_pool {
    const struct crypt *crypt;
    pthread_mutex_t lock; /* guards what follows; leaf lock */
    struct decoder *idle;
    struct frame *idle_frames;
    unsigned n_idle_frames;
};

struct decoder_pool *decoder_pool_new(const struct crypt *crypt)
{
    struct decoder_pool *pool = ALLOC_NEW(struct decoder_pool);
    pool->crypt = crypt;
    pthread_mutex_init(&pool->lock, NULL);
    return pool;
}

void decoder_pool_free(struct decoder_pool *pool)
{
    if (!pool)
        return;
    while (pool->idle) {
        struct decoder *d = pool->idle;
        pool->idle = d->next;
        frame_coder_free(d->coder);
        hasher_free(d->hasher);
        free(d->bytes);
        free(d);
    }
    while (pool->idle_frames) {
        struct frame *f = pool->idle_frames;
        pool->idle_frames = f->next;
        free(f);
    }
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

/* ---- decoders */

struct decoder *decoder_take(struct decoder_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    struct decoder *d = pool->idle;
    if (d)
        pool->idle = d->next;
    pthread_mutex_unlock(&pool->lock);
    if (d)
        return d;
    d = ALLOC_NEW(struct decoder);
    d->coder = frame_coder_new(pool->crypt);
    d->bytes = xaligned(STORE_BLOCK_BYTES, DECODER_BYTES);
    if (!pool->crypt || crypt_can_write(pool->crypt)) /* else it is only for checking sums */
        d->hasher = hasher_new(crypt_id_key(pool->crypt));
    return d;
}

void decoder_give(struct decoder_pool *pool, struct decoder *decoder)
{
    pthread_mutex_lock(&pool->lock);
    decoder->next = pool->idle;
    pool->idle = decoder;
    pthread_mutex_unlock(&pool->lock);
}

/* ---- frames */

static struct frame *take_idle(struct decoder_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    struct frame *f = pool->idle_frames;
    if (f) {
        pool->idle_frames = f->next;
        pool->n_idle_frames--;
    }
    pthread_mutex_unlock(&pool->lock);
    return f;
}

struct frame *frame_new(struct decoder_pool *pool, uint32_t blocks)
{
    struct frame *f = blocks >= FULL_BLOCKS_MIN ? take_idle(pool) : NULL;
    if (!f) {
        uint32_t room = blocks >= FULL_BLOCKS_MIN ? FRAME_BLOCKS_MAX : blocks;
        f = xaligned(STORE_BLOCK_BYTES, sizeof *f + (size_t)room * STORE_BLOCK_BYTES);
        f->pool = pool;
        f->blocks_max = room;
    }
    f->next = NULL;
    f->blocks = blocks;
    return f;
}

void frame_free(void *frame)
{
    struct frame *f = frame;
    if (!f)
        return;
    if (f->blocks_max == FRAME_BLOCKS_MAX) {
        struct decoder_pool *pool = f->pool;
        pthread_mutex_lock(&pool->lock);
        if (pool->n_idle_frames < IDLE_FRAMES_MAX) {
            f->next = pool->idle_frames;
            pool->idle_frames = f;
            pool->n_idle_frames++;
            f = NULL;
        }
        pthread_mutex_unlock(&pool->lock);
    }
    free(f);
}
