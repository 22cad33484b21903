/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine's own backup: a frozen view of all disks, and where there is a checkpoint to start
 * from, what has changed since.
 *
 * It starts from the checkpoint of a committed restore point of this repository and no other: what
 * is not read is taken from exactly that point. A checkpoint of an attempt that died is no point's,
 * so it is never trusted. Whatever makes the checkpoint unusable (the engine has lost it, calls it
 * invalid, fails with it, does not tell of a disk, a disk was resized or moved) makes a full backup
 * of it, with the reason as a warning.
 *
 * The backup's id is ours and its handle is set before the engine is asked, so that none is lost.
 */
#include <inttypes.h>
#include <string.h>

#include "proto/base/alloc.h"
#include "proto/base/id.h"
#include "proto/base/log.h"
#include "worker/step/backup.h"
#include "worker/step/engine_backup.h"
#include "worker/step/gone.h"
#include "worker/step/point_meta.h"
#include "worker/step/strays.h"

enum {
    CHECKPOINT_LIMIT_MS = 60 * 1000,
    BASE_POINTS_MAX = 32, /* so many points back a checkpoint is looked for */
};

/* --- What to start from ----------------------------------------------------------------------- */

/* Does the point say of a checkpoint, and does the engine have it? Gives the reason why not. */
static char *point_checkpoint(const struct backup *b, struct store_point *point, char **ret_why)
{
    struct err err = ERR_INIT;
    struct point_meta meta = {0};
    if (!point_meta_parse(store_point_meta(point), &meta, &err) || !meta.checkpoint) {
        point_meta_done(&meta);
        return NULL;
    }
    char *id = TAKE(meta.checkpoint);
    point_meta_done(&meta);
    const struct ovirt_checkpoint *have = ovirt_checkpoints_find(&b->checkpoints, id);
    if (have && !have->is_invalid)
        return id;
    if (!*ret_why)
        *ret_why =
            xasprintf("the engine %s checkpoint %s of restore point %s",
                      have ? "calls invalid" : "does not have", id, store_point_info(point)->id);
    free(id);
    return NULL;
}

/* The newest point whose checkpoint the engine still has. Returns the checkpoint's id (the caller
 * frees) with the point in b->base; NULL, perhaps with a reason, when there is none. */
static char *choose_base(struct task_run *run, struct backup *b, char **ret_why)
{
    struct err err = ERR_INIT;
    struct store_point_list list = {0};
    struct store_point_filter filter = {.vm_id = b->vm.id};
    if (!store_points_list(run->store, &filter, &list, &err)) {
        *ret_why = xasprintf("the restore points of the VM cannot be listed: %s", err.message);
        return NULL;
    }
    char *checkpoint = NULL;
    size_t oldest = list.count > BASE_POINTS_MAX ? list.count - BASE_POINTS_MAX : 0;
    for (size_t i = list.count; i-- > oldest && !checkpoint;) {
        err_clear(&err);
        struct store_point *point =
            list.items[i].damage ? NULL : store_point_open(run->store, list.items[i].id, &err);
        if (!point)
            continue;
        checkpoint = point_checkpoint(b, point, ret_why);
        if (checkpoint)
            b->base = point;
        else
            store_point_free(point);
        if (!checkpoint && b->checkpoints.count == 0 && *ret_why)
            break; /* no older one can be better */
    }
    store_point_list_done(&list);
    return checkpoint;
}

static void forget_base(struct backup *b)
{
    store_point_free(b->base);
    b->base = NULL;
}

/* --- Asking ----------------------------------------------------------------------------------- */

/* The VM may be held by a backup that an earlier attempt asked for, and that the engine began only
 * now. And a guest that is frozen does not wait with us: thaw, wait, freeze, ask again. */
