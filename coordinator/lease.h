/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Claims, grants and leases: who owns a running task, and when it has lost it.
 *
 * A lease is renewed by every event that carries the right task and fence, and by its worker's
 * presence. It runs out two lease times after the last renewal, counted only while the broker
 * connection stands: after a start or a reconnect every lease has its full time again. A worker
 * stops by its own clock after one lease time, so that it has stopped before we give the task away.
 *
 * Threads: one at a time. Errors: those of the ledger.
 */
#pragma once

#include "coordinator/core.h"

/* Leases of all running tasks, anew. After a start, and whenever memory and ledger may differ. */
bool lease_reload(struct core *core, struct err *err);

/* `message_id` tells a doubled claim from a second one. */
bool lease_claim(struct core *core, const struct wire_claim *claim, const char *message_id,
                 struct err *err);

/* An event of this task, fence and worker: true when it is from the owner, whose lease is renewed.
 */
bool lease_is_owner(const struct core *core, const struct task *t, const char *worker,
                    int64_t attempt, int64_t fence);
void lease_renew_task(struct core *core, const char *task, int64_t now_ms);

/* A worker says what it runs. Renews these; a task that it should run and does not name twice in a
 * row is lost once its worker's own time is over. */
bool lease_presence(struct core *core, const struct wire_presence *p, struct err *err);

/* Tasks that were told to stop and go on for more than conf->stop_limit_s: their workers are told
 * that the task is theirs no longer, and nothing renews the lease any more. */
bool lease_give_up_stopped(struct core *core, struct err *err);

/* A running task has lost its owner: its lease ran out, or the owner says itself (`said`) that it
 * has given up for want of a confirmed lease, having taken nothing back. The task waits for its
 * next attempt, or ends if it was to be stopped or was lost too often. */
bool lease_lose(struct core *core, struct task *t, const struct wire_error *said, struct err *err);

/* Take tasks away whose lease has run out. */
bool lease_expire(struct core *core, struct err *err);
/* When the next lease may run out; 0 = none. */
int64_t lease_next_ms(const struct core *core);
