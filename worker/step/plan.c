/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which restore point, to where: everything that can be wrong with a restore is found here, before
 * anything is made.
 */
#include <ctype.h>
#include <inttypes.h>
#include <string.h>

#include "proto/base/alloc.h"
#include "proto/base/log.h"
#include "worker/step/made.h"
#include "worker/step/restore.h"

/* The newest usable point of a VM given by id or name; the caller frees. */
static char *newest_point(struct task_run *run, const char *vm, struct err *err)
{
    struct store_point_list list = {0};
    if (!store_points_list(run->store, NULL, &list, err))
        return NULL;
    const struct store_point_info *newest = NULL;
    for (size_t i = 0; i < list.count; i++) {
        const struct store_point_info *p = &list.items[i];
        if (!p->damage && (strcmp(p->vm_id, vm) == 0 || strcmp(p->vm_name, vm) == 0))
            newest = p;
    }
    char *id = newest ? xstrdup(newest->id) : NULL;
    store_point_list_done(&list);
    if (!id)
        err_set(err, ERR_NOT_FOUND, 0, "the repository has no restore point of VM '%s'", vm);
    return id;
}

static bool open_point(struct task_run *run, struct restore *r, struct err *err)
{
    SCOPED_FREE char *newest = NULL;
    const char *id = r->opts->point;
    if (!id) {
        newest = newest_point(run, r->opts->vm, err);
        if (!newest)
            return false;
        id = newest;
    }
    r->point = store_point_open(run->store, id, err);
    if (!r->point)
        return err_wrap(err, "restore point '%s'", id);
    const struct store_point_info *info = store_point_info(r->point);
    free(run->point);
    run->point = xstrdup(info->id);
    if (!point_meta_parse(store_point_meta(r->point), &r->meta, err))
        return err_wrap(err, "restore point '%s'", info->id);
    r->name = xstrdup(r->opts->name ? r->opts->name : info->vm_name);
    return true;
}

static bool read_vm_json(struct restore *r, struct err *err)
{
    SCOPED_BUF struct buf text;
    if (!store_point_blob(r->point, POINT_BLOB_JSON, &text, err))
        return err_wrap(err, "configuration of the restore point");
    json_error_t why;
    r->vm_json = json_loadb(text.data, text.len, JSON_REJECT_DUPLICATES, &why);
    if (!json_is_object(r->vm_json))
        return err_set(err, ERR_STORE_CORRUPT, 0, "%s: line %d: %s", POINT_BLOB_JSON, why.line,
                       why.text);
    return true;
}

/* The engine refuses a space or other sign in a name with the code of a passing fault. What it
 * takes beyond ASCII is left to it. */
static bool check_name_form(const char *name, struct err *err)
{
    for (const unsigned char *c = (const unsigned char *)name; *c; c++) {
        if (*c < 0x80 && !isalnum(*c) && !strchr("._-", *c))
            return err_set(err, ERR_BAD_ARGUMENT, 0,
                           "'%s' cannot be a VM's name: only letters, digits, '_', '-' and '.' are "
                           "allowed",
                           name);
    }
    return true;
}

/* The name must be free; a VM of that name that an earlier attempt of this task made is removed. */
static bool check_name(struct task_run *run, struct restore *r, struct err *err)
{
    struct err look = ERR_INIT;
    SCOPED_FREE char *vm = ovirt_vm_find(run->session, r->name, NULL, &look);
    if (!vm && look.code == ERR_NOT_FOUND)
        return true;
    if (!vm && look.code != ERR_CONFLICT) {
        *err = look;
        return false;
    }
    if (vm) {
        switch (made_vm_state(run, vm, run->offer->task, err)) {
        case MADE_OURS:
            return made_vm_remove(run, vm, run->offer->task, err);
        case MADE_UNKNOWN:
            return false;
        case MADE_GONE:
            return true;
        case MADE_FINISHED:
            break;
        }
    }
    return err_set(err, ERR_EXISTS, 0, "a VM named '%s' exists: give another name", r->name);
}

