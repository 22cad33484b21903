/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/step/point_meta.h"

#include <string.h>

#include "proto/base/alloc.h"
#include "proto/base/id.h"

enum { META_VERSION = 1, META_DISKS_MAX = STORE_DISKS_MAX };

static json_t *str_or_null(const char *text)
{
    return text ? json_string(text) : json_null();
}

static json_t *domain_json(const struct backup *b, const struct ovirt_disk *d)
{
    const struct ovirt_storage_domain *sd =
        d->storage_domain_id ? ovirt_storage_domains_find(&b->domains, d->storage_domain_id) : NULL;
    return json_pack("{s:o, s:o}", "id", str_or_null(d->storage_domain_id), "name",
                     str_or_null(sd ? sd->name : NULL));
}

static json_t *disk_json(const struct backup *b, const struct backup_disk *p)
{
    const struct ovirt_disk *d = p->disk;
    return json_pack("{s:s, s:s, s:o, s:o, s:o, s:I, s:I, s:o, s:b, s:b, s:b, s:b, s:b, s:b}", "id",
                     d->id, "path", backup_path_name(p->path), "alias", str_or_null(d->alias),
                     "interface", str_or_null(d->interface), "format", str_or_null(d->format),
                     "size_bytes", (json_int_t)p->size_bytes, "actual_bytes",
                     (json_int_t)d->actual_bytes, "storage_domain", domain_json(b, d), "bootable",
                     d->bootable, "sparse", d->sparse, "active", d->active, "read_only",
                     d->read_only, "pass_discard", d->pass_discard, "wipe_after_delete",
                     d->wipe_after_delete);
}

static bool is_planned(const struct backup *b, const struct ovirt_disk *d)
{
    for (size_t i = 0; i < b->plan_count; i++) {
        if (b->plan[i].disk == d)
            return true;
    }
    return false;
}

static json_t *skipped_json(const struct backup *b)
{
    json_t *list = json_array();
    for (size_t i = 0; i < b->disks.count; i++) {
        const struct ovirt_disk *d = &b->disks.v[i];
        if (is_planned(b, d))
            continue;
        bool fit = d->fit == OVIRT_DISK_FIT; /* and yet the engine left it out */
        json_array_append_new(
            list, json_pack("{s:s, s:o, s:s, s:s}", "id", d->id, "alias", str_or_null(d->alias),
                            "class", fit ? "left-out" : ovirt_disk_class_name(d->fit), "why",
                            fit ? "the engine left it out of the snapshot"
                                : ovirt_disk_class_why(d->fit)));
    }
    return list;
}

/* The one that all disks came by, or "mixed". */
static const char *path_of(const struct backup *b)
{
    for (size_t i = 1; i < b->plan_count; i++) {
        if (b->plan[i].path != b->plan[0].path)
            return "mixed";
    }
    return backup_path_name(b->plan_count > 0 ? b->plan[0].path : BACKUP_ATTACH);
}

json_t *point_meta_build(const struct task_run *run, const struct backup *b)
{
    json_t *disks = json_array();
    for (size_t i = 0; i < b->plan_count; i++)
        json_array_append_new(disks, disk_json(b, &b->plan[i]));
    char engine[64];
    snprintf(engine, sizeof engine, "%d.%d.%d", b->site.version.major, b->site.version.minor,
             b->site.version.build);
    json_t *meta = json_pack(
        "{s:i, s:s, s:s, s:I, s:I, s:s, s:s, s:s, s:s, s:s, s:o, s:o, s:I, s:s, s:s, s:o, s:o}",
        "version", META_VERSION, "writer", "oxbow-worker " OXBOW_VERSION, "task", run->offer->task,
        "attempt", (json_int_t)run->offer->attempt, "fence", (json_int_t)run->fence, "zone",
        run->settings->zone ? run->settings->zone : "", "path", path_of(b), "engine", engine, "vm",
        b->vm.id, "vm_name", b->vm.name, "description", str_or_null(b->vm.description), "snapshot",
        str_or_null(backup_snapshot(run)), "snapshot_ms", (json_int_t)b->snapshot_ms, "vm_status",
        b->vm.status ? b->vm.status : "", "quiesced", b->quiesced ? "yes" : "no", "disks", disks,
        "skipped", b->part ? json_array() : skipped_json(b));
    if (b->part && meta)
        json_object_set_new(meta, "part", json_integer((json_int_t)b->part->n));
    if (b->by_cbt && meta) {
        json_object_set_new(meta, "backup", str_or_null(handles_get(&run->handles, HANDLE_BACKUP)));
        json_object_set_new(meta, "checkpoint", str_or_null(b->checkpoint));
        json_object_set_new(meta, "based_on",
                            str_or_null(b->base ? store_point_info(b->base)->id : NULL));
    }
    return meta;
}

