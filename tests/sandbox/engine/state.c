/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sandbox/engine/state.h"

#include <signal.h>
#include <string.h>

#include "tests/sandbox/engine/auth.h"
#include "tests/sandbox/engine/backups.h"
#include "tests/sandbox/engine/guests.h"
#include "tests/sandbox/engine/json_out.h"
#include "tests/sandbox/engine/storage.h"
#include "tests/sandbox/engine/views.h"
#include "tests/sandbox/engine/vms.h"
#include "tests/sandbox/guest/guest.h"

static json_t *show_snapshots(const struct vm *vm)
{
    json_t *list = json_array();
    const struct snapshot *s;
    VEC_EACH(&vm->snapshots, s)
    {
        json_t *o = json_pack("{s:s, s:s, s:s, s:b, s:I, s:I, s:b}", "id", s->id, "description",
                              s->description, "status", snapshot_status_name(s->status), "active",
                              s->active, "acked_before", (json_int_t)s->acked_before, "acked_after",
                              (json_int_t)s->acked_after, "references_made", s->references_made);
        json_object_set_new(o, "quiesced", json_boolean(s->quiesced));
        if (s->reference_error)
            json_object_set_new(o, "reference_error", json_string(s->reference_error));
        json_array_append_new(list, o);
    }
    return list;
}

static json_t *show_checkpoints(const struct vm *vm)
{
    json_t *list = json_array();
    const struct checkpoint *c;
    VEC_EACH(&vm->checkpoints, c)
    json_array_append_new(list, json_pack("{s:s, s:s, s:b, s:i}", "id", c->id, "description",
                                          c->description ? c->description : "", "invalid",
                                          c->invalid, "disks", (int)c->disks.len));
    return list;
}

static json_t *show_attachments(const struct vm *vm)
{
    json_t *list = json_array();
    const struct attachment *a;
    VEC_EACH(&vm->attachments, a)
    {
        json_t *o = json_pack("{s:s, s:s, s:s, s:b, s:b, s:b}", "disk", a->disk->id, "snapshot",
                              a->snapshot_id, "interface", a->interface, "active", a->active,
                              "bootable", a->bootable, "plugged", a->plugged);
        if (a->device)
            json_object_set_new(o, "device", json_string(a->device));
        json_array_append_new(list, o);
    }
    return list;
}

static json_t *show_vm(const struct engine *e, const struct vm *vm)
{
    static const char *const locks[] = {"free", "snapshot-create", "snapshot", "other"};
    SCOPED_FREE char *spec = guests_spec_path(e, vm);
    const char *description = in_str(vm->config, "description");
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:b, s:b, s:I, s:i, s:i, s:s, s:o, s:o, s:o}", "id",
                     vm->id, "name", vm->name, "description", description ? description : "",
                     "status", vm_status_name(vm->status), "lock", locks[vm->lock], "proxy",
                     vm->is_proxy, "frozen", vm->frozen, "acked", (json_int_t)guests_acked(vm),
                     "daemon_pid", vm->block ? (int)block_vm_pid(vm->block) : 0, "proxy_pid",
                     vm->proxy ? (int)block_host_pid(vm->proxy) : 0, "guest_spec", spec,
                     "snapshots", show_snapshots(vm), "checkpoints", show_checkpoints(vm),
                     "attachments", show_attachments(vm));
}

static json_t *show_disk(const struct engine *e, const struct disk *d)
{
    const struct vm *owner = model_disk_owner(&e->model, d);
    json_t *chain = json_array();
    const struct volume *v;
    VEC_EACH(&d->chain, v)
    json_array_append_new(chain, json_pack("{s:s, s:s, s:s, s:s, s:b, s:b, s:I}", "id", v->id,
                                           "snapshot", v->snapshot_id, "path", v->path, "format",
                                           v->format == BLOCK_RAW ? "raw" : "qcow2", "illegal",
                                           v->illegal, "locked", v->locked, "actual_size",
                                           (json_int_t)volume_actual_bytes(v)));
    return json_pack("{s:s, s:s, s:s, s:I, s:s, s:b, s:b, s:b, s:s, s:o}", "id", d->id, "alias",
                     d->alias, "description", d->description ? d->description : "", "size_bytes",
                     (json_int_t)d->size_bytes, "status", disk_status_name(d->status), "busy",
                     d->busy, "shareable", d->shareable, "lun", d->lun, "vm",
                     owner ? owner->id : "", "chain", chain);
}

