/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The disks of a restore that other workers of the zone fill, each disk by one worker: giving them
 * away, and taking back what was not done. A disk may be on one VM at a time: who takes one back
 * takes it off the VM where a dead worker may have left it.
 */
#include <inttypes.h>
#include <string.h>

#include "proto/base/alloc.h"
#include "proto/base/log.h"
#include "worker/step/holders.h"
#include "worker/step/made.h"
#include "worker/step/restore.h"
#include "worker/step/share.h"
#include "worker/step/strays.h"

enum probe_answer probe_shared(struct task_run *run, struct err *err)
{
    const struct restore *r = run->state;
    return r->opts->workers > 1 ? probe_restored(run, err) : PROBE_UNWANTED;
}

/* Why all of it is ours; NULL when it is not. */
static const char *why_not_shared(const struct task_run *run, const struct restore *r)
{
    if (!parts_can(run))
        return "this worker runs one task only, for nobody who has others";
    if (r->disk_count < 2)
        return "a disk is filled by one worker, and there is only one";
    return NULL;
}

/* --- Giving away ----------------------------------------------------------------------------- */
/* How much data each disk has; where it lies does not matter, as none is cut. */
static bool look_at_data(const struct restore *r, struct share_disk *disks, struct extents *maps,
                         struct err *err)
{
    for (size_t i = 0; i < r->disk_count; i++) {
        uint64_t size = r->disks[i].from->size_bytes;
        SCOPED(store_reader)
        struct store_reader *reader = store_disk_open(r->point, r->disks[i].from->id, err);
        if (!reader)
            return false;
        uint64_t data = store_reader_data(reader);
        data = data < size ? data : size;
        r->disks[i].data_bytes = data;
        extents_add(&maps[i], 0, data, true);
        extents_add(&maps[i], data, size - data, false);
        disks[i] = (struct share_disk){.size_bytes = size, .data = &maps[i], .is_whole = true};
    }
    return true;
}

static void give_share(struct task_run *run, struct restore *r, const struct share *share)
{
    struct wire_pieces pieces = {.v = xcalloc(share->count, sizeof *pieces.v),
                                 .count = share->count};
    for (size_t i = 0; i < share->count; i++) {
        struct restore_disk *d = &r->disks[share->pieces[i].disk];
        d->part = r->parts.count + 1;
        pieces.v[i] = (struct wire_piece){
            .disk = xstrdup(d->id),
            .from = xstrdup(d->from->id),
            .path = xstrdup(r->by_upload ? "imageio" : "attach"),
            .size_bytes = (int64_t)d->from->size_bytes,
            .length = (int64_t)d->from->size_bytes,
        };
    }
    parts_add(run, &r->parts, &pieces)->ask.point = xstrdup(run->point);
}

static bool plan_shares(struct task_run *run, struct restore *r, struct err *err)
{
    SCOPED_FREE struct share_disk *disks = xcalloc(r->disk_count + 1, sizeof *disks);
    SCOPED_FREE struct extents *maps = xcalloc(r->disk_count + 1, sizeof *maps);
    struct share_opts opts = {.workers = (unsigned)r->opts->workers,
                              .align_bytes = run->settings->part_align_bytes,
                              .min_bytes = run->settings->part_min_bytes};
    bool ok = look_at_data(r, disks, maps, err);
    if (ok) {
        struct share_plan plan;
        share_out(disks, r->disk_count, &opts, &plan);
        for (size_t i = 1; i < plan.count; i++)
            give_share(run, r, &plan.v[i]);
        log_info("shared_out", LOG_U64("workers", plan.count), LOG_U64("own", plan.v[0].cost_bytes),
                 LOG_U64("pieces", plan.v[0].count));
        share_plan_done(&plan);
    }
    for (size_t i = 0; i < r->disk_count; i++)
        extents_done(&maps[i]);
    return ok;
}

