/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VMs: finding them, describing them, making and removing them, power, freeze and thaw.
 */
#pragma once

#include "proto/base/buf.h"
#include "worker/ovirt/datacenter.h"
#include "worker/ovirt/disk.h"
#include "worker/ovirt/engine.h"

/* --- Finding --------------------------------------------------------------------------------- */
/* One VM of a listing. All is borrowed and valid during the callback only. */
struct ovirt_vm_row {
    const char *id, *name, *status, *description, *origin;
    const char *cluster_id, *cluster_name; /* name: NULL unless the search was told the clusters */
    const char *host_id;                   /* NULL when down */
    bool is_hosted_engine;                 /* never to be backed up by snapshots */
    /* Only with `details`; else 0 and NULL. */
    size_t disks;
    uint64_t provisioned_bytes;
    const char *const *tags;
    size_t tags_count;
};
/* False stops the search with the error the callback has set. */
typedef bool (*ovirt_vm_row_fn)(void *ctx, const struct ovirt_vm_row *row, struct err *err);

struct ovirt_vm_search {
    const char *expression; /* of the engine's search language, without sortby/page; NULL = all */
    const char *name;       /* instead: exact name */
    const char *tag;        /* instead: tag (its child tags included) */
    const struct ovirt_clusters *clusters; /* only VMs of these clusters; NULL = all */
    bool details;                          /* disks, sizes and tags: one more request per VM */
    unsigned page_size;                    /* 0 = 100 */
    unsigned max_vms;                      /* 0 = 10000; more is too-large */
};
/* Calls `each` once per VM, in order of name. Errors: bad-argument for a bad expression. */
bool ovirt_vm_search(struct engine_session *s, const struct ovirt_vm_search *what,
                     ovirt_vm_row_fn each, void *ctx, struct err *err);
/* The same for one VM by its id. Errors: not-found, also when it is in none of `clusters`. */
bool ovirt_vm_lookup(struct engine_session *s, const char *id,
                     const struct ovirt_clusters *clusters, bool details, ovirt_vm_row_fn each,
                     void *ctx, struct err *err);
/* The id of the VM of this id or exact name (our own proxy VM); the caller frees. Errors:
 * not-found; conflict when the name is not unique among `clusters` (NULL = all). */
char *ovirt_vm_find(struct engine_session *s, const char *id_or_name,
                    const struct ovirt_clusters *clusters, struct err *err);

/* --- Describing ------------------------------------------------------------------------------ */
struct ovirt_vm {
    char *id, *name, *description, *status, *origin;
    char *cluster_id;
    char *host_id; /* NULL when down */
    bool is_hosted_engine, delete_protected;
    bool virtio_scsi; /* has the controller that hot-plug of virtio_scsi disks needs */
    json_t *raw;      /* the engine's whole description (all_content; nics, disk_attachments with
                         disks, tags, cdroms, watchdogs, graphics_consoles inlined) */
};
bool ovirt_vm_get(struct engine_session *s, const char *id, struct ovirt_vm *ret, struct err *err);
void ovirt_vm_done(struct ovirt_vm *vm);
/* Just the status ("up", "down", ...), the caller frees; NULL on error (not-found included). */
char *ovirt_vm_status(struct engine_session *s, const char *id, struct err *err);

/* The disks of a description, with attachment facts and `fit`. */
bool ovirt_vm_disks(const struct ovirt_vm *vm, struct ovirt_disks *ret, struct err *err);
/* The OVF that came with the description, into `ret` (initialised here; the caller calls buf_done,
 * also after an error). Errors: engine-protocol when there is none. */
bool ovirt_vm_ovf(const struct ovirt_vm *vm, struct buf *ret, struct err *err);
/* Whether the VM has checkpoints of the engine's incremental backup: then none of its disks may be
 * attached to a proxy (engines after 4.5.7 destroy checkpoints at any detach). */
bool ovirt_vm_has_checkpoints(struct engine_session *s, const char *id, bool *ret, struct err *err);
/* vm.json of a restore point: the description with the *names* of cluster, storage domains, vNIC
 * profiles and networks added beside their ids (`"cluster":{"id":..,"name":..}`), because ids
 * differ on another engine, and without the OVF (kept on its own). New reference. */
json_t *ovirt_vm_describe(struct engine_session *s, const struct ovirt_vm *vm, struct err *err);

/* --- Quiescing ------------------------------------------------------------------------------- */
/* Errors: quiesce-failed (no guest agent, VM not up, guest refused), with the engine's reason. */
bool ovirt_vm_freeze(struct engine_session *s, const char *id, struct err *err);
bool ovirt_vm_thaw(struct engine_session *s, const char *id, struct err *err);

/* --- Making and removing --------------------------------------------------------------------- */
struct ovirt_vm_new {
    const char *name;
    const char *cluster_id;
    const char *description; /* our marker until the restore is done; must be unique: a lost answer
                                is looked up by name and description */
};
/* A VM without disks and NICs from the JSON that ovirt_vm_describe() gave: the body is built anew
 * from writable members that this engine's version knows. Returns its id (the caller frees) right
 * after the request: journal it, then ovirt_vm_wait(.., "down", ..). Errors: exists when the name
 * is taken. */
char *ovirt_vm_create_from_json(struct engine_session *s, const json_t *saved,
                                const struct ovirt_vm_new *as, struct err *err);
/* The same from the OVF of a restore point, which is rewritten first (ovf.h): no disks, no NICs, no
 * snapshots, so that the engine attaches nothing by itself. */
char *ovirt_vm_create_from_ovf(struct engine_session *s, struct slice ovf,
                               const struct ovirt_vm_new *as, struct err *err);
/* A clone of a VM's snapshot, with copies of its disks; the snapshot is locked until they are made.
 * Returns the id at once: journal it, then ovirt_vm_wait(.., "down", ..). */
char *ovirt_vm_create_from_snapshot(struct engine_session *s, const char *snapshot_id,
                                    const struct ovirt_vm_new *as, struct err *err);
/* Until the status is `status`. Errors: not-found when it vanishes, timeout. */
bool ovirt_vm_wait(struct engine_session *s, const char *id, const char *status, int64_t limit_ms,
                   struct err *err);
bool ovirt_vm_set_description(struct engine_session *s, const char *id, const char *text,
                              struct err *err);
/* The end of a restore: puts the description of `saved` (vm.json) in place of our marker, and turns
 * delete protection on again if it was. Both belong to the original, and could not be set while the
 * VM was half made. */
bool ovirt_vm_finish(struct engine_session *s, const char *id, const json_t *saved,
                     struct err *err);
/* Starts it; then ovirt_vm_wait(.., "up", ..). A VM that is up or powering up is success. */
bool ovirt_vm_start(struct engine_session *s, const char *id, struct err *err);
/* Removes the VM and waits until it is gone; its disks stay (detach_only), always: disks are
 * deleted one by one by whoever made them. Refuses (refused) a VM whose description is not
 * `expected_description`, so that only a half-restored VM of ours can be removed. Gone is
 * success. */
bool ovirt_vm_delete(struct engine_session *s, const char *id, const char *expected_description,
                     int64_t limit_ms, struct err *err);
/* The same for a clone: its disks, which were made with it, go with it. */
bool ovirt_vm_delete_clone(struct engine_session *s, const char *id,
                           const char *expected_description, int64_t limit_ms, struct err *err);
