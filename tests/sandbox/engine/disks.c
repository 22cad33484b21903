/* SPDX-License-Identifier: Apache-2.0 */
/* Disks: how they look, their creation and removal. */
#include "tests/sandbox/engine/disks.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "proto/base/log.h"
#include "tests/sandbox/engine/faults.h"
#include "tests/sandbox/engine/jobs.h"
#include "tests/sandbox/engine/json_out.h"
#include "tests/sandbox/engine/listing.h"
#include "tests/sandbox/engine/route.h"
#include "tests/sandbox/engine/storage.h"
#include "tests/sandbox/engine/views.h"

#define DISK_MAX_BYTES (INT64_C(8192) << 30)

/* --- Views ------------------------------------------------------------------------------------ */

static void add_common(const struct engine *e, json_t *o, const struct disk *d)
{
    out_str(o, "name", d->alias);
    out_str(o, "alias", d->alias);
    out_str(o, "description", d->description ? d->description : "");
    out_u64(o, "provisioned_size", d->size_bytes);
    out_bool(o, "shareable", d->shareable);
    out_bool(o, "propagate_errors", false);
    out_bool(o, "wipe_after_delete", d->wipe_after_delete);
    out_str(o, "storage_type", d->lun ? "lun" : "image");
    if (engine_since(e, 4, 3, 0))
        out_str(o, "backup", d->incremental ? "incremental" : "none");
    if (!d->lun) {
        out_str(o, "content_type", "data");
        out_bool(o, "sparse", d->sparse);
        out_str(o, "status", disk_status_name(d->status));
        json_t *sds = json_array();
        json_array_append_new(sds, json_pack("{s:s}", "id", d->sd->id));
        json_object_set_new(o, "storage_domains", json_pack("{s:o}", "storage_domain", sds));
    } else {
        json_object_set_new(o, "lun_storage",
                            json_pack("{s:s, s:{s:[{s:s}]}}", "type", "iscsi", "logical_units",
                                      "logical_unit", "id", d->id));
    }
}

static void add_format(json_t *o, enum block_format format)
{
    out_str(o, "format", format == BLOCK_RAW ? "raw" : "cow");
    if (format != BLOCK_RAW)
        out_str(o, "qcow_version", "qcow2_v3");
}

json_t *disk_view(const struct engine *e, const struct disk *d)
{
    const struct volume *v = disk_active_volume(d);
    json_t *o = out_entity(d->id, "disks/%s", d->id);
    add_common(e, o, d);
    if (!d->lun) {
        add_format(o, v ? v->format : (d->cow ? BLOCK_QCOW2 : BLOCK_RAW));
        out_u64(o, "actual_size", v ? volume_actual_bytes(v) : 0);
        out_u64(o, "total_size", disk_actual_bytes(d));
        if (v)
            out_str(o, "image_id", v->id);
    }
    out_link(o, "disksnapshots");
    out_link(o, "permissions");
    out_link(o, "statistics");
    return o;
}

json_t *disk_view_in_snapshot(const struct engine *e, const struct vm *vm, const struct disk *d,
                              const struct volume *v)
{
    json_t *o = out_entity(d->id, "vms/%s/snapshots/%s/disks/%s", vm->id, v->snapshot_id, d->id);
    add_common(e, o, d);
    add_format(o, v->format);
    out_u64(o, "actual_size", volume_actual_bytes(v));
    out_str(o, "image_id", v->id);
    out_str(o, "status",
            v->illegal ? "illegal" : (v->locked ? "locked" : disk_status_name(d->status)));
    out_ref(o, "snapshot", v->snapshot_id, "vms/%s/snapshots/%s", vm->id, v->snapshot_id);
    return o;
}

