/* SPDX-License-Identifier: Apache-2.0 */
/* Listing tasks: one step each, whose result is pages of items. */
#pragma once

#include "worker/step/step.h"

/* The VMs that the offer's selection names in this worker's data center. */
bool step_inventory(struct task_run *run, struct err *err);
/* The restore points of the repository. */
bool step_list(struct task_run *run, struct err *err);
