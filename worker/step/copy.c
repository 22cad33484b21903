/* SPDX-License-Identifier: Apache-2.0 */
/* Read the disks into a session of the repository. */
#include "worker/copy/copy.h"

#include <inttypes.h>
#include <string.h>

#include "proto/base/alloc.h"
#include "proto/base/log.h"
#include "worker/copy/rate.h"
#include "worker/copy/transfer.h"
#include "worker/step/backup.h"
#include "worker/step/parallel.h"
#include "worker/step/point_meta.h"
#include "worker/step/space.h"

/* The newest usable point of this VM: unchanged blocks refer to it. NULL without an error when
 * there is none: then everything new is stored, which is right as well, only larger. */
static struct store_point *open_parent(struct task_run *run, const struct backup *b)
{
    struct err err = ERR_INIT;
    struct store_point_list list = {0};
    struct store_point_filter filter = {.vm_id = b->vm.id};
    if (!store_points_list(run->store, &filter, &list, &err)) {
        log_warn("parent_not_listed", LOG_STR("message", err.message));
        return NULL;
    }
    struct store_point *parent = NULL;
    for (size_t i = list.count; i-- > 0 && !parent;) {
        err_clear(&err);
        if (!list.items[i].damage)
            parent = store_point_open(run->store, list.items[i].id, &err);
    }
    store_point_list_done(&list);
    return parent;
}

