/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/ovirt/vm.h"

#include <string.h>

#include "worker/ovirt/member.h"
#include "worker/ovirt/vanish.h"
#include "worker/ovirt/vm_impl.h"

static bool is(const char *text, const char *word)
{
    return text && strcmp(text, word) == 0;
}

/* --- Describing ------------------------------------------------------------------------------ */
static bool read_vm(json_t *raw, struct ovirt_vm *ret, struct err *err)
{
    const char *id = member_str(raw, "id"), *name = member_str(raw, "name");
    if (!id || !name)
        return err_set(err, ERR_ENGINE_PROTOCOL, 0, "the engine's VM has no id or no name");
    const char *description = member_str(raw, "description");
    *ret = (struct ovirt_vm){
        .id = xstrdup(id),
        .name = xstrdup(name),
        .description = xstrdup(description ? description : ""),
        .status = xstrdup_or_null(member_str(raw, "status")),
        .origin = xstrdup_or_null(member_str(raw, "origin")),
        .cluster_id = xstrdup_or_null(member_ref_id(raw, "cluster")),
        .host_id = xstrdup_or_null(member_ref_id(raw, "host")),
        .is_hosted_engine = ovirt_vm_is_hosted_engine(raw),
        .delete_protected = member_bool_or(raw, "delete_protected", false),
        .virtio_scsi = member_bool_or(member_object(raw, "virtio_scsi"), "enabled", false),
        .raw = json_incref(raw),
    };
    return true;
}

bool ovirt_vm_get(struct engine_session *s, const char *id, struct ovirt_vm *ret, struct err *err)
{
    if (!engine_check_id("VM", id, err))
        return false;
    SCOPED_FREE char *path = xasprintf("vms/%s", id);
    json_auto_t *raw = NULL;
    if (!engine_get(s, path,
                    "all_content=true&follow=nics,disk_attachments.disk,tags,cdroms,watchdogs,"
                    "graphics_consoles",
                    &raw, err) ||
        !read_vm(raw, ret, err))
        return err_wrap(err, "read VM %s", id);
    return true;
}

void ovirt_vm_done(struct ovirt_vm *vm)
{
    free(vm->id);
    free(vm->name);
    free(vm->description);
    free(vm->status);
    free(vm->origin);
    free(vm->cluster_id);
    free(vm->host_id);
    json_decref(vm->raw);
    *vm = (struct ovirt_vm){0};
}

char *ovirt_vm_status(struct engine_session *s, const char *id, struct err *err)
{
    if (!engine_check_id("VM", id, err))
        return NULL;
    SCOPED_FREE char *path = xasprintf("vms/%s", id);
    json_auto_t *vm = NULL;
    if (!engine_get(s, path, NULL, &vm, err))
        return NULL;
    const char *status = member_str(vm, "status");
    if (!status)
        err_set(err, ERR_ENGINE_PROTOCOL, 0, "the engine does not tell the status of VM %s", id);
    return xstrdup_or_null(status);
}

bool ovirt_vm_disks(const struct ovirt_vm *vm, struct ovirt_disks *ret, struct err *err)
{
    json_t *list = member_list(vm->raw, "disk_attachments", "disk_attachment");
    struct ovirt_disks found = {.v = xcalloc(json_array_size(list) + 1, sizeof *found.v)};
    size_t i;
    json_t *a;
    json_array_foreach (list, i, a) {
        if (!ovirt_disk_of_json(member_object(a, "disk"), a, &found.v[found.count], err)) {
            ovirt_disks_done(&found);
            return err_wrap(err, "disks of VM '%s'", vm->name);
        }
        found.count++;
    }
    *ret = found;
    return true;
}

bool ovirt_vm_ovf(const struct ovirt_vm *vm, struct buf *ret, struct err *err)
{
    const json_t *configuration =
        member_object(member_object(vm->raw, "initialization"), "configuration");
    const json_t *data = json_object_get(configuration, "data");
    buf_init(ret, json_string_length(data) + 1);
    if (json_string_length(data) == 0)
        return err_set(err, ERR_ENGINE_PROTOCOL, 0,
                       "the engine gives no configuration (OVF) for VM %s", vm->name);
    return buf_add(ret, json_string_value(data), json_string_length(data)) ||
           err_set(err, ERR_TOO_LARGE, 0, "the OVF of VM %s is too large", vm->name);
}

