/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What must hold before a VM is backed up, as judgements of what the engine has told: asked by the
 * backup's precheck, which stops at the first fault, and by the plan, which names them all. Nothing
 * is read or changed here. Each is false with the fault. Threads: reentrant.
 */
#pragma once

#include "worker/ovirt/attachment.h"
#include "worker/ovirt/datacenter.h"
#include "worker/ovirt/snapshot.h"
#include "worker/ovirt/vm.h"
#include "worker/step/site.h"
#include "worker/step/step.h"

/* Can this worker reach the VM's disks at all? own-proxy, unsupported. */
bool check_place(const struct site *site, const struct ovirt_vm *vm, struct err *err);
/* Can a snapshot be made of it as it stands? conflict. */
bool check_status(const struct ovirt_vm *vm, struct err *err);
/* Is somebody else at work on one of its snapshots? `own_task`: the task whose snapshots do not
 * count, or NULL. conflict. */
bool check_foreign_snapshot(const struct ovirt_vm *vm, const struct ovirt_snapshot *snapshot,
                            const char *own_task, struct err *err);
/* Room for a snapshot to grow in a storage domain that is active: conflict, no-space. */
bool check_domain(const struct step_settings *settings, const struct ovirt_storage_domain *sd,
                  struct err *err);
/* Room in the repository: no-space. */
bool check_store_space(const struct step_settings *settings, uint64_t free_bytes, struct err *err);
/* Nobody has attached the disk to the proxy VM: conflict. */
bool check_not_attached(const struct ovirt_attachments *of_proxy, const char *disk_id,
                        struct err *err);
/* No disk is locked, left over, too much: conflict, unsupported, too-large. */
bool check_not_locked(const struct ovirt_vm *vm, const struct ovirt_disk *disk, struct err *err);
/* Cbt was asked for: `obstacle` (path_cbt_obstacle()) is in the way; NULL = nothing is. */
bool check_cbt(const struct wire_backup_opts *opts, const struct ovirt_vm *vm, const char *obstacle,
               struct err *err);
bool check_disk_count(const struct ovirt_vm *vm, size_t with_path, const char *why_not_the_last,
                      struct err *err);
/* For messages. */
const char *disk_label(const struct ovirt_disk *disk);
