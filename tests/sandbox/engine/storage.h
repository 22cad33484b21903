/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the model meets the block layer: the files of volumes, and what runs a VM. Threads: lock
 * held; functions that say so give it up meanwhile.
 */
#pragma once

#include "tests/sandbox/engine/engine.h"

/* The named domain (id or name) of the data centre, or its first one for NULL; NULL: none. */
struct storage_domain *storage_default_sd(const struct engine *e, const char *key,
                                          const struct data_center *dc);
/* iSCSI and FC: other rules for formats. */
bool storage_is_block(const struct storage_domain *sd);
/* Makes the disk's first volume (image id `image_id`, NULL = fresh) as part of the snapshot entry
 * `snapshot_id` ("" for a floating disk). Keeps the lock. */
bool storage_create_base(struct engine *e, struct disk *d, const char *image_id,
                         const char *snapshot_id, struct err *err);
/* A volume to go on top of the active one: its id (NULL = fresh) and path; not made, and not in the
 * chain yet. */
struct volume *storage_plan_overlay(const struct engine *e, const struct disk *d, const char *id,
                                    const char *snapshot_id);
/* Deletes all volume files of a disk. */
void storage_delete(struct engine *e, struct disk *d);

/* A proxy that is a real virtual machine, with udev and all, and not a folder of devices. */
bool storage_is_machine(const struct vm *vm);

/* Starts what runs the VM: the storage daemon with its active disks, the guest, and a proxy's
 * device host. Gives up the lock. */
bool storage_start_vm(struct engine *e, struct vm *vm, struct err *err);
/* Ends it. Gives up the lock. */
void storage_stop_vm(struct engine *e, struct vm *vm);
/* Hot-plug and hot-unplug of one attachment of a running VM. Give up the lock. */
bool storage_plug(struct engine *e, struct vm *vm, struct attachment *a, struct err *err);
bool storage_unplug(struct engine *e, struct vm *vm, struct attachment *a, struct err *err);
/* Around a short call of the block layer for a running VM: begin gives up the lock, and
 * storage_stop_vm() waits for the end. False (lock kept): the VM does not run. */
bool storage_begin(struct engine *e, struct vm *vm, struct err *err);
void storage_end(struct engine *e, struct vm *vm);

/* Limits what all proxies read from their devices, each on its own; 0 = no limit. Gives up the
 * lock. */
bool storage_limit_devices(struct engine *e, uint64_t read_bps, uint64_t write_bps,
                           struct err *err);
