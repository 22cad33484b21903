/* SPDX-License-Identifier: Apache-2.0 */
/* Resolves a selection of VMs in this worker's data center. */
#include "worker/step/listing.h"
#include "worker/task/task.h"

static const struct step steps[] = {{.name = "inventory", .run = step_inventory}};

const struct task_kind task_inventory = {
    .name = "inventory",
    .lane = LANE_UPKEEP,
    .needs_engine = true,
    .steps = steps,
    .step_count = 1,
};
