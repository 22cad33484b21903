/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/step/cleanup.h"

#include <string.h>

#include "proto/base/alloc.h"
#include "proto/base/id.h"
#include "proto/base/log.h"
#include "worker/ovirt/attachment.h"
#include "worker/ovirt/backup.h"
#include "worker/ovirt/snapshot.h"
#include "worker/ovirt/transfer.h"
#include "worker/ovirt/vm.h"
#include "worker/step/engine_backup.h"
#include "worker/step/holders.h"
#include "worker/step/made.h"
#include "worker/step/strays.h"
#include "worker/step/thaw.h"
#include "worker/store/store.h"
#include "worker/store/upkeep.h"

enum { DETACH_LIMIT_MS = 15 * 60 * 1000 };

struct cleanup {
    bool vm_stands; /* the restore was complete: its disks are the user's */
    bool vm_open;   /* nobody knows */
    bool vm_gone;   /* the half-made VM was removed: what it held is nobody's */
    bool has_holders;
    struct holders holders; /* read when the first disk needs it */
};

void *cleanup_new(struct task_run *run, struct err *err)
{
    if (!run->offer->cleanup_task || !id_is_valid(run->offer->cleanup_task) ||
        run->offer->cleanup.count == 0) {
        err_set(err, ERR_BAD_MESSAGE, 0,
                "a cleanup task must name the task that left something behind, and what");
        return NULL;
    }
    return ALLOC_NEW(struct cleanup);
}

void cleanup_free(void *state)
{
    struct cleanup *c = state;
    if (!c)
        return;
    holders_done(&c->holders);
    free(c);
}

static bool clean_transfer(struct task_run *run, const struct wire_leftover *l, struct err *err)
{
    if (!l->id)
        return err_set(err, ERR_BAD_MESSAGE, 0, "a transfer needs an id");
    return ovirt_transfer_cancel(run->session, l->id, DETACH_LIMIT_MS, err);
}

/* The engine's own backup, if it is of that task. */
static bool clean_backup(struct task_run *run, const struct wire_leftover *l, struct err *err)
{
    if (!l->vm || !l->id)
        return err_set(err, ERR_BAD_MESSAGE, 0, "a backup needs a VM and an id");
    struct ovirt_backup found = {0};
    if (!ovirt_backup_get(run->session, l->vm, l->id, &found, err)) {
        if (err->code != ERR_NOT_FOUND)
            return false;
        err_clear(err);
        return engine_snapshots_remove(run, err); /* of an earlier attempt of this clean-up */
    }
    bool ours = marker_is_ours(found.description, run->offer->cleanup_task);
    ovirt_backup_done(&found);
    if (!ours)
        return err_set(err, ERR_REFUSED, 0, "backup %s of VM %s is not one of task %s", l->id,
                       l->vm, run->offer->cleanup_task);
    /* What the engine took for it is held as long as it is there: the backup is forgotten. */
    return engine_backup_end(run, l->vm, l->id, engine_snapshot_handle, run, err) &&
           engine_snapshots_remove(run, err);
}

static bool clean_backup_snapshot(struct task_run *run, const struct wire_leftover *l,
                                  struct err *err)
{
    if (!l->vm || !l->id)
        return err_set(err, ERR_BAD_MESSAGE, 0, "a backup's snapshot needs a VM and an id");
    return engine_snapshot_remove(run, l->vm, l->id, err);
}

/* Take the disk off the proxy. The VM that owns the disk is not a proxy of it: never from there. */
static bool clean_attachment(struct task_run *run, const struct wire_leftover *l, struct err *err)
{
    if (!l->vm || !l->id)
        return err_set(err, ERR_BAD_MESSAGE, 0, "an attachment needs a VM and a disk");
    if (run->offer->vm && strcmp(run->offer->vm, l->vm) == 0)
        return err_set(err, ERR_REFUSED, 0, "disk %s is not detached from its own VM %s", l->id,
                       l->vm);
    return ovirt_detach(run->session, l->vm, l->id, DETACH_LIMIT_MS, err);
}

static bool clean_snapshot(struct task_run *run, const struct wire_leftover *l, struct err *err)
{
    if (!l->vm || !l->id)
        return err_set(err, ERR_BAD_MESSAGE, 0, "a snapshot needs a VM and an id");
    thaw_in_case(run, l->vm);
    SCOPED_FREE char *prefix = marker_of_task(run->offer->cleanup_task);
    struct ovirt_merge how = {.limit_ms = run->settings->merge_wait_s * 1000};
    if (strcmp(l->id, WIRE_LEFTOVER_ALL) == 0)
        return ovirt_snapshots_delete_marked(run->session, l->vm, prefix, &how, err);
    return strays_end_transfers(run, l->vm, l->id, err) &&
           ovirt_snapshot_delete(run->session, l->vm, l->id, prefix, &how, err);
}

