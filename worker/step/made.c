/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/step/made.h"

#include <string.h>

#include "proto/base/alloc.h"
#include "proto/base/log.h"
#include "worker/ovirt/disk.h"
#include "worker/ovirt/member.h"
#include "worker/ovirt/transfer.h"
#include "worker/ovirt/vm.h"

enum { UPLOAD_LIMIT_MS = 15 * 60 * 1000 };

/* The description of an object: "" when it has none, NULL when the object is gone or on error.
 * ret_locked: its status says so; NULL = not wanted. */
static bool read_description(struct task_run *run, const char *what, const char *id,
                             char **ret_description, bool *ret_locked, struct err *err)
{
    *ret_description = NULL;
    if (!engine_check_id(what, id, err))
        return false;
    SCOPED_FREE char *path = xasprintf("%s/%s", what, id);
    json_t *object = NULL;
    if (!engine_get_or_gone(run->session, path, NULL, &object, err))
        return false;
    if (object) {
        const char *text = member_str(object, "description");
        *ret_description = xstrdup(text ? text : "");
        const char *status = member_str(object, "status");
        if (ret_locked)
            *ret_locked = status && strcmp(status, "locked") == 0;
    }
    json_decref(object);
    return true;
}

enum made_state made_vm_state(struct task_run *run, const char *vm_id, const char *task,
                              struct err *err)
{
    SCOPED_FREE char *description = NULL;
    if (!read_description(run, "vms", vm_id, &description, NULL, err))
        return MADE_UNKNOWN;
    if (!description)
        return MADE_GONE;
    return marker_is_ours(description, task) ? MADE_OURS : MADE_FINISHED;
}

bool made_vm_remove(struct task_run *run, const char *vm_id, const char *task, struct err *err)
{
    SCOPED_FREE char *description = NULL;
    if (!read_description(run, "vms", vm_id, &description, NULL, err))
        return false;
    if (!description)
        return true;
    if (!marker_is_ours(description, task))
        return err_set(err, ERR_REFUSED, 0,
                       "VM %s is not removed: it does not carry the marker of task %s", vm_id,
                       task);
    bool is_clone = strncmp(description, MARKER_EXPORT, strlen(MARKER_EXPORT)) == 0;
    int64_t limit_ms = run->settings->vm_wait_s * 1000;
    if (is_clone ? !ovirt_vm_delete_clone(run->session, vm_id, description, limit_ms, err)
                 : !ovirt_vm_delete(run->session, vm_id, description, limit_ms, err))
        return err_wrap(err, is_clone ? "remove clone %s" : "remove half-restored VM %s", vm_id);
    log_info("vm_removed", LOG_STR("vm_id", vm_id));
    return true;
}

bool made_disk_check(struct task_run *run, const char *disk_id, const char *task, struct err *err)
{
    SCOPED_FREE char *description = NULL;
    if (!read_description(run, "disks", disk_id, &description, NULL, err))
        return false;
    if (!description)
        return err_set(err, ERR_NOT_FOUND, 0, "there is no disk %s", disk_id);
    return marker_is_ours(description, task) ||
           err_set(err, ERR_REFUSED, 0, "disk %s does not carry the marker of task %s", disk_id,
                   task);
}

bool made_disk_remove(struct task_run *run, const char *disk_id, const char *task, struct err *err)
{
    SCOPED_FREE char *description = NULL;
    bool locked = false;
    if (!read_description(run, "disks", disk_id, &description, &locked, err))
        return false;
    if (!description)
        return true;
    if (!marker_is_ours(description, task))
        return err_set(err, ERR_REFUSED, 0,
                       "disk %s is not removed: it does not carry the marker of task %s", disk_id,
                       task);
    /* Whoever died before it could tell of its upload has left one that locks the disk for ever. */
    if (locked && !ovirt_uploads_cancel(run->session, disk_id, UPLOAD_LIMIT_MS, err))
        return err_wrap(err, "remove half-restored disk %s", disk_id);
    if (!ovirt_disk_delete(run->session, disk_id, run->settings->vm_wait_s * 1000, err))
        return err_wrap(err, "remove half-restored disk %s", disk_id);
    log_info("disk_removed", LOG_STR("disk", disk_id));
    return true;
}

