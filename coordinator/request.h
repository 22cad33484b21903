/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What requesters ask: a request is checked, given its id, answered with accepted or refused, and
 * planned into tasks (plan.c), or answered at once (status.c), or it ends others (cancel.c).
 *
 * The same request twice is one job: a message that comes again (same message id, or same
 * correlation id, and same body) is ignored; the same idempotency key again is answered with the
 * first request's id and its outcomes so far.
 *
 * Threads: one at a time. Errors: those of the ledger.
 */
#pragma once

#include "coordinator/core.h"

/* The properties of a request message; absent ones are NULL. `body` is the text as it came. */
struct inbound {
    const char *message_id, *correlation_id, *reply_to;
    const char *body;
};

bool request_is(enum wire_type type);
bool request_handle(struct core *core, const struct wire_message *m, const struct inbound *in,
                    struct err *err);
/* Tell the requester, if it can be told, that the message was not understood. */
bool request_refuse(struct core *core, const struct inbound *in, const struct err *why,
                    struct err *err);
/* The type that a message without a type property names in its body ("type": "oxbow.backup.v1"),
 * for clients that cannot set properties. NULL when there is none; the caller frees. */
char *request_type_of_body(const char *body);
