/* SPDX-License-Identifier: Apache-2.0 */
/* The state of an export: what is asked, what an earlier attempt left, and may it be done now? */
#include <inttypes.h>
#include <string.h>

#include "proto/base/alloc.h"
#include "proto/base/id.h"
#include "proto/base/log.h"
#include "worker/ovirt/export.h"
#include "worker/step/checks.h"
#include "worker/step/export.h"
#include "worker/step/made.h"

enum { NAME_BYTES_MAX = 200, TASK_CHARACTERS = 8 };

void *export_new(struct task_run *run, struct err *err)
{
    const struct wire_export_opts *opts = run->offer->export;
    if (!opts || !run->offer->vm || !id_is_valid(run->offer->vm)) {
        err_set(err, ERR_BAD_MESSAGE, 0, "an export task must name its VM by id, and say where to");
        return NULL;
    }
    struct export *x = ALLOC_NEW(struct export);
    x->opts = opts;
    x->base.opts.quiesce = opts->quiesce;
    x->base.opts.unsupported = opts->unsupported;
    const char *vm = run->offer->vm_name ? run->offer->vm_name : run->offer->vm;
    x->clone_name = xasprintf("%s-export-%.*s", strlen(vm) > NAME_BYTES_MAX ? "vm" : vm,
                              TASK_CHARACTERS, run->offer->task);
    return x;
}

void export_free(void *state)
{
    struct export *x = state;
    if (!x)
        return;
    free(x->clone_name);
    free(x->clone_id);
    free(x->host_id);
    free(x->domain_id);
    free(x->goal);
    backup_free(&x->base); /* the whole: it begins with it */
}

/* --- What an earlier attempt left ------------------------------------------------------------- */
static bool find_clone(struct task_run *run, struct export *x, struct err *err)
{
    SCOPED_FREE char *handle = xasprintf(HANDLE_CLONE "%s", x->clone_name);
    const char *known = handles_get(&run->handles, handle);
    if (!known)
        return true;
    if (!made_clone_find(run, known, x->clone_name, run->offer->task, &x->clone_id, err)) {
        if (err->code != ERR_REFUSED)
            return false;
        err_clear(err); /* somebody else's, now or ever */
    }
    if (!x->clone_id)
        run_handle_drop(run, handle);
    else if (strcmp(known, x->clone_id) != 0)
        run_handle_set(run, handle, x->clone_id);
    return true;
}

void export_thaw_in_case(struct task_run *run)
{
    const struct export *x = run->state;
    if (x->opts->quiesce != WIRE_QUIESCE_OFF && thaw_may_be_due(run))
        thaw_in_case(run, run->offer->vm);
}

bool step_find_earlier(struct task_run *run, struct err *err)
{
    struct export *x = run->state;
    export_thaw_in_case(run);
    const char *exported = handles_get(&run->handles, HANDLE_EXPORTED);
    if (exported) {
        log_info("earlier_attempt_exported", LOG_STR("to", exported));
        x->base.stands = true;
        run->committed = true;
        run->exported = xstrdup(exported);
    }
    /* One that was about to be removed. */
    const char *vm = handles_get(&run->handles, HANDLE_VM);
    if (vm && !exported) {
        if (!made_vm_remove(run, vm, run->offer->task, err) && err->code != ERR_REFUSED)
            return false;
        err_clear(err);
        run_handle_drop(run, HANDLE_VM);
    }
    return find_clone(run, x, err);
}

/* --- May it be done now? -----------------------------------------------------------------------
 */
static bool find_host(struct task_run *run, struct export *x, struct err *err)
{
    struct ovirt_host host = {0};
    if (!ovirt_host_find(run->session, x->opts->host, &host, err))
        return false;
    bool here = host.cluster_id && ovirt_clusters_find(&x->base.site.clusters, host.cluster_id);
    bool up = host.status && strcmp(host.status, "up") == 0;
    if (!here)
        err_set(err, ERR_UNSUPPORTED, 0,
                "host %s is in another data center than VM %s: it cannot reach its disks",
                x->opts->host, x->base.vm.name);
    else if (!up)
        err_set(err, ERR_CONFLICT, 0, "host %s is '%s': it cannot write an OVA now", x->opts->host,
                host.status ? host.status : "?");
    x->host_id = TAKE(host.id);
    x->goal = xstrdup(host.name ? host.name : x->opts->host);
    ovirt_host_done(&host);
    return here && up;
}

