/* SPDX-License-Identifier: Apache-2.0 */
/* Lists the restore points of this zone's repository. */
#include "worker/step/listing.h"
#include "worker/task/task.h"

static const struct step steps[] = {{.name = "list", .run = step_list}};

const struct task_kind task_list = {
    .name = "list",
    .lane = LANE_UPKEEP,
    .needs_store = true,
    .steps = steps,
    .step_count = 1,
};
