/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/step/gone.h"

#include <string.h>

#include "proto/base/alloc.h"
#include "worker/ovirt/engine.h"

static bool may_mean_gone(const struct err *err)
{
    return err->code == ERR_NOT_FOUND || err->code == ERR_SNAPSHOT_FAILED ||
           err->code == ERR_CONFLICT || err->code == ERR_ENGINE_REFUSED;
}

static bool is_gone(struct task_run *run, const char *path)
{
    struct err ignored = ERR_INIT;
    json_auto_t *object = NULL;
    return engine_get_or_gone(run->session, path, NULL, &object, &ignored) && !object;
}

static bool say(struct err *err, enum err_code code, const char *text)
{
    char why[ERR_MESSAGE_BYTES];
    memcpy(why, err->message, sizeof why);
    err_clear(err);
    return err_set(err, code, 404, "%s (%s)", text, why);
}

bool gone_explain(struct task_run *run, const char *snapshot_id, struct err *err)
{
    if (!may_mean_gone(err))
        return false;
    const char *vm = run->offer->vm;
    SCOPED_FREE char *vm_path = xasprintf("vms/%s", vm);
    SCOPED_FREE char *snapshot_path =
        snapshot_id ? xasprintf("vms/%s/snapshots/%s", vm, snapshot_id) : NULL;
    if (is_gone(run, vm_path))
        return say(err, ERR_NOT_FOUND, "the VM was deleted while it was backed up");
    if (snapshot_path && is_gone(run, snapshot_path))
        return say(err, ERR_SNAPSHOT_FAILED, "the snapshot has gone while it was being backed up");
    return false;
}
