/* SPDX-License-Identifier: Apache-2.0 */
/* Disks, or ranges of them, from their devices and transfers into the backup's session. */
#include <inttypes.h>
#include <string.h>

#include "proto/base/alloc.h"
#include "proto/base/log.h"
#include "worker/copy/copy.h"
#include "worker/copy/rate.h"
#include "worker/copy/transfer.h"
#include "worker/step/backup_copy.h"
#include "worker/step/parallel.h"

struct job {
    struct task_run *run;
    struct backup *b;
    struct space_watch *space;
    struct backup_disk **disks;
};

/* The disk by its path, and by its map where there is one. */
static struct source *open_source(const struct backup_disk *d, struct err *err)
{
    if (d->path != BACKUP_ATTACH)
        return source_transfer_open(d->transfer.io, &d->map, d->size_bytes);
    struct source *device = source_file_open(d->device, NULL, err);
    if (device && device->size_bytes != d->size_bytes) {
        err_set(err, ERR_DEVICE_MISMATCH, 0,
                "device '%s' has %" PRIu64 " bytes, but the disk has %" PRIu64, d->device,
                device->size_bytes, d->size_bytes);
        source_close(device);
        return NULL;
    }
    return device && d->map.count > 0 ? source_mapped_open(device, &d->map) : device;
}

/* The same within the limits of bandwidth of its storage domain. */
static struct source *open_limited(const struct job *job, const struct backup_disk *d,
                                   const struct copy_opts *copy, struct err *err)
{
    const char *id = d->disk->storage_domain_id;
    const struct ovirt_storage_domain *sd =
        id ? ovirt_storage_domains_find(&job->b->domains, id) : NULL;
    struct rate_gate gate = {.limits = job->run->settings->limits,
                             .domain_id = id,
                             .domain_name = sd ? sd->name : NULL,
                             .stopped = copy->cancelled,
                             .ctx = copy->context};
    return source_limited_open(open_source(d, err), &gate);
}

bool backup_begin_disk(struct backup *b, struct backup_disk *d, struct err *err)
{
    if (d->stored)
        return true;
    struct err why = ERR_INIT; /* a parent that cannot be read costs space, nothing else */
    struct store_point *point = d->by_changes ? b->base : b->parent;
    d->parent = point ? store_disk_open(point, d->disk->id, &why) : NULL;
    if (d->by_changes && !d->parent) {
        *err = why; /* but here it holds what is not read */
        return err_wrap(err, "disk %s", d->disk->id);
    }
    struct store_disk_opts opts = {
        .id = d->disk->id, .size_bytes = d->size_bytes, .parent = d->parent};
    d->stored = store_disk_begin(b->session, &opts, err);
    return d->stored || err_wrap(err, "disk %s", d->disk->id);
}

bool backup_finish_disk(struct backup_disk *d, struct err *err)
{
    if (!store_disk_finish(d->stored, NULL, err))
        return err_wrap(err, "disk %s", d->disk->id);
    store_reader_free(d->parent);
    d->parent = NULL;
    return true;
}

static bool copy_disk(void *ctx, size_t index, const struct copy_opts *inner, struct err *err)
{
    struct job *job = ctx;
    struct backup_disk *d = job->disks[index];
    struct space_guard guard = {.watch = job->space, .inner = inner};
    struct copy_opts copy = space_guard_opts(&guard);
    SCOPED(source) struct source *from = open_limited(job, d, &copy, err);
    if (!from)
        return err_wrap(err, "disk %s", d->disk->id);
    copy.changed = d->by_changes ? &d->changed : NULL;
    copy.only = d->is_shared ? &d->only : NULL;
    struct copy_stats stats = {0};
    if (!backup_begin_disk(job->b, d, err))
        return false;
    if (!copy_backup(from, job->b->session, d->stored, &copy, &stats, err))
        return err_wrap(err, "disk %s", d->disk->id);
    if (job->b->parts.count == 0 && !backup_finish_disk(d, err))
        return false;
    d->read_bytes += (int64_t)stats.data_bytes;
    d->copy_ms += stats.elapsed_ms;
    d->kept_bytes += stats.kept_bytes;
    log_info("disk_copied", LOG_STR("disk", d->disk->id), LOG_U64("bytes", stats.size_bytes),
             LOG_U64("read", stats.data_bytes), LOG_U64("kept", stats.kept_bytes),
             LOG_U64("stored", stats.store.stored_bytes), LOG_I64("ms", stats.elapsed_ms));
    return true;
}

