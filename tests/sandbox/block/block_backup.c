/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Backups of a running VM, as libvirt makes them (its docs/kbase/internals/incremental-backup): a
 * "blockdev-backup sync=none" job copies what the guest is about to overwrite into a scratch
 * overlay whose backing node is the active layer, so that the overlay shows the disk as it was; an
 * NBD export of the overlay, with a merged copy of the bitmaps of all layers, is what is read.
 *
 * Node s<n> is the scratch overlay, job and export b<n>. The bitmap that goes with the export is no
 * persistent one, and disabled.
 */
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "tests/sandbox/block/bitmap.h"
#include "tests/sandbox/block/block_vm_private.h"
#include "tests/sandbox/block/image.h"

enum { JOB_END_MS = 30000 };

#define SCRATCH(disk) (name_of('s', (disk)->backup.number).text)
#define JOB(disk)     (name_of('b', (disk)->backup.number).text)

/* --- Bitmaps ---------------------------------------------------------------------------------- */

json_t *vm_bitmaps_of(struct block_vm *vm, const char *node, struct err *err)
{
    return bitmap_names_of(vm->qsd->qmp, node, err);
}

static void append_action(json_t *actions, const char *type, json_t *data)
{
    json_array_append_new(actions, json_pack("{s:s, s:o}", "type", type, "data", data));
}

void vm_bitmap_begin(const char *node, const char *name, json_t *actions)
{
    append_action(actions, "block-dirty-bitmap-add", bitmap_add_arguments(node, name, true));
}

bool vm_bitmaps_carry(struct block_vm *vm, const char *below, const char *node, json_t *actions,
                      struct err *err)
{
    json_auto_t *names = vm_bitmaps_of(vm, below, err);
    size_t i;
    json_t *name;
    json_array_foreach (names, i, name) {
        append_action(actions, "block-dirty-bitmap-add",
                      bitmap_add_arguments(node, json_string_value(name), true));
    }
    return names;
}

bool vm_bitmaps_merge(struct block_vm *vm, const char *top, const char *base, struct err *err)
{
    json_auto_t *names = vm_bitmaps_of(vm, top, err);
    json_auto_t *below = names ? vm_bitmaps_of(vm, base, err) : NULL;
    if (!below)
        return false;
    json_t *actions = json_array();
    size_t i;
    json_t *one;
    json_array_foreach (names, i, one) {
        const char *name = json_string_value(one);
        if (!bitmap_is_among(below, name))
            append_action(actions, "block-dirty-bitmap-add",
                          bitmap_add_arguments(base, name, true));
        append_action(actions, "block-dirty-bitmap-merge",
                      json_pack("{s:s, s:s, s:[{s:s, s:s}]}", "node", base, "target", name,
                                "bitmaps", "node", top, "name", name));
    }
    if (json_array_size(actions) == 0) {
        json_decref(actions);
        return true;
    }
    return qmp_call(vm->qsd->qmp, "transaction", json_pack("{s:o}", "actions", actions), NULL, err);
}

static bool remove_bitmap(struct block_vm *vm, const char *node, const char *name, struct err *err)
{
    return qmp_call(vm->qsd->qmp, "block-dirty-bitmap-remove",
                    json_pack("{s:s, s:s}", "node", node, "name", name), NULL, err);
}

/* A frozen layer is opened for reading only, and its bitmaps cannot be removed then. */
static bool set_writable(struct block_vm *vm, const struct vm_disk *disk, size_t index,
                         bool writable, struct err *err)
{
    const struct layer *layer = &disk->layers[index];
    if (index + 1 == disk->layer_count)
        return true;
    SCOPED_FREE char *file = xasprintf("%sf", layer->node);
    json_t *backing = index > 0 ? json_string(disk->layers[index - 1].node) : json_null();
    json_t *opts =
        json_pack("{s:s, s:s, s:s, s:b, s:s, s:o}", "driver", block_format_name(layer->format),
                  "node-name", layer->node, "file", file, "read-only", (int)!writable, "discard",
                  "unmap", "backing", backing);
    return qmp_call(vm->qsd->qmp, "blockdev-reopen", json_pack("{s:[o]}", "options", opts), NULL,
                    err);
}

