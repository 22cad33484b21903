/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine's own backups, and their checkpoints. A backup is a frozen view of a VM's disks that
 * image transfers read (transfer.h); with a checkpoint to start from, a transfer tells what has
 * changed since. The disks are locked until the backup is ended, so end EVERY one.
 *
 * API: http://ovirt.github.io/ovirt-engine-api-model/master/#services/vm_backups
 */
#pragma once

#include "worker/ovirt/engine.h"

enum ovirt_backup_phase {
    OVIRT_BACKUP_STARTING, /* initializing, starting */
    OVIRT_BACKUP_READY,
    OVIRT_BACKUP_ENDING, /* finalizing */
    OVIRT_BACKUP_DONE,   /* succeeded */
    OVIRT_BACKUP_FAILED,
};

struct ovirt_backup {
    char *id, *description;
    char *to_checkpoint; /* once it is ready; NULL when it makes none (raw disks only) */
    enum ovirt_backup_phase phase;
    int64_t time_ms;    /* the engine's, of its creation */
    int64_t changed_ms; /* likewise, of its last change of phase; 0 = not told */
    char *snapshot; /* that the engine took itself and reads from ("hybrid"); NULL = none, or not
                       any more */
};
void ovirt_backup_done(struct ovirt_backup *b);

struct ovirt_backup_spec {
    const char *id;              /* chosen by us, so that a lost answer can be looked up */
    const char *description;     /* our marker */
    const char *from_checkpoint; /* NULL = a full one */
    const char *const *disk_ids;
    size_t disk_count;
    bool no_wait; /* do not wait while another backup or task holds the VM: engine-busy at once */
    bool consistent; /* fail when the guest's file systems cannot be frozen; not heard in a hybrid
                        backup */
    bool legacy;     /* no hybrid one, which engines since 4.5 make by themselves in clusters of
                        level 4.7     and above */
};
/* Asks for it. Returns its id (the caller frees; engines that do not take ours give their own): it
 * is not ready yet. Errors, beside the usual: not-found or engine-refused for a checkpoint that the
 * engine does not have, or calls invalid; engine-busy while another backup of the VM runs. */
char *ovirt_backup_begin(struct engine_session *s, const char *vm_id,
                         const struct ovirt_backup_spec *spec, struct err *err);
/* Errors: not-found when the engine does not know it (any more). */
bool ovirt_backup_get(struct engine_session *s, const char *vm_id, const char *id,
                      struct ovirt_backup *ret, struct err *err);
/* Of every snapshot that the engine takes for a backup. It says nothing of whose it is: that, only
 * the backup tells, as long as the engine knows it. */
#define OVIRT_BACKUP_SNAPSHOT "Auto-generated for Backup VM"

/* Until transfers can be opened. `on_snapshot` (NULL = nobody): called once, as soon as the engine
 * tells that it has taken a snapshot. Errors: engine-fault when it has failed, or is gone; timeout.
 */
struct ovirt_backup_wait {
    int64_t limit_ms;
    void (*on_snapshot)(void *ctx, const char *snapshot_id);
    void *ctx;
};
bool ovirt_backup_wait_ready(struct engine_session *s, const char *vm_id, const char *id,
                             const struct ovirt_backup_wait *how, struct ovirt_backup *ret,
                             struct err *err);
/* Ends it, however far it is, and waits until the engine has let the disks go. No transfer of it
 * may be open. One that has ended, or is not there, is success; that of a hybrid one says nothing
 * of its snapshot, which the engine may have failed to merge. Errors: timeout. */
bool ovirt_backup_end(struct engine_session *s, const char *vm_id, const char *id, int64_t limit_ms,
                      struct err *err);

/* Which disks of a backup that is ready can tell what changed; an engine that does not say so is
 * believed to do what it was asked for: the transfer will tell. */
struct ovirt_backup_disk {
    char *id;
    bool is_incremental;
    uint64_t size_bytes; /* as the backup has it; 0 = not told */
};
struct ovirt_backup_disks {
    struct ovirt_backup_disk *v;
    size_t count;
};
void ovirt_backup_disks_done(struct ovirt_backup_disks *disks);
bool ovirt_backup_disks(struct engine_session *s, const char *vm_id, const char *id,
                        struct ovirt_backup_disks *ret, struct err *err);

/* Backups of a VM that have not ended, of the description's prefix (NULL = all). */
struct ovirt_backups {
    struct ovirt_backup *v;
    size_t count;
};
void ovirt_backups_done(struct ovirt_backups *list);
bool ovirt_backups_open(struct engine_session *s, const char *vm_id, const char *prefix,
                        struct ovirt_backups *ret, struct err *err);

/* --- Checkpoints ----------------------------------------------------------------------------- */
struct ovirt_checkpoint {
    char *id;
    char *description; /* "" when the engine keeps none */
    bool is_invalid;
    int64_t time_ms;
};
struct ovirt_checkpoints {
    struct ovirt_checkpoint *v; /* the oldest first */
    size_t count;
};
void ovirt_checkpoints_done(struct ovirt_checkpoints *list);
/* Empty for an engine that has no such thing. */
bool ovirt_checkpoints_list(struct engine_session *s, const char *vm_id,
                            struct ovirt_checkpoints *ret, struct err *err);
/* Borrowed, or NULL. */
const struct ovirt_checkpoint *ovirt_checkpoints_find(const struct ovirt_checkpoints *list,
                                                      const char *id);
/* Removes it and waits until it is gone; one that is not there is success. What has changed since
 * it is still told from later ones. Errors: conflict when this engine removes the oldest only. */
bool ovirt_checkpoint_delete(struct engine_session *s, const char *vm_id, const char *id,
                             int64_t limit_ms, struct err *err);
