/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks attached to VMs, above all a snapshot's disk attached to the proxy VM a worker runs in.
 */
#pragma once

#include "worker/ovirt/engine.h"

struct ovirt_attachment {
    char *disk_id; /* also the id of the attachment */
    char *interface;
    bool active, bootable, read_only;
};
struct ovirt_attachments {
    struct ovirt_attachment *v;
    size_t count;
};
bool ovirt_attachments_list(struct engine_session *s, const char *vm_id,
                            struct ovirt_attachments *ret, struct err *err);
void ovirt_attachments_done(struct ovirt_attachments *list);
const struct ovirt_attachment *ovirt_attachments_find(const struct ovirt_attachments *list,
                                                      const char *disk_id);

/* Attach disk `disk_id` as it was in snapshot `snapshot_id` (the VM snapshot's id) to the proxy.
 * Both ids are required: without the snapshot the live disk itself would be attached. `interface`:
 * NULL = virtio_scsi. Done when the engine has plugged it; the device appears a little later.
 * Errors: conflict when the proxy has the disk already (from before). */
bool ovirt_attach_snapshot_disk(struct engine_session *s, const char *proxy_id, const char *disk_id,
                                const char *snapshot_id, const char *interface, struct err *err);

struct ovirt_attach {
    const char *interface; /* NULL = virtio_scsi */
    bool bootable, active, read_only, pass_discard;
};
/* Attach an existing disk, writable: one that this task made, to the proxy or to its new VM. */
bool ovirt_attach_disk(struct engine_session *s, const char *vm_id, const char *disk_id,
                       const struct ovirt_attach *how, struct err *err);

/* Unplug and detach; waits until the attachment is gone. The disk itself is never touched
 * (detach_only is never false: that would delete the ORIGINAL disk). Close the device before. Gone
 * is success. */
bool ovirt_detach(struct engine_session *s, const char *vm_id, const char *disk_id,
                  int64_t limit_ms, struct err *err);
