/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/step/engine_backup.h"

#include <string.h>

#include "proto/base/alloc.h"
#include "worker/ovirt/backup.h"
#include "worker/ovirt/snapshot.h"
#include "worker/step/backup.h"

enum { END_LIMIT_MS = 30 * 60 * 1000 };

void engine_snapshot_handle(void *ctx, const char *vm_id, const char *snapshot_id)
{
    struct task_run *run = ctx;
    SCOPED_FREE char *name = xasprintf(HANDLE_BACKUP_SNAPSHOT "%s", snapshot_id);
    if (!handles_get(&run->handles, name))
        run_handle_set(run, name, vm_id);
}

/* Before the end the backup names its snapshot. One that fails forgets it, and there the engine's
 * clock tells: it makes one backup of a VM at a time, so a snapshot that it took for a backup
 * between this one's beginning and end is this one's. */
static bool find_unnamed(struct task_run *run, const char *vm_id, const struct ovirt_backup *failed,
                         engine_snapshot_fn found, void *ctx, struct err *err)
{
    struct ovirt_snapshots list = {0};
    if (failed->time_ms == 0 || failed->changed_ms == 0)
        return true; /* of an engine that tells no times */
    if (!ovirt_snapshots_list(run->session, vm_id, OVIRT_BACKUP_SNAPSHOT, &list, err))
        return false;
    for (size_t i = 0; i < list.count; i++) {
        const struct ovirt_snapshot *s = &list.v[i];
        if (strcmp(s->description, OVIRT_BACKUP_SNAPSHOT) == 0 && s->time_ms >= failed->time_ms &&
            s->time_ms <= failed->changed_ms)
            found(ctx, vm_id, s->id);
    }
    ovirt_snapshots_done(&list);
    return true;
}

/* True also when it is not there any more; ret->id is NULL then. */
static bool look(struct task_run *run, const char *vm_id, const char *backup_id,
                 struct ovirt_backup *ret, struct err *err)
{
    *ret = (struct ovirt_backup){0};
    if (ovirt_backup_get(run->session, vm_id, backup_id, ret, err))
        return true;
    bool gone = err->code == ERR_NOT_FOUND;
    if (gone)
        err_clear(err);
    return gone;
}

/* Tell of the snapshot, if there may be one. */
static bool tell(struct task_run *run, const char *vm_id, const struct ovirt_backup *b,
                 engine_snapshot_fn found, void *ctx, struct err *err)
{
    if (b->id && b->snapshot)
        found(ctx, vm_id, b->snapshot);
    return !b->id || b->snapshot || b->phase != OVIRT_BACKUP_FAILED ||
           find_unnamed(run, vm_id, b, found, ctx, err);
}

bool engine_backup_end(struct task_run *run, const char *vm_id, const char *backup_id,
                       engine_snapshot_fn found, void *ctx, struct err *err)
{
    struct ovirt_backup now;
    if (!look(run, vm_id, backup_id, &now, err))
        return false;
    int64_t limit_ms = END_LIMIT_MS;
    if (now.snapshot && run->settings->merge_wait_s * 1000 > limit_ms)
        limit_ms = run->settings->merge_wait_s * 1000;
    bool ok = tell(run, vm_id, &now, found, ctx, err);
    bool over = !now.id || now.phase == OVIRT_BACKUP_DONE || now.phase == OVIRT_BACKUP_FAILED;
    ovirt_backup_done(&now);
    if (!ok || over)
        return ok;
    /* It may have taken its snapshot, or have failed, since. */
    ok = ovirt_backup_end(run->session, vm_id, backup_id, limit_ms, err) &&
         look(run, vm_id, backup_id, &now, err) && tell(run, vm_id, &now, found, ctx, err);
    ovirt_backup_done(&now);
    return ok;
}

bool engine_snapshot_remove(struct task_run *run, const char *vm_id, const char *snapshot_id,
                            struct err *err)
{
    struct ovirt_merge how = {.limit_ms = run->settings->merge_wait_s * 1000,
                              .locked_ms = run->settings->merge_wait_s * 1000,
                              .failed = merge_retried};
    return ovirt_snapshot_delete(run->session, vm_id, snapshot_id, OVIRT_BACKUP_SNAPSHOT, &how,
                                 err) ||
           err_wrap(err, "snapshot %s, which the engine took for a backup", snapshot_id);
}

bool engine_snapshots_remove(struct task_run *run, struct err *err)
{
    size_t failed = 0;
    const struct wire_handle *h;
    while ((h = handles_next(&run->handles, HANDLE_BACKUP_SNAPSHOT, failed))) {
        SCOPED_FREE char *name = xstrdup(h->name);
        SCOPED_FREE char *vm = xstrdup(h->value);
        struct err one = ERR_INIT;
        if (engine_snapshot_remove(run, vm, name + strlen(HANDLE_BACKUP_SNAPSHOT), &one)) {
            run_handle_drop(run, name);
            continue;
        }
        err_keep_first(err, &one);
        if (one.code == ERR_LEASE_LOST)
            return false;
        failed++;
    }
    return failed == 0;
}
