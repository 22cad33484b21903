/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which VMs a backup request means. Inventory tasks (role select), one per zone, ask the workers;
 * their pages become one backup task per VM; VMs that were named but that no zone knows become
 * tasks that have failed already, so that the requester is told of each.
 *
 * Threads: one at a time.
 */
#pragma once

#include "coordinator/core.h"

/* Make tasks of the pages that a selection task gathered. Changes and saves the request. What was
 * left out of a broad selection is told in `ret_warnings` (zeroed before;
 * select_warnings_done()). */
bool select_take_pages(struct core *core, const struct task *t, int64_t pages,
                       struct wire_warnings *ret_warnings, struct err *err);
void select_warnings_done(struct wire_warnings *warnings);
#define SCOPED_SELECT_WARNINGS __attribute__((cleanup(select_warnings_done), unused))

/* All selection tasks of `r` have ended. Calls `missing` for each id or name that was asked for and
 * that no task stands for. */
struct select_missing {
    const char *id, *name; /* one of them */
    const struct err *why;
};
typedef bool (*select_missing_fn)(struct core *core, struct request *r,
                                  const struct select_missing *what, struct err *err);
bool select_each_missing(struct core *core, struct request *r, select_missing_fn missing,
                         struct err *err);
