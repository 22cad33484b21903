/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The block layer of the sandbox: what QEMU is to a real host. Every running VM is one
 * qemu-storage-daemon that owns the VM's disk images and exports each disk writable over NBD on a
 * unix socket; the guest (a writer, or a real Linux under TCG) is an NBD client of it. Snapshots
 * are real qcow2 overlays, live merges real block commits. A proxy host is another
 * qemu-storage-daemon that opens volumes itself and shows them as files named as udev would name
 * the device (FUSE exports).
 *
 * All calls block until the work is done (milliseconds, or seconds for a merge) and are safe from
 * any thread; calls on one VM or host are serialised inside. Volumes are named by path; the caller
 * (the engine model) keeps the chain of each disk and its meaning.
 */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "proto/base/err.h"

enum block_format { BLOCK_RAW, BLOCK_QCOW2 };

/* --- Volumes: plain image files. `backing` NULL = none. ------------------------------------ */
bool block_volume_create(const char *path, enum block_format format, uint64_t size_bytes,
                         const char *backing, enum block_format backing_format, struct err *err);
/* Bytes the file occupies on disk (what the engine calls actual_size). */
bool block_volume_actual_size(const char *path, uint64_t *ret_bytes, struct err *err);
/* The guest's view of a chain, flattened into a raw file (sparse). For the judge: the image "taken
 * from the sandbox at the same instant". Must not be called on a volume that is being written. */
bool block_volume_flatten(const char *path, enum block_format format, const char *raw_path,
                          struct err *err);
/* Make a volume at rest larger; what is new reads as zeroes. Its bitmaps grow with it. */
bool block_volume_resize(const char *path, enum block_format format, uint64_t size_bytes,
                         struct err *err);
/* A copy of a volume at rest that has no backing volume, bitmaps included. */
bool block_volume_copy(const char *path, enum block_format format, const char *to, struct err *err);
/* The dirty bitmaps of a volume at rest that is about to get `overlay` on top of it: the overlay
 * records from now on under the same names. */
bool block_volume_carry_bitmaps(const char *base, const char *overlay, struct err *err);
/* A new bitmap of a volume at rest. */
bool block_volume_add_bitmap(const char *path, const char *name, struct err *err);
/* Remove every bitmap of a volume at rest, or the one of that name (none of it is fine). */
bool block_volume_drop_bitmaps(const char *path, const char *name, struct err *err);
/* Merge `top` into its backing volume `base` while no process has them open, and make `above` (the
 * volume that had `top` as backing, NULL = none) point at `base`. Dirty bitmaps go down with the
 * data. `top` is left for the caller to unlink. */
bool block_volume_commit(const char *top, const char *base, const char *above, struct err *err);

/* --- A running VM ------------------------------------------------------------------------- */
struct block_disk {
    char id[37];      /* the engine's disk id */
    const char *path; /* the active volume; its qcow2 header names the chain below */
    enum block_format format;
    bool read_only;
};

struct block_vm;

/* Start the VM's storage daemon in `run_dir` (made if missing; holds pid file, QMP and NBD sockets;
 * a socket path must stay under 108 bytes). */
struct block_vm *block_vm_start(const char *run_dir, const struct block_disk *disks, size_t count,
                                struct err *err);
/* Flush, quit the daemon, remove the sockets. Merges that run in other threads are cancelled and
 * return; no other call may begin any more. NULL is fine. */
void block_vm_stop(struct block_vm *vm);
/* The daemon's pid, for fault tests (kill -9, SIGSTOP). */
pid_t block_vm_pid(const struct block_vm *vm);
/* False once the daemon has died. */
bool block_vm_is_running(struct block_vm *vm);
/* "nbd+unix:///DISK_EXPORT?socket=PATH" of a disk, writable; the caller frees. NULL if unknown. */
char *block_vm_nbd_uri(struct block_vm *vm, const char *disk_id);
bool block_vm_plug(struct block_vm *vm, const struct block_disk *disk, struct err *err);
bool block_vm_unplug(struct block_vm *vm, const char *disk_id, struct err *err);
/* Make a disk larger while the guest has it, who loses the connection for an instant. */
bool block_vm_resize(struct block_vm *vm, const char *disk_id, uint64_t size_bytes,
                     struct err *err);

struct block_overlay {
    char disk_id[37];
    const char *path;  /* made here, qcow2, backed by the disk's active volume */
    const char *begin; /* a bitmap that the overlay records under from this instant; NULL = none */
};
/* All overlays in one QMP transaction: one instant over all disks. From then on the former active
 * volumes are frozen. */
bool block_vm_snapshot(struct block_vm *vm, const struct block_overlay *overlays, size_t count,
                       struct err *err);
/* Live merge: the data of volume `top` goes down into `base` (its backing). `top` may be the active
 * volume (then `base` becomes active) or one below. `top` is left for the caller to unlink.
 * `speed_bps` 0 = as fast as it goes. Fails with the QMP error text, e.g. when another process
 * holds the frozen volume open. */
bool block_vm_merge(struct block_vm *vm, const char *disk_id, const char *top, const char *base,
                    uint64_t speed_bps, struct err *err);
/* Inject faults: make every write to this disk fail with errno value `errnum` (0 = heal). NBD knows
 * EPERM, EIO, ENOMEM, EINVAL and ENOSPC. Guests are disconnected for an instant by the change. */
bool block_vm_set_write_error(struct block_vm *vm, const char *disk_id, int errnum,
                              struct err *err);

