/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Image transfers: a ticket on the imageio endpoint, an NBD export behind it, and a thread for each
 * that walks through the phases. Actions only set the phase; the truth is in polling.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "proto/base/log.h"
#include "tests/sandbox/engine/backups.h"
#include "tests/sandbox/engine/disks.h"
#include "tests/sandbox/engine/faults.h"
#include "tests/sandbox/engine/jobs.h"
#include "tests/sandbox/engine/json_out.h"
#include "tests/sandbox/engine/listing.h"
#include "tests/sandbox/engine/route.h"
#include "tests/sandbox/engine/vms.h"
#include "tests/sandbox/imageio/imageio.h"

enum {
    TRANSFER_INACTIVITY_S = 60,
    TRANSFER_TICKET_S = 300,
    TRANSFER_POLL_MS = 200,
    TRANSFER_REMOVE_MS = 1000,
};

static struct transfer *live(const struct engine *e, const char *id)
{
    return model_transfer(&e->model, id);
}

static bool is_over(enum transfer_phase p)
{
    return p == TRANSFER_FINISHED_SUCCESS || p == TRANSFER_FINISHED_FAILURE;
}

static bool is_paused(enum transfer_phase p)
{
    return p == TRANSFER_PAUSED_SYSTEM || p == TRANSFER_PAUSED_USER;
}

/* --- Views -------------------------------------------------------------------------------------
 */

static json_t *transfer_show(struct engine *e, struct request *r, const void *object)
{
    (void)r;
    const struct transfer *t = object;
    json_t *o = out_entity(t->id, "imagetransfers/%s", t->id);
    out_str(o, "phase", transfer_phase_name(t->phase));
    out_str(o, "direction", t->upload ? "upload" : "download");
    out_str(o, "format", t->raw ? "raw" : "cow");
    if (engine_since(e, 4, 4, 3))
        out_bool(o, "shallow", false);
    out_bool(o, "active", t->active);
    out_u64(o, "inactivity_timeout", (uint64_t)t->inactivity_s);
    if (engine_since(e, 4, 4, 5))
        out_str(o, "timeout_policy", t->timeout_policy);
    out_u64(o, "transferred", t->transferred);
    json_object_set_new(o, "image", json_pack("{s:s}", "id", t->disk->id));
    if (e->model.hosts.len > 0)
        out_ref(o, "host", e->model.hosts.at[0]->id, "hosts/%s", e->model.hosts.at[0]->id);
    if (t->placed) {
        SCOPED_FREE char *url =
            xasprintf("https://localhost:%u/images/%s", e->imageio_port, t->ticket);
        out_str(o, "transfer_url", url);
        out_str(o, "proxy_url", url);
    }
    static const char *const actions[] = {"finalize", "cancel", "pause", "resume", "extend"};
    for (size_t i = 0; i < ARRAY_LEN(actions); i++)
        out_action(o, actions[i]);
    return o;
}

void transfers_list(struct engine *e, struct request *r)
{
    static const struct listing l = {"image_transfer", NULL, NULL, transfer_show};
    listing_reply(e, r, &l, LISTING_OF(e->model.transfers));
}

void transfers_get(struct engine *e, struct request *r)
{
    const struct transfer *t = live(e, r->ids[0]);
    if (t)
        reply_json(r, 200, transfer_show(e, r, t));
    else
        reply_empty(r, 404);
}

/* --- The walk through the phases
 * ------------------------------------------------------------------ */

struct walk {
    struct transfer *t;
    struct job *job;
    char correlation_id[ID_BYTES];
};

/* What the ticket shows: the size of the raw view, or that of the qcow2 file itself. */
static bool ticket_size(const struct transfer *t, const struct volume *v, uint64_t *ret,
                        struct err *err)
{
    struct stat st;
    if (!t->raw && v->format != BLOCK_RAW) {
        if (stat(v->path, &st) != 0)
            return err_set_errno(err, errno, "volume '%s'", v->path);
        *ret = (uint64_t)st.st_size;
    } else {
        *ret = t->disk->size_bytes;
    }
    return true;
}

/* Of a hybrid backup: the checkpoint whose bitmap goes with the volume; NULL = none. */
static const char *changes_since(const struct transfer *t)
{
    const struct backup_disk *d =
        t->backup && t->backup->hybrid ? backups_disk(t->backup, t->disk) : NULL;
    return d && d->incremental ? t->backup->from_checkpoint : NULL;
}

