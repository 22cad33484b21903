/* SPDX-License-Identifier: Apache-2.0 */
/* What creating, removing and restoring snapshots share. Lock held. */
#pragma once

#include "tests/sandbox/engine/http.h"

/* What a job thread of a snapshot works on. */
struct snapshot_work {
    struct vm *vm;
    struct snapshot *snapshot;
    struct job *job;
    char correlation_id[ID_BYTES];
};
/* Takes over the request's job. The job thread frees. */
struct snapshot_work *snapshots_work_new(struct request *r, struct vm *vm, struct snapshot *s);

/* The VM and snapshot of the path; false: 404 is in the request. */
bool snapshots_find(struct engine *e, struct request *r, struct vm **ret_vm, struct snapshot **ret);
/* No snapshot of the VM is locked or in preview; false: the 409 is in the request. */
bool snapshots_check_idle(struct request *r, const struct vm *vm, const char *verb);
/* Gives the VM's lock free after the time it takes the engine, and ends the job. */
void snapshots_release(struct engine *e, struct snapshot_work *w, bool ok);
/* Takes the entry out of the VM's list: 404 from now on. */
void snapshots_drop(struct engine *e, struct vm *vm, struct snapshot *s);

/* The engine's own snapshot of a backup's disks, whose new volumes record under the checkpoint from
 * that instant on. Begin: it is there and locked, and so is the VM; the disks were checked. Finish:
 * makes it, in a job thread, and gives the VM's lock free; false: it has gone. */
#define SNAPSHOT_OF_BACKUP "Auto-generated for Backup VM"
struct snapshot_creation;
struct snapshot_creation *snapshots_own_begin(struct engine *e, struct vm *vm,
                                              const struct backup *b, struct snapshot **ret);
bool snapshots_own_finish(struct engine *e, struct snapshot_creation *c, struct err *err);
/* Merges it, in a job thread. False: it is still there (merge.c). */
bool snapshots_own_remove(struct engine *e, struct vm *vm, struct snapshot *s, struct err *err);

/* references.c: a raw copy of every disk at the snapshot's instant, made in the background when the
 * engine keeps them. Waits for the end of a copy under way before a volume may change. */
void references_begin(struct engine *e, struct vm *vm, struct snapshot *s);
void references_wait(struct engine *e, const struct snapshot *s);
/* The same of a backup that is ready, before it ends. */
void references_begin_backup(struct engine *e, struct backup *b);
void references_wait_backup(struct engine *e, const struct backup *b);
