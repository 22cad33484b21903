/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Backups: a frozen view of a VM's disks for image transfers, and a checkpoint that the next one
 * can start from. A thread for each walks through the phases; the disks are locked until the end. A
 * VM that is down is backed up by a storage daemon of its own, with no guest in it.
 */
#include "tests/sandbox/engine/backups.h"

#include <stdio.h>
#include <string.h>

#include "proto/base/log.h"
#include "tests/sandbox/engine/faults.h"
#include "tests/sandbox/engine/guests.h"
#include "tests/sandbox/engine/jobs.h"
#include "tests/sandbox/engine/json_out.h"
#include "tests/sandbox/engine/route.h"
#include "tests/sandbox/engine/snapshots.h"
#include "tests/sandbox/engine/storage.h"
#include "tests/sandbox/engine/views.h"
#include "tests/sandbox/engine/vms.h"

enum { BACKUP_DISKS_MAX = 64, BACKUP_POLL_MS = 500, BACKUP_DESCRIPTION_MAX = 1024 };

static bool is_over(const struct backup *b)
{
    return b->phase == BACKUP_SUCCEEDED || b->phase == BACKUP_FAILED;
}

void backup_set_phase(struct engine *e, struct backup *b, enum backup_phase phase)
{
    b->phase = phase;
    b->modified_ms = engine_now_ms(e);
    engine_changed(e);
}

struct backup_disk *backups_disk(const struct backup *b, const struct disk *d)
{
    struct backup_disk *one;
    VEC_EACH(&b->disks, one)
    if (one->disk == d)
        return one;
    return NULL;
}

bool backups_check(struct engine *e, struct request *r, const struct vm *vm, const char *verb)
{
    if (model_backup_running(&e->model, vm))
        reply_refused(r, 409, "Cannot %s. The VM is during a backup operation.", verb);
    return r->status == 0;
}

bool backups_check_power(struct engine *e, struct request *r, const struct vm *vm, const char *verb)
{
    const struct backup *b = model_backup_running(&e->model, vm);
    return (b && b->hybrid) || backups_check(e, r, vm, verb);
}

/* --- Views ------------------------------------------------------------------------------------ */

static json_t *backup_view(const struct engine *e, const struct backup *b)
{
    json_t *o = out_entity(b->id, "vms/%s/backups/%s", b->vm->id, b->id);
    bool was_ready =
        b->phase == BACKUP_READY || b->phase == BACKUP_FINALIZING || b->phase == BACKUP_SUCCEEDED;
    out_str(o, "description", b->description);
    out_str(o, "phase", backup_phase_name(b->phase));
    out_date(o, "creation_date", b->created_ms);
    if (engine_since(e, 4, 4, 8))
        out_date(o, "modification_date", b->modified_ms);
    if (b->from_checkpoint[0])
        out_str(o, "from_checkpoint_id", b->from_checkpoint);
    if (was_ready && b->to_checkpoint[0])
        out_str(o, "to_checkpoint_id", b->to_checkpoint);
    if (b->snapshot_id[0])
        out_ref(o, "snapshot", b->snapshot_id, "vms/%s/snapshots/%s", b->vm->id, b->snapshot_id);
    if (was_ready && !b->hybrid && engine_since(e, 4, 4, 4) && e->model.hosts.len > 0) {
        const struct host *host = b->vm->host ? b->vm->host : e->model.hosts.at[0];
        out_ref(o, "host", host->id, "hosts/%s", host->id);
    }
    out_ref(o, "vm", b->vm->id, "vms/%s", b->vm->id);
    out_link(o, "disks");
    out_action(o, "finalize");
    return o;
}

static struct backup *find(struct engine *e, struct request *r)
{
    const struct vm *vm = model_vm(&e->model, r->ids[0]);
    struct backup *b = vm ? model_backup(&e->model, vm, r->ids[1]) : NULL;
    if (!b)
        reply_empty(r, 404);
    return b;
}

void backups_list(struct engine *e, struct request *r)
{
    const struct vm *vm = model_vm(&e->model, r->ids[0]);
    if (!vm) {
        reply_empty(r, 404);
        return;
    }
    json_t *list = json_array();
    const struct backup *b;
    VEC_EACH(&e->model.backups, b)
    if (b->vm == vm)
        json_array_append_new(list, backup_view(e, b));
    reply_json(r, 200, out_collection("backup", list));
}

void backups_get(struct engine *e, struct request *r)
{
    const struct backup *b = find(e, r);
    if (b)
        reply_json(r, 200, backup_view(e, b));
}

