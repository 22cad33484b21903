/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A VM's configuration as the engine's own OVF: what `initialization.configuration` carries, and
 * what "create a VM from configuration" reads back. Threads: pure functions; lock held for the
 * model.
 */
#pragma once

#include "tests/sandbox/engine/engine.h"

/* The OVF of `vm` with the volumes that belong to the snapshot entry `snapshot_id` as the disks'
 * current ones. The caller frees. */
char *ovf_write(const struct engine *e, const struct vm *vm, const char *snapshot_id);

struct ovf_disk {
    char disk_id[ID_BYTES], image_id[ID_BYTES];
    char interface[16];
    bool bootable;
};

struct ovf_nic {
    char *name, *network, *profile;
    char interface[20], mac[20];
    bool linked, plugged;
};

struct ovf_vm {
    char id[ID_BYTES];
    char *name, *description;
    json_t *config; /* members of VmBase */
    VEC(struct ovf_disk) disks;
    VEC(struct ovf_nic) nics;
};

/* Errors: bad-argument with the reason. The caller frees. */
struct ovf_vm *ovf_read(const char *xml, struct err *err);
void ovf_vm_free(struct ovf_vm *o);
