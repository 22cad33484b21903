/* SPDX-License-Identifier: Apache-2.0 */
/* Listing tasks: one step each, whose result is pages of items. */
#pragma once

#include "worker/step/select.h"
#include "worker/step/site.h"
#include "worker/step/step.h"

/* The VMs that the offer's selection names in this worker's data center. */
bool step_inventory(struct task_run *run, struct err *err);
/* The restore points of the repository. */
bool step_list(struct task_run *run, struct err *err);
/* How a backup of the VMs of the offer's plan would go; changes nothing anywhere. */
bool step_forecast(struct task_run *run, struct err *err);

/* Shared: the VMs that a selection means (NULL = all); `proxies` (ids or names) are left out as the
 * worker's own proxy VM is, unless they are named. The caller calls selected_done(). */
bool selection_find(struct task_run *run, const struct site *site, const struct wire_select *select,
                    const struct wire_strings *proxies, struct selected *ret, struct err *err);
