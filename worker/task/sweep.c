/* SPDX-License-Identifier: Apache-2.0 */
/* Looks for what Oxbow left in this zone's engine and repository. */
#include "worker/step/sweep.h"

#include "worker/task/task.h"

static const struct step steps[] = {{.name = "sweep", .run = step_sweep}};

const struct task_kind task_sweep = {
    .name = "sweep",
    .lane = LANE_UPKEEP,
    .needs_engine = true,
    .needs_store = true,
    .steps = steps,
    .step_count = 1,
};