static json_t *show_transfer(const struct transfer *t)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:I}", "id", t->id, "disk", t->disk->id,
                     "direction", t->upload ? "upload" : "download", "phase",
                     transfer_phase_name(t->phase), "backup", t->backup ? t->backup->id : "",
                     "bytes", (json_int_t)t->moved, "distinct_bytes", (json_int_t)t->transferred);
}

static json_t *show_backup(const struct backup *b)
{
    json_t *disks = json_array();
    const struct backup_disk *d;
    VEC_EACH(&b->disks, d)
    json_array_append_new(disks,
                          json_pack("{s:s, s:b, s:I}", "id", d->disk->id, "incremental",
                                    d->incremental, "changed_bytes", (json_int_t)d->changed_bytes));
    json_t *o = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:b, s:I, s:I, s:b, s:o}", "id", b->id,
                          "vm", b->vm->id, "description", b->description ? b->description : "",
                          "phase", backup_phase_name(b->phase), "from", b->from_checkpoint, "to",
                          b->to_checkpoint, "quiesced", b->quiesced, "acked_before",
                          (json_int_t)b->acked_before, "acked_after", (json_int_t)b->acked_after,
                          "references_made", b->references_made, "disks", disks);
    json_object_set_new(o, "hybrid", json_boolean(b->hybrid));
    json_object_set_new(o, "snapshot", json_string(b->snapshot_id));
    if (b->reference_error)
        json_object_set_new(o, "reference_error", json_string(b->reference_error));
    return o;
}

json_t *state_show(const struct engine *e)
{
    json_t *vms = json_array(), *disks = json_array(), *transfers = json_array();
    json_t *backups = json_array();
    const struct vm *vm;
    const struct disk *d;
    const struct transfer *t;
    const struct backup *b;
    VEC_EACH(&e->model.vms, vm)
    json_array_append_new(vms, show_vm(e, vm));
    VEC_EACH(&e->model.disks, d)
    json_array_append_new(disks, show_disk(e, d));
    VEC_EACH(&e->model.transfers, t)
    json_array_append_new(transfers, show_transfer(t));
    VEC_EACH(&e->model.backups, b)
    json_array_append_new(backups, show_backup(b));
    return json_pack("{s:s, s:I, s:i, s:i, s:o, s:o, s:o, s:o}", "version", e->version_text,
                     "time_ms", (json_int_t)engine_now_ms(e), "tokens",
                     (int)auth_token_count(e->auth), "threads", (int)e->threads, "vms", vms,
                     "disks", disks, "transfers", transfers, "backups", backups);
}

/* --- Changes ------------------------------------------------------------------------------------
 */

/* Processors that stand still, or run on. */
static void set_status(struct vm *vm, enum vm_status status, int guest_signal)
{
    vm->status = status;
    if (vm->guest)
        (void)kill(guest_pid(vm->guest), guest_signal);
}

static bool act(struct vm *vm, const char *action, struct err *err)
{
    if (!strcmp(action, "pause") && vm->status == VM_UP)
        set_status(vm, VM_PAUSED, SIGSTOP);
    else if (!strcmp(action, "resume") && vm->status == VM_PAUSED)
        set_status(vm, VM_UP, SIGCONT);
    else if (!strcmp(action, "kill-daemon") && vm->block)
        (void)kill(block_vm_pid(vm->block), SIGKILL);
    else
        return err_set(err, ERR_BAD_ARGUMENT, 0, "action '%s' does not fit VM '%s' (%s)", action,
                       vm->name, vm_status_name(vm->status));
    return true;
}

