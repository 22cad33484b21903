/* SPDX-License-Identifier: Apache-2.0 */
/* Snapshots: how they look, and their creation. */
#include "tests/sandbox/engine/snapshots.h"

#include <stdio.h>
#include <string.h>

#include "proto/base/log.h"
#include "tests/sandbox/engine/disks.h"
#include "tests/sandbox/engine/faults.h"
#include "tests/sandbox/engine/guests.h"
#include "tests/sandbox/engine/jobs.h"
#include "tests/sandbox/engine/json_out.h"
#include "tests/sandbox/engine/ovf.h"
#include "tests/sandbox/engine/route.h"
#include "tests/sandbox/engine/storage.h"
#include "tests/sandbox/engine/views.h"
#include "tests/sandbox/engine/vms.h"

enum { SNAPSHOT_DISKS_MAX = 64 };

/* --- Views -------------------------------------------------------------------------------------
 */

static json_t *snapshot_view(const struct engine *e, const struct vm *vm, const struct snapshot *s,
                             bool all_content)
{
    json_t *o = out_entity(s->id, "vms/%s/snapshots/%s", vm->id, s->id);
    out_str(o, "description", s->description);
    out_date(o, "date", s->date_ms);
    out_bool(o, "persist_memorystate", s->persist_memory);
    out_str(o, "snapshot_status", snapshot_status_name(s->status));
    out_str(o, "snapshot_type", s->active ? "active" : "regular");
    out_ref(o, "vm", vm->id, "vms/%s", vm->id);
    if (!s->active)
        out_str(o, "name", vm->name);
    if (all_content) {
        SCOPED_FREE char *current = s->active ? ovf_write(e, vm, s->id) : NULL;
        json_object_set_new(o, "initialization",
                            json_pack("{s:{s:s, s:s}}", "configuration", "type", "ovf", "data",
                                      current ? current : s->ovf));
    }
    out_link(o, "disks");
    out_link(o, "nics");
    out_link(o, "cdroms");
    if (!s->active)
        out_action(o, "restore");
    return o;
}

bool snapshots_find(struct engine *e, struct request *r, struct vm **ret_vm, struct snapshot **ret)
{
    *ret_vm = model_vm(&e->model, r->ids[0]);
    *ret = *ret_vm ? vm_snapshot(*ret_vm, r->ids[1]) : NULL;
    if (!*ret)
        reply_empty(r, 404);
    return *ret != NULL;
}

void snapshots_list(struct engine *e, struct request *r)
{
    const struct vm *vm = model_vm(&e->model, r->ids[0]);
    if (!vm) {
        reply_empty(r, 404);
        return;
    }
    json_t *list = json_array();
    const struct snapshot *s;
    VEC_EACH(&vm->snapshots, s)
    json_array_append_new(list, snapshot_view(e, vm, s, r->all_content));
    reply_json(r, 200, out_collection("snapshot", list));
}

void snapshots_get(struct engine *e, struct request *r)
{
    struct vm *vm;
    struct snapshot *s;
    if (snapshots_find(e, r, &vm, &s))
        reply_json(r, 200, snapshot_view(e, vm, s, r->all_content));
}

void snapshot_disks(struct engine *e, struct request *r)
{
    struct vm *vm;
    struct snapshot *s;
    if (!snapshots_find(e, r, &vm, &s))
        return;
    json_t *list = json_array();
    const struct disk *d;
    VEC_EACH(&e->model.disks, d)
    {
        const struct volume *v = disk_volume_in(d, s->id);
        if (v && disk_is_snapable(d))
            json_array_append_new(list, disk_view_in_snapshot(e, vm, d, v));
    }
    reply_json(r, 200, out_collection("disk", list));
}

void snapshot_disk(struct engine *e, struct request *r)
{
    struct vm *vm;
    struct snapshot *s;
    if (!snapshots_find(e, r, &vm, &s))
        return;
    const struct disk *d = model_disk(&e->model, r->ids[2]);
    const struct volume *v = d ? disk_volume_in(d, s->id) : NULL;
    if (v)
        reply_json(r, 200, disk_view_in_snapshot(e, vm, d, v));
    else
        reply_empty(r, 404);
}

