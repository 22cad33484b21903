/* SPDX-License-Identifier: Apache-2.0 */
/* Remove our snapshot: a live merge when the VM runs. */
#include <string.h>

#include "proto/base/alloc.h"
#include "proto/base/log.h"
#include "worker/step/backup.h"

enum { UNDO_LOCKED_MAX_S = 300 };

static void merge_failed(void *ctx, unsigned attempt, const struct err *why)
{
    (void)ctx;
    log_warn("merge_retried", LOG_U64("try", attempt), LOG_STR("message", why->message));
}

/* One that is locked while a run is taken back is most likely still being made, and did not get
 * ready in its time: not worth as much again. On the way forward it is merged for an earlier
 * attempt. */
static int64_t locked_limit_ms(const struct task_run *run)
{
    int64_t s = run->settings->merge_wait_s;
    if (run->phase == RUN_UNDO && s > run->settings->snapshot_wait_s)
        s = run->settings->snapshot_wait_s;
    if (run->phase == RUN_UNDO && s > UNDO_LOCKED_MAX_S)
        s = UNDO_LOCKED_MAX_S;
    return s * 1000;
}

bool step_merge(struct task_run *run, struct err *err)
{
    struct backup *b = run->state;
    if (b->not_thawed) {
        thaw_in_case(run, run->offer->vm);
        b->not_thawed = false;
    }
    const char *id = handles_get(&run->handles, HANDLE_SNAPSHOT);
    if (!id)
        return true;
    if (handles_hold_disks(&run->handles))
        return err_set(err, ERR_MERGE_FAILED, 0,
                       "snapshot %s cannot be merged while its disks are attached to a proxy or "
                       "open in an image transfer",
                       id);
    SCOPED_FREE char *snapshot = xstrdup(id);
    SCOPED_FREE char *prefix = xasprintf("oxbow task=%s ", run->offer->task);
    struct ovirt_merge how = {.limit_ms = run->settings->merge_wait_s * 1000,
                              .locked_ms = locked_limit_ms(run),
                              .failed = merge_failed};
    bool ok =
        strcmp(snapshot, WIRE_LEFTOVER_ALL) == 0
            ? ovirt_snapshots_delete_marked(run->session, run->offer->vm, prefix, &how, err)
            : ovirt_snapshot_delete(run->session, run->offer->vm, snapshot, prefix, &how, err);
    if (!ok)
        return false;
    run_handle_drop(run, HANDLE_SNAPSHOT);
    return true;
}
