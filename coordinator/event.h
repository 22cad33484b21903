/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What workers say: claims, steps, progress of a copy, pages of a listing, results, presence.
 *
 * Each event is tolerated twice, late and out of order: who sent it is compared with what the
 * ledger knows (task, attempt, fence, sequence), and what is not from the present owner of the task
 * changes nothing.
 *
 * Threads: one at a time. Errors: those of the ledger; bad-message for an event that makes no
 * sense.
 */
#pragma once

#include "coordinator/core.h"

/* `body` is the message as it came, kept in the journal. */
bool event_handle(struct core *core, const struct wire_message *m, const char *message_id,
                  const char *body, struct err *err);
/* Whether this type is an event at all. */
bool event_is(enum wire_type type);
