/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What clients asked for: every mutating call with its correlation id and its end, and how often
 * each kind of call came. Tests read it to see that an act was done once, under which correlation
 * id, and how chatty a client is. Threads: guarded by the engine's lock.
 */
#pragma once

#include "tests/sandbox/engine/http.h"

struct calls *calls_new(void);
void calls_free(struct calls *c);
/* Notes one finished call. `user` is whose token it carries, or ""; `pattern` is the route's, or
 * "-". A status of 0: cut off by a fault. */
void calls_note(struct engine *e, const struct request *r, const char *user, const char *pattern,
                int status, int64_t took_ms);
/* {"counts":{"GET vms":3,...},"mutating":[{...}],"dropped":"0"} */
json_t *calls_show(const struct calls *c);
