/* SPDX-License-Identifier: Apache-2.0 */
/* Which VMs a selection means, in pages. */
#include <string.h>
#include <strings.h>

#include "proto/base/alloc.h"
#include "proto/base/log.h"
#include "worker/step/listing.h"
#include "worker/step/select.h"
#include "worker/step/site.h"

struct sweep {
    struct task_run *run;
    const struct site *site;
    const struct wire_select *select;
    const struct wire_strings *proxies;
    struct selected found;
    enum select_by by;
};

static bool has_tag(const struct ovirt_vm_row *row, const char *tag)
{
    for (size_t i = 0; tag && i < row->tags_count; i++) {
        if (strcmp(row->tags[i], tag) == 0)
            return true;
    }
    return false;
}

static bool is_proxy(const struct ovirt_vm_row *row, const struct wire_strings *proxies)
{
    for (size_t i = 0; i < proxies->count; i++) {
        if (strcmp(proxies->v[i], row->name) == 0 || strcasecmp(proxies->v[i], row->id) == 0)
            return true;
    }
    return false;
}

/* A sweep leaves out what cannot be backed up by anybody, or not by us; who names such a VM gets
 * it, and learns from its backup task why not. */
static bool left_out(struct sweep *s, const struct ovirt_vm_row *row)
{
    if (s->by == SELECT_NAMED || select_excludes(s->select, row->name))
        return false;
    const char *why = NULL;
    if (row->is_hosted_engine)
        why = "it is the hosted engine's VM";
    else if (strcmp(row->id, s->site->proxy_id) == 0)
        why = "it is this worker's proxy VM";
    else if (has_tag(row, s->run->settings->proxy_tag))
        why = "its tag says that it is a worker's proxy VM";
    else if (is_proxy(row, s->proxies))
        why = "a worker runs in it";
    else if (row->disks == 0)
        why = "it has no disks";
    if (why)
        run_warn(s->run, "vm-excluded", NULL, "VM %s is left out: %s", row->name, why);
    return why != NULL;
}

static bool on_row(void *ctx, const struct ovirt_vm_row *row, struct err *err)
{
    struct sweep *s = ctx;
    if (!run_check(s->run, err))
        return false;
    if (!left_out(s, row))
        (void)selected_add(&s->found, s->select, s->run->settings->zone, row);
    return true;
}

static bool search(struct sweep *s, struct ovirt_vm_search what, struct err *err)
{
    what.clusters = &s->site->clusters;
    what.details = true;
    return ovirt_vm_search(s->run->session, &what, on_row, s, err);
}

/* Not being found is not an error: another zone may have it. */
static bool tolerate_missing(struct sweep *s, const char *what, const char *value, bool ok,
                             struct err *err)
{
    if (ok || err->code != ERR_NOT_FOUND)
        return ok;
    log_debug("not_in_this_zone", LOG_STR(what, value));
    err_clear(err);
    (void)s;
    return true;
}

static bool find_named(struct sweep *s, const struct wire_select *select, struct err *err)
{
    s->by = SELECT_NAMED;
    for (size_t i = 0; i < select->ids.count; i++) {
        const char *id = select->ids.v[i];
        bool ok = ovirt_vm_lookup(s->run->session, id, &s->site->clusters, true, on_row, s, err);
        if (!tolerate_missing(s, "id", id, ok, err))
            return false;
    }
    for (size_t i = 0; i < select->names.count; i++) {
        bool ok = search(s, (struct ovirt_vm_search){.name = select->names.v[i]}, err);
        if (!tolerate_missing(s, "name", select->names.v[i], ok, err))
            return false;
    }
    return true;
}

static bool find_swept(struct sweep *s, const struct wire_select *select, struct err *err)
{
    s->by = SELECT_SWEPT;
    for (size_t i = 0; select && i < select->tags.count; i++) {
        if (!search(s, (struct ovirt_vm_search){.tag = select->tags.v[i]}, err))
            return false;
    }
    if (select && select->search &&
        !search(s, (struct ovirt_vm_search){.expression = select->search}, err))
        return false;
    if (select && !select_is_empty(select) && !select->all)
        return true;
    return search(s, (struct ovirt_vm_search){0}, err);
}

static bool send_pages(struct task_run *run, const struct selected *found, struct err *err)
{
    for (size_t i = 0; i < found->count; i += WIRE_PAGE_MAX) {
        size_t left = found->count - i;
        struct wire_item_list page = {.vms = found->v + i,
                                      .vms_count = left < WIRE_PAGE_MAX ? left : WIRE_PAGE_MAX};
        if (!run_check(run, err))
            return false;
        run_items(run, &page);
    }
    return true;
}

bool selection_find(struct task_run *run, const struct site *site, const struct wire_select *select,
                    const struct wire_strings *proxies, struct selected *ret, struct err *err)
{
    struct sweep s = {.run = run, .site = site, .select = select, .proxies = proxies};
    bool ok = (!select || find_named(&s, select, err)) && find_swept(&s, select, err);
    if (ok)
        *ret = s.found;
    else
        selected_done(&s.found);
    return ok;
}

bool step_inventory(struct task_run *run, struct err *err)
{
    static const struct wire_strings none = {0};
    struct site site = {0};
    struct selected found = {0};
    if (!site_load(run, &site, err))
        return false;
    bool ok = selection_find(run, &site, run->offer->select, &none, &found, err) &&
              send_pages(run, &found, err);
    if (ok)
        log_info("inventory", LOG_U64("vms", found.count), LOG_I64("pages", run->pages));
    selected_done(&found);
    site_done(&site);
    return ok;
}
