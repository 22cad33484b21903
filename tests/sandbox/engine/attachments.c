/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disk attachments: the live disks of a VM, and a snapshot's disks on a proxy VM. The engine's
 * checks stand here in its own order; what it lets through by design (detach_only=false deletes the
 * original disk) goes through here as well.
 */
#include <stdio.h>
#include <string.h>

#include "proto/base/log.h"
#include "tests/sandbox/engine/disks.h"
#include "tests/sandbox/engine/faults.h"
#include "tests/sandbox/engine/jobs.h"
#include "tests/sandbox/engine/json_out.h"
#include "tests/sandbox/engine/route.h"
#include "tests/sandbox/engine/storage.h"
#include "tests/sandbox/engine/views.h"
#include "tests/sandbox/engine/vms.h"

/* PCI slots that a VM has used before disks and NICs: graphics, balloon, virtio-serial,
 * virtio-scsi, USB, sound or random number device. */
enum { PCI_SLOTS_BASE = 6, IDE_MAX = 3, SATA_MAX = 5, DEVICE_LATE_MS = 100 };

json_t *attachment_view(const struct engine *e, const struct vm *vm, const struct attachment *a,
                        bool follow_disk)
{
    json_t *o = out_entity(a->disk->id, "vms/%s/diskattachments/%s", vm->id, a->disk->id);
    out_bool(o, "active", a->active);
    out_bool(o, "bootable", a->bootable);
    out_str(o, "interface", a->interface);
    out_str(o, "logical_name", a->logical_name);
    out_bool(o, "pass_discard", a->pass_discard);
    out_bool(o, "read_only", a->read_only);
    out_bool(o, "uses_scsi_reservation", false);
    if (follow_disk)
        json_object_set_new(o, "disk", disk_view(e, a->disk));
    else
        out_ref(o, "disk", a->disk->id, "disks/%s", a->disk->id);
    out_ref(o, "vm", vm->id, "vms/%s", vm->id);
    return o;
}

void attachments_list(struct engine *e, struct request *r)
{
    const struct vm *vm = model_vm(&e->model, r->ids[0]);
    if (!vm) {
        reply_empty(r, 404);
        return;
    }
    const char *follow = request_param(r, "follow");
    bool with_disks = follow && !strcmp(follow, "disk");
    json_t *list = json_array();
    const struct attachment *a;
    VEC_EACH(&vm->attachments, a)
    json_array_append_new(list, attachment_view(e, vm, a, with_disks));
    reply_json(r, 200, out_collection("disk_attachment", list));
}

static bool find(struct engine *e, struct request *r, struct vm **ret_vm, struct attachment **ret)
{
    *ret_vm = model_vm(&e->model, r->ids[0]);
    *ret = *ret_vm ? vm_attachment(*ret_vm, r->ids[1]) : NULL;
    if (!*ret)
        reply_empty(r, 404);
    return *ret != NULL;
}

void attachments_get(struct engine *e, struct request *r)
{
    struct vm *vm;
    struct attachment *a;
    if (find(e, r, &vm, &a))
        reply_json(r, 200, attachment_view(e, vm, a, false));
}

/* --- Checks ------------------------------------------------------------------------------------
 */

static unsigned count_interface(const struct vm *vm, const char *interface)
{
    unsigned count = 0;
    const struct attachment *a;
    VEC_EACH(&vm->attachments, a)
    count += !strcmp(a->interface, interface);
    return count;
}

static bool check_slots(const struct engine *e, struct request *r, const struct vm *vm,
                        const char *interface)
{
    size_t pci = PCI_SLOTS_BASE + vm->nics.len + count_interface(vm, "virtio");
    const json_t *scsi = json_object_get(vm->config, "virtio_scsi");
    if (!strcmp(interface, "virtio") && pci >= e->pci_slots)
        reply_refused(r, 409, "Cannot attach Virtual Disk. Maximum PCI devices exceeded.");
    else if (!strcmp(interface, "ide") && count_interface(vm, "ide") >= IDE_MAX)
        reply_refused(r, 409, "Cannot attach Virtual Disk. Maximum IDE devices exceeded.");
    else if (!strcmp(interface, "sata") && count_interface(vm, "sata") >= SATA_MAX)
        reply_refused(r, 409, "Cannot attach Virtual Disk. Maximum SATA devices exceeded.");
    else if (!strcmp(interface, "virtio_scsi") && !in_bool(scsi, "enabled", true))
        reply_refused(r, 409, "Cannot attach Virtual Disk. VirtIO-SCSI is disabled for the VM.");
    else if (!strcmp(interface, "spapr_vscsi"))
        reply_refused(r, 409,
                      "Cannot attach Virtual Disk. The disk interface is not supported by "
                      "the VM OS: other.");
    return r->status == 0;
}

