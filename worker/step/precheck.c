/* SPDX-License-Identifier: Apache-2.0 */
/*
 * May this VM be backed up now, by this worker? Everything that can be known before the first
 * mutation is asked here, so that a refusal costs nothing: engine version, place, state of the VM,
 * its snapshots, each disk, free space. What an earlier attempt left is taken over or removed.
 */
#include <inttypes.h>
#include <string.h>

#include "proto/base/alloc.h"
#include "proto/base/log.h"
#include "worker/step/attached.h"
#include "worker/step/backup.h"
#include "worker/step/strays.h"

static bool check_place(struct task_run *run, struct backup *b, struct err *err)
{
    if (strcmp(b->site.proxy_id, b->vm.id) == 0)
        return err_set(err, ERR_OWN_PROXY, 0,
                       "VM %s is the one this worker runs in: another worker must back it up",
                       b->vm.name);
    if (!b->vm.cluster_id || !ovirt_clusters_find(&b->site.clusters, b->vm.cluster_id))
        return err_set(err, ERR_UNSUPPORTED, 0,
                       "VM %s is in another data center than this worker's proxy VM: its disks "
                       "cannot be attached here",
                       b->vm.name);
    if (b->vm.is_hosted_engine)
        return err_set(err, ERR_UNSUPPORTED, 0,
                       "VM %s is the hosted engine: use engine-backup for it", b->vm.name);
    (void)run;
    return true;
}

static bool check_status(const struct ovirt_vm *vm, struct err *err)
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

static bool delete_stray(struct task_run *run, const struct ovirt_snapshot *s, struct err *err)
{
    log_warn("stray_snapshot", LOG_STR("snapshot", s->id), LOG_STR("marker", s->description));
    struct ovirt_merge how = {.limit_ms = run->settings->merge_wait_s * 1000};
    return strays_end_transfers(run, run->offer->vm, s->id, err) &&
           ovirt_snapshot_delete(run->session, run->offer->vm, s->id, s->description, &how, err);
}

/* A snapshot of this very task: take over the one of the highest fence, remove any other. */
static bool adopt(struct task_run *run, const struct ovirt_snapshots *list, struct err *err)
{
    const struct ovirt_snapshot *best = NULL;
    for (size_t i = 0; i < list->count; i++) {
        const struct ovirt_snapshot *s = &list->v[i];
        if (marker_is_ours(s->description, run->offer->task) &&
            (!best || marker_fence(s->description) > marker_fence(best->description)))
            best = s;
    }
    if (!best) {
        run_handle_drop(run, HANDLE_SNAPSHOT);
        return true;
    }
    const char *known = handles_get(&run->handles, HANDLE_SNAPSHOT);
    if (!known || strcmp(known, best->id) != 0)
        run_handle_set(run, HANDLE_SNAPSHOT, best->id);
    for (size_t i = 0; i < list->count; i++) {
        const struct ovirt_snapshot *s = &list->v[i];
        if (s != best && marker_is_ours(s->description, run->offer->task) &&
            !delete_stray(run, s, err))
            return false;
    }
    return true;
}

static bool check_snapshots(struct task_run *run, struct backup *b, struct err *err)
{
    struct ovirt_snapshots list = {0};
    if (!ovirt_snapshots_list(run->session, b->vm.id, NULL, &list, err))
        return false;
    bool ok = true;
    for (size_t i = 0; ok && i < list.count; i++) {
        const struct ovirt_snapshot *s = &list.v[i];
        bool own = marker_is_ours(s->description, run->offer->task);
        if (!own && marker_is_ours(s->description, NULL))
            run_warn(run, "leftover-snapshot", NULL,
                     "snapshot %s of an earlier task is still there (%s)", s->id, s->description);
        if (!own && s->status && strcmp(s->status, "ok") != 0)
            ok = err_set(err, ERR_CONFLICT, 0,
                         "VM %s: snapshot '%s' (%s), which is not of this task, is '%s': somebody "
                         "else is at work on the VM, and this waits for the end of it",
                         b->vm.name, s->description ? s->description : "", s->id, s->status);
    }
    ok = ok && adopt(run, &list, err);
    ovirt_snapshots_done(&list);
    return ok;
}

/* What an earlier attempt opened and did not live to tell. */
static bool end_stray_transfers(struct task_run *run, struct err *err)
{
    const char *snapshot = handles_get(&run->handles, HANDLE_SNAPSHOT);
    return run->offer->attempt == 1 || !snapshot ||
           strays_end_transfers(run, run->offer->vm, snapshot, err);
}

static const char *disk_label(const struct ovirt_disk *d)
{
    return d->alias ? d->alias : d->id;
}

