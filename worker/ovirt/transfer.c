/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/ovirt/transfer.h"

#include <inttypes.h>
#include <string.h>

#include "worker/ovirt/disk.h"
#include "worker/ovirt/member.h"
#include "worker/ovirt/transfer_impl.h"

static const struct {
    const char *name;
    enum ovirt_transfer_phase phase;
} phases[] = {
    {"unknown", OVIRT_TRANSFER_STARTING},        {"initializing", OVIRT_TRANSFER_STARTING},
    {"resuming", OVIRT_TRANSFER_STARTING},       {"transferring", OVIRT_TRANSFER_READY},
    {"paused_system", OVIRT_TRANSFER_PAUSED},    {"paused_user", OVIRT_TRANSFER_PAUSED},
    {"finished_success", OVIRT_TRANSFER_DONE},   {"finished_failure", OVIRT_TRANSFER_FAILED},
    {"finished_cleanup", OVIRT_TRANSFER_FAILED},
};

enum ovirt_transfer_phase ovirt_transfer_phase_of(const char *name)
{
    for (size_t i = 0; name && i < sizeof phases / sizeof phases[0]; i++) {
        if (strcmp(phases[i].name, name) == 0)
            return phases[i].phase;
    }
    return OVIRT_TRANSFER_ENDING; /* finalizing_..., cancelled...: it will get somewhere */
}

void ovirt_transfer_done(struct ovirt_transfer *t)
{
    free(t->id);
    free(t->transfer_url);
    free(t->proxy_url);
    *t = (struct ovirt_transfer){0};
}

static char *url_of(const json_t *json, const char *key)
{
    const char *url = member_str(json, key);
    return url && url[0] ? xstrdup(url) : NULL;
}

static struct ovirt_transfer of_json(const json_t *json)
{
    return (struct ovirt_transfer){
        .id = xstrdup_or_null(member_str(json, "id")),
        .transfer_url = url_of(json, "transfer_url"),
        .proxy_url = url_of(json, "proxy_url"),
        .phase = ovirt_transfer_phase_of(member_str(json, "phase")),
    };
}

/* --- Creating -------------------------------------------------------------------------------- */
/* HARD RULES: `direction` is always sent (it defaults to upload), and so is format raw (without it
 * the host serves the bytes of a single qcow2 file). */
json_t *ovirt_transfer_body(const struct ovirt_transfer_spec *spec)
{
    json_t *body = json_pack("{s:s, s:s}", "direction", spec->is_upload ? "upload" : "download",
                             "format", "raw");
    if (spec->image_id)
        json_object_set_new(body, "snapshot", json_pack("{s:s}", "id", spec->image_id));
    else
        json_object_set_new(body, "disk", json_pack("{s:s}", "id", spec->disk_id));
    if (spec->backup_id)
        json_object_set_new(body, "backup", json_pack("{s:s}", "id", spec->backup_id));
    if (spec->inactivity_s > 0)
        json_object_set_new(body, "inactivity_timeout",
                            json_sprintf("%" PRId64, spec->inactivity_s));
    return body;
}

/* The transfers of the disk that were there before ours: what a lost answer is told apart by. */
struct create_probe {
    const struct ovirt_transfer_spec *spec;
    json_t *before; /* ids, as keys */
};

/* Those of the disk that have not ended; paused ones only if `paused`: a new one is never paused.
 */
static bool list_alive(struct engine_session *s, const struct ovirt_transfer_spec *spec,
                       bool paused, json_t **ret, struct err *err)
{
    json_auto_t *answer = NULL;
    if (!engine_get(s, "imagetransfers", NULL, &answer, err))
        return false;
    json_t *found = json_array();
    size_t i;
    json_t *t;
    json_array_foreach (member_list(answer, NULL, "image_transfer"), i, t) {
        const char *direction = member_str(t, "direction");
        const char *disk = member_ref_id(t, "image");
        enum ovirt_transfer_phase phase = ovirt_transfer_phase_of(member_str(t, "phase"));
        bool is_upload = direction && strcmp(direction, "upload") == 0;
        if (member_str(t, "id") && disk && strcmp(disk, spec->disk_id) == 0 &&
            is_upload == spec->is_upload &&
            (phase == OVIRT_TRANSFER_STARTING || phase == OVIRT_TRANSFER_READY ||
             (paused && phase == OVIRT_TRANSFER_PAUSED)))
            json_array_append(found, t);
    }
    *ret = found;
    return true;
}

