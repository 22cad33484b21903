/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The clone of the snapshot, a VM of our own that the engine can write out while the original runs:
 * made, and removed with its disks. Its description is our marker, but while it is written out:
 * what is exported carries the original's description, and is nobody's half-made VM where it is
 * imported.
 */
#include <string.h>

#include "proto/base/alloc.h"
#include "proto/base/log.h"
#include "worker/step/export.h"
#include "worker/step/made.h"

/* A clone without a disk of the plan would be exported without it. */
static bool check_disks(struct task_run *run, const struct export *x, struct err *err)
{
    struct ovirt_vm vm = {0};
    struct ovirt_disks disks = {0};
    bool ok = ovirt_vm_get(run->session, x->clone_id, &vm, err) && ovirt_vm_disks(&vm, &disks, err);
    if (ok && disks.count != x->base.plan_count)
        ok = err_set(err, ERR_ENGINE_FAULT, 0, "clone %s has %zu disks, the snapshot %zu",
                     x->clone_name, disks.count, x->base.plan_count);
    ovirt_disks_done(&disks);
    ovirt_vm_done(&vm);
    return ok;
}

/* The engine removes a clone that it could not make. */
static bool wait_made(struct task_run *run, const struct export *x, struct err *err)
{
    if (ovirt_vm_wait(run->session, x->clone_id, "down", run->settings->export_wait_s * 1000, err))
        return check_disks(run, x, err);
    if (err->code == ERR_NOT_FOUND) {
        err_clear(err);
        err_set(err, ERR_ENGINE_FAULT, 0,
                "the engine could not clone VM %s from its snapshot: its events say why",
                x->base.vm.name);
    }
    return false;
}

enum probe_answer probe_clone(struct task_run *run, struct err *err)
{
    struct export *x = run->state;
    if (x->base.stands)
        return PROBE_DONE;
    if (!x->clone_id)
        return PROBE_TODO;
    log_info("clone_taken_over", LOG_STR("vm_id", x->clone_id), LOG_STR("name", x->clone_name));
    return wait_made(run, x, err) ? PROBE_DONE : PROBE_FAILED;
}

bool step_clone(struct task_run *run, struct err *err)
{
    struct export *x = run->state;
    SCOPED_FREE char *marker = run_marker_exporting(run, run->offer->task);
    SCOPED_FREE char *handle = xasprintf(HANDLE_CLONE "%s", x->clone_name);
    struct ovirt_vm_new as = {
        .name = x->clone_name, .cluster_id = x->base.vm.cluster_id, .description = marker};
    /* Its name is known before the call: write it ahead, so that no clone can be lost. */
    run_handle_set(run, handle, WIRE_LEFTOVER_ALL);
    const char *snapshot = handles_get(&run->handles, HANDLE_SNAPSHOT);
    x->clone_id = ovirt_vm_create_from_snapshot(run->session, snapshot, &as, err);
    if (!x->clone_id && made_name_freed(run, x->clone_name, err))
        x->clone_id = ovirt_vm_create_from_snapshot(run->session, snapshot, &as, err);
    if (!x->clone_id)
        return false;
    run_handle_set(run, handle, x->clone_id);
    log_info("clone_begun", LOG_STR("vm_id", x->clone_id), LOG_STR("name", x->clone_name));
    return wait_made(run, x, err);
}

/* --- Removal -----------------------------------------------------------------------------------
 */
/* In two steps: once the marker is on, only a VM that carries it is removed. The id alone would not
 * do: who imports what was exported may get a VM of the same id. */
static bool remove_one(struct task_run *run, const char *handle, const char *value, struct err *err)
{
    SCOPED_FREE char *id = NULL;
    const char *task = run->offer->task;
    if (!made_clone_find(run, value, handle + strlen(HANDLE_CLONE), task, &id, err)) {
        if (err->code != ERR_REFUSED)
            return false;
        log_err(LOG_LEVEL_WARN, "clone_not_ours", err);
        err_clear(err);
    }
    if (id && !made_clone_mark(run, id, task, err))
        return false;
    run_handle_drop(run, handle);
    if (id)
        run_handle_set(run, HANDLE_VM, id);
    return true;
}

bool undo_clone(struct task_run *run, struct err *err)
{
    const struct wire_handle *h = handles_next(&run->handles, HANDLE_CLONE, 0);
    if (h) {
        SCOPED_FREE char *name = xstrdup(h->name);
        SCOPED_FREE char *value = xstrdup(h->value);
        if (!remove_one(run, name, value, err))
            return false;
    }
    const char *vm = handles_get(&run->handles, HANDLE_VM);
    if (!vm)
        return true;
    if (!made_vm_remove(run, vm, run->offer->task, err)) {
        if (err->code != ERR_REFUSED)
            return false;
        err_clear(err); /* gone since, and imported again */
    }
    run_handle_drop(run, HANDLE_VM);
    return true;
}

bool step_merge_early(struct task_run *run, struct err *err)
{
    if (step_merge(run, err))
        return true;
    struct err stop = ERR_INIT;
    if (!run_check(run, &stop) || err->code == ERR_LEASE_LOST || err->code == ERR_CANCELLED)
        return false;
    log_err(LOG_LEVEL_WARN, "merge_put_off", err);
    err_clear(err);
    return true;
}

bool step_remove(struct task_run *run, struct err *err)
{
    /* The one does not hang on the other: whatever goes is gone. */
    struct err merge = ERR_INIT;
    bool ok = undo_clone(run, err);
    if (!step_merge(run, &merge)) {
        err_keep_first(err, &merge);
        ok = false;
    }
    if (err->code != ERR_LEASE_LOST)
        export_thaw_in_case(run);
    return ok;
}