json_t *disksnapshot_view(const struct engine *e, const struct disk *d, size_t index)
{
    const struct volume *v = d->chain.at[index];
    json_t *o = out_entity(v->id, "storagedomains/%s/disksnapshots/%s", d->sd->id, v->id);
    add_common(e, o, d);
    add_format(o, v->format);
    (void)json_object_del(o, "image_id");
    out_u64(o, "actual_size", volume_actual_bytes(v));
    out_str(o, "status",
            v->illegal ? "illegal" : (v->locked ? "locked" : disk_status_name(d->status)));
    out_ref(o, "disk", d->id, "disks/%s", d->id);
    if (v->snapshot_id[0])
        json_object_set_new(o, "snapshot", json_pack("{s:s}", "id", v->snapshot_id));
    if (index > 0 && engine_since(e, 4, 4, 3))
        json_object_set_new(o, "parent", json_pack("{s:s}", "id", d->chain.at[index - 1]->id));
    return o;
}

/* --- GET -------------------------------------------------------------------------------------- */

static bool disk_field(const void *object, const char *field, search_found_fn found, void *arg)
{
    const struct disk *d = object;
    const struct listing_value v[] = {
        {"name", d->alias},
        {"alias", d->alias},
        {"id", d->id},
        {"status", disk_status_name(d->status)},
        {"description", d->description},
        {"storage_type", d->lun ? "lun" : "image"},
    };
    return listing_found(v, ARRAY_LEN(v), field, found, arg);
}

static json_t *disk_show(struct engine *e, struct request *r, const void *object)
{
    (void)r;
    return disk_view(e, object);
}

void disks_list(struct engine *e, struct request *r)
{
    static const char *const fields[] = {"name",        "alias",        "id", "status",
                                         "description", "storage_type", NULL};
    static const struct listing l = {"disk", fields, disk_field, disk_show};
    listing_reply(e, r, &l, LISTING_OF(e->model.disks));
}

void disks_get(struct engine *e, struct request *r)
{
    const struct disk *d = model_disk(&e->model, r->ids[0]);
    if (d)
        reply_json(r, 200, disk_view(e, d));
    else
        reply_empty(r, 404);
}

/* Appends the frozen volumes of a disk, and its active one if asked for. */
static void append_disksnapshots(const struct engine *e, const struct request *r,
                                 const struct disk *d, json_t *list)
{
    bool active = request_flag(r, "include_active", false);
    for (size_t i = 0; i < d->chain.len; i++)
        if (i + 1 < d->chain.len || active)
            json_array_append_new(list, disksnapshot_view(e, d, i));
}

void disk_disksnapshots(struct engine *e, struct request *r)
{
    const struct disk *d = model_disk(&e->model, r->ids[0]);
    if (!d || !engine_since(e, 4, 4, 3)) {
        reply_empty(r, 404);
        return;
    }
    json_t *list = json_array();
    if (!d->lun)
        append_disksnapshots(e, r, d, list);
    reply_json(r, 200, out_collection("disk_snapshot", list));
}

void sd_disksnapshots(struct engine *e, struct request *r)
{
    const struct storage_domain *sd = model_sd(&e->model, r->ids[0]);
    if (!sd) {
        reply_empty(r, 404);
        return;
    }
    json_t *list = json_array();
    const struct disk *d;
    VEC_EACH(&e->model.disks, d)
    if (d->sd == sd)
        append_disksnapshots(e, r, d, list);
    reply_json(r, 200, out_collection("disk_snapshot", list));
}

void sd_disksnapshot(struct engine *e, struct request *r)
{
    const struct storage_domain *sd = model_sd(&e->model, r->ids[0]);
    const struct disk *d;
    VEC_EACH(&e->model.disks, d)
    for (size_t i = 0; sd && d->sd == sd && i < d->chain.len; i++) {
        if (strcmp(d->chain.at[i]->id, r->ids[1]) != 0)
            continue;
        reply_json(r, 200, disksnapshot_view(e, d, i));
        return;
    }
    reply_empty(r, 404);
}

/* --- Creation ----------------------------------------------------------------------------------
 */

