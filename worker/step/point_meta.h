/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The "meta" object of a restore point: what Oxbow needs to know beside disk data, vm.json and
 * vm.ovf in order to restore it and to tell people about it. docs/store-format.md lists its
 * members. Threads: reentrant.
 */
#pragma once

#include <jansson.h>

#include "worker/step/backup.h"

#define POINT_BLOB_OVF  "vm.ovf"
#define POINT_BLOB_JSON "vm.json"

/* New reference. */
json_t *point_meta_build(const struct task_run *run, const struct backup *b);

/* One disk of a point, read back. */
struct point_disk {
    char *id, *alias, *interface, *format;
    char *storage_domain_id, *storage_domain_name; /* NULL when not known */
    uint64_t size_bytes, actual_bytes;
    bool bootable, sparse, active, read_only, pass_discard, wipe_after_delete;
};
struct point_meta {
    bool quiesced;
    int64_t snapshot_ms;
    char *description;        /* of the VM */
    char *checkpoint;         /* of the engine, that holds what changed since; NULL = none */
    struct point_disk *disks; /* in the VM's order */
    size_t disk_count;
};
/* Every member is checked: a repository is somebody else's data. Errors: store-corrupt with the
 * member's name. The caller calls point_meta_done(), safe on a zeroed struct. */
bool point_meta_parse(const json_t *meta, struct point_meta *ret, struct err *err);
/* The disk of this id; NULL = the point has none. Borrowed. */
const struct point_disk *point_meta_disk(const struct point_meta *meta, const char *id);
void point_meta_done(struct point_meta *meta);