void snapshot_nics(struct engine *e, struct request *r)
{
    struct vm *vm;
    struct snapshot *s;
    if (!snapshots_find(e, r, &vm, &s))
        return;
    json_t *list = s->nics ? json_deep_copy(s->nics) : json_array();
    const struct nic *n;
    if (s->active)
        VEC_EACH(&vm->nics, n)
    json_array_append_new(list, nic_view(vm, n));
    reply_json(r, 200, out_collection("nic", list));
}

void snapshot_cdroms(struct engine *e, struct request *r)
{
    struct vm *vm;
    struct snapshot *s;
    if (snapshots_find(e, r, &vm, &s))
        reply_json(r, 200, json_object());
}

/* --- Shared ------------------------------------------------------------------------------------
 */

bool snapshots_check_idle(struct request *r, const struct vm *vm, const char *verb)
{
    const struct snapshot *s;
    VEC_EACH(&vm->snapshots, s)
    {
        if (s->status == SNAPSHOT_LOCKED)
            reply_refused(r, 409,
                          "Cannot %s. The VM is performing an operation on a Snapshot. Please wait "
                          "for the operation to finish, and try again.",
                          verb);
        else if (s->status == SNAPSHOT_IN_PREVIEW)
            reply_refused(r, 409, "Cannot %s. VM is previewing a Snapshot.", verb);
        if (r->status != 0)
            return false;
    }
    return true;
}

struct snapshot_work *snapshots_work_new(struct request *r, struct vm *vm, struct snapshot *s)
{
    struct snapshot_work *w = ALLOC_NEW(struct snapshot_work);
    w->vm = vm;
    w->snapshot = s;
    w->job = r->job;
    r->job_continues = true;
    (void)snprintf(w->correlation_id, sizeof w->correlation_id, "%s", r->correlation_id);
    return w;
}

void snapshots_release(struct engine *e, struct snapshot_work *w, bool ok)
{
    engine_changed(e);
    (void)engine_sleep(e, e->timings.lock_release_ms);
    w->vm->lock = VM_LOCK_FREE;
    jobs_finish(e, w->job, ok);
    engine_changed(e);
}

void snapshots_drop(struct engine *e, struct vm *vm, struct snapshot *s)
{
    s->gone = true;
    VEC_REMOVE(&vm->snapshots, s);
    VEC_ADD(&e->model.dead_snapshots, s);
}

/* --- Creation: checks ----------------------------------------------------------------------------
 */

/* The disks that a new snapshot freezes, with the ids wished for their new volumes. */
struct freeze_set {
    struct disk *disks[SNAPSHOT_DISKS_MAX];
    char volume_ids[SNAPSHOT_DISKS_MAX][ID_BYTES]; /* "" = fresh */
    size_t count;
};

static void add_to_set(struct freeze_set *set, struct disk *d, const char *volume_id)
{
    if (set->count == SNAPSHOT_DISKS_MAX)
        return;
    (void)snprintf(set->volume_ids[set->count], ID_BYTES, "%s", volume_id ? volume_id : "");
    set->disks[set->count++] = d;
}

static void choose_all(const struct vm *vm, struct freeze_set *set)
{
    const struct attachment *a;
    VEC_EACH(&vm->attachments, a)
    if (a->snapshot_id[0] == '\0' && a->active && disk_is_snapable(a->disk))
        add_to_set(set, a->disk, NULL);
}

static bool choose_named(struct engine *e, struct request *r, const struct vm *vm,
                         struct freeze_set *set)
{
    const json_t *list = in_list(r->body, "disk_attachments", "disk_attachment");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *wish = json_object_get(json_array_get(list, i), "disk");
        const char *id = in_str(wish, "id"), *image_id = in_str(wish, "image_id");
        const struct attachment *a = id ? vm_attachment(vm, id) : NULL;
        if (!id || (image_id && !id_is_valid(image_id)))
            reply_bad_syntax(e, r);
        else if (!a || a->snapshot_id[0] != '\0')
            reply_refused(r, 400,
                          "Cannot create Snapshot. The following disk(s) are not attached to the "
                          "VM: %s.",
                          id);
        else if (!disk_is_snapable(a->disk))
            reply_refused(r, 400,
                          "Cannot create Snapshot. The snapshot of the following disk(s) is not "
                          "supported: %s.",
                          a->disk->alias);
        if (r->status != 0 || !a)
            return false;
        add_to_set(set, a->disk, image_id);
    }
    return true;
}

