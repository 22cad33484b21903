/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks: what a VM or a snapshot has, whether they can be backed up by attaching, and making and
 * deleting disks of our own.
 */
#pragma once

#include "proto/base/buf.h"
#include "worker/ovirt/engine.h"

/* Why a disk can, or cannot, be backed up by snapshot and attach. One place decides:
 * ovirt_disk_judge(). */
enum ovirt_disk_class {
    OVIRT_DISK_FIT,
    OVIRT_DISK_LUN,         /* direct LUN: no snapshots */
    OVIRT_DISK_SHAREABLE,   /* no snapshots */
    OVIRT_DISK_STORAGE,     /* cinder, managed block storage */
    OVIRT_DISK_CONTENT,     /* not a data disk (iso, ovf store, ...) */
    OVIRT_DISK_UNPLUGGED,   /* inactive: a live snapshot leaves it out */
    OVIRT_DISK_ILLEGAL,     /* a broken image: repair it first */
    OVIRT_DISK_LOCKED,      /* busy now: may be fit later */
    OVIRT_DISK_CHECKPOINTS, /* fit, but incremental backup is on: attaching it may destroy
                               checkpoints, so only by image transfer */
};
/* "lun", "shareable", ...; and a sentence for people. Static strings. */
const char *ovirt_disk_class_name(enum ovirt_disk_class c);
const char *ovirt_disk_class_why(enum ovirt_disk_class c);

struct ovirt_disk {
    char *id;       /* the same in every snapshot; also the serial in a guest */
    char *image_id; /* the volume: another one in each snapshot */
    char *alias;
    char *status;       /* "ok", "locked", "illegal" */
    char *format;       /* "raw", "cow" */
    char *storage_type; /* "image", "lun", ... */
    char *content_type; /* "data", ...; NULL when not told */
    char *interface;    /* of the attachment: "virtio_scsi", ...; NULL for a disk alone */
    char *storage_domain_id;
    char *snapshot_id; /* the snapshot this entry belongs to; NULL when not told */
    uint64_t provisioned_bytes, actual_bytes;
    bool sparse, shareable, wipe_after_delete, incremental;
    bool active, bootable, read_only, pass_discard; /* of the attachment */
    enum ovirt_disk_class fit;                      /* without checkpoints of the VM: see vm.h */
};
struct ovirt_disks {
    struct ovirt_disk *v;
    size_t count;
};
void ovirt_disk_done(struct ovirt_disk *disk);
void ovirt_disks_done(struct ovirt_disks *disks);
/* Borrowed, or NULL. */
const struct ovirt_disk *ovirt_disks_find(const struct ovirt_disks *disks, const char *id);

/* From the JSON of a disk, and of its attachment (may be NULL). Errors: engine-protocol when it has
 * no id. Sets `fit`. */
bool ovirt_disk_of_json(const json_t *disk, const json_t *attachment, struct ovirt_disk *ret,
                        struct err *err);
enum ovirt_disk_class ovirt_disk_judge(const struct ovirt_disk *disk, bool is_attached);

bool ovirt_disk_get(struct engine_session *s, const char *disk_id, struct ovirt_disk *ret,
                    struct err *err);

/* A disk to make. */
struct ovirt_disk_spec {
    const char *id; /* chosen by us (id_new()): so a lost answer can be looked up */
    const char *alias;
    const char *description; /* NULL = none */
    const char *storage_domain_id;
    const char *format;  /* "raw" or "cow" */
    uint64_t size_bytes; /* virtual size, a multiple of 512 */
    uint64_t
        initial_bytes; /* of data that will be written, for cow on block storage; 0 = unknown */
    bool sparse;
    bool wipe_after_delete;
};
/* Makes format and sparse fit the kind of storage domain by the engine's rules (raw and sparse
 * cannot be on block storage; cow is always sparse). True if something was changed. */
bool ovirt_disk_spec_fit(struct ovirt_disk_spec *spec, bool on_block_storage);
/* The request is accepted; the disk is still locked: journal it, then wait. */
bool ovirt_disk_create(struct engine_session *s, const struct ovirt_disk_spec *spec,
                       struct err *err);
/* Until "ok". Errors: engine-fault when it became illegal or vanished; timeout. */
bool ovirt_disk_wait_ok(struct engine_session *s, const char *disk_id, int64_t limit_ms,
                        struct err *err);
/* Deletes a disk AND ITS DATA, and waits until it is gone. Only for disks this task made: the
 * caller must know that from its journal. A disk that is not there is success. */
bool ovirt_disk_delete(struct engine_session *s, const char *disk_id, int64_t limit_ms,
                       struct err *err);
