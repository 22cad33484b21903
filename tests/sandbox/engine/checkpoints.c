/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoints of incremental backup: a chain per VM, each with a bitmap on every disk of it. */
#include <stdio.h>
#include <string.h>

#include "proto/base/log.h"
#include "tests/sandbox/engine/backups.h"
#include "tests/sandbox/engine/faults.h"
#include "tests/sandbox/engine/jobs.h"
#include "tests/sandbox/engine/json_out.h"
#include "tests/sandbox/engine/route.h"
#include "tests/sandbox/engine/storage.h"
#include "tests/sandbox/engine/views.h"
#include "tests/sandbox/engine/vms.h"

/* --- Views ------------------------------------------------------------------------------------ */

static json_t *checkpoint_view(const struct engine *e, const struct vm *vm,
                               const struct checkpoint *c)
{
    json_t *o = out_entity(c->id, "vms/%s/checkpoints/%s", vm->id, c->id);
    out_str(o, "description", c->description);
    if (c->parent_id[0])
        out_str(o, "parent_id", c->parent_id);
    out_date(o, "creation_date", c->created_ms);
    if (engine_since(e, 4, 4, 7))
        out_str(o, "state", c->invalid ? "invalid" : "created");
    out_ref(o, "vm", vm->id, "vms/%s", vm->id);
    out_link(o, "disks");
    return o;
}

static bool find(struct engine *e, struct request *r, struct vm **ret_vm, struct checkpoint **ret)
{
    *ret_vm = model_vm(&e->model, r->ids[0]);
    *ret = *ret_vm ? vm_checkpoint(*ret_vm, r->ids[1]) : NULL;
    if (!*ret)
        reply_empty(r, 404);
    return *ret;
}

void checkpoints_list(struct engine *e, struct request *r)
{
    const struct vm *vm = model_vm(&e->model, r->ids[0]);
    if (!vm) {
        reply_empty(r, 404);
        return;
    }
    json_t *list = json_array();
    const struct checkpoint *c;
    VEC_EACH(&vm->checkpoints, c)
    json_array_append_new(list, checkpoint_view(e, vm, c));
    reply_json(r, 200, out_collection("checkpoint", list));
}

void checkpoints_get(struct engine *e, struct request *r)
{
    struct vm *vm;
    struct checkpoint *c;
    if (find(e, r, &vm, &c))
        reply_json(r, 200, checkpoint_view(e, vm, c));
}

void checkpoint_disks(struct engine *e, struct request *r)
{
    struct vm *vm;
    struct checkpoint *c;
    if (!find(e, r, &vm, &c))
        return;
    json_t *list = json_array();
    const struct disk *d;
    VEC_EACH(&c->disks, d)
    json_array_append_new(list, disk_view(e, d));
    reply_json(r, 200, out_collection("disk", list));
}

/* --- Bitmaps ---------------------------------------------------------------------------------- */

static bool drop_at_rest(struct engine *e, const struct disk *d, const char *name, struct err *err)
{
    bool ok = true;
    for (size_t i = 0; ok && i < d->chain.len; i++) {
        if (d->chain.at[i]->format != BLOCK_QCOW2)
            continue;
        SCOPED_FREE char *path = xstrdup(d->chain.at[i]->path);
        engine_unlock(e);
        ok = block_volume_drop_bitmaps(path, name, err);
        engine_lock(e);
    }
    return ok;
}

bool checkpoints_drop_bitmaps(struct engine *e, struct vm *vm, struct disk *d, const char *name,
                              struct err *err)
{
    const struct attachment *a = vm_attachment(vm, d->id);
    if (!vm_is_running(vm) || !a || !a->plugged) /* it may have been taken away since */
        return drop_at_rest(e, d, name, err);
    struct block_vm *block = vm->block;
    if (!storage_begin(e, vm, err))
        return false;
    bool ok = block_vm_drop_bitmaps(block, d->id, name, err);
    storage_end(e, vm);
    return ok;
}

/* --- Coming and going ------------------------------------------------------------------------- */

