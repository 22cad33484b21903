/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A part of another worker's restore: some of the new disks, filled by the same steps as a
 * restore's own. The disks are that task's, which their mark must say; nothing is made here, and
 * nothing removed.
 */
#include <inttypes.h>
#include <string.h>

#include "proto/base/alloc.h"
#include "proto/base/log.h"
#include "worker/ovirt/disk.h"
#include "worker/step/attached.h"
#include "worker/step/made.h"
#include "worker/step/restore.h"

void *restore_part_new(struct task_run *run, struct err *err)
{
    static const struct wire_restore_opts none = {0};
    const struct wire_part *part = run->offer->part;
    if (!part || !part->point || part->pieces.count == 0) {
        err_set(err, ERR_BAD_MESSAGE, 0, "a part of a restore must name a restore point and disks");
        return NULL;
    }
    struct restore *r = ALLOC_NEW(struct restore);
    r->opts = &none;
    r->disks = xcalloc(part->pieces.count, sizeof *r->disks);
    return r;
}

/* This worker had begun it before, and gave it back. */
bool step_clear_part(struct task_run *run, struct err *err)
{
    return transfers_cancel_all(run, err) && attached_detach_all(run, NULL, err);
}

static bool open_point(struct task_run *run, struct restore *r, struct err *err)
{
    const char *id = run->offer->part->point;
    r->point = store_point_open(run->store, id, err);
    if (!r->point)
        return err_wrap(err, "restore point '%s'", id);
    free(run->point);
    run->point = xstrdup(store_point_info(r->point)->id);
    return point_meta_parse(store_point_meta(r->point), &r->meta, err) ||
           err_wrap(err, "restore point '%s'", id);
}

/* --- Where ----------------------------------------------------------------------------------- */
/* The data center is the one that has the first disk's storage domain. */
static bool find_domains(struct task_run *run, struct restore *r, const char *domain_id,
                         const char *datacenter_id, struct err *err)
{
    if (r->datacenter_id || !datacenter_id)
        return true;
    ovirt_storage_domains_done(&r->domains);
    if (!ovirt_storage_domains_list(run->session, datacenter_id, &r->domains, err))
        return false;
    if (ovirt_storage_domains_find(&r->domains, domain_id))
        r->datacenter_id = datacenter_id;
    return true;
}

static bool find_datacenter(struct task_run *run, struct restore *r, const char *domain_id,
                            struct err *err)
{
    if (!find_domains(run, r, domain_id, r->site.datacenter_id, err))
        return false;
    for (size_t i = 0; r->by_upload && i < r->site.clusters.count; i++) {
        if (!find_domains(run, r, domain_id, r->site.clusters.v[i].datacenter_id, err))
            return false;
    }
    return r->datacenter_id ||
           err_set(err, ERR_UNSUPPORTED, 0, "storage domain %s is in no data center of this worker",
                   domain_id);
}

static bool choose_place(struct task_run *run, struct restore *r, const struct ovirt_disk *first,
                         struct err *err)
{
    if (!site_load_any(run, &r->site, err))
        return false;
    if (!r->by_upload && !r->site.proxy_id)
        return err_set(err, ERR_UNSUPPORTED, 0,
                       "new disks cannot be attached: this worker runs in no proxy VM of the "
                       "engine");
    if (!first->storage_domain_id)
        return err_set(err, ERR_ENGINE_PROTOCOL, 0, "disk %s is in no storage domain", first->id);
    return find_datacenter(run, r, first->storage_domain_id, err);
}

/* --- Which disks ----------------------------------------------------------------------------- */
static bool check_piece(const struct restore *r, const struct wire_piece *piece,
                        const struct point_disk *from, struct err *err)
{
    bool by_upload = piece->path && strcmp(piece->path, "imageio") == 0;
    if (piece->offset != 0 || piece->length != piece->size_bytes ||
        (uint64_t)piece->size_bytes != from->size_bytes || by_upload != r->by_upload)
        return err_set(err, ERR_BAD_MESSAGE, 0,
                       "a part of a restore is whole disks of the restore point, by one path: disk "
                       "%s is not",
                       piece->disk);
    return true;
}

static bool plan_disk(struct task_run *run, struct restore *r, const struct wire_piece *piece,
                      struct err *err)
{
    const struct point_disk *from = piece->from ? point_meta_disk(&r->meta, piece->from) : NULL;
    struct ovirt_disk made = {0};
    if (!id_is_valid(piece->disk))
        return err_set(err, ERR_BAD_MESSAGE, 0, "'%.100s' is no disk id", piece->disk);
    if (!from)
        return err_set(err, ERR_NOT_FOUND, 0, "the restore point has no disk '%s'",
                       piece->from ? piece->from : "?");
    if (!check_piece(r, piece, from, err) ||
        !made_disk_check(run, piece->disk, run->offer->part->of, err) ||
        !ovirt_disk_get(run->session, piece->disk, &made, err))
        return false;
    bool ok = r->datacenter_id || choose_place(run, r, &made, err);
    struct restore_disk *d = &r->disks[r->disk_count];
    d->from = from;
    d->domain = ok && made.storage_domain_id
                    ? ovirt_storage_domains_find(&r->domains, made.storage_domain_id)
                    : NULL;
    d->is_zero = d->domain && restore_is_zero(d->domain, made.format);
    (void)memcpy(d->id, piece->disk, sizeof d->id);
    ovirt_disk_done(&made);
    if (!ok)
        return false;
    if (!d->domain)
        return err_set(err, ERR_UNSUPPORTED, 0,
                       "disk %s is in no storage domain of this worker's data center", d->id);
    r->disk_count++;
    run->stats.bytes_total += (int64_t)from->size_bytes;
    return true;
}

bool step_plan_part(struct task_run *run, struct err *err)
{
    struct restore *r = run->state;
    const struct wire_pieces *pieces = &run->offer->part->pieces;
    r->by_upload = pieces->v[0].path && strcmp(pieces->v[0].path, "imageio") == 0;
    if (!open_point(run, r, err))
        return false;
    for (size_t i = 0; i < pieces->count; i++) {
        if (!plan_disk(run, r, &pieces->v[i], err))
            return false;
    }
    run->stats.disks = (int64_t)r->disk_count;
    log_info("part_planned", LOG_STR("of", run->offer->part->of), LOG_STR("point", run->point),
             LOG_U64("disks", r->disk_count));
    return true;
}
