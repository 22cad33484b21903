/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The first step of a backup: make sure that no earlier attempt can still commit. Each of its
 * repository sessions is declared dead; one that has committed already is the result, and this run
 * only tidies up. A guest that a dead attempt may have left frozen is thawed.
 */
#include <inttypes.h>
#include <string.h>

#include "proto/base/alloc.h"
#include "proto/base/log.h"
#include "worker/step/backup.h"

/* Attempts whose fence the journal does not know (they died before their first event) are among
 * these many fences before ours. */
enum { UNKNOWN_FENCES_MAX = 64 };

static int64_t first_fence(const struct task_run *run)
{
    int64_t first = run->fence - (run->offer->attempt - 1);
    const struct wire_journal *journal = &run->offer->journal;
    for (size_t i = 0; i < journal->count; i++) {
        if (journal->v[i].fence > 0 && journal->v[i].fence < first)
            first = journal->v[i].fence;
    }
    if (first < run->fence - UNKNOWN_FENCES_MAX)
        first = run->fence - UNKNOWN_FENCES_MAX;
    return first < 1 ? 1 : first;
}

static bool may_be_frozen(const struct task_run *run)
{
    const struct wire_journal *journal = &run->offer->journal;
    for (size_t i = 0; i < journal->count; i++) {
        if (strcmp(journal->v[i].step, "quiesce") == 0 ||
            strcmp(journal->v[i].step, "snapshot") == 0)
            return true;
    }
    return false;
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

bool step_revoke_earlier(struct task_run *run, struct err *err)
{
    if (run->offer->attempt <= 1 && run->offer->journal.count == 0)
        return true;
    if (!run_before_mutation(run, err))
        return false;
    struct backup *b = run->state;
    if (b->opts.quiesce != WIRE_QUIESCE_OFF && may_be_frozen(run))
        thaw_in_case(run, run->offer->vm);
    for (int64_t fence = first_fence(run); fence < run->fence; fence++) {
        SCOPED_FREE char *session = xasprintf("%s.%" PRId64, run->offer->task, fence);
        bool committed = false;
        if (!store_session_revoke(run->store, session, &committed, err))
            return err_wrap(err, "revoke session %s of an earlier attempt", session);
        if (committed)
            take_point(run, session);
    }
    return true;
}
