/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The restore point's data onto the new disks: devices on the proxy VM, attached for that and
 * detached again, or uploads to a host, opened and ended.
 */
#include <inttypes.h>

#include "proto/base/alloc.h"
#include "proto/base/log.h"
#include "worker/copy/copy.h"
#include "worker/copy/rate.h"
#include "worker/copy/transfer.h"
#include "worker/ovirt/attachment.h"
#include "worker/step/attached.h"
#include "worker/step/compare.h"
#include "worker/step/device.h"
#include "worker/step/parallel.h"
#include "worker/step/restore.h"
#include "worker/step/space.h"

enum { GATHER_MS = 200 };

bool restore_check_size(struct task_run *run, struct restore_disk *d, struct err *err)
{
    struct ovirt_disk made = {0};
    if (!ovirt_disk_get(run->session, d->id, &made, err))
        return false;
    d->size_bytes = made.provisioned_bytes;
    ovirt_disk_done(&made);
    return d->size_bytes >= d->from->size_bytes ||
           err_set(err, ERR_DEVICE_MISMATCH, 0,
                   "new disk %s has %" PRIu64 " bytes, the restore point's %" PRIu64, d->id,
                   d->size_bytes, d->from->size_bytes);
}

/* --- By attach ------------------------------------------------------------------------------- */
static bool attach_one(struct task_run *run, struct restore *r, struct restore_disk *d,
                       struct err *err)
{
    if (!attached_check_free(run, &r->site, d->id, err) || !restore_check_size(run, d, err))
        return false;
    SCOPED_FREE char *handle = xasprintf(HANDLE_ATTACHMENT "%s", d->id);
    run_handle_set(run, handle, r->site.proxy_id);
    struct ovirt_attach how = {.interface = r->site.proxy_interface, .active = true};
    if (!ovirt_attach_disk(run->session, r->site.proxy_id, d->id, &how, err))
        return false;
    d->device = device_wait(run, d->id, d->size_bytes, err);
    return d->device && device_check_unused(d->device, err);
}

static bool attach(struct task_run *run, struct restore *r, struct restore_disk *d, struct err *err)
{
    if (!attach_one(run, r, d, err))
        return err_wrap(err, "attach new disk %s", d->id);
    log_info("disk_attached", LOG_STR("disk", d->id), LOG_STR("device", d->device));
    return true;
}

bool step_attach_new(struct task_run *run, struct err *err)
{
    struct restore *r = run->state;
    for (size_t i = 0; i < r->disk_count; i++) {
        if (r->disks[i].part == 0 && !attach(run, r, &r->disks[i], err))
            return false;
    }
    return true;
}

bool step_detach_new(struct task_run *run, struct err *err)
{
    const struct restore *r = run->state;
    return attached_detach_all(run, r->site.proxy_id, err);
}

/* --- By upload ------------------------------------------------------------------------------- */
/* The handle of the disk is older than its upload: one that nobody has heard of is found by its
 * disk, and goes with it (made.h). */
static bool open_upload(struct task_run *run, struct restore_disk *d, struct err *err)
{
    return (restore_check_size(run, d, err) &&
            disk_transfer_open(run, d->id, NULL, d->size_bytes, &d->transfer, err)) ||
           err_wrap(err, "upload to new disk %s", d->id);
}

bool step_open_new(struct task_run *run, struct err *err)
{
    struct restore *r = run->state;
    for (size_t i = 0; i < r->disk_count; i++) {
        if (r->disks[i].part == 0 && !open_upload(run, &r->disks[i], err))
            return false;
    }
    return true;
}

bool restore_open_disk(struct task_run *run, struct restore *r, struct restore_disk *d,
                       struct err *err)
{
    return r->by_upload ? open_upload(run, d, err) : attach(run, r, d, err);
}

bool undo_open_new(struct task_run *run, struct err *err)
{
    struct restore *r = run->state;
    for (size_t i = 0; i < r->disk_count; i++)
        disk_transfer_forget(&r->disks[i].transfer);
    return transfers_cancel_all(run, err);
}

