/* SPDX-License-Identifier: Apache-2.0 */
/* Remove our snapshot: a live merge when the VM runs. */
#include "proto/base/alloc.h"
#include "proto/base/log.h"
#include "worker/step/backup.h"

static void merge_failed(void *ctx, unsigned attempt, const struct err *why)
{
    (void)ctx;
    log_warn("merge_retried", LOG_U64("try", attempt), LOG_STR("message", why->message));
}

static bool is_attached(const struct task_run *run)
{
    struct wire_leftovers left = handles_leftovers(&run->handles, NULL);
    bool attached = left.count && left.v[0].kind[0] == 'a'; /* attachments come first */
    leftovers_done(&left);
    return attached;
}

bool step_merge(struct task_run *run, struct err *err)
{
    const char *id = handles_get(&run->handles, HANDLE_SNAPSHOT);
    if (!id)
        return true;
    if (is_attached(run))
        return err_set(err, ERR_MERGE_FAILED, 0,
                       "snapshot %s cannot be merged while its disks are attached to a proxy", id);
    SCOPED_FREE char *snapshot = xstrdup(id);
    SCOPED_FREE char *prefix = xasprintf("oxbow task=%s ", run->offer->task);
    struct ovirt_merge how = {.limit_ms = run->settings->merge_wait_s * 1000,
                              .failed = merge_failed};
    if (!ovirt_snapshot_delete(run->session, run->offer->vm, snapshot, prefix, &how, err))
        return false;
    run_handle_drop(run, HANDLE_SNAPSHOT);
    return true;
}
