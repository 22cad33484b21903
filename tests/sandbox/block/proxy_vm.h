/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A proxy that is a real virtual machine: qemu-system-x86_64 under TCG, with a virtio-scsi
 * controller, root ports into which virtio disks are plugged while it runs, and a network of its
 * own behind QEMU's user-space stack. As it opens images by the same commands, its QEMU is a struct
 * qsd.
 *
 * The device of a disk has the disk's id as its serial number, of which virtio and SCSI show 20
 * characters; libvirt since version 5 gives SCSI disks all of it as their device id besides.
 * Threads: as struct qmp.
 */
#pragma once

#include "tests/sandbox/block/block.h"
#include "tests/sandbox/block/qsd.h"

enum { PROXY_VM_PORTS = 8 }; /* virtio disks at once */

struct proxy_vm_device {
    const char *id;   /* of the device, for QEMU */
    const char *node; /* what it shows */
    const char *disk_id;
    enum block_bus bus;
    unsigned port; /* of a virtio disk: 0 to PROXY_VM_PORTS - 1, free */
    bool whole_id; /* of a SCSI disk */
};

/* Returns when QEMU runs, not when its guest is up. */
struct qsd *proxy_vm_start(const char *run_dir, const struct block_guest *guest, struct err *err);
bool proxy_vm_plug(struct qsd *vm, const struct proxy_vm_device *device, struct err *err);
/* Ask the guest to let go of a device, and wait until it has; conflict when it does not answer. May
 * be called again then. */
bool proxy_vm_unplug(struct qsd *vm, const char *id, struct err *err);
