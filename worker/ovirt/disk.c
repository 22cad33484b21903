/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/ovirt/disk.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "worker/ovirt/disk_impl.h"
#include "worker/ovirt/member.h"
#include "worker/ovirt/vanish.h"

static const struct {
    const char *name, *why;
} classes[] = {
    [OVIRT_DISK_FIT] = {"fit", "it can be backed up"},
    [OVIRT_DISK_LUN] = {"lun", "it is a direct LUN, which has no snapshots"},
    [OVIRT_DISK_SHAREABLE] = {"shareable",
                              "it is shareable, and shareable disks have no snapshots"},
    [OVIRT_DISK_STORAGE] = {"storage", "its kind of storage cannot be attached as a snapshot"},
    [OVIRT_DISK_CONTENT] = {"content", "it is not a data disk"},
    [OVIRT_DISK_UNPLUGGED] = {"unplugged", "it is not active in the VM, so snapshots leave it out"},
    [OVIRT_DISK_ILLEGAL] = {"illegal", "the engine calls its image illegal: repair it first"},
    [OVIRT_DISK_LOCKED] = {"locked", "it is locked by another operation"},
    [OVIRT_DISK_CHECKPOINTS] = {"checkpoints",
                                "incremental backup is on for it, and detaching it from a proxy "
                                "may destroy its checkpoints"},
};

const char *ovirt_disk_class_name(enum ovirt_disk_class c)
{
    return classes[c].name;
}

const char *ovirt_disk_class_why(enum ovirt_disk_class c)
{
    return classes[c].why;
}

void ovirt_disk_done(struct ovirt_disk *d)
{
    free(d->id);
    free(d->image_id);
    free(d->alias);
    free(d->status);
    free(d->format);
    free(d->storage_type);
    free(d->content_type);
    free(d->interface);
    free(d->storage_domain_id);
    free(d->snapshot_id);
    *d = (struct ovirt_disk){0};
}

void ovirt_disks_done(struct ovirt_disks *disks)
{
    for (size_t i = 0; i < disks->count; i++)
        ovirt_disk_done(&disks->v[i]);
    free(disks->v);
    *disks = (struct ovirt_disks){0};
}

const struct ovirt_disk *ovirt_disks_find(const struct ovirt_disks *disks, const char *id)
{
    for (size_t i = 0; i < disks->count; i++) {
        if (strcmp(disks->v[i].id, id) == 0)
            return &disks->v[i];
    }
    return NULL;
}

static bool is(const char *text, const char *word)
{
    return text && strcmp(text, word) == 0;
}

/* Absent counts as `word`: older engines leave some members out. */
static bool is_or_absent(const char *text, const char *word)
{
    return !text || strcmp(text, word) == 0;
}

/* HARD RULE: a disk with incremental backup on is never attached to a proxy. Engines after 4.5.7
 * drop the checkpoints of every disk that is detached, the snapshot's original included. */
enum ovirt_disk_class ovirt_disk_judge(const struct ovirt_disk *d, bool is_attached)
{
    if (is(d->storage_type, "lun"))
        return OVIRT_DISK_LUN;
    if (!is_or_absent(d->storage_type, "image"))
        return OVIRT_DISK_STORAGE;
    if (d->shareable)
        return OVIRT_DISK_SHAREABLE;
    if (!is_or_absent(d->content_type, "data"))
        return OVIRT_DISK_CONTENT;
    if (is_attached && !d->active)
        return OVIRT_DISK_UNPLUGGED;
    if (is(d->status, "illegal"))
        return OVIRT_DISK_ILLEGAL;
    if (is(d->status, "locked"))
        return OVIRT_DISK_LOCKED;
    return d->incremental ? OVIRT_DISK_CHECKPOINTS : OVIRT_DISK_FIT;
}

static const char *first_domain(const json_t *disk)
{
    const json_t *list = member_list(disk, "storage_domains", "storage_domain");
    const char *id = member_str(json_array_get(list, 0), "id");
    return id ? id : member_ref_id(disk, "storage_domain");
}

