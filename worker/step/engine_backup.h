/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The end of a backup of the engine's own, with what the engine made for it. A hybrid one has a
 * snapshot that the engine took, that carries no mark of ours, and that it may fail to merge while
 * it calls the backup a success. Whose it is only the backup tells, and the engine forgets backups
 * after a quarter of an hour: so the snapshot becomes a handle as soon as the backup names it, and
 * is removed here if the engine does not.
 */
#pragma once

#include "worker/step/step.h"

/* A snapshot that the engine took for one of our backups becomes known. */
typedef void (*engine_snapshot_fn)(void *ctx, const char *vm_id, const char *snapshot_id);
/* One that sets the handle; ctx = the run. */
void engine_snapshot_handle(void *ctx, const char *vm_id, const char *snapshot_id);

/* Ends the backup, of which no transfer may be open, and waits for that. Does not remove the
 * snapshot; `found` is told of it first. One that has ended, or is not there, is success. */
bool engine_backup_end(struct task_run *run, const char *vm_id, const char *backup_id,
                       engine_snapshot_fn found, void *ctx, struct err *err);
/* Removes the snapshot unless the engine has. Gone is success. Errors: refused for one that the
 * engine did not take for a backup. */
bool engine_snapshot_remove(struct task_run *run, const char *vm_id, const char *snapshot_id,
                            struct err *err);
/* Likewise for every snapshot of the handles, which are dropped. */
bool engine_snapshots_remove(struct task_run *run, struct err *err);
