/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What tasks left behind in the engine: from a worker's own list, or, when a worker is gone, from
 * the handles in the journal. Kept in the ledger until a clean-up task has removed it.
 *
 * Threads: one at a time.
 */
#pragma once

#include "coordinator/core.h"

/* Remember a worker's list. */
bool leftovers_keep(struct core *core, const char *task, const struct wire_leftovers *list,
                    struct err *err);
/* Remember all that the newest event of each attempt held. An attempt's events carry all its
 * handles, so the newest is complete; a thing of an earlier attempt that is gone by now is found
 * gone by the clean-up. */
bool leftovers_keep_of_journal(struct core *core, const struct task *t, struct err *err);
/* Remember all that attempts had attached or opened: a call of one that is dead may take effect
 * later than anybody looks, and keep a clean-up from removing the rest. */
bool leftovers_keep_holds(struct core *core, const struct task *t, struct err *err);
/* Remember, as the main task's, all that its part ever had attached or opened: for the same reason.
 * The part's own clean-up may be over by then. */
bool leftovers_keep_holds_of_part(struct core *core, const struct task *part,
                                  const struct task *main_task, struct err *err);
/* Remember snapshots and attachments of a late event: an attempt that was given up already has made
 * them. The VM and disks of a restore are left out: the next attempt may have taken them over. What
 * nobody took is found by the next sweep. */
bool leftovers_keep_late(struct core *core, const struct task *t,
                         const struct wire_handles *handles, struct err *err);

/* What is to be removed, as many as fit an offer; *ret_upto is the number of the last one. The
 * caller frees with leftovers_free(). */
bool leftovers_load(struct core *core, const char *task, struct wire_leftovers *ret,
                    int64_t *ret_upto, struct err *err);
void leftovers_free(struct wire_leftovers *list);
#define SCOPED_LEFTOVERS __attribute__((cleanup(leftovers_free), unused))