/* ---- reading -------------------------------------------------------------------------------- */

static bool bad(struct err *err, const char *what)
{
    return err_set(err, ERR_STORE_CORRUPT, 0, "the restore point's meta: %s", what);
}

static char *dup_str(const json_t *object, const char *key)
{
    return xstrdup_or_null(json_string_value(json_object_get(object, key)));
}

static bool read_bytes(const json_t *object, const char *key, uint64_t *ret)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return false;
    *ret = (uint64_t)json_integer_value(value);
    return *ret <= STORE_DISK_BYTES_MAX;
}

static bool parse_disk(const json_t *json, struct point_disk *d, struct err *err)
{
    if (!json_is_object(json))
        return bad(err, "a disk is not an object");
    const json_t *sd = json_object_get(json, "storage_domain");
    *d = (struct point_disk){
        .id = dup_str(json, "id"),
        .alias = dup_str(json, "alias"),
        .interface = dup_str(json, "interface"),
        .format = dup_str(json, "format"),
        .storage_domain_id = dup_str(sd, "id"),
        .storage_domain_name = dup_str(sd, "name"),
        .bootable = json_is_true(json_object_get(json, "bootable")),
        .sparse = json_is_true(json_object_get(json, "sparse")),
        .active = !json_is_false(json_object_get(json, "active")),
        .read_only = json_is_true(json_object_get(json, "read_only")),
        .pass_discard = json_is_true(json_object_get(json, "pass_discard")),
        .wipe_after_delete = json_is_true(json_object_get(json, "wipe_after_delete")),
    };
    if (!d->id || !id_is_valid(d->id))
        return bad(err, "a disk has no valid id");
    if (!read_bytes(json, "size_bytes", &d->size_bytes))
        return bad(err, "a disk has no valid size_bytes");
    if (!read_bytes(json, "actual_bytes", &d->actual_bytes))
        d->actual_bytes = 0;
    if (!d->format || (strcmp(d->format, "raw") != 0 && strcmp(d->format, "cow") != 0)) {
        free(d->format);
        d->format = xstrdup("cow");
    }
    return true;
}

bool point_meta_parse(const json_t *meta, struct point_meta *ret, struct err *err)
{
    struct point_meta m = {0};
    if (!json_is_object(meta))
        return bad(err, "missing: this point was not written by a worker");
    if (json_integer_value(json_object_get(meta, "version")) > META_VERSION)
        return err_set(err, ERR_STORE_VERSION, 0,
                       "the restore point's meta was written by a newer version");
    const json_t *disks = json_object_get(meta, "disks");
    size_t count = json_array_size(disks);
    if (count == 0 || count > META_DISKS_MAX)
        return bad(err, "no disks, or absurdly many");
    m.disks = xcalloc(count, sizeof *m.disks);
    for (size_t i = 0; i < count; i++) {
        m.disk_count = i + 1;
        if (!parse_disk(json_array_get(disks, i), &m.disks[i], err)) {
            point_meta_done(&m);
            return false;
        }
    }
    const char *quiesced = json_string_value(json_object_get(meta, "quiesced"));
    m.quiesced = quiesced && strcmp(quiesced, "yes") == 0;
    m.checkpoint = dup_str(meta, "checkpoint");
    if (m.checkpoint && !id_is_valid(m.checkpoint)) {
        point_meta_done(&m);
        return bad(err, "its checkpoint is no valid id");
    }
    m.snapshot_ms = json_integer_value(json_object_get(meta, "snapshot_ms"));
    m.description = dup_str(meta, "description");
    *ret = m;
    return true;
}

const struct point_disk *point_meta_disk(const struct point_meta *meta, const char *id)
{
    for (size_t i = 0; i < meta->disk_count; i++) {
        if (strcmp(meta->disks[i].id, id) == 0)
            return &meta->disks[i];
    }
    return NULL;
}

void point_meta_done(struct point_meta *meta)
{
    for (size_t i = 0; i < meta->disk_count; i++) {
        struct point_disk *d = &meta->disks[i];
        free(d->id);
        free(d->alias);
        free(d->interface);
        free(d->format);
        free(d->storage_domain_id);
        free(d->storage_domain_name);
    }
    free(meta->disks);
    free(meta->description);
    free(meta->checkpoint);
    *meta = (struct point_meta){0};
}