static bool probe_created(struct engine_session *s, void *ctx, bool *ret_done, json_t **ret_object,
                          struct err *err)
{
    struct create_probe *p = ctx;
    json_auto_t *alive = NULL;
    if (!list_alive(s, p->spec, false, &alive, err))
        return false;
    size_t i;
    json_t *t;
    json_array_foreach (alive, i, t) {
        if (json_object_get(p->before, member_str(t, "id")))
            continue;
        *ret_done = true;
        *ret_object = json_incref(t);
        return true;
    }
    *ret_done = false;
    return true;
}

static json_t *ids_before(struct engine_session *s, const struct ovirt_transfer_spec *spec,
                          struct err *err)
{
    json_auto_t *alive = NULL;
    if (!list_alive(s, spec, false, &alive, err))
        return NULL;
    json_t *ids = json_object();
    size_t i;
    json_t *t;
    json_array_foreach (alive, i, t) {
        json_object_set_new(ids, member_str(t, "id"), json_true());
    }
    return ids;
}

char *ovirt_transfer_create(struct engine_session *s, const struct ovirt_transfer_spec *spec,
                            struct err *err)
{
    if (!engine_check_id("disk", spec->disk_id, err) ||
        (spec->image_id && !engine_check_id("image", spec->image_id, err)) ||
        (spec->backup_id && !engine_check_id("backup", spec->backup_id, err)))
        return NULL;
    json_auto_t *before = ids_before(s, spec, err);
    json_auto_t *body = ovirt_transfer_body(spec);
    json_auto_t *answer = NULL;
    struct create_probe probe = {.spec = spec, .before = before};
    struct engine_mutation m = {
        .method = ENGINE_POST,
        .path = "imagetransfers",
        .body = body,
        .probe = probe_created,
        .probe_ctx = &probe,
        .budget_ms = spec->no_wait ? -1 : 0,
    };
    if (!before || !engine_mutate(s, &m, &answer, err)) {
        err_wrap(err, "open a transfer of disk %s", spec->disk_id);
        return NULL;
    }
    const char *id = member_str(answer, "id");
    if (id && engine_check_id("transfer", id, err))
        return xstrdup(id);
    if (!err_is_set(err))
        err_set(err, ERR_ENGINE_PROTOCOL, 0, "a new transfer of disk %s has no id", spec->disk_id);
    return NULL;
}

/* --- Looking --------------------------------------------------------------------------------- */
/* False with err; *ret.id is NULL when the engine does not know it. */
static bool look(struct engine_session *s, const char *id, struct ovirt_transfer *ret,
                 struct err *err)
{
    if (!engine_check_id("transfer", id, err))
        return false;
    SCOPED_FREE char *path = xasprintf("imagetransfers/%s", id);
    json_auto_t *json = NULL;
    if (!engine_get_or_gone(s, path, NULL, &json, err))
        return false;
    *ret = json ? of_json(json) : (struct ovirt_transfer){0};
    return true;
}

bool ovirt_transfer_get(struct engine_session *s, const char *id, struct ovirt_transfer *ret,
                        struct err *err)
{
    struct ovirt_transfer found = {0};
    if (!look(s, id, &found, err))
        return false;
    if (!found.id)
        return err_set(err, ERR_NOT_FOUND, 404, "the engine has no transfer %s", id);
    *ret = found;
    return true;
}

struct wait {
    const char *id;
    struct ovirt_transfer *ret;
};

static enum engine_verdict look_ready(struct engine_session *s, void *ctx, struct err *err)
{
    struct wait *w = ctx;
    struct ovirt_transfer now = {0};
    if (!ovirt_transfer_get(s, w->id, &now, err))
        return ENGINE_FAILED;
    if (now.phase == OVIRT_TRANSFER_READY && now.transfer_url) {
        *w->ret = now;
        return ENGINE_REACHED;
    }
    bool can_come = now.phase == OVIRT_TRANSFER_STARTING || now.phase == OVIRT_TRANSFER_READY;
    ovirt_transfer_done(&now);
    if (can_come)
        return ENGINE_AGAIN;
    err_set(err, ERR_ENGINE_FAULT, 0, "transfer %s failed before it was ready", w->id);
    return ENGINE_FAILED;
}

