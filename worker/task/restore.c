/* SPDX-License-Identifier: Apache-2.0 */
/* Restore of a point to a new VM: the order of its steps. Those of a path are left out on the
 * other. */
#include "worker/step/restore.h"

#include "worker/task/task.h"

#define STAT(member) offsetof(struct wire_stats, member)

static const struct step steps[] = {
    {.name = "clear-earlier", .run = step_clear_earlier},
    {.name = "plan", .probe = probe_restored, .run = step_plan},
    {.name = "vm", .probe = probe_restored, .run = step_make_vm, .undo = undo_make_vm},
    {.name = "disks", .probe = probe_restored, .run = step_make_disks, .undo = undo_make_disks},
    {.name = "share", .probe = probe_shared, .run = step_share_disks, .undo = undo_share_disks},
    {.name = "attach",
     .stat = STAT(attach_ms),
     .probe = probe_by_attach,
     .run = step_attach_new,
     .undo = step_detach_new},
    {.name = "open", .probe = probe_by_upload, .run = step_open_new, .undo = undo_open_new},
    {.name = "write", .stat = STAT(copy_ms), .probe = probe_restored, .run = step_write},
    {.name = "close", .probe = probe_by_upload, .run = step_close_new},
    {.name = "detach", .stat = STAT(detach_ms), .probe = probe_by_attach, .run = step_detach_new},
    {.name = "assemble", .probe = probe_restored, .run = step_assemble, .undo = undo_assemble},
    {.name = "finish", .probe = probe_restored, .run = step_finish},
    {.name = "start", .flags = STEP_TIDY, .probe = probe_start, .run = step_start},
};

const struct task_kind task_restore = {
    .name = "restore",
    .lane = LANE_RESTORE,
    .needs_engine = true,
    .needs_store = true,
    .steps = steps,
    .step_count = sizeof steps / sizeof steps[0],
    .state_new = restore_new,
    .state_free = restore_free,
};