static void read_attachment(const json_t *attachment, struct ovirt_disk *ret)
{
    ret->interface = xstrdup_or_null(member_str(attachment, "interface"));
    ret->active = member_bool_or(attachment, "active", false);
    ret->bootable = member_bool_or(attachment, "bootable", false);
    ret->read_only = member_bool_or(attachment, "read_only", false);
    ret->pass_discard = member_bool_or(attachment, "pass_discard", false);
}

bool ovirt_disk_of_json(const json_t *disk, const json_t *attachment, struct ovirt_disk *ret,
                        struct err *err)
{
    const char *id = member_str(disk, "id");
    if (!engine_check_id("disk", id, err)) {
        err->code = ERR_ENGINE_PROTOCOL;
        return false;
    }
    bool lun = member_object(disk, "lun_storage") && !member_str(disk, "storage_type");
    const char *alias = member_str(disk, "alias");
    *ret = (struct ovirt_disk){
        .id = xstrdup(id),
        .image_id = xstrdup_or_null(member_str(disk, "image_id")),
        .alias = xstrdup_or_null(alias ? alias : member_str(disk, "name")),
        .status = xstrdup_or_null(member_str(disk, "status")),
        .format = xstrdup_or_null(member_str(disk, "format")),
        .storage_type = xstrdup_or_null(lun ? "lun" : member_str(disk, "storage_type")),
        .content_type = xstrdup_or_null(member_str(disk, "content_type")),
        .storage_domain_id = xstrdup_or_null(first_domain(disk)),
        .snapshot_id = xstrdup_or_null(member_ref_id(disk, "snapshot")),
        .provisioned_bytes = member_u64_or(disk, "provisioned_size", 0),
        .actual_bytes = member_u64_or(disk, "actual_size", 0),
        .sparse = member_bool_or(disk, "sparse", false),
        .shareable = member_bool_or(disk, "shareable", false),
        .wipe_after_delete = member_bool_or(disk, "wipe_after_delete", false),
        .incremental = is(member_str(disk, "backup"), "incremental"),
    };
    if (attachment)
        read_attachment(attachment, ret);
    ret->fit = ovirt_disk_judge(ret, attachment != NULL);
    return true;
}

bool ovirt_disk_get(struct engine_session *s, const char *disk_id, struct ovirt_disk *ret,
                    struct err *err)
{
    if (!engine_check_id("disk", disk_id, err))
        return false;
    SCOPED_FREE char *path = xasprintf("disks/%s", disk_id);
    json_auto_t *disk = NULL;
    return engine_get(s, path, NULL, &disk, err) && ovirt_disk_of_json(disk, NULL, ret, err);
}

/* --- Making ---------------------------------------------------------------------------------- */
bool ovirt_disk_spec_fit(struct ovirt_disk_spec *spec, bool on_block_storage)
{
    bool sparse = is(spec->format, "cow") ? true : spec->sparse && !on_block_storage;
    bool changed = sparse != spec->sparse;
    spec->sparse = sparse;
    return changed;
}

static bool check_spec(const struct ovirt_disk_spec *spec, struct err *err)
{
    if (!engine_check_id("disk", spec->id, err) ||
        !engine_check_id("storage domain", spec->storage_domain_id, err))
        return false;
    if (!is(spec->format, "raw") && !is(spec->format, "cow"))
        return err_set(err, ERR_BAD_ARGUMENT, 0, "disk format '%s' is neither raw nor cow",
                       spec->format ? spec->format : "");
    if (spec->size_bytes == 0 || spec->size_bytes % 512 != 0)
        return err_set(err, ERR_BAD_ARGUMENT, 0,
                       "disk size %" PRIu64 " is not a multiple of 512 bytes", spec->size_bytes);
    return true;
}

