/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a backup would go, in pages of one item per VM. Asks the engine and the repository what the
 * backup's precheck asks, and judges by the same functions, but goes on after each fault and
 * changes nothing.
 */
#include <inttypes.h>
#include <string.h>

#include "proto/base/alloc.h"
#include "proto/base/log.h"
#include "worker/step/checks.h"
#include "worker/step/listing.h"
#include "worker/step/path.h"
#include "worker/store/store.h"

enum {
    PAGE_VMS = 25,
    PAGE_DISKS = 100,
    PROBLEMS_MAX = 8,
    /* Of the 26 PCI slots of an x86 VM, those that are surely left for disks. */
    PCI_DISKS = 18,
};

/* What is asked once for all VMs. */
struct surroundings {
    struct site site;
    struct ovirt_storage_domains domains;
    struct ovirt_attachments of_proxy;
    struct store_point_list points;
    struct path_rate rates[BACKUP_PATHS];
    uint64_t free_bytes; /* of the repository */
};

static bool look_around(struct task_run *run, struct surroundings *s, struct err *err)
{
    path_rates_of(&run->offer->rates, s->rates);
    return site_load(run, &s->site, err) &&
           ovirt_storage_domains_list(run->session, s->site.datacenter_id, &s->domains, err) &&
           ovirt_attachments_list(run->session, s->site.proxy_id, &s->of_proxy, err) &&
           store_points_list(run->store, NULL, &s->points, err) &&
           store_free_space(run->store, &s->free_bytes, err);
}

static void surroundings_done(struct surroundings *s)
{
    site_done(&s->site);
    ovirt_storage_domains_done(&s->domains);
    ovirt_attachments_done(&s->of_proxy);
    store_point_list_done(&s->points);
}

/* One VM as the engine tells it. */
struct subject {
    struct ovirt_vm vm;
    struct ovirt_disks disks;
    struct ovirt_snapshots snapshots;
    bool has_checkpoints;
};

static void subject_done(struct subject *v)
{
    ovirt_vm_done(&v->vm);
    ovirt_disks_done(&v->disks);
    ovirt_snapshots_done(&v->snapshots);
}

static bool look_at(struct task_run *run, const char *vm_id, struct subject *v, struct err *err)
{
    return ovirt_vm_get(run->session, vm_id, &v->vm, err) &&
           ovirt_vm_disks(&v->vm, &v->disks, err) &&
           ovirt_snapshots_list(run->session, vm_id, NULL, &v->snapshots, err) &&
           ovirt_vm_has_checkpoints(run->session, vm_id, &v->has_checkpoints, err);
}

/* --- The item -------------------------------------------------------------------------------- */
/* `err` is taken over and cleared. The same text twice (a storage domain of several disks) is told
 * once. */
static void add_problem(struct wire_plan_item *item, struct err *err)
{
    struct wire_errors *all = &item->problems;
    bool known = false;
    for (size_t i = 0; i < all->count; i++)
        known = known || strcmp(all->v[i].message, err->message) == 0;
    if (!known && all->count < PROBLEMS_MAX) {
        all->v = xreallocarray(all->v, all->count + 1, sizeof *all->v);
        all->v[all->count++] = (struct wire_error){
            .code = xstrdup(err_code_name(err->code)),
            .retry = xstrdup(err_retry_name(err_retry(err->code))),
            .message = xstrdup(err->message),
        };
    }
    err_clear(err);
}

static void add_warning(struct wire_plan_item *item, const char *code, const char *disk,
                        char *message)
{
    struct wire_warnings *all = &item->warnings;
    if (all->count >= WIRE_WARNINGS_MAX) {
        free(message);
        return;
    }
    all->v = xreallocarray(all->v, all->count + 1, sizeof *all->v);
    all->v[all->count++] = (struct wire_warning){
        .code = xstrdup(code), .disk = xstrdup_or_null(disk), .message = message};
}

static void item_done(struct wire_plan_item *item)
{
    for (size_t i = 0; i < item->disks.count; i++) {
        struct wire_plan_disk *d = &item->disks.v[i];
        for (size_t p = 0; p < d->instead.count; p++) {
            free(d->instead.v[p].path);
            free(d->instead.v[p].why);
        }
        free(d->instead.v);
        free(d->id);
        free(d->alias);
        free(d->path);
        free(d->why);
    }
    for (size_t i = 0; i < item->problems.count; i++) {
        free(item->problems.v[i].code);
        free(item->problems.v[i].retry);
        free(item->problems.v[i].message);
    }
    for (size_t i = 0; i < item->warnings.count; i++) {
        free(item->warnings.v[i].code);
        free(item->warnings.v[i].disk);
        free(item->warnings.v[i].message);
    }
    free(item->disks.v);
    free(item->problems.v);
    free(item->warnings.v);
    free(item->id);
    free(item->name);
    free(item->zone);
    free(item->status);
    free(item->parent);
}

