/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/step/strays.h"

#include <string.h>

#include "proto/base/alloc.h"
#include "proto/base/log.h"
#include "worker/ovirt/attachment.h"
#include "worker/ovirt/backup.h"
#include "worker/ovirt/transfer.h"
#include "worker/step/engine_backup.h"

enum { DETACH_LIMIT_MS = 15 * 60 * 1000, CANCEL_LIMIT_MS = 15 * 60 * 1000 };

/* --- Attachments ------------------------------------------------------------------------------ */
/* Borrowed from the journal. */
struct hold {
    const char *vm, *disk;
};
struct holds {
    struct hold *v;
    size_t count;
};

static void note(struct holds *h, const char *vm, const char *disk)
{
    for (size_t i = 0; i < h->count; i++) {
        if (strcmp(h->v[i].vm, vm) == 0 && strcmp(h->v[i].disk, disk) == 0)
            return;
    }
    h->v = xreallocarray(h->v, h->count + 1, sizeof *h->v);
    h->v[h->count++] = (struct hold){.vm = vm, .disk = disk};
}

static struct holds read_journal(const struct task_run *run, const char *disk_id)
{
    const struct wire_journal *journal = &run->offer->journal;
    const size_t prefix = strlen(HANDLE_ATTACHMENT);
    struct holds found = {0};
    for (size_t i = 0; i < journal->count; i++) {
        const struct wire_handles *handles = &journal->v[i].handles;
        for (size_t k = 0; k < handles->count; k++) {
            const struct wire_handle *h = &handles->v[k];
            if (strncmp(h->name, HANDLE_ATTACHMENT, prefix) != 0 ||
                (disk_id && strcmp(h->name + prefix, disk_id) != 0) ||
                (run->offer->vm && strcmp(run->offer->vm, h->value) == 0))
                continue;
            note(&found, h->value, h->name + prefix);
        }
    }
    return found;
}

bool strays_detach_one(struct task_run *run, const char *vm_id, const char *disk_id,
                       struct err *err)
{
    if (!engine_check_id("VM", vm_id, err) || !engine_check_id("disk", disk_id, err))
        return false;
    SCOPED_FREE char *path = xasprintf("vms/%s/diskattachments/%s", vm_id, disk_id);
    json_auto_t *there = NULL;
    if (!engine_get_or_gone(run->session, path, NULL, &there, err))
        return false;
    if (!there)
        return true;
    if (!ovirt_detach(run->session, vm_id, disk_id, DETACH_LIMIT_MS, err))
        return false;
    log_info("stray_detached", LOG_STR("disk", disk_id), LOG_STR("proxy", vm_id));
    return true;
}

bool strays_detach(struct task_run *run, const char *disk_id, struct err *err)
{
    struct holds holds = read_journal(run, disk_id);
    for (size_t i = 0; i < holds.count; i++) {
        const struct hold *h = &holds.v[i];
        struct err one = ERR_INIT;
        if (strays_detach_one(run, h->vm, h->disk, &one))
            continue;
        err_keep_first(err, &one);
        if (one.code == ERR_LEASE_LOST)
            break;
        SCOPED_FREE char *handle = xasprintf(HANDLE_ATTACHMENT "%s", h->disk);
        run_handle_set(run, handle, h->vm);
    }
    free(holds.v);
    return !err_is_set(err);
}

/* --- Snapshots -------------------------------------------------------------------------------- */
bool strays_delete_snapshots(struct task_run *run, const struct ovirt_merge *how, struct err *err)
{
    SCOPED_FREE char *prefix = marker_of_task(run->offer->task);
    if (ovirt_snapshots_delete_marked(run->session, run->offer->vm, prefix, how, err))
        return true;
    if (err->code != ERR_LEASE_LOST)
        run_handle_set(run, HANDLE_SNAPSHOT, WIRE_LEFTOVER_ALL);
    return false;
}

/* --- Transfers -------------------------------------------------------------------------------- */
static bool is_own(const struct task_run *run, const char *transfer)
{
    const struct wire_handle *h;
    for (size_t i = 0; (h = handles_next(&run->handles, HANDLE_TRANSFER, i)); i++) {
        if (strcmp(h->value, transfer) == 0)
            return true;
    }
    return false;
}

static bool end_transfer_of(struct task_run *run, const struct ovirt_open_transfers *open,
                            const struct ovirt_disk *d, struct err *err)
{
    SCOPED_FREE char *id = NULL;
    if (!ovirt_transfer_of_volume(run->session, open, d->id, d->image_id, d->storage_domain_id, &id,
                                  err))
        return false;
    if (!id || is_own(run, id))
        return true;
    if (!ovirt_transfer_cancel(run->session, id, CANCEL_LIMIT_MS, err))
        return false;
    log_info("stray_transfer_ended", LOG_STR("disk", d->id), LOG_STR("transfer", id));
    return true;
}

