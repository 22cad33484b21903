/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One task without broker and coordinator: `oxbow-worker --once TASK.json`. The offer comes from a
 * file, the lease is our own, events go to standard output as JSON lines. For restores after a
 * disaster, for looking into a problem, and for tests.
 */
#pragma once

#include "worker/runner/execute.h"

/* Exit codes, the same as those of oxbow(1). */
enum { ONCE_SUCCEEDED = 0, ONCE_FAILED = 1, ONCE_USAGE = 2, ONCE_CANCELLED = 6 };

/* Runs the task of `path`; returns the exit code. SIGINT and SIGTERM cancel it: what was begun is
 * undone. Call on the main thread, with no other thread running. */
int once_run(const struct worker_env *env, const char *path);
