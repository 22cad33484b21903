/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Asking for something to be deleted, and waiting for it to be gone.
 *
 * The engine answers a DELETE at once and works on. For a moment the object may still read as it
 * was; then "locked"; then 404. If it comes back from "locked", or never leaves for `settle_ms` and
 * `confirm` agrees, the deletion has failed. Private to this folder.
 */
#pragma once

#include "worker/ovirt/engine.h"

/* DELETE it; gone before, or gone although the answer was lost, is done. query: NULL = none. */
bool vanish_ask(struct engine_session *s, const char *path, const char *query, struct err *err);

struct vanish {
    const char *what; /* for messages: "snapshot X" */
    const char *path;
    const char *status_key; /* "status", "snapshot_status"; NULL: only 404 counts */
    /* Asked when nothing has happened for settle_ms: true = it has failed for certain; false = keep
     * waiting. NULL = failed. */
    bool (*confirm)(struct engine_session *s, void *ctx);
    void *ctx;
    enum err_code failed_code; /* of the error when it came back */
};
/* Errors: failed_code when it came back; timeout. */
bool vanish_wait(struct engine_session *s, const struct vanish *v, int64_t limit_ms,
                 struct err *err);
