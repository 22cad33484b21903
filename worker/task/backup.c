/* SPDX-License-Identifier: Apache-2.0 */
/* Backup of one VM: the order of its steps. Those of a path do nothing for disks of another. */
#include "worker/step/backup.h"

#include "worker/task/task.h"

#define STAT(member) offsetof(struct wire_stats, member)

static const struct step steps[] = {
    {.name = "revoke-earlier", .run = step_revoke_earlier},
    {.name = "precheck", .probe = probe_stands, .run = step_precheck},
    {.name = "quiesce",
     .stat = STAT(quiesce_ms),
     .probe = probe_quiesce,
     .run = step_quiesce,
     .undo = undo_quiesce},
    {.name = "snapshot",
     .stat = STAT(snapshot_ms),
     .probe = probe_snapshot,
     .run = step_snapshot,
     .undo = step_merge},
    {.name = "begin",
     .stat = STAT(snapshot_ms),
     .probe = probe_begin,
     .run = step_begin,
     .undo = undo_begin},
    {.name = "describe", .probe = probe_stands, .run = step_describe},
    {.name = "map", .probe = probe_stands, .run = step_map, .undo = undo_open},
    {.name = "share", .probe = probe_share, .run = step_share, .undo = undo_share},
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
    {.name = "gather", .stat = STAT(copy_ms), .probe = probe_gather, .run = step_gather},
    {.name = "commit", .stat = STAT(commit_ms), .probe = probe_stands, .run = step_commit},
    {.name = "close", .flags = STEP_TIDY, .run = step_close},
    {.name = "drop-parts", .flags = STEP_TIDY, .probe = probe_drop_parts, .run = step_drop_parts},
    {.name = "detach", .flags = STEP_TIDY, .stat = STAT(detach_ms), .run = step_detach},
    {.name = "finalize", .flags = STEP_TIDY, .run = step_finalize},
    {.name = "merge", .flags = STEP_TIDY, .stat = STAT(merge_ms), .run = step_merge},
    {.name = "rotate", .flags = STEP_TIDY, .run = step_rotate},
};

const struct task_kind task_backup = {
    .name = "backup",
    .lane = LANE_BACKUP,
    .needs_engine = true,
    .needs_store = true,
    .steps = steps,
    .step_count = sizeof steps / sizeof steps[0],
    .state_new = backup_new,
    .state_free = backup_free,
};
