/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/ovirt/attachment.h"

#include <assert.h>
#include <string.h>

#include "worker/ovirt/attachment_impl.h"
#include "worker/ovirt/fault.h"
#include "worker/ovirt/member.h"
#include "worker/ovirt/vanish.h"

#define DEFAULT_INTERFACE "virtio_scsi"

bool ovirt_attachments_list(struct engine_session *s, const char *vm_id,
                            struct ovirt_attachments *ret, struct err *err)
{
    if (!engine_check_id("VM", vm_id, err))
        return false;
    SCOPED_FREE char *path = xasprintf("vms/%s/diskattachments", vm_id);
    json_auto_t *answer = NULL;
    if (!engine_get(s, path, NULL, &answer, err))
        return err_wrap(err, "list the disks of VM %s", vm_id);
    json_t *list = member_list(answer, NULL, "disk_attachment");
    struct ovirt_attachments found = {.v = xcalloc(json_array_size(list) + 1, sizeof *found.v)};
    size_t i;
    json_t *a;
    json_array_foreach (list, i, a) {
        const char *disk = member_ref_id(a, "disk");
        disk = disk ? disk : member_str(a, "id");
        if (!disk)
            continue;
        found.v[found.count++] = (struct ovirt_attachment){
            .disk_id = xstrdup(disk),
            .interface = xstrdup_or_null(member_str(a, "interface")),
            .active = member_bool_or(a, "active", false),
            .bootable = member_bool_or(a, "bootable", false),
            .read_only = member_bool_or(a, "read_only", false),
        };
    }
    *ret = found;
    return true;
}

void ovirt_attachments_done(struct ovirt_attachments *list)
{
    for (size_t i = 0; i < list->count; i++) {
        free(list->v[i].disk_id);
        free(list->v[i].interface);
    }
    free(list->v);
    *list = (struct ovirt_attachments){0};
}

const struct ovirt_attachment *ovirt_attachments_find(const struct ovirt_attachments *list,
                                                      const char *disk_id)
{
    for (size_t i = 0; i < list->count; i++) {
        if (strcmp(list->v[i].disk_id, disk_id) == 0)
            return &list->v[i];
    }
    return NULL;
}

/* HARD RULE: the one place where a snapshot's disk is attached, and `disk.snapshot.id` is always in
 * the body: without it the engine would attach the live disk. */
json_t *ovirt_attach_snapshot_body(const char *disk_id, const char *snapshot_id,
                                   const char *interface)
{
    assert(disk_id && snapshot_id && snapshot_id[0]);
    return json_pack("{s:s, s:s, s:s, s:{s:s, s:{s:s}}}", "active", "true", "bootable", "false",
                     "interface", interface ? interface : DEFAULT_INTERFACE, "disk", "id", disk_id,
                     "snapshot", "id", snapshot_id);
}

json_t *ovirt_attach_disk_body(const char *disk_id, const struct ovirt_attach *how)
{
    json_t *body =
        json_pack("{s:s, s:s, s:s, s:{s:s}}", "active", how->active ? "true" : "false", "bootable",
                  how->bootable ? "true" : "false", "interface",
                  how->interface ? how->interface : DEFAULT_INTERFACE, "disk", "id", disk_id);
    if (how->read_only)
        json_object_set_new(body, "read_only", json_string("true"));
    if (how->pass_discard)
        json_object_set_new(body, "pass_discard", json_string("true"));
    return body;
}

/* Done = it is there and plugged as wanted. `half` = it is there, but its hot-plug failed. Both are
 * the work of this call: the engine refuses to attach a disk that was there before. */
struct attach_probe {
    const char *path;
    bool active;
    bool half;
};

static bool probe_attached(struct engine_session *s, void *ctx, bool *ret_done, json_t **ret_object,
                           struct err *err)
{
    struct attach_probe *p = ctx;
    json_auto_t *a = NULL;
    if (!engine_get_or_gone(s, p->path, NULL, &a, err))
        return false;
    *ret_done = a && (!p->active || member_bool_or(a, "active", false));
    p->half = a && !*ret_done;
    *ret_object = json_incref(a);
    return true;
}

static bool plug(struct engine_session *s, struct attach_probe *probe, struct err *err)
{
    json_auto_t *body = json_pack("{s:s}", "active", "true");
    struct engine_mutation m = {
        .method = ENGINE_PUT,
        .path = probe->path,
        .body = body,
        .probe = probe_attached,
        .probe_ctx = probe,
    };
    return engine_mutate(s, &m, NULL, err);
}

static bool attach(struct engine_session *s, const char *vm_id, const char *disk_id,
                   const json_t *body, bool active, struct err *err)
{
    SCOPED_FREE char *collection = xasprintf("vms/%s/diskattachments", vm_id);
    SCOPED_FREE char *path = xasprintf("%s/%s", collection, disk_id);
    struct attach_probe probe = {.path = path, .active = active};
    struct engine_mutation m = {
        .method = ENGINE_POST,
        .path = collection,
        .body = body,
        .probe = probe_attached,
        .probe_ctx = &probe,
    };
    bool ok = engine_mutate(s, &m, NULL, err);
    if (!ok && probe.half && fault_is_already_attached(err)) {
        err_clear(err);
        ok = plug(s, &probe, err);
    }
    if (!ok)
        return err_wrap(err, "attach disk %s to VM %s", disk_id, vm_id);
    return true;
}

bool ovirt_attach_snapshot_disk(struct engine_session *s, const char *proxy_id, const char *disk_id,
                                const char *snapshot_id, const char *interface, struct err *err)
{
    if (!engine_check_id("VM", proxy_id, err) || !engine_check_id("disk", disk_id, err) ||
        !engine_check_id("snapshot", snapshot_id, err))
        return err_wrap(err, "attach a snapshot's disk");
    json_auto_t *body = ovirt_attach_snapshot_body(disk_id, snapshot_id, interface);
    return attach(s, proxy_id, disk_id, body, true, err);
}

bool ovirt_attach_disk(struct engine_session *s, const char *vm_id, const char *disk_id,
                       const struct ovirt_attach *how, struct err *err)
{
    if (!engine_check_id("VM", vm_id, err) || !engine_check_id("disk", disk_id, err))
        return err_wrap(err, "attach a disk");
    json_auto_t *body = ovirt_attach_disk_body(disk_id, how);
    return attach(s, vm_id, disk_id, body, how->active, err);
}

/* HARD RULE: the one place that detaches, and it sends detach_only=true: false would delete the
 * original disk, and true is only the default. */
bool ovirt_detach(struct engine_session *s, const char *vm_id, const char *disk_id,
                  int64_t limit_ms, struct err *err)
{
    if (!engine_check_id("VM", vm_id, err) || !engine_check_id("disk", disk_id, err))
        return err_wrap(err, "detach a disk");
    SCOPED_FREE char *path = xasprintf("vms/%s/diskattachments/%s", vm_id, disk_id);
    SCOPED_FREE char *what = xasprintf("disk %s attached to VM %s", disk_id, vm_id);
    if (!vanish_ask(s, path, "detach_only=true", err))
        return err_wrap(err, "detach disk %s from VM %s", disk_id, vm_id);
    struct vanish v = {.what = what, .path = path};
    return vanish_wait(s, &v, limit_ms, err);
}
