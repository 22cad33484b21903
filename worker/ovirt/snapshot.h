/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots of a VM: create, read, merge. Always without memory (`persist_memorystate` false).
 */
#pragma once

#include "proto/base/buf.h"
#include "worker/ovirt/disk.h"
#include "worker/ovirt/engine.h"

struct ovirt_snapshot {
    char *id, *description;
    char *status; /* "ok", "locked", "in_preview" */
    char *type;   /* "regular", "active", "stateless", "preview" */
    int64_t time_ms;
};
struct ovirt_snapshots {
    struct ovirt_snapshot *v;
    size_t count;
};
void ovirt_snapshots_done(struct ovirt_snapshots *list);

/* All entries of the VM (the "active" one included) whose description begins with
 * `description_prefix` (NULL = all). Entries being deleted may be missing. */
bool ovirt_snapshots_list(struct engine_session *s, const char *vm_id,
                          const char *description_prefix, struct ovirt_snapshots *ret,
                          struct err *err);

struct ovirt_snapshot_how {
    bool no_wait;      /* for a lock or a restarting engine: the guest is frozen meanwhile */
    bool *ret_unknown; /* set to true when it fails and the snapshot may be there all the same */
};
/* Asks for a snapshot of exactly these disks. `description` must be unique (task and fence): if the
 * answer is lost, the snapshot is looked up by it, never made twice. Returns the id (the caller
 * frees) while it is still locked: journal it, then wait. `how` may be NULL. */
char *ovirt_snapshot_create(struct engine_session *s, const char *vm_id, const char *description,
                            const char *const *disk_ids, size_t disks,
                            const struct ovirt_snapshot_how *how, struct err *err);
/* Until "ok". Errors: snapshot-failed when it vanishes or stays locked. The VM's lock may be held a
 * little longer: the next change of the VM waits for it by itself (engine.h, 409). `ret_time_ms`
 * (or NULL): the engine's time of the snapshot. */
bool ovirt_snapshot_wait_ok(struct engine_session *s, const char *vm_id, const char *snapshot_id,
                            int64_t limit_ms, int64_t *ret_time_ms, struct err *err);
/* The disks in it: id, image_id, sizes. Compare with what was asked for. */
bool ovirt_snapshot_disks(struct engine_session *s, const char *vm_id, const char *snapshot_id,
                          struct ovirt_disks *ret, struct err *err);
/* The configuration at that instant, byte for byte as the engine gave it. `ret` is initialised
 * here; the caller calls buf_done(). Errors: engine-protocol when there is none. */
bool ovirt_snapshot_ovf(struct engine_session *s, const char *vm_id, const char *snapshot_id,
                        struct buf *ret, struct err *err);

struct ovirt_merge {
    int64_t limit_ms; /* for all tries together; 0 = 4 h */
    unsigned tries;   /* DELETEs; 0 = 3 */
    /* How long one that is locked to begin with (still being made, or merged for somebody) is
     * waited for; 0 = 10 min, never more than limit_ms. */
    int64_t locked_ms;
    /* Called after each failed try (NULL = none), e.g. to log it. */
    void (*failed)(void *ctx, unsigned attempt, const struct err *why);
    void *ctx;
};
/* Deletes the snapshot (a live merge when the VM runs) and waits until it is gone.
 * `expected_prefix` guards foreign snapshots: one whose description does not begin with it is
 * refused. Gone is success. Errors: merge-failed when it came back `tries` times, or stays locked;
 * timeout. */
bool ovirt_snapshot_delete(struct engine_session *s, const char *vm_id, const char *snapshot_id,
                           const char *expected_prefix, const struct ovirt_merge *how,
                           struct err *err);
/* For when nobody knows whether a snapshot was made: deletes every one whose description begins
 * with `prefix`. Errors as above; a VM that has gone took them with it: success. */
bool ovirt_snapshots_delete_marked(struct engine_session *s, const char *vm_id, const char *prefix,
                                   const struct ovirt_merge *how, struct err *err);