bool strays_end_transfers(struct task_run *run, const char *vm_id, const char *snapshot_id,
                          struct err *err)
{
    return strays_end_transfers_of(run, vm_id, snapshot_id, NULL, err);
}

bool strays_end_transfers_of(struct task_run *run, const char *vm_id, const char *snapshot_id,
                             const char *disk_id, struct err *err)
{
    struct ovirt_open_transfers open = {0};
    struct ovirt_disks disks = {0};
    if (!ovirt_transfers_open(run->session, &open, err)) {
        /* Who may not look has not opened any: no reason to leave a snapshot. */
        if (err->code != ERR_ENGINE_DENIED)
            return false;
        log_err(LOG_LEVEL_DEBUG, "transfers_not_seen", err);
        err_clear(err);
    }
    bool ok = true;
    if (open.count > 0 && !ovirt_snapshot_disks(run->session, vm_id, snapshot_id, &disks, err)) {
        ok = err->code == ERR_NOT_FOUND;
        if (ok)
            err_clear(err);
    }
    for (size_t i = 0; ok && i < disks.count; i++) {
        if (!disk_id || strcmp(disks.v[i].id, disk_id) == 0)
            ok = end_transfer_of(run, &open, &disks.v[i], err);
    }
    ovirt_disks_done(&disks);
    ovirt_open_transfers_done(&open);
    return ok;
}

/* --- The engine's own backups ----------------------------------------------------------------- */
/* Only snapshots' volumes and the backup's disks can be read of a VM's disks while a backup has
 * locked them; so without a snapshot every download of them is the backup's. With one, nobody can
 * tell, and the engine ends what nobody uses after a minute. */
static bool has_snapshots(struct task_run *run, bool *ret, struct err *err)
{
    struct ovirt_snapshots list = {0};
    if (!ovirt_snapshots_list(run->session, run->offer->vm, NULL, &list, err))
        return false;
    *ret = false;
    for (size_t i = 0; i < list.count; i++)
        *ret = *ret || !list.v[i].type || strcmp(list.v[i].type, "active") != 0;
    ovirt_snapshots_done(&list);
    return true;
}

static bool is_in(const struct ovirt_backup_disks *disks, const char *id)
{
    for (size_t i = 0; i < disks->count; i++) {
        if (strcmp(disks->v[i].id, id) == 0)
            return true;
    }
    return false;
}

static bool end_transfers_of_backup(struct task_run *run, const struct ovirt_backup *backup,
                                    struct err *err)
{
    struct ovirt_open_transfers open = {0};
    struct ovirt_backup_disks disks = {0};
    bool others = true;
    /* A hybrid one has the disks' exclusive locks: it alone is read. */
    bool ok = backup->snapshot || has_snapshots(run, &others, err);
    others = others && !backup->snapshot;
    ok = ok &&
         (others || (ovirt_backup_disks(run->session, run->offer->vm, backup->id, &disks, err) &&
                     ovirt_transfers_open(run->session, &open, err)));
    for (size_t i = 0; ok && i < open.count; i++) {
        const struct ovirt_open_transfer *t = &open.v[i];
        if (t->is_upload || !is_in(&disks, t->disk_id) || is_own(run, t->id))
            continue;
        ok = ovirt_transfer_cancel(run->session, t->id, CANCEL_LIMIT_MS, err);
        if (ok)
            log_info("stray_transfer_ended", LOG_STR("disk", t->disk_id),
                     LOG_STR("transfer", t->id));
    }
    ovirt_backup_disks_done(&disks);
    ovirt_open_transfers_done(&open);
    return ok;
}

bool strays_end_backups(struct task_run *run, struct err *err)
{
    struct ovirt_backups list = {0};
    SCOPED_FREE char *prefix = marker_of_task(run->offer->task);
    if (!ovirt_backups_open(run->session, run->offer->vm, prefix, &list, err))
        return false;
    bool ok = true;
    for (size_t i = 0; ok && i < list.count; i++) {
        const struct ovirt_backup *b = &list.v[i];
        if (!marker_is_ours(b->description, run->offer->task) ||
            marker_fence(b->description) >= run->fence)
            continue;
        ok = end_transfers_of_backup(run, b, err) &&
             engine_backup_end(run, run->offer->vm, b->id, engine_snapshot_handle, run, err) &&
             engine_snapshots_remove(run, err);
        if (ok)
            log_info("stray_backup_ended", LOG_STR("backup", b->id));
    }
    ovirt_backups_done(&list);
    return ok;
}

bool strays_may_hold(const struct task_run *run, const struct err *err)
{
    return run->offer->attempt > 1 &&
           (err->code == ERR_CONFLICT || err->code == ERR_ENGINE_REFUSED);
}