/* --- Backups of a running VM, and dirty bitmaps ---------------------------------------------- */
/* A bitmap is persistent, of 64 KiB granularity, and records from the moment it is made. Snapshots
 * carry bitmaps up (the overlay records under the same name) and merges carry them down. */
struct block_backup {
    char disk_id[37];
    const char *scratch; /* path of the overlay that is made here for the time of the backup */
    const char *begin;   /* a bitmap to begin at this instant; NULL = none (raw disks have none) */
    const char *since;   /* offer what changed since this bitmap was begun; NULL = do not */
};
/* One instant over all disks: what the guest writes from then on is kept apart, and the exports
 * show the disks as they were. Errors: not-found when a disk has no bitmap `since`, or has lost it;
 * then nothing was begun. */
bool block_vm_backup_begin(struct block_vm *vm, const struct block_backup *disks, size_t count,
                           struct err *err);
/* "nbd+unix" URI of a disk in a backup, read-only; the caller frees. NULL if there is none. */
char *block_vm_backup_uri(struct block_vm *vm, const char *disk_id);
/* Name of the bitmap in that export. */
#define BLOCK_BACKUP_BITMAP "changed"
/* How much of a disk that bitmap calls changed; 0 without one. */
uint64_t block_vm_backup_changed(struct block_vm *vm, const char *disk_id);
/* Ends the backup of all disks: exports, overlays. Bitmaps that it has begun stay. */
bool block_vm_backup_end(struct block_vm *vm, struct err *err);
/* Remove every bitmap of a disk (`name` NULL), or the one of that name, from all its layers; none
 * is fine. */
bool block_vm_drop_bitmaps(struct block_vm *vm, const char *disk_id, const char *name,
                           struct err *err);

/* --- A proxy host: shows volumes as devices -------------------------------------------------- */
struct block_host;

enum block_bus { BLOCK_VIRTIO, BLOCK_VIRTIO_SCSI };

/* A proxy that is a virtual machine of its own, under TCG: its devices are real ones, plugged while
 * it runs, and named by its own udev. It reaches servers on this machine's loopback as 10.0.2.2. */
struct block_guest {
    const char *kernel, *initrd;
    const char *uuid; /* what its firmware shows: the VM's id */
};
/* Does not wait for the guest to be up. In `run_dir`: serial.log (its console), monitor.sock (a
 * second monitor, for people and tests). */
struct block_host *block_host_start_guest(const char *run_dir, const struct block_guest *guest,
                                          struct err *err);

/* `dev_dir` plays /dev/disk/by-id of the proxy VM. Links, mounts and overlays that a killed
 * predecessor left in these directories are removed. */
struct block_host *block_host_start(const char *run_dir, const char *dev_dir, struct err *err);
void block_host_stop(struct block_host *host);
pid_t block_host_pid(const struct block_host *host);
bool block_host_is_running(struct block_host *host);

struct block_plug_opts {
    const char *path; /* the volume whose guest view becomes the device */
    enum block_format format;
    /* A snapshot's disk: the volume is opened read-only under a transient overlay in run_dir that
     * takes the guest's writes and vanishes at unplug, as vdsm does. Otherwise the volume itself is
     * opened writable. */
    bool transient;
    /* Put a loop device on top, so that the device is a true block device: S_ISBLK, its size from
     * an ioctl, no hole map. Needs root. */
    bool loop;
    /* In a guest, what there is in place of a name: the bus, and the whole id, of which the serial
     * number has 20 characters. Every second SCSI disk shows all of it, as newer libvirts do. */
    enum block_bus bus;
    const char *disk_id;
};
/* Make `dev_dir`/`name`, a symbolic link as udev makes them, lead to the disk: a regular file of
 * its size, mode 0600, that knows its holes; or a loop device. `name` is unique on the host, e.g.
 * "virtio-5a4a3f2e-1b2c-4d5e-8". */
bool block_host_plug(struct block_host *host, const char *name, const struct block_plug_opts *opts,
                     struct err *err);
/* Limit what is read from, and what is written to, all devices of the host together, in bytes per
 * second, now and for later ones; 0 = no limit. Slow storage, and a way for tests to meet a copy in
 * the middle. */
bool block_host_set_limits(struct block_host *host, uint64_t read_bps, uint64_t write_bps,
                           struct err *err);
/* Fails (conflict) while a process still has the device open. A guest lets go of a device whoever
 * has it open in there; conflict means that it did not answer. */
bool block_host_unplug(struct block_host *host, const char *name, struct err *err);

/* --- Read access for image transfers --------------------------------------------------------- */
struct block_export;

/* An NBD server (its own qemu-storage-daemon or qemu-nbd) on the guest view of a volume, for the
 * imageio endpoint; several clients at once. `run_dir` is its own. */
struct block_export *block_export_start(const char *run_dir, const char *path,
                                        enum block_format format, bool writable, struct err *err);
/* The same, read-only, of a qcow2 volume that is frozen or at rest, with what changed since the
 * bitmap `since` was begun: as BLOCK_BACKUP_BITMAP, of all volumes of the chain that have it.
 * Errors: not-found when none has, or what it holds cannot be trusted. */
struct block_export *block_export_start_changes(const char *run_dir, const char *path,
                                                const char *since, struct err *err);
/* How much that calls changed. */
uint64_t block_export_changed(const struct block_export *x);
void block_export_stop(struct block_export *x);
/* nbd+unix URI; borrowed. */
const char *block_export_uri(const struct block_export *x);
