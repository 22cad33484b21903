/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The runner: a thread that obeys the broker's orders and keeps one thread per running task. It
 * meets the broker only through two queues (link.h): `orders` in, `notes` out.
 *
 * A task thread executes its task, pushes its events as notes and asks its lease before each
 * mutation. When it ends, the runner joins it and notes NOTE_ENDED.
 *
 * Threads: runner_new() and runner_free() from the main thread; queues from anywhere.
 */
#pragma once

#include "proto/base/queue.h"
#include "worker/runner/execute.h"
#include "worker/runner/link.h"

struct runner;

struct runner_opts {
    const struct worker_env *env; /* outlives the runner */
    int64_t outage_ms;            /* lease.h */
};

/* Starts the runner's thread. */
struct runner *runner_new(const struct runner_opts *opts);
/* Ends all that runs (as ORDER_SHUTDOWN does), waits for it, frees. Notes that nobody took are
 * dropped. NULL is fine. */
void runner_free(struct runner *r);
DEFINE_SCOPED(runner, runner_free);

/* Push struct order, pop struct note. Borrowed. */
struct queue *runner_orders(struct runner *r);
struct queue *runner_notes(struct runner *r);