static bool check_disks(struct request *r, const struct freeze_set *set)
{
    for (size_t i = 0; i < set->count; i++) {
        const struct disk *d = set->disks[i];
        if (disk_is_locked(d))
            reply_refused(r, 409,
                          "Cannot create Snapshot: The following disks are locked: %s. Please try "
                          "again in a few minutes.",
                          d->alias);
        else if (d->status == DISK_ILLEGAL)
            reply_refused(r, 409,
                          "Cannot create Snapshot. The following attached disks are in "
                          "ILLEGAL status: %s - please remove them and try again.",
                          d->alias);
        else if (strcmp(d->sd->status, "active") != 0)
            reply_refused(r, 409,
                          "Cannot create Snapshot. The relevant Storage Domain is "
                          "inaccessible.");
        if (r->status != 0)
            return false;
    }
    return true;
}

static bool check_space(const struct engine *e, struct request *r, const struct freeze_set *set)
{
    for (size_t i = 0; i < set->count; i++) {
        const struct storage_domain *sd = set->disks[i]->sd;
        uint64_t used = 0;
        const struct disk *d;
        VEC_EACH(&e->model.disks, d)
        if (d->sd == sd)
            used += disk_actual_bytes(d);
        if (used >= sd->size_bytes) {
            reply_refused(r, 409, "Cannot create Snapshot. Low disk space on Storage Domain %s.",
                          sd->name);
            return false;
        }
    }
    return true;
}

static bool check_create(struct engine *e, struct request *r, const struct vm *vm,
                         struct freeze_set *set)
{
    const char *description = in_str(r->body, "description");
    if (!description || !*description) {
        reply_incomplete(r, "Snapshot", "description", "add");
        return false;
    }
    if (!vms_check_lock(r, vm, "create Snapshot") ||
        !snapshots_check_idle(r, vm, "create Snapshot"))
        return false;
    if (vm->status != VM_UP && vm->status != VM_PAUSED && vm->status != VM_DOWN) {
        reply_refused(r, 409, "Cannot create Snapshot because the VM is in %s status.",
                      vm_status_name(vm->status));
        return false;
    }
    if (vm->stateless && vm_is_running(vm)) {
        reply_refused(r, 409,
                      "Cannot create Snapshot. Snapshot cannot be created for a stateless "
                      "VM while it is running.");
        return false;
    }
    if (json_object_get(r->body, "disk_attachments")) {
        if (!choose_named(e, r, vm, set))
            return false;
    } else {
        choose_all(vm, set);
    }
    return check_disks(r, set) && check_space(e, r, set);
}

/* --- Creation: work ------------------------------------------------------------------------------
 */

struct snapshot_creation {
    struct snapshot_work *w;
    struct freeze_set set;
    struct snapshot *active; /* the fresh active entry */
    struct volume *volumes[SNAPSHOT_DISKS_MAX];
    char bitmap[ID_BYTES]; /* the qcow2 volumes begin to record under this name; "" = do not */
};

/* Disks without incremental backup have no bitmaps. */
static const char *bitmap_for(const struct snapshot_creation *c, size_t i)
{
    return c->bitmap[0] && c->set.disks[i]->incremental ? c->bitmap : NULL;
}

/* Overlays of a VM that is down: files only. */
static bool freeze_down(struct engine *e, const struct snapshot_creation *c, struct err *err)
{
    (void)e;
    for (size_t i = 0; i < c->set.count; i++) {
        const struct volume *base = disk_active_volume(c->set.disks[i]);
        if (!block_volume_create(c->volumes[i]->path, BLOCK_QCOW2, c->set.disks[i]->size_bytes,
                                 base->path, base->format, err) ||
            (base->format == BLOCK_QCOW2 &&
             !block_volume_carry_bitmaps(base->path, c->volumes[i]->path, err)) ||
            (bitmap_for(c, i) &&
             !block_volume_add_bitmap(c->volumes[i]->path, bitmap_for(c, i), err)))
            return false;
    }
    return true;
}

static bool freeze_live(struct engine *e, const struct snapshot_creation *c, struct err *err)
{
    struct vm *vm = c->w->vm;
    struct block_overlay overlays[SNAPSHOT_DISKS_MAX];
    for (size_t i = 0; i < c->set.count; i++) {
        memcpy(overlays[i].disk_id, c->set.disks[i]->id, sizeof overlays[i].disk_id);
        overlays[i].path = c->volumes[i]->path;
        overlays[i].begin = bitmap_for(c, i);
    }
    struct block_vm *block = vm->block;
    if (!storage_begin(e, vm, err))
        return false;
    bool ok = block_vm_snapshot(block, overlays, c->set.count, err);
    storage_end(e, vm);
    return ok;
}

