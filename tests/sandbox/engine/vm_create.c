/* SPDX-License-Identifier: Apache-2.0 */
/* Creating VMs from JSON and from OVF, changing and removing them. */
#include <stdio.h>
#include <string.h>

#include "proto/base/log.h"
#include "tests/sandbox/engine/disks.h"
#include "tests/sandbox/engine/export.h"
#include "tests/sandbox/engine/faults.h"
#include "tests/sandbox/engine/jobs.h"
#include "tests/sandbox/engine/json_out.h"
#include "tests/sandbox/engine/ovf.h"
#include "tests/sandbox/engine/route.h"
#include "tests/sandbox/engine/storage.h"
#include "tests/sandbox/engine/views.h"
#include "tests/sandbox/engine/vms.h"

enum { VM_NAME_MAX = 255 };

struct vm_work {
    struct vm *vm;
    struct job *job;
    char correlation_id[ID_BYTES];
    bool keep_disks;
};

static struct vm_work *work_new(struct request *r, struct vm *vm)
{
    struct vm_work *w = ALLOC_NEW(struct vm_work);
    w->vm = vm;
    w->job = r->job;
    r->job_continues = true;
    (void)snprintf(w->correlation_id, sizeof w->correlation_id, "%s", r->correlation_id);
    return w;
}

/* --- Checks -------------------------------------------------------------------------------------
 */

static bool check_name(const struct engine *e, struct request *r, const char *name,
                       const struct vm *own)
{
    const struct vm *other = model_vm_by_name(&e->model, name);
    if (other && other != own) {
        reply_refused(r, 409,
                      "Cannot %s VM. The VM name is already in use, please choose a unique "
                      "name and try again.",
                      own ? "edit" : "add");
        return false;
    }
    size_t len = strlen(name);
    if (len == 0 || len > VM_NAME_MAX ||
        strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-") != len) {
        reply_refused(r, 400,
                      "Can not add VM. The given name contains special characters. Only "
                      "lower-case and upper-case letters, numbers, '_', '-', '.' are "
                      "allowed.");
        return false;
    }
    return true;
}

static bool check_memory(struct request *r, const json_t *config)
{
    const json_t *policy = json_object_get(config, "memory_policy");
    uint64_t memory = in_u64(config, "memory", 0);
    uint64_t guaranteed = in_u64(policy, "guaranteed", memory);
    uint64_t max = in_u64(policy, "max", memory);
    if (guaranteed > memory)
        reply_refused(r, 409,
                      "Cannot add VM. Physical Memory Guaranteed cannot exceed Memory Size.");
    else if (max < memory)
        reply_refused(r, 409, "Cannot add VM. Maximum Memory cannot be less than Memory Size.");
    return r->status == 0;
}

static struct cluster *read_cluster(struct engine *e, struct request *r)
{
    const char *key = in_ref_any(r->body, "cluster");
    struct cluster *c = key ? model_cluster(&e->model, key) : NULL;
    if (key && !c)
        reply_fault(r, 404, "Operation Failed", "Entity not found: %s", key);
    else if (!key)
        reply_incomplete(r, "Vm", "cluster.id|name", "add");
    return c;
}

/* Only the memory was given: guaranteed and max follow it. */
static void follow_memory(struct vm *vm, const json_t *body)
{
    const json_t *given = json_object_get(body, "memory_policy");
    json_t *policy = json_object_get(vm->config, "memory_policy");
    uint64_t memory = in_u64(vm->config, "memory", 0);
    if (!json_object_get(body, "memory"))
        return;
    if (!json_object_get(given, "guaranteed"))
        out_u64(policy, "guaranteed", memory);
    if (!json_object_get(given, "max"))
        out_u64(policy, "max", memory * 4);
}

/* --- From JSON -----------------------------------------------------------------------------------
 */

static void create_job(struct engine *e, void *arg)
{
    SCOPED_FREE struct vm_work *w = arg;
    (void)engine_sleep(e, e->timings.vm_create_ms);
    w->vm->status = VM_DOWN;
    w->vm->lock = VM_LOCK_FREE;
    jobs_finish(e, w->job, true);
    engine_changed(e);
}

static void reply_vm(struct engine *e, struct request *r, const struct vm *vm, int status)
{
    json_t *o = vm_view(e, r, vm);
    if (status == 202)
        disks_add_creation_status(o);
    reply_created(r, status, in_str(o, "href"), o);
}