static const struct ovirt_storage_domain *choose_domain(const struct restore *r,
                                                        const struct point_disk *d, struct err *err)
{
    const struct ovirt_storage_domain *sd = NULL;
    const char *wanted = r->opts->storage_domain;
    if (wanted) {
        sd = ovirt_storage_domains_find(&r->domains, wanted);
    } else {
        if (d->storage_domain_id)
            sd = ovirt_storage_domains_find(&r->domains, d->storage_domain_id);
        if (!sd && d->storage_domain_name)
            sd = ovirt_storage_domains_find(&r->domains, d->storage_domain_name);
        wanted = d->storage_domain_name ? d->storage_domain_name : d->storage_domain_id;
    }
    if (!sd)
        err_set(
            err, ERR_NOT_FOUND, 0,
            "storage domain '%s' for disk %s is not in the data center of cluster %s: name another "
            "one",
            wanted ? wanted : "?", d->alias ? d->alias : d->id, r->cluster->name);
    else if ((sd->type && strcmp(sd->type, "data") != 0) ||
             (sd->status && strcmp(sd->status, "active") != 0)) {
        err_set(err, ERR_CONFLICT, 0, "storage domain %s cannot take disks: it is '%s', '%s'",
                sd->name, sd->type ? sd->type : "?", sd->status ? sd->status : "?");
        sd = NULL;
    }
    return sd;
}

/* What a disk will need at once. */
static uint64_t needed(const struct point_disk *d)
{
    bool grows = strcmp(d->format, "cow") == 0 || d->sparse;
    return grows && d->actual_bytes && d->actual_bytes < d->size_bytes ? d->actual_bytes
                                                                       : d->size_bytes;
}

static bool check_room(const struct task_run *run, const struct restore *r, struct err *err)
{
    for (size_t s = 0; s < r->domains.count; s++) {
        const struct ovirt_storage_domain *sd = &r->domains.v[s];
        uint64_t need = 0;
        for (size_t i = 0; i < r->disk_count; i++) {
            if (r->disks[i].domain == sd)
                need += needed(r->disks[i].from);
        }
        if (need && need + run->settings->reserve_domain_bytes > sd->available_bytes)
            return err_set(err, ERR_NO_SPACE, 0,
                           "storage domain %s has %" PRIu64 " MiB free; the restore needs %" PRIu64
                           " MiB and %" PRIu64 " MiB must remain (reserve.storage_domain_mib)",
                           sd->name, sd->available_bytes >> 20, need >> 20,
                           run->settings->reserve_domain_bytes >> 20);
    }
    return true;
}

static bool is_named(const struct point_disk *d, const char *name)
{
    return strcmp(d->id, name) == 0 || (d->alias && strcmp(d->alias, name) == 0);
}

static bool is_wanted(const struct restore *r, const struct point_disk *d)
{
    const struct wire_strings *only = &r->opts->disks;
    for (size_t i = 0; i < only->count; i++) {
        if (is_named(d, only->v[i]))
            return true;
    }
    return only->count == 0;
}

/* Every disk that was asked for is in the point. */
static bool check_wanted(const struct restore *r, struct err *err)
{
    const struct wire_strings *only = &r->opts->disks;
    for (size_t i = 0; i < only->count; i++) {
        bool found = false;
        for (size_t k = 0; k < r->meta.disk_count; k++)
            found = found || is_named(&r->meta.disks[k], only->v[i]);
        if (!found)
            return err_set(err, ERR_NOT_FOUND, 0, "the restore point has no disk '%s'", only->v[i]);
    }
    return true;
}

static bool plan_disks(struct task_run *run, struct restore *r, struct err *err)
{
    if (!check_wanted(r, err) ||
        !ovirt_storage_domains_list(run->session, r->datacenter_id, &r->domains, err))
        return false;
    r->disks = xcalloc(r->meta.disk_count, sizeof *r->disks);
    for (size_t i = 0; i < r->meta.disk_count; i++) {
        if (!is_wanted(r, &r->meta.disks[i]))
            continue;
        struct restore_disk *d = &r->disks[r->disk_count++];
        d->from = &r->meta.disks[i];
        d->domain = choose_domain(r, d->from, err);
        if (!d->domain)
            return false;
        run->stats.bytes_total += (int64_t)d->from->size_bytes;
    }
    run->stats.disks = (int64_t)r->disk_count;
    return check_room(run, r, err);
}

bool step_plan(struct task_run *run, struct err *err)
{
    struct restore *r = run->state;
    if (!open_point(run, r, err) || !check_name_form(r->name, err) || !read_vm_json(r, err) ||
        !restore_choose_place(run, r, err) || !plan_disks(run, r, err) || !check_name(run, r, err))
        return false;
    log_info("restore_planned", LOG_STR("point", run->point), LOG_STR("name", r->name),
             LOG_U64("disks", r->disk_count));
    return true;
}
