/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The desk: takes messages in, one transaction per batch, and says which ones may be acknowledged.
 * Everything of the coordinator except broker I/O is behind this interface, so tests drive the
 * whole state machine through it with a clock of their own.
 *
 *     desk_begin(d, err)
 *     for each message: verdict = desk_handle(d, &message, &why)
 *     desk_commit(d, err)         -- runs due timers and admission first
 *     then: ack DONE, bury BURY, and publish the outbox
 *
 * A message that makes no sense is buried with its reason and changes nothing; only a fault of the
 * ledger itself stops the desk (false from begin or commit, FATAL from handle): nothing of the
 * batch is kept, nothing may be acknowledged, the program should end.
 *
 * Threads: one at a time.
 */
#pragma once

#include "coordinator/core.h"
#include "proto/base/clock.h"

struct desk;

struct desk_message {
    enum { DESK_REQUEST, DESK_EVENT } source;                  /* which queue it came from */
    const char *type, *message_id, *correlation_id, *reply_to; /* NULL if absent */
    const void *body;
    size_t len;
};

enum desk_verdict { DESK_DONE, DESK_BURY, DESK_FATAL };

/* `conf` and `clock` are borrowed; the ledger is opened at conf->ledger. */
struct desk *desk_new(const struct coordinator_conf *conf, const struct clock *clock,
                      struct err *err);
void desk_free(struct desk *d);
DEFINE_SCOPED(desk, desk_free);

bool desk_begin(struct desk *d, struct err *err);
/* `why` is set for BURY and FATAL. */
enum desk_verdict desk_handle(struct desk *d, const struct desk_message *m, struct err *why);
/* Inside a batch: this queue was deleted, and is there again, empty. What lay in it is lost: offers
 * go out again; a message to us is its sender's matter. */
bool desk_queue_deleted(struct desk *d, const char *queue, struct err *err);
bool desk_commit(struct desk *d, struct err *err);
/* Drop the transaction in hand. */
void desk_rollback(struct desk *d);

/* The connection came or went: leases and workers get their full time from a reconnect on. */
void desk_set_connected(struct desk *d, bool connected);
/* Milliseconds until something is due, at most `most_ms`; 0 = now. */
bool desk_wait_ms(struct desk *d, int64_t most_ms, int64_t *ret_ms, struct err *err);

/* --- What is to be published ------------------------------------------------------------------ */
/* Committed messages after number `after_n`; the caller calls outgoing_list_done(). */
bool desk_outbox(struct desk *d, int64_t after_n, int64_t limit, struct outgoing_list *ret,
                 struct err *err);
bool desk_outbox_get(struct desk *d, int64_t n, struct outgoing_list *ret, struct err *err);
/* The broker confirmed it; forgotten with the next commit. */
void desk_confirmed(struct desk *d, int64_t n);
/* Confirmed messages that are still in the ledger. */
size_t desk_confirmed_count(const struct desk *d);
/* Progress replies of the batch; the caller sends them before the outbox, or drops them. Valid
 * until desk_drop_fleeting(). */
const struct fleeting *desk_fleeting(const struct desk *d, size_t *ret_count);
void desk_drop_fleeting(struct desk *d);

const struct core_counters *desk_counters(const struct desk *d);
/* For tests and the status line. */
struct core *desk_core(struct desk *d);
