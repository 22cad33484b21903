/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/step/sweep.h"

#include <inttypes.h>
#include <string.h>

#include "proto/base/alloc.h"
#include "proto/base/id.h"
#include "proto/base/log.h"
#include "worker/ovirt/backup.h"
#include "worker/ovirt/disk_search.h"
#include "worker/ovirt/snapshot.h"
#include "worker/ovirt/transfer.h"
#include "worker/step/holders.h"
#include "worker/step/site.h"
#include "worker/store/sessions.h"
#include "worker/store/upkeep.h"

/* A disk that one of our markers speaks of: of a snapshot, or made by a restore. */
struct marked_disk {
    char *id;
    char task[ID_BYTES];
    int64_t fence;
    /* Of a snapshot: the VM it is of, and the disk's volume in it. NULL for a restore's. */
    char *owner, *volume, *domain;
};

struct look {
    struct task_run *run;
    struct site site;
    struct ovirt_storage_domains domains;
    struct holders holders;
    struct marked_disk *disks;
    size_t disk_count;
    struct wire_trace_item *traces;
    size_t count;
};

static void look_done(struct look *l)
{
    site_done(&l->site);
    ovirt_storage_domains_done(&l->domains);
    holders_done(&l->holders);
    for (size_t i = 0; i < l->disk_count; i++) {
        free(l->disks[i].id);
        free(l->disks[i].owner);
        free(l->disks[i].volume);
        free(l->disks[i].domain);
    }
    free(l->disks);
    for (size_t i = 0; i < l->count; i++) {
        struct wire_trace_item *t = &l->traces[i];
        free(t->kind);
        free(t->zone);
        free(t->vm);
        free(t->vm_name);
        free(t->id);
        free(t->task);
        free(t->fate);
    }
    free(l->traces);
}
#define SCOPED_LOOK __attribute__((cleanup(look_done), unused))

static struct wire_trace_item *add(struct look *l, const char *kind, const struct holder_vm *vm,
                                   const char *id)
{
    l->traces = xreallocarray(l->traces, l->count + 1, sizeof *l->traces);
    struct wire_trace_item *t = &l->traces[l->count++];
    *t = (struct wire_trace_item){
        .kind = xstrdup(kind),
        .zone = xstrdup_or_null(l->run->settings->zone),
        .vm = xstrdup_or_null(vm ? vm->id : NULL),
        .vm_name = xstrdup_or_null(vm ? vm->name : NULL),
        .id = xstrdup_or_null(id),
    };
    return t;
}

static void set_task(struct wire_trace_item *t, const char *task, int64_t fence)
{
    t->task = xstrdup(task);
    t->fence = fence;
}

static struct marked_disk *add_disk(struct look *l, const char *id, const char *task, int64_t fence)
{
    l->disks = xreallocarray(l->disks, l->disk_count + 1, sizeof *l->disks);
    struct marked_disk *d = &l->disks[l->disk_count++];
    *d = (struct marked_disk){.id = xstrdup(id), .fence = fence};
    snprintf(d->task, sizeof d->task, "%s", task);
    return d;
}

/* --- VMs and their snapshots ------------------------------------------------------------------ */
static bool look_at_snapshot(struct look *l, const struct holder_vm *vm,
                             const struct ovirt_snapshot *s, struct err *err)
{
    char task[ID_BYTES];
    int64_t fence;
    struct wire_trace_item *t = add(l, "snapshot", vm, s->id);
    t->time_ms = s->time_ms > 0 ? s->time_ms : 0;
    if (!marker_parse(s->description, task, &fence))
        return true; /* it looks like ours and is not */
    set_task(t, task, fence);
    struct ovirt_disks disks = {0};
    if (!ovirt_snapshot_disks(l->run->session, vm->id, s->id, &disks, err)) {
        if (err->code != ERR_NOT_FOUND)
            return false;
        err_clear(err); /* merged since */
        return true;
    }
    for (size_t i = 0; i < disks.count; i++) {
        struct marked_disk *d = add_disk(l, disks.v[i].id, task, fence);
        d->owner = xstrdup(vm->id);
        d->volume = xstrdup_or_null(disks.v[i].image_id);
        d->domain = xstrdup_or_null(disks.v[i].storage_domain_id);
    }
    ovirt_disks_done(&disks);
    return true;
}

