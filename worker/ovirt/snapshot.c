/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/ovirt/snapshot.h"

#include <string.h>

#include "proto/base/log.h"
#include "worker/ovirt/member.h"
#include "worker/ovirt/snapshot_impl.h"
#include "worker/ovirt/vanish.h"

enum {
    MERGE_TRIES = 3,
    MERGE_LIMIT_MS = 4 * 3600 * 1000,
    LOCKED_LIMIT_MS = 10 * 60 * 1000,
    EVENTS_LOOKED_AT = 100,
    EVENT_MERGE_FAILED = 357, /* USER_REMOVE_SNAPSHOT_FINISHED_FAILURE */
};

/* --- Listing --------------------------------------------------------------------------------- */
void ovirt_snapshots_done(struct ovirt_snapshots *list)
{
    for (size_t i = 0; i < list->count; i++) {
        struct ovirt_snapshot *s = &list->v[i];
        free(s->id);
        free(s->description);
        free(s->status);
        free(s->type);
    }
    free(list->v);
    *list = (struct ovirt_snapshots){0};
}

static bool begins_with(const char *text, const char *prefix)
{
    return !prefix || (text && strncmp(text, prefix, strlen(prefix)) == 0);
}

bool ovirt_snapshots_list(struct engine_session *s, const char *vm_id,
                          const char *description_prefix, struct ovirt_snapshots *ret,
                          struct err *err)
{
    if (!engine_check_id("VM", vm_id, err))
        return false;
    SCOPED_FREE char *path = xasprintf("vms/%s/snapshots", vm_id);
    json_auto_t *answer = NULL;
    if (!engine_get(s, path, NULL, &answer, err))
        return err_wrap(err, "list the snapshots of VM %s", vm_id);
    json_t *list = member_list(answer, NULL, "snapshot");
    struct ovirt_snapshots found = {.v = xcalloc(json_array_size(list) + 1, sizeof *found.v)};
    size_t i;
    json_t *o;
    json_array_foreach (list, i, o) {
        const char *id = member_str(o, "id"), *description = member_str(o, "description");
        if (!id || !begins_with(description, description_prefix))
            continue;
        found.v[found.count++] = (struct ovirt_snapshot){
            .id = xstrdup(id),
            .description = xstrdup(description ? description : ""),
            .status = xstrdup_or_null(member_str(o, "snapshot_status")),
            .type = xstrdup_or_null(member_str(o, "snapshot_type")),
            .time_ms = member_time_ms_or(o, "date", 0),
        };
    }
    *ret = found;
    return true;
}

/* --- Creating -------------------------------------------------------------------------------- */
/* HARD RULE: the one place that asks for a snapshot, always without memory: the engine's default is
 * to pause the VM and save its RAM. An empty disk list would be a snapshot of no disk at all. */
json_t *ovirt_snapshot_body(const char *description, const char *const *disk_ids, size_t disks)
{
    json_t *list = json_array();
    for (size_t i = 0; i < disks; i++)
        json_array_append_new(list, json_pack("{s:{s:s}}", "disk", "id", disk_ids[i]));
    return json_pack("{s:s, s:s, s:{s:o}}", "description", description, "persist_memorystate",
                     "false", "disk_attachments", "disk_attachment", list);
}

struct description_probe {
    const char *path; /* of the collection */
    const char *description;
};

static bool probe_description(struct engine_session *s, void *ctx, bool *ret_done,
                              json_t **ret_object, struct err *err)
{
    const struct description_probe *p = ctx;
    json_auto_t *answer = NULL;
    if (!engine_get(s, p->path, NULL, &answer, err))
        return false;
    *ret_done = false;
    size_t i;
    json_t *o;
    json_array_foreach (member_list(answer, NULL, "snapshot"), i, o) {
        const char *description = member_str(o, "description");
        if (description && strcmp(description, p->description) == 0) {
            *ret_done = true;
            *ret_object = json_incref(o);
            return true;
        }
    }
    return true;
}

static bool check_create(const char *vm_id, const char *description, const char *const *disk_ids,
                         size_t disks, struct err *err)
{
    if (!engine_check_id("VM", vm_id, err))
        return false;
    if (!description || description[0] == '\0')
        return err_set(err, ERR_BAD_ARGUMENT, 0, "a snapshot needs a description");
    if (disks == 0)
        return err_set(err, ERR_BAD_ARGUMENT, 0, "no disk to take a snapshot of");
    for (size_t i = 0; i < disks; i++) {
        if (!engine_check_id("disk", disk_ids[i], err))
            return false;
    }
    return true;
}

