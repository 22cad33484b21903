/* SPDX-License-Identifier: Apache-2.0 */
/* The restore point comes into being, or not, by one atomic act in the repository. */
#include <inttypes.h>

#include "proto/base/alloc.h"
#include "proto/base/log.h"
#include "worker/step/backup.h"
#include "worker/step/compare.h"
#include "worker/step/point_meta.h"
#include "worker/store/upkeep.h"

static void stands(struct task_run *run, const char *session)
{
    run->committed = true;
    free(run->point);
    run->point = xstrdup(session);
    run_handle_set(run, HANDLE_POINT, session);
    log_info("point_committed", LOG_STR("point", session));
}

/* The commit failed in a way that leaves its outcome open: ask the repository, by declaring the
 * session dead. One of both wins. */
static bool settle(struct task_run *run, const char *session, struct err *err)
{
    struct err ask = ERR_INIT;
    bool committed = false;
    if (!store_session_revoke(run->store, session, &committed, &ask)) {
        log_err(LOG_LEVEL_WARN, "commit_not_settled", &ask);
        return false;
    }
    if (!committed)
        return false;
    run_warn(run, "commit-retried", NULL, "the commit stands, though it reported: %s",
             err->message);
    err_clear(err);
    return true;
}

/* Every disk that is open in a transfer of ours. */
static bool compare_all(struct task_run *run, struct backup *b, struct err *err)
{
    SCOPED(store_point) struct store_point *point = store_point_open(run->store, run->point, err);
    if (!point)
        return false;
    SCOPED_FREE struct compare_disk *disks = xcalloc(b->plan_count + 1, sizeof *disks);
    size_t count = 0;
    for (size_t i = 0; i < b->plan_count; i++) {
        const struct backup_disk *d = &b->plan[i];
        if (d->transfer.io)
            disks[count++] = (struct compare_disk){d->disk->id, &d->transfer, d->size_bytes};
    }
    return compare_disks(run, point, disks, count, err);
}

/* What is not what the host has was never a backup. */
static bool take_back(struct task_run *run, struct backup *b, struct err *err)
{
    struct err why = ERR_INIT;
    log_warn("point_taken_back", LOG_STR("point", run->point), LOG_STR("why", err->message));
    if (!run_before_mutation(run, &why) ||
        !store_point_delete(run->store, run->point, true, &why)) {
        err_clear(err);
        *err = why;
        return err_wrap(err, "restore point %s differs from the host's disks, and stays",
                        run->point);
    }
    run->committed = false;
    free(TAKE(run->point));
    run_handle_drop(run, HANDLE_POINT);
    store_session_free(b->session);
    b->session = NULL;
    return false;
}

bool step_commit(struct task_run *run, struct err *err)
{
    struct backup *b = run->state;
    SCOPED_FREE char *session = xasprintf("%s.%" PRId64, run->offer->task, run->fence);
    json_t *meta = point_meta_build(run, b);
    if (!meta)
        return err_set(err, ERR_INTERNAL, 0, "the point's meta cannot be written as JSON");
    bool ok = run_before_mutation(run, err);
    if (ok && !store_session_commit(b->session, meta, err)) {
        ok = false;
        if (err->code == ERR_STORE_REVOKED) {
            /* A later attempt owns the task: nothing of it is ours to undo. */
            char why[ERR_MESSAGE_BYTES];
            snprintf(why, sizeof why, "%s", err->message);
            err_clear(err);
            err_set(err, ERR_LEASE_LOST, 0, "%s", why);
        } else {
            ok = settle(run, session, err);
        }
    }
    json_decref(meta);
    if (!ok)
        return false;
    stands(run, session);
    if (!run->settings->compare_checksums || b->part || compare_all(run, b, err))
        return true;
    return err->code == ERR_LEASE_LOST ? false : take_back(run, b, err);
}
