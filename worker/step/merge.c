/* SPDX-License-Identifier: Apache-2.0 */
/* Remove our snapshot: a live merge when the VM runs. */
#include <string.h>

#include "proto/base/alloc.h"
#include "proto/base/log.h"
#include "worker/step/backup.h"
#include "worker/step/strays.h"

enum { UNDO_LOCKED_MAX_S = 300, PARTS_HOLD_MAX_MS = 5 * 60 * 1000, PARTS_HOLD_LOOK_MS = 2000 };

void merge_retried(void *ctx, unsigned attempt, const struct err *why)
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

static struct ovirt_merge how_to_merge(const struct task_run *run)
{
    return (struct ovirt_merge){.limit_ms = run->settings->merge_wait_s * 1000,
                                .locked_ms = locked_limit_ms(run),
                                .failed = merge_retried};
}

/* One that an earlier attempt had asked for, and the engine took only when this one had begun: it
 * has none of its own any more, so all are such. */
static bool remove_strays(struct task_run *run, struct err *err)
{
    struct ovirt_merge how = how_to_merge(run);
    return run->offer->attempt == 1 || strays_delete_snapshots(run, &how, err);
}

/* `id` may be "*". */
static bool remove_snapshot(struct task_run *run, const char *id, struct err *err)
{
    SCOPED_FREE char *prefix = marker_of_task(run->offer->task);
    struct ovirt_merge how = how_to_merge(run);
    if (strcmp(id, WIRE_LEFTOVER_ALL) == 0)
        return ovirt_snapshots_delete_marked(run->session, run->offer->vm, prefix, &how, err);
    /* A disk that is locked by a transfer would be waited for, and for long. */
    if (run->offer->attempt > 1 && !strays_end_transfers(run, run->offer->vm, id, err))
        return false;
    return ovirt_snapshot_delete(run->session, run->offer->vm, id, prefix, &how, err);
}

/* A worker that died with a part of this backup has left disks of the snapshot on its proxy VM: a
 * clean-up takes them off, soon. What comes after that is the business of our own clean-up, which
 * knows what the parts had attached. */
static bool remove_when_let_go(struct task_run *run, const char *id, struct err *err)
{
    struct backup *b = run->state;
    int64_t until = clock_mono_ms(run->clock) + PARTS_HOLD_MAX_MS;
    for (;;) {
        bool unclean = parts_are_unclean(run, &b->parts);
        if (remove_snapshot(run, id, err))
            return true;
        if (!unclean || err->code != ERR_CONFLICT || clock_mono_ms(run->clock) >= until)
            return false;
        log_info("snapshot_held", LOG_STR("message", err->message));
        struct err stop = ERR_INIT;
        if (!run_sleep(run, PARTS_HOLD_LOOK_MS, &stop)) {
            *err = stop;
            return false;
        }
        err_clear(err);
    }
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
        return remove_strays(run, err);
    if (handles_hold_disks(&run->handles))
        return err_set(err, ERR_MERGE_FAILED, 0,
                       "snapshot %s cannot be merged while its disks are attached to a proxy or "
                       "open in an image transfer",
                       id);
    /* A freeze that a dead attempt asked for may come late. */
    bool thaw = b->opts.quiesce != WIRE_QUIESCE_OFF && thaw_may_be_due(run);
    if (thaw)
        thaw_in_case(run, run->offer->vm);
    SCOPED_FREE char *snapshot = xstrdup(id);
    bool ok = remove_when_let_go(run, snapshot, err);
    if (!ok && strays_may_hold(run, err)) {
        struct err why = ERR_INIT;
        ok = strays_detach(run, NULL, &why) && remove_snapshot(run, snapshot, &why);
        *err = why;
    }
    if (thaw && err->code != ERR_LEASE_LOST)
        thaw_in_case(run, run->offer->vm);
    if (!ok)
        return false;
    run_handle_drop(run, HANDLE_SNAPSHOT);
    /* Now that it has gone no disk of it can be attached any more: one that was just before is
     * found here. */
    return (run->offer->attempt == 1 || strays_detach(run, NULL, err)) && remove_strays(run, err);
}