static bool check_format(struct request *r, const json_t *body, const struct storage_domain *sd,
                         uint64_t size)
{
    bool raw = !strcmp(in_str(body, "format"), "raw");
    bool sparse = in_bool(body, "sparse", !raw);
    const char *backup = in_str(body, "backup");
    bool incremental = backup && !strcmp(backup, "incremental");
    if (raw && incremental)
        reply_refused(r, 409,
                      "Cannot add Virtual Disk. Disk configuration (RAW Sparse backup-%s) "
                      "is incompatible with incremental backup.",
                      "Incremental");
    else if (raw && sparse && storage_is_block(sd))
        reply_refused(r, 409,
                      "Cannot add Virtual Disk. Disk configuration (RAW Sparse backup-None) "
                      "is incompatible with the storage domain type.");
    else if (!raw && !sparse && !incremental)
        reply_refused(r, 409,
                      "Cannot add Virtual Disk. Disk configuration (COW Preallocated "
                      "backup-None) is incompatible with the storage domain type.");
    else if (storage_is_block(sd) && size > (uint64_t)DISK_MAX_BYTES)
        reply_refused(r, 409,
                      "Cannot add Virtual Disk. Disk size exceeds the maximum of 8192 GiB.");
    else if (strcmp(sd->status, "active") != 0)
        reply_refused(r, 409,
                      "Cannot add Virtual Disk. The relevant Storage Domain is inaccessible."
                      " -Please handle Storage Domain issues and retry the operation.");
    return r->status == 0;
}

static const char *first_sd(const json_t *body)
{
    const json_t *sd = json_array_get(in_list(body, "storage_domains", "storage_domain"), 0);
    const char *id = in_str(sd, "id");
    return id ? id : in_str(sd, "name");
}

static bool space_is_there(const struct engine *e, const struct storage_domain *sd, uint64_t size)
{
    uint64_t used = 0;
    const struct disk *d;
    VEC_EACH(&e->model.disks, d)
    if (d->sd == sd)
        used += d->sparse ? disk_actual_bytes(d) : d->size_bytes;
    return used + size <= sd->size_bytes;
}

/* Everything that can be wrong about a new disk; the storage domain if nothing is. */
static struct storage_domain *check_new(struct engine *e, struct request *r, const json_t *body)
{
    uint64_t size = in_u64(body, "provisioned_size", 0);
    const char *id = in_str(body, "id"), *image_id = in_str(body, "image_id");
    if (size == 0 || !in_str(body, "format")) {
        reply_incomplete(r, "Disk", "provisionedSize, format", "add");
        return NULL;
    }
    if (json_object_get(body, "lun_storage")) {
        reply_refused(r, 400, "Cannot add Virtual Disk. Direct LUN disks cannot be made here.");
        return NULL;
    }
    if ((id && !id_is_valid(id)) || (image_id && !id_is_valid(image_id))) {
        reply_bad_syntax(e, r);
        return NULL;
    }
    if (!first_sd(body)) {
        reply_incomplete(r, "Disk", "storageDomains.storageDomain.id|name", "add");
        return NULL;
    }
    struct storage_domain *sd = storage_default_sd(e, first_sd(body), NULL);
    if (!sd) {
        reply_fault(r, 404, "Operation Failed", "Entity not found: %s", first_sd(body));
        return NULL;
    }
    if (id && model_disk(&e->model, id)) {
        reply_refused(r, 409, "Cannot add Virtual Disk. Disk with the same id already exists.");
        return NULL;
    }
    if (!check_format(r, body, sd, size))
        return NULL;
    if (!in_bool(body, "sparse", true) && !space_is_there(e, sd, size)) {
        reply_refused(r, 409, "Cannot add Virtual Disk. Low disk space on Storage Domain %s.",
                      sd->name);
        return NULL;
    }
    return sd;
}

struct creation {
    struct disk *disk;
    struct job *job;
    char image_id[ID_BYTES], snapshot_id[ID_BYTES], correlation_id[ID_BYTES];
};