/* It was accepted, and cannot be found. */
static char *unknown(const struct ovirt_snapshot_how *how)
{
    if (how && how->ret_unknown)
        *how->ret_unknown = true;
    return NULL;
}

char *ovirt_snapshot_create(struct engine_session *s, const char *vm_id, const char *description,
                            const char *const *disk_ids, size_t disks,
                            const struct ovirt_snapshot_how *how, struct err *err)
{
    if (!check_create(vm_id, description, disk_ids, disks, err)) {
        err_wrap(err, "create snapshot");
        return NULL;
    }
    json_auto_t *body = ovirt_snapshot_body(description, disk_ids, disks);
    if (!body) {
        err_set(err, ERR_BAD_ARGUMENT, 0, "the description of a snapshot is not UTF-8");
        return NULL;
    }
    SCOPED_FREE char *path = xasprintf("vms/%s/snapshots", vm_id);
    struct description_probe probe = {.path = path, .description = description};
    struct engine_mutation m = {
        .method = ENGINE_POST,
        .path = path,
        .body = body,
        .probe = probe_description,
        .probe_ctx = &probe,
        .budget_ms = how && how->no_wait ? -1 : 0,
        .ret_unknown = how ? how->ret_unknown : NULL,
    };
    json_auto_t *answer = NULL;
    if (!engine_mutate(s, &m, &answer, err)) {
        err_wrap(err, "create a snapshot of VM %s", vm_id);
        return NULL;
    }
    /* An answer without an id is as good as a lost one. */
    if (!member_str(answer, "id")) {
        bool done = false;
        json_decref(answer);
        answer = NULL;
        if (!probe_description(s, &probe, &done, &answer, err))
            return unknown(how);
    }
    const char *id = member_str(answer, "id");
    if (!engine_check_id("snapshot", id, err)) {
        err->code = ERR_ENGINE_PROTOCOL;
        return unknown(how);
    }
    return xstrdup(id);
}

static int64_t now_ms(const struct engine_session *s)
{
    return clock_mono_ms(engine_session_conf(s)->clock);
}

/* In place of a time-out. */
static void say_locked(struct err *err, enum err_code code, const char *snapshot_id,
                       int64_t limit_ms)
{
    err_clear(err);
    err_set(err, code, 0,
            "snapshot %s is still locked after %lld s: the engine has not finished what it does "
            "with it; see the VM's events and the engine's tasks",
            snapshot_id, (long long)(limit_ms / 1000));
}

struct ok_watch {
    const char *path;
    int64_t time_ms;
};

static enum engine_verdict look_ok(struct engine_session *s, void *ctx, struct err *err)
{
    struct ok_watch *w = ctx;
    json_auto_t *snapshot = NULL;
    if (!engine_get_or_gone(s, w->path, NULL, &snapshot, err))
        return ENGINE_FAILED;
    if (!snapshot) {
        err_set(err, ERR_SNAPSHOT_FAILED, 404,
                "the engine has dropped the snapshot: it could not be taken (see the VM's events)");
        return ENGINE_FAILED;
    }
    const char *status = member_str(snapshot, "snapshot_status");
    if (!status || strcmp(status, "ok") != 0)
        return ENGINE_AGAIN;
    w->time_ms = member_time_ms_or(snapshot, "date", 0);
    return ENGINE_REACHED;
}

bool ovirt_snapshot_wait_ok(struct engine_session *s, const char *vm_id, const char *snapshot_id,
                            int64_t limit_ms, int64_t *ret_time_ms, struct err *err)
{
    if (!engine_check_id("VM", vm_id, err) || !engine_check_id("snapshot", snapshot_id, err))
        return false;
    SCOPED_FREE char *path = xasprintf("vms/%s/snapshots/%s", vm_id, snapshot_id);
    SCOPED_FREE char *what = xasprintf("snapshot %s to be ok", snapshot_id);
    struct ok_watch watch = {.path = path};
    int64_t until_ms = now_ms(s) + limit_ms;
    if (!engine_poll(s, what, limit_ms, look_ok, &watch, err)) {
        if (err->code == ERR_TIMEOUT && now_ms(s) >= until_ms)
            say_locked(err, ERR_SNAPSHOT_FAILED, snapshot_id, limit_ms);
        return err_wrap(err, "snapshot of VM %s", vm_id);
    }
    if (ret_time_ms)
        *ret_time_ms = watch.time_ms;
    return true;
}

