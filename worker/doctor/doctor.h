/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A worker's check-up: is all around it as it must be for backups and restores to work? The
 * machine it runs on, the devices, the engine, the repository and, when asked, the broker. Each
 * check is one row of a table (check_*.c): a name, a function, and what to do.
 *
 * Nothing is changed, except for a temporary file in the repository. A check that cannot be made
 * because of another finding is skipped and says so. Every call to the engine has a limit; a file
 * server that hangs can hang a check: doctor_read() tells from another thread what is known so far.
 *
 * Threads: doctor_run() on one thread; doctor_read() on any, at any time.
 */
#pragma once

#include "proto/base/clock.h"
#include "proto/wire/finding.h"
#include "worker/conf.h"

struct doctor;
struct engine;

struct doctor_opts {
    const struct worker_conf *conf; /* borrowed */
    const char *conf_path;          /* for messages; borrowed */
    bool broker; /* look at the broker, too: not from within a worker that serves */
    /* A place for the connection to the engine, kept from one check-up of a program to the next, so
     * that a refused password is not tried again and the account not locked. The caller frees it at
     * its end (engine_free); NULL = each check-up has its own. */
    struct engine **engine;
    const char *only;          /* only checks whose names begin so; NULL = all */
    int64_t limit_s;           /* no new check after this; 0 = 60 */
    const char *root;          /* where /etc, /proc, /run and /sys are looked for; NULL = / */
    const struct clock *clock; /* NULL = the machine's */
};

struct doctor *doctor_new(const struct doctor_opts *opts);
/* Makes all checks, in the order of the tables. */
void doctor_run(struct doctor *d);
/* From another thread: no more checks, and the engine is waited for no longer. */
void doctor_stop(struct doctor *d);
/* Not while doctor_run() runs. */
void doctor_free(struct doctor *d);
DEFINE_SCOPED(doctor, doctor_free);

/* What is known so far. */
struct doctor_report {
    struct wire_findings findings; /* copies */
    char *repository;              /* its id; NULL = could not be read, or not yet */
    const char *now;               /* the check that is being made; NULL = none */
    bool done;
};
void doctor_read(struct doctor *d, struct doctor_report *ret);
void doctor_report_done(struct doctor_report *report);

/* "oxbow-worker doctor ...": argv[0] is "doctor". Returns the exit code: 0 = no failure was found,
 * 1 = one or more, 2 = the command line or the configuration is wrong. */
int doctor_main(int argc, char **argv);
