/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sandbox/engine/storage.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "proto/base/file.h"
#include "tests/sandbox/engine/guests.h"
#include "tests/sandbox/engine/views.h"

struct storage_domain *storage_default_sd(const struct engine *e, const char *key,
                                          const struct data_center *dc)
{
    struct storage_domain *sd;
    VEC_EACH(&e->model.sds, sd)
    if (!sd->is_export && (!dc || sd->dc == dc) &&
        (!key || !strcmp(sd->id, key) || !strcmp(sd->name, key)))
        return sd;
    return NULL;
}

bool storage_is_block(const struct storage_domain *sd)
{
    return !strcmp(sd->storage_type, "iscsi") || !strcmp(sd->storage_type, "fcp");
}

/* DIR/data/<domain>/images/<disk>/<volume>, as on a file storage domain. */
static char *volume_path(const struct engine *e, const struct disk *d, const char *volume_id)
{
    return xasprintf("%s/data/%s/images/%s/%s", e->opts.dir, d->sd ? d->sd->id : "lun", d->id,
                     volume_id);
}

static struct volume *volume_new(const struct engine *e, const struct disk *d, const char *id,
                                 const char *snapshot_id, enum block_format format)
{
    struct volume *v = ALLOC_NEW(struct volume);
    if (id)
        (void)snprintf(v->id, sizeof v->id, "%s", id);
    else
        id_new(v->id);
    (void)snprintf(v->snapshot_id, sizeof v->snapshot_id, "%s", snapshot_id);
    v->format = format;
    v->path = volume_path(e, d, v->id);
    return v;
}

bool storage_create_base(struct engine *e, struct disk *d, const char *image_id,
                         const char *snapshot_id, struct err *err)
{
    struct volume *v = volume_new(e, d, image_id, snapshot_id, d->cow ? BLOCK_QCOW2 : BLOCK_RAW);
    SCOPED_FREE char *dir = xstrndup(v->path, (size_t)(strrchr(v->path, '/') - v->path));
    if (!file_make_dirs(dir, 0755, err) ||
        !block_volume_create(v->path, v->format, d->size_bytes, NULL, BLOCK_RAW, err)) {
        volume_free(v);
        return false;
    }
    VEC_ADD(&d->chain, v);
    return true;
}

struct volume *storage_plan_overlay(const struct engine *e, const struct disk *d, const char *id,
                                    const char *snapshot_id)
{
    return volume_new(e, d, id, snapshot_id, BLOCK_QCOW2);
}

void storage_delete(struct engine *e, struct disk *d)
{
    struct volume *v;
    VEC_EACH(&d->chain, v)
    (void)unlink(v->path);
    SCOPED_FREE char *dir = volume_path(e, d, "");
    (void)rmdir(dir);
}

uint64_t volume_actual_bytes(const struct volume *v)
{
    uint64_t bytes = 0;
    struct err err = ERR_INIT;
    (void)block_volume_actual_size(v->path, &bytes, &err);
    return bytes;
}

uint64_t disk_actual_bytes(const struct disk *d)
{
    uint64_t bytes = 0;
    const struct volume *v;
    VEC_EACH(&d->chain, v)
    bytes += volume_actual_bytes(v);
    return bytes;
}

/* --- Calls of the block layer, without the lock --------------------------------------------------
 */

bool storage_begin(struct engine *e, struct vm *vm, struct err *err)
{
    if (e->stopping || !vm->block)
        return err_set(err, ERR_CONFLICT, 0, "VM '%s' does not run", vm->name);
    vm->block_users++;
    engine_unlock(e);
    return true;
}

void storage_end(struct engine *e, struct vm *vm)
{
    engine_lock(e);
    vm->block_users--;
    engine_changed(e);
}

/* --- Running VMs --------------------------------------------------------------------------------
 */

static bool fill_block_disk(const struct attachment *a, struct block_disk *out)
{
    const struct volume *v = disk_active_volume(a->disk);
    if (!v || !a->active || a->on_host || a->snapshot_id[0] != '\0')
        return false;
    (void)snprintf(out->id, sizeof out->id, "%s", a->disk->id);
    out->path = v->path;
    out->format = v->format;
    out->read_only = a->read_only;
    return true;
}