/* --- Reading --------------------------------------------------------------------------------- */
bool ovirt_snapshot_disks(struct engine_session *s, const char *vm_id, const char *snapshot_id,
                          struct ovirt_disks *ret, struct err *err)
{
    if (!engine_check_id("VM", vm_id, err) || !engine_check_id("snapshot", snapshot_id, err))
        return false;
    SCOPED_FREE char *path = xasprintf("vms/%s/snapshots/%s/disks", vm_id, snapshot_id);
    json_auto_t *answer = NULL;
    if (!engine_get(s, path, NULL, &answer, err))
        return err_wrap(err, "list the disks of snapshot %s", snapshot_id);
    json_t *list = member_list(answer, NULL, "disk");
    struct ovirt_disks found = {.v = xcalloc(json_array_size(list) + 1, sizeof *found.v)};
    size_t i;
    json_t *disk;
    json_array_foreach (list, i, disk) {
        if (!ovirt_disk_of_json(disk, NULL, &found.v[found.count], err)) {
            ovirt_disks_done(&found);
            return err_wrap(err, "disks of snapshot %s", snapshot_id);
        }
        found.count++;
    }
    *ret = found;
    return true;
}

bool ovirt_snapshot_ovf(struct engine_session *s, const char *vm_id, const char *snapshot_id,
                        struct buf *ret, struct err *err)
{
    buf_init(ret, (size_t)engine_session_conf(s)->max_body_bytes);
    if (!engine_check_id("VM", vm_id, err) || !engine_check_id("snapshot", snapshot_id, err))
        return false;
    SCOPED_FREE char *path = xasprintf("vms/%s/snapshots/%s", vm_id, snapshot_id);
    json_auto_t *snapshot = NULL;
    if (!engine_get(s, path, "all_content=true", &snapshot, err))
        return err_wrap(err, "configuration in snapshot %s", snapshot_id);
    const json_t *configuration =
        member_object(member_object(snapshot, "initialization"), "configuration");
    const json_t *data = json_object_get(configuration, "data");
    if (json_string_length(data) == 0)
        return err_set(err, ERR_ENGINE_PROTOCOL, 0,
                       "the engine gives no configuration (OVF) for snapshot %s", snapshot_id);
    if (!buf_add(ret, json_string_value(data), json_string_length(data)))
        return err_set(err, ERR_TOO_LARGE, 0, "the OVF of snapshot %s is too large", snapshot_id);
    return true;
}

/* --- Deleting -------------------------------------------------------------------------------- */
struct merge {
    const char *vm_id, *path, *what;
    int64_t until_ms;
    uint64_t last_event; /* index of the newest event before the DELETE */
};

/* Newest events first. NULL when they may not be read: then there is just less to go by. */
static json_t *newest_events(struct engine_session *s)
{
    SCOPED_FREE char *query = xasprintf("max=%d", EVENTS_LOOKED_AT);
    json_t *answer = NULL;
    struct err ignored = ERR_INIT;
    if (!engine_get(s, "events", query, &answer, &ignored))
        log_debug("engine_events_unreadable", LOG_STR("message", ignored.message));
    return answer;
}

static uint64_t event_index(const json_t *event)
{
    return member_u64_or(event, "index", member_u64_or(event, "id", 0));
}

/* Asked when a DELETE shows no effect for long: is there an event that says it failed? */
static bool merge_has_failed(struct engine_session *s, void *ctx)
{
    const struct merge *m = ctx;
    json_auto_t *events = newest_events(s);
    size_t i;
    json_t *e;
    json_array_foreach (member_list(events, NULL, "event"), i, e) {
        const char *vm = member_ref_id(e, "vm");
        if (member_u64_or(e, "code", 0) == EVENT_MERGE_FAILED && vm && strcmp(vm, m->vm_id) == 0 &&
            event_index(e) > m->last_event)
            return true;
    }
    return false;
}

/* A lost DELETE was done when the snapshot is gone, or locked: then the merge runs. */
static bool probe_merging(struct engine_session *s, void *ctx, bool *ret_done, json_t **ret_object,
                          struct err *err)
{
    (void)ret_object;
    const struct merge *m = ctx;
    json_auto_t *snapshot = NULL;
    if (!engine_get_or_gone(s, m->path, NULL, &snapshot, err))
        return false;
    const char *status = member_str(snapshot, "snapshot_status");
    *ret_done = !snapshot || (status && strcmp(status, "locked") == 0);
    return true;
}

static bool try_merge(struct engine_session *s, struct merge *merge, struct err *err)
{
    json_auto_t *events = newest_events(s);
    merge->last_event = event_index(json_array_get(member_list(events, NULL, "event"), 0));
    struct engine_mutation m = {
        .method = ENGINE_DELETE,
        .path = merge->path,
        .probe = probe_merging,
        .probe_ctx = merge,
        .budget_ms = merge->until_ms - now_ms(s),
        .gone_is_done = true,
    };
    if (m.budget_ms == 0)
        m.budget_ms = -1;
    if (!engine_mutate(s, &m, NULL, err))
        return err_wrap(err, "delete %s", merge->what);
    struct vanish v = {
        .what = merge->what,
        .path = merge->path,
        .status_key = "snapshot_status",
        .confirm = merge_has_failed,
        .ctx = merge,
        .failed_code = ERR_MERGE_FAILED,
    };
    int64_t left = merge->until_ms - now_ms(s);
    return vanish_wait(s, &v, left > 0 ? left : 0, err);
}