static bool clean_vm(struct task_run *run, const struct wire_leftover *l, struct err *err)
{
    const char *vm = l->id ? l->id : l->vm;
    if (!vm)
        return err_set(err, ERR_BAD_MESSAGE, 0, "a VM needs an id");
    struct cleanup *c = run->state;
    if (made_vm_remove(run, vm, run->offer->cleanup_task, err)) {
        c->vm_gone = true;
        return true;
    }
    if (err->code == ERR_REFUSED)
        c->vm_stands = true;
    else
        c->vm_open = true;
    return false;
}

static bool clean_clone(struct task_run *run, const struct wire_leftover *l, struct err *err)
{
    if (!l->vm || !l->id)
        return err_set(err, ERR_BAD_MESSAGE, 0, "a clone needs an id and a name");
    SCOPED_FREE char *id = NULL;
    const char *task = run->offer->cleanup_task;
    if (!made_clone_find(run, l->vm, l->id, task, &id, err))
        return false;
    return !id || (made_clone_mark(run, id, task, err) && made_vm_remove(run, id, task, err));
}

static bool is_listed(const struct task_run *run, const char *vm, const char *disk)
{
    const struct wire_leftovers *left = &run->offer->cleanup;
    for (size_t i = 0; i < left->count; i++) {
        const struct wire_leftover *l = &left->v[i];
        if (strcmp(l->kind, "attachment") == 0 && l->vm && l->id && strcmp(l->vm, vm) == 0 &&
            strcmp(l->id, disk) == 0)
            return true;
    }
    return false;
}

/* The mark on a disk may outlive its restore: when the worker died between the two, or the engine
 * would not change the description. So a disk that hangs on a VM is not removed: it is that VM's,
 * unless the VM is the restore's own half-made one, or a proxy that it is yet to be detached from.
 */
static bool check_unheld(struct task_run *run, const char *disk, struct err *err)
{
    struct cleanup *c = run->state;
    if (!c->has_holders && !holders_read(run, NULL, &c->holders, err))
        return err_wrap(err, "look for VMs that hold disk %s", disk);
    c->has_holders = true;
    size_t at = SIZE_MAX;
    const struct holder *h;
    while ((h = holders_of(&c->holders, disk, &at))) {
        const struct holder_vm *vm = &c->holders.vms[h->vm];
        if (is_listed(run, vm->id, disk) ||
            marker_is_ours(vm->description, run->offer->cleanup_task))
            return err_set(err, ERR_CONFLICT, 0, "disk %s is not removed before it is off VM %s",
                           disk, vm->id);
        return err_set(err, ERR_REFUSED, 0,
                       "disk %s is not removed: VM %s has it, so its restore was complete", disk,
                       vm->id);
    }
    return true;
}

static bool clean_disk(struct task_run *run, const struct wire_leftover *l, struct err *err)
{
    if (!l->id)
        return err_set(err, ERR_BAD_MESSAGE, 0, "a disk needs an id");
    const struct cleanup *c = run->state;
    if (c->vm_stands)
        return err_set(err, ERR_REFUSED, 0, "disk %s is not removed: its VM's restore was complete",
                       l->id);
    if (c->vm_open)
        return err_set(err, ERR_CONFLICT, 0, "disk %s is not removed before its VM", l->id);
    if (!c->vm_gone && !check_unheld(run, l->id, err))
        return false;
    return made_disk_remove(run, l->id, run->offer->cleanup_task, err);
}

/* Nobody writes it any more: say so, for ever. What it has stored is garbage then, and is collected
 * as such. One that has committed after all stands. */
static bool clean_session(struct task_run *run, const struct wire_leftover *l, struct err *err)
{
    if (!l->id)
        return err_set(err, ERR_BAD_MESSAGE, 0, "a session needs an id");
    if (!run->store)
        return err_set(err, ERR_BAD_CONFIG, 0, "this worker has no repository");
    SCOPED_FREE char *prefix = xasprintf("%s.", run->offer->cleanup_task);
    if (strncmp(l->id, prefix, strlen(prefix)) != 0)
        return err_set(err, ERR_REFUSED, 0, "session %s is not one of task %s", l->id,
                       run->offer->cleanup_task);
    bool committed = false;
    if (!run_before_mutation(run, err) || !store_session_revoke(run->store, l->id, &committed, err))
        return false;
    if (committed)
        log_info("session_committed_after_all", LOG_STR("session", l->id));
    return true;
}

/* What another worker has copied for that task, or still does: it cannot commit any more, and if it
 * has, the point goes. */
