/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The snapshot: without memory, of the planned disks only, its description our marker. The guest is
 * thawed as soon as the snapshot is there, and on every other way out.
 */
#include <inttypes.h>
#include <string.h>

#include "proto/base/alloc.h"
#include "proto/base/log.h"
#include "worker/step/backup.h"

/* Thaw; was the guest frozen at the instant of the snapshot? */
static bool end_freeze(struct task_run *run, struct backup *b)
{
    if (!b->frozen)
        return b->quiesced;
    struct err err = ERR_INIT;
    bool in_time = false;
    if (!frozen_end(b->frozen, &in_time, &err)) {
        log_err(LOG_LEVEL_ERROR, "thaw_failed", &err);
        run_warn(run, "not-thawed", NULL, "%s", err.message);
    }
    b->frozen = NULL;
    return in_time;
}

/* Keep only the disks that really are in the snapshot, with the sizes they have there. */
static bool match_disks(struct task_run *run, struct backup *b, const char *snapshot_id,
                        struct err *err)
{
    struct ovirt_disks in = {0};
    if (!ovirt_snapshot_disks(run->session, b->vm.id, snapshot_id, &in, err))
        return false;
    size_t kept = 0;
    bool ok = true;
    for (size_t i = 0; ok && i < b->plan_count; i++) {
        const struct ovirt_disk *d = b->plan[i].disk;
        const struct ovirt_disk *s = ovirt_disks_find(&in, d->id);
        if (s) {
            b->plan[kept] = b->plan[i];
            b->plan[kept++].size_bytes = s->provisioned_bytes;
        } else if (b->opts.unsupported == WIRE_UNSUPPORTED_FAIL) {
            ok = err_set(err, ERR_UNSUPPORTED, 0, "disk %s is not in the snapshot", d->id);
        } else {
            run_warn(run, "disk-skipped", d->id, "the engine left disk %s out of the snapshot",
                     d->id);
        }
    }
    b->plan_count = kept;
    if (ok && kept == 0)
        ok = err_set(err, ERR_SNAPSHOT_FAILED, 0, "no disk is in the snapshot");
    ovirt_disks_done(&in);
    return ok;
}

static bool take(struct task_run *run, struct backup *b, struct err *err)
{
    SCOPED_FREE const char **ids = xcalloc(b->plan_count, sizeof *ids);
    for (size_t i = 0; i < b->plan_count; i++)
        ids[i] = b->plan[i].disk->id;
    SCOPED_FREE char *marker = run_marker(run);
    SCOPED_FREE char *id =
        ovirt_snapshot_create(run->session, b->vm.id, marker, ids, b->plan_count, err);
    if (!id)
        return false;
    run_handle_set(run, HANDLE_SNAPSHOT, id);
    return ovirt_snapshot_wait_ok(run->session, b->vm.id, id, run->settings->snapshot_wait_s * 1000,
                                  &b->snapshot_ms, err);
}

enum probe_answer probe_snapshot(struct task_run *run, struct err *err)
{
    struct backup *b = run->state;
    if (b->stands)
        return PROBE_DONE;
    const char *id = handles_get(&run->handles, HANDLE_SNAPSHOT);
    if (!id)
        return PROBE_TODO;
    /* Ours, from an earlier attempt; precheck has found it. */
    const char *quiesced = handles_get(&run->handles, HANDLE_QUIESCED);
    b->quiesced = quiesced && strcmp(quiesced, "yes") == 0;
    if (!b->quiesced && b->opts.quiesce == WIRE_QUIESCE_REQUIRE) {
        /* Nobody knows whether the guest was frozen for it: take a new one. */
        return step_merge(run, err) ? PROBE_TODO : PROBE_FAILED;
    }
    if (!ovirt_snapshot_wait_ok(run->session, b->vm.id, id, run->settings->snapshot_wait_s * 1000,
                                &b->snapshot_ms, err) ||
        !match_disks(run, b, id, err))
        return PROBE_FAILED;
    log_info("snapshot_taken_over", LOG_STR("snapshot", id));
    return PROBE_DONE;
}

bool step_snapshot(struct task_run *run, struct err *err)
{
    struct backup *b = run->state;
    bool ok = take(run, b, err);
    b->quiesced = end_freeze(run, b);
    if (!ok)
        return false;
    run_handle_set(run, HANDLE_QUIESCED, b->quiesced ? "yes" : "no");
    if (!b->quiesced && b->opts.quiesce == WIRE_QUIESCE_REQUIRE)
        return err_set(err, ERR_QUIESCE_FAILED, 0,
                       "the snapshot took longer than quiesce_limit_s (%" PRId64
                       " s): the guest was thawed before it was done",
                       run->settings->quiesce_limit_s);
    return match_disks(run, b, handles_get(&run->handles, HANDLE_SNAPSHOT), err);
}
