/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A running VM. Node names carry a number that only rises, since QEMU allows 31 characters:
 *
 *     export x<n> [-> e<n> (fault filter)] -> l<m> (active layer) -> l<k> -> ... -> l<j> (base)
 *
 * A snapshot or a merge exchanges the active layer under the export by itself. To put the fault
 * filter in or take it out, the export is made anew: the guest loses its connection and comes back.
 * (A throttle filter that stays and whose child is exchanged would spare it that; but QEMU 7.2 dies
 * of a failed assertion when a merge into a raw volume ends under a throttle filter and load.)
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/sandbox/block/block.h"
#include "tests/sandbox/block/block_vm_private.h"
#include "tests/sandbox/block/image.h"

static void disk_free(struct vm_disk *disk)
{
    for (size_t i = 0; i < disk->layer_count; i++)
        free(disk->layers[i].path);
    free(disk->layers);
    if (disk->backup.scratch)
        (void)unlink(disk->backup.scratch);
    free(disk->backup.scratch);
    free(disk);
}

static struct vm_disk *find_disk(struct block_vm *vm, const char *id)
{
    for (size_t i = 0; i < vm->disk_count; i++) {
        if (strcmp(vm->disks[i]->id, id) == 0)
            return vm->disks[i];
    }
    return NULL;
}

struct vm_disk *vm_get_disk(struct block_vm *vm, const char *id, struct err *err)
{
    struct vm_disk *disk = find_disk(vm, id);
    if (vm->stopping)
        err_set(err, ERR_CONFLICT, 0, "the VM is being stopped");
    else if (!disk)
        err_set(err, ERR_NOT_FOUND, 0, "the VM has no disk '%s'", id);
    else if (disk->merging)
        err_set(err, ERR_CONFLICT, 0, "disk '%s' is being merged", id);
    else if (disk->backup.number != 0)
        err_set(err, ERR_CONFLICT, 0, "disk '%s' is being backed up", id);
    else
        return disk;
    return NULL;
}

/* --- Plug and unplug -------------------------------------------------------------------------- */

/* Put a layer below all others of the disk. */
static void add_lowest(struct vm_disk *disk, const char *path, enum block_format format)
{
    disk->layers = xreallocarray(disk->layers, disk->layer_count + 1, sizeof *disk->layers);
    memmove(disk->layers + 1, disk->layers, disk->layer_count * sizeof *disk->layers);
    disk->layers[0] = (struct layer){.path = xstrdup(path), .format = format};
    disk->layer_count++;
}

static bool read_chain(struct vm_disk *disk, const char *path, enum block_format format,
                       struct err *err)
{
    SCOPED_FREE char *at = realpath(path, NULL);
    if (!at)
        return err_set_errno(err, errno, "volume '%s'", path);
    for (;;) {
        if (disk->layer_count == LAYERS_MAX)
            return err_set(err, ERR_TOO_LARGE, 0, "'%s' has more than %d volumes", path,
                           LAYERS_MAX);
        add_lowest(disk, at, format);
        SCOPED_IMAGE_INFO struct image_info info = {0};
        if (!image_info_read(at, format, &info, err))
            return false;
        if (!info.backing)
            return true;
        free(at);
        at = TAKE(info.backing);
        format = info.backing_format;
    }
}

/* Open the layers from the base up. On failure those that were opened are closed. */
static bool open_layers(struct block_vm *vm, struct vm_disk *disk, struct err *err)
{
    const char *below = NULL;
    for (size_t i = 0; i < disk->layer_count; i++) {
        struct layer *layer = &disk->layers[i];
        bool active = i + 1 == disk->layer_count;
        memcpy(layer->node, name_of('l', vm->next_number++).text, sizeof layer->node);
        if (!qsd_open_layer(vm->qsd, layer->node, layer->path, layer->format, below,
                            disk->read_only || !active, err)) {
            while (i-- > 0) {
                struct err ignored = ERR_INIT;
                (void)qsd_close_node(vm->qsd, disk->layers[i].node, &ignored);
            }
            return false;
        }
        below = layer->node;
    }
    return true;
}

