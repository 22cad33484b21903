/* SPDX-License-Identifier: Apache-2.0 */
/* The request bodies of attachment.c, for its tests. New references. */
#pragma once

#include "worker/ovirt/attachment.h"

json_t *ovirt_attach_snapshot_body(const char *disk_id, const char *snapshot_id,
                                   const char *interface);
json_t *ovirt_attach_disk_body(const char *disk_id, const struct ovirt_attach *how);