bool step_share_disks(struct task_run *run, struct err *err)
{
    struct restore *r = run->state;
    const char *why = why_not_shared(run, r);
    if (why) {
        run_warn(run, "not-shared", NULL, "no other worker fills any disk: %s", why);
        return true;
    }
    if (!plan_shares(run, r, err) || r->parts.count == 0)
        return !err_is_set(err);
    if (!run_before_mutation(run, err))
        return false;
    parts_give(run, &r->parts);
    return true;
}

/* --- Taking back ----------------------------------------------------------------------------- */
/* Off whatever VM has it. The disk carries our mark and is on no VM of ours yet: only a proxy can
 * have it. */
static bool take_off(struct task_run *run, const struct holders *holders, const char *disk,
                     struct err *err)
{
    size_t at = SIZE_MAX;
    const struct holder *h;
    while ((h = holders_of(holders, disk, &at))) {
        SCOPED_FREE char *handle = xasprintf(HANDLE_ATTACHMENT "%s", disk);
        run_handle_set(run, handle, holders->vms[h->vm].id);
        if (!strays_detach_one(run, holders->vms[h->vm].id, disk, err))
            return false;
        run_handle_drop(run, handle);
    }
    return true;
}

bool restore_take_off(struct task_run *run, const char *const *disks, size_t count, struct err *err)
{
    SCOPED_HOLDERS struct holders holders = {0};
    if (count == 0)
        return true;
    if (!holders_read(run, NULL, &holders, err))
        return err_wrap(err, "look for VMs that hold a part's disk");
    for (size_t i = 0; i < count; i++) {
        if (!take_off(run, &holders, disks[i], err))
            return err_wrap(err, "take disk %s off a part's worker", disks[i]);
    }
    return true;
}

static struct part *part_of(struct restore *r, const struct restore_disk *d)
{
    return d->part > 0 ? &r->parts.v[d->part - 1] : NULL;
}

/* Disks that somebody may have begun to fill, and did not end well. */
static size_t collect_begun(struct restore *r, const size_t *which, size_t count,
                            const char **ret_disks)
{
    size_t n = 0;
    for (size_t i = 0; i < count; i++) {
        const struct restore_disk *d = &r->disks[which[i]];
        const struct part *part = part_of(r, d);
        if (part && part->fence > 0 && part->state != PART_DONE)
            ret_disks[n++] = d->id;
    }
    return n;
}

/* An upload that was given up has taken its disk with it, at once or soon. */
static bool make_anew(struct task_run *run, struct restore *r, size_t index, struct err *err)
{
    return made_disk_remove(run, r->disks[index].id, run->offer->task, err) &&
           restore_make_disk(run, r, index, err);
}

bool restore_take_back(struct task_run *run, struct restore *r, const size_t *which, size_t count,
                       struct err *err)
{
    SCOPED_FREE const char **begun = xcalloc(count + 1, sizeof *begun);
    size_t n_begun = collect_begun(r, which, count, begun);
    if (!r->by_upload && !restore_take_off(run, begun, n_begun, err))
        return false;
    for (size_t i = 0; i < count; i++) {
        struct restore_disk *d = &r->disks[which[i]];
        const struct part *part = part_of(r, d);
        bool is_begun = part && part->fence > 0;
        d->part = 0;
        if (r->by_upload && is_begun && !make_anew(run, r, which[i], err))
            return err_wrap(err, "take disk %s back from a part", d->id);
        if (!restore_open_disk(run, r, d, err))
            return err_wrap(err, "take disk %s back from a part", d->id);
    }
    return true;
}

bool undo_share_disks(struct task_run *run, struct err *err)
{
    struct restore *r = run->state;
    if (!parts_end(run, &r->parts, err))
        return false;
    SCOPED_FREE size_t *all = xcalloc(r->disk_count + 1, sizeof *all);
    SCOPED_FREE const char **begun = xcalloc(r->disk_count + 1, sizeof *begun);
    for (size_t i = 0; i < r->disk_count; i++)
        all[i] = i;
    /* Uploads are found by their disks, and go with these (made.h). */
    size_t count = collect_begun(r, all, r->disk_count, begun);
    return r->by_upload || restore_take_off(run, begun, count, err);
}
