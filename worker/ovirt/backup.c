/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/ovirt/backup.h"

#include <stdlib.h>
#include <string.h>

#include "worker/ovirt/member.h"
#include "worker/ovirt/vanish.h"

static enum ovirt_backup_phase phase_of(const char *name)
{
    static const struct {
        const char *name;
        enum ovirt_backup_phase phase;
    } phases[] = {
        {"initializing", OVIRT_BACKUP_STARTING}, {"starting", OVIRT_BACKUP_STARTING},
        {"ready", OVIRT_BACKUP_READY},           {"finalizing", OVIRT_BACKUP_ENDING},
        {"succeeded", OVIRT_BACKUP_DONE},        {"failed", OVIRT_BACKUP_FAILED},
    };
    for (size_t i = 0; name && i < ARRAY_LEN(phases); i++) {
        if (strcmp(phases[i].name, name) == 0)
            return phases[i].phase;
    }
    return OVIRT_BACKUP_STARTING; /* a word of a newer engine: it will get somewhere */
}

void ovirt_backup_done(struct ovirt_backup *b)
{
    free(b->id);
    free(b->description);
    free(b->to_checkpoint);
    free(b->snapshot);
    *b = (struct ovirt_backup){0};
}

static struct ovirt_backup of_json(const json_t *json)
{
    const char *description = member_str(json, "description");
    return (struct ovirt_backup){
        .id = xstrdup_or_null(member_str(json, "id")),
        .description = xstrdup(description ? description : ""),
        .to_checkpoint = xstrdup_or_null(member_str(json, "to_checkpoint_id")),
        .phase = phase_of(member_str(json, "phase")),
        .time_ms = member_time_ms_or(json, "creation_date", 0),
        .changed_ms = member_time_ms_or(json, "modification_date", 0),
        .snapshot = xstrdup_or_null(member_ref_id(json, "snapshot")),
    };
}

/* --- Beginning ------------------------------------------------------------------------------- */
static json_t *body_of(const struct ovirt_backup_spec *spec)
{
    json_t *disks = json_array();
    for (size_t i = 0; i < spec->disk_count; i++)
        json_array_append_new(disks, json_pack("{s:s}", "id", spec->disk_ids[i]));
    json_t *body = json_pack("{s:s, s:s, s:{s:o}}", "id", spec->id, "description",
                             spec->description, "disks", "disk", disks);
    if (spec->from_checkpoint)
        json_object_set_new(body, "from_checkpoint_id", json_string(spec->from_checkpoint));
    return body;
}

struct begin_probe {
    const char *path; /* of the collection */
    const struct ovirt_backup_spec *spec;
};

/* By our id, or by our description on an engine that chose the id itself. */
static bool probe_begun(struct engine_session *s, void *ctx, bool *ret_done, json_t **ret_object,
                        struct err *err)
{
    const struct begin_probe *p = ctx;
    json_auto_t *answer = NULL;
    if (!engine_get(s, p->path, NULL, &answer, err))
        return false;
    *ret_done = false;
    size_t i;
    json_t *o;
    json_array_foreach (member_list(answer, NULL, "backup"), i, o) {
        const char *id = member_str(o, "id"), *text = member_str(o, "description");
        enum ovirt_backup_phase phase = phase_of(member_str(o, "phase"));
        bool is_open = phase == OVIRT_BACKUP_STARTING || phase == OVIRT_BACKUP_READY;
        if (!id || (strcmp(id, p->spec->id) != 0 &&
                    (!is_open || !text || strcmp(text, p->spec->description) != 0)))
            continue;
        *ret_done = true;
        *ret_object = json_incref(o);
        return true;
    }
    return true;
}

static bool check_spec(const char *vm_id, const struct ovirt_backup_spec *spec, struct err *err)
{
    if (!engine_check_id("VM", vm_id, err) || !engine_check_id("backup", spec->id, err) ||
        (spec->from_checkpoint && !engine_check_id("checkpoint", spec->from_checkpoint, err)))
        return false;
    if (spec->disk_count == 0)
        return err_set(err, ERR_BAD_ARGUMENT, 0, "no disk to back up");
    for (size_t i = 0; i < spec->disk_count; i++) {
        if (!engine_check_id("disk", spec->disk_ids[i], err))
            return false;
    }
    return true;
}

