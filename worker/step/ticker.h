/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Something to look after while the task's thread waits for a copy: a function that is called every
 * so often, on a thread of its own, with an engine session of its own.
 *
 * Threads: begin and end belong to the task's thread; the function must share what it touches.
 */
#pragma once

#include "worker/ovirt/engine.h"
#include "worker/step/step.h"

/* False = not again. An engine call under way ends with cancelled when the ticker is ended. */
typedef bool (*ticker_fn)(void *ctx, struct engine_session *session);

struct ticker_opts {
    const char *name; /* of the thread, and of the engine session's step; static */
    int64_t every_s;
    bool at_once; /* the first call needs no wait */
    ticker_fn tick;
    void *ctx;
};

struct ticker;
struct ticker *ticker_begin(struct task_run *run, const struct ticker_opts *opts);
/* Waits for the call under way. NULL is fine. */
void ticker_end(struct ticker *t);