struct ours {
    const struct merge *merge;
    const char *prefix;
    bool gone;
};

/* HARD RULE: only a snapshot with our marker is deleted. One that is locked is being made, or
 * merged for an earlier attempt: that ends first. */
static enum engine_verdict look_ours(struct engine_session *s, void *ctx, struct err *err)
{
    struct ours *o = ctx;
    json_auto_t *snapshot = NULL;
    if (!engine_get_or_gone(s, o->merge->path, NULL, &snapshot, err))
        return ENGINE_FAILED;
    o->gone = !snapshot;
    if (o->gone)
        return ENGINE_REACHED;
    const char *description = member_str(snapshot, "description");
    if (!o->prefix || o->prefix[0] == '\0' || !description ||
        !begins_with(description, o->prefix)) {
        err_set(err, ERR_REFUSED, 0,
                "%s is not ours: its description '%.100s' does not begin with '%s'", o->merge->what,
                description ? description : "", o->prefix ? o->prefix : "");
        return ENGINE_FAILED;
    }
    const char *status = member_str(snapshot, "snapshot_status");
    return status && strcmp(status, "locked") == 0 ? ENGINE_AGAIN : ENGINE_REACHED;
}

bool ovirt_snapshot_delete(struct engine_session *s, const char *vm_id, const char *snapshot_id,
                           const char *expected_prefix, const struct ovirt_merge *how,
                           struct err *err)
{
    if (!engine_check_id("VM", vm_id, err) || !engine_check_id("snapshot", snapshot_id, err))
        return false;
    const struct engine_conf *conf = engine_session_conf(s);
    SCOPED_FREE char *path = xasprintf("vms/%s/snapshots/%s", vm_id, snapshot_id);
    SCOPED_FREE char *what = xasprintf("snapshot %s of VM %s", snapshot_id, vm_id);
    int64_t limit_ms = how->limit_ms > 0 ? how->limit_ms : MERGE_LIMIT_MS;
    unsigned tries = how->tries > 0 ? how->tries : MERGE_TRIES;
    struct merge merge = {.vm_id = vm_id, .path = path, .what = what};
    merge.until_ms = clock_mono_ms(conf->clock) + limit_ms;
    struct backoff wait = BACKOFF(conf->busy_min_ms, conf->busy_max_ms);
    struct ours ours = {.merge = &merge, .prefix = expected_prefix};
    int64_t locked_ms = how->locked_ms > 0 ? how->locked_ms : LOCKED_LIMIT_MS;
    if (locked_ms > limit_ms)
        locked_ms = limit_ms;
    int64_t until_ms = now_ms(s) + locked_ms;
    if (!engine_poll(s, "the lock of a snapshot", locked_ms, look_ours, &ours, err)) {
        if (err->code == ERR_TIMEOUT && now_ms(s) >= until_ms)
            say_locked(err, ERR_MERGE_FAILED, snapshot_id, locked_ms);
        return err_wrap(err, "delete %s", what);
    }
    for (unsigned attempt = 1; !ours.gone; attempt++) {
        if (try_merge(s, &merge, err))
            return true;
        if (err->code != ERR_MERGE_FAILED)
            return false;
        if (how->failed)
            how->failed(how->ctx, attempt, err);
        if (attempt >= tries)
            return err_wrap(err, "%u tries to merge it failed (the VM's events say why)", tries);
        err_clear(err);
        if (!engine_sleep(s, backoff_next_ms(&wait), err))
            return err_wrap(err, "delete %s", what);
    }
    return true;
}

bool ovirt_snapshots_delete_marked(struct engine_session *s, const char *vm_id, const char *prefix,
                                   const struct ovirt_merge *how, struct err *err)
{
    struct ovirt_snapshots list = {0};
    if (!ovirt_snapshots_list(s, vm_id, prefix, &list, err)) {
        if (err->code != ERR_NOT_FOUND)
            return false;
        err_clear(err); /* the VM has gone, and all with it */
        return true;
    }
    bool ok = true;
    for (size_t i = 0; ok && i < list.count; i++)
        ok = ovirt_snapshot_delete(s, vm_id, list.v[i].id, prefix, how, err);
    ovirt_snapshots_done(&list);
    return ok;
}
