/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the steps of an export tell each other, and the steps themselves. The VM's snapshot is made
 * as for a backup; then the engine does the work: it clones the snapshot, and writes the clone out.
 * The worker asks, waits, and removes what was made. What a dead attempt had the engine begin goes
 * on without it, and the next one waits for the end of it instead of beginning anew.
 */
#pragma once

#include "worker/step/backup.h"

struct export
{
    struct backup base; /* first: the steps of a backup take the state for this */
    const struct wire_export_opts *opts;
    char *clone_name; /* the same for all attempts of a task */
    char *clone_id;   /* once it is there */
    char *host_id, *domain_id;
    char *goal; /* their name, for people */
};

void *export_new(struct task_run *run, struct err *err);
void export_free(void *state);

/* A guest that a dead attempt may have left frozen, or that is frozen late. */
void export_thaw_in_case(struct task_run *run);
/* What an earlier attempt made, and how far it came. */
bool step_find_earlier(struct task_run *run, struct err *err);
bool step_export_precheck(struct task_run *run, struct err *err);
/* With a clone in hand there is nothing to freeze or snapshot for. */
enum probe_answer probe_export_quiesce(struct task_run *run, struct err *err);
enum probe_answer probe_export_snapshot(struct task_run *run, struct err *err);

enum probe_answer probe_clone(struct task_run *run, struct err *err);
bool step_clone(struct task_run *run, struct err *err);
bool undo_clone(struct task_run *run, struct err *err);
/* The snapshot is needed no longer: away with it. A failure is tried again at the end. */
bool step_merge_early(struct task_run *run, struct err *err);

enum probe_answer probe_export(struct task_run *run, struct err *err);
bool step_export(struct task_run *run, struct err *err);
bool step_remove(struct task_run *run, struct err *err);
