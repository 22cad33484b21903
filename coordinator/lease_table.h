/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is known of running tasks for the moment only: when each lease was last renewed, and how far
 * the copy is. It is not in the ledger because it changes with every event and because a restart
 * gives every lease its full time again anyway.
 *
 * A lease belongs to a task and a fence. All leases last equally long, so the table keeps them in
 * the order of their renewal: the first one runs out first.
 *
 * Threads: one at a time.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "proto/base/alloc.h"
#include "proto/base/id.h"

struct lease {
    TAILQ_ENTRY(lease) by_age;
    struct lease *next_in_bucket;
    char task[ID_BYTES];
    char *worker;
    int64_t fence;
    int64_t renewed_ms;
    bool heard;    /* since it began: its run is known to exist */
    bool given_up; /* nothing renews it any more */
    int misses;    /* presences of its worker, in a row, that did not list it */
    int64_t bytes_done, bytes_total, rate_bps;
    int64_t progress_ms; /* when progress was last told; 0 = never */
};

struct lease_table;
struct lease_table *lease_table_new(void);
void lease_table_free(struct lease_table *t);
DEFINE_SCOPED(lease_table, lease_table_free);

/* Begin a lease, or replace the task's earlier one. */
struct lease *lease_begin(struct lease_table *t, const char *task, const char *worker,
                          int64_t fence, int64_t now_ms);
/* NULL when the task holds none. Borrowed until it ends. */
struct lease *lease_find(const struct lease_table *t, const char *task);
/* Nothing happens to one that was given up. */
void lease_renew(struct lease_table *t, struct lease *lease, int64_t now_ms);
/* Nothing happens when there is none. */
void lease_end(struct lease_table *t, const char *task);
size_t lease_count(const struct lease_table *t);
/* Oldest renewal first; NULL at the end. lease_end() of the current one only after this gave the
 * next. */
struct lease *lease_first(const struct lease_table *t);
struct lease *lease_next(const struct lease *lease);