static const struct data_center *dc_of_disk(const struct engine *e, const struct disk *d)
{
    const struct vm *owner = model_disk_owner(&e->model, d);
    return d->sd ? d->sd->dc : (owner ? owner->cluster->dc : NULL);
}

static bool check_vm(struct request *r, const struct vm *vm, const char *verb)
{
    if (!vms_check_lock(r, vm, verb))
        return false;
    if (vm->status != VM_UP && vm->status != VM_PAUSED && vm->status != VM_DOWN)
        reply_refused(r, 409, "Cannot %s because the VM is in %s status.", verb,
                      vm_status_name(vm->status));
    const struct snapshot *s;
    VEC_EACH(&vm->snapshots, s)
    if (r->status == 0 && s->status == SNAPSHOT_IN_PREVIEW)
        reply_refused(r, 409, "Cannot %s. VM is previewing a Snapshot.", verb);
    return r->status == 0;
}

/* The snapshot and its volume of the disk; false: refused. */
static bool check_snapshot(struct engine *e, struct request *r, const struct disk *d,
                           const char *snapshot_id, const struct volume **ret)
{
    const struct vm *owner = model_disk_owner(&e->model, d);
    const struct snapshot *s = owner ? vm_snapshot(owner, snapshot_id) : NULL;
    *ret = s ? disk_volume_in(d, snapshot_id) : NULL;
    if (!s || !*ret)
        reply_refused(r, 400, "Cannot attach Virtual Disk. The VM's Snapshot doesn't exist.");
    else if (s->active)
        reply_refused(r, 400, "Cannot attach Virtual Disk. The snapshot is the active one.");
    else if (s->status != SNAPSHOT_OK)
        reply_refused(
            r, 409,
            "Cannot attach Virtual Disk. The VM is performing an operation on a Snapshot. "
            "Please wait for the operation to finish, and try again.");
    else if ((*ret)->locked) /* by an image transfer of it */
        reply_refused(r, 409,
                      "Cannot attach Virtual Disk: The following disks are locked: %s. "
                      "Please try again in a few minutes.",
                      d->alias);
    return r->status == 0;
}

/* What has to hold for attaching an existing disk. */
static bool check_attach(struct engine *e, struct request *r, const struct vm *vm,
                         const struct disk *d, const char *snapshot_id, const char *interface,
                         const struct volume **ret_volume)
{
    const struct vm *owner = model_disk_owner(&e->model, d);
    if (!check_vm(r, vm, "attach Virtual Disk"))
        return false;
    if (d->busy)
        reply_refused(r, 409,
                      "Cannot attach Virtual Disk. Related operation is currently in "
                      "progress. Please try again later.");
    else if (vm_attachment(vm, d->id))
        reply_refused(r, 409,
                      "Cannot attach Virtual Disk. The disk %s is already attached to VM "
                      "%s.",
                      d->alias, vm->name);
    else if (!snapshot_id && owner && !d->shareable)
        reply_refused(r, 409,
                      "Cannot attach Virtual Disk. The disk %s is already attached to VM "
                      "%s and is not shareable.",
                      d->alias, owner->name);
    else if (dc_of_disk(e, d) != vm->cluster->dc)
        reply_refused(r, 409,
                      "Cannot attach Virtual Disk. The Storage Domain of the disk and the "
                      "VM are in different Data Centers.");
    else if (!snapshot_id && d->status != DISK_OK)
        reply_refused(r, 409,
                      "Cannot attach Virtual Disk: The following disks are locked: %s. "
                      "Please try again in a few minutes.",
                      d->alias);
    else if (d->sd && strcmp(d->sd->status, "active") != 0)
        reply_refused(r, 409,
                      "Cannot attach Virtual Disk. The relevant Storage Domain is "
                      "inaccessible.");
    if (r->status != 0 || (snapshot_id && !check_snapshot(e, r, d, snapshot_id, ret_volume)))
        return false;
    return check_slots(e, r, vm, interface);
}

