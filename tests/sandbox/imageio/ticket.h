/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tickets of an imageio server, and the operations that run under them. All state is behind one
 * lock; a ticket that a connection or an operation holds outlives its removal.
 */
#pragma once

#include "tests/sandbox/imageio/imageio.h"

struct ticket_table;
struct ticket;

struct ticket_table *ticket_table_new(void);
/* No ticket may be held any more. */
void ticket_table_free(struct ticket_table *t);

bool ticket_add(struct ticket_table *t, const struct imageio_ticket *opts, struct err *err);
bool ticket_extend(struct ticket_table *t, const char *id, unsigned timeout_s, struct err *err);
bool ticket_info(struct ticket_table *t, const char *id, struct imageio_ticket_info *ret,
                 struct err *err);
bool ticket_remove(struct ticket_table *t, const char *id, int64_t timeout_ms, struct err *err);
/* End all operations: the server stops. */
void ticket_cancel_all(struct ticket_table *t);

/* The ticket, held for the caller, or NULL with the reason of the refusal as the error's message.
 */
struct ticket *ticket_authorize(struct ticket_table *t, const char *id, bool write,
                                struct err *err);
void ticket_release(struct ticket *k);
/* One more holder; returns it. */
struct ticket *ticket_hold(struct ticket *k);
/* What it allows; valid while held. */
const struct imageio_ticket *ticket_opts(const struct ticket *k);
/* Counts as use: it expires later. */
void ticket_touch(struct ticket *k);
/* A connection begins or ceases to use it. */
void ticket_join(struct ticket *k);
void ticket_leave(struct ticket *k);

/* One operation. */
struct ticket_op;
/* NULL when the ticket was cancelled meanwhile. Holds the ticket itself. */
struct ticket_op *ticket_begin(struct ticket *k, uint64_t offset, struct err *err);
/* So many more bytes are done; false when the operation has been cancelled and must end. */
bool ticket_progress(struct ticket_op *op, uint64_t bytes);
void ticket_end(struct ticket_op *op);