/* The engine's own backups that are open. */
static bool look_at_backups(struct look *l, const struct holder_vm *vm, struct err *err)
{
    struct ovirt_backups list = {0};
    if (engine_version_cmp(&l->site.version, 4, 4, 7) < 0)
        return true; /* none was ever made */
    if (!ovirt_backups_open(l->run->session, vm->id, MARKER_SNAPSHOT, &list, err))
        return false;
    for (size_t i = 0; i < list.count; i++) {
        char task[ID_BYTES];
        int64_t fence;
        struct wire_trace_item *t = add(l, "backup", vm, list.v[i].id);
        t->time_ms = list.v[i].time_ms > 0 ? list.v[i].time_ms : 0;
        if (marker_parse(list.v[i].description, task, &fence))
            set_task(t, task, fence);
    }
    ovirt_backups_done(&list);
    return true;
}

static bool look_at_vm(struct look *l, const struct holder_vm *vm, struct err *err)
{
    char task[ID_BYTES];
    int64_t fence;
    if (!run_check(l->run, err))
        return false;
    bool half_made = strncmp(vm->description, MARKER_RESTORE, strlen(MARKER_RESTORE)) == 0 ||
                     strncmp(vm->description, MARKER_EXPORT, strlen(MARKER_EXPORT)) == 0;
    if (half_made && marker_parse(vm->description, task, &fence))
        set_task(add(l, "vm", vm, NULL), task, fence);
    struct ovirt_snapshots list = {0};
    if (!ovirt_snapshots_list(l->run->session, vm->id, MARKER_SNAPSHOT, &list, err)) {
        if (err->code != ERR_NOT_FOUND)
            return false;
        err_clear(err); /* it has gone since */
        return true;
    }
    bool ok = true;
    for (size_t i = 0; ok && i < list.count; i++)
        ok = look_at_snapshot(l, vm, &list.v[i], err);
    ovirt_snapshots_done(&list);
    return ok && look_at_backups(l, vm, err);
}

static bool look_at_vms(struct look *l, struct err *err)
{
    for (size_t i = 0; i < l->holders.vm_count; i++) {
        if (!look_at_vm(l, &l->holders.vms[i], err))
            return false;
    }
    return true;
}

/* --- Disks ------------------------------------------------------------------------------------ */
/* The VM that holds the disk and is not its own restore's half-made one; NULL = there is none. */
static const struct holder_vm *other_holder(const struct look *l, const char *disk,
                                            const char *task, size_t *at)
{
    const struct holder *h;
    while ((h = holders_of(&l->holders, disk, at))) {
        const struct holder_vm *vm = &l->holders.vms[h->vm];
        if (!marker_is_ours(vm->description, task))
            return vm;
    }
    return NULL;
}

static bool on_disk(void *ctx, const struct ovirt_disk_row *row, struct err *err)
{
    struct look *l = ctx;
    char task[ID_BYTES];
    int64_t fence;
    if (!run_check(l->run, err))
        return false;
    /* Another data center's sweep tells of what lies there. */
    bool here = row->storage_domain_id &&
                ovirt_storage_domains_find(&l->domains, row->storage_domain_id) != NULL;
    if (!here)
        return true;
    if (!marker_parse(row->description, task, &fence)) {
        (void)add(l, "disk", NULL, row->id);
        return true;
    }
    size_t at = SIZE_MAX;
    set_task(add(l, "disk", other_holder(l, row->id, task, &at), row->id), task, fence);
    (void)add_disk(l, row->id, task, fence);
    return true;
}

static bool look_at_disks(struct look *l, struct err *err)
{
    return ovirt_storage_domains_list(l->run->session, l->site.datacenter_id, &l->domains, err) &&
           ovirt_disks_each(l->run->session, MARKER_RESTORE, on_disk, l, err);
}

