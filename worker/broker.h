/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The I/O thread: owns the broker connection, the signals and the timers. It takes offers, claims
 * them, starts what was granted, publishes what the runner notes, renews the leases, and leaves in
 * an orderly way. It meets the runner only through two queues (runner/link.h).
 *
 * Signals (block them before threads start): SIGTERM and SIGINT drain: nothing new is taken, what
 * runs may finish within wait.drain_s; a second one, or the limit, stops the tasks, which clean up.
 */
#pragma once

#include "proto/base/queue.h"
#include "worker/conf.h"

struct broker_opts {
    const struct worker_conf *conf;
    const char *conf_path; /* for messages */
    struct queue *orders;  /* to the runner */
    struct queue *notes;   /* from the runner */
};

/* Runs until drained. False only when it could not begin. */
bool broker_run(const struct broker_opts *opts, struct err *err);

/* Block the signals that broker_run() waits for; threads inherit that. */
void broker_block_signals(void);