static void add_from_json(struct engine *e, struct request *r, struct cluster *cluster)
{
    const char *name = in_str(r->body, "name"), *id = in_str(r->body, "id");
    const char *template = in_ref_any(r->body, "template");
    if (!template)
        reply_incomplete(r, "Vm", "template.id|name", "add");
    else if (strcmp(template, MODEL_BLANK_TEMPLATE_ID) != 0 && strcmp(template, "Blank") != 0)
        reply_fault(r, 404, "Operation Failed", "Entity not found: %s", template);
    else if (id && !id_is_valid(id))
        reply_bad_syntax(e, r);
    else if (id && model_vm(&e->model, id))
        reply_refused(r, 409, "Cannot add VM. VM with the same identifier already exists.");
    if (r->status != 0)
        return;
    struct vm *vm = vms_new(e, id, name, cluster);
    vms_apply_config(vm, r->body);
    follow_memory(vm, r->body);
    if (!check_memory(r, vm->config)) {
        VEC_ADD(&e->model.dead_vms, vm);
        return;
    }
    vm->status = VM_IMAGE_LOCKED;
    vm->lock = VM_LOCK_OTHER;
    VEC_ADD(&e->model.vms, vm);
    jobs_describe(r->job, "Creating VM %s in Cluster %s", vm->name, cluster->name);
    engine_spawn(e, create_job, work_new(r, vm));
    reply_vm(e, r, vm, 201);
}

/* --- From OVF
 * ------------------------------------------------------------------------------------- */

static bool check_macs(const struct engine *e, struct request *r, const struct ovf_vm *ovf)
{
    const struct ovf_nic *n;
    VEC_EACH(&ovf->nics, n)
    {
        const struct vm *vm;
        VEC_EACH(&e->model.vms, vm)
        {
            const struct nic *old;
            VEC_EACH(&vm->nics, old)
            if (!strcasecmp(old->mac, n->mac)) {
                reply_refused(r, 409, "Cannot import VM. MAC Address %s is already in use.",
                              n->mac);
                return false;
            }
        }
    }
    return true;
}

/* A disk that the OVF names is attached if it floats in the VM's data centre; else an event. */
static void attach_from_ovf(struct engine *e, struct vm *vm, const struct ovf_disk *x,
                            const char *correlation_id)
{
    struct disk *d = model_disk(&e->model, x->disk_id);
    bool fits = d && d->status == DISK_OK && !d->busy && d->sd && d->sd->dc == vm->cluster->dc &&
                !model_disk_owner(&e->model, d) && disk_active_volume(d) &&
                !faults_point(e->faults, "ovf-disk-fail", vm->name, NULL);
    if (fits) {
        memcpy(disk_active_volume(d)->snapshot_id, vm_active_snapshot(vm)->id, ID_BYTES);
        (void)vms_attach(vm, d, x->interface, x->bootable, true);
    }
    events_note(e, fits ? EVENT_OVF_DISK_ATTACHED : EVENT_OVF_DISK_NOT_ATTACHED,
                fits ? "normal" : "warning", vm, correlation_id,
                fits ? "VM %s has been imported and disk %s attached to it."
                     : "VM %s has been imported, but disk %s could not be attached to it.",
                vm->name, x->disk_id);
}

static void add_nics_from_ovf(struct engine *e, struct vm *vm, const struct ovf_vm *ovf,
                              bool regenerate)
{
    const struct ovf_nic *n;
    VEC_EACH(&ovf->nics, n)
    {
        struct vnic_profile *p = NULL, *candidate;
        VEC_EACH(&e->model.profiles, candidate)
        if (candidate->network->dc == vm->cluster->dc &&
            !strcmp(candidate->network->name, n->network) &&
            (!p || !strcmp(candidate->name, n->profile)))
            p = candidate;
        struct nic *fresh =
            vms_add_nic(e, vm, n->name, n->interface, regenerate || !n->mac[0] ? NULL : n->mac, p);
        fresh->linked = n->linked;
        fresh->plugged = n->plugged;
    }
}

static void add_from_ovf(struct engine *e, struct request *r, struct cluster *cluster,
                         const char *xml)
{
    struct err err = ERR_INIT;
    bool regenerate = in_bool(json_object_get(r->body, "initialization"), "regenerate_ids", false);
    struct ovf_vm *ovf = ovf_read(xml, &err);
    if (!ovf) {
        reply_refused(r, 400, "Cannot import VM. Failed to read the OVF: %s", err.message);
        return;
    }
    const char *name = in_str(r->body, "name");
    if (!name)
        name = ovf->name;
    if (check_name(e, r, name, NULL) && !regenerate) {
        if (model_vm(&e->model, ovf->id))
            reply_refused(r, 409, "Cannot import VM. VM with the same identifier already exists.");
        else
            (void)check_macs(e, r, ovf);
    }
    if (r->status == 0) {
        struct vm *vm = vms_new(e, regenerate ? NULL : ovf->id, name, cluster);
        json_decref(vm->config);
        vm->config = TAKE(ovf->config);
        if (in_str(r->body, "description"))
            out_str(vm->config, "description", in_str(r->body, "description"));
        vm->status = VM_IMAGE_LOCKED;
        vm->lock = VM_LOCK_OTHER;
        VEC_ADD(&e->model.vms, vm);
        add_nics_from_ovf(e, vm, ovf, regenerate);
        jobs_describe(r->job, "Importing VM %s from configuration", vm->name);
        const struct ovf_disk *d;
        VEC_EACH(&ovf->disks, d)
        attach_from_ovf(e, vm, d, r->correlation_id);
        bool blocking = engine_since(e, 4, 5, 1);
        engine_spawn(e, create_job, work_new(r, vm));
        while (blocking && vm->status == VM_IMAGE_LOCKED && engine_sleep_until_changed(e, 1000))
            continue;
        reply_vm(e, r, vm, blocking ? 201 : 202);
    }
    ovf_vm_free(ovf);
}

