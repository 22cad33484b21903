/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kinds of requests: what is checked before a request is accepted, and what tasks it becomes. One
 * row per kind in the table of request.c.
 *
 * check: false with `why` set when the request must be refused; nothing is written.
 * plan: adds the tasks and settles the request (work_settle); `r` is in the ledger already.
 *
 * Threads: one at a time. Errors: those of the ledger.
 */
#pragma once

#include "coordinator/core.h"

bool plan_check_backup(struct core *core, const void *message, struct err *why);
bool plan_check_export(struct core *core, const void *message, struct err *why);
bool plan_export(struct core *core, struct request *r, const void *message, struct err *err);
bool plan_check_restore(struct core *core, const void *message, struct err *why);
bool plan_check_inventory(struct core *core, const void *message, struct err *why);
bool plan_check_list(struct core *core, const void *message, struct err *why);
bool plan_check_sweep(struct core *core, const void *message, struct err *why);
bool plan_check_prune(struct core *core, const void *message, struct err *why);
bool plan_check_verify(struct core *core, const void *message, struct err *why);
bool plan_check_plan(struct core *core, const void *message, struct err *why);
bool plan_backup(struct core *core, struct request *r, const void *message, struct err *err);
bool plan_restore(struct core *core, struct request *r, const void *message, struct err *err);
bool plan_inventory(struct core *core, struct request *r, const void *message, struct err *err);
bool plan_list(struct core *core, struct request *r, const void *message, struct err *err);
bool plan_sweep(struct core *core, struct request *r, const void *message, struct err *err);
bool plan_prune(struct core *core, struct request *r, const void *message, struct err *err);
bool plan_verify(struct core *core, struct request *r, const void *message, struct err *err);
bool plan_plan(struct core *core, struct request *r, const void *message, struct err *err);

/* Cancelling: cancel.c. */
bool cancel_check(struct core *core, const void *message, struct err *why);
bool cancel_plan(struct core *core, struct request *r, const void *message, struct err *err);
/* End an open task before its time: a running one when its worker has stopped, others at once.
 * `reason` is told to the worker. */
bool cancel_task(struct core *core, struct task *t, const char *reason, struct err *err);
/* Stop a running task, or end one that does not run, because its deadline has passed. */
bool cancel_at_deadline(struct core *core, struct task *t, struct err *err);

/* Status, answered at once: status.c. Sends pages and finished to `queue`. */
bool status_check(struct core *core, const void *message, struct err *why);
bool status_answer(struct core *core, const char *request_id, const void *message,
                   const char *queue, const char *correlation_id, struct err *err);
