/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The free space of the storage domains that a VM's disks lie in, while a snapshot of them grows
 * there: a domain that runs full pauses its VMs, which is worse than a backup that was given up.
 *
 * Threads: begin and end are the task's; space_watch_is_low() may be asked by any thread. The
 * watcher is inside, with an engine session of its own.
 */
#pragma once

#include "worker/step/backup.h"

struct space_watch;

/* Looks at once, and then every reserve.watch_s seconds. An engine that does not answer stops
 * nothing: the copy goes on. */
struct space_watch *space_watch_begin(struct task_run *run, const struct backup *b);

/* Has a domain been seen with less than half of the reserve? */
bool space_watch_is_low(const struct space_watch *w);

/* Stops the watcher and frees. err is empty before. False with no-space, naming the domain, when it
 * was low. */
bool space_watch_end(struct space_watch *w, struct err *err);

/* Below which a domain is low. */
uint64_t space_limit_bytes(const struct step_settings *settings);
