/* SPDX-License-Identifier: Apache-2.0 */
/* Tells how backups would go, without doing anything. */
#include "worker/step/listing.h"
#include "worker/task/task.h"

static const struct step steps[] = {{.name = "forecast", .run = step_forecast}};

const struct task_kind task_plan = {
    .name = "plan",
    .lane = LANE_UPKEEP,
    .needs_engine = true,
    .needs_store = true,
    .steps = steps,
    .step_count = 1,
};
