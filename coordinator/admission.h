/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which waiting tasks may run now. Offers go out oldest first, lane by lane, a few more per zone
 * and lane than workers have free slots: enough to keep the workers busy, few enough that limits,
 * cancels and urgent work still have a say. Limits count what runs and what is offered to workers
 * that are there, and are checked once more when a claim comes.
 *
 * Threads: one at a time. Errors: those of the ledger.
 */
#pragma once

#include "coordinator/core.h"

/* Offer what may be offered. Clears admission_due. */
bool admission_run(struct core *core, struct err *err);

/* Whether one more task of this zone and lane may run now; *ret_why (static) says why not. */
bool admission_may_run(struct core *core, const struct task *t, bool *ret, const char **ret_why,
                       struct err *err);

/* Withdraw offers that nobody took for long although workers have free slots: the offer may have
 * been lost (its queue was deleted). They go out again as the next attempt; the old offer, if it
 * still exists, is denied. */
bool admission_refresh_offers(struct core *core, struct err *err);

/* This queue of a zone and lane lost what it held: its offers go out again, as the next attempts.
 */
bool admission_queue_deleted(struct core *core, const char *queue, struct err *err);

/* A worker that counts: there, and not about to leave. */
bool admission_worker_is_live(const struct core *core, const struct worker *w);
