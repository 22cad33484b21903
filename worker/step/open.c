/* SPDX-License-Identifier: Apache-2.0 */
/* The image transfers of the disks that are read by them. */
#include "proto/base/log.h"
#include "worker/step/backup.h"

/* Without a map all is read: right as well, only slower. */
static bool read_map(struct task_run *run, struct backup_disk *d, struct err *err)
{
    if (imageio_map(d->transfer.io, IMAGEIO_ZERO, &d->map, err))
        return true;
    if (err->code != ERR_UNSUPPORTED && err->code != ERR_TOO_LARGE)
        return false;
    run_warn(run, "no-map", d->disk->id, "disk %s is read whole: %s", d->disk->id, err->message);
    err_clear(err);
    return true;
}

bool step_open(struct task_run *run, struct err *err)
{
    struct backup *b = run->state;
    for (size_t i = 0; i < b->plan_count; i++) {
        struct backup_disk *d = &b->plan[i];
        if (d->path != BACKUP_IMAGEIO)
            continue;
        if (!d->image_id)
            return err_set(err, ERR_ENGINE_PROTOCOL, 0,
                           "the snapshot does not name the volume of disk %s", d->disk->id);
        if (!disk_transfer_open(run, d->disk->id, d->image_id, d->size_bytes, &d->transfer, err) ||
            !read_map(run, d, err))
            return err_wrap(err, "disk %s", d->disk->id);
    }
    return true;
}

static void forget_all(struct backup *b)
{
    for (size_t i = 0; i < b->plan_count; i++)
        disk_transfer_forget(&b->plan[i].transfer);
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
