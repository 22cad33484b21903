/* SPDX-License-Identifier: Apache-2.0 */
/*
 * QEMU 7.2 reads requests from /dev/fuse by a descriptor that blocks (block/export/fuse.c,
 * read_from_fuse_export). When the process that made a request is killed between the daemon's poll
 * and its read, the request is taken back by the kernel, and the daemon's only thread waits for the
 * next one on that very mount: it serves no other device, and no monitor, until somebody reads.
 */
#pragma once

#include <sys/types.h>

#include "proto/base/err.h"

/* Make all descriptors of /dev/fuse of this child O_NONBLOCK; libfuse and QEMU take EAGAIN for "no
 * request". Where one process may not have another's descriptors, as in some containers, they stay
 * as they are, with a warning in the log. */
bool fuse_set_nonblocking(pid_t pid, struct err *err);
