/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/base/queue.h"

#include <pthread.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct node {
    struct node *next;
    void *item;
    size_t bytes;
};

struct queue {
    pthread_mutex_t mutex; /* guards all below */
    pthread_cond_t not_empty, not_full;
    struct node *first, *last;
    size_t bytes, max_bytes;
    bool closed;
    int fd; /* counts 1 while not empty or closed, else 0 */
    queue_item_free_fn item_free;
};

struct queue *queue_new(size_t max_bytes, queue_item_free_fn item_free)
{
    struct queue *q = ALLOC_NEW(struct queue);
    pthread_mutex_init(&q->mutex, NULL);
    pthread_cond_init(&q->not_empty, NULL);
    pthread_cond_init(&q->not_full, NULL);
    q->max_bytes = max_bytes;
    q->item_free = item_free;
    q->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (q->fd < 0)
        abort(); /* out of descriptors at start: as good as out of memory */
    return q;
}

/* Under the mutex: make the eventfd say what the queue holds. */
static void update_fd(struct queue *q, bool readable)
{
    uint64_t value = 1;
    if (readable)
        (void)!write(q->fd, &value, sizeof value);
    else
        (void)!read(q->fd, &value, sizeof value);
}

static struct node *unlink_first(struct queue *q)
{
    struct node *n = q->first;
    q->first = n->next;
    if (!q->first)
        q->last = NULL;
    q->bytes -= n->bytes;
    if (!q->first && !q->closed)
        update_fd(q, false);
    return n;
}

void queue_free(struct queue *q)
{
    if (!q)
        return;
    while (q->first) {
        struct node *n = unlink_first(q);
        if (q->item_free)
            q->item_free(n->item);
        free(n);
    }
    close(q->fd);
    pthread_cond_destroy(&q->not_empty);
    pthread_cond_destroy(&q->not_full);
    pthread_mutex_destroy(&q->mutex);
    free(q);
}

bool queue_push(struct queue *q, void *item, size_t bytes)
{
    struct node *n = xmalloc(sizeof *n);
    *n = (struct node){.item = item, .bytes = bytes};
    pthread_mutex_lock(&q->mutex);
    while (!q->closed && q->first && q->bytes + bytes > q->max_bytes)
        pthread_cond_wait(&q->not_full, &q->mutex);
    bool open = !q->closed;
    if (open) {
        if (q->last)
            q->last->next = n;
        else
            q->first = n;
        if (!q->last)
            update_fd(q, true);
        q->last = n;
        q->bytes += bytes;
        pthread_cond_signal(&q->not_empty);
    }
    pthread_mutex_unlock(&q->mutex);
    if (!open)
        free(n);
    return open;
}

static void *pop(struct queue *q, bool wait)
{
    pthread_mutex_lock(&q->mutex);
    while (wait && !q->first && !q->closed)
        pthread_cond_wait(&q->not_empty, &q->mutex);
    struct node *n = q->first ? unlink_first(q) : NULL;
    if (n)
        pthread_cond_broadcast(&q->not_full);
    pthread_mutex_unlock(&q->mutex);
    void *item = n ? n->item : NULL;
    free(n);
    return item;
}

void *queue_pop(struct queue *q)
{
    return pop(q, true);
}

void *queue_try_pop(struct queue *q)
{
    return pop(q, false);
}

void queue_close(struct queue *q)
{
    pthread_mutex_lock(&q->mutex);
    if (!q->closed) {
        q->closed = true;
        update_fd(q, true);
    }
    pthread_cond_broadcast(&q->not_empty);
    pthread_cond_broadcast(&q->not_full);
    pthread_mutex_unlock(&q->mutex);
}

int queue_fd(const struct queue *q)
{
    return q->fd;
}
