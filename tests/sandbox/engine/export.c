/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VMs cloned from a snapshot, and the export of a VM as a real OVA (a tar of vm.ovf and of its
 * disks as qcow2) into DIR/hosts/HOST/PATH, which stands for the path on that host, or of the same
 * files into DIR/data/DOMAIN/vms/VM of an export domain.
 */
#include "tests/sandbox/engine/export.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/base/file.h"
#include "proto/base/log.h"
#include "tests/sandbox/block/proc.h"
#include "tests/sandbox/engine/disks.h"
#include "tests/sandbox/engine/faults.h"
#include "tests/sandbox/engine/jobs.h"
#include "tests/sandbox/engine/json_out.h"
#include "tests/sandbox/engine/ovf.h"
#include "tests/sandbox/engine/route.h"
#include "tests/sandbox/engine/storage.h"
#include "tests/sandbox/engine/views.h"
#include "tests/sandbox/engine/vms.h"

/* One disk to be written anew. Strings are owned. */
struct image_copy {
    char *from, *to;
    const char *from_format, *to_format; /* static */
    bool exists;                         /* `to` was made before */
};

static void image_copy_free(struct image_copy *c)
{
    free(c->from);
    free(c->to);
    free(c);
}

static const char *format_of(enum block_format format)
{
    return format == BLOCK_QCOW2 ? "qcow2" : "raw";
}

static bool copy_image(const struct image_copy *c, struct err *err)
{
    const char *argv[] = {"qemu-img", "convert",    "-q",    "-U",  "-f", c->from_format,
                          "-O",       c->to_format, c->from, c->to, NULL, NULL};
    if (c->exists) {
        memmove(argv + 3, argv + 2, 9 * sizeof argv[0]);
        argv[2] = "-n";
    }
    return proc_run(argv, NULL, err);
}

/* --- Clone ----------------------------------------------------------------------------------- */
struct clone {
    struct vm *vm;
    struct snapshot *from;
    struct job *job;
    VEC(struct disk) disks;
    VEC(struct image_copy) copies; /* of these disks, in their order */
};

static bool make_disks(struct engine *e, struct clone *c, struct err *err)
{
    bool ok = true;
    for (size_t i = 0; ok && i < c->disks.len; i++) {
        struct disk *d = c->disks.at[i];
        ok = storage_create_base(e, d, NULL, vm_active_snapshot(c->vm)->id, err);
        if (!ok)
            break;
        struct image_copy *copy = c->copies.at[i];
        copy->to = xstrdup(disk_active_volume(d)->path);
        copy->exists = true;
        engine_unlock(e);
        ok = copy_image(copy, err);
        engine_lock(e);
        d->status = DISK_OK;
    }
    return ok;
}

static void drop_clone(struct engine *e, struct clone *c)
{
    struct vm *vm = c->vm;
    while (vm->attachments.len > 0) {
        struct attachment *a = vm->attachments.at[0];
        a->gone = true;
        VEC_REMOVE_AT(&vm->attachments, 0);
        VEC_ADD(&e->model.dead_attachments, a);
        disks_destroy(e, a->disk, "");
    }
    vm->gone = true;
    VEC_REMOVE(&e->model.vms, vm);
    VEC_ADD(&e->model.dead_vms, vm);
}

static void clone_job(struct engine *e, void *arg)
{
    struct clone *c = arg;
    struct err err = ERR_INIT;
    int64_t delay = 0;
    if (faults_point(e->faults, "clone-slow", c->vm->name, &delay))
        (void)engine_sleep(e, delay);
    (void)engine_sleep(e, e->timings.vm_create_ms);
    bool ok = !faults_point(e->faults, "clone-fail", c->vm->name, NULL) && make_disks(e, c, &err);
    if (err_is_set(&err))
        log_err(LOG_LEVEL_WARN, "clone_failed", &err);
    c->from->status = SNAPSHOT_OK;
    c->vm->status = VM_DOWN;
    c->vm->lock = VM_LOCK_FREE;
    if (!ok && !e->stopping)
        drop_clone(e, c);
    jobs_finish(e, c->job, ok);
    engine_changed(e);
    VEC_DONE(&c->copies, image_copy_free);
    free(c->disks.at);
    free(c);
}

/* A disk like that one, locked until its content is there. */
static struct disk *disk_like(struct engine *e, const struct disk *from)
{
    struct disk *d = ALLOC_NEW(struct disk);
    id_new(d->id);
    d->alias = xstrdup(from->alias);
    d->description = xstrdup_or_null(from->description);
    d->size_bytes = from->size_bytes;
    d->cow = from->cow;
    d->sparse = from->sparse;
    d->wipe_after_delete = from->wipe_after_delete;
    d->sd = from->sd;
    d->created_ms = engine_now_ms(e);
    d->hot_mib = 1;
    d->status = DISK_LOCKED;
    VEC_ADD(&e->model.disks, d);
    return d;
}