/* --- Plug and unplug -----------------------------------------------------------------------------
 */

struct late_device {
    struct vm *vm;
    struct attachment *a;
};

/* The device file comes a little after the engine says it is there. */
static void plug_late(struct engine *e, void *arg)
{
    SCOPED_FREE struct late_device *x = arg;
    struct err err = ERR_INIT;
    (void)engine_sleep(e, e->timings.device_ms);
    if (e->stopping || x->a->gone || !x->a->active || !x->vm->block || x->a->plugged)
        x->a->plug_pending = false;
    else {
        if (!storage_plug(e, x->vm, x->a, &err))
            log_err(LOG_LEVEL_WARN, "plug_failed", &err);
        x->a->plug_pending = false;
    }
    engine_changed(e);
}

/* Hot-plugs one attachment. False: the 400 is in the request. */
static bool hot_plug(struct engine *e, struct request *r, struct vm *vm, struct attachment *a)
{
    struct disk *d = a->disk;
    int64_t delay = 0;
    d->busy = true;
    (void)engine_sleep(e, e->timings.attach_ms);
    bool failed = faults_point(e->faults, "hotplug-fail", vm->name, &delay);
    if (failed)
        (void)engine_sleep(e, delay);
    bool missing = !failed && faults_point(e->faults, "device-missing", vm->name, NULL);
    if (!failed && !missing && a->on_host) {
        struct late_device *x = ALLOC_NEW(struct late_device);
        *x = (struct late_device){.vm = vm, .a = a};
        a->plug_pending = true;
        engine_spawn(e, plug_late, x);
    } else if (!failed && !missing) {
        struct err err = ERR_INIT;
        failed = !storage_plug(e, vm, a, &err);
        if (failed)
            log_err(LOG_LEVEL_WARN, "plug_failed", &err);
    }
    d->busy = false;
    a->plugged_ms = engine_mono_ms();
    events_note(e, failed ? EVENT_DISK_PLUG_FAILED : EVENT_DISK_PLUGGED,
                failed ? "error" : "normal", vm, r->correlation_id,
                failed ? "Failed to plug disk %s to VM %s." : "VM %s disk %s was plugged.",
                failed ? d->alias : vm->name, failed ? vm->name : d->alias);
    if (failed)
        reply_refused(r, 400, "Failed to hot-plug disk");
    return !failed;
}

/* Hot-unplugs. False: the 400 is in the request. */
static bool hot_unplug(struct engine *e, struct request *r, struct vm *vm, struct attachment *a)
{
    struct disk *d = a->disk;
    struct err err = ERR_INIT;
    d->busy = true;
    bool early = engine_mono_ms() - a->plugged_ms < e->timings.settle_ms;
    (void)engine_sleep(e, e->timings.detach_ms);
    while (a->plug_pending && engine_sleep_until_changed(e, DEVICE_LATE_MS))
        continue;
    bool busy = early || faults_point(e->faults, "unplug-busy", vm->name, NULL);
    bool ok = !busy && (!a->plugged || storage_unplug(e, vm, a, &err));
    d->busy = false;
    events_note(e, ok ? EVENT_DISK_UNPLUGGED : EVENT_DISK_UNPLUG_FAILED, ok ? "normal" : "error",
                vm, r->correlation_id, "%s disk %s %s VM %s.",
                ok ? "Unplugged" : "Failed to unplug", d->alias, "of", vm->name);
    if (!ok)
        reply_refused(r, 400, "Failed to hot-unplug disk: guest is busy%s%s",
                      err_is_set(&err) ? ": " : "", err_is_set(&err) ? err.message : "");
    return ok;
}

static void detach(struct engine *e, struct vm *vm, struct attachment *a)
{
    a->gone = true;
    a->active = false;
    VEC_REMOVE(&vm->attachments, a);
    VEC_ADD(&e->model.dead_attachments, a);
}

/* --- POST ----------------------------------------------------------------------------------------
 */

static void reply_attached(struct engine *e, struct request *r, const struct vm *vm,
                           const struct attachment *a, int status)
{
    json_t *o = attachment_view(e, vm, a, false);
    if (status == 202)
        disks_add_creation_status(o);
    reply_created(r, status, in_str(o, "href"), o);
}

