/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The body of an offer: what was asked, plus what earlier attempts did (journal), plus, for a
 * clean-up, what is left behind by now.
 *
 * Threads: one at a time.
 */
#pragma once

#include "coordinator/core.h"

/* The caller frees. Sets t->cleanup_upto for a clean-up. Errors: those of the ledger. */
char *offer_body(struct core *core, struct task *t, struct err *err);
