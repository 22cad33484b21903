/* SPDX-License-Identifier: Apache-2.0 */
/* Verifies this zone's repository, or points of it. */
#include "worker/step/upkeep.h"
#include "worker/task/task.h"

static const struct step steps[] = {{.name = "verify", .run = step_verify}};

const struct task_kind task_verify = {
    .name = "verify",
    .lane = LANE_UPKEEP,
    .needs_store = true,
    .steps = steps,
    .step_count = 1,
};