static void forget(struct engine *e, struct disk *d)
{
    d->gone = true;
    struct vm *vm;
    VEC_EACH(&e->model.vms, vm)
    for (size_t i = 0; i < vm->attachments.len;) {
        struct attachment *a = vm->attachments.at[i];
        if (a->disk != d) {
            i++;
            continue;
        }
        a->gone = true;
        VEC_REMOVE_AT(&vm->attachments, i);
        VEC_ADD(&e->model.dead_attachments, a);
    }
    VEC_REMOVE(&e->model.disks, d);
    VEC_ADD(&e->model.dead_disks, d);
}

static void create_job(struct engine *e, void *arg)
{
    SCOPED_FREE struct creation *c = arg;
    struct disk *d = c->disk;
    struct err err = ERR_INIT;
    int64_t delay = 0;
    bool ok = engine_sleep(e, e->timings.disk_ms);
    if (ok && faults_point(e->faults, "disk-fail", d->alias, &delay)) {
        (void)engine_sleep(e, delay);
        ok = false;
    }
    if (ok && !d->gone)
        ok = storage_create_base(e, d, c->image_id[0] ? c->image_id : NULL, c->snapshot_id, &err);
    if (ok) {
        d->status = DISK_OK;
        events_note(e, EVENT_DISK_CREATED, "normal", NULL, c->correlation_id,
                    "The disk '%s' was successfully added.", d->alias);
    } else if (!d->gone) {
        log_warn("disk_not_created", LOG_STR("disk", d->id), LOG_STR("why", err.message));
        events_note(e, EVENT_DISK_CREATE_FAILED, "error", NULL, c->correlation_id,
                    "Add-Disk operation failed to complete.");
        forget(e, d);
    }
    jobs_finish(e, c->job, ok);
    engine_changed(e);
}

struct disk *disks_create(struct engine *e, struct request *r, const json_t *body,
                          const char *snapshot_id)
{
    struct storage_domain *sd = check_new(e, r, body);
    if (!sd)
        return NULL;
    const char *alias = in_str(body, "alias"), *id = in_str(body, "id");
    const char *image_id = in_str(body, "image_id"), *backup = in_str(body, "backup");
    struct disk *d = ALLOC_NEW(struct disk);
    if (id)
        (void)snprintf(d->id, sizeof d->id, "%s", id);
    else
        id_new(d->id);
    if (!alias)
        alias = in_str(body, "name");
    d->alias = xstrdup(alias ? alias : "");
    d->description = xstrdup_or_null(in_str(body, "description"));
    d->size_bytes = (in_u64(body, "provisioned_size", 0) + 511) / 512 * 512;
    d->cow = !strcmp(in_str(body, "format"), "cow");
    d->sparse = in_bool(body, "sparse", d->cow);
    d->shareable = in_bool(body, "shareable", false);
    d->wipe_after_delete = in_bool(body, "wipe_after_delete", false);
    d->incremental = backup && !strcmp(backup, "incremental");
    d->sd = sd;
    d->created_ms = engine_now_ms(e);
    d->hot_mib = 1;
    d->status = DISK_LOCKED;
    VEC_ADD(&e->model.disks, d);
    jobs_describe(r->job, "Adding Disk %s", d->alias);

    struct creation *c = ALLOC_NEW(struct creation);
    c->disk = d;
    c->job = r->job;
    r->job_continues = true;
    if (image_id)
        (void)snprintf(c->image_id, sizeof c->image_id, "%s", image_id);
    (void)snprintf(c->snapshot_id, sizeof c->snapshot_id, "%s", snapshot_id);
    (void)snprintf(c->correlation_id, sizeof c->correlation_id, "%s", r->correlation_id);
    engine_spawn(e, create_job, c);
    return d;
}

void disks_add_creation_status(json_t *o)
{
    char task[ID_BYTES];
    id_new(task);
    SCOPED_FREE char *rel = xasprintf("creation_status/%s", task);
    out_str(o, "creation_status", "pending");
    out_link(o, rel);
    json_t *links = json_object_get(o, "link");
    json_object_set_new(json_array_get(links, json_array_size(links) - 1), "rel",
                        json_string("creation_status"));
}

