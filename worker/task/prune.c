/* SPDX-License-Identifier: Apache-2.0 */
/* Retention and garbage of this zone's repository. */
#include "worker/step/upkeep.h"
#include "worker/task/task.h"

static const struct step steps[] = {{.name = "prune", .run = step_prune}};

const struct task_kind task_prune = {
    .name = "prune",
    .lane = LANE_UPKEEP,
    .needs_store = true,
    .steps = steps,
    .step_count = 1,
};
