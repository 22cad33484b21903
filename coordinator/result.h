/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The end of an attempt, as its worker tells it: the task has ended, or it is tried again later, or
 * it was given back untouched. Steers by the error's code and retry advice only.
 *
 * Threads: one at a time. Errors: those of the ledger.
 */
#pragma once

#include "coordinator/core.h"

bool result_handle(struct core *core, const struct wire_result *result, struct err *err);

/* How long to wait before the next attempt after so many failures (from 1). Clean-ups are patient
 * and never give up. */
int64_t result_retry_ms(const char *retry, int64_t failures, bool cleanup);
/* The longest wait that result_retry_ms() ever gives. */
enum { RESULT_RETRY_MAX_MS = 3600 * 1000 };