void checkpoints_add(struct engine *e, const struct backup *b)
{
    struct vm *vm = b->vm;
    struct checkpoint *c = ALLOC_NEW(struct checkpoint);
    (void)snprintf(c->id, sizeof c->id, "%s", b->to_checkpoint);
    if (vm->checkpoints.len > 0)
        (void)snprintf(c->parent_id, sizeof c->parent_id, "%s",
                       vm->checkpoints.at[vm->checkpoints.len - 1]->id);
    c->description = xstrdup_or_null(b->description);
    c->created_ms = engine_now_ms(e);
    const struct backup_disk *d;
    VEC_EACH(&b->disks, d)
    if (d->disk->incremental)
        VEC_ADD(&c->disks, d->disk);
    VEC_ADD(&vm->checkpoints, c);
}

/* Its child gets its parent. */
static void take_out(struct engine *e, struct vm *vm, struct checkpoint *c)
{
    struct checkpoint *other;
    VEC_EACH(&vm->checkpoints, other)
    if (!strcmp(other->parent_id, c->id))
        memcpy(other->parent_id, c->parent_id, sizeof other->parent_id);
    VEC_REMOVE(&vm->checkpoints, c);
    VEC_ADD(&e->model.dead_checkpoints, c);
}

void checkpoints_drop_all(struct engine *e, struct vm *vm)
{
    for (size_t i = 0; i < vm->attachments.len; i++) {
        const struct attachment *a = vm->attachments.at[i];
        struct err err = ERR_INIT;
        if (!a->snapshot_id[0] && a->disk->cow &&
            !checkpoints_drop_bitmaps(e, vm, a->disk, NULL, &err))
            log_err(LOG_LEVEL_WARN, "bitmaps_not_dropped", &err);
    }
    while (vm->checkpoints.len > 0)
        take_out(e, vm, vm->checkpoints.at[0]);
    engine_changed(e);
}

struct removal {
    struct vm *vm;
    struct checkpoint *checkpoint;
    struct job *job;
    char correlation_id[ID_BYTES];
};

static void remove_job(struct engine *e, void *arg)
{
    SCOPED_FREE struct removal *w = arg;
    struct vm *vm = w->vm;
    struct checkpoint *c = w->checkpoint;
    struct err err = ERR_INIT;
    bool ok = engine_sleep(e, e->timings.backup_ms);
    if (faults_point(e->faults, "checkpoint-fail", vm->name, NULL))
        ok = err_set(&err, ERR_INTERNAL, 0, "injected");
    for (size_t i = 0; ok && i < c->disks.len; i++)
        ok = c->disks.at[i]->gone || checkpoints_drop_bitmaps(e, vm, c->disks.at[i], c->id, &err);
    if (err_is_set(&err))
        log_err(LOG_LEVEL_WARN, "checkpoint_not_removed", &err);
    c->removing = false;
    if (ok)
        take_out(e, vm, c);
    vm->lock = VM_LOCK_FREE;
    events_note(e, ok ? EVENT_CHECKPOINT_REMOVED : EVENT_CHECKPOINT_REMOVE_FAILED,
                ok ? "normal" : "error", vm, w->correlation_id,
                ok ? "Checkpoint %s of VM %s was removed."
                   : "Failed to remove checkpoint %s of VM %s.",
                c->id, vm->name);
    jobs_finish(e, w->job, ok);
    engine_changed(e);
}

void checkpoints_remove(struct engine *e, struct request *r)
{
    struct vm *vm;
    struct checkpoint *c;
    if (!find(e, r, &vm, &c) || !backups_check(e, r, vm, "remove VM checkpoint") ||
        !vms_check_lock(r, vm, "remove VM checkpoint"))
        return;
    if (vm->status != VM_UP && vm->status != VM_DOWN) {
        reply_refused(r, 409, "Cannot remove VM checkpoint because the VM is in %s status.",
                      vm_status_name(vm->status));
        return;
    }
    if (c != vm->checkpoints.at[0]) {
        reply_refused(r, 409,
                      "Cannot remove VM checkpoint. The checkpoint is not the root of the chain.");
        return;
    }
    c->removing = true;
    vm->lock = VM_LOCK_OTHER;
    struct removal *w = ALLOC_NEW(struct removal);
    *w = (struct removal){.vm = vm, .checkpoint = c, .job = r->job};
    r->job_continues = true;
    (void)snprintf(w->correlation_id, sizeof w->correlation_id, "%s", r->correlation_id);
    jobs_describe(r->job, "Removing Checkpoint %s of VM %s", c->id, vm->name);
    engine_spawn(e, remove_job, w);
    reply_action_done(r);
}