char *ovirt_backup_begin(struct engine_session *s, const char *vm_id,
                         const struct ovirt_backup_spec *spec, struct err *err)
{
    if (!check_spec(vm_id, spec, err))
        return NULL;
    SCOPED_FREE char *path = xasprintf("vms/%s/backups", vm_id);
    json_auto_t *body = body_of(spec);
    json_auto_t *answer = NULL;
    struct begin_probe probe = {.path = path, .spec = spec};
    static const char *const queries[] = {NULL, "require_consistency=true", "legacy=true",
                                          "require_consistency=true&legacy=true"};
    struct engine_mutation m = {
        .method = ENGINE_POST,
        .path = path,
        .query = queries[(spec->legacy ? 2 : 0) + (spec->consistent ? 1 : 0)],
        .body = body,
        .probe = probe_begun,
        .probe_ctx = &probe,
        .budget_ms = spec->no_wait ? -1 : 0,
    };
    if (!engine_mutate(s, &m, &answer, err)) {
        err_wrap(err, "begin a backup of VM %s", vm_id);
        return NULL;
    }
    const char *id = member_str(answer, "id");
    if (id && engine_check_id("backup", id, err))
        return xstrdup(id);
    if (!err_is_set(err))
        err_set(err, ERR_ENGINE_PROTOCOL, 0, "a new backup of VM %s has no id", vm_id);
    return NULL;
}

/* --- Looking --------------------------------------------------------------------------------- */
static char *path_of(const char *vm_id, const char *id, const char *rest, struct err *err)
{
    if (!engine_check_id("VM", vm_id, err) || !engine_check_id("backup", id, err))
        return NULL;
    return xasprintf("vms/%s/backups/%s%s", vm_id, id, rest);
}

/* False with err; ret->id is NULL when the engine does not know it. */
static bool look(struct engine_session *s, const char *path, struct ovirt_backup *ret,
                 struct err *err)
{
    json_auto_t *json = NULL;
    if (!engine_get_or_gone(s, path, NULL, &json, err))
        return false;
    *ret = json ? of_json(json) : (struct ovirt_backup){0};
    return true;
}

bool ovirt_backup_get(struct engine_session *s, const char *vm_id, const char *id,
                      struct ovirt_backup *ret, struct err *err)
{
    SCOPED_FREE char *path = path_of(vm_id, id, "", err);
    if (!path || !look(s, path, ret, err))
        return false;
    return ret->id || err_set(err, ERR_NOT_FOUND, 404, "the engine has no backup %s", id);
}

struct wait {
    const char *path;
    const struct ovirt_backup_wait *how;
    bool told; /* of the snapshot */
    struct ovirt_backup *ret;
};

static enum engine_verdict look_ready(struct engine_session *s, void *ctx, struct err *err)
{
    struct wait *w = ctx;
    struct ovirt_backup now = {0};
    if (!look(s, w->path, &now, err))
        return ENGINE_FAILED;
    if (now.snapshot && w->how->on_snapshot && !w->told) {
        w->how->on_snapshot(w->how->ctx, now.snapshot);
        w->told = true;
    }
    if (now.id && now.phase == OVIRT_BACKUP_READY) {
        *w->ret = now;
        return ENGINE_REACHED;
    }
    bool can_come = now.id && now.phase == OVIRT_BACKUP_STARTING;
    ovirt_backup_done(&now);
    if (can_come)
        return ENGINE_AGAIN;
    err_set(err, ERR_ENGINE_FAULT, 0,
            "the engine could not begin the backup (see the VM's events)");
    return ENGINE_FAILED;
}

bool ovirt_backup_wait_ready(struct engine_session *s, const char *vm_id, const char *id,
                             const struct ovirt_backup_wait *how, struct ovirt_backup *ret,
                             struct err *err)
{
    SCOPED_FREE char *path = path_of(vm_id, id, "", err);
    struct wait w = {.path = path, .how = how, .ret = ret};
    return path && engine_poll(s, "the backup to be ready", how->limit_ms, look_ready, &w, err);
}