static bool empty_description(struct task_run *run, const char *disk_id, struct err *err)
{
    SCOPED_FREE char *path = xasprintf("disks/%s", disk_id);
    json_t *body = json_pack("{s:s}", "description", "");
    struct engine_mutation m = {
        .method = ENGINE_PUT, .path = path, .body = body, .probe = engine_probe_repeatable};
    bool ok = engine_mutate(run->session, &m, NULL, err);
    json_decref(body);
    return ok;
}

void made_drop_handles(struct task_run *run)
{
    run_handle_drop(run, HANDLE_VM);
    for (size_t i = run->handles.count; i-- > 0;) {
        const struct wire_handle *h = &run->handles.v[i];
        if (strncmp(h->name, HANDLE_DISK, strlen(HANDLE_DISK)) != 0)
            continue;
        struct err err = ERR_INIT;
        if (!empty_description(run, h->value, &err)) {
            if (err.code == ERR_LEASE_LOST)
                return; /* whoever has it now shall know of the disk, and take its mark off */
            run_warn_err(run, h->value, &err);
        }
        SCOPED_FREE char *name = xstrdup(h->name);
        run_handle_drop(run, name);
    }
}

/* --- By name --------------------------------------------------------------------------------- */
static bool find_by_name(struct task_run *run, const char *name, const char *task, char **ret_id,
                         struct err *err)
{
    SCOPED_FREE char *id = ovirt_vm_find(run->session, name, NULL, err);
    if (!id && err->code == ERR_NOT_FOUND) {
        err_clear(err);
        return true;
    }
    if (!id)
        return false;
    switch (made_vm_state(run, id, task, err)) {
    case MADE_OURS:
        *ret_id = TAKE(id);
        return true;
    case MADE_GONE:
        return true;
    case MADE_FINISHED:
        return err_set(err, ERR_REFUSED, 0, "VM %s is called %s, but is not the clone of task %s",
                       id, name, task);
    case MADE_UNKNOWN:
        break;
    }
    return false;
}

bool made_name_freed(struct task_run *run, const char *name, struct err *err)
{
    if (err->code != ERR_EXISTS || run->offer->attempt == 1)
        return false;
    const char *task = run->offer->task;
    struct err why = ERR_INIT;
    SCOPED_FREE char *id = NULL;
    if (!find_by_name(run, name, task, &id, &why) || !id)
        return false; /* somebody else's, or it cannot be known: the name is taken */
    log_info("stray_vm", LOG_STR("vm_id", id), LOG_STR("name", name));
    err_clear(err);
    return made_vm_remove(run, id, task, err);
}

/* --- Clones ---------------------------------------------------------------------------------- */
bool made_clone_find(struct task_run *run, const char *vm_id, const char *name, const char *task,
                     char **ret_id, struct err *err)
{
    *ret_id = NULL;
    if (strcmp(vm_id, WIRE_LEFTOVER_ALL) == 0)
        return find_by_name(run, name, task, ret_id, err);
    if (!engine_check_id("VM", vm_id, err))
        return false;
    SCOPED_FREE char *path = xasprintf("vms/%s", vm_id);
    json_auto_t *vm = NULL;
    if (!engine_get_or_gone(run->session, path, NULL, &vm, err))
        return false;
    if (!vm)
        return true;
    const char *called = member_str(vm, "name");
    if (!marker_is_ours(member_str(vm, "description"), task) &&
        (!called || strcmp(called, name) != 0))
        return err_set(err, ERR_REFUSED, 0,
                       "VM %s is not the clone of task %s any more: it is called %s", vm_id, task,
                       called ? called : "?");
    *ret_id = xstrdup(vm_id);
    return true;
}

bool made_clone_mark(struct task_run *run, const char *vm_id, const char *task, struct err *err)
{
    switch (made_vm_state(run, vm_id, task, err)) {
    case MADE_GONE:
    case MADE_OURS:
        return true;
    case MADE_UNKNOWN:
        return false;
    case MADE_FINISHED:
        break;
    }
    SCOPED_FREE char *marker = run_marker_exporting(run, task);
    return ovirt_vm_set_description(run->session, vm_id, marker, err);
}
