/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/step/checks.h"

#include <inttypes.h>
#include <string.h>

#include "proto/base/alloc.h"

bool check_place(const struct site *site, const struct ovirt_vm *vm, struct err *err)
{
    if (strcmp(site->proxy_id, vm->id) == 0)
        return err_set(err, ERR_OWN_PROXY, 0,
                       "VM %s is the one this worker runs in: another worker must back it up",
                       vm->name);
    if (!vm->cluster_id || !ovirt_clusters_find(&site->clusters, vm->cluster_id))
        return err_set(err, ERR_UNSUPPORTED, 0,
                       "VM %s is in another data center than this worker's proxy VM: its disks "
                       "cannot be attached here",
                       vm->name);
    if (vm->is_hosted_engine)
        return err_set(err, ERR_UNSUPPORTED, 0,
                       "VM %s is the hosted engine: use engine-backup for it", vm->name);
    return true;
}

bool check_status(const struct ovirt_vm *vm, struct err *err)
{
    static const char *const fine[] = {"up", "down", "paused"};
    for (size_t i = 0; i < ARRAY_LEN(fine); i++) {
        if (vm->status && strcmp(vm->status, fine[i]) == 0)
            return true;
    }
    return err_set(
        err, ERR_CONFLICT, 0,
        "VM %s is '%s': a snapshot is possible when it is up, down or paused; this waits "
        "for that",
        vm->name, vm->status ? vm->status : "unknown");
}

bool check_foreign_snapshot(const struct ovirt_vm *vm, const struct ovirt_snapshot *s,
                            const char *own_task, struct err *err)
{
    if ((own_task && marker_is_ours(s->description, own_task)) || !s->status ||
        strcmp(s->status, "ok") == 0)
        return true;
    return err_set(err, ERR_CONFLICT, 0,
                   "VM %s: snapshot '%s' (%s), which is not of this task, is '%s': somebody "
                   "else is at work on the VM, and this waits for the end of it",
                   vm->name, s->description ? s->description : "", s->id, s->status);
}

bool check_domain(const struct step_settings *settings, const struct ovirt_storage_domain *sd,
                  struct err *err)
{
    if (sd->status && strcmp(sd->status, "active") != 0)
        return err_set(err, ERR_CONFLICT, 0, "storage domain %s is '%s'", sd->name, sd->status);
    if (sd->available_bytes < settings->reserve_domain_bytes)
        return err_set(err, ERR_NO_SPACE, 0,
                       "storage domain %s has %" PRIu64 " MiB free, but a snapshot needs room to "
                       "grow: reserve.storage_domain_mib is %" PRIu64,
                       sd->name, sd->available_bytes >> 20, settings->reserve_domain_bytes >> 20);
    return true;
}

bool check_store_space(const struct step_settings *settings, uint64_t free_bytes, struct err *err)
{
    if (free_bytes < settings->reserve_store_bytes)
        return err_set(err, ERR_NO_SPACE, 0,
                       "the repository has %" PRIu64
                       " MiB free; reserve.repository_mib is %" PRIu64,
                       free_bytes >> 20, settings->reserve_store_bytes >> 20);
    return true;
}

bool check_not_attached(const struct ovirt_attachments *of_proxy, const char *disk_id,
                        struct err *err)
{
    if (!ovirt_attachments_find(of_proxy, disk_id))
        return true;
    return err_set(err, ERR_CONFLICT, 0,
                   "disk %s is attached to the proxy VM already, and not by this task", disk_id);
}

const char *disk_label(const struct ovirt_disk *d)
{
    return d->alias ? d->alias : d->id;
}

bool check_not_locked(const struct ovirt_vm *vm, const struct ovirt_disk *d, struct err *err)
{
    if (d->fit != OVIRT_DISK_LOCKED)
        return true;
    return err_set(err, ERR_CONFLICT, 0,
                   "disk %s of VM %s is locked: another task of the engine (a transfer, a "
                   "copy) holds it, and this waits for the end of it",
                   disk_label(d), vm->name);
}

bool check_cbt(const struct wire_backup_opts *opts, const struct ovirt_vm *vm, const char *obstacle,
               struct err *err)
{
    return (opts->path != WIRE_PATH_CBT && opts->path != WIRE_PATH_HYBRID) || !obstacle ||
           err_set(err, ERR_UNSUPPORTED, 0,
                   "VM %s cannot be backed up by the engine's checkpoints: %s", vm->name, obstacle);
}

bool check_disk_count(const struct ovirt_vm *vm, size_t with_path, const char *why_not_the_last,
                      struct err *err)
{
    if (with_path == 0)
        return err_set(err, ERR_UNSUPPORTED, 0, "VM %s has no disk that can be backed up: %s",
                       vm->name, why_not_the_last);
    if (with_path > WIRE_DISKS_MAX)
        return err_set(err, ERR_TOO_LARGE, 0, "VM %s has %zu disks; at most %d are supported",
                       vm->name, with_path, WIRE_DISKS_MAX);
    return true;
}
