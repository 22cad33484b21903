/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest of a VM: synthetic or (guest_start_linux) a real Linux.
 *
 * A synthetic guest is the process sandbox-writer, an NBD client of the VM's disks that lays down
 * the initial content and then does the numbered writes of pattern.h until it is stopped.
 *
 * It outlives its VM's restart in the state file: it goes on after the last acknowledged
 * write. What it acknowledged but had not flushed may be lost when the VM's daemon is killed; it
 * then does those writes again before anything else, so an image taken while `state` is not running
 * or frozen proves nothing.
 *
 * Threads: calls on one guest are serialised by the caller, except guest_state_read().
 */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "proto/base/err.h"
#include "tests/sandbox/guest/linux/guest_linux.h"

enum guest_phase {
    GUEST_FILLING,   /* laying down the initial content */
    GUEST_REPLAYING, /* connecting, or repeating what a crash may have lost */
    GUEST_RUNNING,
    GUEST_FROZEN,
    GUEST_DONE, /* it did as many writes as it was told to */
};

struct guest_state {
    enum guest_phase phase;
    uint64_t acked;   /* the last write that was acknowledged */
    uint64_t flushed; /* the last write known to be durable */
    uint64_t errors;  /* writes and flushes that failed and were repeated */
};

const char *guest_phase_name(enum guest_phase phase);
/* Read a state file. Errors: not-found while there is none yet, bad-argument, io-error. */
bool guest_state_read(const char *path, struct guest_state *ret, struct err *err);
bool guest_state_write(int fd, const struct guest_state *state, struct err *err);

struct guest_disk {
    const char *id;  /* as in the spec */
    const char *uri; /* NBD */
};

struct guest_opts {
    const char *program; /* NULL = sandbox-writer beside this program, else from PATH */
    const char *run_dir; /* made if missing; receives writer.state, writer.sock, writer.log */
    const char *spec_path;
    const struct guest_disk *disks; /* all disks of the spec */
    size_t disk_count;
    double writes_per_s;  /* 0 = as fast as it goes */
    unsigned flush_every; /* writes; 0 = the default */
    uint64_t count;       /* end after that write; 0 = never */
    bool fill;            /* lay down the initial content unless the state file says it is there */
};

struct guest;

/* Start the process. The state file of an earlier run in run_dir is taken up. */
struct guest *guest_start(const struct guest_opts *opts, struct err *err);
/* The same for a Linux guest: all calls below work on it, too, freezing through its agent. It is
 * "replaying" while it boots, and all that it acknowledges is flushed. */
struct guest *guest_start_linux(const struct linux_guest_opts *opts, struct err *err);
/* Power off: the process is killed. NULL is fine. */
void guest_stop(struct guest *g);
pid_t guest_pid(const struct guest *g);
bool guest_is_running(struct guest *g);

bool guest_state(const struct guest *g, struct guest_state *ret, struct err *err);
/* Wait until it is running, with at least `acked` writes acknowledged. */
bool guest_wait(struct guest *g, uint64_t acked, int64_t timeout_ms, struct err *err);
/* What the guest agent's fsfreeze is to a real guest: flush, then stop writing until thawed.
 * Freezing twice is fine. `ret_acked` may be NULL. */
bool guest_freeze(struct guest *g, int64_t timeout_ms, uint64_t *ret_acked, struct err *err);
bool guest_thaw(struct guest *g, int64_t timeout_ms, struct err *err);