static bool close_layers(struct block_vm *vm, struct vm_disk *disk, struct err *err)
{
    for (size_t i = disk->layer_count; i-- > 0;) {
        if (!qsd_close_node(vm->qsd, disk->layers[i].node, err))
            return false;
    }
    return true;
}

/* The node that the guest sees. */
static const char *root_of(const struct vm_disk *disk, struct name *buffer)
{
    *buffer = name_of('e', disk->number);
    return disk->errnum != 0 ? buffer->text : ACTIVE(disk)->node;
}

static bool export_disk(struct block_vm *vm, const struct vm_disk *disk, struct err *err)
{
    struct name fault;
    return qsd_export_nbd(vm->qsd, EXPORT(disk), root_of(disk, &fault), disk->id, !disk->read_only,
                          err);
}

static bool plug(struct block_vm *vm, const struct block_disk *opts, struct err *err)
{
    if (vm->stopping)
        return err_set(err, ERR_CONFLICT, 0, "the VM is being stopped");
    if (find_disk(vm, opts->id))
        return err_set(err, ERR_EXISTS, 0, "the VM has disk '%s' already", opts->id);
    if (vm->disk_count == DISKS_MAX)
        return err_set(err, ERR_TOO_LARGE, 0, "the VM has %d disks", DISKS_MAX);
    struct vm_disk *disk = ALLOC_NEW(struct vm_disk);
    snprintf(disk->id, sizeof disk->id, "%s", opts->id);
    disk->number = vm->next_number++;
    disk->read_only = opts->read_only;
    bool ok = read_chain(disk, opts->path, opts->format, err) && open_layers(vm, disk, err);
    if (ok && !export_disk(vm, disk, err)) {
        struct err ignored = ERR_INIT;
        (void)close_layers(vm, disk, &ignored);
        ok = false;
    }
    if (!ok) {
        disk_free(disk);
        return err_wrap(err, "plug disk '%s'", opts->id);
    }
    vm->disks[vm->disk_count++] = disk;
    return true;
}

bool block_vm_plug(struct block_vm *vm, const struct block_disk *disk, struct err *err)
{
    pthread_mutex_lock(&vm->lock);
    bool ok = plug(vm, disk, err);
    pthread_mutex_unlock(&vm->lock);
    return ok;
}

static void forget_disk(struct block_vm *vm, struct vm_disk *disk)
{
    size_t i = 0;
    while (vm->disks[i] != disk)
        i++;
    vm->disks[i] = vm->disks[--vm->disk_count];
    disk_free(disk);
}

static bool unplug(struct block_vm *vm, const char *disk_id, struct err *err)
{
    struct vm_disk *disk = vm_get_disk(vm, disk_id, err);
    if (!disk)
        return false;
    if (!qsd_unexport(vm->qsd, EXPORT(disk), err) ||
        (disk->errnum != 0 && !qsd_close_node(vm->qsd, FAULT(disk), err)) ||
        !close_layers(vm, disk, err))
        return err_wrap(err, "unplug disk '%s'", disk_id);
    forget_disk(vm, disk);
    return true;
}

bool block_vm_unplug(struct block_vm *vm, const char *disk_id, struct err *err)
{
    pthread_mutex_lock(&vm->lock);
    bool ok = unplug(vm, disk_id, err);
    pthread_mutex_unlock(&vm->lock);
    return ok;
}

/* --- Start and stop ----------------------------------------------------------------------------
 */

