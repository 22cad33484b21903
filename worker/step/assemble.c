/* SPDX-License-Identifier: Apache-2.0 */
/* The filled disks to the new VM, as they were; the marker off; and, if wanted, the VM on. */
#include "proto/base/alloc.h"
#include "proto/base/log.h"
#include "worker/ovirt/attachment.h"
#include "worker/step/made.h"
#include "worker/step/restore.h"

enum { DETACH_LIMIT_MS = 15 * 60 * 1000 };

bool step_assemble(struct task_run *run, struct err *err)
{
    struct restore *r = run->state;
    const char *vm = handles_get(&run->handles, HANDLE_VM);
    for (size_t i = 0; i < r->disk_count; i++) {
        const struct point_disk *from = r->disks[i].from;
        struct ovirt_attach how = {.interface = from->interface,
                                   .bootable = from->bootable,
                                   .active = from->active,
                                   .read_only = from->read_only,
                                   .pass_discard = from->pass_discard};
        if (!ovirt_attach_disk(run->session, vm, r->disks[i].id, &how, err))
            return err_wrap(err, "attach disk %s to the restored VM", r->disks[i].id);
    }
    return true;
}

bool undo_assemble(struct task_run *run, struct err *err)
{
    struct restore *r = run->state;
    const char *vm = handles_get(&run->handles, HANDLE_VM);
    for (size_t i = 0; vm && i < r->disk_count; i++) {
        if (!ovirt_detach(run->session, vm, r->disks[i].id, DETACH_LIMIT_MS, err))
            return err_wrap(err, "detach disk %s from the restored VM", r->disks[i].id);
    }
    return true;
}

bool step_finish(struct task_run *run, struct err *err)
{
    const struct restore *r = run->state;
    SCOPED_FREE char *vm = xstrdup(handles_get(&run->handles, HANDLE_VM));
    /* The VM's mark decides: without it the restore is done, and nothing of it ours to remove. */
    if (!ovirt_vm_finish(run->session, vm, r->vm_json, err))
        return false;
    run->committed = true;
    free(run->new_vm);
    run->new_vm = TAKE(vm);
    /* Ahead of what follows: without the handles of what was made, a later attempt knows it by this
     * only. */
    run_handle_set(run, HANDLE_RESTORED, run->new_vm);
    made_drop_handles(run);
    return true;
}

enum probe_answer probe_start(struct task_run *run, struct err *err)
{
    (void)err;
    const struct restore *r = run->state;
    return r->opts->start ? PROBE_TODO : PROBE_UNWANTED;
}

bool step_start(struct task_run *run, struct err *err)
{
    return ovirt_vm_start(run->session, run->new_vm, err) &&
           ovirt_vm_wait(run->session, run->new_vm, "up", run->settings->vm_wait_s * 1000, err);
}
