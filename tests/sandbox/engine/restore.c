/* SPDX-License-Identifier: Apache-2.0 */
/* Going back to a snapshot: what came after it is thrown away; the snapshot itself stays. */
#include <string.h>
#include <unistd.h>

#include "proto/base/log.h"
#include "tests/sandbox/engine/backups.h"
#include "tests/sandbox/engine/jobs.h"
#include "tests/sandbox/engine/route.h"
#include "tests/sandbox/engine/snapshots.h"
#include "tests/sandbox/engine/storage.h"
#include "tests/sandbox/engine/vms.h"

/* A fresh volume on top of the snapshot's one in place of all that was above. */
static bool go_back(struct engine *e, struct disk *d, const struct snapshot *s, const char *active,
                    struct err *err)
{
    struct volume *base = disk_volume_in(d, s->id);
    if (!base)
        return true;
    struct volume *fresh = storage_plan_overlay(e, d, NULL, active);
    if (!block_volume_create(fresh->path, BLOCK_QCOW2, d->size_bytes, base->path, base->format,
                             err)) {
        volume_free(fresh);
        return false;
    }
    while (disk_active_volume(d) != base) {
        struct volume *v = disk_active_volume(d);
        (void)unlink(v->path);
        VEC_REMOVE_AT(&d->chain, d->chain.len - 1);
        VEC_ADD(&e->model.dead_volumes, v);
    }
    VEC_ADD(&d->chain, fresh);
    return true;
}

static void restore_job(struct engine *e, void *arg)
{
    SCOPED_FREE struct snapshot_work *w = arg;
    struct vm *vm = w->vm;
    struct snapshot *s = w->snapshot;
    const struct snapshot *active = vm_active_snapshot(vm);
    struct err err = ERR_INIT;
    bool ok = engine_sleep(e, e->timings.snapshot_ms);
    for (size_t i = 0; i < vm->snapshots.len; i++)
        references_wait(e, vm->snapshots.at[i]);
    for (size_t i = 0; ok && i < vm->attachments.len; i++)
        if (vm->attachments.at[i]->snapshot_id[0] == '\0')
            ok = go_back(e, vm->attachments.at[i]->disk, s, active->id, &err);
    for (size_t i = 0; ok && i < vm->snapshots.len;) {
        struct snapshot *later = vm->snapshots.at[i];
        if (later->active || later == s || later->date_ms < s->date_ms)
            i++;
        else
            snapshots_drop(e, vm, later);
    }
    if (ok)
        checkpoints_drop_all(e, vm);
    if (ok && s->vm) {
        json_decref(vm->config);
        vm->config = json_deep_copy(s->vm);
    }
    if (err_is_set(&err))
        log_err(LOG_LEVEL_WARN, "restore_failed", &err);
    s->status = SNAPSHOT_OK;
    vm->status = VM_DOWN;
    events_note(e, EVENT_SNAPSHOT_RESTORED, ok ? "normal" : "error", vm, w->correlation_id,
                ok ? "VM %s restoring from Snapshot has been completed."
                   : "Failed to restore VM %s from Snapshot.",
                vm->name);
    snapshots_release(e, w, ok);
}

void snapshot_restore(struct engine *e, struct request *r)
{
    struct vm *vm;
    struct snapshot *s;
    if (!snapshots_find(e, r, &vm, &s))
        return;
    const struct vm *holder = model_snapshot_disk_holder(&e->model, vm);
    if (s->active)
        reply_refused(r, 400, "Cannot restore VM from Snapshot. The snapshot is the active one.");
    else if (backups_check(e, r, vm, "restore VM from Snapshot") &&
             vms_check_lock(r, vm, "restore VM from Snapshot") &&
             snapshots_check_idle(r, vm, "restore VM from Snapshot")) {
        if (vm->status != VM_DOWN)
            reply_refused(r, 409, "Cannot restore VM from Snapshot. VM is not down.");
        else if (holder)
            reply_refused(r, 409,
                          "Cannot restore VM from Snapshot. The VM's disk snapshot is attached to "
                          "another VM: %s.",
                          holder->name);
    }
    if (r->status != 0)
        return;
    vm->lock = VM_LOCK_SNAPSHOT_OTHER;
    vm->status = VM_IMAGE_LOCKED;
    s->status = SNAPSHOT_LOCKED;
    jobs_describe(r->job, "Restoring VM %s to Snapshot %s", vm->name, s->description);
    events_note(e, EVENT_SNAPSHOT_RESTORE_STARTED, "normal", vm, r->correlation_id,
                "VM %s restoring from Snapshot was initiated.", vm->name);
    engine_spawn(e, restore_job, snapshots_work_new(r, vm, s));
    reply_action_done(r);
}