static void plan_clone(struct engine *e, struct clone *c, const struct vm *from)
{
    const struct attachment *a;
    VEC_EACH(&from->attachments, a)
    {
        const struct volume *v = a->snapshot_id[0] ? NULL : disk_volume_in(a->disk, c->from->id);
        if (!v || !disk_is_snapable(a->disk))
            continue;
        struct disk *d = disk_like(e, a->disk);
        VEC_ADD(&c->disks, d);
        (void)vms_attach(c->vm, d, a->interface, a->bootable, true);
        struct image_copy *copy = ALLOC_NEW(struct image_copy);
        copy->from = xstrdup(v->path);
        copy->from_format = format_of(v->format);
        copy->to_format = d->cow ? "qcow2" : "raw";
        VEC_ADD(&c->copies, copy);
    }
    const struct nic *n;
    VEC_EACH(&from->nics, n)
    (void)vms_add_nic(e, c->vm, n->name, n->interface, NULL, n->profile);
}

static struct snapshot *find_snapshot(const struct engine *e, const char *id, struct vm **ret_vm)
{
    struct vm *vm;
    VEC_EACH(&e->model.vms, vm)
    {
        struct snapshot *s = vm_snapshot(vm, id);
        *ret_vm = vm;
        if (s)
            return s;
    }
    return NULL;
}

void export_clone(struct engine *e, struct request *r, struct cluster *cluster, const char *name)
{
    const json_t *list = in_list(r->body, "snapshots", "snapshot");
    const char *id = in_str(json_array_get(list, 0), "id");
    struct vm *from = NULL;
    struct snapshot *s = id ? find_snapshot(e, id, &from) : NULL;
    if (json_array_size(list) != 1 || !id)
        reply_incomplete(r, "Vm", "snapshots.snapshot.id", "add");
    else if (!s || s->active)
        reply_fault(r, 404, "Operation Failed", "Entity not found: %s", id);
    else if (s->status != SNAPSHOT_OK)
        reply_refused(r, 409,
                      "Cannot add VM. The snapshot %s of VM %s is being used by another command. "
                      "Please try again in a few minutes.",
                      s->description, from->name);
    if (r->status != 0 || !s)
        return;
    struct clone *c = ALLOC_NEW(struct clone);
    c->vm = vms_new(e, NULL, name, cluster);
    c->from = s;
    if (s->vm) {
        json_decref(c->vm->config);
        c->vm->config = json_deep_copy(s->vm);
    }
    vms_apply_config(c->vm, r->body);
    c->vm->status = VM_IMAGE_LOCKED;
    c->vm->lock = VM_LOCK_OTHER;
    s->status = SNAPSHOT_LOCKED;
    VEC_ADD(&e->model.vms, c->vm);
    plan_clone(e, c, from);
    jobs_describe(r->job, "Creating VM %s from Snapshot %s for VM %s", name, s->description,
                  from->name);
    c->job = r->job;
    r->job_continues = true;
    engine_spawn(e, clone_job, c);
    json_t *o = vm_view(e, r, c->vm);
    disks_add_creation_status(o);
    reply_created(r, 202, in_str(o, "href"), o);
}

/* --- Export ---------------------------------------------------------------------------------- */
struct export
{
    struct vm *vm;
    struct job *job;
    char *stage;  /* directory of the files */
    char *target; /* the OVA; NULL = the stage is the target itself */
    char *ovf;
    VEC(struct image_copy) copies;
};

static void export_free(struct export *x)
{
    VEC_DONE(&x->copies, image_copy_free);
    free(x->stage);
    free(x->target);
    free(x->ovf);
    free(x);
}

static bool pack(const struct export *x, struct err *err)
{
    SCOPED_FREE char *temp = xasprintf("%s.tmp", x->target);
    const char *argv[] = {"tar", "-C", x->stage, "-cf", temp, ".", NULL};
    if (!proc_run(argv, NULL, err))
        return false;
    return rename(temp, x->target) == 0 || err_set_errno(err, errno, "rename '%s'", temp);
}

static void drop_stage(const struct export *x)
{
    const char *argv[] = {"rm", "-rf", x->stage, NULL};
    struct err err = ERR_INIT;
    if (!proc_run(argv, NULL, &err))
        log_err(LOG_LEVEL_WARN, "stage_not_removed", &err);
}

static bool write_all(const struct export *x, struct err *err)
{
    SCOPED_FREE char *ovf = xasprintf("%s/vm.ovf", x->stage);
    if (!file_make_dirs(x->stage, 0755, err) ||
        !file_write_atomic(AT_FDCWD, ovf, x->ovf, strlen(x->ovf), 0644, err))
        return false;
    const struct image_copy *c;
    VEC_EACH(&x->copies, c)
    if (!copy_image(c, err))
        return false;
    return !x->target || pack(x, err);
}

