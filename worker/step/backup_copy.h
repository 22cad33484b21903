/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copying disks, or ranges of them, into the backup's session: what the steps `copy` and `gather`
 * share. Threads: the task's, but what is said otherwise.
 */
#pragma once

#include "worker/step/backup.h"
#include "worker/step/share.h"
#include "worker/step/space.h"

/* What must go on as long as disks are copied, or waited for: the space in their storage domains
 * is watched, their transfers are kept alive. */
struct backup_watches {
    struct space_watch *space;
    struct transfer_keeper *keeper;
    const char **domains; /* the list's; the names are borrowed */
};
struct backup_watches backup_watches_begin(struct task_run *run, const struct backup *b);
/* `ok` and `err` as of space_watch_end(). */
void backup_watches_end(struct backup_watches *w, bool ok, struct err *err);

/* Copy all disks that are whole ours, and of the others what `only` names. Those that no part of
 * another worker is missing of are finished. */
bool backup_copy_disks(struct task_run *run, struct backup *b, const struct backup_watches *w,
                       struct err *err);

/* From now on these pieces (of any disks, in any order; not all of any kind is needed) are what
 * backup_copy_disks() copies. */
void backup_set_only(struct backup *b, const struct share_piece *pieces, size_t count);
/* Has this worker anything to read of the disk, by now? */
bool backup_is_ours(const struct backup_disk *d);
/* How much of it is. */
uint64_t backup_bytes_of(const struct backup_disk *d);

/* Where the disk is in the plan; b->plan_count = it is not. */
size_t backup_plan_find(const struct backup *b, const char *disk_id);

/* Begin the disk in the session, unless it was. Any thread, its own disk. */
bool backup_begin_disk(struct backup *b, struct backup_disk *d, struct err *err);
/* Nothing of it is missing. Any thread, its own disk. */
bool backup_finish_disk(struct backup_disk *d, struct err *err);

/* Make the device of a disk, or its transfer, ready to be read, where it is not. */
bool backup_attach_disk(struct task_run *run, const struct backup *b, struct backup_disk *d,
                        struct err *err);
bool backup_wait_device(struct task_run *run, struct backup_disk *d, struct err *err);
bool backup_open_disk(struct task_run *run, const struct backup *b, struct backup_disk *d,
                      struct err *err);

/* From now on a part that has not been done cannot commit any more, if it has not by then. */
bool backup_revoke_part(struct task_run *run, const struct part *part, bool *ret_committed,
                        struct err *err);

void backup_take_stats(struct task_run *run, struct backup *b);
