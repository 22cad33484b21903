/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a verb of the program `oxbow` is: a name, an option table and a function. Each verb lives in
 * its own file; main.c holds the table of them. Help, the bash completion and the tests that hold
 * the manual page against the program are all derived from that table.
 *
 * Threads: the program has one.
 */
#pragma once

#include <argp.h>

/* Exit codes, as documented in oxbow(1). */
enum cli_exit {
    CLI_SUCCEEDED = 0,
    CLI_FAILED = 1,       /* nothing of what was asked for succeeded */
    CLI_USAGE = 2,        /* the command line or the configuration is wrong; nothing was sent */
    CLI_PARTLY = 3,       /* some VMs succeeded, some failed */
    CLI_REFUSED = 4,      /* the coordinator refused the request */
    CLI_BROKER = 5,       /* the broker cannot be reached or refuses us */
    CLI_CANCELLED = 6,    /* the request was cancelled */
    CLI_TIMED_OUT = 7,    /* no longer waiting; the job goes on */
    CLI_INTERRUPTED = 128 /* + the signal's number: 130 after Ctrl-C; the job goes on */
};

struct cli_verb {
    const char *name;
    const char *summary; /* for the list of verbs */
    const struct argp *argp;
    /* argv[0] is "oxbow VERB". Returns an exit code. */
    int (*run)(int argc, char **argv);
};

extern const struct cli_verb verb_backup, verb_restore, verb_list, verb_status, verb_cancel,
    verb_inventory, verb_prune, verb_verify, verb_plan, verb_sweep, verb_doctor, verb_export;
