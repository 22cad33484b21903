/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The snapshot: without memory, of the planned disks only, its description our marker. The guest is
 * thawed as soon as the snapshot is there, and on every other way out.
 */
#include <inttypes.h>
#include <string.h>

#include "proto/base/alloc.h"
#include "proto/base/log.h"
#include "worker/step/backup.h"
#include "worker/step/gone.h"

bool backup_end_freeze(struct task_run *run, struct backup *b)
{
    if (!b->frozen)
        return b->quiesced;
    struct err err = ERR_INIT;
    bool in_time = false;
    if (!frozen_end(b->frozen, &in_time, &err)) {
        log_err(LOG_LEVEL_ERROR, "thaw_failed", &err);
        run_warn(run, "not-thawed", NULL, "%s", err.message);
        b->not_thawed = true;
    }
    b->frozen = NULL;
    return in_time;
}

bool backup_judge_freeze(struct task_run *run, struct backup *b, bool taken, struct err *err)
{
    bool frozen = b->frozen != NULL, required = b->opts.quiesce == WIRE_QUIESCE_REQUIRE;
    b->quiesced = backup_end_freeze(run, b);
    if (taken && frozen && !b->quiesced && !required)
        run_warn(
            run, "not-quiesced", NULL,
            "the guest was thawed before its snapshot was done (quiesce_limit_s); the backup is "
            "crash-consistent");
    return !taken || b->quiesced || !required ||
           err_set(err, ERR_QUIESCE_FAILED, 0,
                   "the snapshot took longer than quiesce_limit_s (%" PRId64
                   " s): the guest was thawed before it was done",
                   run->settings->quiesce_limit_s);
}

/* Keep only the disks that really are in the snapshot, with the sizes they have there. */
static bool match_disks(struct task_run *run, struct backup *b, const char *snapshot_id,
                        struct err *err)
{
    struct ovirt_disks in = {0};
    if (!ovirt_snapshot_disks(run->session, b->vm.id, snapshot_id, &in, err))
        return false;
    size_t kept = 0;
    bool ok = true;
    for (size_t i = 0; ok && i < b->plan_count; i++) {
        const struct ovirt_disk *d = b->plan[i].disk;
        const struct ovirt_disk *s = ovirt_disks_find(&in, d->id);
        if (s) {
            b->plan[kept] = b->plan[i];
            b->plan[kept].image_id = xstrdup_or_null(s->image_id);
            b->plan[kept++].size_bytes = s->provisioned_bytes;
        } else if (b->opts.unsupported == WIRE_UNSUPPORTED_FAIL) {
            ok = err_set(err, ERR_UNSUPPORTED, 0, "disk %s is not in the snapshot", d->id);
        } else {
            run_warn(run, "disk-skipped", d->id, "the engine left disk %s out of the snapshot",
                     d->id);
        }
    }
    b->plan_count = kept;
    if (ok && kept == 0)
        ok = err_set(err, ERR_SNAPSHOT_FAILED, 0, "no disk is in the snapshot");
    ovirt_disks_done(&in);
    return ok;
}

/* Ask for it. A guest that is frozen does not wait with us for locks and restarts. */
static char *ask(struct task_run *run, struct backup *b, const char *marker, struct err *err)
{
    SCOPED_FREE const char **ids = xcalloc(b->plan_count, sizeof *ids);
    for (size_t i = 0; i < b->plan_count; i++)
        ids[i] = b->plan[i].disk->id;
    bool unknown = false;
    struct ovirt_snapshot_how how = {.no_wait = b->frozen != NULL, .ret_unknown = &unknown};
    char *id = ovirt_snapshot_create(run->session, b->vm.id, marker, ids, b->plan_count, &how, err);
    /* It may be there: the undo, or a clean-up, looks for it. */
    if (!id && unknown)
        run_handle_set(run, HANDLE_SNAPSHOT, WIRE_LEFTOVER_ALL);
    return id;
}

/* An answer may have been lost, and the snapshot be there since. False: cannot tell. */
static bool find_asked(struct task_run *run, const struct backup *b, const char *marker, char **ret,
                       struct err *err)
{
    struct ovirt_snapshots list = {0};
    *ret = NULL;
    if (!ovirt_snapshots_list(run->session, b->vm.id, marker, &list, err)) {
        run_handle_set(run, HANDLE_SNAPSHOT, WIRE_LEFTOVER_ALL);
        return false;
    }
    for (size_t i = 0; i < list.count && !*ret; i++) {
        if (strcmp(list.v[i].description, marker) == 0)
            *ret = xstrdup(list.v[i].id);
    }
    ovirt_snapshots_done(&list);
    return true;
}