void ovirt_backup_disks_done(struct ovirt_backup_disks *disks)
{
    for (size_t i = 0; i < disks->count; i++)
        free(disks->v[i].id);
    free(disks->v);
    *disks = (struct ovirt_backup_disks){0};
}

bool ovirt_backup_disks(struct engine_session *s, const char *vm_id, const char *id,
                        struct ovirt_backup_disks *ret, struct err *err)
{
    SCOPED_FREE char *path = path_of(vm_id, id, "/disks", err);
    json_auto_t *answer = NULL;
    if (!path || !engine_get(s, path, NULL, &answer, err))
        return false;
    json_t *list = member_list(answer, NULL, "disk");
    struct ovirt_backup_disks found = {.v = xcalloc(json_array_size(list) + 1, sizeof *found.v)};
    size_t i;
    json_t *o;
    json_array_foreach (list, i, o) {
        const char *disk = member_str(o, "id"), *mode = member_str(o, "backup_mode");
        if (disk)
            found.v[found.count++] = (struct ovirt_backup_disk){
                .id = xstrdup(disk),
                .is_incremental = !mode || strcmp(mode, "incremental") == 0,
                .size_bytes = member_u64_or(o, "provisioned_size", 0)};
    }
    *ret = found;
    return true;
}

void ovirt_backups_done(struct ovirt_backups *list)
{
    for (size_t i = 0; i < list->count; i++)
        ovirt_backup_done(&list->v[i]);
    free(list->v);
    *list = (struct ovirt_backups){0};
}

static bool has_prefix(const char *text, const char *prefix)
{
    return !prefix || strncmp(text, prefix, strlen(prefix)) == 0;
}

bool ovirt_backups_open(struct engine_session *s, const char *vm_id, const char *prefix,
                        struct ovirt_backups *ret, struct err *err)
{
    if (!engine_check_id("VM", vm_id, err))
        return false;
    SCOPED_FREE char *path = xasprintf("vms/%s/backups", vm_id);
    json_auto_t *answer = NULL;
    if (!engine_get_or_gone(s, path, NULL, &answer, err))
        return err_wrap(err, "list the backups of VM %s", vm_id);
    json_t *list = member_list(answer, NULL, "backup");
    struct ovirt_backups found = {.v = xcalloc(json_array_size(list) + 1, sizeof *found.v)};
    size_t i;
    json_t *o;
    json_array_foreach (list, i, o) {
        struct ovirt_backup one = of_json(o);
        if (one.id && one.phase != OVIRT_BACKUP_DONE && one.phase != OVIRT_BACKUP_FAILED &&
            has_prefix(one.description, prefix))
            found.v[found.count++] = one;
        else
            ovirt_backup_done(&one);
    }
    *ret = found;
    return true;
}

/* --- Ending ---------------------------------------------------------------------------------- */
struct end {
    const char *path;
    bool to_finalize; /* it is ready: ask for the end */
};

static enum engine_verdict look_at_end(struct engine_session *s, void *ctx, struct err *err)
{
    struct end *e = ctx;
    struct ovirt_backup now = {0};
    if (!look(s, e->path, &now, err))
        return ENGINE_FAILED;
    bool gone = !now.id;
    enum ovirt_backup_phase phase = now.phase;
    ovirt_backup_done(&now);
    e->to_finalize = !gone && phase == OVIRT_BACKUP_READY;
    bool is_over = gone || phase == OVIRT_BACKUP_DONE || phase == OVIRT_BACKUP_FAILED;
    return is_over || e->to_finalize ? ENGINE_REACHED : ENGINE_AGAIN;
}

static enum engine_verdict look_ended(struct engine_session *s, void *ctx, struct err *err)
{
    struct end *e = ctx;
    enum engine_verdict verdict = look_at_end(s, e, err);
    return verdict == ENGINE_REACHED && e->to_finalize ? ENGINE_AGAIN : verdict;
}

