/* SPDX-License-Identifier: Apache-2.0 */
/* The request body of disk.c, for its tests. A new reference. */
#pragma once

#include "worker/ovirt/disk.h"

json_t *ovirt_disk_body(const struct ovirt_disk_spec *spec);
