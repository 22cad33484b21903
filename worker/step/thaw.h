/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Freeze a guest, and be sure that it is thawed: by the step when the snapshot is there, or by a
 * watcher thread when the limit has passed, whatever the step is stuck in. Thawing asks no lease
 * and heeds no cancel: a guest that hangs is worse than anything a late thaw could do.
 *
 * Threads: one frozen object belongs to one task thread; the watcher is inside.
 */
#pragma once

#include "worker/step/step.h"

struct frozen;

/* Freeze the VM's file systems. NULL: not frozen (a freeze whose outcome is unknown, or that came
 * after the limit, was thawed), err says why; `ret_may_be_frozen`: that thaw has failed. Otherwise
 * thaw with frozen_end(). */
struct frozen *freeze_begin(struct task_run *run, const char *vm_id, bool *ret_may_be_frozen,
                            struct err *err);

/* Thaw now, if the watcher has not, and free. `ret_in_time`: the guest was frozen up to this call.
 * False when the thaw failed again and again: err says what to do. NULL is fine. */
bool frozen_end(struct frozen *f, bool *ret_in_time, struct err *err);

/* Whether an earlier attempt came so far that the guest may have been frozen for it. */
bool thaw_may_be_due(const struct task_run *run);

/* Thaw a guest that a dead attempt may have left frozen; failing is normal (it was not). */
void thaw_in_case(struct task_run *run, const char *vm_id);
