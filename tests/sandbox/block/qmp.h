/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client of QEMU's machine protocol (docs/interop/qmp-spec): commands with replies matched by id,
 * and events, which may come before the reply of the command that caused them and are therefore
 * kept until somebody waits for them.
 *
 * Threads: calls and waits may come from several threads at once; whichever waits reads for all.
 */
#pragma once

#include <stdint.h>

#include <jansson.h>

#include "proto/base/alloc.h"
#include "proto/base/err.h"

struct qmp;

/* Take over a connected socket, read the greeting and leave negotiation mode. The descriptor is
 * closed by qmp_free(), or at once on failure. */
struct qmp *qmp_new(int fd, int64_t timeout_ms, struct err *err);
/* Nobody may be inside a call. NULL is fine. */
void qmp_free(struct qmp *q);

/*
 * Run a command. `arguments` is stolen (also on failure) and may be NULL. `ret_value` (may be NULL)
 * receives the "return" member, owned by the caller. Errors: conflict when QEMU says that a node or
 * image is busy or locked, timeout, else io-error with QEMU's own text.
 */
bool qmp_call(struct qmp *q, const char *command, json_t *arguments, json_t **ret_value,
              struct err *err);

/*
 * Wait for an event whose name is one of `names` (ends with NULL) and whose data.device or data.id
 * is `id`; returns it, owned by the caller. Older ones that nobody waited for count. NULL on
 * failure (timeout, or the peer is gone). timeout_ms < 0 waits for as long as the peer lives.
 */
json_t *qmp_wait_event(struct qmp *q, const char *const *names, const char *id, int64_t timeout_ms,
                       struct err *err);
/* Forget the kept events of `id`, so that it can be used again. */
void qmp_drop_events(struct qmp *q, const char *id);

DEFINE_SCOPED(qmp, qmp_free);