/* A passing reason, and the guest was frozen, so nobody has waited for it to pass? */
static bool may_ask_again(const struct task_run *run, const struct backup *b, int64_t until_ms,
                          const struct err *err)
{
    return b->frozen && err_retry(err->code) == ERR_RETRY_SOON && err->code != ERR_TIMEOUT &&
           !handles_get(&run->handles, HANDLE_SNAPSHOT) && clock_mono_ms(run->clock) < until_ms;
}

/* Thaw, wait, freeze, ask again, within the engine's budget for one request. */
static char *ask_until_free(struct task_run *run, struct backup *b, const char *marker,
                            struct err *err)
{
    const struct engine_conf *conf = engine_session_conf(run->session);
    struct backoff wait = BACKOFF(conf->busy_min_ms, conf->busy_max_ms);
    int64_t start_ms = clock_mono_ms(run->clock);
    char *id = ask(run, b, marker, err);
    while (!id && may_ask_again(run, b, start_ms + conf->busy_budget_ms, err)) {
        log_info("snapshot_waits", LOG_STR("message", err->message));
        (void)backup_end_freeze(run, b);
        struct err stop = ERR_INIT;
        if (!run_sleep(run, backoff_next_ms(&wait), &stop) ||
            !find_asked(run, b, marker, &id, &stop) || (!id && !step_quiesce(run, &stop))) {
            *err = stop;
            return NULL;
        }
        err_clear(err);
        if (id)
            run_warn(run, "not-quiesced", NULL,
                     "nobody knows whether the guest was frozen when the engine took the snapshot; "
                     "the backup is called crash-consistent");
        else
            id = ask(run, b, marker, err);
    }
    if (!id && b->frozen && err_retry(err->code) == ERR_RETRY_SOON)
        err_wrap(err, "gave up after %" PRId64 " s of waiting for %s",
                 (clock_mono_ms(run->clock) - start_ms) / 1000,
                 err->sys == 409 ? "another task of the engine" : "the engine");
    return id;
}

static bool take(struct task_run *run, struct backup *b, struct err *err)
{
    SCOPED_FREE char *marker = run_marker(run);
    SCOPED_FREE char *id = ask_until_free(run, b, marker, err);
    if (!id)
        return false;
    run_handle_set(run, HANDLE_SNAPSHOT, id);
    return ovirt_snapshot_wait_ok(run->session, b->vm.id, id, run->settings->snapshot_wait_s * 1000,
                                  &b->snapshot_ms, err);
}

enum probe_answer probe_snapshot(struct task_run *run, struct err *err)
{
    struct backup *b = run->state;
    if (b->stands)
        return PROBE_DONE;
    if (b->by_cbt)
        return PROBE_UNWANTED;
    const char *id = handles_get(&run->handles, HANDLE_SNAPSHOT);
    if (!id)
        return PROBE_TODO;
    /* Ours, from an earlier attempt; precheck has found it. */
    const char *quiesced = handles_get(&run->handles, HANDLE_QUIESCED);
    b->quiesced = quiesced && strcmp(quiesced, "yes") == 0;
    if (!b->quiesced && b->opts.quiesce == WIRE_QUIESCE_REQUIRE) {
        /* Nobody knows whether the guest was frozen for it: take a new one. */
        return step_merge(run, err) ? PROBE_TODO : PROBE_FAILED;
    }
    if (!ovirt_snapshot_wait_ok(run->session, b->vm.id, id, run->settings->snapshot_wait_s * 1000,
                                &b->snapshot_ms, err) ||
        !match_disks(run, b, id, err))
        return PROBE_FAILED;
    log_info("snapshot_taken_over", LOG_STR("snapshot", id));
    return PROBE_DONE;
}

bool step_snapshot(struct task_run *run, struct err *err)
{
    struct backup *b = run->state;
    bool ok = take(run, b, err);
    struct err why = ERR_INIT;
    bool in_time = backup_judge_freeze(run, b, ok, &why);
    if (!ok)
        return gone_explain(run, NULL, err);
    run_handle_set(run, HANDLE_QUIESCED, b->quiesced ? "yes" : "no");
    if (!in_time) {
        *err = why;
        return false;
    }
    return match_disks(run, b, handles_get(&run->handles, HANDLE_SNAPSHOT), err);
}