static bool find_domain(struct export *x, struct err *err)
{
    const struct ovirt_storage_domain *sd =
        ovirt_storage_domains_find(&x->base.domains, x->opts->domain);
    if (!sd)
        return err_set(err, ERR_NOT_FOUND, 0, "no storage domain '%s' in the data center of VM %s",
                       x->opts->domain, x->base.vm.name);
    if (!sd->type || strcmp(sd->type, "export") != 0)
        return err_set(err, ERR_UNSUPPORTED, 0, "storage domain %s is no export domain but '%s'",
                       sd->name, sd->type ? sd->type : "?");
    if (sd->status && strcmp(sd->status, "active") != 0)
        return err_set(err, ERR_CONFLICT, 0, "export domain %s is '%s'", sd->name, sd->status);
    x->domain_id = xstrdup(sd->id);
    x->goal = xstrdup(sd->name);
    return true;
}

static bool choose_disks(struct task_run *run, struct backup *b, struct err *err)
{
    const char *why = "it has none";
    if (!ovirt_vm_disks(&b->vm, &b->disks, err))
        return false;
    b->plan = xcalloc(b->disks.count, sizeof *b->plan);
    for (size_t i = 0; i < b->disks.count; i++) {
        const struct ovirt_disk *d = &b->disks.v[i];
        if (!check_not_locked(&b->vm, d, err))
            return false;
        if (d->fit == OVIRT_DISK_FIT || d->fit == OVIRT_DISK_CHECKPOINTS) {
            b->plan[b->plan_count++] =
                (struct backup_disk){.disk = d, .size_bytes = d->provisioned_bytes};
            run->stats.bytes_total += (int64_t)d->provisioned_bytes;
            continue;
        }
        why = ovirt_disk_class_why(d->fit);
        if (b->opts.unsupported == WIRE_UNSUPPORTED_FAIL)
            return err_set(err, ERR_UNSUPPORTED, 0, "disk %s of VM %s: %s", disk_label(d),
                           b->vm.name, why);
        run_warn(run, "disk-skipped", d->id, "disk %s is not exported: %s", disk_label(d), why);
    }
    run->stats.disks = (int64_t)b->plan_count;
    return check_disk_count(&b->vm, b->plan_count, why, err);
}

/* What a copy of the disk will take. */
static uint64_t needed(const struct ovirt_disk *d)
{
    return d->sparse && d->actual_bytes ? d->actual_bytes : d->provisioned_bytes;
}

/* The clone lies beside the original for a while. */
static bool check_room(struct task_run *run, const struct backup *b, struct err *err)
{
    for (size_t s = 0; s < b->domains.count; s++) {
        const struct ovirt_storage_domain *sd = &b->domains.v[s];
        uint64_t need = 0;
        for (size_t i = 0; i < b->plan_count; i++) {
            const char *on = b->plan[i].disk->storage_domain_id;
            need += on && strcmp(on, sd->id) == 0 ? needed(b->plan[i].disk) : 0;
        }
        if (need == 0)
            continue;
        if (!check_domain(run->settings, sd, err))
            return false;
        if (need + run->settings->reserve_domain_bytes > sd->available_bytes)
            return err_set(err, ERR_NO_SPACE, 0,
                           "storage domain %s has %" PRIu64 " MiB free; the clone of VM %s needs "
                           "%" PRIu64 " MiB for a while, and %" PRIu64
                           " MiB must remain (reserve.storage_domain_mib)",
                           sd->name, sd->available_bytes >> 20, b->vm.name, need >> 20,
                           run->settings->reserve_domain_bytes >> 20);
    }
    return true;
}

bool step_export_precheck(struct task_run *run, struct err *err)
{
    struct export *x = run->state;
    struct backup *b = &x->base;
    if (!backup_check_vm(run, b, err) || !backup_check_snapshots(run, b, err) ||
        !ovirt_storage_domains_list(run->session, b->site.datacenter_id, &b->domains, err) ||
        !choose_disks(run, b, err) ||
        !(x->opts->domain ? find_domain(x, err) : find_host(run, x, err)))
        return false;
    return x->clone_id || check_room(run, b, err);
}

enum probe_answer probe_export_quiesce(struct task_run *run, struct err *err)
{
    const struct export *x = run->state;
    return x->clone_id ? PROBE_DONE : probe_quiesce(run, err);
}

enum probe_answer probe_export_snapshot(struct task_run *run, struct err *err)
{
    const struct export *x = run->state;
    return x->clone_id ? PROBE_DONE : probe_snapshot(run, err);
}