/* The instant, inside a freeze of the guest where it has an agent and nobody froze it before. */
static bool take_instant(struct engine *e, struct snapshot_creation *c, struct err *err)
{
    struct vm *vm = c->w->vm;
    struct err why = ERR_INIT;
    bool quiesce =
        vm_is_running(vm) && vm->status != VM_PAUSED && vm->agent && vm->guest && !vm->frozen;
    bool frozen = false;
    if (quiesce) {
        bool fails = faults_point(e->faults, "freeze-fail", vm->name, NULL);
        frozen = !fails && guests_freeze(e, vm, &why);
        if (!frozen)
            events_note(e, EVENT_FREEZE_FAILED, "warning", vm, c->w->correlation_id,
                        "Failed to freeze guest filesystems on VM %s. Note that using the created "
                        "snapshot might cause data inconsistency.",
                        vm->name);
    }
    c->w->snapshot->quiesced = frozen || vm->frozen;
    c->w->snapshot->acked_before = guests_acked(vm);
    bool ok =
        c->set.count == 0 || (vm_is_running(vm) ? freeze_live(e, c, err) : freeze_down(e, c, err));
    c->w->snapshot->acked_after = guests_acked(vm);
    err_clear(&why);
    if (frozen && !guests_thaw(e, vm, &why))
        log_err(LOG_LEVEL_WARN, "thaw_failed", &why);
    return ok;
}

/* The new volumes become the active ones; disks that were left out move to the new active entry. */
static void move_to_active(struct snapshot_creation *c)
{
    const struct snapshot *active = c->active;
    for (size_t i = 0; i < c->set.count; i++)
        VEC_ADD(&c->set.disks[i]->chain, TAKE(c->volumes[i]));
    const struct attachment *a;
    VEC_EACH(&c->w->vm->attachments, a)
    {
        struct volume *v = disk_active_volume(a->disk);
        if (a->snapshot_id[0] == '\0' && v)
            memcpy(v->snapshot_id, active->id, sizeof v->snapshot_id);
    }
}

static void creation_failed(struct engine *e, struct snapshot_creation *c)
{
    struct vm *vm = c->w->vm;
    for (size_t i = 0; i < c->set.count; i++)
        if (c->volumes[i])
            volume_free(c->volumes[i]);
    c->set.count = 0;
    move_to_active(c);
    events_note(e, vm_is_running(vm) ? EVENT_LIVE_SNAPSHOT_FAILED : EVENT_SNAPSHOT_FAILED, "error",
                vm, c->w->correlation_id, "Failed to complete snapshot '%s' creation for VM '%s'.",
                c->w->snapshot->description, vm->name);
    snapshots_drop(e, vm, c->w->snapshot);
}

/* False with err: the entry has gone. The VM's lock is held still. */
static bool create(struct engine *e, struct snapshot_creation *c, struct err *err)
{
    const struct snapshot_work *w = c->w;
    struct vm *vm = w->vm;
    struct snapshot *s = w->snapshot;
    int64_t slow = 0, delay = 0;
    bool pauses = s->persist_memory && vm->status == VM_UP;
    if (pauses)
        vm->status = VM_PAUSED; /* memory goes to disk: the guest stands still */
    bool ok = engine_sleep(e, e->timings.snapshot_ms / 2);
    if (faults_point(e->faults, "snapshot-slow", vm->name, &slow))
        (void)engine_sleep(e, slow);
    if (faults_point(e->faults, "snapshot-vanish", vm->name, &delay))
        ok = err_set(err, ERR_INTERNAL, 0, "injected");
    ok = ok && take_instant(e, c, err);
    if (ok) {
        move_to_active(c);
        if (!c->bitmap[0])
            references_begin(e, vm, s); /* a backup has its own */
    }
    (void)engine_sleep(e, e->timings.snapshot_ms / 2 + delay);
    if (pauses && vm->status == VM_PAUSED)
        vm->status = VM_UP;
    if (ok) {
        s->status = SNAPSHOT_OK;
        events_note(e, EVENT_SNAPSHOT_FINISHED, "normal", vm, w->correlation_id,
                    "Snapshot '%s' creation for VM '%s' has been completed.", s->description,
                    vm->name);
    } else {
        log_warn("snapshot_failed", LOG_STR("vm", vm->name), LOG_STR("why", err->message));
        creation_failed(e, c);
    }
    return ok;
}

