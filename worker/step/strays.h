/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the last call of an earlier attempt may have made when its worker was dead already, and
 * nobody heard of it: a disk on a proxy VM, a snapshot, an image transfer, a backup of the engine's
 * own. The engine can take its time with a call, so looking once, when an attempt begins, is not
 * enough: what is removed later (a snapshot, a disk) may be held by such a stray.
 *
 * Threads: the task's.
 */
#pragma once

#include "worker/ovirt/snapshot.h"
#include "worker/step/step.h"

/* Takes disk `disk_id` (NULL = every disk) off each VM that the journal says an earlier attempt
 * attached it to; never off the VM of the task. What is not attached any more is fine. What cannot
 * be taken off becomes a handle of this run. Goes on after a failure; the first one is returned. */
bool strays_detach(struct task_run *run, const char *disk_id, struct err *err);
/* One disk off one VM, if it is there. */
bool strays_detach_one(struct task_run *run, const char *vm_id, const char *disk_id,
                       struct err *err);

/* Deletes every snapshot of the task's VM that carries the task's mark, of whatever attempt: for
 * when this attempt needs none (any more). If that fails, they become the run's handle for a
 * snapshot. */
bool strays_delete_snapshots(struct task_run *run, const struct ovirt_merge *how, struct err *err);

/* Cancels the image transfers of the disks in this snapshot, except those that this run holds; none
 * of another snapshot of these disks. A snapshot that has gone is fine. */
bool strays_end_transfers(struct task_run *run, const char *vm_id, const char *snapshot_id,
                          struct err *err);
/* The same of one disk only: the others may be other workers', in parts of this task. */
bool strays_end_transfers_of(struct task_run *run, const char *vm_id, const char *snapshot_id,
                             const char *disk_id, struct err *err);

/* Ends the engine's own backups of the task's VM that carry the mark of an earlier attempt, and the
 * transfers that hold them. */
bool strays_end_backups(struct task_run *run, struct err *err);

/* Is it worth looking for strays after this failure to remove something? */
bool strays_may_hold(const struct task_run *run, const struct err *err);