/* Create a disk and attach it, in one call. */
static void attach_new(struct engine *e, struct request *r, struct vm *vm, const char *interface)
{
    const json_t *body = json_object_get(r->body, "disk");
    if (!check_vm(r, vm, "add Virtual Disk") || !check_slots(e, r, vm, interface))
        return;
    struct disk *d = disks_create(e, r, body, vm_active_snapshot(vm)->id);
    if (!d)
        return;
    struct attachment *a = vms_attach(vm, d, interface, in_bool(r->body, "bootable", false),
                                      in_bool(r->body, "active", false));
    a->pass_discard = in_bool(r->body, "pass_discard", false);
    a->read_only = in_bool(r->body, "read_only", false);
    a->on_host = vm->is_proxy;
    reply_attached(e, r, vm, a, 202);
    if (!a->active || !vm_is_running(vm))
        return;
    /* Plugged when the disk is there. */
    while (d->status == DISK_LOCKED && !d->gone && engine_sleep_until_changed(e, DEVICE_LATE_MS))
        continue;
    if (d->status == DISK_OK && vm->block && !a->gone) {
        struct err err = ERR_INIT;
        if (!storage_plug(e, vm, a, &err))
            log_err(LOG_LEVEL_WARN, "plug_failed", &err);
    }
}

static bool only_one_boot_disk(struct request *r, const struct vm *vm, bool bootable)
{
    const struct attachment *a;
    if (bootable)
        VEC_EACH(&vm->attachments, a)
    if (a->bootable) {
        reply_refused(r, 409,
                      "Cannot attach Virtual Disk. Disk %s in VM %s is already "
                      "marked as boot.",
                      a->disk->alias, vm->name);
        return false;
    }
    return true;
}

static void attach_existing(struct engine *e, struct request *r, struct vm *vm,
                            const char *interface)
{
    const json_t *ref = json_object_get(r->body, "disk");
    const char *snapshot_id = in_ref_id(ref, "snapshot");
    struct disk *d = model_disk(&e->model, in_str(ref, "id"));
    const struct volume *v = NULL;
    bool read_only = in_bool(r->body, "read_only", false);
    if (!d) {
        reply_fault(r, 404, "Operation Failed", "Entity not found: %s", in_str(ref, "id"));
        return;
    }
    if (read_only && !strcmp(interface, "ide")) {
        reply_refused(r, 400,
                      "Cannot attach Virtual Disk. Disk interface IDE doesn't support "
                      "read-only.");
        return;
    }
    if (!only_one_boot_disk(r, vm, in_bool(r->body, "bootable", false)) ||
        !check_attach(e, r, vm, d, snapshot_id, interface, &v))
        return;
    struct attachment *a = vms_attach(vm, d, interface, in_bool(r->body, "bootable", false),
                                      in_bool(r->body, "active", false));
    a->read_only = read_only;
    a->on_host = vm->is_proxy;
    a->pass_discard = in_bool(r->body, "pass_discard", false);
    if (snapshot_id && v) {
        (void)snprintf(a->snapshot_id, sizeof a->snapshot_id, "%s", snapshot_id);
        memcpy(a->volume_id, v->id, sizeof a->volume_id);
    } else if (disk_active_volume(d)) {
        memcpy(disk_active_volume(d)->snapshot_id, vm_active_snapshot(vm)->id, ID_BYTES);
    }
    jobs_describe(r->job, "Attaching Disk %s to VM %s", d->alias, vm->name);
    if (a->active && vm_is_running(vm) && !hot_plug(e, r, vm, a)) {
        if (!a->gone)
            detach(e, vm, a);
        return;
    }
    events_note(e, EVENT_DISK_ATTACHED, "normal", vm, r->correlation_id,
                "Disk %s was successfully attached to VM %s.", d->alias, vm->name);
    if (r->status == 0)
        reply_attached(e, r, vm, a, 201);
}

void attachments_add(struct engine *e, struct request *r)
{
    struct vm *vm = model_vm(&e->model, r->ids[0]);
    const json_t *disk = json_object_get(r->body, "disk");
    const char *interface = in_str(r->body, "interface");
    if (!vm) {
        reply_empty(r, 404);
        return;
    }
    if (!disk) {
        reply_incomplete(r, "DiskAttachment", "disk", "add");
        return;
    }
    if (!interface) {
        reply_incomplete(r, "DiskAttachment", "interface", "add");
        return;
    }
    /* The presence of an id means "attach existing"; the rest of the disk is ignored. */
    if (in_str(disk, "id"))
        attach_existing(e, r, vm, interface);
    else
        attach_new(e, r, vm, interface);
}

