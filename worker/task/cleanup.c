/* SPDX-License-Identifier: Apache-2.0 */
/* Removes what an earlier task left behind. */
#include "worker/step/cleanup.h"

#include "worker/task/task.h"

static const struct step steps[] = {{.name = "cleanup", .run = step_cleanup}};

const struct task_kind task_cleanup = {
    .name = "cleanup",
    .lane = LANE_UPKEEP,
    .needs_engine = true,
    .steps = steps,
    .step_count = 1,
    .state_new = cleanup_new,
    .state_free = cleanup_free,
};
