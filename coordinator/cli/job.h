/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Running a job from the command line (backup, restore, cancel): send it, show how it goes, report
 * each VM's end and the whole. Threads: one.
 */
#pragma once

#include "coordinator/cli/request.h"

enum job_progress {
    JOB_PROGRESS_AUTO,  /* live on a terminal, else plain; none with --json or --quiet */
    JOB_PROGRESS_LIVE,  /* lines that are redrawn in place */
    JOB_PROGRESS_PLAIN, /* a line on standard error at each change */
    JOB_PROGRESS_JSON,  /* with --json: progress replies among the other lines */
    JOB_PROGRESS_NONE,
};

struct job_args {
    struct connect_args connect;
    struct output_args output;
    struct wait_args wait;
    enum job_progress progress;
};
/* argp child with the options above; its input is a struct job_args. */
extern const struct argp job_argp;

/* Whether progress replies are wanted at all: for the request's `progress` member. */
bool job_wants_progress(const struct job_args *args);

/* Send it and see it through. Returns an exit code. */
int job_run(const struct job_args *args, enum flow_kind kind, enum wire_type type,
            const void *message);
/* See a request of somebody else through, by its UUID. Returns the exit code that it would have
 * had. */
int job_follow(const struct job_args *args, const char *request);
