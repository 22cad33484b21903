/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A request's tasks: adding one, giving one back to the waiting, ending one, and the end of the
 * request when its last task has ended. The only place where a task's state becomes final and where
 * a request's counters change.
 *
 * Threads: one at a time. Errors: those of the ledger and the codec.
 */
#pragma once

#include "coordinator/core.h"
#include "proto/wire/topology.h"

struct work_spec {
    enum task_role role;
    const char *kind, *zone;
    enum lane lane;
    const char *vm, *vm_name; /* NULL = none */
    int64_t deadline_s;       /* 0 = none */
    const char *cleanup_of;
    const char *part_of; /* a part: of which task, given away under which fence, and its number */
    int64_t part_fence, part_n;
    /* The members that belong to the kind (options, select, ...) are set; the rest is filled in. */
    struct wire_offer offer;
};

/* Add a waiting task. Changes the counters in `r`; the caller saves it. *ret (may be NULL) is the
 * new task, task_done() by the caller. */
bool work_add(struct core *core, struct request *r, const struct work_spec *spec, struct task *ret,
              struct err *err);

/* How a task ended. */
struct work_end {
    enum task_state state;            /* succeeded, failed, cancelled */
    const struct wire_error *error;   /* NULL = none */
    const struct wire_result *result; /* what the worker said; NULL = it said nothing */
    /* The attempt ended without the worker's word: what the journal says it held is left behind. */
    bool abandoned;
};
/* Ends an open task, tells who waits, opens a clean-up for what is left behind, and finishes the
 * request when this was its last task. Saves `t`. */
bool work_end(struct core *core, struct task *t, const struct work_end *how, struct err *err);
/* work_end() with an error value of ours. */
bool work_fail(struct core *core, struct task *t, enum task_state state, const struct err *why,
               bool abandoned, struct err *err);

/* Give an offered or running task back to the waiting as its next attempt, not before that time.
 * `ended` says how the attempt ended (released, lost, failed), NULL when none was granted. Saves
 * `t`. */
bool work_requeue(struct core *core, struct task *t, const char *ended,
                  const struct ledger_error *error, int64_t not_before_ms, struct err *err);

/* After a request was planned: finish it at once when it has no task. Saves `r`. */
bool work_settle(struct core *core, struct request *r, struct err *err);
/* End an open request now with an error of its own. Saves `r`. */
bool work_finish(struct core *core, struct request *r, struct err *err);

/* Open a clean-up task for the task's leftovers, unless there is one. */
bool work_open_cleanup(struct core *core, const struct task *t, struct request *r, struct err *err);

/* Copies an error at rest; NULL clears. */
void work_set_error(struct ledger_error *to, const struct wire_error *from);
/* Why a waiting task waits: its members of progress replies and task items. `error` is storage; the
 * result borrows from it and from `t`. All zero for a task that does not wait for another attempt.
 */
struct work_wait {
    int64_t wait_ms, attempts_max;
    struct wire_error *error;
};
struct work_wait work_wait_of(const struct core *core, const struct task *t,
                              struct wire_error *error);
/* The stored error as the wire has it, borrowed; false when there is none. */
bool work_wire_error(const struct ledger_error *from, struct wire_error *ret);
