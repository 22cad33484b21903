/* SPDX-License-Identifier: Apache-2.0 */
/* A part of another worker's restore: some of its disks. */
#include "worker/step/restore.h"
#include "worker/task/task.h"

#define STAT(member) offsetof(struct wire_stats, member)

static const struct step steps[] = {
    {.name = "clear-earlier", .run = step_clear_part},
    {.name = "plan", .run = step_plan_part},
    {.name = "attach",
     .stat = STAT(attach_ms),
     .probe = probe_by_attach,
     .run = step_attach_new,
     .undo = step_detach_new},
    {.name = "open", .probe = probe_by_upload, .run = step_open_new, .undo = undo_open_new},
    {.name = "write", .stat = STAT(copy_ms), .run = step_write},
    {.name = "close", .probe = probe_by_upload, .run = step_close_new},
    {.name = "detach", .stat = STAT(detach_ms), .probe = probe_by_attach, .run = step_detach_new},
};

const struct task_kind task_restore_part = {
    .name = "restore-part",
    .lane = LANE_RESTORE,
    .needs_engine = true,
    .needs_store = true,
    .steps = steps,
    .step_count = sizeof steps / sizeof steps[0],
    .state_new = restore_part_new,
    .state_free = restore_free,
};