/* Gives up the lock. */
static bool start_export(struct engine *e, struct transfer *t, const struct volume *v,
                         struct err *err)
{
    SCOPED_FREE char *run_dir = xasprintf("%s/r/t%.8s", e->opts.dir, t->id);
    SCOPED_FREE char *path = xstrdup(v->path);
    enum block_format format = t->raw ? v->format : BLOCK_RAW;
    bool upload = t->upload;
    SCOPED_FREE char *since = xstrdup_or_null(changes_since(t));
    engine_unlock(e);
    struct block_export *export = since ? block_export_start_changes(run_dir, path, since, err)
                                        : block_export_start(run_dir, path, format, upload, err);
    uint64_t changed = since && export ? block_export_changed(export) : 0;
    engine_lock(e);
    t->export = export;
    if (since && export)
        backups_disk(t->backup, t->disk)->changed_bytes = changed;
    return export;
}

static bool place(struct engine *e, struct transfer *t, struct err *err)
{
    const struct volume *v = disk_volume(t->disk, t->volume_id);
    uint64_t size = 0;
    if (!v)
        return err_set(err, ERR_NOT_FOUND, 0, "the volume is gone");
    if (!ticket_size(t, v, &size, err))
        return false;
    const struct backup_disk *source = t->backup ? backups_disk(t->backup, t->disk) : NULL;
    bool of_volume = !t->backup || t->backup->hybrid;
    if (t->backup && (!source || (!of_volume && !source->uri)))
        return err_set(err, ERR_CONFLICT, 0, "the backup is over");
    if (of_volume && !start_export(e, t, v, err))
        return false;
    id_new(t->ticket);
    const struct imageio_ticket ticket = {
        .id = t->ticket,
        .size_bytes = size,
        .can_read = !t->upload,
        .can_write = t->upload,
        .uri = of_volume ? block_export_uri(t->export) : source->uri,
        .dirty_bitmap = source && source->incremental ? BLOCK_BACKUP_BITMAP : NULL,
        .transfer_id = t->id,
        .timeout_s = TRANSFER_TICKET_S,
        .inactivity_timeout_s = (unsigned)t->inactivity_s,
        .sparse = t->disk->sparse};
    t->placed = imageio_ticket_add(e->imageio, &ticket, err);
    return t->placed;
}

/* Takes the ticket away, waiting for operations that run, then ends the export. */
static void unplace(struct engine *e, struct transfer *t)
{
    struct err err = ERR_INIT;
    bool removed = !t->placed;
    struct block_export *export = TAKE(t->export);
    engine_unlock(e);
    while (!removed) {
        err_clear(&err);
        removed = imageio_ticket_remove(e->imageio, t->ticket, TRANSFER_REMOVE_MS, &err);
    }
    block_export_stop(export);
    engine_lock(e);
    t->placed = false;
    t->active = false;
}

static void note_traffic(struct engine *e, struct transfer *t)
{
    struct imageio_ticket_info info;
    struct err err = ERR_INIT;
    if (!t->placed || !imageio_ticket_get(e->imageio, t->ticket, &info, &err))
        return;
    if (info.active || info.transferred != t->transferred)
        t->last_active_ms = engine_mono_ms();
    t->transferred = info.transferred;
    t->moved = info.moved;
    t->active = info.active || info.connections > 0;
    if (info.expires_ms < TRANSFER_TICKET_S * 500)
        (void)imageio_ticket_extend(e->imageio, t->ticket, TRANSFER_TICKET_S, &err);
}

/* No traffic for too long: what happens then hangs on direction and policy. */
static void check_idle(struct transfer *t)
{
    if (engine_mono_ms() - t->last_active_ms < (int64_t)t->inactivity_s * 1000)
        return;
    bool complete = !t->upload && t->transferred == t->disk->size_bytes;
    if (complete)
        t->phase = TRANSFER_FINALIZING_SUCCESS;
    else if (!strcmp(t->timeout_policy, "pause") ||
             (!strcmp(t->timeout_policy, "legacy") && t->upload))
        t->phase = TRANSFER_PAUSED_SYSTEM;
    else
        t->phase = TRANSFER_CANCELLED_SYSTEM;
}

static void unlock_disk(struct transfer *t)
{
    if (t->backup)
        return; /* it holds the disk, before and after */
    struct volume *v = disk_volume(t->disk, t->volume_id);
    if (v)
        v->locked = false;
    if (!t->of_snapshot && t->disk->status == DISK_LOCKED)
        t->disk->status = DISK_OK;
}