static bool compare_uploads(struct task_run *run, const struct restore *r, struct err *err)
{
    SCOPED_FREE struct compare_disk *disks = xcalloc(r->disk_count + 1, sizeof *disks);
    size_t count = 0;
    for (size_t i = 0; i < r->disk_count; i++) {
        const struct restore_disk *d = &r->disks[i];
        if (d->transfer.io)
            disks[count++] = (struct compare_disk){d->from->id, &d->transfer, d->size_bytes};
    }
    return compare_disks(run, r->point, disks, count, err);
}

bool step_close_new(struct task_run *run, struct err *err)
{
    struct restore *r = run->state;
    if (run->settings->compare_checksums && !compare_uploads(run, r, err))
        return false;
    for (size_t i = 0; i < r->disk_count; i++) {
        if (!disk_transfer_finish(run, &r->disks[i].transfer, err))
            return err_wrap(err, "upload to new disk %s", r->disks[i].id);
    }
    return true;
}

/* Some uploads wait for the copy of others. NULL when there is none. */
static struct transfer_keeper *keep_uploads(struct task_run *run, const struct restore *r,
                                            const size_t *which, size_t n)
{
    const char *ids[WIRE_DISKS_MAX];
    size_t count = 0;
    for (size_t i = 0; i < n && count < ARRAY_LEN(ids); i++) {
        if (r->disks[which[i]].transfer.id)
            ids[count++] = r->disks[which[i]].transfer.id;
    }
    return count > 0 ? transfer_keeper_begin(run, ids, count) : NULL;
}

/* --- The data -------------------------------------------------------------------------------- */
static struct target *open_target(const struct restore_disk *d, struct err *err)
{
    if (d->transfer.io)
        return target_transfer_open(d->transfer.io, d->size_bytes, d->is_zero);
    struct target_file_opts opts = {.is_zero = d->is_zero};
    return target_file_open(d->device, &opts, err);
}

struct job {
    struct task_run *run;
    struct restore *r;
    struct space_watch *space;
    const size_t *which;  /* of the disks, those at work */
    int64_t before_bytes; /* of those before */
    _Atomic int64_t written, zero;
};

static bool write_disk(void *ctx, size_t index, const struct copy_opts *inner, struct err *err)
{
    struct job *job = ctx;
    struct space_guard guard = {.watch = job->space, .inner = inner};
    struct copy_opts copy = space_guard_opts(&guard);
    struct restore_disk *d = &job->r->disks[job->which[index]];
    SCOPED(store_reader)
    struct store_reader *from = store_disk_open(job->r->point, d->from->id, err);
    struct rate_gate gate = {.limits = job->run->settings->limits,
                             .domain_id = d->domain ? d->domain->id : NULL,
                             .domain_name = d->domain ? d->domain->name : NULL,
                             .stopped = copy.cancelled,
                             .ctx = copy.context};
    SCOPED(target)
    struct target *to = from ? target_limited_open(open_target(d, err), &gate) : NULL;
    struct copy_stats stats = {0};
    if (!to || !copy_restore(from, to, &copy, &stats, err))
        return err_wrap(err, "disk %s", d->from->alias ? d->from->alias : d->from->id);
    job->written += (int64_t)stats.data_bytes;
    job->zero += (int64_t)stats.hole_bytes;
    log_info("disk_written", LOG_STR("disk", d->id), LOG_U64("bytes", stats.data_bytes),
             LOG_I64("ms", stats.elapsed_ms));
    return true;
}

static void look_at_parts(void *ctx)
{
    struct job *job = ctx;
    parts_look(job->run, &job->r->parts);
}

/* Disks that are open. */
static bool write_disks(struct job *job, const size_t *which, size_t count, struct err *err)
{
    struct restore *r = job->r;
    SCOPED_FREE uint64_t *sizes = xcalloc(count + 1, sizeof *sizes);
    int64_t bytes = 0;
    for (size_t i = 0; i < count; i++) {
        sizes[i] = r->disks[which[i]].from->size_bytes;
        bytes += (int64_t)sizes[i];
    }
    job->which = which;
    struct parallel_opts all = {.count = count,
                                .sizes = sizes,
                                .work = write_disk,
                                .ctx = job,
                                .tick = r->parts.count > 0 ? look_at_parts : NULL,
                                .before_bytes = job->before_bytes,
                                .total_bytes = job->before_bytes + bytes};
    job->before_bytes += bytes;
    struct transfer_keeper *keeper = keep_uploads(job->run, r, which, count);
    bool ok = parallel_run(job->run, &all, err);
    transfer_keeper_end(keeper);
    return ok;
}

