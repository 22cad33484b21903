/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parts: shares of a task's copying that it gives to other workers of its zone. Each is a task of
 * its own (role part), in the same request, zone and lane, with one attempt: what becomes of it is
 * told to the worker of the main task, which copies itself what nobody else did.
 *
 * Parts live under one grant of their main task. When that attempt is over, however it ends, its
 * parts are stopped, and the main task's next attempt and the clean-ups of its VM wait until all of
 * them have ended: they hold disks of the snapshot. Everything is in the ledger, so that a restart
 * changes nothing.
 *
 * A part of a backup commits a restore point that is marked as a part. The main task deletes it;
 * what no main task will delete any more becomes a leftover of kind `part`.
 *
 * Threads: one at a time. Errors: those of the ledger and the codec.
 */
#pragma once

#include "coordinator/core.h"
#include "coordinator/work.h"

/* The event `parts`: makes the parts that are new, withdraws, and answers with how all stand. From
 * somebody who does not own the task it is ignored. Errors: bad-message when it makes no sense. */
bool parts_take(struct core *core, const struct wire_parts *m, struct err *err);

/* The main task's attempt is over, or it was told to stop: none of its parts is needed any more.
 * Nothing happens for a task that has none. */
bool parts_stop(struct core *core, const struct task *main_task, struct err *err);
/* A part, or the clean-up after one, changed: tell the worker of its main task, if that still runs
 * the attempt that gave it away. Nothing happens for a task that is no part. */
bool parts_tell(struct core *core, const struct task *part, struct err *err);

/* Whether a live worker with a free slot could take a waiting part: one that runs neither its main
 * task nor another of its parts, in a proxy VM that does not either. */
bool parts_has_taker(struct core *core, const struct task *part, bool *ret, struct err *err);
/* Whether this worker may; *ret_why (static) says why not. */
bool parts_may_take(struct core *core, const struct task *part, const char *worker, bool *ret,
                    const char **ret_why, struct err *err);

/* A part is about to end: keeps how far it came and what it said. Does not save it. */
bool parts_keep_result(struct core *core, struct task *part, const struct work_end *how,
                       struct err *err);
/* What an ended part, or an ended main task that nobody runs any more, leaves in the repository;
 * and what parts that failed had attached, for a last look when the main task has ended. */
bool parts_keep_leftovers(struct core *core, const struct task *t, const struct work_end *how,
                          struct err *err);
/* A clean-up after this task is about to be offered, and removes what its parts may hold: the
 * engine may attach a disk for a worker that is dead, after the part's own clean-up. Nothing
 * happens for a task that is no main task, or has none. */
bool parts_keep_holds(struct core *core, const char *main_id, struct err *err);

/* How far the parts of a task's present attempt are, in all. */
struct parts_sum {
    int64_t bytes_done, bytes_total, rate_bps;
};
bool parts_sum_of(struct core *core, const struct task *main_task, struct parts_sum *ret,
                  struct err *err);
