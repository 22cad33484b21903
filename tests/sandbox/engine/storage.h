/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the model meets the block layer: the files of volumes, and starting and stopping what runs
 * a VM. Threads: lock held; functions that say so give it up meanwhile.
 */
#pragma once

#include "tests/sandbox/engine/engine.h"

/* The named domain (id or name) of the data centre, or its first one for NULL; NULL: none. */
struct storage_domain *storage_default_sd(const struct engine *e, const char *key,
                                          const struct data_center *dc);
/* Makes the disk's first volume (image id `image_id`, NULL = fresh) as part of the snapshot entry
 * `snapshot_id` ("" for a floating disk). Keeps the lock. */
bool storage_create_base(struct engine *e, struct disk *d, const char *image_id,
                         const char *snapshot_id, struct err *err);
/* A volume on top of the active one: its id and path, not yet made and not yet in the chain. */
struct volume *storage_plan_overlay(const struct engine *e, const struct disk *d, const char *id,
                                    const char *snapshot_id);
/* Deletes all volume files of a disk. */
void storage_delete(struct engine *e, struct disk *d);