void vms_add(struct engine *e, struct request *r)
{
    const json_t *configuration =
        json_object_get(json_object_get(r->body, "initialization"), "configuration");
    const char *xml = in_str(configuration, "data"), *name = in_str(r->body, "name");
    if (!name && !xml) {
        reply_incomplete(r, "Vm", "name", "add");
        return;
    }
    struct cluster *cluster = read_cluster(e, r);
    if (!cluster)
        return;
    if (json_object_get(r->body, "snapshots")) {
        if (name && check_name(e, r, name, NULL))
            export_clone(e, r, cluster, name);
    } else if (xml) {
        add_from_ovf(e, r, cluster, xml);
    } else if (check_name(e, r, name, NULL)) {
        add_from_json(e, r, cluster);
    }
}

/* --- PUT and DELETE
 * ------------------------------------------------------------------------------- */

void vms_update(struct engine *e, struct request *r)
{
    struct vm *vm = model_vm(&e->model, r->ids[0]);
    const char *name = in_str(r->body, "name");
    if (!vm) {
        reply_empty(r, 404);
        return;
    }
    if ((name && !check_name(e, r, name, vm)) || !vms_check_lock(r, vm, "edit VM"))
        return;
    json_t *before = json_deep_copy(vm->config);
    vms_apply_config(vm, r->body);
    follow_memory(vm, r->body);
    if (!check_memory(r, vm->config)) {
        json_decref(vm->config);
        vm->config = before;
        return;
    }
    json_decref(before);
    if (name) {
        free(vm->name);
        vm->name = xstrdup(name);
    }
    reply_json(r, 200, vm_view(e, r, vm));
}

/* The disks float from now on, or go. */
static void release_disks(struct engine *e, struct vm_work *w)
{
    struct vm *vm = w->vm;
    while (vm->attachments.len > 0) {
        struct attachment *a = vm->attachments.at[0];
        struct disk *d = a->disk;
        bool live = a->snapshot_id[0] == '\0';
        a->gone = true;
        VEC_REMOVE_AT(&vm->attachments, 0);
        VEC_ADD(&e->model.dead_attachments, a);
        if (!live)
            continue;
        if (disk_active_volume(d))
            disk_active_volume(d)->snapshot_id[0] = '\0';
        if (!w->keep_disks && disk_is_snapable(d))
            disks_destroy(e, d, w->correlation_id);
    }
}

static void remove_job(struct engine *e, void *arg)
{
    SCOPED_FREE struct vm_work *w = arg;
    struct vm *vm = w->vm;
    (void)engine_sleep(e, e->timings.vm_create_ms);
    release_disks(e, w);
    vm->gone = true;
    VEC_REMOVE(&e->model.vms, vm);
    VEC_ADD(&e->model.dead_vms, vm);
    jobs_finish(e, w->job, true);
    engine_changed(e);
}

void vms_remove(struct engine *e, struct request *r)
{
    struct vm *vm = model_vm(&e->model, r->ids[0]);
    bool keep_disks = request_flag(r, "detach_only", false);
    if (!vm) {
        reply_empty(r, 404);
        return;
    }
    if (!vms_check_lock(r, vm, "remove VM"))
        return;
    const struct vm *holder = model_snapshot_disk_holder(&e->model, vm);
    if (vm->delete_protected)
        reply_refused(r, 409,
                      "Cannot remove VM. Delete protection is enabled. In order to delete, "
                      "disable Delete protection first.");
    else if (vm->status != VM_DOWN)
        reply_refused(r, 409, "Cannot remove VM. VM is running.");
    else if (keep_disks && vm->snapshots.len > 1)
        reply_refused(r, 409, "Cannot remove VM. The disks have snapshots.");
    else if (holder)
        reply_refused(r, 409,
                      "Cannot remove VM. The VM's disk snapshot is attached to another VM: "
                      "%s.",
                      holder->name);
    if (r->status != 0)
        return;
    vm->status = VM_IMAGE_LOCKED;
    vm->lock = VM_LOCK_OTHER;
    jobs_describe(r->job, "Removing VM %s", vm->name);
    struct vm_work *w = work_new(r, vm);
    w->keep_disks = keep_disks;
    engine_spawn(e, remove_job, w);
    reply_action_done(r);
}
