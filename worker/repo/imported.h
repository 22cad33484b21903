/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a restore needs to know of a VM that no engine has described: vm.json and the point's meta,
 * made of a few words. Threads: reentrant.
 */
#pragma once

#include <jansson.h>

#include "proto/base/err.h"
#include "proto/base/id.h"
#include "worker/step/point_meta.h"

#define IMPORTED_BLOB POINT_BLOB_JSON

struct imported_vm {
    const char *id, *name;
    const char *cluster, *storage_domain; /* names; NULL = to be said at the restore */
    uint64_t memory_mib, cpus;            /* 0 = default */
};

struct imported_disk {
    char id[ID_BYTES];
    uint64_t size_bytes, actual_bytes;
};

/* The description, or that in `file` if it is not NULL. New reference; NULL on error. */
json_t *imported_vm_json(const struct imported_vm *vm, const char *file, struct err *err);

/* The meta object as point_meta_parse() reads it; the first disk boots. New reference; NULL when a
 * name is not UTF-8. */
json_t *imported_meta(const struct imported_vm *vm, const struct imported_disk *disks, size_t n);
