/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The task kinds: one file and one row each. A kind says in which lane it runs, what it needs, and
 * which steps do it.
 */
#pragma once

#include "proto/wire/topology.h"
#include "worker/step/step.h"

struct task_kind {
    const char *name; /* of the offer: backup | restore | inventory | list | cleanup | sweep ... */
    enum lane lane;
    bool needs_engine, needs_store;
    const struct step *steps;
    size_t step_count;
    /* The state that the steps share, made before the first and freed after the last. NULL = none.
     * state_new may refuse an offer that lacks what the kind needs (bad-message). */
    void *(*state_new)(struct task_run *run, struct err *err);
    void (*state_free)(void *state);
};

/* NULL for an unknown name. */
const struct task_kind *task_kind_find(const char *name);
/* All kinds, for tests and help. */
const struct task_kind *const *task_kinds(size_t *ret_count);

extern const struct task_kind task_backup;
extern const struct task_kind task_backup_part;
extern const struct task_kind task_restore;
extern const struct task_kind task_restore_part;
extern const struct task_kind task_export;
extern const struct task_kind task_inventory;
extern const struct task_kind task_list;
extern const struct task_kind task_cleanup;
extern const struct task_kind task_sweep;
extern const struct task_kind task_prune;
extern const struct task_kind task_verify;
extern const struct task_kind task_plan;
