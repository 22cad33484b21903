/* SPDX-License-Identifier: Apache-2.0 */
/*
 * May this VM be backed up now, by this worker? Everything that can be known before the first
 * mutation is asked here, so that a refusal costs nothing: engine version, place, state of the VM,
 * its snapshots, each disk, free space. What an earlier attempt left is taken over or removed.
 */
#include <string.h>

#include "proto/base/alloc.h"
#include "proto/base/log.h"
#include "worker/step/attached.h"
#include "worker/step/backup.h"
#include "worker/step/checks.h"
#include "worker/step/strays.h"

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

bool backup_check_snapshots(struct task_run *run, struct backup *b, struct err *err)
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
        ok = check_foreign_snapshot(&b->vm, s, run->offer->task, err);
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

/* The path of a disk, into the plan; false when it has none. */
static bool plan_disk(const struct task_run *run, struct backup *b, const struct ovirt_disk *d,
                      bool checkpoints, const char *cbt_obstacle, struct path_choice *ret)
{
    struct path_facts facts = {
        .asked = b->opts.path,
        .has_checkpoints = checkpoints,
        .can_cbt = !cbt_obstacle,
        .cbt_obstacle = cbt_obstacle,
        .fit = d->fit,
        .size_bytes = d->provisioned_bytes,
        .used_bytes = d->actual_bytes,
        .map_min_bytes = run->settings->map_min_bytes,
    };
    path_rates_of(&run->offer->rates, facts.rates);
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
    const char *obstacle =
        path_cbt_obstacle(b->opts.path, &b->site.version, b->vm.status, &b->disks);
    if (!check_cbt(&b->opts, &b->vm, obstacle, err))
        return false;
    b->plan = xcalloc(b->disks.count, sizeof *b->plan);
    for (size_t i = 0; i < b->disks.count; i++) {
        const struct ovirt_disk *d = &b->disks.v[i];
        struct path_choice choice;
        if (plan_disk(run, b, d, checkpoints, obstacle, &choice))
            continue;
        why = choice.why;
        if (!check_not_locked(&b->vm, d, err))
            return false;
        if (b->opts.unsupported == WIRE_UNSUPPORTED_FAIL)
            return err_set(err, ERR_UNSUPPORTED, 0, "disk %s of VM %s: %s", disk_label(d),
                           b->vm.name, why);
        run_warn(run, "disk-skipped", d->id, "disk %s is not backed up: %s", disk_label(d), why);
    }
    b->by_cbt = b->plan_count > 0 && path_is_engines(b->plan[0].path); /* then all are */
    b->hybrid = b->by_cbt && b->plan[0].path == BACKUP_HYBRID;
    return check_disk_count(&b->vm, b->plan_count, why, err);
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

static bool check_space(struct task_run *run, struct backup *b, struct err *err)
{
    uint64_t free_bytes = 0;
    if (!store_free_space(run->store, &free_bytes, err) ||
        !check_store_space(run->settings, free_bytes, err))
        return false;
    if (!ovirt_storage_domains_list(run->session, b->site.datacenter_id, &b->domains, err))
        return false;
    for (size_t i = 0; i < b->plan_count; i++) {
        const char *id = b->plan[i].disk->storage_domain_id;
        const struct ovirt_storage_domain *sd =
            id ? ovirt_storage_domains_find(&b->domains, id) : NULL;
        if (sd && !check_domain(run->settings, sd, err))
            return false;
    }
    return true;
}

bool backup_check_vm(struct task_run *run, struct backup *b, struct err *err)
{
    return site_load(run, &b->site, err) &&
           ovirt_vm_get(run->session, run->offer->vm, &b->vm, err) &&
           check_place(&b->site, &b->vm, err) && check_status(&b->vm, err);
}

bool step_precheck(struct task_run *run, struct err *err)
{
    struct backup *b = run->state;
    if (!site_load(run, &b->site, err))
        return false;
    /* What a dead attempt began, opened or attached, wherever: it blocks everything that follows.
     */
    if (!transfers_cancel_all(run, err) ||
        (run->offer->attempt > 1 && !strays_end_backups(run, err)) || !step_finalize(run, err) ||
        !ovirt_vm_get(run->session, run->offer->vm, &b->vm, err) ||
        !check_place(&b->site, &b->vm, err) || !check_status(&b->vm, err) ||
        !attached_detach_all(run, b->site.proxy_id, err))
        return false;
    return backup_check_snapshots(run, b, err) && end_stray_transfers(run, err) &&
           check_disks(run, b, err) && check_space(run, b, err);
}
