/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All that happens because time passed: leases running out, retries becoming due, deadlines, lost
 * workers, offers that nobody takes, old requests being forgotten. One table of timers; the loop
 * sleeps until timers_next_ms() and then calls timers_run().
 *
 * Threads: one at a time. Errors: those of the ledger.
 */
#pragma once

#include "coordinator/core.h"

struct timers {
    int64_t retries_ms;   /* up to when waits that ended were seen */
    int64_t offers_ms;    /* next look at old offers */
    int64_t workers_ms;   /* next look for lost workers */
    int64_t retention_ms; /* next look for old requests */
    int64_t metrics_ms;   /* next writing of the metrics file */
    int64_t sweep_ms;     /* next sweep of our own; 0 = the first one is not due yet */
};

/* The earliest time at which timers_run() has something to do; never 0. */
bool timers_next_ms(struct core *core, const struct timers *t, int64_t *ret_ms, struct err *err);
/* Do all that is due at core->now_ms; within a transaction. */
bool timers_run(struct core *core, struct timers *t, struct err *err);