static bool drop_from_layer(struct block_vm *vm, const struct vm_disk *disk, size_t index,
                            const char *wanted, struct err *err)
{
    const char *node = disk->layers[index].node;
    json_auto_t *names = vm_bitmaps_of(vm, node, err);
    if (!names || json_array_size(names) == 0 || (wanted && !bitmap_is_among(names, wanted)))
        return names;
    bool ok = set_writable(vm, disk, index, true, err);
    size_t i;
    json_t *name;
    json_array_foreach (names, i, name) {
        if (!wanted || strcmp(json_string_value(name), wanted) == 0)
            ok = ok && remove_bitmap(vm, node, json_string_value(name), err);
    }
    struct err back = ERR_INIT;
    if (!set_writable(vm, disk, index, false, &back))
        err_keep_first(err, &back);
    return ok && !err_is_set(err);
}

bool block_vm_drop_bitmaps(struct block_vm *vm, const char *disk_id, const char *name,
                           struct err *err)
{
    pthread_mutex_lock(&vm->lock);
    const struct vm_disk *disk = vm_get_disk(vm, disk_id, err);
    bool ok = disk;
    for (size_t i = 0; ok && i < disk->layer_count; i++)
        ok = drop_from_layer(vm, disk, i, name, err);
    pthread_mutex_unlock(&vm->lock);
    return ok || err_wrap(err, "drop bitmaps");
}

/* --- Begin ------------------------------------------------------------------------------------ */

/* The bitmap of the export, merged from those of all layers that have it. Every layer from the one
 * on which it was begun has it; the active one always. */
static bool plan_dirty(struct block_vm *vm, struct vm_disk *disk, const char *since,
                       json_t *actions, struct err *err)
{
    const char *active = ACTIVE(disk)->node;
    json_t *sources = json_array();
    for (size_t i = disk->layer_count; i-- > 0;) {
        json_auto_t *names = vm_bitmaps_of(vm, disk->layers[i].node, err);
        if (!names || !bitmap_is_among(names, since))
            break;
        json_array_append_new(sources,
                              json_pack("{s:s, s:s}", "node", disk->layers[i].node, "name", since));
    }
    if (!err_is_set(err) && json_array_size(sources) == 0)
        err_set(err, ERR_NOT_FOUND, 0, "Bitmap does not exist: '%s' on disk '%s'", since, disk->id);
    if (err_is_set(err) ||
        !qmp_call(vm->qsd->qmp, "block-dirty-bitmap-add",
                  bitmap_add_arguments(active, BLOCK_BACKUP_BITMAP, false), NULL, err)) {
        json_decref(sources);
        return false;
    }
    disk->backup.has_dirty = true;
    append_action(actions, "block-dirty-bitmap-merge",
                  json_pack("{s:s, s:s, s:o}", "node", active, "target", BLOCK_BACKUP_BITMAP,
                            "bitmaps", sources));
    return true;
}

static bool open_scratch(struct block_vm *vm, struct vm_disk *disk, const char *path,
                         struct err *err)
{
    const struct layer *active = ACTIVE(disk);
    SCOPED_IMAGE_INFO struct image_info info = {0};
    if (!image_info_read(active->path, active->format, &info, err) ||
        !block_volume_create(path, BLOCK_QCOW2, info.size_bytes, active->path, active->format, err))
        return false;
    disk->backup.scratch = xstrdup(path);
    disk->backup.number = vm->next_number++;
    return qsd_open_layer(vm->qsd, SCRATCH(disk), path, BLOCK_QCOW2, active->node, false, err);
}

static bool plan_disk(struct block_vm *vm, const struct block_backup *what, json_t *actions,
                      struct err *err)
{
    struct vm_disk *disk = vm_get_disk(vm, what->disk_id, err);
    if (!disk || !open_scratch(vm, disk, what->scratch, err))
        return false;
    const char *active = ACTIVE(disk)->node;
    if (what->since && !plan_dirty(vm, disk, what->since, actions, err))
        return false;
    if (what->begin)
        append_action(actions, "block-dirty-bitmap-add",
                      bitmap_add_arguments(active, what->begin, true));
    qmp_drop_events(vm->qsd->qmp, JOB(disk));
    append_action(actions, "blockdev-backup",
                  json_pack("{s:s, s:s, s:s, s:s}", "job-id", JOB(disk), "device", active, "target",
                            SCRATCH(disk), "sync", "none"));
    return true;
}

static bool export_scratch(struct block_vm *vm, const struct vm_disk *disk, struct err *err)
{
    SCOPED_FREE char *name = xasprintf("backup-%s", disk->id);
    if (disk->backup.has_dirty)
        return qsd_export_nbd_dirty(vm->qsd, JOB(disk), SCRATCH(disk), name, ACTIVE(disk)->node,
                                    BLOCK_BACKUP_BITMAP, err);
    return qsd_export_nbd(vm->qsd, JOB(disk), SCRATCH(disk), name, false, err);
}

