/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The disks of one VM, a few at a time, each on a thread of its own. The first error stops the
 * others; progress of all together is reported as the task's.
 *
 * Threads: called on the task thread, which waits. The work function runs on disk threads: it may
 * use run_is_cancelled() and its own disk only.
 */
#pragma once

#include "worker/copy/copy.h"
#include "worker/step/step.h"

struct parallel;

/* Copy disk `index`. Give `copy` (callbacks and threads are set) to copy_backup/copy_restore. */
typedef bool (*parallel_fn)(void *ctx, size_t index, const struct copy_opts *copy, struct err *err);

struct parallel_opts {
    size_t count;
    const uint64_t *sizes; /* bytes of each disk, for progress */
    parallel_fn work;
    void *ctx;
    /* Called some times a second on the task thread while it waits, also once disks have failed.
     * NULL = there is nothing to do. */
    void (*tick)(void *ctx);
    /* Of the whole copy, where this is only some of it. */
    int64_t before_bytes; /* done before */
    int64_t total_bytes;  /* 0 = the sum of `sizes` */
};

/* Runs work(ctx, i) for each i < count. The error is the first one; cancelled only when nothing
 * else failed. */
bool parallel_run(struct task_run *run, const struct parallel_opts *opts, struct err *err);