static void finish(struct engine *e, struct walk *w, bool ok)
{
    struct transfer *t = w->t;
    (void)engine_sleep(e, e->timings.transfer_ms);
    note_traffic(e, t);
    unplace(e, t);
    unlock_disk(t);
    if (!ok && t->upload && !e->stopping)
        disks_destroy(e, t->disk, w->correlation_id);
    t->phase = ok ? TRANSFER_FINISHED_SUCCESS : TRANSFER_FINISHED_FAILURE;
    t->ended_ms = engine_mono_ms();
    events_note(e, ok ? EVENT_TRANSFER_FINISHED : EVENT_TRANSFER_FAILED, ok ? "normal" : "error",
                NULL, w->correlation_id,
                ok ? "Image %s with disk %s succeeded." : "Image %s with disk %s failed.",
                t->upload ? "Upload" : "Download", t->disk->alias);
    jobs_finish(e, w->job, ok);
    engine_changed(e);
}

/* Listed for a while after the end; older engines forget it at once. */
static void linger(struct engine *e, struct transfer *t)
{
    int64_t keep = t->phase == TRANSFER_FINISHED_SUCCESS ? e->timings.transfer_keep_ok_ms
                                                         : e->timings.transfer_keep_failed_ms;
    if (engine_since(e, 4, 4, 7))
        (void)engine_sleep(e, keep);
    VEC_REMOVE(&e->model.transfers, t);
    VEC_ADD(&e->model.dead_transfers, t);
}

/* One step; false at the end. */
static bool step(struct engine *e, struct walk *w)
{
    struct transfer *t = w->t;
    switch (t->phase) {
    case TRANSFER_TRANSFERRING:
        note_traffic(e, t);
        check_idle(t);
        break;
    case TRANSFER_RESUMING:
        (void)engine_sleep(e, e->timings.transfer_ms);
        t->last_active_ms = engine_mono_ms();
        t->phase = TRANSFER_TRANSFERRING;
        break;
    case TRANSFER_FINALIZING_SUCCESS:
        finish(e, w, true);
        return false;
    case TRANSFER_FINALIZING_FAILURE:
        finish(e, w, false);
        return false;
    case TRANSFER_CANCELLED_USER:
    case TRANSFER_CANCELLED_SYSTEM:
        events_note(e, EVENT_TRANSFER_CANCELLED, "normal", NULL, w->correlation_id,
                    "Image transfer was cancelled: disk %s.", t->disk->alias);
        (void)engine_sleep(e, e->timings.transfer_ms);
        t->phase =
            engine_since(e, 4, 4, 7) ? TRANSFER_FINALIZING_CLEANUP : TRANSFER_FINALIZING_FAILURE;
        break;
    case TRANSFER_FINALIZING_CLEANUP:
        (void)engine_sleep(e, e->timings.transfer_ms);
        t->phase = TRANSFER_FINISHED_CLEANUP;
        break;
    case TRANSFER_FINISHED_CLEANUP:
        finish(e, w, false);
        return false;
    case TRANSFER_INITIALIZING:
    case TRANSFER_PAUSED_SYSTEM:
    case TRANSFER_PAUSED_USER:
    case TRANSFER_FINISHED_SUCCESS:
    case TRANSFER_FINISHED_FAILURE:
        break;
    }
    return true;
}

static void walk_job(struct engine *e, void *arg)
{
    SCOPED_FREE struct walk *w = arg;
    struct transfer *t = w->t;
    struct err err = ERR_INIT;
    bool ok = engine_sleep(e, e->timings.transfer_ms);
    if (faults_point(e->faults, "transfer-fail", t->disk->alias, NULL))
        ok = err_set(&err, ERR_INTERNAL, 0, "injected");
    ok = ok && place(e, t, &err);
    t->last_active_ms = engine_mono_ms();
    if (t->phase == TRANSFER_INITIALIZING)
        t->phase = ok ? TRANSFER_TRANSFERRING : TRANSFER_FINALIZING_FAILURE;
    if (err_is_set(&err))
        log_err(LOG_LEVEL_WARN, "transfer_failed", &err);
    while (step(e, w))
        if (!engine_sleep_until_changed(e, TRANSFER_POLL_MS))
            break;
    if (e->stopping)
        unplace(e, t);
    else
        linger(e, t);
}

/* --- POST
 * ------------------------------------------------------------------------------------------ */

static struct disk *disk_of_volume(const struct engine *e, const char *volume_id)
{
    struct disk *d;
    VEC_EACH(&e->model.disks, d)
    if (disk_volume(d, volume_id))
        return d;
    return NULL;
}

