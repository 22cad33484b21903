/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parts of this task that other workers do, as the task's own worker sees them: given away by
 * an event, heard of by the coordinator's answers. What a backup and a restore share; what becomes
 * of the pieces is theirs.
 *
 *     parts_give(run, &parts)                                  after parts_add() for each
 *     while copying:      parts_look(run, &parts)              never waits
 *     when done:          parts_withdraw_idle(...), and for each part that has ended: take it, or
 *                         do its pieces
 *     before what they hold goes:  parts_end(run, &parts, err)
 *
 * A part that was told to have succeeded may still be of no use (its point is damaged); doing a
 * piece twice costs time, nothing else.
 *
 * Threads: the task's.
 */
#pragma once

#include "worker/step/step.h"

enum part_state {
    PART_ASKED, /* nobody has answered yet */
    PART_WAITING,
    PART_RUNNING,
    PART_DONE,   /* succeeded */
    PART_UNDONE, /* failed, cancelled */
};

struct part {
    struct wire_part ask; /* owned */
    enum part_state state;
    char *task, *worker; /* once known */
    int64_t fence;       /* of its grant; 0 = none */
    char *point;         /* of a backup's part that is done */
    int64_t bytes_done;
    char *why;      /* it is not done */
    bool withdrawn; /* we have asked for its end */
    bool is_silent; /* undone, because nobody has answered in time: it may begin yet */
    bool is_taken;  /* by the caller: nothing of it is open any more */
    bool unclean;   /* it has ended, and a clean-up is at work on what it left behind */
};

struct parts {
    struct part *v;
    size_t count;
    int64_t due_ms;       /* when to ask again; mono */
    int64_t withdrawn_ms; /* when parts_withdraw_idle() was called first; 0 = not yet */
};

/* Can this run give parts away at all? */
bool parts_can(const struct task_run *run);

/* A new one, with the next number; its pieces are taken over. */
struct part *parts_add(struct task_run *run, struct parts *p, struct wire_pieces *pieces);
/* Publish them. */
void parts_give(struct task_run *run, struct parts *p);
/* Take in the newest answer, and ask again when it is time to. What a part holds of its own in the
 * repository becomes a handle. */
void parts_look(struct task_run *run, struct parts *p);

/* Our own work is done: nobody need begin any more what nobody has begun. One that is not answered
 * for in time counts as undone. */
void parts_withdraw_idle(struct task_run *run, struct parts *p);
/* Nobody else was free for some: worth a word to whoever has asked for several workers. `done`:
 * what has become of them here. */
void parts_warn_idle(struct task_run *run, const struct parts *p, const char *done);
/* It has ended, one way or the other. */
bool part_has_ended(const struct part *part);

/* Withdraw what is open, and wait until all have ended; for the clean-ups after them a minute at
 * most: with luck nothing of them holds the snapshot then. True also when there are none. Errors:
 * those of run_check(); timeout when the coordinator does not say so in time: what the parts hold
 * cannot be removed then. */
bool parts_end(struct task_run *run, struct parts *p, struct err *err);

/* Does a clean-up still work on what some of them left behind? As of the newest answer. */
bool parts_are_unclean(struct task_run *run, struct parts *p);

/* Wait until nothing can begin any more: the coordinator has answered for what was taken for undone
 * because it had not. For who is about to give away what a part would write to. As long as it
 * takes; errors: those of run_check(). */
bool parts_settle(struct task_run *run, struct parts *p, struct err *err);

/* Frees what it owns; a zeroed struct is fine. */
void parts_done(struct parts *p);
