/* SPDX-License-Identifier: Apache-2.0 */
/* Starting, stopping, suspending, freezing. */
#include "tests/sandbox/engine/power.h"

#include <stdio.h>

#include "proto/base/log.h"
#include "tests/sandbox/engine/backups.h"
#include "tests/sandbox/engine/faults.h"
#include "tests/sandbox/engine/guests.h"
#include "tests/sandbox/engine/jobs.h"
#include "tests/sandbox/engine/json_out.h"
#include "tests/sandbox/engine/route.h"
#include "tests/sandbox/engine/storage.h"
#include "tests/sandbox/engine/vms.h"

struct change {
    struct vm *vm;
    struct job *job;
    char correlation_id[ID_BYTES];
    enum vm_status end; /* of stopping: down or suspended */
};

static struct vm *find(struct engine *e, struct request *r)
{
    struct vm *vm = model_vm(&e->model, r->ids[0]);
    if (!vm)
        reply_fault(r, 404, "Operation Failed", "Entity not found: %s", r->ids[0]);
    return vm;
}

static struct change *change_new(struct vm *vm, struct request *r)
{
    struct change *c = ALLOC_NEW(struct change);
    c->vm = vm;
    c->job = r->job;
    r->job_continues = true;
    (void)snprintf(c->correlation_id, sizeof c->correlation_id, "%s", r->correlation_id);
    return c;
}

bool power_start_now(struct engine *e, struct vm *vm, struct err *err)
{
    vm->host = vms_pick_host(e, vm);
    if (!vm->host)
        return err_set(err, ERR_CONFLICT, 0, "cluster '%s' has no host", vm->cluster->name);
    if (!storage_start_vm(e, vm, err)) {
        storage_stop_vm(e, vm);
        vm->host = NULL;
        return false;
    }
    vm->started_ms = engine_now_ms(e);
    vm->status = VM_UP;
    return true;
}

static void set_down(struct engine *e, struct vm *vm, enum vm_status end)
{
    vm->host = NULL;
    vm->stopped_ms = engine_now_ms(e);
    vm->status = end;
    engine_changed(e);
}

static void start_job(struct engine *e, void *arg)
{
    SCOPED_FREE struct change *c = arg;
    struct vm *vm = c->vm;
    struct err err = ERR_INIT;
    bool ok = engine_sleep(e, e->timings.start_ms / 2);
    if (faults_point(e->faults, "start-fail", vm->name, NULL))
        ok = err_set(&err, ERR_INTERNAL, 0, "injected");
    if (ok && vm->status != VM_RESTORING_STATE)
        vm->status = VM_POWERING_UP;
    ok = ok && engine_sleep(e, e->timings.start_ms / 2) && power_start_now(e, vm, &err);
    if (!ok) {
        set_down(e, vm, VM_DOWN);
        if (err_is_set(&err))
            log_err(LOG_LEVEL_WARN, "vm_not_started", &err);
    }
    vm->lock = VM_LOCK_FREE;
    events_note(e, EVENT_VM_STARTED, ok ? "normal" : "error", vm, c->correlation_id,
                ok ? "VM %s started." : "Failed to run VM %s.", vm->name);
    jobs_finish(e, c->job, ok);
    engine_changed(e);
}

void vm_start(struct engine *e, struct request *r)
{
    struct vm *vm = find(e, r);
    if (!vm || !backups_check_power(e, r, vm, "run VM") || !vms_check_lock(r, vm, "run VM"))
        return;
    if (vm->status != VM_DOWN && vm->status != VM_SUSPENDED) {
        reply_refused(r, 409, "Cannot run VM. VM is running.");
        return;
    }
    const struct attachment *a;
    VEC_EACH(&vm->attachments, a)
    if (a->disk->status != DISK_OK) {
        reply_refused(r, 409,
                      "Cannot run VM: The following disks are locked: %s. Please try "
                      "again in a few minutes.",
                      a->disk->alias);
        return;
    }
    vm->status = vm->status == VM_SUSPENDED ? VM_RESTORING_STATE : VM_WAIT_FOR_LAUNCH;
    vm->lock = VM_LOCK_OTHER;
    jobs_describe(r->job, "Launching VM %s", vm->name);
    engine_spawn(e, start_job, change_new(vm, r));
    reply_action_done(r);
}

static void stop_job(struct engine *e, void *arg)
{
    SCOPED_FREE struct change *c = arg;
    struct vm *vm = c->vm;
    (void)engine_sleep(e, e->timings.stop_ms);
    storage_stop_vm(e, vm);
    set_down(e, vm, c->end);
    vm->lock = VM_LOCK_FREE;
    events_note(e, EVENT_VM_STOPPED, "normal", vm, c->correlation_id, "VM %s powered off.",
                vm->name);
    jobs_finish(e, c->job, true);
    engine_changed(e);
}