bool storage_is_machine(const struct vm *vm)
{
    return vm->is_proxy && vm->guest_kind == GUEST_LINUX;
}

/* "/dev/disk/by-id" names: virtio-blk shows 20 characters of the serial, virtio-scsi all. */
static char *device_name(const struct attachment *a)
{
    if (!strcmp(a->interface, "virtio_scsi"))
        return xasprintf("scsi-0QEMU_QEMU_HARDDISK_%s", a->disk->id);
    if (!strcmp(a->interface, "virtio"))
        return xasprintf("virtio-%.20s", a->disk->id);
    return xasprintf("ata-QEMU_HARDDISK_%.20s", a->disk->id);
}

/* A proxy's own disk shows as a device that is taken: a file of the right size and name that
 * nothing stands behind. Whoever writes to it wrote to the wrong disk. */
static bool show_own_disk(const struct vm *vm, struct attachment *a, struct err *err)
{
    SCOPED_FREE char *name = device_name(a);
    SCOPED_FREE char *path = xasprintf("%s/%s", vm->dev_dir, name);
    (void)unlink(path);
    if (!block_volume_create(path, BLOCK_RAW, a->disk->size_bytes, NULL, BLOCK_RAW, err))
        return err_wrap(err, "proxy's own device");
    free(a->device);
    a->device = TAKE(path);
    return true;
}

/* Without the lock. */
static struct block_host *start_host(const struct engine *e, const struct vm *vm, struct err *err)
{
    SCOPED_FREE char *run_dir = xasprintf("%s/r/h%.8s", e->opts.dir, vm->id);
    if (!storage_is_machine(vm))
        return file_make_dirs(vm->dev_dir, 0755, err) ? block_host_start(run_dir, vm->dev_dir, err)
                                                      : NULL;
    SCOPED_FREE char *kernel = xasprintf("%s/vmlinuz", e->opts.linux_dir);
    SCOPED_FREE char *initrd = xasprintf("%s/proxies/%s/initrd", e->opts.dir, vm->name);
    return block_host_start_guest(
        run_dir, &(struct block_guest){.kernel = kernel, .initrd = initrd, .uuid = vm->id}, err);
}

static bool start_proxy(struct engine *e, struct vm *vm, struct err *err)
{
    engine_unlock(e);
    struct block_host *host = start_host(e, vm, err);
    engine_lock(e);
    if (!host)
        return false;
    vm->proxy = host;
    for (size_t i = 0; i < vm->attachments.len; i++) {
        struct attachment *a = vm->attachments.at[i];
        if (a->plugged && !show_own_disk(vm, a, err))
            return false;
        if (a->active && a->on_host && !storage_plug(e, vm, a, err))
            return false;
    }
    return true;
}

bool storage_start_vm(struct engine *e, struct vm *vm, struct err *err)
{
    SCOPED_FREE struct block_disk *disks = xcalloc(vm->attachments.len + 1, sizeof *disks);
    SCOPED_FREE char *run_dir = xasprintf("%s/r/%.8s", e->opts.dir, vm->id);
    size_t count = 0;
    for (size_t i = 0; i < vm->attachments.len; i++) {
        struct attachment *a = vm->attachments.at[i];
        if (fill_block_disk(a, &disks[count])) {
            a->plugged = true;
            count++;
        }
    }
    engine_unlock(e);
    struct block_vm *block = block_vm_start(run_dir, disks, count, err);
    engine_lock(e);
    if (!block)
        return err_wrap(err, "VM '%s'", vm->name);
    vm->block = block;
    if (vm->is_proxy && !start_proxy(e, vm, err))
        return err_wrap(err, "proxy '%s'", vm->name);
    if (!guests_start(e, vm, err))
        return err_wrap(err, "guest of VM '%s'", vm->name);
    return true;
}

void storage_stop_vm(struct engine *e, struct vm *vm)
{
    while (vm->block_users > 0)
        engine_wait(e);
    struct block_vm *block = TAKE(vm->block);
    struct block_host *proxy = TAKE(vm->proxy);
    struct guest *guest = TAKE(vm->guest);
    vm->frozen = false;
    struct attachment *a;
    VEC_EACH(&vm->attachments, a)
    {
        if (a->device && a->snapshot_id[0] == '\0' && !storage_is_machine(vm))
            (void)unlink(a->device);
        free(a->device);
        a->device = NULL;
        a->plugged = false;
    }
    engine_unlock(e);
    guests_stop(guest);
    block_vm_stop(block);
    block_host_stop(proxy);
    engine_lock(e);
}

