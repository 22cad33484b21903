/* SPDX-License-Identifier: Apache-2.0 */
/* Upkeep of the repository: one step each, whose result is pages of points and of numbers. */
#pragma once

#include "worker/step/step.h"

/* Delete what the offer's policy does not keep, and free what nobody refers to. */
bool step_prune(struct task_run *run, struct err *err);
/* Verify points, or a share of all data. */
bool step_verify(struct task_run *run, struct err *err);

/* One page of numbers about this zone's repository. */
struct upkeep_number {
    const char *name;
    uint64_t value;
};
void upkeep_send_numbers(struct task_run *run, const struct upkeep_number *numbers, size_t count);