struct job {
    struct task_run *run;
    struct backup *b;
    struct store_point *parent;
    struct space_watch *space;
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

static bool copy_disk(void *ctx, size_t index, const struct copy_opts *inner, struct err *err)
{
    struct job *job = ctx;
    struct backup_disk *d = &job->b->plan[index];
    struct space_guard guard = {.watch = job->space, .inner = inner};
    struct copy_opts copy = space_guard_opts(&guard);
    SCOPED(source) struct source *from = open_limited(job, d, &copy, err);
    if (!from)
        return err_wrap(err, "disk %s", d->disk->id);
    struct err why = ERR_INIT; /* a parent that cannot be read costs space, nothing else */
    struct store_point *point = d->by_changes ? job->b->base : job->parent;
    SCOPED(store_reader)
    struct store_reader *parent = point ? store_disk_open(point, d->disk->id, &why) : NULL;
    if (d->by_changes && !parent) {
        *err = why; /* but here it holds what is not read */
        return err_wrap(err, "disk %s", d->disk->id);
    }
    struct store_disk_opts opts = {
        .id = d->disk->id, .size_bytes = d->size_bytes, .parent = parent};
    d->stored = store_disk_begin(job->b->session, &opts, err);
    copy.changed = d->by_changes ? &d->changed : NULL;
    struct copy_stats stats = {0};
    if (!d->stored || !copy_backup(from, job->b->session, d->stored, &copy, &stats, err) ||
        !store_disk_finish(d->stored, NULL, err))
        return err_wrap(err, "disk %s", d->disk->id);
    d->read_bytes = (int64_t)stats.data_bytes;
    d->copy_ms = stats.elapsed_ms;
    d->kept_bytes = stats.kept_bytes;
    log_info("disk_copied", LOG_STR("disk", d->disk->id), LOG_U64("bytes", stats.size_bytes),
             LOG_U64("read", stats.data_bytes), LOG_U64("kept", stats.kept_bytes),
             LOG_U64("stored", stats.store.stored_bytes), LOG_I64("ms", stats.elapsed_ms));
    return true;
}

static bool put_blobs(struct backup *b, struct err *err)
{
    SCOPED_FREE char *json = json_dumps(b->vm_json, JSON_INDENT(1) | JSON_SORT_KEYS);
    if (!json)
        return err_set(err, ERR_INTERNAL, 0, "vm.json cannot be written as JSON");
    return store_session_put_blob(b->session, POINT_BLOB_JSON, json, strlen(json), err) &&
           store_session_put_blob(b->session, POINT_BLOB_OVF, b->ovf.data, b->ovf.len, err);
}

/* What earlier attempts have stored is not stored again. What fails here costs space, nothing
 * else. */
static void adopt_earlier(struct backup *b)
{
    for (size_t i = 0; i < b->earlier_count; i++) {
        struct err err = ERR_INIT;
        struct store_adopted adopted;
        if (!store_session_adopt(b->session, b->earlier[i], &adopted, &err))
            log_err(LOG_LEVEL_WARN, "earlier_attempt_not_adopted", &err);
        else if (adopted.packs > 0)
            log_info("earlier_attempt_adopted", LOG_STR("session", b->earlier[i]),
                     LOG_U64("packs", adopted.packs), LOG_U64("bytes", adopted.bytes),
                     LOG_U64("raw_bytes", adopted.raw_bytes));
    }
}

static bool begin_session(struct task_run *run, struct backup *b, struct err *err)
{
    SCOPED_FREE char *id = xasprintf("%s.%" PRId64, run->offer->task, run->fence);
    if (!run_before_mutation(run, err))
        return false;
    run_handle_set(run, HANDLE_SESSION, id);
    struct store_session_opts opts = {
        .id = id, .vm_id = b->vm.id, .vm_name = b->vm.name, .worker = run->worker};
    b->session = store_session_begin(run->store, &opts, err);
    if (!b->session || !put_blobs(b, err))
        return false;
    adopt_earlier(b);
    return true;
}

/* What came by which path. */
static void take_path_stats(struct task_run *run, const struct backup *b)
{
    struct wire_paths_stats *all = &run->stats.paths;
    run_forget_path_stats(run); /* of an earlier try */
    all->v = xcalloc(BACKUP_PATHS, sizeof *all->v);
    for (int path = 0; path < BACKUP_PATHS; path++) {
        struct wire_path_stats sum = {0};
        for (size_t i = 0; i < b->plan_count; i++) {
            const struct backup_disk *d = &b->plan[i];
            if ((int)d->path != path)
                continue;
            sum.disks++;
            sum.bytes_read += d->read_bytes;
            sum.copy_ms += d->copy_ms;
        }
        if (sum.disks == 0)
            continue;
        sum.path = xstrdup(backup_path_name((enum backup_path)path));
        all->v[all->count++] = sum;
    }
}

static void take_stats(struct task_run *run, struct backup *b)
{
    struct store_stats s = {0};
    store_session_stats(b->session, &s);
    run->stats.disks = (int64_t)b->plan_count;
    uint64_t kept = 0; /* given to the repository, but not read */
    for (size_t i = 0; i < b->plan_count; i++) {
        run->stats.bytes_total += (int64_t)b->plan[i].size_bytes;
        kept += b->plan[i].kept_bytes;
    }
    run->stats.bytes_read = (int64_t)(s.read_bytes > kept ? s.read_bytes - kept : 0);
    run->stats.bytes_zero = run->stats.bytes_total - (int64_t)(s.read_bytes - s.zero_bytes);
    run->stats.bytes_known = (int64_t)(s.dedup_bytes + s.unchanged_bytes);
    run->stats.bytes_stored = (int64_t)s.stored_bytes;
    take_path_stats(run, b);
}

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

bool step_copy(struct task_run *run, struct err *err)
{
    struct backup *b = run->state;
    if (!begin_session(run, b, err))
        return false;
    SCOPED(store_point) struct store_point *parent = open_parent(run, b);
    SCOPED_FREE uint64_t *sizes = xcalloc(b->plan_count, sizeof *sizes);
    SCOPED_FREE const char **domains = xcalloc(b->plan_count, sizeof *domains);
    for (size_t i = 0; i < b->plan_count; i++) {
        sizes[i] = b->plan[i].size_bytes;
        domains[i] = b->plan[i].disk->storage_domain_id;
    }
    struct space_watch_opts watch = {.datacenter_id = b->site.datacenter_id,
                                     .domain_ids = domains,
                                     .count = b->plan_count,
                                     .what = "backup"};
    struct job job = {
        .run = run, .b = b, .parent = parent, .space = space_watch_begin(run, &watch)};
    struct transfer_keeper *keeper = keep_transfers(run, b);
    struct parallel_opts all = {
        .count = b->plan_count, .sizes = sizes, .work = copy_disk, .ctx = &job};
    bool ok = parallel_run(run, &all, err);
    transfer_keeper_end(keeper);
    space_watch_end(job.space, ok, err);
    take_stats(run, b);
    return ok;
}

bool undo_copy(struct task_run *run, struct err *err)
{
    struct backup *b = run->state;
    if (!b->session || run->committed)
        return true;
    bool ok = run_is_given_back(run) ? store_session_leave(b->session, err)
                                     : store_session_abort(b->session, err);
    store_session_free(b->session);
    b->session = NULL;
    return ok;
}
