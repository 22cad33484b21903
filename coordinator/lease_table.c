/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/lease_table.h"

#include <string.h>

enum { BUCKETS = 4096 };

struct lease_table {
    TAILQ_HEAD(lease_list, lease) by_age;
    struct lease *buckets[BUCKETS];
    size_t count;
};

/* FNV-1a. Task ids are random and made by us: nobody can aim at one bucket. */
static size_t bucket_of(const char *task)
{
    uint32_t hash = 2166136261u;
    for (const char *c = task; *c; c++)
        hash = (hash ^ (unsigned char)*c) * 16777619u;
    return hash % BUCKETS;
}

struct lease_table *lease_table_new(void)
{
    struct lease_table *t = ALLOC_NEW(struct lease_table);
    TAILQ_INIT(&t->by_age);
    return t;
}

void lease_table_free(struct lease_table *t)
{
    if (!t)
        return;
    struct lease *lease;
    while ((lease = TAILQ_FIRST(&t->by_age))) {
        TAILQ_REMOVE(&t->by_age, lease, by_age);
        free(lease->worker);
        free(lease);
    }
    free(t);
}

struct lease *lease_find(const struct lease_table *t, const char *task)
{
    struct lease *lease = t->buckets[bucket_of(task)];
    while (lease && strcmp(lease->task, task) != 0)
        lease = lease->next_in_bucket;
    return lease;
}

struct lease *lease_begin(struct lease_table *t, const char *task, const char *worker,
                          int64_t fence, int64_t now_ms)
{
    lease_end(t, task);
    struct lease *lease = ALLOC_NEW(struct lease);
    snprintf(lease->task, sizeof lease->task, "%s", task);
    lease->worker = xstrdup(worker);
    lease->fence = fence;
    lease->renewed_ms = now_ms;
    size_t bucket = bucket_of(task);
    lease->next_in_bucket = t->buckets[bucket];
    t->buckets[bucket] = lease;
    TAILQ_INSERT_TAIL(&t->by_age, lease, by_age);
    t->count++;
    return lease;
}

void lease_renew(struct lease_table *t, struct lease *lease, int64_t now_ms)
{
    if (lease->given_up)
        return;
    lease->renewed_ms = now_ms;
    lease->heard = true;
    lease->misses = 0;
    TAILQ_REMOVE(&t->by_age, lease, by_age);
    TAILQ_INSERT_TAIL(&t->by_age, lease, by_age);
}

void lease_end(struct lease_table *t, const char *task)
{
    struct lease **at = &t->buckets[bucket_of(task)];
    while (*at && strcmp((*at)->task, task) != 0)
        at = &(*at)->next_in_bucket;
    struct lease *lease = *at;
    if (!lease)
        return;
    *at = lease->next_in_bucket;
    TAILQ_REMOVE(&t->by_age, lease, by_age);
    t->count--;
    free(lease->worker);
    free(lease);
}

size_t lease_count(const struct lease_table *t)
{
    return t->count;
}

struct lease *lease_first(const struct lease_table *t)
{
    return TAILQ_FIRST(&t->by_age);
}

struct lease *lease_next(const struct lease *lease)
{
    return TAILQ_NEXT(lease, by_age);
}
