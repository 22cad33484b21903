/* SPDX-License-Identifier: Apache-2.0 */
/* Collections: search, order, pages and max, the same way for every resource. Lock held. */
#pragma once

#include "tests/sandbox/engine/http.h"
#include "tests/sandbox/engine/search.h"

struct listing {
    const char *key;           /* "vm" */
    const char *const *fields; /* what may be searched; NULL = the collection has no search */
    search_field_fn field;
    json_t *(*show)(struct engine *e, struct request *r, const void *object);
};

/* Answers with those of `objects` that the request asks for. */
void listing_reply(struct engine *e, struct request *r, const struct listing *l,
                   const void *const *objects, size_t count);

/* A VEC of anything as the array listing_reply() takes. */
#define LISTING_OF(v) ((const void *const *)(const void *)(v).at), (v).len

/* For field functions: {"name", value} rows. */
struct listing_value {
    const char *field, *value;
};
bool listing_found(const struct listing_value *values, size_t count, const char *field,
                   search_found_fn found, void *arg);
