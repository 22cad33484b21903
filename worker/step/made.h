/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Removing VMs and disks that a restore made, and clones that an export made, and only those: the
 * engine must confirm by the marker in the object's description that it belongs to that task. Used
 * by a restore's undo, by its next attempt, and by clean-up tasks.
 */
#pragma once

#include "worker/step/step.h"

enum made_state { MADE_GONE, MADE_OURS, MADE_FINISHED, MADE_UNKNOWN };

/* What a VM is now: gone, still carrying the marker of `task`, or something else (finished, or not
 * ours). UNKNOWN: err is set. */
enum made_state made_vm_state(struct task_run *run, const char *vm_id, const char *task,
                              struct err *err);

/* Remove the VM: its disks stay, but those of an export's clone, which were made with it. refused
 * when it does not carry the marker of `task`. Gone is success. */
bool made_vm_remove(struct task_run *run, const char *vm_id, const char *task, struct err *err);
/* A VM could not be made, says `err`. When that was for its name, which a VM has that an earlier
 * attempt of this task asked for, and the engine made only now: removes that one and clears `err`:
 * true, ask once more. False: anything else; `err` says what. */
bool made_name_freed(struct task_run *run, const char *name, struct err *err);
/* Does the disk carry the marker of `task`? refused when not; not-found when there is none. */
bool made_disk_check(struct task_run *run, const char *disk_id, const char *task, struct err *err);
/* Delete the disk and its data; the same rules. An upload that is open on it is given up first. */
bool made_disk_remove(struct task_run *run, const char *disk_id, const char *task, struct err *err);
/* The restore is done: take the markers off the disks of our handles (a failure is a warning: it is
 * their description only), and drop the handles of VM and disks. When the lease is lost, the disks
 * that are still marked keep their handles: the next attempt calls this again. */
void made_drop_handles(struct task_run *run);

/* The clone of an export by its id, or, for "*", by its name; NULL when there is none. It must
 * carry the marker of `task`, or, by its id, still have the name: while it is written out it
 * carries the original's description. False: err is set; refused when it is something else. The
 * caller frees. */
bool made_clone_find(struct task_run *run, const char *vm_id, const char *name, const char *task,
                     char **ret_id, struct err *err);
/* Put the marker (back) on: from then on made_vm_remove() may have it. */
bool made_clone_mark(struct task_run *run, const char *vm_id, const char *task, struct err *err);
