/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The end of a shared copy: what other workers have copied is taken over by reference, what they
 * have not is copied here. A part that another worker is still at is waited for; whatever becomes
 * of it, the backup is complete in the end, or fails for a reason of its own.
 */
#include <inttypes.h>
#include <string.h>

#include "proto/base/alloc.h"
#include "proto/base/log.h"
#include "worker/step/backup_copy.h"
#include "worker/step/point_meta.h"

enum { LOOK_MS = 300 };
#define KEEP_BYTES (UINT64_C(1) << 30) /* taken over in one go, between two looks at a cancel */

enum probe_answer probe_gather(struct task_run *run, struct err *err)
{
    (void)err;
    const struct backup *b = run->state;
    if (b->stands && b->opts.workers > 1)
        return PROBE_DONE;
    return b->parts.count > 0 ? PROBE_TODO : PROBE_UNWANTED;
}

/* What is left to copy here. */
struct todo {
    struct share_piece *v;
    size_t count;
};

static void add_todo(struct todo *t, size_t disk, uint64_t offset, uint64_t len)
{
    t->v = xreallocarray(t->v, t->count + 1, sizeof *t->v);
    t->v[t->count++] = (struct share_piece){.disk = disk, .offset = offset, .len_bytes = len};
}

static void redo(struct backup *b, const struct part *part, struct todo *todo)
{
    for (size_t i = 0; i < part->ask.pieces.count; i++) {
        const struct wire_piece *p = &part->ask.pieces.v[i];
        add_todo(todo, backup_plan_find(b, p->disk), (uint64_t)p->offset, (uint64_t)p->length);
    }
}

/* ---- taking over */

/* The point that the part has committed, if it is what it should be. */
static struct store_point *open_point(struct task_run *run, const struct part *part,
                                      struct err *err)
{
    if (!part->point) {
        err_set(err, ERR_NOT_FOUND, 0, "the coordinator names no point");
        return NULL;
    }
    struct store_point *point = store_point_open_any(run->store, part->point, err);
    if (!point)
        return NULL;
    const struct store_point_info *info = store_point_info(point);
    const json_t *snapshot = json_object_get(store_point_meta(point), "snapshot");
    const char *name = json_string_value(snapshot);
    if (strcmp(info->id, part->point) == 0 && info->part_of &&
        strcmp(info->part_of, run->offer->task) == 0 && name &&
        strcmp(name, part->ask.snapshot) == 0)
        return point;
    err_set(err, ERR_CONFLICT, 0, "point %s is not of this task and snapshot", part->point);
    store_point_free(point);
    return NULL;
}

/* All readers of a part, or none: one that lacks a disk is of no use. */
static bool open_readers(const struct backup *b, const struct part *part, struct store_point *point,
                         struct store_reader **readers, struct err *err)
{
    for (size_t i = 0; i < part->ask.pieces.count; i++) {
        const struct wire_piece *p = &part->ask.pieces.v[i];
        size_t disk = backup_plan_find(b, p->disk);
        if (readers[disk])
            continue;
        readers[disk] = store_disk_open(point, p->disk, err);
        if (!readers[disk])
            return false;
        if (store_reader_size(readers[disk]) != b->plan[disk].size_bytes)
            return err_set(err, ERR_CONFLICT, 0, "disk %s has another size there", p->disk);
    }
    return true;
}

static bool keep_piece(struct task_run *run, struct store_stream *stream, struct backup_disk *d,
                       struct store_reader *from, const struct share_piece *p, struct todo *todo,
                       struct err *err)
{
    SCOPED_EXTENTS struct extents lost = EXTENTS_INIT;
    for (uint64_t at = 0; at < p->len_bytes;) {
        uint64_t len = p->len_bytes - at < KEEP_BYTES ? p->len_bytes - at : KEEP_BYTES;
        if (!run_check(run, err) ||
            !store_stream_keep_from(stream, d->stored, from, p->offset + at, len, &lost, err))
            return false;
        for (size_t i = 0; i < lost.count; i++) {
            if (lost.items[i].is_data)
                add_todo(todo, p->disk, lost.items[i].offset, lost.items[i].len);
        }
        at += len;
    }
    return true;
}

static bool keep_part(struct task_run *run, struct backup *b, const struct part *part,
                      struct store_reader **readers, struct todo *todo, struct err *err)
{
    struct store_stream *stream = store_stream_begin(b->session, err);
    bool ok = stream != NULL;
    for (size_t i = 0; ok && i < part->ask.pieces.count; i++) {
        const struct wire_piece *p = &part->ask.pieces.v[i];
        struct share_piece piece = {.disk = backup_plan_find(b, p->disk),
                                    .offset = (uint64_t)p->offset,
                                    .len_bytes = (uint64_t)p->length};
        ok = keep_piece(run, stream, &b->plan[piece.disk], readers[piece.disk], &piece, todo, err);
    }
    store_stream_end(stream);
    return ok;
}

