/* SPDX-License-Identifier: Apache-2.0 */
/* What other resources need of VMs. Lock held. */
#pragma once

#include "tests/sandbox/engine/http.h"

/* An unused host of the cluster in turn, NULL when there is none. */
struct host *vms_pick_host(const struct engine *e, const struct vm *vm);
/* A VM with its "Active VM" entry, not yet in the list. `id` NULL = fresh. */
struct vm *vms_new(struct engine *e, const char *id, const char *name, struct cluster *cluster);
/* The configuration members a new VM has before anything is said about them. */
json_t *vms_default_config(uint64_t memory_bytes);
/* Takes the configuration members of `body` into the VM's. */
void vms_apply_config(struct vm *vm, const json_t *body);
/* Refuses with 409 when the VM's exclusive lock is held or a snapshot of it is locked: `verb` is
 * "create Snapshot" or "attach Virtual Disk". True: go on. */
bool vms_check_lock(struct request *r, const struct vm *vm, const char *verb);
/* An attachment of a live disk; the caller plugs it. */
struct attachment *vms_attach(struct vm *vm, struct disk *disk, const char *interface,
                              bool bootable, bool active);
struct nic *vms_add_nic(struct engine *e, struct vm *vm, const char *name, const char *interface,
                        const char *mac, struct vnic_profile *profile);