bool ovirt_vm_has_checkpoints(struct engine_session *s, const char *id, bool *ret, struct err *err)
{
    struct engine_version version;
    if (!engine_check_id("VM", id, err) || !engine_read_version(s, &version, err))
        return false;
    json_auto_t *answer = NULL;
    SCOPED_FREE char *path = xasprintf("vms/%s/checkpoints", id);
    /* The collection came with 4.3, as a technical preview: there it may be missing. */
    if (engine_version_cmp(&version, 4, 3, 0) >= 0 &&
        !engine_get_or_gone(s, path, NULL, &answer, err))
        return err_wrap(err, "checkpoints of VM %s", id);
    *ret = json_array_size(member_list(answer, NULL, "checkpoint")) > 0;
    return true;
}

enum { GUEST_BUDGET_MS = 30 * 1000 };

/* --- Actions --------------------------------------------------------------------------------- */
/* Freezing and thawing twice harms nothing; and a guest must not stay frozen while we wait for
 * locks, so they do not. */
static bool guest_action(struct engine_session *s, const char *id, const char *action,
                         struct err *err)
{
    if (!engine_check_id("VM", id, err))
        return false;
    SCOPED_FREE char *path = xasprintf("vms/%s/%s", id, action);
    int64_t budget_ms = engine_session_conf(s)->busy_budget_ms;
    struct engine_mutation m = {
        .method = ENGINE_POST,
        .path = path,
        .probe = engine_probe_repeatable,
        .budget_ms = budget_ms < GUEST_BUDGET_MS ? budget_ms : GUEST_BUDGET_MS,
    };
    if (engine_mutate(s, &m, NULL, err))
        return true;
    if (err->sys >= 400 && err->sys < 500 && err->sys != 401 && err->sys != 403 && err->sys != 404)
        err->code = ERR_QUIESCE_FAILED;
    return err_wrap(err, "%s of VM %s", action, id);
}

bool ovirt_vm_freeze(struct engine_session *s, const char *id, struct err *err)
{
    return guest_action(s, id, "freezefilesystems", err);
}

bool ovirt_vm_thaw(struct engine_session *s, const char *id, struct err *err)
{
    return guest_action(s, id, "thawfilesystems", err);
}

static bool is_starting(const char *status)
{
    return is(status, "up") || is(status, "powering_up") || is(status, "wait_for_launch") ||
           is(status, "reboot_in_progress");
}

struct status_watch {
    const char *id, *wanted;
    bool was_starting;
};

static enum engine_verdict look_status(struct engine_session *s, void *ctx, struct err *err)
{
    struct status_watch *w = ctx;
    SCOPED_FREE char *status = ovirt_vm_status(s, w->id, err);
    if (!status)
        return ENGINE_FAILED;
    if (is(status, w->wanted))
        return ENGINE_REACHED;
    if (w->was_starting && is(status, "down")) {
        err_set(err, ERR_ENGINE_FAULT, 0, "VM %s began to start and is down again", w->id);
        return ENGINE_FAILED;
    }
    w->was_starting = is(w->wanted, "up") && is_starting(status);
    return ENGINE_AGAIN;
}

bool ovirt_vm_wait(struct engine_session *s, const char *id, const char *status, int64_t limit_ms,
                   struct err *err)
{
    struct status_watch watch = {.id = id, .wanted = status};
    SCOPED_FREE char *what = xasprintf("VM %s to be %s", id, status);
    return engine_poll(s, what, limit_ms, look_status, &watch, err);
}

struct put_probe {
    const char *path, *description;
};

/* A lost PUT was done when the description is the new one. It must be known: whether a VM still
 * carries our mark decides whose it is. */
static bool probe_put(struct engine_session *s, void *ctx, bool *ret_done, json_t **ret_object,
                      struct err *err)
{
    const struct put_probe *p = ctx;
    json_auto_t *vm = NULL;
    (void)ret_object;
    if (!engine_get_or_gone(s, p->path, NULL, &vm, err))
        return false;
    const char *description = member_str(vm, "description");
    *ret_done = vm && strcmp(description ? description : "", p->description) == 0;
    return true;
}