/* ---- which of it */

size_t backup_plan_find(const struct backup *b, const char *disk_id)
{
    size_t i = 0;
    while (i < b->plan_count && strcmp(b->plan[i].disk->id, disk_id) != 0)
        i++;
    return i;
}

bool backup_is_ours(const struct backup_disk *d)
{
    return !d->is_shared || extents_data_bytes(&d->only) > 0;
}

uint64_t backup_bytes_of(const struct backup_disk *d)
{
    return d->is_shared ? extents_data_bytes(&d->only) : d->size_bytes;
}

void backup_set_only(struct backup *b, const struct share_piece *pieces, size_t count)
{
    for (size_t i = 0; i < b->plan_count; i++) {
        b->plan[i].is_shared = true;
        extents_reset(&b->plan[i].only);
    }
    SCOPED_FREE struct share_piece *sorted = xcalloc(count, sizeof *sorted);
    if (count > 0)
        memcpy(sorted, pieces, count * sizeof *sorted);
    share_sort(sorted, count);
    for (size_t i = 0; i < count; i++) {
        struct extents *only = &b->plan[sorted[i].disk].only;
        uint64_t end = only->count > 0
                           ? only->items[only->count - 1].offset + only->items[only->count - 1].len
                           : 0;
        extents_add(only, end, sorted[i].offset - end, false);
        extents_add(only, sorted[i].offset, sorted[i].len_bytes, true);
    }
}

/* ---- all of them */

static void look_at_parts(void *ctx)
{
    struct job *job = ctx;
    parts_look(job->run, &job->b->parts);
}

bool backup_copy_disks(struct task_run *run, struct backup *b, const struct backup_watches *w,
                       struct err *err)
{
    SCOPED_FREE uint64_t *sizes = xcalloc(b->plan_count, sizeof *sizes);
    SCOPED_FREE struct backup_disk **disks = xcalloc(b->plan_count, sizeof *disks);
    struct job job = {.run = run, .b = b, .space = w->space, .disks = disks};
    struct parallel_opts all = {.sizes = sizes, .work = copy_disk, .ctx = &job};
    for (size_t i = 0; i < b->plan_count; i++) {
        struct backup_disk *d = &b->plan[i];
        all.total_bytes += (int64_t)d->size_bytes;
        all.before_bytes += d->read_bytes;
        if (!backup_is_ours(d))
            continue;
        sizes[all.count] = backup_bytes_of(d);
        disks[all.count++] = d;
    }
    if (b->part)
        all.total_bytes = 0; /* only what is ours */
    if (b->parts.count > 0)
        all.tick = look_at_parts;
    return parallel_run(run, &all, err);
}

/* ---- meanwhile */

/* NULL when no disk is read by transfer. */
static struct transfer_keeper *keep_transfers(struct task_run *run, const struct backup *b)
{
    const char *ids[WIRE_DISKS_MAX];
    size_t count = 0;
    for (size_t i = 0; i < b->plan_count; i++) {
        if (b->plan[i].transfer.id)
            ids[count++] = b->plan[i].transfer.id;
    }
    return count > 0 ? transfer_keeper_begin(run, ids, count) : NULL;
}

struct backup_watches backup_watches_begin(struct task_run *run, const struct backup *b)
{
    const char **domains = xcalloc(b->plan_count, sizeof *domains);
    for (size_t i = 0; i < b->plan_count; i++)
        domains[i] = b->plan[i].disk->storage_domain_id;
    struct space_watch_opts watch = {.datacenter_id = b->site.datacenter_id,
                                     .domain_ids = domains,
                                     .count = b->plan_count,
                                     .what = "backup"};
    return (struct backup_watches){.space = space_watch_begin(run, &watch),
                                   .keeper = keep_transfers(run, b),
                                   .domains = domains};
}

void backup_watches_end(struct backup_watches *w, bool ok, struct err *err)
{
    transfer_keeper_end(w->keeper);
    space_watch_end(w->space, ok, err);
    free(w->domains);
}
