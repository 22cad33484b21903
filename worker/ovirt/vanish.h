/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Waiting for something to be gone after its DELETE was accepted.
 *
 * The engine answers a DELETE at once and works on. For a moment the object may still read as it
 * was; then "locked"; then 404. If it comes back from "locked", or never leaves for `settle_ms` and
 * `confirm` agrees, the deletion has failed. Private to this folder.
 */
#pragma once

#include "worker/ovirt/engine.h"

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

/* The probe of a DELETE whose answer was lost: done = gone. ctx is the path (const char *). */
bool vanish_probe(struct engine_session *s, void *ctx, bool *ret_done, json_t **ret_object,
                  struct err *err);