static bool plug_into_proxy(struct engine *e, struct vm *vm, struct attachment *a, struct err *err)
{
    const struct volume *v =
        a->snapshot_id[0] ? disk_volume(a->disk, a->volume_id) : disk_active_volume(a->disk);
    if (!v)
        return err_set(err, ERR_NOT_FOUND, 0, "disk '%s' has no such volume", a->disk->alias);
    SCOPED_FREE char *name = device_name(a);
    SCOPED_FREE char *path = xstrdup(v->path);
    struct block_plug_opts opts = {.path = path,
                                   .format = v->format,
                                   .transient = a->snapshot_id[0] != '\0',
                                   .loop = vm->loop_devices,
                                   .bus = !strcmp(a->interface, "virtio") ? BLOCK_VIRTIO
                                                                          : BLOCK_VIRTIO_SCSI,
                                   .disk_id = a->disk->id};
    struct block_host *proxy = vm->proxy;
    if (!storage_begin(e, vm, err))
        return false;
    bool ok = block_host_plug(proxy, name, &opts, err);
    storage_end(e, vm);
    if (ok) {
        free(a->device);
        a->device = xasprintf("%s/%s", vm->dev_dir, name);
        if (storage_is_machine(vm)) { /* it is in there, under a name of its udev's choice */
            free(a->device);
            a->device = TAKE(name);
        }
    }
    return ok;
}

bool storage_plug(struct engine *e, struct vm *vm, struct attachment *a, struct err *err)
{
    bool ok;
    if (a->on_host && vm->proxy) {
        ok = plug_into_proxy(e, vm, a, err);
    } else if (a->snapshot_id[0] != '\0') {
        return err_set(err, ERR_UNSUPPORTED, 0,
                       "VM '%s' is no proxy of the sandbox: it shows no snapshot's disks",
                       vm->name);
    } else {
        struct block_disk disk = {0};
        bool was_active = a->active;
        a->active = true;
        (void)fill_block_disk(a, &disk);
        a->active = was_active;
        SCOPED_FREE char *path = xstrdup(disk.path ? disk.path : "");
        disk.path = path;
        struct block_vm *block = vm->block;
        if (!storage_begin(e, vm, err))
            return false;
        ok = block_vm_plug(block, &disk, err);
        storage_end(e, vm);
        ok = ok && (!vm->is_proxy || show_own_disk(vm, a, err));
    }
    if (ok) {
        a->plugged = true;
        a->plugged_ms = engine_mono_ms();
    }
    return ok;
}

bool storage_unplug(struct engine *e, struct vm *vm, struct attachment *a, struct err *err)
{
    SCOPED_FREE char *name = device_name(a);
    struct block_host *proxy = vm->proxy;
    struct block_vm *block = vm->block;
    bool own = !a->on_host;
    char disk_id[ID_BYTES];
    memcpy(disk_id, a->disk->id, sizeof disk_id);
    if (!storage_begin(e, vm, err))
        return false;
    bool ok = own ? block_vm_unplug(block, disk_id, err) : block_host_unplug(proxy, name, err);
    storage_end(e, vm);
    if (!ok)
        return false;
    if (own && a->device)
        (void)unlink(a->device);
    free(a->device);
    a->device = NULL;
    a->plugged = false;
    return true;
}

bool storage_limit_devices(struct engine *e, uint64_t read_bps, uint64_t write_bps, struct err *err)
{
    for (size_t i = 0; i < e->model.vms.len; i++) {
        struct vm *vm = e->model.vms.at[i];
        struct block_host *proxy = vm->proxy;
        if (!proxy)
            continue;
        if (!storage_begin(e, vm, err))
            return false;
        bool ok = block_host_set_limits(proxy, read_bps, write_bps, err);
        storage_end(e, vm);
        if (!ok)
            return err_wrap(err, "proxy '%s'", vm->name);
    }
    return true;
}
