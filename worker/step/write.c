/* SPDX-License-Identifier: Apache-2.0 */
/* The new disks to the proxy, the restore point's data onto them, and off the proxy again. */
#include <inttypes.h>

#include "proto/base/alloc.h"
#include "proto/base/log.h"
#include "worker/copy/copy.h"
#include "worker/ovirt/attachment.h"
#include "worker/step/attached.h"
#include "worker/step/device.h"
#include "worker/step/parallel.h"
#include "worker/step/restore.h"

static bool attach_one(struct task_run *run, struct restore *r, struct restore_disk *d,
                       struct err *err)
{
    struct ovirt_disk made = {0};
    if (!attached_check_free(run, &r->site, d->id, err) ||
        !ovirt_disk_get(run->session, d->id, &made, err))
        return false;
    uint64_t size = made.provisioned_bytes; /* the engine may have rounded it up */
    ovirt_disk_done(&made);
    if (size < d->from->size_bytes)
        return err_set(err, ERR_DEVICE_MISMATCH, 0,
                       "new disk %s has %" PRIu64 " bytes, the restore point's %" PRIu64, d->id,
                       size, d->from->size_bytes);
    SCOPED_FREE char *handle = xasprintf(HANDLE_ATTACHMENT "%s", d->id);
    run_handle_set(run, handle, r->site.proxy_id);
    struct ovirt_attach how = {.interface = r->site.proxy_interface, .active = true};
    if (!ovirt_attach_disk(run->session, r->site.proxy_id, d->id, &how, err))
        return false;
    d->device = device_wait(run, d->id, size, err);
    return d->device && device_check_unused(d->device, err);
}

bool step_attach_new(struct task_run *run, struct err *err)
{
    struct restore *r = run->state;
    for (size_t i = 0; i < r->disk_count; i++) {
        if (!attach_one(run, r, &r->disks[i], err))
            return err_wrap(err, "attach new disk %s", r->disks[i].id);
        log_info("disk_attached", LOG_STR("disk", r->disks[i].id),
                 LOG_STR("device", r->disks[i].device));
    }
    return true;
}

bool step_detach_new(struct task_run *run, struct err *err)
{
    const struct restore *r = run->state;
    return attached_detach_all(run, r->site.proxy_id, err);
}

struct job {
    struct restore *r;
    _Atomic int64_t written, zero;
};

static bool write_disk(void *ctx, size_t index, const struct copy_opts *copy, struct err *err)
{
    struct job *job = ctx;
    struct restore_disk *d = &job->r->disks[index];
    SCOPED(store_reader)
    struct store_reader *from = store_disk_open(job->r->point, d->from->id, err);
    struct target_file_opts opts = {.is_zero = d->is_zero};
    SCOPED(target) struct target *to = from ? target_file_open(d->device, &opts, err) : NULL;
    struct copy_stats stats = {0};
    if (!to || !copy_restore(from, to, copy, &stats, err))
        return err_wrap(err, "disk %s", d->from->alias ? d->from->alias : d->from->id);
    job->written += (int64_t)stats.data_bytes;
    job->zero += (int64_t)stats.hole_bytes;
    log_info("disk_written", LOG_STR("disk", d->id), LOG_U64("bytes", stats.data_bytes),
             LOG_I64("ms", stats.elapsed_ms));
    return true;
}

bool step_write(struct task_run *run, struct err *err)
{
    struct restore *r = run->state;
    if (!run_before_mutation(run, err))
        return false;
    SCOPED_FREE uint64_t *sizes = xcalloc(r->disk_count, sizeof *sizes);
    for (size_t i = 0; i < r->disk_count; i++)
        sizes[i] = r->disks[i].from->size_bytes;
    struct job job = {.r = r};
    bool ok = parallel_run(run, r->disk_count, sizes, write_disk, &job, err);
    run->stats.bytes_read = job.written;
    run->stats.bytes_zero = job.zero;
    return ok;
}