struct block_vm *block_vm_start(const char *run_dir, const struct block_disk *disks, size_t count,
                                struct err *err)
{
    struct block_vm *vm = ALLOC_NEW(struct block_vm);
    pthread_mutex_init(&vm->lock, NULL);
    pthread_cond_init(&vm->idle, NULL);
    vm->qsd = qsd_start(run_dir, err);
    bool ok = vm->qsd && qsd_listen_nbd(vm->qsd, err);
    for (size_t i = 0; ok && i < count; i++)
        ok = plug(vm, &disks[i], err);
    if (ok)
        return vm;
    block_vm_stop(vm);
    return NULL;
}

void block_vm_stop(struct block_vm *vm)
{
    if (!vm)
        return;
    if (vm->qsd)
        proc_signal(vm->qsd->proc, SIGCONT); /* a call may hold the lock until it answers */
    pthread_mutex_lock(&vm->lock);
    vm->stopping = true;
    if (vm->qsd)
        qsd_quit(vm->qsd); /* cancels running merges, so that the threads in them return */
    while (vm->merges > 0)
        pthread_cond_wait(&vm->idle, &vm->lock);
    pthread_mutex_unlock(&vm->lock);
    qsd_free(vm->qsd);
    for (size_t i = 0; i < vm->disk_count; i++)
        disk_free(vm->disks[i]);
    pthread_cond_destroy(&vm->idle);
    pthread_mutex_destroy(&vm->lock);
    free(vm);
}

pid_t block_vm_pid(const struct block_vm *vm)
{
    return proc_pid(vm->qsd->proc);
}

bool block_vm_is_running(struct block_vm *vm)
{
    return qsd_is_running(vm->qsd);
}

char *block_vm_nbd_uri(struct block_vm *vm, const char *disk_id)
{
    pthread_mutex_lock(&vm->lock);
    struct vm_disk *disk = find_disk(vm, disk_id);
    char *uri = disk ? qsd_nbd_uri(vm->qsd, disk->id) : NULL;
    pthread_mutex_unlock(&vm->lock);
    return uri;
}

/* --- Snapshot ----------------------------------------------------------------------------------
 */

struct new_layer {
    struct vm_disk *disk;
    struct layer layer;
    bool created, opened;
};

static bool prepare_overlay(struct block_vm *vm, const struct block_overlay *overlay,
                            struct new_layer *fresh, struct err *err)
{
    fresh->disk = vm_get_disk(vm, overlay->disk_id, err);
    if (!fresh->disk)
        return false;
    if (fresh->disk->layer_count == LAYERS_MAX)
        return err_set(err, ERR_TOO_LARGE, 0, "disk '%s' has %d volumes", overlay->disk_id,
                       LAYERS_MAX);
    const struct layer *below = ACTIVE(fresh->disk);
    SCOPED_IMAGE_INFO struct image_info info = {0};
    if (!image_info_read(below->path, below->format, &info, err))
        return false;
    fresh->layer.format = BLOCK_QCOW2;
    memcpy(fresh->layer.node, name_of('l', vm->next_number++).text, sizeof fresh->layer.node);
    fresh->created = block_volume_create(overlay->path, BLOCK_QCOW2, info.size_bytes, below->path,
                                         below->format, err);
    if (!fresh->created)
        return false;
    fresh->layer.path = realpath(overlay->path, NULL);
    if (!fresh->layer.path)
        return err_set_errno(err, errno, "volume '%s'", overlay->path);
    fresh->opened = qsd_open_layer(vm->qsd, fresh->layer.node, fresh->layer.path, BLOCK_QCOW2, NULL,
                                   false, err);
    return fresh->opened;
}

static json_t *snapshot_action(const struct new_layer *fresh)
{
    return json_pack("{s:s, s:{s:s, s:s}}", "type", "blockdev-snapshot", "data", "node",
                     ACTIVE(fresh->disk)->node, "overlay", fresh->layer.node);
}

/* QEMU would refuse a second overlay of one node, but only after the first is in place elsewhere.
 */