static char *ask_until_free(struct task_run *run, struct backup *b, struct ovirt_backup_spec *spec,
                            struct err *err)
{
    const struct engine_conf *conf = engine_session_conf(run->session);
    int64_t until_ms = clock_mono_ms(run->clock) + conf->busy_budget_ms;
    struct backoff wait = BACKOFF(conf->busy_min_ms, conf->busy_max_ms);
    bool again = run->offer->attempt > 1, freeze = b->frozen != NULL;
    spec->no_wait = again || freeze;
    char *id = ovirt_backup_begin(run->session, b->vm.id, spec, err);
    while (!id && spec->no_wait && err->code == ERR_ENGINE_BUSY &&
           clock_mono_ms(run->clock) < until_ms) {
        struct err stop = ERR_INIT;
        if (freeze)
            (void)backup_end_freeze(run, b);
        if ((again && !strays_end_backups(run, &stop)) ||
            !run_sleep(run, backoff_next_ms(&wait), &stop) ||
            (freeze && !step_quiesce(run, &stop))) {
            *err = stop;
            return NULL;
        }
        err_clear(err);
        id = ovirt_backup_begin(run->session, b->vm.id, spec, err);
    }
    return id;
}

static bool can_be_hybrid(const struct backup *b)
{
    return engine_version_cmp(&b->site.version, 4, 5, 0) >= 0;
}

struct named {
    struct task_run *run;
    const char *vm_id;
};

static void named_snapshot(void *ctx, const char *snapshot_id)
{
    const struct named *n = ctx;
    engine_snapshot_handle(n->run, n->vm_id, snapshot_id);
}

static bool ask(struct task_run *run, struct backup *b, const char *from, bool consistent,
                struct ovirt_backup *ret, struct err *err)
{
    char wanted[ID_BYTES];
    SCOPED_FREE char *marker = run_marker(run);
    SCOPED_FREE const char **disks = xcalloc(b->plan_count, sizeof *disks);
    for (size_t i = 0; i < b->plan_count; i++)
        disks[i] = b->plan[i].disk->id;
    id_new(wanted);
    struct ovirt_backup_spec spec = {.id = wanted,
                                     .description = marker,
                                     .from_checkpoint = from,
                                     .disk_ids = disks,
                                     .disk_count = b->plan_count,
                                     .consistent = consistent,
                                     .legacy = !b->hybrid && can_be_hybrid(b)};
    run_handle_set(run, HANDLE_BACKUP, wanted);
    SCOPED_FREE char *id = ask_until_free(run, b, &spec, err);
    if (!id)
        return false; /* the handle stays: nobody knows whether it is there */
    if (strcmp(id, wanted) != 0)
        run_handle_set(run, HANDLE_BACKUP, id);
    struct named named = {.run = run, .vm_id = b->vm.id};
    struct ovirt_backup_wait how = {.limit_ms = run->settings->snapshot_wait_s * 1000,
                                    .on_snapshot = named_snapshot,
                                    .ctx = &named};
    return ovirt_backup_wait_ready(run->session, b->vm.id, id, &how, ret, err);
}

/* The engine will not take the request as it is. */
static bool is_refusal(const struct err *err)
{
    return err->sys != 0 && (err->code == ERR_NOT_FOUND || err->code == ERR_ENGINE_REFUSED ||
                             err->code == ERR_UNSUPPORTED || err->code == ERR_CONFLICT);
}

/* It has taken it, and the backup failed. */
static bool is_failure(const struct err *err)
{
    return err->sys == 0 && err->code == ERR_ENGINE_FAULT;
}

/* Is the checkpoint still what it was? A backup that fails says nothing of why. */
static bool is_broken(struct task_run *run, const struct backup *b, const char *checkpoint)
{
    struct err ignored = ERR_INIT;
    struct ovirt_checkpoints now = {0};
    if (!ovirt_checkpoints_list(run->session, b->vm.id, &now, &ignored))
        return true;
    const struct ovirt_checkpoint *have = ovirt_checkpoints_find(&now, checkpoint);
    bool broken = !have || have->is_invalid;
    ovirt_checkpoints_done(&now);
    return broken;
}

static void warn_full(struct task_run *run, const char *disk, const char *why)
{
    run_warn(run, "full-backup", disk, "%s%s is backed up as a whole: %s",
             disk ? "disk " : "the VM", disk ? disk : "", why);
}

/* Ask for all that is wished for, then for less: first without what seems to be in the way. The
 * engine freezes the guest itself, but not so for a hybrid backup that anybody could be sure. */
