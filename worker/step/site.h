/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where this worker stands: the VM it runs in, that VM's data center and its clusters. Asked anew
 * by each task, since the proxy may have been moved.
 */
#pragma once

#include "worker/ovirt/datacenter.h"
#include "worker/step/step.h"

struct site {
    char *proxy_id;        /* NULL: of a site_load_any() without one */
    char *proxy_interface; /* for hot-plugged disks: virtio_scsi, or virtio without a controller */
    char *datacenter_id;
    struct ovirt_clusters clusters; /* of that data center */
    struct engine_version version;
};

/* Errors: not-found for a wrong proxy_vm; unsupported for an engine of another time. */
bool site_load(struct task_run *run, struct site *ret, struct err *err);
/* The same for tasks that do not need a proxy VM: where none is set, or the engine does not know
 * it, proxy_id and datacenter_id stay NULL. The clusters are those of all data centers. */
bool site_load_any(struct task_run *run, struct site *ret, struct err *err);
/* Safe on a zeroed struct. */
void site_done(struct site *site);