/* --- PUT and DELETE ------------------------------------------------------------------------------
 */

static bool change_active(struct engine *e, struct request *r, struct vm *vm, struct attachment *a,
                          bool active)
{
    if (active == a->active)
        return true;
    if (!check_vm(r, vm, active ? "activate Virtual Disk" : "deactivate Virtual Disk"))
        return false;
    if (a->disk->busy) {
        reply_refused(r, 409,
                      "Cannot edit Virtual Disk. Related operation is currently in "
                      "progress. Please try again later.");
        return false;
    }
    a->active = active;
    bool ok = !vm_is_running(vm) || (active ? hot_plug(e, r, vm, a) : hot_unplug(e, r, vm, a));
    if (!ok)
        a->active = !active;
    return ok;
}

void attachments_update(struct engine *e, struct request *r)
{
    struct vm *vm;
    struct attachment *a;
    if (!find(e, r, &vm, &a))
        return;
    const char *interface = in_str(r->body, "interface");
    bool bootable = in_bool(r->body, "bootable", a->bootable);
    const json_t *disk = json_object_get(r->body, "disk");
    const char *backup = in_str(disk, "backup");
    if ((interface && strcmp(interface, a->interface) != 0) || bootable != a->bootable) {
        if (vm_is_running(vm) && a->active) {
            reply_refused(r, 409, "Cannot edit Virtual Disk. At least one of the VMs is not down.");
            return;
        }
        if (bootable && !a->bootable && !only_one_boot_disk(r, vm, true))
            return;
        if (interface)
            (void)snprintf(a->interface, sizeof a->interface, "%s", interface);
        a->bootable = bootable;
    }
    if (backup) {
        if (!a->disk->cow && !strcmp(backup, "incremental")) {
            reply_refused(r, 400,
                          "Cannot edit Virtual Disk. Disk configuration (RAW "
                          "backup-Incremental) is incompatible.");
            return;
        }
        a->disk->incremental = !strcmp(backup, "incremental");
    }
    if (disk && !disk_extend(e, r, a->disk, disk))
        return;
    if (!change_active(e, r, vm, a, in_bool(r->body, "active", a->active)))
        return;
    if (a->gone)
        reply_empty(r, 404);
    else
        reply_json(r, 200, attachment_view(e, vm, a, false));
}

void attachments_remove(struct engine *e, struct request *r)
{
    struct vm *vm;
    struct attachment *a;
    bool detach_only = request_flag(r, "detach_only", true);
    if (!find(e, r, &vm, &a))
        return;
    struct disk *d = a->disk;
    if (!vms_check_lock(r, vm, "detach Virtual Disk"))
        return;
    if (vm->status != VM_UP && vm->status != VM_DOWN) {
        reply_refused(r, 409, "Cannot detach Virtual Disk because the VM is in %s status.",
                      vm_status_name(vm->status));
        return;
    }
    if (d->busy) {
        reply_refused(r, 409,
                      "Cannot detach Virtual Disk. Related operation is currently in "
                      "progress. Please try again later.");
        return;
    }
    if (detach_only && a->snapshot_id[0] == '\0' && d->chain.len > 1) {
        reply_refused(r, 409, "Cannot detach Virtual Disk. The disk %s contains snapshots.",
                      d->alias);
        return;
    }
    jobs_describe(r->job, "Detaching Disk %s from VM %s", d->alias, vm->name);
    if (!detach_only) {
        /* As in the engine: this removes the disk itself, even where the attachment is only that of
         * a snapshot. */
        log_warn("original_disk_deleted", LOG_STR("disk", d->id), LOG_STR("vm", vm->name));
        disks_destroy(e, d, r->correlation_id);
        reply_action_done(r);
        return;
    }
    if (a->active && vm_is_running(vm) && !hot_unplug(e, r, vm, a))
        return;
    if (!a->gone) {
        if (a->snapshot_id[0] == '\0' && disk_active_volume(d))
            disk_active_volume(d)->snapshot_id[0] = '\0';
        detach(e, vm, a);
    }
    events_note(e, EVENT_DISK_DETACHED, "normal", vm, r->correlation_id,
                "Disk %s was successfully detached from VM %s.", d->alias, vm->name);
    reply_action_done(r);
}