static void export_job(struct engine *e, void *arg)
{
    struct export *x = arg;
    struct err err = ERR_INIT;
    int64_t delay = 0;
    if (faults_point(e->faults, "export-slow", x->vm->name, &delay))
        (void)engine_sleep(e, delay);
    (void)engine_sleep(e, e->timings.vm_create_ms);
    bool ok = !faults_point(e->faults, "export-fail", x->vm->name, NULL);
    if (ok) {
        engine_unlock(e);
        ok = write_all(x, &err);
        engine_lock(e);
    }
    if (err_is_set(&err))
        log_err(LOG_LEVEL_WARN, "export_failed", &err);
    if (x->target || !ok)
        drop_stage(x);
    events_note(e, ok ? EVENT_EXPORTED : EVENT_EXPORT_FAILED, ok ? "normal" : "error", x->vm, "",
                ok ? "Vm %s was exported successfully." : "Failed to export Vm %s.", x->vm->name);
    x->vm->status = VM_DOWN;
    x->vm->lock = VM_LOCK_FREE;
    jobs_finish(e, x->job, ok);
    engine_changed(e);
    export_free(x);
}

/* The OVA's path, or NULL when it is refused. */
static char *check_host(struct engine *e, struct request *r)
{
    const char *key = in_ref_any(r->body, "host"), *directory = in_str(r->body, "directory");
    const char *file = in_str(r->body, "filename");
    const struct host *host = NULL, *h;
    VEC_EACH(&e->model.hosts, h)
    if (key && (!strcmp(h->id, key) || !strcmp(h->name, key)))
        host = h;
    struct stat st;
    SCOPED_FREE char *dir = xasprintf("%s/hosts/%s/%s", e->opts.dir, host ? host->name : "",
                                      directory ? directory : "");
    char *path = xasprintf("%s/%s", dir, file ? file : "");
    if (!directory || !file || directory[0] != '/' || strchr(file, '/'))
        reply_incomplete(r, "Action", "directory, filename", "exportToPathOnHost");
    else if (!host)
        reply_fault(r, 404, "Operation Failed", "Entity not found: %s", key);
    else if (host->down)
        reply_refused(r, 409, "Cannot export VM. Host %s is not up.", host->name);
    else if (stat(dir, &st) != 0 || !S_ISDIR(st.st_mode))
        reply_refused(r, 409, "Cannot export VM. Invalid target folder: %s on Host.", directory);
    else if (stat(path, &st) == 0)
        reply_refused(r, 409, "Cannot export VM. The file %s/%s exists already.", directory, file);
    if (r->status == 0)
        return path;
    free(path);
    return NULL;
}

static bool check_domain(struct engine *e, struct request *r, char **ret_dir)
{
    const char *key = in_ref_any(r->body, "storage_domain");
    const struct storage_domain *sd = key ? model_sd(&e->model, key) : NULL;
    if (!sd)
        reply_fault(r, 404, "Operation Failed", "Entity not found: %s", key ? key : "");
    else if (!sd->is_export)
        reply_refused(r, 409,
                      "Cannot export VM. The target Storage Domain is not an Export Domain.");
    else if (strcmp(sd->status, "active") != 0)
        reply_refused(r, 409, "Cannot export VM. The relevant Storage Domain is inaccessible.");
    if (r->status != 0)
        return false;
    *ret_dir = xasprintf("%s/data/%s/vms/%s", e->opts.dir, sd->id, r->ids[0]);
    return true;
}

void vm_export(struct engine *e, struct request *r)
{
    struct vm *vm = model_vm(&e->model, r->ids[0]);
    if (!vm) {
        reply_empty(r, 404);
        return;
    }
    if (!vms_check_lock(r, vm, "export VM"))
        return;
    if (vm->status != VM_DOWN) {
        reply_refused(r, 409, "Cannot export VM. VM is not down.");
        return;
    }
    char *target = NULL, *stage = NULL;
    if (json_object_get(r->body, "host")) {
        target = check_host(e, r);
        stage = xasprintf("%s/r/export-%.8s", e->opts.dir, vm->id);
    } else {
        (void)check_domain(e, r, &stage);
    }
    if (r->status != 0) {
        free(stage);
        return;
    }
    struct export *x = ALLOC_NEW(struct export);
    x->vm = vm;
    x->job = r->job;
    r->job_continues = true;
    x->stage = stage;
    x->target = target;
    x->ovf = ovf_write(e, vm, vm_active_snapshot(vm)->id);
    const struct attachment *a;
    VEC_EACH(&vm->attachments, a)
    {
        const struct volume *v = disk_active_volume(a->disk);
        struct image_copy *c = ALLOC_NEW(struct image_copy);
        c->from = xstrdup(v->path);
        c->from_format = format_of(v->format);
        c->to = xasprintf("%s/%s", stage, a->disk->id);
        c->to_format = "qcow2";
        VEC_ADD(&x->copies, c);
    }
    vm->status = VM_IMAGE_LOCKED;
    vm->lock = VM_LOCK_OTHER;
    jobs_describe(r->job, target ? "Exporting VM %s as an OVA to %s" : "Exporting VM %s to %s",
                  vm->name, target ? target : stage);
    engine_spawn(e, export_job, x);
    reply_action_done(r);
}
