/* SPDX-License-Identifier: Apache-2.0 */
/* The VM's configuration: the OVF of the snapshot (of the VM itself where there is none), as the
 * engine has it, and vm.json with names beside the ids. */
#include "worker/step/backup.h"
#include "worker/step/gone.h"

bool step_describe(struct task_run *run, struct err *err)
{
    struct backup *b = run->state;
    const char *snapshot = backup_snapshot(run);
    buf_done(&b->ovf);
    if (!snapshot ? !ovirt_vm_ovf(&b->vm, &b->ovf, err)
                  : !ovirt_snapshot_ovf(run->session, b->vm.id, snapshot, &b->ovf, err))
        return gone_explain(run, snapshot, err);
    json_decref(b->vm_json);
    b->vm_json = ovirt_vm_describe(run->session, &b->vm, err);
    return b->vm_json || gone_explain(run, snapshot, err);
}
