/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A part of another task's backup: ranges of the disks of a snapshot that belongs to that task,
 * copied by the steps of a backup into a point of its own, which the other task takes over and
 * deletes. The snapshot is neither made nor removed here.
 */
#include "worker/step/backup.h"
#include "worker/task/task.h"

#define STAT(member) offsetof(struct wire_stats, member)

static const struct step steps[] = {
    {.name = "revoke-earlier", .run = step_revoke_earlier},
    {.name = "precheck", .probe = probe_stands, .run = step_part_precheck},
    {.name = "attach",
     .stat = STAT(attach_ms),
     .probe = probe_stands,
     .run = step_attach,
     .undo = step_detach},
    {.name = "open", .probe = probe_stands, .run = step_open, .undo = undo_open},
    {.name = "copy",
     .stat = STAT(copy_ms),
     .probe = probe_stands,
     .run = step_copy,
     .undo = undo_copy},
    {.name = "commit", .stat = STAT(commit_ms), .probe = probe_stands, .run = step_commit},
    {.name = "close", .flags = STEP_TIDY, .run = step_close},
    {.name = "detach", .flags = STEP_TIDY, .stat = STAT(detach_ms), .run = step_detach},
};

const struct task_kind task_backup_part = {
    .name = "backup-part",
    .lane = LANE_BACKUP,
    .needs_engine = true,
    .needs_store = true,
    .steps = steps,
    .step_count = sizeof steps / sizeof steps[0],
    .state_new = backup_part_new,
    .state_free = backup_free,
};