void backup_disks(struct engine *e, struct request *r)
{
    const struct backup *b = find(e, r);
    if (!b)
        return;
    json_t *list = json_array();
    const struct backup_disk *d;
    bool known = !b->hybrid || b->phase == BACKUP_READY || b->phase == BACKUP_FINALIZING ||
                 b->phase == BACKUP_SUCCEEDED;
    if (known)
        VEC_EACH(&b->disks, d)
        {
            json_t *o = disk_view(e, d->disk);
            if (engine_since(e, 4, 4, 3))
                out_str(o, "backup_mode", d->incremental ? "incremental" : "full");
            json_array_append_new(list, o);
        }
    reply_json(r, 200, out_collection("disk", list));
}

/* --- The instant ------------------------------------------------------------------------------ */

/* The files of a VM that is down, behind a daemon of their own. Gives up the lock. */
static bool start_own(struct engine *e, struct backup *b, struct err *err)
{
    struct block_disk disks[BACKUP_DISKS_MAX] = {0};
    SCOPED_FREE char *run_dir = xasprintf("%s/r/b%.8s", e->opts.dir, b->id);
    for (size_t i = 0; i < b->disks.len; i++) {
        const struct disk *d = b->disks.at[i]->disk;
        const struct volume *v = disk_active_volume(d);
        memcpy(disks[i].id, d->id, sizeof disks[i].id);
        disks[i].path = v->path; /* the disk is locked: it stays */
        disks[i].format = v->format;
    }
    engine_unlock(e);
    struct block_vm *own = block_vm_start(run_dir, disks, b->disks.len, err);
    engine_lock(e);
    b->own = own;
    return own;
}

static void fill_parts(const struct engine *e, struct backup *b, struct block_backup *parts,
                       char **scratch)
{
    const struct checkpoint *from =
        b->from_checkpoint[0] ? vm_checkpoint(b->vm, b->from_checkpoint) : NULL;
    for (size_t i = 0; i < b->disks.len; i++) {
        struct backup_disk *d = b->disks.at[i];
        scratch[i] = xasprintf("%s/r/s%.8s-%zu.qcow2", e->opts.dir, b->id, i);
        d->incremental = d->disk->incremental && from && checkpoint_has(from, d->disk);
        parts[i] = (struct block_backup){.scratch = scratch[i],
                                         .since = d->incremental ? b->from_checkpoint : NULL,
                                         .begin = d->disk->incremental ? b->to_checkpoint : NULL};
        memcpy(parts[i].disk_id, d->disk->id, sizeof parts[i].disk_id);
    }
}

/* Which daemon has the disks: the VM's own, held until end_use(), or the backup's. */
static struct block_vm *begin_use(struct engine *e, struct backup *b, struct err *err)
{
    struct block_vm *block = b->own ? b->own : b->vm->block;
    if (b->own)
        engine_unlock(e);
    else if (!storage_begin(e, b->vm, err))
        return NULL;
    return block;
}

static void end_use(struct engine *e, struct backup *b)
{
    if (b->own)
        engine_lock(e);
    else
        storage_end(e, b->vm);
}

static void open_part(struct block_vm *block, struct backup_disk *d)
{
    d->uri = block_vm_backup_uri(block, d->disk->id);
    d->changed_bytes = block_vm_backup_changed(block, d->disk->id);
}

static bool begin_block(struct engine *e, struct backup *b, struct err *err)
{
    struct block_backup parts[BACKUP_DISKS_MAX];
    char *scratch[BACKUP_DISKS_MAX];
    fill_parts(e, b, parts, scratch);
    struct block_vm *block = begin_use(e, b, err);
    bool ok = block && block_vm_backup_begin(block, parts, b->disks.len, err);
    for (size_t i = 0; ok && i < b->disks.len; i++)
        open_part(block, b->disks.at[i]);
    if (block)
        end_use(e, b);
    for (size_t i = 0; i < b->disks.len; i++)
        free(scratch[i]);
    return ok;
}

