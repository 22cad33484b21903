/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs one request (flow.h) over the broker until it ends, time is up or the user presses Ctrl-C.
 *
 * Threads: one. Signals: SIGINT, SIGTERM and SIGHUP end the waiting once the connection stands, not
 * the job; SIGWINCH is told.
 */
#pragma once

#include "coordinator/cli/connect.h"
#include "coordinator/cli/flow.h"
#include "coordinator/cli/output.h"

struct request_opts {
    const struct connect_args *connect;
    const struct output_args *output;
    enum flow_kind kind;
    enum wire_type type;
    const void *message;
    const char *follow; /* FLOW_FOLLOW: the request's UUID */
    bool wait;
    int64_t timeout_ms; /* 0 = for ever */
    struct flow_events events;
    /* Several times a second, with monotonic time; NULL = not needed. */
    void (*tick)(void *ctx, int64_t now_ms);
    /* Take away what stands on the terminal: something else will be printed. NULL = nothing. */
    void (*clear)(void *ctx);
    /* What went wrong with the request itself, and what to do (may be NULL); NULL = it is said on
     * standard error. */
    void (*problem)(void *ctx, const struct err *err, const char *advice);
    void *ctx; /* of events, tick, clear and problem */
};

/* Returns an exit code (enum cli_exit). Says on standard error what went wrong, what it means for
 * the job and what to do. */
int request_run(const struct request_opts *opts);

/* --- Options of verbs that wait --------------------------------------------------------------- */
struct wait_args {
    bool no_wait;
    int64_t timeout_s; /* 0 = not given */
};
/* argp child; its input is a struct wait_args. */
extern const struct argp wait_argp;