static bool check_target(struct request *r, const struct engine *e, const struct disk *d,
                         const struct volume *v, bool upload)
{
    const struct vm *owner = model_disk_owner(&e->model, d);
    const struct attachment *a = owner ? vm_attachment(owner, d->id) : NULL;
    const struct snapshot *s = owner ? vm_snapshot(owner, v->snapshot_id) : NULL;
    bool is_active = v == disk_active_volume(d);
    if (d->lun)
        reply_refused(r, 400, "Cannot transfer Virtual Disk. The disk is not an image.");
    else if (is_active && a && a->active && vm_is_running(owner))
        reply_refused(r, 409,
                      "Cannot transfer Virtual Disk. The disk %s is plugged to VM %s, which "
                      "is not down.",
                      d->alias, owner->name);
    else if (d->status == DISK_LOCKED || v->locked || d->busy ||
             (s && s->status == SNAPSHOT_LOCKED))
        reply_refused(r, 409,
                      "Cannot transfer Virtual Disk: The following disks are locked: %s. "
                      "Please try again in a few minutes.",
                      d->alias);
    else if (d->status == DISK_ILLEGAL || v->illegal)
        reply_refused(r, 409, "Cannot transfer Virtual Disk. The disk is in ILLEGAL status.");
    else if (upload && d->chain.len > 1)
        reply_refused(r, 400,
                      "Cannot transfer Virtual Disk. Uploading into a chain of snapshots is "
                      "not supported here.");
    return r->status == 0;
}

/* A disk of a backup that is ready. */
static bool check_backup(struct engine *e, struct request *r, const struct disk *d, bool upload,
                         bool raw, struct backup **ret)
{
    const char *id = in_ref_id(r->body, "backup");
    const struct vm *owner = model_disk_owner(&e->model, d);
    struct backup *b = owner ? model_backup(&e->model, owner, id) : NULL;
    const struct transfer *t;
    if (!b || !backups_disk(b, d))
        reply_refused(r, 400, "Cannot transfer Virtual Disk. VM backup does not exist.");
    else if (b->phase != BACKUP_READY)
        reply_refused(r, 409, "Cannot transfer Virtual Disk. VM backup is not ready.");
    else if (upload)
        reply_refused(r, 400, "Cannot transfer Virtual Disk. Backups can only be downloaded.");
    else if (!raw)
        reply_refused(r, 400,
                      "Cannot transfer Virtual Disk. Format is not applicable for backup "
                      "transfers, only RAW is.");
    VEC_EACH(&e->model.transfers, t)
    if (r->status == 0 && t->backup && t->disk == d && !is_over(t->phase))
        reply_refused(r, 409, "Cannot transfer Virtual Disk. Disk %s is being transferred.",
                      d->alias);
    *ret = b;
    return r->status == 0;
}

bool transfers_of_backup(const struct engine *e, const struct backup *b)
{
    const struct transfer *t;
    VEC_EACH(&e->model.transfers, t)
    if (t->backup == b && !is_over(t->phase))
        return true;
    return false;
}

/* The disk and volume that the body names. */
static struct disk *read_target(struct engine *e, struct request *r, struct volume **ret_volume)
{
    const char *volume_id = in_ref_id(r->body, "snapshot"), *disk_id = in_ref_id(r->body, "disk");
    struct disk *d = NULL;
    if (!disk_id)
        disk_id = in_ref_id(r->body, "image");
    if (volume_id)
        d = disk_of_volume(e, volume_id);
    else if (disk_id)
        d = model_disk(&e->model, disk_id);
    else
        reply_incomplete(r, "ImageTransfer", "disk|snapshot|image.id", "add");
    if (r->status != 0)
        return NULL;
    *ret_volume = d ? (volume_id ? disk_volume(d, volume_id) : disk_active_volume(d)) : NULL;
    if (!*ret_volume) {
        reply_fault(r, 404, "Operation Failed", "Entity not found: %s",
                    volume_id ? volume_id : disk_id);
        return NULL;
    }
    return d;
}

static const char *policy_of(const char *text)
{
    static const char *const policies[] = {"legacy", "pause", "cancel"};
    for (size_t i = 0; text && i < ARRAY_LEN(policies); i++)
        if (!strcmp(policies[i], text))
            return policies[i];
    return policies[0];
}

