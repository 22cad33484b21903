/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finding the device of a disk that the engine attached to the VM we run in.
 *
 * The engine makes the disk's id the device's serial, and udev names a link after it. Names are
 * tried from the most exact to the least: SCSI with all 36 characters, then virtio, SCSI and ATA
 * with the first 20 (all that their serial holds). A device is ours when its name carries the id,
 * its size is the disk's, and it was not there before we attached it; never by a name like
 * /dev/sdb.
 *
 * Works on block devices and on regular files. Threads: reentrant.
 */
#pragma once

#include "worker/step/step.h"

/* The path of the device that carries this disk's id, or NULL. The caller frees. */
char *device_find(const char *dir, const char *disk_id);
/* Size of a block device or regular file. */
bool device_size(const char *path, uint64_t *ret_bytes, struct err *err);

/* Wait up to settings->device_wait_s for the device of `disk_id` and check its size. NULL with
 * device-missing, device-mismatch, cancelled. The caller frees. */
char *device_wait(struct task_run *run, const char *disk_id, uint64_t size_bytes, struct err *err);
/* Wait for it to be gone; device-mismatch when it stays. */
bool device_wait_gone(struct task_run *run, const char *disk_id, struct err *err);
/* Nobody else (a mounted file system, LVM, MD) uses the device: conflict otherwise. */
bool device_check_unused(const char *path, struct err *err);
