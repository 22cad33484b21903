/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the steps of a backup tell each other, and the steps themselves. All disks are read as of
 * one instant: of one snapshot, each by its own path, attached to the proxy VM as a device or by
 * image transfer from the host; or of one backup of the engine's own, with what changed since its
 * last. Some of it may be copied by other workers, which run the same steps for a part of the
 * disks.
 */
#pragma once

#include <jansson.h>

#include "worker/ovirt/backup.h"
#include "worker/ovirt/snapshot.h"
#include "worker/ovirt/vm.h"
#include "worker/step/parts.h"
#include "worker/step/path.h"
#include "worker/step/site.h"
#include "worker/step/step.h"
#include "worker/step/thaw.h"
#include "worker/step/transfer.h"
#include "worker/store/store.h"

/* One disk that is backed up. Borrowed strings live in struct backup. */
struct backup_disk {
    const struct ovirt_disk *disk; /* of backup.disks */
    enum backup_path path;
    const char *path_why; /* static */
    char *image_id;       /* the snapshot's volume of it */
    uint64_t size_bytes;  /* as the snapshot has it */
    char *device;         /* while it is attached */
    struct disk_transfer transfer;
    struct imageio_map map; /* which parts hold data; empty = nobody knows */
    bool by_changes;        /* only what changed is read; all else is as in backup.base */
    struct extents changed;
    bool is_shared;              /* others copy some of it; ours is what `only` names */
    struct extents only;         /* its data ranges */
    struct store_reader *parent; /* of the disk in an earlier point, until it is finished */
    struct store_disk *stored;   /* once it is copied */
    int64_t read_bytes, copy_ms; /* likewise */
    uint64_t kept_bytes;         /* likewise: taken from the base */
};

struct backup {
    struct wire_backup_opts opts;
    const struct wire_part *part; /* all that this run is to do, for another one; NULL = a backup */
    struct parts parts;           /* that others do for this one */
    bool stands;                  /* an earlier attempt committed: only tidy up */
    struct site site;
    struct ovirt_vm vm;
    struct ovirt_disks disks; /* all that the VM has, in its order */
    struct ovirt_storage_domains domains;
    struct backup_disk *plan; /* those that are backed up */
    size_t plan_count;

    struct frozen *frozen; /* while the guest is frozen */
    bool quiesced;
    bool not_thawed;     /* thawing it has failed: once more at the end */
    int64_t snapshot_ms; /* the engine's time of it */

    bool by_cbt; /* all disks come by the engine's own backup, not by a snapshot */
    bool hybrid; /* by_cbt: of a snapshot that the engine takes itself, as was asked for */
    struct ovirt_checkpoints checkpoints; /* by_cbt: those that the engine had before */
    char *checkpoint;                     /* by_cbt: what the next backup can start from */
    struct store_point *base; /* the point whose checkpoint this one started from; NULL = full */

    json_t *vm_json;
    struct buf ovf;
    struct store_session *session;
    struct store_point *parent; /* the newest usable point of the VM; NULL = none */
    char **earlier; /* sessions of earlier attempts, dead now; their packs can be adopted */
    size_t earlier_count;
};

void *backup_new(struct task_run *run, struct err *err);
/* Of a backup-part: the state of a backup that does only that. */
void *backup_part_new(struct task_run *run, struct err *err);
void backup_free(void *state);
/* The snapshot that is read: ours, the engine's own, or the one of the task that this is a part of.
 * NULL = none. */
const char *backup_snapshot(const struct task_run *run);

/* The steps, one file each; tables in worker/task/backup.c. */
bool step_revoke_earlier(struct task_run *run, struct err *err);

enum probe_answer probe_stands(struct task_run *run, struct err *err);
bool step_precheck(struct task_run *run, struct err *err);
/* Its parts that an export needs as well: the site and the VM, as they stand; and the VM's
 * snapshots, where one of this very task is taken over. */
bool backup_check_vm(struct task_run *run, struct backup *b, struct err *err);
bool backup_check_snapshots(struct task_run *run, struct backup *b, struct err *err);

enum probe_answer probe_quiesce(struct task_run *run, struct err *err);
bool step_quiesce(struct task_run *run, struct err *err);
bool undo_quiesce(struct task_run *run, struct err *err);

/* Thaw; was the guest frozen up to now? And after a snapshot of ours or the engine's, `taken` or
 * not: sets b->quiesced, warns; false with quiesce-failed when it was required. */
bool backup_end_freeze(struct task_run *run, struct backup *b);
bool backup_judge_freeze(struct task_run *run, struct backup *b, bool taken, struct err *err);
enum probe_answer probe_snapshot(struct task_run *run, struct err *err);
bool step_snapshot(struct task_run *run, struct err *err);

/* Begin the engine's own backup, and end it; also the undo of begin. */
enum probe_answer probe_begin(struct task_run *run, struct err *err);
bool step_begin(struct task_run *run, struct err *err);
/* The host cannot tell what changed, so that nothing of the backup can be read: end it, and begin a
 * full one, with the reason as a warning. The transfers are closed. */
bool backup_begin_full(struct task_run *run, struct backup *b, const char *why, struct err *err);
bool undo_begin(struct task_run *run, struct err *err);
bool step_finalize(struct task_run *run, struct err *err);
/* Remove our checkpoints that no point needs any more. */
bool step_rotate(struct task_run *run, struct err *err);

bool step_describe(struct task_run *run, struct err *err);

/* Ask the hosts which parts of large disks hold data, before they are attached. */
bool step_map(struct task_run *run, struct err *err);
bool step_attach(struct task_run *run, struct err *err);
/* Open and end the transfers of the disks that are read by them. */
bool step_open(struct task_run *run, struct err *err);
bool undo_open(struct task_run *run, struct err *err);
bool step_close(struct task_run *run, struct err *err);
bool step_copy(struct task_run *run, struct err *err);
bool undo_copy(struct task_run *run, struct err *err);

/* Where several workers may copy the VM: give parts to others; take what they have copied, and copy
 * what they have not; and remove what is left of that. */
enum probe_answer probe_share(struct task_run *run, struct err *err);
bool step_share(struct task_run *run, struct err *err);
bool undo_share(struct task_run *run, struct err *err);
enum probe_answer probe_gather(struct task_run *run, struct err *err);
bool step_gather(struct task_run *run, struct err *err);
enum probe_answer probe_drop_parts(struct task_run *run, struct err *err);
bool step_drop_parts(struct task_run *run, struct err *err);

/* In place of precheck, where another task has looked at all that matters and made the snapshot. */
bool step_part_precheck(struct task_run *run, struct err *err);
bool step_commit(struct task_run *run, struct err *err);

/* Take off every disk that is attached by the handles; also the undo of attach. */
bool step_detach(struct task_run *run, struct err *err);
/* Remove our snapshot; also the undo of snapshot. */
bool step_merge(struct task_run *run, struct err *err);
/* A line in the log, for struct ovirt_merge. */
void merge_retried(void *ctx, unsigned attempt, const struct err *why);
