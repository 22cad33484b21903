/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The worker's jobs, as the I/O thread sees them: offers it holds, claims it has made, tasks that
 * run; and how many slots each lane has left. Pure bookkeeping: knows no broker and no runner.
 *
 *   WAITING   an offer is held (unacked): its lane has no slot, or an older run of its task must
 *             end first
 *   CLAIMED   the claim is out; until_ms = when the answer is overdue
 *   PAUSED    nobody answered; the offer goes back to its queue at until_ms
 *   RUNNING   granted and acked; the runner has it
 *
 * Threads: the I/O thread only.
 */
#pragma once

#include "proto/base/id.h"
#include "proto/wire/topology.h"

enum job_state { JOB_WAITING, JOB_CLAIMED, JOB_PAUSED, JOB_RUNNING };

struct job {
    struct job *next;
    enum job_state state;
    char task[ID_BYTES];
    char request[ID_BYTES];
    int64_t attempt;
    enum lane lane;
    uint64_t tag;                /* of the delivery, until RUNNING */
    struct wire_message message; /* the offer, until RUNNING; owned */
    int64_t until_ms;
    int64_t fence, granted_ms;
};

enum { SLOTS_ENDED_KEPT = 64 };

struct slots {
    int total[LANE_COUNT];
    struct job *jobs; /* in order of arrival */
    /* Tasks that ended lately: a doubled grant of one is no news. */
    struct {
        char task[ID_BYTES];
        int64_t fence;
    } ended[SLOTS_ENDED_KEPT];
    size_t ended_next;
};

void slots_init(struct slots *s, int restore, int backup, int upkeep);
void slots_done(struct slots *s);

/* A new job in state WAITING; owns the offer. */
struct job *slots_add(struct slots *s, struct wire_message *offer, enum lane lane, uint64_t tag);
/* Removes and frees. A RUNNING one is remembered as ended. */
void slots_remove(struct slots *s, struct job *job);

/* The job of this task and attempt, or NULL. */
struct job *slots_find(const struct slots *s, const char *task, int64_t attempt);
/* The job of this task that runs, whatever its attempt, or NULL. */
struct job *slots_running_task(const struct slots *s, const char *task);
bool slots_has_ended(const struct slots *s, const char *task, int64_t fence);

/* Could this job run at once: a slot of its lane is free, and no older run of its task is there? */
bool slots_can_run(const struct slots *s, const struct job *job);
/* May this WAITING job be claimed now? */
bool slots_can_claim(const struct slots *s, const struct job *job);
/* Slots of a lane that no running task has. */
int slots_not_running(const struct slots *s, enum lane lane);
size_t slots_count_running(const struct slots *s);
