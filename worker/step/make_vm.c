/* SPDX-License-Identifier: Apache-2.0 */
/* The new VM, without disks, marked as being restored; and its NICs. */
#include <string.h>

#include "proto/base/alloc.h"
#include "proto/base/log.h"
#include "worker/ovirt/nic.h"
#include "worker/step/made.h"
#include "worker/step/restore.h"

static char *create_from_ovf(struct task_run *run, struct restore *r, const struct ovirt_vm_new *as,
                             struct err *err)
{
    SCOPED_BUF struct buf ovf;
    if (!store_point_blob(r->point, POINT_BLOB_OVF, &ovf, err)) {
        err_wrap(err, "OVF of the restore point (config 'json' works without it)");
        return NULL;
    }
    return ovirt_vm_create_from_ovf(run->session, (struct slice){ovf.data, ovf.len}, as, err);
}

/* A point that was imported has no OVF: then its vm.json has to do. */
static bool has_ovf(const struct store_point *point)
{
    for (size_t i = 0; i < store_point_blob_count(point); i++)
        if (strcmp(store_point_blob_name(point, i), POINT_BLOB_OVF) == 0)
            return true;
    return false;
}

static void warn_nic(void *ctx, const char *message)
{
    run_warn(ctx, "nic-changed", NULL, "%s", message);
}

static bool make_nics(struct task_run *run, struct restore *r, const char *vm, struct err *err)
{
    if (r->opts->nics == WIRE_NICS_NONE)
        return true;
    struct ovirt_nics_how how = {.plugged = r->opts->nics == WIRE_NICS_PLUGGED,
                                 .datacenter_id = r->datacenter_id,
                                 .warn = warn_nic,
                                 .ctx = run};
    return ovirt_nics_restore(run->session, vm, r->vm_json, &how, err);
}

static char *create(struct task_run *run, struct restore *r, struct err *err)
{
    SCOPED_FREE char *marker = run_marker_restoring(run);
    struct ovirt_vm_new as = {.name = r->name, .cluster_id = r->cluster->id, .description = marker};
    bool from_json = r->opts->config == WIRE_CONFIG_JSON || !has_ovf(r->point);
    return from_json ? ovirt_vm_create_from_json(run->session, r->vm_json, &as, err)
                     : create_from_ovf(run, r, &as, err);
}

bool step_make_vm(struct task_run *run, struct err *err)
{
    struct restore *r = run->state;
    SCOPED_FREE char *vm = create(run, r, err);
    if (!vm && made_name_freed(run, r->name, err))
        vm = create(run, r, err);
    if (!vm)
        return false;
    run_handle_set(run, HANDLE_VM, vm);
    log_info("vm_made", LOG_STR("vm_id", vm), LOG_STR("name", r->name));
    return ovirt_vm_wait(run->session, vm, "down", run->settings->vm_wait_s * 1000, err) &&
           make_nics(run, r, vm, err);
}

bool undo_make_vm(struct task_run *run, struct err *err)
{
    const char *vm = handles_get(&run->handles, HANDLE_VM);
    if (!vm)
        return true;
    if (!made_vm_remove(run, vm, run->offer->task, err))
        return false;
    run_handle_drop(run, HANDLE_VM);
    return true;
}