/* Incremental backup stays off: the disk will be attached to a proxy. */
json_t *ovirt_disk_body(const struct ovirt_disk_spec *spec)
{
    char size[24], initial[24];
    (void)snprintf(size, sizeof size, "%" PRIu64, spec->size_bytes);
    json_t *body =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:{s:[{s:s}]}}", "id", spec->id, "alias",
                  spec->alias ? spec->alias : spec->id, "provisioned_size", size, "format",
                  spec->format, "sparse", spec->sparse ? "true" : "false", "wipe_after_delete",
                  spec->wipe_after_delete ? "true" : "false", "storage_domains", "storage_domain",
                  "id", spec->storage_domain_id);
    if (spec->description)
        json_object_set_new(body, "description", json_string(spec->description));
    if (spec->initial_bytes > 0 && is(spec->format, "cow")) {
        (void)snprintf(initial, sizeof initial, "%" PRIu64,
                       spec->initial_bytes < spec->size_bytes ? spec->initial_bytes
                                                              : spec->size_bytes);
        json_object_set_new(body, "initial_size", json_string(initial));
    }
    return body;
}

/* ctx is the path; done = it is there. */
static bool probe_exists(struct engine_session *s, void *ctx, bool *ret_done, json_t **ret_object,
                         struct err *err)
{
    json_t *object = NULL;
    if (!engine_get_or_gone(s, ctx, NULL, &object, err))
        return false;
    *ret_done = object != NULL;
    *ret_object = object;
    return true;
}

bool ovirt_disk_create(struct engine_session *s, const struct ovirt_disk_spec *spec,
                       struct err *err)
{
    if (!check_spec(spec, err))
        return err_wrap(err, "create disk");
    json_auto_t *body = ovirt_disk_body(spec);
    if (!body)
        return err_set(err, ERR_BAD_ARGUMENT, 0, "create disk: its name is not UTF-8");
    SCOPED_FREE char *path = xasprintf("disks/%s", spec->id);
    struct engine_mutation m = {
        .method = ENGINE_POST,
        .path = "disks",
        .body = body,
        .probe = probe_exists,
        .probe_ctx = path,
    };
    if (!engine_mutate(s, &m, NULL, err))
        return err_wrap(err, "create disk %s", spec->id);
    return true;
}

static enum engine_verdict look_ok(struct engine_session *s, void *ctx, struct err *err)
{
    const char *id = ctx;
    SCOPED_FREE char *path = xasprintf("disks/%s", id);
    json_auto_t *disk = NULL;
    if (!engine_get_or_gone(s, path, NULL, &disk, err))
        return ENGINE_FAILED;
    const char *status = member_str(disk, "status");
    if (is(status, "ok"))
        return ENGINE_REACHED;
    if (!disk || is(status, "illegal")) {
        err_set(err, ERR_ENGINE_FAULT, 0, "disk %s %s: the engine could not make it", id,
                disk ? "became illegal" : "vanished");
        return ENGINE_FAILED;
    }
    return ENGINE_AGAIN;
}

bool ovirt_disk_wait_ok(struct engine_session *s, const char *disk_id, int64_t limit_ms,
                        struct err *err)
{
    if (!engine_check_id("disk", disk_id, err))
        return false;
    SCOPED_FREE char *what = xasprintf("disk %s to be ok", disk_id);
    SCOPED_FREE char *id = xstrdup(disk_id);
    return engine_poll(s, what, limit_ms, look_ok, id, err);
}

bool ovirt_disk_delete(struct engine_session *s, const char *disk_id, int64_t limit_ms,
                       struct err *err)
{
    if (!engine_check_id("disk", disk_id, err))
        return false;
    SCOPED_FREE char *path = xasprintf("disks/%s", disk_id);
    SCOPED_FREE char *what = xasprintf("disk %s", disk_id);
    if (!vanish_ask(s, path, NULL, err))
        return err_wrap(err, "delete disk %s", disk_id);
    struct vanish v = {
        .what = what,
        .path = path,
        .status_key = "status",
        .failed_code = ERR_ENGINE_FAULT,
    };
    return vanish_wait(s, &v, limit_ms, err);
}
