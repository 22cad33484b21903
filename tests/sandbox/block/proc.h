/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Child processes of the sandbox: daemons that must not outlive it, and tools that run to their
 * end.
 *
 * Each daemon has a thread that forked it and waits for it. The kernel's parent-death signal
 * follows the thread that forked, not the process: a daemon forked by a request thread would die
 * with that request. A child gets no file descriptor of ours except 0..2 and those given.
 *
 * Threads: a struct proc may be used from any thread; proc_free() once nobody else uses it.
 */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "proto/base/alloc.h"
#include "proto/base/err.h"

struct proc;

struct proc_opts {
    const char *const *argv;  /* ends with NULL; argv[0] is looked up in PATH */
    const char *const *extra; /* "NAME=value" environment entries, ends with NULL; NULL = none */
    const char *log_path;     /* standard output and error go here (truncated); NULL = /dev/null */
    int pass_fd;              /* becomes descriptor 3 of the child; -1 = none. Not closed here */
    int death_signal;         /* sent to the child when this process dies, e.g. SIGTERM */
};

/* Start a daemon in its own process group. */
struct proc *proc_start(const struct proc_opts *opts, struct err *err);
/* Kills the process if it still runs, waits for it, frees. NULL is fine. */
void proc_free(struct proc *p);
pid_t proc_pid(const struct proc *p);
bool proc_is_running(struct proc *p);
/* True when it has ended within the time. `ret_status` (may be NULL): as waitpid(2). */
bool proc_wait(struct proc *p, int64_t timeout_ms, int *ret_status);
/* Sends a signal unless the process has ended already. */
void proc_signal(struct proc *p, int signo);

/* Run a tool to its end. A non-zero exit is an error that carries the tail of its standard error:
 * conflict when that text says the image is locked, else io-error. `ret_out` (may be NULL) receives
 * its standard output, at most 4 MiB; the caller frees. */
bool proc_run(const char *const *argv, char **ret_out, struct err *err);

DEFINE_SCOPED(proc, proc_free);
