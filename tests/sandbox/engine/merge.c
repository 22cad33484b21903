/* SPDX-License-Identifier: Apache-2.0 */
/* Removing a snapshot: the merge of its volumes, live while the VM runs, cold while it is down. */
#include <string.h>
#include <unistd.h>

#include "proto/base/log.h"
#include "tests/sandbox/engine/backups.h"
#include "tests/sandbox/engine/faults.h"
#include "tests/sandbox/engine/jobs.h"
#include "tests/sandbox/engine/route.h"
#include "tests/sandbox/engine/snapshots.h"
#include "tests/sandbox/engine/storage.h"
#include "tests/sandbox/engine/vms.h"

static bool check_disks(const struct engine *e, struct request *r, const struct vm *vm,
                        const struct snapshot *s)
{
    const struct attachment *a;
    VEC_EACH(&vm->attachments, a)
    {
        if (a->snapshot_id[0] != '\0')
            continue;
        if (disk_is_locked(a->disk))
            reply_refused(r, 409,
                          "Cannot remove Snapshot: The following disks are locked: %s. Please try "
                          "again in a few minutes.",
                          a->disk->alias);
        else if (!a->active && vm_is_running(vm) && disk_volume_in(a->disk, s->id))
            reply_refused(r, 409,
                          "Cannot remove Snapshot. The following disk(s) of the snapshot are not "
                          "plugged to the VM: %s.",
                          a->disk->alias);
        if (r->status != 0)
            return false;
    }
    const struct vm *holder = model_snapshot_disk_holder(&e->model, vm);
    if (holder) {
        reply_refused(r, 409,
                      "Cannot remove Snapshot. The following VM's disks snapshots are attached to "
                      "other VMs: %s.",
                      holder->name);
        return false;
    }
    return true;
}

static bool check_remove(struct engine *e, struct request *r, const struct vm *vm,
                         const struct snapshot *s)
{
    if (s->active) {
        reply_refused(r, 400, "Cannot remove Snapshot. The active snapshot can't be removed.");
        return false;
    }
    if (!backups_check(e, r, vm, "remove Snapshot") || !vms_check_lock(r, vm, "remove Snapshot") ||
        !snapshots_check_idle(r, vm, "remove Snapshot"))
        return false;
    if (vm->status != VM_UP && vm->status != VM_POWERING_UP && vm->status != VM_PAUSED &&
        vm->status != VM_DOWN) {
        reply_refused(r, 409, "Cannot remove Snapshot because the VM is in %s status.",
                      vm_status_name(vm->status));
        return false;
    }
    return check_disks(e, r, vm, s);
}

/* Volume `i` of the disk takes in the one above it. Gives up the lock. */
static bool merge_volume(struct engine *e, struct vm *vm, struct disk *d, size_t i, struct err *err)
{
    struct volume *base = d->chain.at[i], *top = d->chain.at[i + 1];
    const char *above = i + 2 < d->chain.len ? d->chain.at[i + 2]->path : NULL;
    bool ok;
    if (vm_is_running(vm)) {
        struct block_vm *block = vm->block;
        if (!storage_begin(e, vm, err))
            return false;
        ok = block_vm_merge(block, d->id, top->path, base->path, 0, err);
        storage_end(e, vm);
    } else {
        engine_unlock(e);
        ok = block_volume_commit(top->path, base->path, above, err);
        engine_lock(e);
    }
    if (!ok)
        return err_wrap(err, "disk %s", d->id);
    (void)unlink(top->path);
    memcpy(base->snapshot_id, top->snapshot_id, sizeof base->snapshot_id);
    base->illegal = false;
    VEC_REMOVE_AT(&d->chain, i + 1);
    VEC_ADD(&e->model.dead_volumes, top);
    return true;
}

static bool merge_all(struct engine *e, struct vm *vm, const struct snapshot *s, struct err *err)
{
    for (size_t k = 0; k < vm->attachments.len; k++) {
        struct disk *d = vm->attachments.at[k]->disk;
        if (vm->attachments.at[k]->snapshot_id[0] != '\0')
            continue;
        for (size_t i = 0; i + 1 < d->chain.len; i++)
            if (!strcmp(d->chain.at[i]->snapshot_id, s->id)) {
                if (!merge_volume(e, vm, d, i, err))
                    return false;
                break;
            }
    }
    return true;
}

