/* SPDX-License-Identifier: Apache-2.0 */
/* How entities look that more than one resource shows. Lock held. */
#pragma once

#include "tests/sandbox/engine/http.h"

/* As in A/disks/{d}. */
json_t *disk_view(const struct engine *e, const struct disk *d);
/* As in A/vms/{v}/snapshots/{s}/disks: the disk as it is in that volume. */
json_t *disk_view_in_snapshot(const struct engine *e, const struct vm *vm, const struct disk *d,
                              const struct volume *v);
json_t *disksnapshot_view(const struct engine *e, const struct disk *d, size_t index);
/* Bytes that all volumes of a disk occupy, or the one volume does; 0 when the file can not be
 * asked. */
uint64_t disk_actual_bytes(const struct disk *d);
uint64_t volume_actual_bytes(const struct volume *v);

json_t *attachment_view(const struct engine *e, const struct vm *vm, const struct attachment *a,
                        bool follow_disk);
json_t *nic_view(const struct vm *vm, const struct nic *n);
json_t *tag_view(const struct tag *t);
/* As in A/vms/{v}, without followed links. */
json_t *vm_view(const struct engine *e, const struct request *r, const struct vm *vm);
/* The configuration members that a snapshot keeps. */
json_t *vm_config_view(const struct engine *e, const struct vm *vm, bool all_content);
