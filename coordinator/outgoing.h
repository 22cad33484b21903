/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages that leave: replies, offers and control, put into the outbox of the transaction in hand.
 * Progress replies alone go to the fleeting list.
 *
 * Threads: one at a time. Errors: those of the ledger; too-large when a message does not fit.
 */
#pragma once

#include "coordinator/core.h"

/* One reply to everybody who waits for this request. `body` is encoded already. */
bool outgoing_reply_body(struct core *core, const struct request *r, enum wire_type type,
                         const char *body, struct err *err);
bool outgoing_reply(struct core *core, const struct request *r, enum wire_type type,
                    const void *message, struct err *err);
/* One reply to one queue. NULL `queue`: nobody asked for replies, nothing happens. */
bool outgoing_reply_to(struct core *core, const char *queue, const char *correlation_id,
                       enum wire_type type, const char *body, struct err *err);

/* Items as page replies to one queue, at most WIRE_PAGE_MAX a page and fewer when the page would be
 * too large. *page counts on. */
bool outgoing_pages(struct core *core, const char *queue, const char *correlation_id,
                    const char *request, const struct wire_item_list *items, int64_t *page,
                    struct err *err);

/* `body` is the encoded offer. */
bool outgoing_offer(struct core *core, const struct task *t, const char *body, struct err *err);
/* A grant or denial answers a claim: its correlation id is the claim's message id (NULL = none), so
 * that a worker can tell the answers to its own claims from those to a process before it. */
bool outgoing_grant(struct core *core, const struct task *t, const char *claim_id, struct err *err);
bool outgoing_deny(struct core *core, const struct wire_claim *claim, const char *claim_id,
                   const char *reason, struct err *err);
bool outgoing_stop(struct core *core, struct task *t, const char *reason, struct err *err);
bool outgoing_parted(struct core *core, const struct wire_parted *m, const char *request,
                     struct err *err);
bool outgoing_checkup(struct core *core, const struct wire_checkup *m, struct err *err);

/* Tell those who wait for `r` how the task stands, if they asked for progress. `min_gap_ms`: not
 * when it was told less than so long ago. What a part copies is told as its main task's. */
bool outgoing_progress(struct core *core, const struct task *t, int64_t min_gap_ms,
                       struct err *err);
/* Forget what was not sent. */
void outgoing_drop_fleeting(struct core *core);