/* --- Disks ----------------------------------------------------------------------------------- */
static void tell_disk(struct wire_plan_disk *to, const struct ovirt_disk *d,
                      const struct path_choice *choice)
{
    *to = (struct wire_plan_disk){
        .id = xstrdup(d->id),
        .alias = xstrdup_or_null(d->alias),
        .path = choice->path == BACKUP_PATHS ? NULL : xstrdup(backup_path_name(choice->path)),
        .why = xstrdup(choice->why),
        .size_bytes = (int64_t)d->provisioned_bytes,
        .read_bytes = (int64_t)choice->read_bytes,
        .copy_ms = choice->copy_ms,
        .mapped = choice->is_mapped,
        .measured = choice->is_measured,
    };
    if (choice->path == BACKUP_PATHS)
        return; /* it is the same for all of them */
    to->instead.v = xcalloc(BACKUP_PATHS, sizeof *to->instead.v);
    for (int p = 0; p < BACKUP_PATHS; p++) {
        if (choice->why_not[p])
            to->instead.v[to->instead.count++] =
                (struct wire_plan_path){.path = xstrdup(backup_path_name((enum backup_path)p)),
                                        .why = xstrdup(choice->why_not[p])};
    }
}

static void check_disk(const struct task_run *run, const struct surroundings *s,
                       const struct ovirt_disk *d, enum backup_path path,
                       struct wire_plan_item *item)
{
    struct err why = ERR_INIT;
    const struct ovirt_storage_domain *sd =
        d->storage_domain_id ? ovirt_storage_domains_find(&s->domains, d->storage_domain_id) : NULL;
    if (path == BACKUP_ATTACH && !check_not_attached(&s->of_proxy, d->id, &why))
        add_problem(item, &why);
    if (sd && !check_domain(run->settings, sd, &why))
        add_problem(item, &why);
}

/* One that would be skipped, which may not be wanted. */
static void tell_skipped(const struct wire_backup_opts *opts, const struct subject *v,
                         const struct ovirt_disk *d, const char *why, struct wire_plan_item *item)
{
    struct err err = ERR_INIT;
    if (!check_not_locked(&v->vm, d, &err) ||
        (opts->unsupported == WIRE_UNSUPPORTED_FAIL &&
         !err_set(&err, ERR_UNSUPPORTED, 0, "disk %s of VM %s: %s", disk_label(d), v->vm.name,
                  why)))
        add_problem(item, &err);
    else
        add_warning(item, "disk-skipped", d->id,
                    xasprintf("disk %s is not backed up: %s", disk_label(d), why));
}

static void plan_disks(const struct task_run *run, const struct surroundings *s,
                       const struct subject *v, const struct wire_backup_opts *opts,
                       struct wire_plan_item *item)
{
    size_t with_path = 0, attached = 0;
    int64_t sum_ms = 0, longest_ms = 0;
    const char *why = "it has none";
    struct err err = ERR_INIT;
    const char *obstacle = path_cbt_obstacle(opts->path, &s->site.version, v->vm.status, &v->disks);
    if (!check_cbt(opts, &v->vm, obstacle, &err))
        add_problem(item, &err);
    item->disks.v = xcalloc(v->disks.count + 1, sizeof *item->disks.v);
    for (size_t i = 0; i < v->disks.count; i++) {
        const struct ovirt_disk *d = &v->disks.v[i];
        struct path_facts facts = {.asked = opts->path,
                                   .has_checkpoints = v->has_checkpoints,
                                   .can_cbt = !obstacle,
                                   .cbt_obstacle = obstacle,
                                   .fit = d->fit,
                                   .size_bytes = d->provisioned_bytes,
                                   .used_bytes = d->actual_bytes,
                                   .map_min_bytes = run->settings->map_min_bytes};
        struct path_choice choice;
        memcpy(facts.rates, s->rates, sizeof facts.rates);
        path_choose(&facts, &choice);
        if (item->disks.count < WIRE_DISKS_MAX)
            tell_disk(&item->disks.v[item->disks.count++], d, &choice);
        if (choice.path == BACKUP_PATHS) {
            why = choice.why;
            tell_skipped(opts, v, d, why, item);
            continue;
        }
        with_path++;
        attached += choice.path == BACKUP_ATTACH;
        item->size_bytes += (int64_t)d->provisioned_bytes;
        item->read_bytes += (int64_t)choice.read_bytes;
        sum_ms += choice.copy_ms;
        longest_ms = choice.copy_ms > longest_ms ? choice.copy_ms : longest_ms;
        check_disk(run, s, d, choice.path, item);
    }
    int64_t shared_ms =
        sum_ms / (run->settings->disks_at_once > 0 ? run->settings->disks_at_once : 1);
    item->copy_ms = shared_ms > longest_ms ? shared_ms : longest_ms;
    if (!check_disk_count(&v->vm, with_path, why, &err))
        add_problem(item, &err);
    if (strcmp(s->site.proxy_interface, "virtio") == 0 && s->of_proxy.count + attached > PCI_DISKS)
        add_warning(item, "proxy-full", NULL,
                    xasprintf("%zu disks would be attached to the proxy VM, which has %zu and no "
                              "VirtIO-SCSI controller: it may have too few PCI slots",
                              attached, s->of_proxy.count));
}