bool ovirt_transfer_wait_ready(struct engine_session *s, const char *id, int64_t limit_ms,
                               struct ovirt_transfer *ret, struct err *err)
{
    struct wait w = {.id = id, .ret = ret};
    return engine_poll(s, "the transfer to be ready", limit_ms, look_ready, &w, err);
}

/* --- Which are open -------------------------------------------------------------------------- */
void ovirt_open_transfers_done(struct ovirt_open_transfers *list)
{
    for (size_t i = 0; i < list->count; i++) {
        free(list->v[i].id);
        free(list->v[i].disk_id);
    }
    free(list->v);
    *list = (struct ovirt_open_transfers){0};
}

bool ovirt_transfers_open(struct engine_session *s, struct ovirt_open_transfers *ret,
                          struct err *err)
{
    json_auto_t *answer = NULL;
    if (!engine_get(s, "imagetransfers", NULL, &answer, err))
        return err_wrap(err, "list the image transfers");
    json_t *list = member_list(answer, NULL, "image_transfer");
    struct ovirt_open_transfers found = {.v = xcalloc(json_array_size(list) + 1, sizeof *found.v)};
    size_t i;
    json_t *t;
    json_array_foreach (list, i, t) {
        const char *id = member_str(t, "id"), *disk = member_ref_id(t, "image");
        const char *direction = member_str(t, "direction");
        enum ovirt_transfer_phase phase = ovirt_transfer_phase_of(member_str(t, "phase"));
        if (!id || !disk || phase == OVIRT_TRANSFER_DONE || phase == OVIRT_TRANSFER_FAILED)
            continue;
        found.v[found.count++] = (struct ovirt_open_transfer){
            .id = xstrdup(id),
            .disk_id = xstrdup(disk),
            .is_upload = !direction || strcmp(direction, "upload") == 0,
        };
    }
    *ret = found;
    return true;
}

static bool is_locked(struct engine_session *s, const char *image_id, const char *storage_domain_id,
                      bool *ret_locked, struct err *err)
{
    if (!engine_check_id("image", image_id, err) ||
        !engine_check_id("storage domain", storage_domain_id, err))
        return false;
    SCOPED_FREE char *path =
        xasprintf("storagedomains/%s/disksnapshots/%s", storage_domain_id, image_id);
    json_auto_t *volume = NULL;
    if (!engine_get_or_gone(s, path, NULL, &volume, err))
        return false;
    const char *status = member_str(volume, "status");
    *ret_locked = status && strcmp(status, "locked") == 0;
    return true;
}

bool ovirt_transfer_of_volume(struct engine_session *s, const struct ovirt_open_transfers *open,
                              const char *disk_id, const char *image_id,
                              const char *storage_domain_id, char **ret_id, struct err *err)
{
    const struct ovirt_open_transfer *one = NULL;
    *ret_id = NULL;
    for (size_t i = 0; i < open->count; i++) {
        const struct ovirt_open_transfer *t = &open->v[i];
        if (strcmp(t->disk_id, disk_id) != 0 || t->is_upload)
            continue;
        if (one)
            return true; /* one of two */
        one = t;
    }
    bool locked = false;
    if (!one || !image_id || !storage_domain_id)
        return true;
    if (!is_locked(s, image_id, storage_domain_id, &locked, err))
        return err_wrap(err, "is volume %s of disk %s locked", image_id, disk_id);
    if (locked)
        *ret_id = xstrdup(one->id);
    return true;
}

/* --- Actions --------------------------------------------------------------------------------- */
static bool act(struct engine_session *s, const char *id, const char *action, struct err *err)
{
    if (!engine_check_id("transfer", id, err))
        return false;
    SCOPED_FREE char *path = xasprintf("imagetransfers/%s/%s", id, action);
    struct engine_mutation m = {
        .method = ENGINE_POST,
        .path = path,
        .probe = engine_probe_repeatable,
        .gone_is_done = true,
    };
    if (!engine_mutate(s, &m, NULL, err))
        return err_wrap(err, "%s transfer %s", action, id);
    return true;
}