/* `body` has the description, last to change by our hand. */
static bool put_vm(struct engine_session *s, const char *id, json_t *body, struct err *err)
{
    SCOPED_FREE char *path = xasprintf("vms/%s", id);
    struct put_probe probe = {.path = path, .description = member_str(body, "description")};
    struct engine_mutation m = {
        .method = ENGINE_PUT,
        .path = path,
        .body = body,
        .probe = probe_put,
        .probe_ctx = &probe,
    };
    if (!engine_mutate(s, &m, NULL, err))
        return err_wrap(err, "update VM %s", id);
    return true;
}

bool ovirt_vm_set_description(struct engine_session *s, const char *id, const char *text,
                              struct err *err)
{
    if (!engine_check_id("VM", id, err))
        return false;
    json_auto_t *body = json_pack("{s:s}", "description", text);
    if (!body)
        return err_set(err, ERR_BAD_ARGUMENT, 0, "description of VM %s is not UTF-8", id);
    return put_vm(s, id, body, err);
}

bool ovirt_vm_finish(struct engine_session *s, const char *id, const json_t *saved, struct err *err)
{
    if (!engine_check_id("VM", id, err))
        return false;
    const char *description = member_str(saved, "description");
    json_auto_t *body = json_pack("{s:s}", "description", description ? description : "");
    if (member_bool_or(saved, "delete_protected", false))
        json_object_set_new(body, "delete_protected", json_string("true"));
    return put_vm(s, id, body, err);
}

/* ctx is the id (char *). */
static bool probe_started(struct engine_session *s, void *ctx, bool *ret_done, json_t **ret_object,
                          struct err *err)
{
    (void)ret_object;
    SCOPED_FREE char *status = ovirt_vm_status(s, ctx, err);
    if (!status)
        return false;
    *ret_done = is_starting(status);
    return true;
}

bool ovirt_vm_start(struct engine_session *s, const char *id, struct err *err)
{
    bool done = false;
    if (!engine_check_id("VM", id, err))
        return false;
    SCOPED_FREE char *copy = xstrdup(id);
    if (!probe_started(s, copy, &done, NULL, err) || done)
        return done;
    SCOPED_FREE char *path = xasprintf("vms/%s/start", id);
    struct engine_mutation m = {
        .method = ENGINE_POST,
        .path = path,
        .probe = probe_started,
        .probe_ctx = copy,
    };
    if (!engine_mutate(s, &m, NULL, err))
        return err_wrap(err, "start VM %s", id);
    return true;
}

/* HARD RULE: the one place that removes a VM. Only with the description that marks a half-restored
 * VM or a clone of ours; and detach_only=true, so that no disk goes with it, but for a clone. */
static bool delete_vm(struct engine_session *s, const char *id, const char *expected_description,
                      bool with_disks, int64_t limit_ms, struct err *err)
{
    if (!engine_check_id("VM", id, err))
        return false;
    SCOPED_FREE char *path = xasprintf("vms/%s", id);
    SCOPED_FREE char *what = xasprintf("VM %s", id);
    json_auto_t *vm = NULL;
    if (!engine_get_or_gone(s, path, NULL, &vm, err))
        return err_wrap(err, "%s", what);
    if (!vm)
        return true;
    const char *description = member_str(vm, "description");
    if (!expected_description || expected_description[0] == '\0' ||
        !is(description, expected_description))
        return err_set(err, ERR_REFUSED, 0,
                       "VM '%s' is not ours to remove: its description is '%.100s', not '%s'",
                       member_str(vm, "name"), description ? description : "",
                       expected_description ? expected_description : "");
    if (!vanish_ask(s, path, with_disks ? NULL : "detach_only=true", err))
        return err_wrap(err, "remove %s", what);
    struct vanish v = {.what = what, .path = path};
    return vanish_wait(s, &v, limit_ms, err);
}

bool ovirt_vm_delete(struct engine_session *s, const char *id, const char *expected_description,
                     int64_t limit_ms, struct err *err)
{
    return delete_vm(s, id, expected_description, false, limit_ms, err);
}

bool ovirt_vm_delete_clone(struct engine_session *s, const char *id,
                           const char *expected_description, int64_t limit_ms, struct err *err)
{
    return delete_vm(s, id, expected_description, true, limit_ms, err);
}