static bool ask_down(struct task_run *run, struct backup *b, char **from, struct ovirt_backup *ret,
                     struct err *err)
{
    bool runs = strcmp(b->vm.status, "down") != 0;
    bool consistent = runs && b->opts.quiesce != WIRE_QUIESCE_OFF && !b->hybrid;
    for (;;) {
        b->quiesced = false;
        if (b->hybrid && !step_quiesce(run, err))
            return false;
        bool asked = ask(run, b, *from, consistent, ret, err);
        if (b->hybrid && !backup_judge_freeze(run, b, asked, err))
            return false;
        if (asked) {
            if (!b->hybrid)
                b->quiesced = !runs || (consistent && !ret->snapshot);
            return true;
        }
        struct err why = *err;
        if (!(is_refusal(&why) || is_failure(&why)) || !run_check(run, &(struct err)ERR_INIT))
            return false;
        err_clear(err);
        if (!step_finalize(run, err))
            return false;
        bool broken = *from && (is_refusal(&why) || is_broken(run, b, *from));
        if (*from && (broken || !(consistent || b->hybrid))) {
            warn_full(run, NULL, why.message);
            free(TAKE(*from));
            forget_base(b);
        } else if (consistent && is_failure(&why) && b->opts.quiesce != WIRE_QUIESCE_REQUIRE) {
            run_warn(run, "not-quiesced", NULL,
                     "the backup failed with the guest's file systems to be frozen, and is made "
                     "without that; it is crash-consistent: %s",
                     why.message);
            consistent = false;
        } else {
            *err = why;
            return b->hybrid || b->opts.quiesce != WIRE_QUIESCE_REQUIRE || !is_failure(&why)
                       ? false
                       : err_wrap(err,
                                  "with quiesce=require a guest that cannot be frozen fails it");
        }
    }
}

/* --- Per disk --------------------------------------------------------------------------------- */

/* Why the disk's changes cannot be laid upon the base; NULL = they can. */
static const char *base_obstacle(const struct backup *b, const struct point_meta *base,
                                 const struct backup_disk *d)
{
    const struct point_disk *was = point_meta_disk(base, d->disk->id);
    struct err ignored = ERR_INIT;
    if (!was)
        return "the last restore point does not have it";
    if (was->size_bytes != d->size_bytes)
        return "it was resized";
    if (was->storage_domain_id && d->disk->storage_domain_id &&
        strcmp(was->storage_domain_id, d->disk->storage_domain_id) != 0)
        return "it was moved to another storage domain";
    SCOPED(store_reader) struct store_reader *reader = store_disk_open(b->base, was->id, &ignored);
    if (!reader || store_reader_size(reader) != d->size_bytes)
        return "the last restore point cannot be read";
    return NULL;
}

static const struct ovirt_backup_disk *in_backup(const struct ovirt_backup_disks *disks,
                                                 const char *id)
{
    for (size_t i = 0; i < disks->count; i++) {
        if (strcmp(disks->v[i].id, id) == 0)
            return &disks->v[i];
    }
    return NULL;
}

/* A disk without incremental backup is always read whole; that is said once, when it turns up. */
static const char *why_whole(const struct backup *b, const struct point_meta *base,
                             const struct ovirt_backup_disk *now, const struct backup_disk *d)
{
    if (!d->disk->incremental)
        return point_meta_disk(base, d->disk->id)
                   ? NULL
                   : "incremental backup is off for it, now and later";
    return now && now->is_incremental
               ? base_obstacle(b, base, d)
               : "the engine gives all of it (it was not in the last checkpoint)";
}

/* The size is that of the backup's instant: the disk may have grown since the precheck. */
static void choose_disk(struct task_run *run, const struct backup *b, const struct point_meta *base,
                        const struct ovirt_backup_disks *disks, struct backup_disk *d)
{
    const struct ovirt_backup_disk *now = in_backup(disks, d->disk->id);
    if (now && now->size_bytes > 0)
        d->size_bytes = now->size_bytes;
    if (!b->base)
        return;
    const char *why = why_whole(b, base, now, d);
    d->by_changes = !why && d->disk->incremental;
    if (why)
        warn_full(run, d->disk->id, why);
}

