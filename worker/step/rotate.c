/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checkpoints cost memory and writes for as long as they stand. Once a restore point with a newer
 * one is committed, ours that are older are removed, the oldest first. Ours are those that a
 * restore point of this repository names, and those whose mark is of a session that this repository
 * knows (an attempt that died); everybody else's stay, other repositories' too.
 */
#include <inttypes.h>
#include <string.h>

#include "proto/base/alloc.h"
#include "proto/base/id.h"
#include "proto/base/log.h"
#include "worker/step/backup.h"
#include "worker/step/point_meta.h"
#include "worker/store/sessions.h"

enum { REMOVE_LIMIT_MS = 2 * 60 * 1000, POINTS_MAX = 64 /* so many points back are looked at */ };

/* The checkpoint that the point names; NULL = none. The caller frees. */
static char *checkpoint_of(struct store *store, const char *point_id)
{
    struct err ignored = ERR_INIT;
    struct point_meta meta = {0};
    SCOPED(store_point) struct store_point *point = store_point_open(store, point_id, &ignored);
    if (!point || !point_meta_parse(store_point_meta(point), &meta, &ignored))
        return NULL;
    char *checkpoint = TAKE(meta.checkpoint);
    point_meta_done(&meta);
    return checkpoint;
}

static bool is_marked(struct task_run *run, const struct ovirt_checkpoint *c)
{
    char task[ID_BYTES];
    int64_t fence;
    enum store_fate fate;
    struct err ignored = ERR_INIT;
    if (!marker_parse(c->description, task, &fence))
        return false;
    SCOPED_FREE char *session = xasprintf("%s.%" PRId64, task, fence);
    return store_session_fate(run->store, session, &fate, &ignored) && fate != STORE_FATE_NONE;
}

static bool is_of_point(struct task_run *run, const struct store_point_list *points,
                        const struct ovirt_checkpoint *c)
{
    bool found = false;
    size_t oldest = points->count > POINTS_MAX ? points->count - POINTS_MAX : 0;
    for (size_t i = points->count; i-- > oldest && !found;) {
        SCOPED_FREE char *one =
            points->items[i].damage ? NULL : checkpoint_of(run->store, points->items[i].id);
        found = one && strcmp(one, c->id) == 0;
    }
    return found;
}

static bool remove_older(struct task_run *run, const struct ovirt_checkpoints *list,
                         const char *keep, const struct store_point_list *points, struct err *err)
{
    for (size_t i = 0; i < list->count && strcmp(list->v[i].id, keep) != 0; i++) {
        const struct ovirt_checkpoint *c = &list->v[i];
        if (!is_marked(run, c) && !is_of_point(run, points, c)) {
            log_info("foreign_checkpoint", LOG_STR("checkpoint", c->id));
            continue;
        }
        if (!ovirt_checkpoint_delete(run->session, run->offer->vm, c->id, REMOVE_LIMIT_MS, err)) {
            if (err->code != ERR_CONFLICT)
                return false;
            /* A foreign one is older, and this engine removes only the oldest. */
            log_info("checkpoint_stays", LOG_STR("checkpoint", c->id),
                     LOG_STR("why", err->message));
            err_clear(err);
            return true;
        }
        log_info("checkpoint_removed", LOG_STR("checkpoint", c->id));
    }
    return true;
}

bool step_rotate(struct task_run *run, struct err *err)
{
    const struct backup *b = run->state;
    SCOPED_FREE char *keep = b->checkpoint ? xstrdup(b->checkpoint)
                             : run->point  ? checkpoint_of(run->store, run->point)
                                           : NULL;
    if (!keep)
        return true;
    struct ovirt_checkpoints list = {0};
    struct store_point_list points = {0};
    struct store_point_filter filter = {.vm_id = run->offer->vm};
    if (!ovirt_checkpoints_list(run->session, run->offer->vm, &list, err))
        return false;
    bool has_kept = ovirt_checkpoints_find(&list, keep) != NULL;
    bool ok = store_points_list(run->store, &filter, &points, err) &&
              (!has_kept || remove_older(run, &list, keep, &points, err));
    ovirt_checkpoints_done(&list);
    store_point_list_done(&points);
    return ok;
}
