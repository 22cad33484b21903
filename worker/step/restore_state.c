/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/base/alloc.h"
#include "worker/step/restore.h"

void *restore_new(struct task_run *run, struct err *err)
{
    const struct wire_restore_opts *opts = run->offer->restore;
    if (!opts || (!opts->point && !opts->vm)) {
        err_set(err, ERR_BAD_MESSAGE, 0, "a restore task must name a restore point or a VM");
        return NULL;
    }
    struct restore *r = ALLOC_NEW(struct restore);
    r->opts = opts;
    return r;
}

void restore_free(void *state)
{
    struct restore *r = state;
    if (!r)
        return;
    for (size_t i = 0; i < r->disk_count; i++) {
        free(r->disks[i].device);
        disk_transfer_forget(&r->disks[i].transfer);
    }
    free(r->disks);
    parts_done(&r->parts);
    site_done(&r->site);
    store_point_free(r->point);
    point_meta_done(&r->meta);
    json_decref(r->vm_json);
    free(r->name);
    ovirt_storage_domains_done(&r->domains);
    free(r);
}

enum probe_answer probe_restored(struct task_run *run, struct err *err)
{
    (void)err;
    const struct restore *r = run->state;
    return r->stands ? PROBE_DONE : PROBE_TODO;
}

enum probe_answer probe_by_attach(struct task_run *run, struct err *err)
{
    const struct restore *r = run->state;
    return r->by_upload ? PROBE_UNWANTED : probe_restored(run, err);
}

enum probe_answer probe_by_upload(struct task_run *run, struct err *err)
{
    const struct restore *r = run->state;
    return r->by_upload ? probe_restored(run, err) : PROBE_UNWANTED;
}