static bool choose_disks(struct task_run *run, struct backup *b, const char *id, struct err *err)
{
    struct ovirt_backup_disks disks = {0};
    struct point_meta base = {0};
    bool ok = ovirt_backup_disks(run->session, b->vm.id, id, &disks, err) &&
              (!b->base || point_meta_parse(store_point_meta(b->base), &base, err));
    for (size_t i = 0; ok && i < b->plan_count; i++)
        choose_disk(run, b, &base, &disks, &b->plan[i]);
    ovirt_backup_disks_done(&disks);
    point_meta_done(&base);
    return ok;
}

/* --- The step --------------------------------------------------------------------------------- */

enum probe_answer probe_begin(struct task_run *run, struct err *err)
{
    const struct backup *b = run->state;
    if (!b->stands && !b->by_cbt)
        return PROBE_UNWANTED;
    return probe_stands(run, err);
}

/* From this checkpoint, or in full. `from` is taken over. */
static bool begin(struct task_run *run, struct backup *b, char *from, struct err *err)
{
    struct ovirt_backup ready = {0};
    bool ok = ask_down(run, b, &from, &ready, err) && choose_disks(run, b, ready.id, err);
    if (ok) {
        b->checkpoint = TAKE(ready.to_checkpoint);
        b->snapshot_ms = ready.time_ms;
        log_info("backup_begun", LOG_STR("backup", ready.id), LOG_STR("from", from),
                 LOG_STR("to", b->checkpoint), LOG_STR("snapshot", ready.snapshot));
        if (b->hybrid && !ready.snapshot)
            run_warn(run, "not-hybrid", NULL,
                     "the engine took no snapshot for the backup, as it does below compatibility "
                     "level 4.7: it is read from the running disks");
    }
    ovirt_backup_done(&ready);
    free(from);
    return ok;
}

bool step_begin(struct task_run *run, struct err *err)
{
    struct backup *b = run->state;
    SCOPED_FREE char *why = NULL;
    if (!ovirt_checkpoints_list(run->session, b->vm.id, &b->checkpoints, err))
        return false;
    char *from = choose_base(run, b, &why);
    if (!from && why)
        warn_full(run, NULL, why);
    return begin(run, b, from, err) || gone_explain(run, NULL, err);
}

bool backup_begin_full(struct task_run *run, struct backup *b, const char *why, struct err *err)
{
    if (!undo_begin(run, err))
        return false;
    warn_full(run, NULL, why);
    forget_base(b);
    for (size_t i = 0; i < b->plan_count; i++)
        b->plan[i].by_changes = false;
    return begin(run, b, NULL, err);
}

bool step_finalize(struct task_run *run, struct err *err)
{
    struct backup *b = run->state;
    const char *id = handles_get(&run->handles, HANDLE_BACKUP);
    if (id) {
        SCOPED_FREE char *backup = xstrdup(id);
        if (handles_hold_disks(&run->handles))
            return err_set(err, ERR_CONFLICT, 0,
                           "backup %s cannot be ended while its disks are open in image transfers",
                           backup);
        if (!engine_backup_end(run, run->offer->vm, backup, engine_snapshot_handle, run, err))
            return err_wrap(err, "backup of VM %s", run->offer->vm);
        run_handle_drop(run, HANDLE_BACKUP);
    }
    /* A freeze that a dead attempt asked for may come late. */
    if (id && b->hybrid && b->opts.quiesce != WIRE_QUIESCE_OFF && thaw_may_be_due(run))
        thaw_in_case(run, run->offer->vm);
    return engine_snapshots_remove(run, err);
}

/* The checkpoint is no point's, so it goes too where the engine removes the newest one; others wait
 * for the next backup's rotation. */
bool undo_begin(struct task_run *run, struct err *err)
{
    struct backup *b = run->state;
    (void)backup_end_freeze(run, b);
    if (!step_finalize(run, err))
        return false;
    struct err why = ERR_INIT;
    if (b->checkpoint && !run->committed &&
        !ovirt_checkpoint_delete(run->session, run->offer->vm, b->checkpoint, CHECKPOINT_LIMIT_MS,
                                 &why)) {
        if (why.code == ERR_LEASE_LOST) {
            *err = why;
            return false;
        }
        log_info("checkpoint_stays", LOG_STR("checkpoint", b->checkpoint),
                 LOG_STR("why", why.message));
    }
    free(TAKE(b->checkpoint));
    return true;
}