/* --- What others write ----------------------------------------------------------------------- */
static void count_part(struct job *job, size_t part)
{
    for (size_t i = 0; i < job->r->disk_count; i++) {
        const struct restore_disk *d = &job->r->disks[i];
        if (d->part != part)
            continue;
        job->written += (int64_t)d->data_bytes;
        job->zero += (int64_t)(d->from->size_bytes - d->data_bytes);
    }
}

/* Parts that have ended: those that were done are counted, the disks of others go to `ret_which`.
 * False: some are still open. */
static bool take_ended(struct job *job, size_t *ret_which, size_t *ret_count)
{
    struct restore *r = job->r;
    bool all = true;
    *ret_count = 0;
    for (size_t k = 0; k < r->parts.count; k++) {
        struct part *part = &r->parts.v[k];
        all = all && part_has_ended(part);
        if (part->is_taken || !part_has_ended(part))
            continue;
        part->is_taken = true;
        if (part->state == PART_DONE) {
            count_part(job, k + 1);
            continue;
        }
        if (part->worker)
            run_warn(job->run, "part-undone", NULL, "worker %s has not filled its disks: %s",
                     part->worker, part->why);
        for (size_t i = 0; i < r->disk_count; i++) {
            if (r->disks[i].part == k + 1)
                ret_which[(*ret_count)++] = i;
        }
    }
    return all;
}

/* Until every disk is filled: what others have not done we do. */
static bool gather(struct job *job, struct err *err)
{
    struct restore *r = job->r;
    SCOPED_FREE size_t *which = xcalloc(r->disk_count + 1, sizeof *which);
    for (;;) {
        size_t count;
        parts_look(job->run, &r->parts);
        parts_withdraw_idle(job->run, &r->parts);
        bool all = take_ended(job, which, &count);
        if (count > 0 && (!restore_take_back(job->run, r, which, count, err) ||
                          !write_disks(job, which, count, err)))
            return false;
        if (all) /* one that begins after all would find its disks in the restored VM */
            return parts_settle(job->run, &r->parts, err);
        /* A coordinator that is away is waited for as long as before a mutation, not longer. */
        if (!run_before_mutation(job->run, err) ||
            (count == 0 && !run_sleep(job->run, GATHER_MS, err)))
            return false;
    }
}

static bool write_all(struct job *job, struct err *err)
{
    struct restore *r = job->r;
    SCOPED_FREE size_t *mine = xcalloc(r->disk_count + 1, sizeof *mine);
    size_t count = 0;
    for (size_t i = 0; i < r->disk_count; i++) {
        if (r->disks[i].part == 0)
            mine[count++] = i;
    }
    if (!write_disks(job, mine, count, err))
        return false;
    struct transfer_keeper *keeper = keep_uploads(job->run, r, mine, count); /* they end together */
    bool ok = gather(job, err);
    transfer_keeper_end(keeper);
    return ok;
}

bool step_write(struct task_run *run, struct err *err)
{
    struct restore *r = run->state;
    if (!run_before_mutation(run, err))
        return false;
    SCOPED_FREE const char **domains = xcalloc(r->disk_count + 1, sizeof *domains);
    for (size_t i = 0; i < r->disk_count; i++)
        domains[i] = r->disks[i].domain->id;
    struct space_watch_opts watch = {.datacenter_id = r->datacenter_id,
                                     .domain_ids = domains,
                                     .count = r->disk_count,
                                     .what = "restore"};
    struct job job = {.run = run, .r = r, .space = space_watch_begin(run, &watch)};
    bool ok = write_all(&job, err);
    space_watch_end(job.space, ok, err);
    run->stats.bytes_read = job.written;
    run->stats.bytes_zero = job.zero;
    parts_warn_idle(run, &r->parts, "done");
    return ok;
}
