/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the engine's "not found" and refusals mean in the middle of a backup: somebody has deleted
 * the VM, or our snapshot of it. Threads: the task's.
 */
#pragma once

#include "worker/step/step.h"

/* After a call that failed: when the VM of the offer is gone, err becomes not-found and says so;
 * when it is there and `snapshot_id` (may be NULL) is gone, snapshot-failed. Any other error stays
 * as it is. Always returns false. */
bool gone_explain(struct task_run *run, const char *snapshot_id, struct err *err);
