/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which parts of a disk hold data, asked of its host by an image transfer that is open only for
 * that: a device cannot tell, and would have to be read whole. A host that does not answer costs
 * time, nothing else.
 */
#include "proto/base/log.h"
#include "worker/step/backup.h"

static uint64_t data_bytes(const struct imageio_map *map)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < map->count; i++)
        sum += map->v[i].zero ? 0 : map->v[i].len;
    return sum;
}

static bool is_worth_it(const struct task_run *run, const struct backup_disk *d)
{
    return d->path == BACKUP_ATTACH && d->image_id && d->size_bytes >= run->settings->map_min_bytes;
}

static bool may_go_on(const struct err *err)
{
    return err->code != ERR_CANCELLED && err->code != ERR_LEASE_LOST;
}

/* True also when there is no map; false when the transfer could not be ended: the disk is locked
 * then. */
static bool map_disk(struct task_run *run, struct backup_disk *d, struct err *err)
{
    struct err why = ERR_INIT;
    bool mapped =
        disk_transfer_open(run, d->disk->id, d->image_id, d->size_bytes, &d->transfer, &why) &&
        imageio_map(d->transfer.io, IMAGEIO_ZERO, &d->map, &why);
    if (!mapped && !may_go_on(&why)) {
        *err = why;
        return false; /* the undo ends it */
    }
    if (!mapped)
        run_warn(run, "no-map", d->disk->id,
                 "disk %s is read whole, because its host did not tell which parts hold data: %s",
                 d->disk->id, why.message);
    else
        log_info("disk_mapped", LOG_STR("disk", d->disk->id), LOG_U64("bytes", d->size_bytes),
                 LOG_U64("data", data_bytes(&d->map)), LOG_U64("ranges", d->map.count));
    return mapped ? disk_transfer_finish(run, &d->transfer, err)
                  : disk_transfer_cancel(run, &d->transfer, err);
}

bool step_map(struct task_run *run, struct err *err)
{
    struct backup *b = run->state;
    for (size_t i = 0; i < b->plan_count; i++) {
        if (is_worth_it(run, &b->plan[i]) && !map_disk(run, &b->plan[i], err))
            return err_wrap(err, "map of disk %s", b->plan[i].disk->id);
    }
    return true;
}
