/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The free space of storage domains while something of ours grows in them: the snapshot of a
 * backup, the new disks of a restore. A domain that runs full pauses its VMs, which is worse than a
 * backup or a restore that was given up.
 *
 * Threads: begin and end are the task's; a guard's callbacks may be called by any thread. The
 * watcher is inside, with an engine session of its own.
 */
#pragma once

#include "worker/copy/copy.h"
#include "worker/step/step.h"

struct space_watch;

/* All borrowed until the end. */
struct space_watch_opts {
    const char *datacenter_id;
    const char *const *domain_ids; /* NULL entries are passed over */
    size_t count;
    const char *what; /* "backup": what is given up; static */
};

/* Looks at once, and then every reserve.watch_s seconds. An engine that does not answer stops
 * nothing: the copy goes on. */
struct space_watch *space_watch_begin(struct task_run *run, const struct space_watch_opts *opts);

/* The callbacks of one disk's copy, with the watch before them: it is cancelled when a domain has
 * been seen with less than half of the reserve. The guard must live as long as the copy. */
struct space_guard {
    const struct space_watch *watch;
    const struct copy_opts *inner;
};
struct copy_opts space_guard_opts(struct space_guard *guard);

/* Stops the watcher and frees. `ok` and `err`: how the copy has ended. Where it was cancelled
 * because a domain was low, and for no other reason, the error becomes no-space, naming the domain.
 * A copy that was done in time is as good as any. */
void space_watch_end(struct space_watch *w, bool ok, struct err *err);

/* Below which a domain is low. */
uint64_t space_limit_bytes(const struct step_settings *settings);