/* --- Attachments ------------------------------------------------------------------------------ */
static void look_at_marked(struct look *l, const struct marked_disk *d)
{
    size_t at = SIZE_MAX;
    const struct holder_vm *vm;
    while ((vm = other_holder(l, d->id, d->owner ? NULL : d->task, &at))) {
        if (d->owner && strcmp(vm->id, d->owner) == 0)
            continue;
        set_task(add(l, "attachment", vm, d->id), d->task, d->fence);
    }
}

static bool is_marked(const struct look *l, const char *disk)
{
    for (size_t i = 0; i < l->disk_count; i++) {
        if (strcmp(l->disks[i].id, disk) == 0)
            return true;
    }
    return false;
}

/* On our own proxy: a disk that another VM has as well, and that no marker speaks of. */
static void look_at_own_proxy(struct look *l)
{
    for (size_t i = 0; i < l->holders.count; i++) {
        const struct holder *h = &l->holders.v[i];
        const struct holder_vm *vm = &l->holders.vms[h->vm];
        if (strcmp(vm->id, l->site.proxy_id) != 0 || is_marked(l, h->disk))
            continue;
        size_t at = SIZE_MAX;
        const struct holder *other = holders_of(&l->holders, h->disk, &at);
        while (other && other->vm == h->vm)
            other = holders_of(&l->holders, h->disk, &at);
        if (other)
            (void)add(l, "attachment", vm, h->disk);
    }
}

static void look_at_attachments(struct look *l)
{
    for (size_t i = 0; i < l->disk_count; i++)
        look_at_marked(l, &l->disks[i]);
    look_at_own_proxy(l);
}

/* --- Image transfers ---------------------------------------------------------------------------
 *
 * They carry no mark. One is ours that is open on a disk which a restore made, or that reads the
 * volume of a disk in one of our snapshots. Of other transfers only those are told that are of such
 * a disk as well: they are somebody else's, or nobody can tell. */
static const struct holder_vm *vm_of(const struct look *l, const struct marked_disk *d)
{
    size_t at = SIZE_MAX;
    if (!d->owner)
        return other_holder(l, d->id, d->task, &at);
    for (size_t i = 0; i < l->holders.vm_count; i++) {
        if (strcmp(l->holders.vms[i].id, d->owner) == 0)
            return &l->holders.vms[i];
    }
    return NULL;
}

static bool is_transfer_of(struct look *l, const struct ovirt_open_transfers *open,
                           const struct ovirt_open_transfer *t, const struct marked_disk *d,
                           bool *ret, struct err *err)
{
    SCOPED_FREE char *reads = NULL;
    *ret = !d->owner;
    if (*ret)
        return true;
    if (!ovirt_transfer_of_volume(l->run->session, open, d->id, d->volume, d->domain, &reads, err))
        return false;
    *ret = reads && strcmp(reads, t->id) == 0;
    return true;
}

static bool look_at_transfer(struct look *l, const struct ovirt_open_transfers *open,
                             const struct ovirt_open_transfer *t, struct err *err)
{
    const struct marked_disk *other = NULL;
    for (size_t i = 0; i < l->disk_count; i++) {
        const struct marked_disk *d = &l->disks[i];
        bool ours = false;
        if (strcmp(d->id, t->disk_id) != 0)
            continue;
        if (!run_check(l->run, err) || !is_transfer_of(l, open, t, d, &ours, err))
            return false;
        if (ours) {
            set_task(add(l, "transfer", vm_of(l, d), t->id), d->task, d->fence);
            return true;
        }
        other = d;
    }
    if (other)
        (void)add(l, "transfer", vm_of(l, other), t->id);
    return true;
}

static bool look_at_transfers(struct look *l, struct err *err)
{
    struct ovirt_open_transfers open = {0};
    if (!ovirt_transfers_open(l->run->session, &open, err)) {
        if (err->code != ERR_ENGINE_DENIED)
            return false;
        run_warn_err(l->run, NULL, err);
        err_clear(err);
    }
    bool ok = true;
    for (size_t i = 0; ok && i < open.count; i++)
        ok = look_at_transfer(l, &open, &open.v[i], err);
    ovirt_open_transfers_done(&open);
    return ok;
}

