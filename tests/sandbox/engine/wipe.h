/* SPDX-License-Identifier: Apache-2.0 */
/* Cleaning up after a sandbox that was killed. Threads: before any other runs. */
#pragma once

#include "proto/base/err.h"

/* Detaches mounts below `dir` and removes all that is in it. Refuses (conflict) while the process
 * that DIR/sandbox.json names still lives. A directory that never was a sandbox's is left
 * alone. */
bool wipe_dir(const char *dir, struct err *err);
