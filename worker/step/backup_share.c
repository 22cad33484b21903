/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Giving parts of a backup to other workers of the zone, and removing what is left of that. What is
 * copied by an image transfer goes as whole disks: the engine locks a disk that is being
 * transferred. A device can be attached to several proxy VMs at once, so that there a disk can be
 * cut.
 */
#include <inttypes.h>

#include "proto/base/alloc.h"
#include "proto/base/log.h"
#include "worker/step/backup_copy.h"
#include "worker/store/upkeep.h"

#define HOLE_BYTES (UINT64_C(1) << 20) /* holes at least so large are in no part */

enum probe_answer probe_share(struct task_run *run, struct err *err)
{
    (void)err;
    const struct backup *b = run->state;
    if (b->opts.workers <= 1)
        return PROBE_UNWANTED;
    return b->stands ? PROBE_DONE : PROBE_TODO;
}

/* Why all of it is ours; NULL when it is not. */
static const char *why_not_shared(const struct task_run *run, const struct backup *b)
{
    if (!parts_can(run))
        return "this worker runs one task only, for nobody who has others";
    if (b->by_cbt)
        return "a backup of the engine's own has one transfer a disk, which is this worker's";
    return NULL;
}

/* Where the host has told, which ranges hold data. */
static void read_map(const struct backup_disk *d, struct extents *ret)
{
    for (size_t i = 0; i < d->map.count; i++)
        extents_add(ret, d->map.v[i].offset, d->map.v[i].len, !d->map.v[i].zero);
}

static void plan_shares(const struct task_run *run, const struct backup *b, struct share_plan *ret)
{
    SCOPED_FREE struct share_disk *disks = xcalloc(b->plan_count, sizeof *disks);
    SCOPED_FREE struct extents *maps = xcalloc(b->plan_count, sizeof *maps);
    for (size_t i = 0; i < b->plan_count; i++) {
        const struct backup_disk *d = &b->plan[i];
        read_map(d, &maps[i]);
        disks[i] = (struct share_disk){
            .size_bytes = d->size_bytes, .data = &maps[i], .is_whole = d->path != BACKUP_ATTACH};
    }
    struct share_opts opts = {.workers = (unsigned)b->opts.workers,
                              .align_bytes = run->settings->part_align_bytes,
                              .min_bytes = run->settings->part_min_bytes,
                              .hole_bytes = HOLE_BYTES};
    share_out(disks, b->plan_count, &opts, ret);
    for (size_t i = 0; i < b->plan_count; i++)
        extents_done(&maps[i]);
}

static void add_part(struct task_run *run, struct backup *b, const struct share *share)
{
    struct wire_pieces pieces = {.v = xcalloc(share->count, sizeof *pieces.v)};
    for (size_t i = 0; i < share->count; i++) {
        const struct share_piece *p = &share->pieces[i];
        const struct backup_disk *d = &b->plan[p->disk];
        pieces.v[pieces.count++] = (struct wire_piece){.disk = xstrdup(d->disk->id),
                                                       .image = xstrdup_or_null(d->image_id),
                                                       .path = xstrdup(backup_path_name(d->path)),
                                                       .size_bytes = (int64_t)d->size_bytes,
                                                       .offset = (int64_t)p->offset,
                                                       .length = (int64_t)p->len_bytes};
    }
    struct part *part = parts_add(run, &b->parts, &pieces);
    part->ask.snapshot = xstrdup(handles_get(&run->handles, HANDLE_SNAPSHOT));
}

bool step_share(struct task_run *run, struct err *err)
{
    struct backup *b = run->state;
    const char *why = why_not_shared(run, b);
    if (why) {
        run_warn(run, "not-shared", NULL, "no other worker copies any of it: %s", why);
        return true;
    }
    struct share_plan plan;
    plan_shares(run, b, &plan);
    for (size_t i = 1; i < plan.count; i++)
        add_part(run, b, &plan.v[i]);
    log_info("shared_out", LOG_U64("workers", plan.count), LOG_U64("own", plan.v[0].cost_bytes),
             LOG_U64("pieces", plan.v[0].count));
    bool ok = true;
    if (plan.count > 1) {
        backup_set_only(b, plan.v[0].pieces, plan.v[0].count);
        ok = run_before_mutation(run, err);
        if (ok)
            parts_give(run, &b->parts);
    }
    share_plan_done(&plan);
    return ok;
}

/* ---- afterwards */

static void drop_handles(struct task_run *run)
{
    const struct wire_handle *h;
    while ((h = handles_next(&run->handles, HANDLE_PART, 0))) {
        SCOPED_FREE char *name = xstrdup(h->name);
        run_handle_drop(run, name);
    }
}

/* Of this attempt and of earlier ones. `all_ended`: and no other will come. */
static bool delete_points(struct task_run *run, bool all_ended, struct err *err)
{
    size_t deleted = 0;
    if (!run_before_mutation(run, err) ||
        !store_part_points_delete(run->store, run->offer->task, &deleted, err))
        return false;
    if (deleted > 0)
        log_info("parts_deleted", LOG_U64("points", deleted));
    if (all_ended)
        drop_handles(run);
    return true;
}

bool backup_revoke_part(struct task_run *run, const struct part *part, bool *ret_committed,
                        struct err *err)
{
    *ret_committed = false;
    if (!part->task || part->fence <= 0)
        return true; /* nobody has begun it */
    SCOPED_FREE char *session = xasprintf("%s.%" PRId64, part->task, part->fence);
    return (run_before_mutation(run, err) &&
            store_session_revoke(run->store, session, ret_committed, err)) ||
           err_wrap(err, "revoke session %s of a part", session);
}

/* Whoever believes to have one still must not leave a point that nobody waits for. */
static void revoke_undone(struct task_run *run, const struct backup *b)
{
    for (size_t i = 0; i < b->parts.count; i++) {
        struct err err = ERR_INIT;
        bool committed = false;
        if (b->parts.v[i].state == PART_UNDONE &&
            !backup_revoke_part(run, &b->parts.v[i], &committed, &err))
            log_err(LOG_LEVEL_WARN, "part_not_revoked", &err);
    }
}

/* They hold the snapshot. */
static bool end_all(struct task_run *run, struct backup *b, struct err *err)
{
    bool ok = parts_end(run, &b->parts, err);
    if (!err_is_set(err))
        revoke_undone(run, b);
    struct err one = ERR_INIT;
    if (!err_is_set(err) || err->code == ERR_TIMEOUT) {
        if (!delete_points(run, ok, &one)) {
            err_keep_first(err, &one);
            ok = false;
        }
    }
    return ok;
}

bool undo_share(struct task_run *run, struct err *err)
{
    struct backup *b = run->state;
    return b->opts.workers <= 1 || end_all(run, b, err);
}

enum probe_answer probe_drop_parts(struct task_run *run, struct err *err)
{
    (void)err;
    const struct backup *b = run->state;
    return b->opts.workers <= 1 ? PROBE_UNWANTED : PROBE_TODO;
}

bool step_drop_parts(struct task_run *run, struct err *err)
{
    return end_all(run, run->state, err);
}
