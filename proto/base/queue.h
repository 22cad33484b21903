/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bounded queue between threads: any number of pushers and poppers.
 *
 * Items are handed over whole: after queue_push() the pusher may not touch the item. The bound is
 * in bytes, as stated by the pusher, so memory is bounded whatever the sizes are. Closing wakes
 * everybody: pushes fail from then on, pops drain what is left and then fail. A stage cannot return
 * an error through a queue: it keeps the error in its job, closes the queue, and all join.
 *
 * An eventfd (queue_fd) is readable while the queue holds items, so that a poll loop can pop with
 * queue_try_pop().
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "proto/base/alloc.h"

struct queue;
typedef void (*queue_item_free_fn)(void *item);

/* `max_bytes` bounds the sum of the sizes given to queue_push (one item always fits). `item_free`
 * frees what is left when the queue is freed; NULL leaks by intent. */
struct queue *queue_new(size_t max_bytes, queue_item_free_fn item_free);
/* No thread may be inside any call. NULL is fine. */
void queue_free(struct queue *q);

/* Waits for room. False when closed: the item still belongs to the caller. */
bool queue_push(struct queue *q, void *item, size_t bytes);
/* Waits for an item; NULL when closed and empty. The caller owns it. */
void *queue_pop(struct queue *q);
/* The first item, or NULL at once if there is none. */
void *queue_try_pop(struct queue *q);
/* Idempotent. */
void queue_close(struct queue *q);
/* Readable (POLLIN) while items are there or the queue is closed. Borrowed; do not read from it. */
int queue_fd(const struct queue *q);

DEFINE_SCOPED(queue, queue_free);
