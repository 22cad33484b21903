/* SPDX-License-Identifier: Apache-2.0 */
/* Backups and checkpoints: what other resources need of them. Lock held. */
#pragma once

#include "tests/sandbox/engine/http.h"

/* False: a backup of the VM runs, and the 409 is in the request. */
bool backups_check(struct engine *e, struct request *r, const struct vm *vm, const char *verb);
/* The same for starting and stopping the VM, which a hybrid backup does not mind. */
bool backups_check_power(struct engine *e, struct request *r, const struct vm *vm,
                         const char *verb);
/* The disk's part in the backup, or NULL. */
struct backup_disk *backups_disk(const struct backup *b, const struct disk *d);
/* Does a transfer of it go on? (transfers.c) */
bool transfers_of_backup(const struct engine *e, const struct backup *b);

/* What walks a backup through its phases, in a job thread of its own. */
struct snapshot_creation;
struct backup_walk {
    struct backup *b;
    struct job *job;
    char correlation_id[ID_BYTES];
    struct snapshot_creation *snapshot; /* of a hybrid one, begun */
};
void backup_set_phase(struct engine *e, struct backup *b, enum backup_phase phase);
/* The end, one way or the other: it is listed for a while. */
void backup_finish(struct engine *e, struct backup_walk *w, bool ok);
/* Of a snapshot that the engine takes itself (backup_hybrid.c). Begin: false, the 409 is in the
 * request. */
bool backup_hybrid_wanted(const struct engine *e, const struct request *r, const struct vm *vm);
bool backup_hybrid_begin(struct engine *e, struct request *r, struct backup_walk *w);
void backup_hybrid_job(struct engine *e, void *arg);

/* What the bitmaps of a disk, all (`name` NULL) or one, live in: the running VM's daemon, or the
 * files. None is fine. Gives up the lock. */
bool checkpoints_drop_bitmaps(struct engine *e, struct vm *vm, struct disk *d, const char *name,
                              struct err *err);
/* The chain is broken: all checkpoints of the VM go, with their bitmaps. Gives up the lock. */
void checkpoints_drop_all(struct engine *e, struct vm *vm);
/* Adds one at the end of the chain; it records on the disks of the backup that can. */
void checkpoints_add(struct engine *e, const struct backup *b);
