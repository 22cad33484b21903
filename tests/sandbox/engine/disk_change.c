/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks that become larger, and that move to another storage domain. As in the engine neither
 * touches a checkpoint: it goes on saying that it can tell what changed since.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "proto/base/file.h"
#include "proto/base/log.h"
#include "tests/sandbox/engine/disks.h"
#include "tests/sandbox/engine/jobs.h"
#include "tests/sandbox/engine/json_out.h"
#include "tests/sandbox/engine/route.h"
#include "tests/sandbox/engine/storage.h"

struct change {
    struct disk *disk;
    uint64_t size_bytes;       /* to become so large; or */
    struct storage_domain *sd; /* to move there */
    char correlation_id[ID_BYTES];
};

static void finish(struct engine *e, struct disk *d, bool ok, struct err *err)
{
    if (!ok)
        log_err(LOG_LEVEL_WARN, "disk_not_changed", err);
    if (d->status == DISK_LOCKED)
        d->status = DISK_OK;
    engine_changed(e);
}

/* The running VM that has it open, or NULL. */
static struct vm *user_of(const struct engine *e, const struct disk *d)
{
    struct vm *owner = model_disk_owner(&e->model, d);
    const struct attachment *a = owner ? vm_attachment(owner, d->id) : NULL;
    return a && a->plugged && vm_is_running(owner) ? owner : NULL;
}

static void begin(struct engine *e, struct request *r, struct disk *d, engine_job_fn job,
                  const struct change *what)
{
    struct change *c = ALLOC_NEW(struct change);
    *c = *what;
    c->disk = d;
    (void)snprintf(c->correlation_id, sizeof c->correlation_id, "%s", r->correlation_id);
    d->status = DISK_LOCKED;
    engine_spawn(e, job, c);
}

/* --- Growing ---------------------------------------------------------------------------------- */

static bool grow(struct engine *e, const struct disk *d, uint64_t size_bytes, struct err *err)
{
    const struct volume *v = disk_active_volume(d);
    struct vm *vm = user_of(e, d);
    if (!vm) {
        SCOPED_FREE char *path = xstrdup(v->path);
        enum block_format format = v->format;
        engine_unlock(e);
        bool ok = block_volume_resize(path, format, size_bytes, err);
        engine_lock(e);
        return ok;
    }
    char id[ID_BYTES];
    memcpy(id, d->id, sizeof id);
    struct block_vm *block = vm->block;
    if (!storage_begin(e, vm, err))
        return false;
    bool ok = block_vm_resize(block, id, size_bytes, err);
    storage_end(e, vm);
    return ok;
}

static void grow_job(struct engine *e, void *arg)
{
    SCOPED_FREE struct change *c = arg;
    struct err err = ERR_INIT;
    bool ok = engine_sleep(e, e->timings.disk_ms) && grow(e, c->disk, c->size_bytes, &err);
    if (ok)
        c->disk->size_bytes = c->size_bytes;
    finish(e, c->disk, ok, &err);
}

bool disk_extend(struct engine *e, struct request *r, struct disk *d, const json_t *body)
{
    uint64_t size = (in_u64(body, "provisioned_size", d->size_bytes) + 511) / 512 * 512;
    if (size == d->size_bytes)
        return true;
    if (d->status == DISK_LOCKED || d->busy)
        reply_refused(r, 409,
                      "Cannot edit Virtual Disk. The following disks are locked: %s. Please try "
                      "again in a few minutes.",
                      d->alias);
    else if (d->lun)
        reply_refused(r, 400, "Cannot edit Virtual Disk. The disk is not an image.");
    else if (size < d->size_bytes)
        reply_refused(r, 400,
                      "Cannot edit Virtual Disk. New disk size must be larger than the current "
                      "disk size.");
    if (r->status != 0)
        return false;
    begin(e, r, d, grow_job, &(struct change){.size_bytes = size});
    return true;
}

/* --- Moving ----------------------------------------------------------------------------------- */

static bool move(struct engine *e, struct disk *d, struct storage_domain *to, struct err *err)
{
    struct volume *v = d->chain.at[0]; /* the only one; the disk is locked, so it stays */
    SCOPED_FREE char *dir = xasprintf("%s/data/%s/images/%s", e->opts.dir, to->id, d->id);
    SCOPED_FREE char *path = xasprintf("%s/%s", dir, v->id);
    engine_unlock(e);
    bool ok = file_make_dirs(dir, 0755, err) && block_volume_copy(v->path, v->format, path, err);
    engine_lock(e);
    if (!ok)
        return false;
    (void)unlink(v->path);
    free(v->path);
    v->path = TAKE(path);
    d->sd = to;
    return true;
}

static void move_job(struct engine *e, void *arg)
{
    SCOPED_FREE struct change *c = arg;
    struct err err = ERR_INIT;
    bool ok = engine_sleep(e, e->timings.disk_ms) && move(e, c->disk, c->sd, &err);
    finish(e, c->disk, ok, &err);
}

static struct storage_domain *move_target(struct engine *e, struct request *r)
{
    const json_t *named = json_object_get(r->body, "storage_domain");
    const char *key = in_str(named, "id");
    if (!key)
        key = in_str(named, "name");
    struct storage_domain *sd = key ? model_sd(&e->model, key) : NULL;
    if (!key)
        reply_incomplete(r, "Action", "storageDomain.id|name", "move");
    else if (!sd || sd->is_export)
        reply_fault(r, 404, "Operation Failed", "Entity not found: %s", key);
    return r->status == 0 ? sd : NULL;
}

void disk_move(struct engine *e, struct request *r)
{
    struct disk *d = model_disk(&e->model, r->ids[0]);
    if (!d) {
        reply_empty(r, 404);
        return;
    }
    struct storage_domain *sd = move_target(e, r);
    if (!sd)
        return;
    if (disk_is_locked(d) || d->busy)
        reply_refused(r, 409,
                      "Cannot move Virtual Disk: The following disks are locked: %s. Please try "
                      "again in a few minutes.",
                      d->alias);
    else if (d->lun || d->shareable)
        reply_refused(r, 400, "Cannot move Virtual Disk. The disk is not a movable image.");
    else if (sd == d->sd)
        reply_refused(r, 409,
                      "Cannot move Virtual Disk. The source and target Storage Domains are the "
                      "same.");
    else if (user_of(e, d))
        reply_refused(r, 409,
                      "Cannot move Virtual Disk. Moving a disk while its VM runs is not supported "
                      "here.");
    else if (d->chain.len != 1)
        reply_refused(r, 409,
                      "Cannot move Virtual Disk. Moving a disk with snapshots is not supported "
                      "here.");
    if (r->status != 0)
        return;
    jobs_describe(r->job, "Moving Disk %s to Storage Domain %s", d->alias, sd->name);
    begin(e, r, d, move_job, &(struct change){.sd = sd});
    reply_action_done(r);
}
