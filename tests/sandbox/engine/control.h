/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The other door: HTTP on the unix socket DIR/control.sock, for tests. It shows the truth behind
 * the API and makes things go wrong (tests/sandbox/README.md lists the calls).
 */
#pragma once

#include "tests/sandbox/engine/engine.h"

struct control *control_start(struct engine *e, struct err *err);
/* NULL is fine. */
void control_stop(struct control *c);
