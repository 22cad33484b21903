/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The first step of a restore: what an earlier attempt made is removed, and the restore begins
 * anew; unless that attempt was through (its VM carries no marker any more): then it is the result.
 */
#include <string.h>

#include "proto/base/alloc.h"
#include "proto/base/log.h"
#include "worker/step/attached.h"
#include "worker/step/made.h"
#include "worker/step/restore.h"

static void take_vm(struct task_run *run, struct restore *r, const char *vm)
{
    log_info("earlier_attempt_restored", LOG_STR("vm_id", vm));
    r->stands = true;
    run->committed = true;
    run->new_vm = xstrdup(vm);
    run_handle_set(run, HANDLE_RESTORED, run->new_vm);
    made_drop_handles(run);
}

static bool clear_vm(struct task_run *run, struct restore *r, struct err *err)
{
    const char *restored = handles_get(&run->handles, HANDLE_RESTORED);
    if (restored) {
        take_vm(run, r, restored);
        return true;
    }
    const char *vm = handles_get(&run->handles, HANDLE_VM);
    if (!vm)
        return true;
    switch (made_vm_state(run, vm, run->offer->task, err)) {
    case MADE_UNKNOWN:
        return false;
    case MADE_GONE:
        run_handle_drop(run, HANDLE_VM);
        return true;
    case MADE_FINISHED:
        take_vm(run, r, vm);
        return true;
    case MADE_OURS:
        break;
    }
    return undo_make_vm(run, err);
}

bool step_clear_earlier(struct task_run *run, struct err *err)
{
    struct restore *r = run->state;
    if (run->handles.count == 0)
        return true;
    /* Uploads and attachments hold disks, the VM holds disks: in this order. */
    return transfers_cancel_all(run, err) && attached_detach_all(run, NULL, err) &&
           clear_vm(run, r, err) && undo_make_disks(run, err);
}
