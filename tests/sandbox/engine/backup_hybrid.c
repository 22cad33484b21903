/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hybrid backups, the engine's default from compatibility level 4.7 on: it takes a snapshot itself,
 * transfers read the frozen volumes, and after "finalize" it merges the snapshot. No disk is locked
 * for others than those that want to change it, and the VM may start and stop. Followed from the
 * engine's HybridBackupCommand and StopVmBackupCommand (4.5):
 *
 *  - "require_consistency" is not heard; "legacy" makes the other kind of backup.
 *  - The snapshot is there, locked, when the POST answers. Its description is always the same.
 *  - The bitmap of the earlier checkpoint is looked for when a transfer opens, not before.
 *  - "finalize" marks it, in any phase, and is refused the second time; it is `ready` for a moment
 *    longer.
 *  - When the merge fails, or is refused (a disk of the VM's snapshots is attached somewhere), the
 *    backup has succeeded all the same, and the snapshot stays.
 *  - When it fails it forgets its snapshot, and tries to remove it after that.
 */
#include <stdio.h>
#include <string.h>

#include "proto/base/log.h"
#include "tests/sandbox/engine/backups.h"
#include "tests/sandbox/engine/faults.h"
#include "tests/sandbox/engine/jobs.h"
#include "tests/sandbox/engine/json_out.h"
#include "tests/sandbox/engine/snapshots.h"

enum { HYBRID_LEVEL_MINOR = 7, HYBRID_POLL_MS = 500 };

/* Of the VM itself where it has one of its own. */
static int level_of(const struct engine *e, const struct vm *vm)
{
    const json_t *own = json_object_get(vm->config, "custom_compatibility_version");
    return own ? (int)in_u64(own, "minor", 0) : engine_level_minor(e);
}

bool backup_hybrid_wanted(const struct engine *e, const struct request *r, const struct vm *vm)
{
    return engine_since(e, 4, 5, 0) && level_of(e, vm) >= HYBRID_LEVEL_MINOR &&
           !request_flag(r, "legacy", false);
}

bool backup_hybrid_begin(struct engine *e, struct request *r, struct backup_walk *w)
{
    struct backup *b = w->b;
    struct vm *vm = b->vm;
    const struct backup_disk *d;
    struct snapshot *s;
    VEC_EACH(&b->disks, d)
    if (disk_is_locked(d->disk)) {
        reply_refused(
            r, 409,
            "Cannot create Snapshot: The following disks are locked: %s. Please try again "
            "in a few minutes.",
            d->disk->alias);
        return false;
    }
    const struct attachment *a;
    VEC_EACH(&vm->attachments, a)
    if (!a->snapshot_id[0] && a->active && disk_is_snapable(a->disk) && !a->disk->busy) {
        a->disk->busy = true;
        VEC_ADD(&b->held, a->disk);
    }
    w->snapshot = snapshots_own_begin(e, vm, b, &s);
    memcpy(b->snapshot_id, s->id, sizeof b->snapshot_id);
    b->phase = BACKUP_STARTING;
    return true;
}

/* What a transfer of each disk will read, and whether it can tell what changed. */
static void take_volumes(struct backup *b, const struct snapshot *s)
{
    const struct checkpoint *from =
        b->from_checkpoint[0] ? vm_checkpoint(b->vm, b->from_checkpoint) : NULL;
    struct backup_disk *d;
    VEC_EACH(&b->disks, d)
    {
        const struct volume *v = disk_volume_in(d->disk, s->id);
        if (v)
            memcpy(d->volume_id, v->id, sizeof d->volume_id);
        d->incremental = d->disk->incremental && from && checkpoint_has(from, d->disk);
    }
    b->quiesced = s->quiesced || !vm_is_running(b->vm);
    b->acked_before = s->acked_before;
    b->acked_after = s->acked_after;
}

static struct snapshot *own_snapshot(const struct backup *b)
{
    return b->snapshot_id[0] ? vm_snapshot(b->vm, b->snapshot_id) : NULL;
}

static bool become_ready(struct engine *e, struct backup_walk *w, struct err *err)
{
    struct backup *b = w->b;
    int64_t slow = 0;
    if (!snapshots_own_finish(e, TAKE(w->snapshot), err))
        return false;
    if (faults_point(e->faults, "backup-slow", b->vm->name, &slow))
        (void)engine_sleep(e, slow);
    if (faults_point(e->faults, "backup-fail", b->vm->name, NULL))
        return err_set(err, ERR_INTERNAL, 0, "injected");
    const struct snapshot *s = own_snapshot(b);
    if (!s)
        return err_set(err, ERR_NOT_FOUND, 0, "the snapshot has gone");
    take_volumes(b, s);
    references_begin_backup(e, b);
    if (b->to_checkpoint[0])
        checkpoints_add(e, b);
    backup_set_phase(e, b, BACKUP_READY);
    return true;
}

/* True: it has gone, or was never there. */
static bool remove_snapshot(struct engine *e, const struct backup *b, struct snapshot *s)
{
    struct err err = ERR_INIT;
    if (!s || snapshots_own_remove(e, b->vm, s, &err))
        return true;
    log_err(LOG_LEVEL_WARN, "backup_snapshot_left", &err);
    return false;
}

static void fail(struct engine *e, struct backup_walk *w)
{
    struct backup *b = w->b;
    struct snapshot *s = own_snapshot(b);
    b->snapshot_id[0] = '\0';
    backup_set_phase(e, b, BACKUP_FAILED);
    (void)remove_snapshot(e, b, s);
    backup_finish(e, w, false);
}

void backup_hybrid_job(struct engine *e, void *arg)
{
    SCOPED_FREE struct backup_walk *w = arg;
    struct backup *b = w->b;
    struct err err = ERR_INIT;
    if (!become_ready(e, w, &err)) {
        log_err(LOG_LEVEL_WARN, "backup_failed", &err);
        fail(e, w);
        return;
    }
    while (!b->stopped && engine_sleep_until_changed(e, HYBRID_POLL_MS))
        ;
    (void)engine_sleep(e, e->timings.backup_ms); /* until the engine looks again */
    references_wait_backup(e, b);
    backup_set_phase(e, b, BACKUP_FINALIZING);
    if (remove_snapshot(e, b, own_snapshot(b)))
        b->snapshot_id[0] = '\0';
    else
        events_note(e, EVENT_BACKUP_SNAPSHOT_LEFT, "warning", b->vm, w->correlation_id,
                    "Possible failure while removing a snapshot that was generated automatically "
                    "during backup of VM '%s'. The snapshot may be removed manually",
                    b->vm->name);
    backup_finish(e, w, true);
}
