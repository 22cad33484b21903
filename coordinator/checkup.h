/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Check-ups (`doctor` requests): the coordinator tells what it sees itself, asks each worker to
 * check its surroundings, and hands on what they find, until all have answered or their time is up.
 *
 * A check-up is not kept in the ledger: it leaves no trace, and ends with the program.
 *
 * Threads: one at a time. Errors: those of the ledger and the codec.
 */
#pragma once

#include "coordinator/core.h"

/* The check-ups under way; NULL is an empty list. */
struct checkup;

/* Whether one may begin: the worker that is named is known, and not too many are under way. */
bool checkup_check(struct core *core, const void *message, struct err *why);
/* Begin one; replies go to `queue`. A double of one that is under way is void. */
bool checkup_answer(struct core *core, const char *request_id, const void *message,
                    const char *queue, const char *correlation_id, struct err *err);
/* A worker's answer; one that nobody waits for is void. */
bool checkup_checked(struct core *core, const struct wire_checked *m, struct err *err);

/* When the next one's time is up; 0 = there is none. */
int64_t checkup_next_ms(const struct core *core);
/* End those whose time is up: who has not answered is told. */
bool checkup_expire(struct core *core, struct err *err);
/* Forget all of them. */
void checkup_drop_all(struct core *core);
