/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/step/holders.h"

#include <string.h>

#include "proto/base/alloc.h"
#include "worker/ovirt/attachment.h"
#include "worker/ovirt/vm.h"

void holders_done(struct holders *h)
{
    for (size_t i = 0; i < h->vm_count; i++) {
        free(h->vms[i].id);
        free(h->vms[i].name);
        free(h->vms[i].description);
    }
    for (size_t i = 0; i < h->count; i++)
        free(h->v[i].disk);
    free(h->vms);
    free(h->v);
    *h = (struct holders){0};
}

static bool on_row(void *ctx, const struct ovirt_vm_row *row, struct err *err)
{
    (void)err;
    struct holders *h = ctx;
    h->vms = xreallocarray(h->vms, h->vm_count + 1, sizeof *h->vms);
    h->vms[h->vm_count++] = (struct holder_vm){
        .id = xstrdup(row->id),
        .name = xstrdup_or_null(row->name),
        .description = xstrdup(row->description ? row->description : ""),
    };
    return true;
}

static bool read_disks(struct task_run *run, struct holders *h, size_t vm, struct err *err)
{
    struct ovirt_attachments list = {0};
    if (!run_check(run, err))
        return false;
    if (!ovirt_attachments_list(run->session, h->vms[vm].id, &list, err)) {
        if (err->code != ERR_NOT_FOUND)
            return false;
        err_clear(err); /* it has gone since */
        return true;
    }
    h->v = xreallocarray(h->v, h->count + list.count + 1, sizeof *h->v);
    for (size_t i = 0; i < list.count; i++)
        h->v[h->count++] = (struct holder){.vm = vm, .disk = xstrdup(list.v[i].disk_id)};
    ovirt_attachments_done(&list);
    return true;
}

bool holders_read(struct task_run *run, const struct ovirt_clusters *clusters, struct holders *ret,
                  struct err *err)
{
    SCOPED_HOLDERS struct holders h = {0};
    if (!ovirt_vm_search(run->session, &(struct ovirt_vm_search){.clusters = clusters}, on_row, &h,
                         err))
        return false;
    for (size_t vm = 0; vm < h.vm_count; vm++) {
        if (!read_disks(run, &h, vm, err))
            return false;
    }
    *ret = h;
    h = (struct holders){0};
    return true;
}

const struct holder *holders_of(const struct holders *h, const char *disk, size_t *at)
{
    for (size_t i = *at == SIZE_MAX ? 0 : *at + 1; i < h->count; i++) {
        if (strcmp(h->v[i].disk, disk) == 0) {
            *at = i;
            return &h->v[i];
        }
    }
    return NULL;
}
