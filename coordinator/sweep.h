/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The janitor's half here: what a worker found in its data center and repository is held against
 * the ledger. Each trace gets a verdict; what was left behind by a task that has ended is given to
 * a clean-up task; what is not known to be ours is told and never touched.
 *
 * A sweep is a request like others, with one task per zone. The coordinator makes one of its own at
 * its start and every janitor.every_s seconds, which nobody is told of; the numbers stay in the
 * ledger for the gauges.
 *
 * Threads: one at a time. Errors: those of the ledger and the codec.
 */
#pragma once

#include "coordinator/core.h"

/* Judge the pages of a sweep task that went well, open clean-ups, send the pages on, and keep the
 * numbers. */
bool sweep_take_pages(struct core *core, const struct task *t, int64_t pages, struct err *err);

/* Make a sweep of our own in every zone that has none under way. */
bool sweep_begin(struct core *core, struct err *err);