static bool check_distinct(const struct block_overlay *overlays, size_t count, struct err *err)
{
    for (size_t i = 0; i < count; i++) {
        for (size_t k = 0; k < i; k++) {
            if (strcmp(overlays[i].disk_id, overlays[k].disk_id) == 0)
                return err_set(err, ERR_BAD_ARGUMENT, 0, "disk '%s' is named twice",
                               overlays[i].disk_id);
        }
    }
    return count > 0 || err_set(err, ERR_BAD_ARGUMENT, 0, "a snapshot of no disk");
}

static bool snapshot(struct block_vm *vm, const struct block_overlay *overlays, size_t count,
                     struct new_layer *fresh, struct err *err)
{
    if (!check_distinct(overlays, count, err))
        return false;
    json_t *actions = json_array();
    bool ok = true;
    for (size_t i = 0; ok && i < count; i++) {
        ok = prepare_overlay(vm, &overlays[i], &fresh[i], err);
        if (ok)
            json_array_append_new(actions, snapshot_action(&fresh[i]));
        ok = ok &&
             vm_bitmaps_carry(vm, ACTIVE(fresh[i].disk)->node, fresh[i].layer.node, actions, err);
        if (ok && overlays[i].begin)
            vm_bitmap_begin(fresh[i].layer.node, overlays[i].begin, actions);
    }
    json_t *transaction = json_pack("{s:o}", "actions", actions);
    if (!ok) {
        json_decref(transaction);
        return false;
    }
    return qmp_call(vm->qsd->qmp, "transaction", transaction, NULL, err);
}

static void discard_overlay(struct block_vm *vm, const struct block_overlay *overlay,
                            struct new_layer *fresh, bool keep_file)
{
    struct err ignored = ERR_INIT;
    if (fresh->opened && !keep_file)
        (void)qsd_close_node(vm->qsd, fresh->layer.node, &ignored);
    if (fresh->created && !keep_file)
        (void)unlink(overlay->path);
    free(fresh->layer.path);
}

bool block_vm_snapshot(struct block_vm *vm, const struct block_overlay *overlays, size_t count,
                       struct err *err)
{
    SCOPED_FREE struct new_layer *fresh = xcalloc(count + 1, sizeof *fresh);
    pthread_mutex_lock(&vm->lock);
    bool ok = snapshot(vm, overlays, count, fresh, err);
    /* A daemon that did not answer might still do it later: end it, so that it cannot, and keep the
     * overlays in case it just did. */
    bool unknown = !ok && err->code == ERR_TIMEOUT;
    if (unknown)
        proc_signal(vm->qsd->proc, SIGKILL);
    for (size_t i = 0; i < count; i++) {
        if (!ok) {
            discard_overlay(vm, &overlays[i], &fresh[i], unknown);
            continue;
        }
        struct vm_disk *disk = fresh[i].disk;
        disk->layers = xreallocarray(disk->layers, disk->layer_count + 1, sizeof *disk->layers);
        disk->layers[disk->layer_count++] = fresh[i].layer;
    }
    pthread_mutex_unlock(&vm->lock);
    return ok || err_wrap(err, "snapshot");
}

/* --- Merge -------------------------------------------------------------------------------------
 */

/* Which layer `top` is, given that `base` must be the one below it. */
static bool find_top(const struct vm_disk *disk, const char *top, const char *base,
                     size_t *ret_index, struct err *err)
{
    for (size_t i = 1; i < disk->layer_count; i++) {
        if (!image_is_same_file(disk->layers[i].path, top))
            continue;
        if (!image_is_same_file(disk->layers[i - 1].path, base))
            return err_set(err, ERR_BAD_ARGUMENT, 0, "'%s' lies upon '%s', not upon '%s'", top,
                           disk->layers[i - 1].path, base);
        *ret_index = i;
        return true;
    }
    return err_set(err, ERR_BAD_ARGUMENT, 0, "'%s' is no volume of disk '%s' with one below it",
                   top, disk->id);
}

