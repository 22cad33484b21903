/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Executes one task from its offer to its result, on the calling thread: finds the kind, opens an
 * engine session, walks the steps and publishes the result. The runner's task threads and
 * `oxbow-worker --once` both come through here. The task's failure is logged here, once.
 */
#pragma once

#include "worker/step/step.h"

/* What a worker has for all its tasks. Borrowed, shared by all threads. */
struct worker_env {
    const char *name;
    struct step_settings settings;
    struct engine *engine;
    struct store *store;
    const struct clock *clock;
};

struct execution {
    const struct wire_offer *offer;
    int64_t fence;
    const struct run_ops *ops;
    void *ops_ctx;
};

/* True when the task succeeded. Otherwise err says why; the result has been published either way.
 */
bool execute_task(const struct worker_env *env, const struct execution *what, struct err *err);
