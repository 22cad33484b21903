/* SPDX-License-Identifier: Apache-2.0 */
/* Export of one VM: the order of its steps. It begins as a backup does. */
#include "worker/step/export.h"

#include "worker/task/task.h"

#define STAT(member) offsetof(struct wire_stats, member)

static const struct step steps[] = {
    {.name = "find-earlier", .run = step_find_earlier},
    {.name = "precheck", .probe = probe_stands, .run = step_export_precheck},
    {.name = "quiesce",
     .stat = STAT(quiesce_ms),
     .probe = probe_export_quiesce,
     .run = step_quiesce,
     .undo = undo_quiesce},
    {.name = "snapshot",
     .stat = STAT(snapshot_ms),
     .probe = probe_export_snapshot,
     .run = step_snapshot,
     .undo = step_merge},
    {.name = "clone",
     .stat = STAT(copy_ms),
     .probe = probe_clone,
     .run = step_clone,
     .undo = undo_clone},
    {.name = "merge", .stat = STAT(merge_ms), .probe = probe_stands, .run = step_merge_early},
    {.name = "export", .probe = probe_export, .run = step_export},
    {.name = "remove", .flags = STEP_TIDY, .run = step_remove},
};

const struct task_kind task_export = {
    .name = "export",
    .lane = LANE_BACKUP,
    .needs_engine = true,
    .steps = steps,
    .step_count = sizeof steps / sizeof steps[0],
    .state_new = export_new,
    .state_free = export_free,
};