static bool start_commit(struct block_vm *vm, const struct vm_disk *disk, size_t top,
                         uint64_t speed_bps, const char *job, struct err *err)
{
    const struct layer *layers = disk->layers;
    bool active = top + 1 == disk->layer_count;
    struct name fault;
    json_t *opts = json_pack("{s:s, s:s, s:s, s:s}", "job-id", job, "device", root_of(disk, &fault),
                             "top-node", layers[top].node, "base-node", layers[top - 1].node);
    if (!active)
        json_object_set_new(opts, "backing-file", json_string(layers[top - 1].path));
    if (speed_bps > 0)
        json_object_set_new(opts, "speed", json_integer((json_int_t)speed_bps));
    qmp_drop_events(vm->qsd->qmp, job);
    return qmp_call(vm->qsd->qmp, "block-commit", opts, NULL, err);
}

/* Wait for the job's end; a job on the active layer reports READY before and is then completed,
 * with the bitmaps of `top` in `base` (nodes). */
static bool finish_commit(struct block_vm *vm, const char *job, const char *top, const char *base,
                          struct err *err)
{
    static const char *const names[] = {"BLOCK_JOB_COMPLETED", "BLOCK_JOB_CANCELLED",
                                        "BLOCK_JOB_READY", NULL};
    for (;;) {
        json_t *event = qmp_wait_event(vm->qsd->qmp, names, job, -1, err);
        if (!event)
            return false;
        const char *name = json_string_value(json_object_get(event, "event"));
        const char *error =
            json_string_value(json_object_get(json_object_get(event, "data"), "error"));
        bool ready = strcmp(name, "BLOCK_JOB_READY") == 0;
        bool cancelled = strcmp(name, "BLOCK_JOB_CANCELLED") == 0;
        if (error)
            err_set(err, ERR_IO, 0, "the merge job failed: %s", error);
        else if (cancelled)
            err_set(err, ERR_CANCELLED, 0, "the merge job was cancelled");
        json_decref(event);
        if (err_is_set(err))
            return false;
        if (!ready)
            return true;
        if (!vm_bitmaps_merge(vm, top, base, err) ||
            !qmp_call(vm->qsd->qmp, "job-complete", json_pack("{s:s}", "id", job), NULL, err))
            return false;
    }
}

static bool drop_layer(struct block_vm *vm, struct vm_disk *disk, size_t index, struct err *err)
{
    struct layer gone = disk->layers[index];
    memmove(disk->layers + index, disk->layers + index + 1,
            (disk->layer_count - index - 1) * sizeof *disk->layers);
    disk->layer_count--;
    bool ok = qsd_close_node(vm->qsd, gone.node, err);
    free(gone.path);
    return ok;
}

/* Called with the lock, which is released while the job runs; disk->merging keeps the disk. */
static bool merge(struct block_vm *vm, struct vm_disk *disk, size_t top, uint64_t speed_bps,
                  struct err *err)
{
    struct name job = name_of('m', vm->next_number++);
    if (!start_commit(vm, disk, top, speed_bps, job.text, err))
        return false;
    char top_node[QSD_NODE_BYTES], base_node[QSD_NODE_BYTES];
    memcpy(top_node, disk->layers[top].node, sizeof top_node);
    memcpy(base_node, disk->layers[top - 1].node, sizeof base_node);
    disk->merging = true;
    vm->merges++;
    pthread_mutex_unlock(&vm->lock);
    bool ok = finish_commit(vm, job.text, top_node, base_node, err);
    pthread_mutex_lock(&vm->lock);
    ok = ok && drop_layer(vm, disk, top, err);
    disk->merging = false;
    vm->merges--;
    pthread_cond_broadcast(&vm->idle);
    return ok;
}