static void mark_illegal(const struct vm *vm, const struct snapshot *s)
{
    const struct attachment *a;
    VEC_EACH(&vm->attachments, a)
    {
        struct volume *v = a->snapshot_id[0] ? NULL : disk_volume_in(a->disk, s->id);
        if (v)
            v->illegal = true;
    }
}

/* False: it is there still. The VM's lock is held still. */
static bool merge(struct engine *e, const struct snapshot_work *w, struct err *err)
{
    struct vm *vm = w->vm;
    struct snapshot *s = w->snapshot;
    int64_t slow = 0, delay = 0;
    bool ok = engine_sleep(e, e->timings.merge_start_ms);
    s->status = SNAPSHOT_LOCKED;
    ok = ok && engine_sleep(e, e->timings.merge_ms);
    if (faults_point(e->faults, "merge-slow", vm->name, &slow))
        (void)engine_sleep(e, slow);
    references_wait(e, s);
    if (faults_point(e->faults, "merge-fail", vm->name, &delay)) {
        (void)engine_sleep(e, delay);
        ok = err_set(err, ERR_INTERNAL, 0, "injected");
    }
    ok = ok && merge_all(e, vm, s, err);
    if (ok) {
        events_note(e, EVENT_MERGE_FINISHED, "normal", vm, w->correlation_id,
                    "Snapshot '%s' deletion for VM '%s' has been completed.", s->description,
                    vm->name);
        snapshots_drop(e, vm, s);
    } else {
        log_warn("merge_failed", LOG_STR("vm", vm->name), LOG_STR("why", err->message));
        mark_illegal(vm, s);
        s->status = SNAPSHOT_OK;
        events_note(e, EVENT_MERGE_FAILED, "error", vm, w->correlation_id,
                    "Failed to delete snapshot '%s' for VM '%s'.", s->description, vm->name);
    }
    return ok;
}

static void merge_job(struct engine *e, void *arg)
{
    SCOPED_FREE struct snapshot_work *w = arg;
    struct err err = ERR_INIT;
    snapshots_release(e, w, merge(e, w, &err));
}

/* What the engine's own command would be refused for; nobody is told then. */
static bool may_remove_own(const struct engine *e, const struct vm *vm, const struct snapshot *s)
{
    const struct snapshot *other;
    bool may = vm->lock == VM_LOCK_FREE && !model_snapshot_disk_holder(&e->model, vm) &&
               (vm->status == VM_UP || vm->status == VM_POWERING_UP || vm->status == VM_PAUSED ||
                vm->status == VM_DOWN);
    VEC_EACH(&vm->snapshots, other)
    may = may && (other == s || other->status == SNAPSHOT_OK);
    return may;
}

bool snapshots_own_remove(struct engine *e, struct vm *vm, struct snapshot *s, struct err *err)
{
    if (!may_remove_own(e, vm, s))
        return err_set(err, ERR_CONFLICT, 0, "snapshot %s cannot be removed now", s->id);
    struct snapshot_work w = {.vm = vm, .snapshot = s};
    vm->lock = VM_LOCK_SNAPSHOT_OTHER;
    bool ok = merge(e, &w, err);
    snapshots_release(e, &w, ok);
    return ok;
}

void snapshots_remove(struct engine *e, struct request *r)
{
    struct vm *vm;
    struct snapshot *s;
    if (!snapshots_find(e, r, &vm, &s) || !check_remove(e, r, vm, s))
        return;
    vm->lock = VM_LOCK_SNAPSHOT_OTHER;
    jobs_describe(r->job, "Removing Snapshot %s of VM %s", s->description, vm->name);
    events_note(e, EVENT_MERGE_STARTED, "normal", vm, r->correlation_id,
                "Snapshot '%s' deletion for VM '%s' was initiated.", s->description, vm->name);
    engine_spawn(e, merge_job, snapshots_work_new(r, vm, s));
    reply_action_done(r);
}
