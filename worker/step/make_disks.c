/* SPDX-License-Identifier: Apache-2.0 */
/* New, empty disks with ids that we choose, so that none can be lost. */
#include <string.h>

#include "proto/base/alloc.h"
#include "proto/base/log.h"
#include "worker/step/made.h"
#include "worker/step/restore.h"
#include "worker/step/strays.h"

enum { CLUSTER_BYTES = 64 << 10, LOOK_BYTES = 64 << 20 };

/* Bytes of data that the disk will hold: what a growing disk on block storage needs at once. */
static uint64_t data_bytes(const struct restore *r, const char *disk_id)
{
    for (size_t i = 0; i < store_point_disk_count(r->point); i++) {
        const struct store_point_disk *d = store_point_disk(r->point, i);
        if (strcmp(d->id, disk_id) == 0)
            return d->stats.read_bytes - d->stats.zero_bytes;
    }
    return 0;
}

/* What these ranges touch, in whole clusters. `next` is the first cluster not counted yet. */
static uint64_t count_clusters(const struct extents *list, uint64_t *next)
{
    uint64_t count = 0;
    for (size_t i = 0; i < list->count; i++) {
        const struct extent *e = &list->items[i];
        uint64_t first = e->offset / CLUSTER_BYTES;
        uint64_t end = (e->offset + e->len - 1) / CLUSTER_BYTES + 1;
        first = first > *next ? first : *next;
        if (!e->is_data || end <= first)
            continue;
        count += end - first;
        *next = end;
    }
    return count;
}

/* The clusters of a qcow2 image that the disk's data will fill. While it is uploaded nobody extends
 * its volume, as the host does for a disk of a running VM: this much must be there before. */
static bool cluster_bytes(const struct restore *r, const char *disk_id, uint64_t *ret,
                          struct err *err)
{
    SCOPED(store_reader)
    struct store_reader *reader = store_disk_open(r->point, disk_id, err);
    SCOPED_EXTENTS struct extents list = EXTENTS_INIT;
    uint64_t clusters = 0, next = 0, size = reader ? store_reader_size(reader) : 0;
    for (uint64_t at = 0; at < size; at += LOOK_BYTES) {
        extents_reset(&list);
        uint64_t len = size - at < LOOK_BYTES ? size - at : LOOK_BYTES;
        if (!store_disk_extents(reader, at, len, &list, err))
            return false;
        clusters += count_clusters(&list, &next);
    }
    *ret = clusters * CLUSTER_BYTES;
    return reader != NULL;
}

/* A preallocated volume on block storage holds what was there before. */
bool restore_is_zero(const struct ovirt_storage_domain *domain, const char *format)
{
    return !(domain->block && format && strcmp(format, "raw") == 0);
}

/* Asked for, not there yet. */
static bool begin_disk(struct task_run *run, struct restore *r, size_t index, struct err *err)
{
    SCOPED_FREE char *marker = run_marker_restoring(run);
    struct restore_disk *d = &r->disks[index];
    uint64_t data = data_bytes(r, d->from->id);
    if (r->by_upload && d->domain->block && !cluster_bytes(r, d->from->id, &data, err))
        return false;
    id_new(d->id);
    struct ovirt_disk_spec spec = {
        .id = d->id,
        .alias = d->from->alias,
        .description = marker,
        .storage_domain_id = d->domain->id,
        .format = d->from->format,
        .size_bytes = d->from->size_bytes,
        .initial_bytes = data + data / 16, /* and some for its own tables */
        .sparse = d->from->sparse,
        .wipe_after_delete = d->from->wipe_after_delete,
    };
    if (ovirt_disk_spec_fit(&spec, d->domain->block))
        run_warn(run, "disk-format-changed", d->from->id,
                 "storage domain %s cannot hold disk %s as it was: it becomes %s, %s",
                 d->domain->name, d->from->alias ? d->from->alias : d->from->id, spec.format,
                 spec.sparse ? "sparse" : "preallocated");
    d->is_zero = restore_is_zero(d->domain, spec.format);
    SCOPED_FREE char *handle = xasprintf(HANDLE_DISK "%zu", index);
    run_handle_set(run, handle, d->id);
    return ovirt_disk_create(run->session, &spec, err);
}

static bool wait_for_disk(struct task_run *run, const struct restore_disk *d, struct err *err)
{
    if (!ovirt_disk_wait_ok(run->session, d->id, run->settings->vm_wait_s * 1000, err))
        return false;
    log_info("disk_made", LOG_STR("disk", d->id), LOG_STR("from", d->from->id));
    return true;
}

bool restore_make_disk(struct task_run *run, struct restore *r, size_t index, struct err *err)
{
    return begin_disk(run, r, index, err) && wait_for_disk(run, &r->disks[index], err);
}

/* All at once: the engine takes its time with each. */
bool step_make_disks(struct task_run *run, struct err *err)
{
    struct restore *r = run->state;
    bool ok = true;
    size_t n = 0;
    for (size_t i = 0; ok && i < r->disk_count; i++) {
        n = i + 1;
        ok = begin_disk(run, r, i, err);
    }
    for (size_t i = 0; ok && i < r->disk_count; i++) {
        n = i + 1;
        ok = wait_for_disk(run, &r->disks[i], err);
    }
    return ok || err_wrap(err, "make disk %zu of %zu", n, r->disk_count);
}

/* A proxy may have it since the last look: from an earlier attempt's last call, or that of a part
 * of it. */
static bool remove_disk(struct task_run *run, const char *disk, struct err *err)
{
    const struct wire_restore_opts *opts = run->offer->restore;
    struct err why = ERR_INIT;
    bool ok = made_disk_remove(run, disk, run->offer->task, &why);
    if (!ok && strays_may_hold(run, &why)) {
        err_clear(&why);
        ok = strays_detach(run, disk, &why) && made_disk_remove(run, disk, run->offer->task, &why);
    }
    if (!ok && opts && opts->workers > 1 && strays_may_hold(run, &why)) {
        err_clear(&why);
        ok = restore_take_off(run, &disk, 1, &why) &&
             made_disk_remove(run, disk, run->offer->task, &why);
    }
    err_keep_first(err, &why);
    return ok;
}

bool undo_make_disks(struct task_run *run, struct err *err)
{
    bool ok = true;
    for (size_t i = run->handles.count; i-- > 0;) {
        const struct wire_handle *h = &run->handles.v[i];
        if (strncmp(h->name, HANDLE_DISK, strlen(HANDLE_DISK)) != 0)
            continue;
        struct err one = ERR_INIT;
        if (remove_disk(run, h->value, &one)) {
            SCOPED_FREE char *name = xstrdup(h->name);
            run_handle_drop(run, name);
            continue;
        }
        err_keep_first(err, &one);
        ok = false;
        if (one.code == ERR_LEASE_LOST)
            break;
    }
    return ok;
}
