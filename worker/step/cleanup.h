/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Removing what a task left behind. Each thing is removed only when the engine confirms that it
 * belongs to that task; what is not ours is left alone with a warning, what fails stays a leftover.
 */
#pragma once

#include "worker/step/step.h"

void *cleanup_new(struct task_run *run, struct err *err);
void cleanup_free(void *state);
bool step_cleanup(struct task_run *run, struct err *err);
