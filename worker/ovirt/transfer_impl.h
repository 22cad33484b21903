/* SPDX-License-Identifier: Apache-2.0 */
/* What transfer.c shows its tests. */
#pragma once

#include "worker/ovirt/transfer.h"

/* The body of the POST. New reference. */
json_t *ovirt_transfer_body(const struct ovirt_transfer_spec *spec);
/* Unknown names count as ENDING. */
enum ovirt_transfer_phase ovirt_transfer_phase_of(const char *name);
