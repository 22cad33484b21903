/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The first look of a part of another task's backup. That task has looked at the VM, made the
 * snapshot and planned the disks; what matters here is whether this worker can reach them.
 */
#include <string.h>

#include "proto/base/alloc.h"
#include "proto/base/log.h"
#include "worker/step/attached.h"
#include "worker/step/backup_copy.h"
#include "worker/step/checks.h"

static bool parse_path(const struct wire_piece *p, enum backup_path *ret, struct err *err)
{
    if (strcmp(p->path, backup_path_name(BACKUP_ATTACH)) == 0)
        *ret = BACKUP_ATTACH;
    else if (strcmp(p->path, backup_path_name(BACKUP_IMAGEIO)) == 0)
        *ret = BACKUP_IMAGEIO;
    else
        return err_set(err, ERR_UNSUPPORTED, 0, "disk %s by path '%s'", p->disk, p->path);
    return true;
}

static bool check_piece(const struct wire_piece *p, struct err *err)
{
    uint64_t end = (uint64_t)p->offset + (uint64_t)p->length, size = (uint64_t)p->size_bytes;
    if (p->offset % STORE_BLOCK_BYTES != 0 || (end % STORE_BLOCK_BYTES != 0 && end != size))
        return err_set(err, ERR_BAD_MESSAGE, 0, "a piece of disk %s is not of whole blocks",
                       p->disk);
    return true;
}

static const struct ovirt_disk *find_disk(const struct backup *b, const char *id)
{
    for (size_t i = 0; i < b->disks.count; i++) {
        if (strcmp(b->disks.v[i].id, id) == 0)
            return &b->disks.v[i];
    }
    return NULL;
}

static bool plan_piece(struct backup *b, const struct wire_piece *p, struct share_piece *ret,
                       struct err *err)
{
    size_t at = backup_plan_find(b, p->disk);
    enum backup_path path = BACKUP_PATHS;
    if (!check_piece(p, err) || !parse_path(p, &path, err))
        return false;
    if (at == b->plan_count) {
        const struct ovirt_disk *disk = find_disk(b, p->disk);
        if (!disk)
            return err_set(err, ERR_CONFLICT, 0, "VM %s has no disk %s any more", b->vm.name,
                           p->disk);
        b->plan[b->plan_count++] = (struct backup_disk){.disk = disk,
                                                        .path = path,
                                                        .image_id = xstrdup_or_null(p->image),
                                                        .size_bytes = (uint64_t)p->size_bytes,
                                                        .path_why = "the task it is a part of"};
    }
    const struct backup_disk *d = &b->plan[at];
    if (d->path != path || d->size_bytes != (uint64_t)p->size_bytes)
        return err_set(err, ERR_BAD_MESSAGE, 0, "the pieces of disk %s do not fit together",
                       p->disk);
    *ret = (struct share_piece){
        .disk = at, .offset = (uint64_t)p->offset, .len_bytes = (uint64_t)p->length};
    return true;
}

static bool plan_pieces(struct backup *b, struct err *err)
{
    const struct wire_pieces *pieces = &b->part->pieces;
    SCOPED_FREE struct share_piece *list = xcalloc(pieces->count, sizeof *list);
    b->plan = xcalloc(pieces->count, sizeof *b->plan);
    for (size_t i = 0; i < pieces->count; i++) {
        if (!plan_piece(b, &pieces->v[i], &list[i], err))
            return false;
    }
    share_sort(list, pieces->count);
    for (size_t i = 1; i < pieces->count; i++) {
        if (list[i].disk == list[i - 1].disk &&
            list[i].offset < list[i - 1].offset + list[i - 1].len_bytes)
            return err_set(err, ERR_BAD_MESSAGE, 0, "two pieces of disk %s overlap",
                           b->plan[list[i].disk].disk->id);
    }
    backup_set_only(b, list, pieces->count);
    return true;
}

static bool check_disks(struct task_run *run, const struct backup *b, struct err *err)
{
    for (size_t i = 0; i < b->plan_count; i++) {
        if (b->plan[i].path == BACKUP_ATTACH &&
            !attached_check_free(run, &b->site, b->plan[i].disk->id, err))
            return false;
    }
    return true;
}

bool step_part_precheck(struct task_run *run, struct err *err)
{
    struct backup *b = run->state;
    uint64_t free_bytes = 0;
    if (!site_load(run, &b->site, err) || !transfers_cancel_all(run, err) ||
        !ovirt_vm_get(run->session, run->offer->vm, &b->vm, err) ||
        !check_place(&b->site, &b->vm, err) || !attached_detach_all(run, b->site.proxy_id, err))
        return false;
    return ovirt_vm_disks(&b->vm, &b->disks, err) && plan_pieces(b, err) &&
           check_disks(run, b, err) && store_free_space(run->store, &free_bytes, err) &&
           check_store_space(run->settings, free_bytes, err) &&
           ovirt_storage_domains_list(run->session, b->site.datacenter_id, &b->domains, err);
}
