/* SPDX-License-Identifier: Apache-2.0 */
/* Freeze the guest's file systems for the moment of the snapshot (thaw.h keeps it short). */
#include <string.h>

#include "worker/step/backup.h"

/* With the snapshot of an earlier attempt in hand there is nothing to freeze for. */
enum probe_answer probe_quiesce(struct task_run *run, struct err *err)
{
    const struct backup *b = run->state;
    if (b->by_cbt)
        return PROBE_UNWANTED; /* the engine does it itself */
    if (handles_get(&run->handles, HANDLE_SNAPSHOT))
        return PROBE_DONE;
    return probe_stands(run, err);
}

bool step_quiesce(struct task_run *run, struct err *err)
{
    struct backup *b = run->state;
    if (b->opts.quiesce == WIRE_QUIESCE_OFF)
        return true;
    if (strcmp(b->vm.status, "down") == 0) {
        b->quiesced = true; /* nothing writes */
        return true;
    }
    bool may_be_frozen;
    b->frozen = freeze_begin(run, b->vm.id, &may_be_frozen, err);
    b->not_thawed = b->not_thawed || may_be_frozen;
    if (b->frozen)
        return true;
    if (b->opts.quiesce == WIRE_QUIESCE_REQUIRE || err->code == ERR_CANCELLED ||
        err->code == ERR_LEASE_LOST || !run_check(run, &(struct err)ERR_INIT))
        return false;
    run_warn(run, "not-quiesced", NULL,
             "the guest's file systems were not frozen; the backup is crash-consistent: %s",
             err->message);
    err_clear(err);
    return true;
}

bool undo_quiesce(struct task_run *run, struct err *err)
{
    struct backup *b = run->state;
    bool in_time;
    bool ok = frozen_end(b->frozen, &in_time, err);
    b->frozen = NULL;
    return ok;
}