/* The path of a disk, into the plan; false when it has none. */
static bool plan_disk(const struct task_run *run, struct backup *b, const struct ovirt_disk *d,
                      bool checkpoints, struct path_choice *ret)
{
    struct path_facts facts = {
        .asked = b->opts.path,
        .has_checkpoints = checkpoints,
        .fit = d->fit,
        .size_bytes = d->provisioned_bytes,
        .used_bytes = d->actual_bytes,
        .map_min_bytes = run->settings->map_min_bytes,
    };
    path_choose(&facts, ret);
    if (ret->path == BACKUP_PATHS)
        return false;
    b->plan[b->plan_count++] = (struct backup_disk){
        .disk = d, .size_bytes = d->provisioned_bytes, .path = ret->path, .path_why = ret->why};
    log_info("disk_planned", LOG_STR("disk", d->id), LOG_STR("path", backup_path_name(ret->path)),
             LOG_STR("why", ret->why));
    return true;
}

/* Which disks: fit ones into the plan; others are named, skipped or fatal. */
static bool choose_disks(struct task_run *run, struct backup *b, bool checkpoints, struct err *err)
{
    const char *why = "it has none";
    b->plan = xcalloc(b->disks.count, sizeof *b->plan);
    for (size_t i = 0; i < b->disks.count; i++) {
        const struct ovirt_disk *d = &b->disks.v[i];
        struct path_choice choice;
        if (plan_disk(run, b, d, checkpoints, &choice))
            continue;
        why = choice.why;
        if (choice.fit == OVIRT_DISK_LOCKED)
            return err_set(err, ERR_CONFLICT, 0,
                           "disk %s of VM %s is locked: another task of the engine (a transfer, a "
                           "copy) holds it, and this waits for the end of it",
                           disk_label(d), b->vm.name);
        if (b->opts.unsupported == WIRE_UNSUPPORTED_FAIL)
            return err_set(err, ERR_UNSUPPORTED, 0, "disk %s of VM %s: %s", disk_label(d),
                           b->vm.name, why);
        run_warn(run, "disk-skipped", d->id, "disk %s is not backed up: %s", disk_label(d), why);
    }
    if (b->plan_count == 0)
        return err_set(err, ERR_UNSUPPORTED, 0, "VM %s has no disk that can be backed up: %s",
                       b->vm.name, why);
    if (b->plan_count > WIRE_DISKS_MAX)
        return err_set(err, ERR_TOO_LARGE, 0, "VM %s has %zu disks; at most %d are supported",
                       b->vm.name, b->plan_count, WIRE_DISKS_MAX);
    return true;
}

static bool check_disks(struct task_run *run, struct backup *b, struct err *err)
{
    bool checkpoints = false;
    if (!ovirt_vm_disks(&b->vm, &b->disks, err) ||
        !ovirt_vm_has_checkpoints(run->session, b->vm.id, &checkpoints, err) ||
        !choose_disks(run, b, checkpoints, err))
        return false;
    for (size_t i = 0; i < b->plan_count; i++) {
        if (b->plan[i].path == BACKUP_ATTACH &&
            !attached_check_free(run, &b->site, b->plan[i].disk->id, err))
            return false;
    }
    return true;
}

static bool check_domain(const struct task_run *run, const struct ovirt_storage_domain *sd,
                         struct err *err)
{
    if (sd->status && strcmp(sd->status, "active") != 0)
        return err_set(err, ERR_CONFLICT, 0, "storage domain %s is '%s'", sd->name, sd->status);
    if (sd->available_bytes < run->settings->reserve_domain_bytes)
        return err_set(err, ERR_NO_SPACE, 0,
                       "storage domain %s has %" PRIu64 " MiB free, but a snapshot needs room to "
                       "grow: reserve.storage_domain_mib is %" PRIu64,
                       sd->name, sd->available_bytes >> 20,
                       run->settings->reserve_domain_bytes >> 20);
    return true;
}

static bool check_space(struct task_run *run, struct backup *b, struct err *err)
{
    uint64_t free_bytes = 0;
    if (!store_free_space(run->store, &free_bytes, err))
        return false;
    if (free_bytes < run->settings->reserve_store_bytes)
        return err_set(err, ERR_NO_SPACE, 0,
                       "the repository has %" PRIu64
                       " MiB free; reserve.repository_mib is %" PRIu64,
                       free_bytes >> 20, run->settings->reserve_store_bytes >> 20);
    if (!ovirt_storage_domains_list(run->session, b->site.datacenter_id, &b->domains, err))
        return false;
    for (size_t i = 0; i < b->plan_count; i++) {
        const char *id = b->plan[i].disk->storage_domain_id;
        const struct ovirt_storage_domain *sd =
            id ? ovirt_storage_domains_find(&b->domains, id) : NULL;
        if (sd && !check_domain(run, sd, err))
            return false;
    }
    return true;
}

bool step_precheck(struct task_run *run, struct err *err)
{
    struct backup *b = run->state;
    if (!site_load(run, &b->site, err) ||
        !ovirt_vm_get(run->session, run->offer->vm, &b->vm, err) || !check_place(run, b, err) ||
        !check_status(&b->vm, err))
        return false;
    /* What a dead attempt opened or attached, wherever: it blocks everything that follows. */
    if (!transfers_cancel_all(run, err) || !attached_detach_all(run, b->site.proxy_id, err))
        return false;
    return check_snapshots(run, b, err) && end_stray_transfers(run, err) &&
           check_disks(run, b, err) && check_space(run, b, err);
}