/* --- The repository --------------------------------------------------------------------------- */
/* "<task>.<fence>" */
static bool parse_session(const char *id, char task[ID_BYTES], int64_t *ret_fence)
{
    if (strlen(id) < ID_BYTES || id[ID_BYTES - 1] != '.')
        return false;
    memcpy(task, id, ID_BYTES - 1);
    task[ID_BYTES - 1] = '\0';
    const char *digits = id + ID_BYTES;
    size_t n = strspn(digits, "0123456789");
    if (!id_is_valid(task) || n == 0 || n > 15 || digits[n] != '\0')
        return false;
    *ret_fence = strtoll(digits, NULL, 10);
    return true;
}

static bool look_at_sessions(struct look *l, struct err *err)
{
    struct store_session_list open = {0};
    if (!store_sessions_open(l->run->store, &open, err))
        return false;
    for (size_t i = 0; i < open.count; i++) {
        char task[ID_BYTES];
        int64_t fence;
        struct wire_trace_item *t = add(l, "session", NULL, open.ids[i]);
        if (parse_session(open.ids[i], task, &fence))
            set_task(t, task, fence);
    }
    store_session_list_done(&open);
    return true;
}

/* What workers have copied for another one's task: it belongs to that task. */
static bool look_at_parts(struct look *l, struct err *err)
{
    struct store_point_list list = {0};
    struct store_point_filter filter = {.parts = true};
    if (!store_points_list(l->run->store, &filter, &list, err))
        return false;
    for (size_t i = 0; i < list.count; i++) {
        const struct store_point_info *p = &list.items[i];
        if (!p->part_of || !id_is_valid(p->part_of))
            continue;
        struct wire_trace_item *t = add(l, "part", NULL, p->id);
        t->vm = p->vm_id[0] ? xstrdup(p->vm_id) : NULL;
        t->vm_name = p->vm_name[0] ? xstrdup(p->vm_name) : NULL;
        t->time_ms = p->created_ms;
        set_task(t, p->part_of, 0);
    }
    store_point_list_done(&list);
    return true;
}

/* What the repository knows of each trace's task and fence. */
static bool look_up_fates(struct look *l, struct err *err)
{
    for (size_t i = 0; i < l->count; i++) {
        struct wire_trace_item *t = &l->traces[i];
        if (!t->task)
            continue;
        bool is_part = strcmp(t->kind, "part") == 0; /* its id is the session, and it stands */
        SCOPED_FREE char *session =
            is_part ? xstrdup(t->id) : xasprintf("%s.%" PRId64, t->task, t->fence);
        enum store_fate fate;
        if (!run_check(l->run, err) || !store_session_fate(l->run->store, session, &fate, err))
            return false;
        t->fate = xstrdup(store_fate_name(fate));
    }
    return true;
}

/* --- All -------------------------------------------------------------------------------------- */
static bool send_pages(struct look *l, struct err *err)
{
    for (size_t i = 0; i < l->count; i += WIRE_PAGE_MAX) {
        size_t left = l->count - i;
        struct wire_item_list page = {.traces = l->traces + i,
                                      .traces_count = left < WIRE_PAGE_MAX ? left : WIRE_PAGE_MAX};
        if (!run_check(l->run, err))
            return false;
        run_items(l->run, &page);
    }
    return true;
}

bool step_sweep(struct task_run *run, struct err *err)
{
    SCOPED_LOOK struct look l = {.run = run};
    bool ok = site_load(run, &l.site, err) &&
              holders_read(run, &l.site.clusters, &l.holders, err) && look_at_vms(&l, err) &&
              look_at_disks(&l, err);
    if (!ok)
        return false;
    look_at_attachments(&l);
    if (!look_at_transfers(&l, err) || !look_at_sessions(&l, err) || !look_at_parts(&l, err) ||
        !look_up_fates(&l, err) || !send_pages(&l, err))
        return false;
    log_info("looked", LOG_U64("vms", l.holders.vm_count), LOG_U64("traces", l.count));
    return true;
}
