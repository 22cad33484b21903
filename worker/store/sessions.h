/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What became of a session, as others see it; docs/store-format.md, "Fate", says why no clock can
 * tell a dead writer from a slow one. The sessions that have no fate: upkeep.h. Threads: reentrant.
 */
#pragma once

#include "worker/store/store.h"

enum store_fate {
    STORE_FATE_NONE, /* never begun here, or long forgotten */
    STORE_FATE_OPEN, /* begun; its writer is at work, or gone */
    STORE_FATE_COMMITTED,
    STORE_FATE_REVOKED, /* or bequeathed */
};
/* "none", "open", "committed", "revoked"; static. */
const char *store_fate_name(enum store_fate fate);

/* What became of the session. Errors: bad-argument for an id that cannot be one; those of the file
 * system; store-corrupt. */
bool store_session_fate(struct store *store, const char *session_id, enum store_fate *ret_fate,
                        struct err *err);