static bool clean_part(struct task_run *run, const struct wire_leftover *l, struct err *err)
{
    if (!l->id)
        return err_set(err, ERR_BAD_MESSAGE, 0, "a part needs an id");
    if (!run->store)
        return err_set(err, ERR_BAD_CONFIG, 0, "this worker has no repository");
    SCOPED(store_point) struct store_point *point = store_point_open_any(run->store, l->id, err);
    const char *part_of = point ? store_point_info(point)->part_of : NULL;
    /* The clean-up is after the task that gave the part away, or after the part itself. */
    SCOPED_FREE char *own = xasprintf("%s.", run->offer->cleanup_task);
    bool is_ours = part_of && (strcmp(part_of, run->offer->cleanup_task) == 0 ||
                               strncmp(l->id, own, strlen(own)) == 0);
    if (point && !is_ours)
        return err_set(err, ERR_REFUSED, 0, "point %s is not a part of task %s", l->id,
                       run->offer->cleanup_task);
    err_clear(err); /* not there, or damaged: to be deleted all the same */
    bool committed = false;
    return run_before_mutation(run, err) &&
           store_session_revoke(run->store, l->id, &committed, err) &&
           store_part_point_delete(run->store, l->id, err);
}

static const struct {
    const char *kind;
    bool (*clean)(struct task_run *run, const struct wire_leftover *l, struct err *err);
} kinds[] = {
    /* In the order in which they must go: transfers and attachments hold snapshots and disks, a
     * clone that is being made holds its snapshot. */
    {"transfer", clean_transfer},
    {"attachment", clean_attachment},
    {"backup", clean_backup},
    {"backup-snapshot", clean_backup_snapshot},
    {"clone", clean_clone},
    {"snapshot", clean_snapshot},
    {"vm", clean_vm},
    {"disk", clean_disk},
    {"session", clean_session},
    {"part", clean_part},
};

/* True when it is gone, or not ours to remove. */
static bool clean_one(struct task_run *run, size_t kind, const struct wire_leftover *l,
                      struct err *err)
{
    if (kinds[kind].clean(run, l, err)) {
        log_info("leftover_removed", LOG_STR("kind", l->kind), LOG_STR("on", l->vm),
                 LOG_STR("id", l->id));
        return true;
    }
    if (err->code != ERR_REFUSED && err->code != ERR_BAD_MESSAGE)
        return false;
    run_warn_err(run, NULL, err);
    err_clear(err);
    return true;
}

/* What was taken off may come back: a call of a dead worker that the engine was slow with. So, as
 * long as something is held, all that may hold it stays on the list. */
static void keep_holds(struct task_run *run, const bool *listed)
{
    const struct wire_leftovers *left = &run->offer->cleanup;
    for (size_t i = 0; run->left.count > 0 && i < left->count; i++) {
        const struct wire_leftover *l = &left->v[i];
        bool holds = strcmp(l->kind, "attachment") == 0 || strcmp(l->kind, "transfer") == 0;
        if (holds && !listed[i])
            leftovers_add(&run->left, l->kind, l->vm, l->id);
    }
}

/* Taken by the engine for a backup that was to be cleaned up, and not gone yet. */
static void keep_engine_snapshots(struct task_run *run)
{
    const struct wire_handle *h;
    for (size_t i = 0; (h = handles_next(&run->handles, HANDLE_BACKUP_SNAPSHOT, i)); i++)
        leftovers_add(&run->left, "backup-snapshot", h->value,
                      h->name + strlen(HANDLE_BACKUP_SNAPSHOT));
}

/* Once the snapshot has gone no disk of it can be attached any more: one that was in the very
 * moment before is found here. */
static bool look_again(struct task_run *run, struct err *err)
{
    const struct wire_leftovers *left = &run->offer->cleanup;
    bool snapshot = false;
    for (size_t i = 0; i < left->count; i++)
        snapshot = snapshot || strcmp(left->v[i].kind, "snapshot") == 0;
    for (size_t i = 0; snapshot && i < left->count; i++) {
        const struct wire_leftover *l = &left->v[i];
        bool own = run->offer->vm && l->vm && strcmp(run->offer->vm, l->vm) == 0;
        if (strcmp(l->kind, "attachment") != 0 || !l->vm || !l->id || own ||
            strays_detach_one(run, l->vm, l->id, err))
            continue;
        leftovers_add(&run->left, l->kind, l->vm, l->id);
        return false;
    }
    return true;
}

bool step_cleanup(struct task_run *run, struct err *err)
{
    const struct wire_leftovers *left = &run->offer->cleanup;
    SCOPED_FREE bool *listed = xcalloc(left->count, sizeof *listed);
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
        for (size_t i = 0; i < left->count; i++) {
            const struct wire_leftover *l = &left->v[i];
            if (strcmp(l->kind, kinds[k].kind) != 0)
                continue;
            struct err one = ERR_INIT;
            if (run_check(run, &one) && clean_one(run, k, l, &one))
                continue;
            leftovers_add(&run->left, l->kind, l->vm, l->id);
            listed[i] = true;
            if (one.code == ERR_LEASE_LOST || !err_is_set(err)) {
                err_clear(err);
                *err = one;
            }
            if (one.code == ERR_LEASE_LOST)
                return false;
        }
    }
    keep_holds(run, listed);
    keep_engine_snapshots(run);
    return !err_is_set(err) && look_again(run, err);
}
