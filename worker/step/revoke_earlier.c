/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The first step of a backup: make sure that no earlier attempt can still commit. Each of its
 * repository sessions is declared dead, and bequeathed to this attempt: what it had stored is not
 * stored again. One that has committed already is the result, and this run only tidies up. A guest
 * that a dead attempt may have left frozen is thawed.
 */
#include <inttypes.h>
#include <string.h>

#include "proto/base/alloc.h"
#include "proto/base/log.h"
#include "worker/step/backup.h"

/* An attempt whose fence the journal does not know (it died before its first event, and the journal
 * was cut) has one of the fences right before ours; so many are looked at, at most. */
enum { UNKNOWN_FENCES_MAX = 64 };

static int64_t first_unknown(const struct task_run *run)
{
    int64_t earlier = run->offer->attempt - 1;
    int64_t first =
        run->fence - (earlier < UNKNOWN_FENCES_MAX ? earlier : (int64_t)UNKNOWN_FENCES_MAX);
    return first < 1 ? 1 : first;
}

/* The point of an earlier attempt is this task's result. */
static void take_point(struct task_run *run, const char *session)
{
    struct backup *b = run->state;
    b->stands = true;
    run->committed = true;
    free(run->point);
    run->point = xstrdup(session);
    run_handle_set(run, HANDLE_POINT, session);
    log_info("earlier_attempt_committed", LOG_STR("point", session));
    struct err err = ERR_INIT;
    SCOPED(store_point) struct store_point *point = store_point_open(run->store, session, &err);
    if (!point) {
        run_warn_err(run, NULL, &err);
        return;
    }
    const struct store_point_info *info = store_point_info(point);
    run->stats.disks = info->disks;
    run->stats.bytes_total = (int64_t)info->size_bytes;
    run->stats.bytes_stored = (int64_t)info->stored_bytes;
}

static void remember(struct backup *b, char *session)
{
    b->earlier = xreallocarray(b->earlier, b->earlier_count + 1, sizeof *b->earlier);
    b->earlier[b->earlier_count++] = session;
}

static bool revoke(struct task_run *run, int64_t fence, struct err *err)
{
    SCOPED_FREE char *session = xasprintf("%s.%" PRId64, run->offer->task, fence);
    bool committed = false;
    if (!store_session_bequeath(run->store, session, &committed, err))
        return err_wrap(err, "revoke session %s of an earlier attempt", session);
    if (committed)
        take_point(run, session);
    else
        remember(run->state, TAKE(session));
    return true;
}

/* However long ago: the fences of a VM rise with every task of it, so that many may lie between two
 * attempts of this one. */
static bool revoke_known(struct task_run *run, int64_t before, struct err *err)
{
    const struct wire_journal *journal = &run->offer->journal;
    int64_t last = 0;
    for (size_t i = 0; i < journal->count; i++) {
        int64_t fence = journal->v[i].fence;
        if (fence <= 0 || fence >= before || fence == last)
            continue;
        if (!revoke(run, fence, err))
            return false;
        last = fence;
    }
    return true;
}

bool step_revoke_earlier(struct task_run *run, struct err *err)
{
    if (run->offer->attempt <= 1 && run->offer->journal.count == 0)
        return true;
    if (!run_before_mutation(run, err))
        return false;
    struct backup *b = run->state;
    if (b->opts.quiesce != WIRE_QUIESCE_OFF && thaw_may_be_due(run))
        thaw_in_case(run, run->offer->vm);
    int64_t first = first_unknown(run);
    if (!revoke_known(run, first, err))
        return false;
    for (int64_t fence = first; fence < run->fence; fence++) {
        if (!revoke(run, fence, err))
            return false;
    }
    return true;
}