/* Inside a freeze of the guest where it has an agent. */
static bool take_instant(struct engine *e, struct backup_walk *w, struct err *err)
{
    struct backup *b = w->b;
    struct vm *vm = b->vm;
    bool live = vm_is_running(vm), frozen = false;
    struct err why = ERR_INIT;
    if (live && vm->agent && vm->guest && !vm->frozen) {
        frozen =
            !faults_point(e->faults, "freeze-fail", vm->name, NULL) && guests_freeze(e, vm, &why);
        if (!frozen)
            events_note(e, EVENT_FREEZE_FAILED, "warning", vm, w->correlation_id,
                        "Failed to freeze guest filesystems on VM %s. Note that using the created "
                        "snapshot might cause data inconsistency.",
                        vm->name);
    }
    b->quiesced = !live || frozen || vm->frozen;
    if (b->require_consistency && !b->quiesced)
        return err_set(err, ERR_QUIESCE_FAILED, 0, "the guest could not be frozen");
    b->acked_before = guests_acked(vm);
    bool ok = begin_block(e, b, err);
    b->acked_after = guests_acked(vm);
    err_clear(&why);
    if (frozen && !guests_thaw(e, vm, &why))
        log_err(LOG_LEVEL_WARN, "thaw_failed", &why);
    return ok;
}

static bool become_ready(struct engine *e, struct backup_walk *w, struct err *err)
{
    struct backup *b = w->b;
    int64_t slow = 0;
    if (!engine_sleep(e, e->timings.backup_ms))
        return err_set(err, ERR_CANCELLED, 0, "the engine stops");
    backup_set_phase(e, b, BACKUP_STARTING);
    if (faults_point(e->faults, "backup-slow", b->vm->name, &slow))
        (void)engine_sleep(e, slow);
    if (faults_point(e->faults, "backup-fail", b->vm->name, NULL))
        return err_set(err, ERR_INTERNAL, 0, "injected");
    if (!vm_is_running(b->vm) && !start_own(e, b, err))
        return false;
    if (!take_instant(e, w, err))
        return false;
    if (b->to_checkpoint[0])
        checkpoints_add(e, b);
    references_begin_backup(e, b);
    (void)engine_sleep(e, e->timings.backup_ms);
    if (b->phase == BACKUP_STARTING)
        backup_set_phase(e, b, BACKUP_READY);
    return true;
}

/* --- The end ---------------------------------------------------------------------------------- */

static bool end_block(struct engine *e, struct backup *b, struct err *err)
{
    struct backup_disk *d;
    VEC_EACH(&b->disks, d)
    {
        free(d->uri);
        d->uri = NULL;
    }
    struct block_vm *own = TAKE(b->own);
    if (own) {
        engine_unlock(e);
        bool ok = block_vm_backup_end(own, err);
        block_vm_stop(own);
        engine_lock(e);
        return ok;
    }
    struct block_vm *block = begin_use(e, b, err);
    bool ok = block && block_vm_backup_end(block, err);
    if (block)
        end_use(e, b);
    return ok;
}

static void unlock_disks(const struct backup *b)
{
    const struct backup_disk *d;
    struct disk *held;
    VEC_EACH(&b->held, held)
    held->busy = false;
    VEC_EACH(&b->disks, d)
    if (!b->hybrid && d->disk->status == DISK_LOCKED)
        d->disk->status = DISK_OK;
}

void backup_finish(struct engine *e, struct backup_walk *w, bool ok)
{
    struct backup *b = w->b;
    unlock_disks(b);
    events_note(e, ok ? EVENT_BACKUP_SUCCEEDED : EVENT_BACKUP_FAILED, ok ? "normal" : "error",
                b->vm, w->correlation_id,
                ok ? "Backup %s for VM %s completed." : "Backup %s for VM %s failed.", b->id,
                b->vm->name);
    jobs_finish(e, w->job, ok);
    backup_set_phase(e, b, ok ? BACKUP_SUCCEEDED : BACKUP_FAILED);
    if (e->stopping)
        return;
    /* Listed for a while after the end; older engines forget it at once. */
    if (engine_since(e, 4, 4, 7))
        (void)engine_sleep(e, ok ? e->timings.transfer_keep_ok_ms
                                 : e->timings.transfer_keep_failed_ms);
    VEC_REMOVE(&e->model.backups, b);
    VEC_ADD(&e->model.dead_backups, b);
}

/* The bitmap is not what the checkpoint says: the engine gives the whole chain up. */
static void give_chain_up(struct engine *e, struct backup_walk *w)
{
    events_note(e, EVENT_BACKUP_REDEFINE_FAILED, "error", w->b->vm, w->correlation_id,
                "Failed to redefine checkpoint %s for VM %s.", w->b->from_checkpoint,
                w->b->vm->name);
    checkpoints_drop_all(e, w->b->vm);
}