/* By reference: nothing is read, nothing is stored. A point that cannot be used costs the copy. */
static bool take_over(struct task_run *run, struct backup *b, const struct part *part,
                      struct todo *todo, struct err *err)
{
    struct err why = ERR_INIT;
    SCOPED(store_point) struct store_point *point = open_point(run, part, &why);
    SCOPED_FREE struct store_reader **readers = xcalloc(b->plan_count, sizeof *readers);
    bool usable = point && open_readers(b, part, point, readers, &why);
    bool ok = true;
    if (usable) {
        ok = keep_part(run, b, part, readers, todo, err);
        log_info("part_taken", LOG_I64("part", part->ask.n), LOG_STR("worker", part->worker),
                 LOG_STR("point", part->point));
    } else {
        run_warn(run, "part-not-used", NULL,
                 "what worker %s has copied is copied again, because it cannot be used: %s",
                 part->worker ? part->worker : "?", why.message);
        redo(b, part, todo);
    }
    for (size_t i = 0; i < b->plan_count; i++)
        store_reader_free(readers[i]);
    return ok;
}

/* ---- all parts */

/* One that has committed, and did not live to tell, is as good as any. */
static bool settle(struct task_run *run, struct part *part, struct err *err)
{
    bool committed = false;
    if (!backup_revoke_part(run, part, &committed, err))
        return false;
    if (!committed)
        return true;
    log_info("part_committed_after_all", LOG_I64("part", part->ask.n), LOG_STR("why", part->why));
    free(part->point);
    part->point = xasprintf("%s.%" PRId64, part->task, part->fence);
    part->state = PART_DONE;
    return true;
}

/* Every part that has ended: into the session, or on the list. */
static bool take_ended(struct task_run *run, struct backup *b, struct todo *todo, struct err *err)
{
    for (size_t i = 0; i < b->parts.count; i++) {
        struct part *part = &b->parts.v[i];
        if (part->is_taken || !part_has_ended(part))
            continue;
        part->is_taken = true;
        if (part->state == PART_UNDONE && !settle(run, part, err))
            return false;
        if (part->state == PART_DONE) {
            if (!take_over(run, b, part, todo, err))
                return false;
            continue;
        }
        if (part->worker)
            run_warn(run, "part-undone", NULL, "worker %s has not copied its part: %s",
                     part->worker, part->why);
        redo(b, part, todo);
    }
    return true;
}

static bool copy_todo(struct task_run *run, struct backup *b, const struct backup_watches *w,
                      const struct todo *todo, struct err *err)
{
    backup_set_only(b, todo->v, todo->count);
    for (size_t i = 0; i < b->plan_count; i++) {
        struct backup_disk *d = &b->plan[i];
        bool ok = true;
        if (!backup_is_ours(d))
            continue;
        if (d->path == BACKUP_ATTACH && !d->device)
            ok = backup_attach_disk(run, b, d, err) && backup_wait_device(run, d, err);
        else if (d->path != BACKUP_ATTACH && !d->transfer.io)
            ok = backup_open_disk(run, b, d, err);
        if (!ok)
            return false;
    }
    return backup_copy_disks(run, b, w, err);
}

static bool all_are_taken(const struct parts *p)
{
    for (size_t i = 0; i < p->count; i++) {
        if (!p->v[i].is_taken)
            return false;
    }
    return true;
}

static bool gather(struct task_run *run, struct backup *b, const struct backup_watches *w,
                   struct err *err)
{
    while (!all_are_taken(&b->parts)) {
        struct todo todo = {0};
        parts_look(run, &b->parts);
        parts_withdraw_idle(run, &b->parts);
        bool ok = take_ended(run, b, &todo, err);
        size_t count = todo.count;
        if (ok && count > 0)
            ok = copy_todo(run, b, w, &todo, err);
        free(todo.v);
        /* A coordinator that is away is waited for as long as before a mutation, not longer. */
        if (!ok || !run_before_mutation(run, err) ||
            (count == 0 && !all_are_taken(&b->parts) && !run_sleep(run, LOOK_MS, err)))
            return false;
    }
    for (size_t i = 0; i < b->plan_count; i++) {
        if (!backup_finish_disk(&b->plan[i], err))
            return false;
    }
    return true;
}

bool step_gather(struct task_run *run, struct err *err)
{
    struct backup *b = run->state;
    struct backup_watches watches = backup_watches_begin(run, b);
    bool ok = gather(run, b, &watches, err);
    backup_watches_end(&watches, ok, err);
    backup_take_stats(run, b);
    parts_warn_idle(run, &b->parts, "copied");
    return ok;
}
