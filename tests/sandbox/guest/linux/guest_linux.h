/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A real Linux guest: a kernel and an initramfs (make-guest) under QEMU's TCG, whose two ext4 disks
 * are NBD exports of a VM's storage daemon, with the QEMU guest agent. Its workload is glog.h.
 *
 * It makes the file systems itself on disks that are all zeroes (at least 16 MiB each). A disk that
 * holds something else and cannot be mounted is left alone, and the guest ends.
 *
 * Boots in seconds, uses about 280 MB and a third of a core. Threads: calls on one guest are
 * serialised by the caller, except linux_guest_acked().
 */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "proto/base/err.h"

struct linux_guest_opts {
    const char *run_dir; /* made if missing: sockets, serial.log, acks */
    const char *kernel, *initrd;
    const char *uri_a, *uri_b;       /* NBD on unix sockets: /dev/vda and /dev/vdb */
    const char *serial_a, *serial_b; /* of the disks, at most 20 characters */
};

struct linux_guest;

struct linux_guest *linux_guest_start(const struct linux_guest_opts *opts, struct err *err);
/* Pull the plug. NULL is fine. */
void linux_guest_stop(struct linux_guest *g);
pid_t linux_guest_pid(const struct linux_guest *g);
bool linux_guest_is_running(struct linux_guest *g);

/* The last record the guest acknowledged; 0 before the first. */
uint64_t linux_guest_acked(const struct linux_guest *g);
/* Wait for record `n`. A first boot takes 3 to 20 seconds. */
bool linux_guest_wait(struct linux_guest *g, uint64_t n, int64_t timeout_ms, struct err *err);

/* The guest agent. Freezing flushes all file systems and blocks their writers; the agent refuses
 * nearly everything but a thaw while frozen. */
bool linux_guest_ping(struct linux_guest *g, int64_t timeout_ms, struct err *err);
bool linux_guest_freeze(struct linux_guest *g, int64_t timeout_ms, struct err *err);
bool linux_guest_thaw(struct linux_guest *g, int64_t timeout_ms, struct err *err);
bool linux_guest_is_frozen(struct linux_guest *g, bool *ret_frozen, int64_t timeout_ms,
                           struct err *err);
