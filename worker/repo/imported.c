/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/repo/imported.h"

#include <fcntl.h>
#include <inttypes.h>

#include "proto/base/clock.h"
#include "proto/base/file.h"
#include "worker/store/store.h"

enum { META_VERSION = 1, MEMORY_DEFAULT_MIB = 1024 };

static json_t *load(const char *file, struct err *err)
{
    SCOPED_BUF struct buf text;
    if (!file_read_all(AT_FDCWD, file, STORE_BLOB_MAX, &text, err))
        return NULL;
    json_error_t why;
    json_t *json = json_loadb(text.data, text.len, JSON_REJECT_DUPLICATES, &why);
    if (json_is_object(json))
        return json;
    json_decref(json);
    err_set(err, ERR_BAD_ARGUMENT, 0, "%s: line %d: %s", file, json ? 1 : why.line,
            json ? "no object" : why.text);
    return NULL;
}

json_t *imported_vm_json(const struct imported_vm *vm, const char *file, struct err *err)
{
    if (file)
        return load(file, err);
    uint64_t memory = (vm->memory_mib ? vm->memory_mib : MEMORY_DEFAULT_MIB) << 20;
    SCOPED_FREE char *bytes = xasprintf("%" PRIu64, memory);
    SCOPED_FREE char *cores = xasprintf("%" PRIu64, vm->cpus ? vm->cpus : 1);
    json_t *json = json_pack("{s:s, s:s, s:s, s:s, s:{s:{s:s, s:s, s:s}}, s:{s:s, s:{s:{s:[s]}}}}",
                             "id", vm->id, "name", vm->name, "type", "server", "memory", bytes,
                             "cpu", "topology", "sockets", "1", "cores", cores, "threads", "1",
                             "os", "type", "other", "boot", "devices", "device", "hd");
    if (json && vm->cluster)
        json_object_set_new(json, "cluster", json_pack("{s:s}", "name", vm->cluster));
    if (!json)
        err_set(err, ERR_BAD_ARGUMENT, 0, "the VM's name is not UTF-8");
    return json;
}

static json_t *disk_json(const struct imported_vm *vm, const struct imported_disk *d, size_t number)
{
    SCOPED_FREE char *alias = xasprintf("%s_Disk%zu", vm->name, number + 1);
    return json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:{s:s?}, s:b, s:b, s:b}", "id", d->id,
                     "alias", alias, "interface", "virtio_scsi", "format", "cow", "size_bytes",
                     (json_int_t)d->size_bytes, "actual_bytes", (json_int_t)d->actual_bytes,
                     "storage_domain", "name", vm->storage_domain, "bootable", number == 0,
                     "sparse", 1, "active", 1);
}

json_t *imported_meta(const struct imported_vm *vm, const struct imported_disk *disks, size_t n)
{
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(list, disk_json(vm, &disks[i], i));
    return json_pack("{s:i, s:s, s:s, s:s, s:s, s:I, s:s, s:o}", "version", META_VERSION, "writer",
                     "oxbow-worker " OXBOW_VERSION, "path", "import", "vm", vm->id, "vm_name",
                     vm->name, "snapshot_ms", (json_int_t)clock_wall_ms(clock_system()), "quiesced",
                     "no", "disks", list);
}