/* All of it, or as far as it was begun: what is not there is passed over. */
static bool end_disk(struct block_vm *vm, struct vm_disk *disk, struct err *err)
{
    static const char *const ended[] = {"BLOCK_JOB_CANCELLED", "BLOCK_JOB_COMPLETED", NULL};
    struct qmp *qmp = vm->qsd->qmp;
    struct err ignored = ERR_INIT;
    if (disk->backup.number == 0)
        return true;
    (void)qsd_unexport(vm->qsd, JOB(disk), &ignored);
    err_clear(&ignored);
    if (qmp_call(qmp, "job-cancel", json_pack("{s:s}", "id", JOB(disk)), NULL, &ignored)) {
        json_t *event = qmp_wait_event(qmp, ended, JOB(disk), JOB_END_MS, err);
        json_decref(event);
        if (!event)
            return false;
    }
    err_clear(&ignored);
    bool ok = qsd_close_node(vm->qsd, SCRATCH(disk), &ignored);
    if (disk->backup.has_dirty)
        ok = remove_bitmap(vm, ACTIVE(disk)->node, BLOCK_BACKUP_BITMAP, &ignored) && ok;
    (void)unlink(disk->backup.scratch);
    free(disk->backup.scratch);
    disk->backup = (struct vm_backup){0};
    if (!ok)
        *err = ignored;
    return ok;
}

static bool end_all(struct block_vm *vm, struct err *err)
{
    for (size_t i = 0; i < vm->disk_count; i++) {
        struct err one = ERR_INIT;
        if (!end_disk(vm, vm->disks[i], &one))
            err_keep_first(err, &one);
    }
    return !err_is_set(err);
}

static bool begin(struct block_vm *vm, const struct block_backup *disks, size_t count,
                  struct err *err)
{
    json_t *actions = json_array();
    bool ok = count > 0 || err_set(err, ERR_BAD_ARGUMENT, 0, "a backup of no disk");
    for (size_t i = 0; ok && i < count; i++)
        ok = plan_disk(vm, &disks[i], actions, err);
    json_t *transaction = json_pack("{s:o}", "actions", actions);
    if (ok)
        ok = qmp_call(vm->qsd->qmp, "transaction", transaction, NULL, err);
    else
        json_decref(transaction);
    for (size_t i = 0; ok && i < vm->disk_count; i++)
        ok = vm->disks[i]->backup.number == 0 || export_scratch(vm, vm->disks[i], err);
    return ok;
}

bool block_vm_backup_begin(struct block_vm *vm, const struct block_backup *disks, size_t count,
                           struct err *err)
{
    pthread_mutex_lock(&vm->lock);
    bool ok = begin(vm, disks, count, err);
    if (!ok) {
        struct err ignored = ERR_INIT;
        (void)end_all(vm, &ignored);
    }
    pthread_mutex_unlock(&vm->lock);
    return ok || err_wrap(err, "begin a backup");
}

char *block_vm_backup_uri(struct block_vm *vm, const char *disk_id)
{
    char *uri = NULL;
    pthread_mutex_lock(&vm->lock);
    for (size_t i = 0; i < vm->disk_count; i++) {
        const struct vm_disk *disk = vm->disks[i];
        if (disk->backup.number == 0 || strcmp(disk->id, disk_id) != 0)
            continue;
        SCOPED_FREE char *name = xasprintf("backup-%s", disk->id);
        uri = qsd_nbd_uri(vm->qsd, name);
    }
    pthread_mutex_unlock(&vm->lock);
    return uri;
}

uint64_t block_vm_backup_changed(struct block_vm *vm, const char *disk_id)
{
    uint64_t bytes = 0;
    pthread_mutex_lock(&vm->lock);
    for (size_t i = 0; i < vm->disk_count; i++) {
        const struct vm_disk *disk = vm->disks[i];
        if (disk->backup.has_dirty && strcmp(disk->id, disk_id) == 0)
            bytes = bitmap_count(vm->qsd->qmp, ACTIVE(disk)->node, BLOCK_BACKUP_BITMAP);
    }
    pthread_mutex_unlock(&vm->lock);
    return bytes;
}

bool block_vm_backup_end(struct block_vm *vm, struct err *err)
{
    pthread_mutex_lock(&vm->lock);
    bool ok = end_all(vm, err);
    pthread_mutex_unlock(&vm->lock);
    return ok || err_wrap(err, "end a backup");
}