static void create_job(struct engine *e, void *arg)
{
    SCOPED_FREE struct snapshot_creation *c = arg;
    SCOPED_FREE struct snapshot_work *w = c->w;
    struct err err = ERR_INIT;
    snapshots_release(e, w, create(e, c, &err));
}

/* The former active entry becomes the snapshot, and keeps its id; the active one gets a fresh id.
 */
static struct snapshot *rotate(struct engine *e, struct vm *vm, const char *description,
                               bool persist_memory, struct snapshot **ret_active)
{
    struct snapshot *s = vm_active_snapshot(vm);
    s->ovf = ovf_write(e, vm, s->id);
    s->vm = vm_config_view(e, vm, true);
    s->nics = json_array();
    const struct nic *n;
    VEC_EACH(&vm->nics, n)
    json_array_append_new(s->nics, nic_view(vm, n));
    free(s->description);
    s->description = xstrdup(description);
    s->active = false;
    s->status = SNAPSHOT_LOCKED;
    s->date_ms = engine_now_ms(e);
    s->persist_memory = persist_memory;

    struct snapshot *active = ALLOC_NEW(struct snapshot);
    id_new(active->id);
    active->description = xstrdup("Active VM");
    active->active = true;
    active->date_ms = s->date_ms;
    VEC_ADD(&vm->snapshots, active);
    *ret_active = active;
    return s;
}

/* The entry is there, and locked, and so is the VM. */
static struct snapshot *begin(struct engine *e, struct vm *vm, struct snapshot_creation *c,
                              const char *description, bool persist_memory)
{
    struct snapshot *s = rotate(e, vm, description, persist_memory, &c->active);
    for (size_t i = 0; i < c->set.count; i++)
        c->volumes[i] = storage_plan_overlay(e, c->set.disks[i],
                                             c->set.volume_ids[i][0] ? c->set.volume_ids[i] : NULL,
                                             c->active->id);
    vm->lock = VM_LOCK_SNAPSHOT_CREATE;
    return s;
}

static void note_started(struct engine *e, const struct vm *vm, const struct snapshot *s,
                         const char *correlation_id)
{
    events_note(e, EVENT_SNAPSHOT_STARTED, "normal", vm, correlation_id,
                "Snapshot '%s' creation for VM '%s' was initiated.", s->description, vm->name);
}

struct snapshot_creation *snapshots_own_begin(struct engine *e, struct vm *vm,
                                              const struct backup *b, struct snapshot **ret)
{
    struct snapshot_creation *c = ALLOC_NEW(struct snapshot_creation);
    const struct backup_disk *d;
    VEC_EACH(&b->disks, d)
    add_to_set(&c->set, d->disk, NULL);
    (void)snprintf(c->bitmap, sizeof c->bitmap, "%s", b->to_checkpoint);
    *ret = begin(e, vm, c, SNAPSHOT_OF_BACKUP, false);
    note_started(e, vm, *ret, "");
    c->w = ALLOC_NEW(struct snapshot_work);
    c->w->vm = vm;
    c->w->snapshot = *ret;
    return c;
}

bool snapshots_own_finish(struct engine *e, struct snapshot_creation *c, struct err *err)
{
    bool ok = create(e, c, err);
    snapshots_release(e, c->w, ok);
    free(c->w);
    free(c);
    return ok;
}

void snapshots_add(struct engine *e, struct request *r)
{
    struct vm *vm = model_vm(&e->model, r->ids[0]);
    struct snapshot_creation *c = ALLOC_NEW(struct snapshot_creation);
    if (!vm) {
        reply_empty(r, 404);
    } else if (check_create(e, r, vm, &c->set)) {
        struct snapshot *s = begin(e, vm, c, in_str(r->body, "description"),
                                   in_bool(r->body, "persist_memorystate", true));
        jobs_describe(r->job, "Creating VM Snapshot %s for VM %s", s->description, vm->name);
        note_started(e, vm, s, r->correlation_id);
        c->w = snapshots_work_new(r, vm, s);
        engine_spawn(e, create_job, c);
        json_t *o = snapshot_view(e, vm, s, true);
        disks_add_creation_status(o);
        reply_created(r, 202, in_str(o, "href"), o);
        return;
    }
    free(c);
}
