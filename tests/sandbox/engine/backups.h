/* SPDX-License-Identifier: Apache-2.0 */
/* Backups and checkpoints: what other resources need of them. Lock held. */
#pragma once

#include "tests/sandbox/engine/http.h"

/* False: a backup of the VM runs, and the 409 is in the request. */
bool backups_check(struct engine *e, struct request *r, const struct vm *vm, const char *verb);
/* The disk's part in the backup, or NULL. */
struct backup_disk *backups_disk(const struct backup *b, const struct disk *d);
/* Does a transfer of it go on? (transfers.c) */
bool transfers_of_backup(const struct engine *e, const struct backup *b);

/* What the bitmaps of a disk, all (`name` NULL) or one, live in: the running VM's daemon, or the
 * files. None is fine. Gives up the lock. */
bool checkpoints_drop_bitmaps(struct engine *e, struct vm *vm, struct disk *d, const char *name,
                              struct err *err);
/* The chain is broken: all checkpoints of the VM go, with their bitmaps. Gives up the lock. */
void checkpoints_drop_all(struct engine *e, struct vm *vm);
/* Adds one at the end of the chain; it records on the disks of the backup that can. */
void checkpoints_add(struct engine *e, const struct backup *b);