/* --- The VM ---------------------------------------------------------------------------------- */
static void check_vm(const struct task_run *run, const struct surroundings *s,
                     const struct subject *v, struct wire_plan_item *item)
{
    struct err why = ERR_INIT;
    if (!check_place(&s->site, &v->vm, &why))
        add_problem(item, &why);
    if (!check_status(&v->vm, &why))
        add_problem(item, &why);
    if (!check_store_space(run->settings, s->free_bytes, &why))
        add_problem(item, &why);
    for (size_t i = 0; i < v->snapshots.count; i++) {
        const struct ovirt_snapshot *snapshot = &v->snapshots.v[i];
        if (!check_foreign_snapshot(&v->vm, snapshot, NULL, &why))
            add_problem(item, &why);
        else if (marker_is_ours(snapshot->description, NULL))
            add_warning(item, "leftover-snapshot", NULL,
                        xasprintf("snapshot %s is of another task (%s): a backup is running, or "
                                  "its clean-up is open",
                                  snapshot->id, snapshot->description));
    }
}

static void tell_parent(const struct surroundings *s, const char *vm_id,
                        struct wire_plan_item *item)
{
    for (size_t i = s->points.count; i-- > 0;) {
        const struct store_point_info *p = &s->points.items[i];
        if (p->damage || strcmp(p->vm_id, vm_id) != 0)
            continue;
        item->parent = xstrdup(p->id);
        item->parent_stored_bytes = (int64_t)p->stored_bytes;
        return;
    }
}

/* False only when the task cannot go on. */
static bool plan_vm(struct task_run *run, const struct surroundings *s,
                    const struct wire_vm_item *row, struct wire_plan_item *item, struct err *err)
{
    static const struct wire_backup_opts defaults = {0};
    const struct wire_plan *plan = run->offer->plan;
    *item = (struct wire_plan_item){
        .id = xstrdup(row->id), .name = xstrdup(row->name), .zone = xstrdup_or_null(row->zone)};
    struct subject v = {0};
    bool ok = look_at(run, row->id, &v, err);
    if (ok) {
        item->status = xstrdup_or_null(v.vm.status);
        check_vm(run, s, &v, item);
        plan_disks(run, s, &v, plan->options ? plan->options : &defaults, item);
        tell_parent(s, row->id, item);
    } else if (err->code == ERR_NOT_FOUND) {
        add_problem(item, err); /* it has gone since it was found */
        ok = true;
    }
    subject_done(&v);
    return ok;
}

/* --- Pages ----------------------------------------------------------------------------------- */
struct page {
    struct wire_plan_item v[PAGE_VMS];
    size_t count, disks;
};

static void page_reset(struct page *p)
{
    for (size_t i = 0; i < p->count; i++)
        item_done(&p->v[i]);
    p->count = p->disks = 0;
}

static void page_send(struct task_run *run, struct page *p)
{
    if (p->count > 0)
        run_items(run, &(struct wire_item_list){.plans = p->v, .plans_count = p->count});
    page_reset(p);
}

static bool plan_all(struct task_run *run, const struct surroundings *s,
                     const struct selected *found, struct err *err)
{
    struct page page = {.count = 0};
    bool ok = true;
    for (size_t i = 0; ok && i < found->count; i++) {
        struct wire_plan_item *item = &page.v[page.count++];
        ok = run_check(run, err);
        *item = (struct wire_plan_item){0};
        ok = ok && plan_vm(run, s, &found->v[i], item, err);
        page.disks += item->disks.count;
        if (ok && (page.count == PAGE_VMS || page.disks >= PAGE_DISKS))
            page_send(run, &page);
    }
    if (ok)
        page_send(run, &page);
    page_reset(&page);
    return ok;
}

bool step_forecast(struct task_run *run, struct err *err)
{
    struct surroundings s = {0};
    struct selected found = {0};
    bool ok =
        look_around(run, &s, err) &&
        selection_find(run, &s.site, run->offer->plan->select, &run->offer->proxies, &found, err) &&
        plan_all(run, &s, &found, err);
    if (ok)
        log_info("planned", LOG_U64("vms", found.count), LOG_I64("pages", run->pages));
    selected_done(&found);
    surroundings_done(&s);
    return ok;
}
