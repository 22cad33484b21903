/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks behind image transfers, by handles: what backup and restore share. The handle is set when
 * the engine has answered, and dropped when it has let the disk go.
 *
 * Threads: opening and ending belong to the task's thread; the imageio client inside may be used by
 * many (imageio.h).
 */
#pragma once

#include "worker/ovirt/imageio.h"
#include "worker/step/step.h"

struct disk_transfer {
    char *disk_id;
    char *id;           /* of the engine's transfer; NULL = none */
    struct imageio *io; /* NULL when closed */
};

/* Open disk `disk_id` (its volume `image_id` of a snapshot; NULL = the disk itself, for writing),
 * wait until it is ready, and connect to its host. On failure the transfer may have been made: end
 * it all the same. */
bool disk_transfer_open(struct task_run *run, const char *disk_id, const char *image_id,
                        uint64_t size_bytes, struct disk_transfer *ret, struct err *err);

/* The same for a disk of the engine's backup `backup_id`, which is ready. */
bool disk_transfer_open_backup(struct task_run *run, const char *disk_id, const char *backup_id,
                               uint64_t size_bytes, struct disk_transfer *ret, struct err *err);

/* Close the connections, then end the transfer: well, or by giving it up (an upload's disk is then
 * deleted by the engine). Frees what `t` owns; one that was never opened is fine. */
bool disk_transfer_finish(struct task_run *run, struct disk_transfer *t, struct err *err);
bool disk_transfer_cancel(struct task_run *run, struct disk_transfer *t, struct err *err);
/* Only closes and frees; the handle stays for whoever cleans up. */
void disk_transfer_forget(struct disk_transfer *t);

/* Give up every transfer that a "transfer." handle names. Goes on after a failure; the first one is
 * returned. */
bool transfers_cancel_all(struct task_run *run, struct err *err);

/* Keeps transfers alive while others are copied: the engine cancels what is not used for a minute.
 * A thread with an engine session of its own. Errors are logged: whoever reads will see them. */
struct transfer_keeper;
struct transfer_keeper *transfer_keeper_begin(struct task_run *run, const char *const *ids,
                                              size_t count);
/* NULL is fine. */
void transfer_keeper_end(struct transfer_keeper *k);