bool block_vm_merge(struct block_vm *vm, const char *disk_id, const char *top, const char *base,
                    uint64_t speed_bps, struct err *err)
{
    size_t index = 0;
    pthread_mutex_lock(&vm->lock);
    struct vm_disk *disk = vm_get_disk(vm, disk_id, err);
    bool ok =
        disk && find_top(disk, top, base, &index, err) && merge(vm, disk, index, speed_bps, err);
    pthread_mutex_unlock(&vm->lock);
    return ok || err_wrap(err, "merge");
}

/* --- Growing -----------------------------------------------------------------------------------
 */

/* A disk that an export offers keeps its size, so the export is made anew. */
static bool resize(struct block_vm *vm, const char *disk_id, uint64_t size_bytes, struct err *err)
{
    const struct vm_disk *disk = vm_get_disk(vm, disk_id, err);
    if (!disk)
        return false;
    if (disk->errnum != 0)
        return err_set(err, ERR_CONFLICT, 0, "disk '%s' has write errors", disk_id);
    if (!qsd_unexport(vm->qsd, EXPORT(disk), err))
        return false;
    bool ok = qmp_call(
        vm->qsd->qmp, "block_resize",
        json_pack("{s:s, s:I}", "node-name", ACTIVE(disk)->node, "size", (json_int_t)size_bytes),
        NULL, err);
    struct err back = ERR_INIT;
    if (!export_disk(vm, disk, &back))
        err_keep_first(err, &back);
    return ok && !err_is_set(err);
}

bool block_vm_resize(struct block_vm *vm, const char *disk_id, uint64_t size_bytes, struct err *err)
{
    pthread_mutex_lock(&vm->lock);
    bool ok = resize(vm, disk_id, size_bytes, err);
    pthread_mutex_unlock(&vm->lock);
    return ok || err_wrap(err, "make disk '%s' larger", disk_id);
}

/* --- Faults ------------------------------------------------------------------------------------
 */

/* Every operation that changes the disk fails; reads and flushes do not. */
static json_t *fault_rules(int errnum)
{
    static const char *const kinds[] = {"write", "write-zeroes", "discard"};
    json_t *rules = json_array();
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
        json_array_append_new(rules, json_pack("{s:s, s:s, s:i, s:b}", "event", "none", "iotype",
                                               kinds[i], "errno", errnum, "once", 0));
    return rules;
}

/* Put in the filter for disk->errnum, or nothing for 0, and export the disk upon it. */
static bool add_fault(struct block_vm *vm, struct vm_disk *disk, int errnum, struct err *err)
{
    if (errnum != 0 &&
        !qmp_call(vm->qsd->qmp, "blockdev-add",
                  json_pack("{s:s, s:s, s:s, s:o}", "driver", "blkdebug", "node-name", FAULT(disk),
                            "image", ACTIVE(disk)->node, "inject-error", fault_rules(errnum)),
                  NULL, err))
        return false;
    disk->errnum = errnum;
    return export_disk(vm, disk, err);
}

static bool set_write_error(struct block_vm *vm, const char *disk_id, int errnum, struct err *err)
{
    struct vm_disk *disk = vm_get_disk(vm, disk_id, err);
    if (!disk || errnum == disk->errnum)
        return disk;
    if (!qsd_unexport(vm->qsd, EXPORT(disk), err) ||
        (disk->errnum != 0 && !qsd_close_node(vm->qsd, FAULT(disk), err)))
        return false;
    disk->errnum = 0;
    if (add_fault(vm, disk, errnum, err))
        return true;
    struct err ignored = ERR_INIT; /* the guest gets its healthy disk back */
    return add_fault(vm, disk, 0, &ignored) && false;
}

bool block_vm_set_write_error(struct block_vm *vm, const char *disk_id, int errnum, struct err *err)
{
    pthread_mutex_lock(&vm->lock);
    bool ok = set_write_error(vm, disk_id, errnum, err);
    pthread_mutex_unlock(&vm->lock);
    return ok || err_wrap(err, "inject write errors");
}
