/* SPDX-License-Identifier: Apache-2.0 */
/* Starting VMs without the states in between. Lock held, given up meanwhile. */
#pragma once

#include "tests/sandbox/engine/engine.h"

bool power_start_now(struct engine *e, struct vm *vm, struct err *err);