void disks_add(struct engine *e, struct request *r)
{
    struct disk *d = disks_create(e, r, r->body, "");
    if (!d)
        return;
    json_t *o = disk_view(e, d);
    disks_add_creation_status(o);
    reply_created(r, 202, in_str(o, "href"), o);
}

/* --- Change and removal -------------------------------------------------------------------------
 */

void disks_update(struct engine *e, struct request *r)
{
    struct disk *d = model_disk(&e->model, r->ids[0]);
    const char *alias = in_str(r->body, "alias"), *description = in_str(r->body, "description");
    const char *backup = in_str(r->body, "backup");
    if (!d) {
        reply_empty(r, 404);
    } else if (d->status == DISK_LOCKED || d->busy) {
        reply_refused(r, 409,
                      "Cannot edit Virtual Disk. The following disks are locked: %s. Please try "
                      "again in a few minutes.",
                      d->alias);
    } else if (backup && !strcmp(backup, "incremental") && !d->cow) {
        reply_refused(r, 400,
                      "Cannot edit Virtual Disk. Disk configuration (RAW backup-Incremental) is "
                      "incompatible with the storage domain type.");
    } else if (disk_extend(e, r, d, r->body)) {
        if (alias) {
            free(d->alias);
            d->alias = xstrdup(alias);
        }
        if (description) {
            free(d->description);
            d->description = xstrdup(description);
        }
        if (backup)
            d->incremental = !strcmp(backup, "incremental");
        d->shareable = in_bool(r->body, "shareable", d->shareable);
        reply_json(r, 200, disk_view(e, d));
    }
}

struct destruction {
    struct disk *disk;
    char correlation_id[ID_BYTES];
};

static void destroy_job(struct engine *e, void *arg)
{
    SCOPED_FREE struct destruction *x = arg;
    struct disk *d = x->disk;
    for (size_t i = 0; i < e->model.vms.len; i++) {
        struct vm *vm = e->model.vms.at[i];
        struct attachment *a = vm_attachment(vm, d->id);
        struct err err = ERR_INIT;
        if (a && a->plugged && vm->block && !storage_unplug(e, vm, a, &err))
            log_warn("unplug_failed", LOG_STR("disk", d->id), LOG_STR("why", err.message));
    }
    (void)engine_sleep(e, e->timings.disk_ms);
    if (d->gone)
        return;
    storage_delete(e, d);
    events_note(e, EVENT_DISK_REMOVED, "normal", NULL, x->correlation_id,
                "Disk %s was successfully removed.", d->alias);
    forget(e, d);
    engine_changed(e);
}

void disks_destroy(struct engine *e, struct disk *d, const char *correlation_id)
{
    struct destruction *x = ALLOC_NEW(struct destruction);
    x->disk = d;
    (void)snprintf(x->correlation_id, sizeof x->correlation_id, "%s", correlation_id);
    d->status = DISK_LOCKED;
    engine_spawn(e, destroy_job, x);
}

void disks_remove(struct engine *e, struct request *r)
{
    struct disk *d = model_disk(&e->model, r->ids[0]);
    if (!d) {
        reply_empty(r, 404);
        return;
    }
    const struct vm *owner = model_disk_owner(&e->model, d);
    const struct attachment *a = owner ? vm_attachment(owner, d->id) : NULL;
    if (d->status == DISK_LOCKED || d->busy) {
        reply_refused(r, 409,
                      "Cannot remove Virtual Disk. Disk %s is locked. Please try again "
                      "in a few minutes.",
                      d->alias);
    } else if (a && a->active && vm_is_running(owner)) {
        reply_refused(r, 409,
                      "Cannot remove Virtual Disk. The disk is active in the running VM %s.",
                      owner->name);
    } else {
        disks_destroy(e, d, r->correlation_id);
        reply_action_done(r);
    }
}
