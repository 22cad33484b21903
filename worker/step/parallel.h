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

/* Runs work(ctx, i) for each i < count. `sizes[i]`: bytes of each disk, for progress. The error is
 * the first one; cancelled only when nothing else failed. */
bool parallel_run(struct task_run *run, size_t count, const uint64_t *sizes, parallel_fn work,
                  void *ctx, struct err *err);