static void walk_job(struct engine *e, void *arg)
{
    SCOPED_FREE struct backup_walk *w = arg;
    struct backup *b = w->b;
    struct err err = ERR_INIT;
    bool ready = become_ready(e, w, &err);
    if (!ready) {
        log_err(LOG_LEVEL_WARN, "backup_failed", &err);
        bool broken = b->from_checkpoint[0] && err.code != ERR_QUIESCE_FAILED &&
                      err.code != ERR_INTERNAL && err.code != ERR_CANCELLED;
        struct block_vm *own = TAKE(b->own);
        engine_unlock(e);
        block_vm_stop(own);
        engine_lock(e);
        if (broken)
            give_chain_up(e, w);
        backup_finish(e, w, false);
        return;
    }
    while (b->phase == BACKUP_READY && engine_sleep_until_changed(e, BACKUP_POLL_MS))
        ;
    references_wait_backup(e, b);
    (void)engine_sleep(e, e->timings.backup_ms);
    err_clear(&err);
    bool ok = end_block(e, b, &err);
    if (!ok)
        log_err(LOG_LEVEL_WARN, "backup_not_ended", &err);
    backup_finish(e, w, ok);
}

/* --- POST ------------------------------------------------------------------------------------- */

static bool check_disk(struct request *r, const struct attachment *a)
{
    const struct disk *d = a->disk;
    if (a->snapshot_id[0] || !disk_is_snapable(d))
        reply_refused(r, 409,
                      "Cannot backup VM. The following disks cannot be backed up: %s (shareable, "
                      "LUN or a snapshot's disk).",
                      d->alias);
    else if (!a->active)
        reply_refused(r, 409, "Cannot backup VM. The following disks are not plugged: %s.",
                      d->alias);
    else if (disk_is_locked(d) || d->busy)
        reply_refused(r, 409,
                      "Cannot backup VM: The following disks are locked: %s. Please try again in a "
                      "few minutes.",
                      d->alias);
    else if (d->status == DISK_ILLEGAL)
        reply_refused(r, 409, "Cannot backup VM. The following disks are in ILLEGAL status: %s.",
                      d->alias);
    return r->status == 0;
}

/* The disks that the body names, or all of the VM. */
static bool choose_disks(struct engine *e, struct request *r, const struct vm *vm, struct backup *b)
{
    const json_t *list = in_list(r->body, "disks", "disk");
    size_t count = list ? json_array_size(list) : vm->attachments.len;
    if (count == 0 || count > BACKUP_DISKS_MAX) {
        reply_refused(r, 400, "Cannot backup VM. No disks were given.");
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        const char *id = list ? in_str(json_array_get(list, i), "id") : NULL;
        const struct attachment *a =
            list ? (id ? vm_attachment(vm, id) : NULL) : vm->attachments.at[i];
        if (!a) {
            reply_refused(r, 400, "Cannot backup VM. Disk %s is not attached to VM %s.",
                          id ? id : "(none)", vm->name);
            return false;
        }
        if (!check_disk(r, a))
            return false;
        if (backups_disk(b, a->disk)) {
            reply_bad_syntax(e, r);
            return false;
        }
        struct backup_disk *d = ALLOC_NEW(struct backup_disk);
        d->disk = a->disk;
        VEC_ADD(&b->disks, d);
    }
    return true;
}

static bool check_from(struct request *r, const struct vm *vm, const struct backup *b)
{
    if (!b->from_checkpoint[0])
        return true;
    const struct checkpoint *from = vm_checkpoint(vm, b->from_checkpoint);
    const struct backup_disk *d;
    bool any = false;
    VEC_EACH(&b->disks, d)
    any = any || d->disk->incremental;
    if (!from)
        reply_refused(r, 400, "Cannot backup VM. The given checkpoint %s does not exist.",
                      b->from_checkpoint);
    else if (from->invalid)
        reply_refused(r, 400, "Cannot backup VM. The given checkpoint %s is invalid.",
                      b->from_checkpoint);
    else if (!any)
        reply_refused(r, 409,
                      "Cannot backup VM. Incremental backup is disabled for the given disks.");
    return r->status == 0;
}

static bool check_vm(struct engine *e, struct request *r, const struct vm *vm)
{
    if (!backups_check(e, r, vm, "backup VM") || !vms_check_lock(r, vm, "backup VM") ||
        !snapshots_check_idle(r, vm, "backup VM"))
        return false;
    if (vm->status != VM_UP && vm->status != VM_DOWN)
        reply_refused(r, 409, "Cannot backup VM because the VM is in %s status.",
                      vm_status_name(vm->status));
    return r->status == 0;
}