static void stop(struct engine *e, struct request *r, enum vm_status passing, enum vm_status end)
{
    struct vm *vm = find(e, r);
    const char *verb = end == VM_SUSPENDED ? "suspend VM" : "stop VM";
    if (!vm || (!in_bool(r->body, "force", false) && !backups_check_power(e, r, vm, verb)) ||
        !vms_check_lock(r, vm, verb))
        return;
    if (vm->status != VM_UP && vm->status != VM_PAUSED) {
        reply_refused(r, 409, "Cannot %s VM. VM is not running.",
                      end == VM_SUSPENDED ? "suspend" : "stop");
        return;
    }
    vm->status = passing;
    vm->lock = VM_LOCK_OTHER;
    jobs_describe(r->job, "Stopping VM %s", vm->name);
    struct change *c = change_new(vm, r);
    c->end = end;
    engine_spawn(e, stop_job, c);
    reply_action_done(r);
}

void vm_stop(struct engine *e, struct request *r)
{
    stop(e, r, VM_POWERING_DOWN, VM_DOWN);
}

void vm_shutdown(struct engine *e, struct request *r)
{
    stop(e, r, VM_POWERING_DOWN, VM_DOWN);
}

void vm_suspend(struct engine *e, struct request *r)
{
    stop(e, r, VM_SAVING_STATE, VM_SUSPENDED);
}

/* --- Freeze and thaw -----------------------------------------------------------------------------
 */

static struct vm *find_agent(struct engine *e, struct request *r, const char *verb)
{
    struct vm *vm = find(e, r);
    if (!vm)
        return NULL;
    if (vm->status != VM_UP)
        reply_refused(r, 409, "Cannot %s because the VM is in %s status.", verb,
                      vm_status_name(vm->status));
    else if (!vm->agent || !vm->guest)
        reply_refused(r, 400, "Cannot %s: guest agent is not responding for VM %s.", verb,
                      vm->name);
    return r->status == 0 ? vm : NULL;
}

static void freeze_failed(struct engine *e, struct request *r, const struct vm *vm, bool freezing,
                          const char *why)
{
    events_note(e, freezing ? EVENT_FREEZE_FAILED : EVENT_THAW_FAILED, "warning", vm,
                r->correlation_id, "Failed to %s guest filesystems on VM %s: %s",
                freezing ? "freeze" : "thaw", vm->name, why);
    reply_refused(r, 400, "Failed to %s guest filesystems: %s", freezing ? "freeze" : "thaw", why);
}

void vm_freeze(struct engine *e, struct request *r)
{
    struct vm *vm = find_agent(e, r, "freeze VM file systems");
    struct err err = ERR_INIT;
    int64_t delay = 0;
    if (!vm)
        return;
    (void)engine_sleep(e, e->timings.freeze_ms);
    if (vm->frozen) {
        freeze_failed(e, r, vm, true, "already frozen");
    } else if (faults_point(e->faults, "freeze-fail", vm->name, &delay)) {
        (void)engine_sleep(e, delay);
        freeze_failed(e, r, vm, true, "guest agent timed out");
    } else if (!guests_freeze(e, vm, &err)) {
        freeze_failed(e, r, vm, true, err.message);
    } else {
        vm->frozen = true;
        events_note(e, EVENT_FREEZE_DONE, "normal", vm, r->correlation_id,
                    "Guest filesystems on VM %s have been frozen successfully.", vm->name);
        reply_action_done(r);
    }
}

void vm_thaw(struct engine *e, struct request *r)
{
    struct vm *vm = find_agent(e, r, "thaw VM file systems");
    struct err err = ERR_INIT;
    int64_t delay = 0;
    if (!vm)
        return;
    (void)engine_sleep(e, e->timings.freeze_ms);
    if (faults_point(e->faults, "thaw-fail", vm->name, &delay)) {
        (void)engine_sleep(e, delay);
        freeze_failed(e, r, vm, false, "guest agent timed out");
    } else if (!guests_thaw(e, vm, &err)) {
        freeze_failed(e, r, vm, false, err.message);
    } else {
        vm->frozen = false;
        events_note(e, EVENT_THAW_DONE, "normal", vm, r->correlation_id,
                    "Guest filesystems on VM %s have been thawed successfully.", vm->name);
        reply_action_done(r);
    }
}
