/* SPDX-License-Identifier: Apache-2.0 */
/* The snapshot's disks to the proxy VM, and their devices in it. */
#include "proto/base/alloc.h"
#include "proto/base/log.h"
#include "worker/ovirt/attachment.h"
#include "worker/step/attached.h"
#include "worker/step/backup_copy.h"
#include "worker/step/device.h"
#include "worker/step/gone.h"

bool backup_attach_disk(struct task_run *run, const struct backup *b, struct backup_disk *d,
                        struct err *err)
{
    const char *id = d->disk->id;
    SCOPED_FREE char *handle = xasprintf(HANDLE_ATTACHMENT "%s", id);
    const char *snapshot = backup_snapshot(run);
    /* Its name is known before the call: write it ahead, so that no attachment can be lost. */
    run_handle_set(run, handle, b->site.proxy_id);
    return ovirt_attach_snapshot_disk(run->session, b->site.proxy_id, id, snapshot,
                                      b->site.proxy_interface, err) ||
           gone_explain(run, snapshot, err);
}

bool backup_wait_device(struct task_run *run, struct backup_disk *d, struct err *err)
{
    d->device = device_wait(run, d->disk->id, d->size_bytes, err);
    if (!d->device)
        return false;
    log_info("disk_attached", LOG_STR("disk", d->disk->id), LOG_STR("device", d->device),
             LOG_U64("bytes", d->size_bytes));
    return true;
}

bool step_attach(struct task_run *run, struct err *err)
{
    struct backup *b = run->state;
    for (size_t i = 0; i < b->plan_count; i++) {
        struct backup_disk *d = &b->plan[i];
        if (d->path == BACKUP_ATTACH && backup_is_ours(d) && !backup_attach_disk(run, b, d, err))
            return false;
    }
    for (size_t i = 0; i < b->plan_count; i++) {
        struct backup_disk *d = &b->plan[i];
        if (d->path == BACKUP_ATTACH && backup_is_ours(d) && !backup_wait_device(run, d, err))
            return false;
    }
    return true;
}

bool step_detach(struct task_run *run, struct err *err)
{
    const struct backup *b = run->state;
    return attached_detach_all(run, b->site.proxy_id, err);
}
