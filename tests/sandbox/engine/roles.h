/* SPDX-License-Identifier: Apache-2.0 */
/* What the account that calls may do, as the API tells it. Threads: guarded by the engine's lock.
 */
#pragma once

#include "tests/sandbox/engine/engine.h"

/* Whoever is logged in. */
#define ROLES_USER_ID "00000019-0019-0019-0019-000000000001"

/* The control call: {"permits": ["create_vm", ...], "administrative": true, "on": "system"}.
 * Without `permits` it is SuperUser again. False when malformed. */
bool roles_set(struct engine *e, const json_t *body);
