/* SPDX-License-Identifier: Apache-2.0 */
/* Read the disks into a session of the repository. */
#include <inttypes.h>
#include <string.h>

#include "proto/base/alloc.h"
#include "proto/base/log.h"
#include "worker/step/backup_copy.h"
#include "worker/step/point_meta.h"

/* The newest usable point of this VM: unchanged blocks refer to it. NULL without an error when
 * there is none: then everything new is stored, which is right as well, only larger. */
static struct store_point *open_parent(struct task_run *run, const struct backup *b)
{
    struct err err = ERR_INIT;
    struct store_point_list list = {0};
    struct store_point_filter filter = {.vm_id = b->vm.id};
    if (!store_points_list(run->store, &filter, &list, &err)) {
        log_warn("parent_not_listed", LOG_STR("message", err.message));
        return NULL;
    }
    struct store_point *parent = NULL;
    for (size_t i = list.count; i-- > 0 && !parent;) {
        err_clear(&err);
        if (!list.items[i].damage)
            parent = store_point_open(run->store, list.items[i].id, &err);
    }
    store_point_list_done(&list);
    return parent;
}

static bool put_blobs(struct backup *b, struct err *err)
{
    SCOPED_FREE char *json = json_dumps(b->vm_json, JSON_INDENT(1) | JSON_SORT_KEYS);
    if (!json)
        return err_set(err, ERR_INTERNAL, 0, "vm.json cannot be written as JSON");
    return store_session_put_blob(b->session, POINT_BLOB_JSON, json, strlen(json), err) &&
           store_session_put_blob(b->session, POINT_BLOB_OVF, b->ovf.data, b->ovf.len, err);
}

/* What earlier attempts have stored is not stored again. What fails here costs space, nothing
 * else. */
static void adopt_earlier(struct backup *b)
{
    for (size_t i = 0; i < b->earlier_count; i++) {
        struct err err = ERR_INIT;
        struct store_adopted adopted;
        if (!store_session_adopt(b->session, b->earlier[i], &adopted, &err))
            log_err(LOG_LEVEL_WARN, "earlier_attempt_not_adopted", &err);
        else if (adopted.packs > 0)
            log_info("earlier_attempt_adopted", LOG_STR("session", b->earlier[i]),
                     LOG_U64("packs", adopted.packs), LOG_U64("bytes", adopted.bytes),
                     LOG_U64("raw_bytes", adopted.raw_bytes));
    }
}

static bool begin_session(struct task_run *run, struct backup *b, struct err *err)
{
    SCOPED_FREE char *id = xasprintf("%s.%" PRId64, run->offer->task, run->fence);
    if (!run_before_mutation(run, err))
        return false;
    run_handle_set(run, HANDLE_SESSION, id);
    struct store_session_opts opts = {
        .id = id, .vm_id = b->vm.id, .vm_name = b->vm.name, .worker = run->worker};
    opts.part_of = b->part ? b->part->of : NULL;
    b->session = store_session_begin(run->store, &opts, err);
    if (!b->session || (!b->part && !put_blobs(b, err)))
        return false;
    adopt_earlier(b);
    return true;
}

/* What came by which path. */
static void take_path_stats(struct task_run *run, const struct backup *b)
{
    struct wire_paths_stats *all = &run->stats.paths;
    run_forget_path_stats(run); /* of an earlier try */
    all->v = xcalloc(BACKUP_PATHS, sizeof *all->v);
    for (int path = 0; path < BACKUP_PATHS; path++) {
        struct wire_path_stats sum = {0};
        for (size_t i = 0; i < b->plan_count; i++) {
            const struct backup_disk *d = &b->plan[i];
            if ((int)d->path != path)
                continue;
            sum.disks++;
            sum.bytes_read += d->read_bytes;
            sum.copy_ms += d->copy_ms;
        }
        if (sum.disks == 0)
            continue;
        sum.path = xstrdup(backup_path_name((enum backup_path)path));
        all->v[all->count++] = sum;
    }
}

void backup_take_stats(struct task_run *run, struct backup *b)
{
    struct store_stats s = {0};
    store_session_stats(b->session, &s);
    run->stats.disks = (int64_t)b->plan_count;
    run->stats.bytes_total = 0;
    uint64_t kept = 0; /* given to the repository, but not read */
    for (size_t i = 0; i < b->plan_count; i++) {
        const struct backup_disk *d = &b->plan[i];
        run->stats.bytes_total += (int64_t)(b->part ? backup_bytes_of(d) : d->size_bytes);
        kept += b->plan[i].kept_bytes;
    }
    run->stats.bytes_read = (int64_t)(s.read_bytes > kept ? s.read_bytes - kept : 0);
    run->stats.bytes_zero = run->stats.bytes_total - (int64_t)(s.read_bytes - s.zero_bytes);
    run->stats.bytes_known = (int64_t)(s.dedup_bytes + s.unchanged_bytes);
    run->stats.bytes_stored = (int64_t)s.stored_bytes;
    take_path_stats(run, b);
}

/* Of those that others copy, too: they take over what is copied there. */
static bool begin_disks(struct backup *b, struct err *err)
{
    for (size_t i = 0; i < b->plan_count; i++) {
        if (b->plan[i].is_shared && !backup_begin_disk(b, &b->plan[i], err))
            return false;
    }
    return true;
}

bool step_copy(struct task_run *run, struct err *err)
{
    struct backup *b = run->state;
    if (!begin_session(run, b, err))
        return false;
    if (!b->parent)
        b->parent = open_parent(run, b);
    if (!begin_disks(b, err))
        return false;
    struct backup_watches watches = backup_watches_begin(run, b);
    bool ok = backup_copy_disks(run, b, &watches, err);
    backup_watches_end(&watches, ok, err);
    backup_take_stats(run, b);
    return ok;
}

bool undo_copy(struct task_run *run, struct err *err)
{
    struct backup *b = run->state;
    if (!b->session || run->committed)
        return true;
    bool ok = run_is_given_back(run) ? store_session_leave(b->session, err)
                                     : store_session_abort(b->session, err);
    store_session_free(b->session);
    b->session = NULL;
    return ok;
}