bool ovirt_backup_end(struct engine_session *s, const char *vm_id, const char *id, int64_t limit_ms,
                      struct err *err)
{
    SCOPED_FREE char *path = path_of(vm_id, id, "", err);
    SCOPED_FREE char *finalize = path ? xasprintf("%s/finalize", path) : NULL;
    struct end e = {.path = path};
    /* One that is not ready yet cannot be ended: wait for that, or for its failure. */
    if (!path || !engine_poll(s, "the backup to come to where it can be ended", limit_ms,
                              look_at_end, &e, err))
        return false;
    struct engine_mutation m = {
        .method = ENGINE_POST,
        .path = finalize,
        .probe = engine_probe_repeatable,
        .gone_is_done = true,
    };
    if (!e.to_finalize)
        return true;
    struct err why = ERR_INIT;
    if (!engine_mutate(s, &m, NULL, &why)) {
        /* Somebody else's finalize came first, perhaps our own, whose answer was lost. */
        if (why.sys != 400 && why.code != ERR_NOT_FOUND) {
            *err = why;
            return err_wrap(err, "end backup %s", id);
        }
    }
    return engine_poll(s, "the end of the backup", limit_ms, look_ended, &e, err);
}

/* --- Checkpoints ----------------------------------------------------------------------------- */
void ovirt_checkpoints_done(struct ovirt_checkpoints *list)
{
    for (size_t i = 0; i < list->count; i++) {
        free(list->v[i].id);
        free(list->v[i].description);
    }
    free(list->v);
    *list = (struct ovirt_checkpoints){0};
}

static int by_time(const void *a, const void *b)
{
    const struct ovirt_checkpoint *x = a, *y = b;
    return x->time_ms < y->time_ms ? -1 : x->time_ms > y->time_ms;
}

bool ovirt_checkpoints_list(struct engine_session *s, const char *vm_id,
                            struct ovirt_checkpoints *ret, struct err *err)
{
    if (!engine_check_id("VM", vm_id, err))
        return false;
    SCOPED_FREE char *path = xasprintf("vms/%s/checkpoints", vm_id);
    json_auto_t *answer = NULL;
    if (!engine_get_or_gone(s, path, NULL, &answer, err))
        return err_wrap(err, "checkpoints of VM %s", vm_id);
    json_t *list = member_list(answer, NULL, "checkpoint");
    struct ovirt_checkpoints found = {.v = xcalloc(json_array_size(list) + 1, sizeof *found.v)};
    size_t i;
    json_t *o;
    json_array_foreach (list, i, o) {
        const char *id = member_str(o, "id"), *text = member_str(o, "description");
        const char *state = member_str(o, "state");
        if (id)
            found.v[found.count++] =
                (struct ovirt_checkpoint){.id = xstrdup(id),
                                          .description = xstrdup(text ? text : ""),
                                          .is_invalid = state && strcmp(state, "invalid") == 0,
                                          .time_ms = member_time_ms_or(o, "creation_date", 0)};
    }
    qsort(found.v, found.count, sizeof *found.v, by_time);
    *ret = found;
    return true;
}

const struct ovirt_checkpoint *ovirt_checkpoints_find(const struct ovirt_checkpoints *list,
                                                      const char *id)
{
    for (size_t i = 0; i < list->count; i++) {
        if (strcmp(list->v[i].id, id) == 0)
            return &list->v[i];
    }
    return NULL;
}

bool ovirt_checkpoint_delete(struct engine_session *s, const char *vm_id, const char *id,
                             int64_t limit_ms, struct err *err)
{
    if (!engine_check_id("VM", vm_id, err) || !engine_check_id("checkpoint", id, err))
        return false;
    SCOPED_FREE char *path = xasprintf("vms/%s/checkpoints/%s", vm_id, id);
    SCOPED_FREE char *what = xasprintf("checkpoint %s", id);
    struct vanish v = {.what = what, .path = path, .failed_code = ERR_ENGINE_FAULT};
    if (!vanish_ask(s, path, NULL, err))
        return err_wrap(err, "remove checkpoint %s", id);
    return vanish_wait(s, &v, limit_ms, err);
}