struct migration {
    struct vm *vm;
    int64_t ms;
};

static void migrate_job(struct engine *e, void *arg)
{
    SCOPED_FREE struct migration *m = arg;
    (void)engine_sleep(e, m->ms);
    if (m->vm->status != VM_MIGRATING)
        return;
    m->vm->host = vms_pick_host(e, m->vm);
    m->vm->status = VM_UP;
    engine_changed(e);
}

/* Takes `ms`; the storage does not notice, as with shared storage. */
static bool migrate(struct engine *e, struct vm *vm, const json_t *change, struct err *err)
{
    const json_t *ms = json_object_get(change, "ms");
    if (vm->status != VM_UP || vm->lock != VM_LOCK_FREE)
        return err_set(err, ERR_CONFLICT, 0, "VM '%s' is %s, or locked: it does not migrate",
                       vm->name, vm_status_name(vm->status));
    struct migration *m = ALLOC_NEW(struct migration);
    *m = (struct migration){.vm = vm, .ms = json_is_integer(ms) ? json_integer_value(ms) : 1000};
    vm->status = VM_MIGRATING;
    engine_spawn(e, migrate_job, m);
    return true;
}

/* The exclusive lock of the VM, as some other command of the engine would hold it. */
static bool change_lock(struct engine *e, struct vm *vm, bool held, struct err *err)
{
    if (vm->lock != (held ? VM_LOCK_FREE : VM_LOCK_OTHER))
        return err_set(err, ERR_CONFLICT, 0, "the lock of VM '%s' is %s", vm->name,
                       held ? "taken" : "not held");
    vm->lock = held ? VM_LOCK_OTHER : VM_LOCK_FREE;
    engine_changed(e);
    return true;
}

static bool change_disk(struct engine *e, struct vm *vm, const char *disk, const json_t *change,
                        struct err *err)
{
    const json_t *errnum = json_object_get(change, "write_error");
    struct block_vm *block = vm->block;
    if (json_is_true(json_object_get(change, "lose_bitmaps"))) {
        const struct attachment *a = vm_attachment(vm, disk);
        return a ? checkpoints_drop_bitmaps(e, vm, a->disk, NULL, err)
                 : err_set(err, ERR_NOT_FOUND, 0, "VM '%s' has no disk '%s'", vm->name, disk);
    }
    if (!json_is_integer(errnum))
        return err_set(err, ERR_BAD_ARGUMENT, 0, "write_error: an errno value, 0 heals");
    if (!storage_begin(e, vm, err))
        return false;
    bool ok = block_vm_set_write_error(block, disk, (int)json_integer_value(errnum), err);
    storage_end(e, vm);
    return ok;
}

bool state_change_vm(struct engine *e, struct vm *vm, const json_t *change, struct err *err)
{
    const char *action = json_string_value(json_object_get(change, "action"));
    const char *disk = json_string_value(json_object_get(change, "disk"));
    const json_t *agent = json_object_get(change, "agent");
    const json_t *locked = json_object_get(change, "locked");
    const char *invalid = json_string_value(json_object_get(change, "invalid_checkpoint"));
    if (invalid) {
        struct checkpoint *c = vm_checkpoint(vm, invalid);
        if (c)
            c->invalid = true;
        return c ||
               err_set(err, ERR_NOT_FOUND, 0, "VM '%s' has no checkpoint '%s'", vm->name, invalid);
    }
    if (action && !strcmp(action, "migrate"))
        return migrate(e, vm, change, err);
    if (action)
        return act(vm, action, err);
    if (json_is_boolean(locked))
        return change_lock(e, vm, json_is_true(locked), err);
    if (disk)
        return change_disk(e, vm, disk, change, err);
    if (!json_is_boolean(agent))
        return err_set(err, ERR_BAD_ARGUMENT, 0,
                       "say action, agent, locked, invalid_checkpoint, or disk with write_error or "
                       "lose_bitmaps");
    vm->agent = json_is_true(agent);
    return true;
}
