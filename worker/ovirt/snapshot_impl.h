/* SPDX-License-Identifier: Apache-2.0 */
/* The request body of snapshot.c, for its tests. A new reference. */
#pragma once

#include "worker/ovirt/snapshot.h"

json_t *ovirt_snapshot_body(const char *description, const char *const *disk_ids, size_t disks);
