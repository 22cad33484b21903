/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sandbox/engine/calls.h"

#include <stdio.h>
#include <string.h>

enum { CALLS_MUTATING_MAX = 200000 };

struct calls {
    json_t *counts;
    json_t *mutating;
    json_int_t dropped; /* beyond the maximum */
};

struct calls *calls_new(void)
{
    struct calls *c = ALLOC_NEW(struct calls);
    c->counts = json_object();
    c->mutating = json_array();
    return c;
}

void calls_free(struct calls *c)
{
    if (!c)
        return;
    json_decref(c->counts);
    json_decref(c->mutating);
    free(c);
}

void calls_note(struct engine *e, const struct request *r, const char *user, const char *pattern,
                int status, int64_t took_ms)
{
    struct calls *c = e->calls;
    SCOPED_FREE char *kind = xasprintf("%s %s", r->method, pattern);
    json_int_t before = json_integer_value(json_object_get(c->counts, kind));
    json_object_set_new(c->counts, kind, json_integer(before + 1));
    if (!strcmp(r->method, "GET") || !strcmp(r->method, "HEAD"))
        return;
    if (json_array_size(c->mutating) >= CALLS_MUTATING_MAX) {
        c->dropped++;
        return;
    }
    json_array_append_new(c->mutating,
                          json_pack("{s:I, s:s, s:s, s:s, s:s, s:i, s:I}", "time_ms",
                                    (json_int_t)engine_now_ms(e), "method", r->method, "path",
                                    r->url, "user", user, "correlation_id", r->correlation_id,
                                    "status", status, "took_ms", (json_int_t)took_ms));
}

json_t *calls_show(const struct calls *c)
{
    return json_pack("{s:O, s:O, s:I}", "counts", c->counts, "mutating", c->mutating, "dropped",
                     c->dropped);
}