static void take_ids(struct backup *b, const struct request *r)
{
    const char *id = in_str(r->body, "id"), *from = in_str(r->body, "from_checkpoint_id");
    if (id)
        (void)snprintf(b->id, sizeof b->id, "%s", id);
    else
        id_new(b->id);
    (void)snprintf(b->from_checkpoint, sizeof b->from_checkpoint, "%s", from ? from : "");
    b->description = xstrdup_or_null(in_str(r->body, "description"));
}

static bool check_body(struct engine *e, struct request *r, const struct vm *vm)
{
    const char *id = in_str(r->body, "id"), *from = in_str(r->body, "from_checkpoint_id");
    const char *description = in_str(r->body, "description");
    if ((id && !id_is_valid(id)) || (from && !id_is_valid(from)) ||
        (description && strlen(description) > BACKUP_DESCRIPTION_MAX))
        reply_bad_syntax(e, r);
    else if (id && model_backup(&e->model, vm, id))
        reply_refused(r, 400, "Cannot backup VM. Backup with the same id %s is already in use.",
                      id);
    return r->status == 0;
}

/* The disks are its own from now on, and a thread walks it through its phases. */
static void begin(struct engine *e, struct request *r, struct vm *vm, struct backup *b)
{
    struct backup_disk *d;
    bool records = false;
    b->hybrid = backup_hybrid_wanted(e, r, vm);
    VEC_EACH(&b->disks, d)
    records = records || d->disk->incremental;
    if (records)
        id_new(b->to_checkpoint);
    b->require_consistency = request_flag(r, "require_consistency", false);
    b->created_ms = b->modified_ms = engine_now_ms(e);
    struct backup_walk *w = ALLOC_NEW(struct backup_walk);
    *w = (struct backup_walk){.b = b, .job = r->job};
    if (b->hybrid && !backup_hybrid_begin(e, r, w)) {
        free(w);
        VEC_ADD(&e->model.dead_backups, b);
        return;
    }
    VEC_EACH(&b->disks, d)
    if (!b->hybrid)
        d->disk->status = DISK_LOCKED;
    VEC_ADD(&e->model.backups, b);
    r->job_continues = true;
    (void)snprintf(w->correlation_id, sizeof w->correlation_id, "%s", r->correlation_id);
    jobs_describe(r->job, "Backup of VM %s", vm->name);
    events_note(e, EVENT_BACKUP_STARTED, "normal", vm, r->correlation_id,
                "Backup %s for VM %s started.", b->id, vm->name);
    engine_spawn(e, b->hybrid ? backup_hybrid_job : walk_job, w);
    json_t *o = backup_view(e, b);
    reply_created(r, 201, in_str(o, "href"), o);
}

void backups_add(struct engine *e, struct request *r)
{
    struct vm *vm = model_vm(&e->model, r->ids[0]);
    if (!vm) {
        reply_empty(r, 404);
        return;
    }
    if (!check_body(e, r, vm) || !check_vm(e, r, vm))
        return;
    struct backup *b = ALLOC_NEW(struct backup);
    b->vm = vm;
    take_ids(b, r);
    if (choose_disks(e, r, vm, b) && check_from(r, vm, b))
        begin(e, r, vm, b);
    else
        VEC_ADD(&e->model.dead_backups, b);
}

void backup_finalize(struct engine *e, struct request *r)
{
    struct backup *b = find(e, r);
    if (!b)
        return;
    bool early = b->phase == BACKUP_INITIALIZING || b->phase == BACKUP_STARTING;
    if (early && !b->hybrid)
        reply_refused(r, 409, "Cannot stop backup of VM. The VM backup is not ready.");
    else if (b->phase == BACKUP_FINALIZING || b->stopped || is_over(b))
        reply_refused(r, 400, "Cannot stop backup of VM. The VM backup does not exist.");
    else if (engine_since(e, 4, 5, 1) && transfers_of_backup(e, b))
        reply_refused(
            r, 409, "Cannot stop backup of VM. There are active image transfers for VM backup %s.",
            b->id);
    if (r->status != 0)
        return;
    if (b->hybrid) { /* only marked: its thread sees it when it looks */
        b->stopped = true;
        engine_changed(e);
        events_note(e, EVENT_BACKUP_STOPPED, "normal", b->vm, r->correlation_id,
                    "Backup %s for VM %s was stopped.", b->id, b->vm->name);
        reply_action_done(r);
        return;
    }
    backup_set_phase(e, b, BACKUP_FINALIZING);
    events_note(e, EVENT_BACKUP_FINALIZED, "normal", b->vm, r->correlation_id,
                "Backup %s for VM %s is being finalized.", b->id, b->vm->name);
    reply_action_done(r);
}
