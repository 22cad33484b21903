/* SPDX-License-Identifier: Apache-2.0 */
/* The truth behind the API, and changing it by hand. Lock held. */
#pragma once

#include "tests/sandbox/engine/engine.h"

/* VMs, disks, chains, snapshots, attachments, locks, transfers, tokens. Native JSON types. */
json_t *state_show(const struct engine *e);
/* {"action": "pause"|"resume"|"kill-daemon"} or {"write_error": ERRNO, "disk": "id"} or
 * {"agent": false}. May give up the lock. Errors: bad-argument and those of the block layer. */
bool state_change_vm(struct engine *e, struct vm *vm, const json_t *change, struct err *err);
