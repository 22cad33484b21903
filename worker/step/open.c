/* SPDX-License-Identifier: Apache-2.0 */
/* The image transfers of the disks that are read by them. */
#include <string.h>

#include "proto/base/log.h"
#include "worker/copy/transfer.h"
#include "worker/step/backup_copy.h"

/* What changed, where the backup started from a checkpoint. A host that cannot tell after all: read
 * all of it, which is right as well. */
static bool read_changes(struct task_run *run, struct backup_disk *d, struct err *err)
{
    if (imageio_map(d->transfer.io, IMAGEIO_DIRTY, &d->map, err)) {
        transfer_changes(&d->map, d->size_bytes, &d->changed);
        return true;
    }
    if (err->code != ERR_UNSUPPORTED && err->code != ERR_TOO_LARGE)
        return false;
    run_warn(run, "full-backup", d->disk->id,
             "disk %s is read as a whole: its host does not tell what changed: %s", d->disk->id,
             err->message);
    err_clear(err);
    d->by_changes = false;
    return true;
}

/* Without a map all is read: right as well, only slower. */
static bool read_map(struct task_run *run, struct backup_disk *d, struct err *err)
{
    if (d->by_changes && (!read_changes(run, d, err) || d->by_changes))
        return !err_is_set(err);
    if (imageio_map(d->transfer.io, IMAGEIO_ZERO, &d->map, err))
        return true;
    if (err->code != ERR_UNSUPPORTED && err->code != ERR_TOO_LARGE)
        return false;
    run_warn(run, "no-map", d->disk->id, "disk %s is read whole: %s", d->disk->id, err->message);
    err_clear(err);
    return true;
}

static bool open_transfer(struct task_run *run, const struct backup *b, struct backup_disk *d,
                          struct err *err)
{
    const char *backup = handles_get(&run->handles, HANDLE_BACKUP);
    if (b->by_cbt)
        return disk_transfer_open_backup(run, d->disk->id, backup, d->size_bytes, &d->transfer,
                                         err);
    return disk_transfer_open(run, d->disk->id, d->image_id, d->size_bytes, &d->transfer, err);
}

bool backup_open_disk(struct task_run *run, const struct backup *b, struct backup_disk *d,
                      struct err *err)
{
    if (!b->by_cbt && !d->image_id)
        return err_set(err, ERR_ENGINE_PROTOCOL, 0,
                       "the snapshot does not name the volume of disk %s", d->disk->id);
    return (open_transfer(run, b, d, err) && read_map(run, d, err)) ||
           err_wrap(err, "disk %s", d->disk->id);
}

static bool open_all(struct task_run *run, struct backup *b, bool *ret_no_changes, struct err *err)
{
    for (size_t i = 0; i < b->plan_count; i++) {
        struct backup_disk *d = &b->plan[i];
        if (d->path == BACKUP_ATTACH || !backup_is_ours(d))
            continue;
        *ret_no_changes = d->by_changes;
        if (!backup_open_disk(run, b, d, err))
            return false;
    }
    return true;
}

static void forget_all(struct backup *b)
{
    for (size_t i = 0; i < b->plan_count; i++)
        disk_transfer_forget(&b->plan[i].transfer);
}

/* A bitmap that the host does not find shows only now: of a hybrid backup, and of a VM that is
 * down, it is looked for when the transfer opens. The disk cannot be read of that backup then. */
bool step_open(struct task_run *run, struct err *err)
{
    struct backup *b = run->state;
    bool no_changes = false;
    if (open_all(run, b, &no_changes, err))
        return true;
    struct err why = *err;
    if (!no_changes || why.code != ERR_ENGINE_FAULT || !run_check(run, &(struct err)ERR_INIT) ||
        !(b->hybrid || strcmp(b->vm.status, "down") == 0))
        return false;
    err_clear(err);
    return undo_open(run, err) && backup_begin_full(run, b, why.message, err) &&
           open_all(run, b, &no_changes, err);
}

bool undo_open(struct task_run *run, struct err *err)
{
    forget_all(run->state); /* the connections first; the handles name the transfers */
    return transfers_cancel_all(run, err);
}

bool step_close(struct task_run *run, struct err *err)
{
    struct backup *b = run->state;
    for (size_t i = 0; i < b->plan_count; i++) {
        struct err one = ERR_INIT;
        if (!disk_transfer_finish(run, &b->plan[i].transfer, &one))
            err_keep_first(err, &one);
    }
    /* Of an earlier attempt, whose point stands. */
    struct err left = ERR_INIT;
    if (!transfers_cancel_all(run, &left))
        err_keep_first(err, &left);
    return !err_is_set(err);
}
