/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which VM holds which disk. The engine tells it per VM only, so this is one request per VM, read
 * once and kept. Threads: one at a time.
 */
#pragma once

#include "worker/ovirt/datacenter.h"
#include "worker/step/step.h"

struct holder_vm {
    char *id, *name, *description;
};
struct holder {
    size_t vm; /* in vms */
    char *disk;
};
struct holders {
    struct holder_vm *vms;
    size_t vm_count;
    struct holder *v;
    size_t count;
};
void holders_done(struct holders *h);
#define SCOPED_HOLDERS __attribute__((cleanup(holders_done), unused))

/* All VMs of these clusters (NULL = all) with their disks. A VM that vanishes meanwhile is left
 * out. */
bool holders_read(struct task_run *run, const struct ovirt_clusters *clusters, struct holders *ret,
                  struct err *err);
/* The next holder of the disk after number `after` (SIZE_MAX = the first one); NULL at the end.
 * Borrowed. */
const struct holder *holders_of(const struct holders *h, const char *disk, size_t *at);