static void begin(struct engine *e, struct request *r, struct disk *d, struct volume *v,
                  struct backup *backup, bool upload, bool raw)
{
    struct transfer *t = ALLOC_NEW(struct transfer);
    id_new(t->id);
    t->disk = d;
    memcpy(t->volume_id, v->id, sizeof t->volume_id);
    t->upload = upload;
    t->raw = raw;
    t->backup = backup;
    t->of_snapshot = in_ref_id(r->body, "snapshot") != NULL;
    t->inactivity_s = (int)in_u64(r->body, "inactivity_timeout", TRANSFER_INACTIVITY_S);
    t->timeout_policy = policy_of(in_str(r->body, "timeout_policy"));
    t->last_active_ms = engine_mono_ms();
    v->locked = v->locked || !backup;
    if (!t->of_snapshot && !backup) /* one of a backup is held already */
        d->status = DISK_LOCKED;
    VEC_ADD(&e->model.transfers, t);
    jobs_describe(r->job, "Transferring Image of Disk %s", d->alias);
    struct walk *w = ALLOC_NEW(struct walk);
    *w = (struct walk){.t = t, .job = r->job};
    r->job_continues = true;
    (void)snprintf(w->correlation_id, sizeof w->correlation_id, "%s", r->correlation_id);
    events_note(e, EVENT_TRANSFER_STARTED, "normal", NULL, r->correlation_id,
                "Image %s with disk %s was initiated.", upload ? "Upload" : "Download", d->alias);
    engine_spawn(e, walk_job, w);
    json_t *o = transfer_show(e, r, t);
    reply_created(r, 201, in_str(o, "href"), o);
}

void transfers_add(struct engine *e, struct request *r)
{
    const char *direction = in_str(r->body, "direction"), *format = in_str(r->body, "format");
    bool upload = !direction || !strcmp(direction, "upload");
    struct volume *v = NULL;
    struct disk *d = read_target(e, r, &v);
    struct backup *backup = NULL;
    if (!d)
        return;
    bool raw = format ? !strcmp(format, "raw") : v->format == BLOCK_RAW;
    if (in_ref_id(r->body, "backup") ? !check_backup(e, r, d, upload, raw, &backup)
                                     : !check_target(r, e, d, v, upload))
        return;
    if (backup && backup->hybrid)
        v = disk_volume(d, backups_disk(backup, d)->volume_id);
    if (!v) {
        reply_refused(r, 409, "Cannot transfer Virtual Disk. The snapshot does not exist.");
        return;
    }
    if (in_bool(r->body, "shallow", false))
        reply_refused(r, 400,
                      "Cannot transfer Virtual Disk. Shallow transfers are not supported "
                      "here.");
    else if (upload && !raw)
        reply_refused(r, 400,
                      "Cannot transfer Virtual Disk. Uploading the bytes of a qcow2 file is "
                      "not supported here: use format raw.");
    else if (in_u64(r->body, "inactivity_timeout", TRANSFER_INACTIVITY_S) > 86400)
        reply_bad_syntax(e, r);
    else
        begin(e, r, d, v, backup, upload, raw);
}

/* --- Actions: an unknown id is fine, a transition that does not fit is ignored
 * ----------------------- */

static void set_phase(struct engine *e, struct transfer *t, enum transfer_phase phase)
{
    t->phase = phase;
    engine_changed(e);
}

void transfer_finalize(struct engine *e, struct request *r)
{
    struct transfer *t = live(e, r->ids[0]);
    if (t && (t->phase == TRANSFER_TRANSFERRING || is_paused(t->phase))) {
        note_traffic(e, t);
        set_phase(e, t, TRANSFER_FINALIZING_SUCCESS);
    }
    reply_action_done(r);
}

void transfer_cancel(struct engine *e, struct request *r)
{
    struct transfer *t = live(e, r->ids[0]);
    if (t && (t->phase == TRANSFER_TRANSFERRING || t->phase == TRANSFER_INITIALIZING ||
              t->phase == TRANSFER_RESUMING || is_paused(t->phase)))
        set_phase(e, t, TRANSFER_CANCELLED_USER);
    reply_action_done(r);
}

void transfer_pause(struct engine *e, struct request *r)
{
    struct transfer *t = live(e, r->ids[0]);
    if (t && !t->upload) {
        reply_refused(r, 400, "Cannot pause Image Transfer. Downloads cannot be paused.");
        return;
    }
    if (t && t->phase == TRANSFER_TRANSFERRING)
        set_phase(e, t, TRANSFER_PAUSED_USER);
    reply_action_done(r);
}

void transfer_resume(struct engine *e, struct request *r)
{
    struct transfer *t = live(e, r->ids[0]);
    if (t && is_paused(t->phase))
        set_phase(e, t, TRANSFER_RESUMING);
    reply_action_done(r);
}

void transfer_extend(struct engine *e, struct request *r)
{
    struct transfer *t = live(e, r->ids[0]);
    struct err err = ERR_INIT;
    if (t && !is_over(t->phase)) {
        t->last_active_ms = engine_mono_ms();
        if (t->placed)
            (void)imageio_ticket_extend(e->imageio, t->ticket, TRANSFER_TICKET_S, &err);
    }
    reply_action_done(r);
}