bool ovirt_transfer_keep(struct engine_session *s, const char *id, struct err *err)
{
    struct ovirt_transfer now = {0};
    if (!ovirt_transfer_get(s, id, &now, err))
        return false;
    enum ovirt_transfer_phase phase = now.phase;
    ovirt_transfer_done(&now);
    switch (phase) {
    case OVIRT_TRANSFER_STARTING:
        return true;
    case OVIRT_TRANSFER_READY:
        return act(s, id, "extend", err);
    case OVIRT_TRANSFER_PAUSED:
        return act(s, id, "resume", err);
    case OVIRT_TRANSFER_ENDING:
    case OVIRT_TRANSFER_DONE:
    case OVIRT_TRANSFER_FAILED:
        break;
    }
    return err_set(err, ERR_ENGINE_FAULT, 0, "the engine has ended transfer %s by itself", id);
}

struct end {
    const char *id;
    const char *disk_id; /* NULL when the outcome does not matter */
};

/* An engine that forgets ended transfers: the disk tells how it went. */
static enum engine_verdict judge_by_disk(struct engine_session *s, const struct end *e,
                                         struct err *err)
{
    struct ovirt_disk disk = {0};
    if (!e->disk_id)
        return ENGINE_REACHED;
    if (!ovirt_disk_get(s, e->disk_id, &disk, err))
        return ENGINE_FAILED;
    bool ok = disk.status && strcmp(disk.status, "ok") == 0;
    bool locked = disk.status && strcmp(disk.status, "locked") == 0;
    if (!ok && !locked)
        err_set(err, ERR_ENGINE_FAULT, 0, "disk %s is '%s' after transfer %s", e->disk_id,
                disk.status ? disk.status : "?", e->id);
    ovirt_disk_done(&disk);
    return ok ? ENGINE_REACHED : locked ? ENGINE_AGAIN : ENGINE_FAILED;
}

static enum engine_verdict look_ended(struct engine_session *s, void *ctx, struct err *err)
{
    const struct end *e = ctx;
    struct ovirt_transfer now = {0};
    if (!look(s, e->id, &now, err))
        return ENGINE_FAILED;
    bool gone = !now.id;
    enum ovirt_transfer_phase phase = now.phase;
    ovirt_transfer_done(&now);
    if (gone)
        return judge_by_disk(s, e, err);
    if (phase == OVIRT_TRANSFER_DONE || (phase == OVIRT_TRANSFER_FAILED && !e->disk_id))
        return ENGINE_REACHED;
    if (phase != OVIRT_TRANSFER_FAILED)
        return ENGINE_AGAIN;
    err_set(err, ERR_ENGINE_FAULT, 0, "the engine could not finish transfer %s", e->id);
    return ENGINE_FAILED;
}

bool ovirt_transfer_finalize(struct engine_session *s, const char *id, const char *disk_id,
                             int64_t limit_ms, struct err *err)
{
    struct end e = {.id = id, .disk_id = disk_id};
    return act(s, id, "finalize", err) &&
           engine_poll(s, "the end of the transfer", limit_ms, look_ended, &e, err);
}

bool ovirt_transfer_cancel(struct engine_session *s, const char *id, int64_t limit_ms,
                           struct err *err)
{
    struct end e = {.id = id};
    return act(s, id, "cancel", err) &&
           engine_poll(s, "the end of the transfer", limit_ms, look_ended, &e, err);
}

bool ovirt_uploads_cancel(struct engine_session *s, const char *disk_id, int64_t limit_ms,
                          struct err *err)
{
    struct ovirt_transfer_spec spec = {.is_upload = true, .disk_id = disk_id};
    json_auto_t *alive = NULL;
    if (!list_alive(s, &spec, true, &alive, err))
        return false;
    size_t i;
    json_t *t;
    json_array_foreach (alive, i, t) {
        if (!ovirt_transfer_cancel(s, member_str(t, "id"), limit_ms, err))
            return err_wrap(err, "upload to disk %s", disk_id);
    }
    return true;
}
