/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine's search language, as far as clients of its API use it:
 * `name=web* and (status=up or tag="nightly backup") sortby name desc page 2`. Threads: pure
 * functions.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "proto/base/err.h"

struct search;

/* The values of a field of the object under test: calls `found` for each; false for a field that
 * this kind of object does not have. */
typedef bool (*search_found_fn)(void *arg, const char *value);
typedef bool (*search_field_fn)(const void *object, const char *field, search_found_fn found,
                                void *arg);

/* `fields` is a NULL-ended list of what may be asked. Errors: bad-argument, with the place. */
struct search *search_parse(const char *text, const char *const *fields, struct err *err);
void search_free(struct search *s);
bool search_matches(const struct search *s, const void *object, search_field_fn field);
/* The field to sort by, NULL = none. Borrowed. */
const char *search_sort_field(const struct search *s, bool *ret_descending);
/* 1 for the first page (also when none was asked for). */
unsigned search_page(const struct search *s);

/* `pattern` with wildcards *, case-insensitive. */
bool search_like(const char *pattern, const char *text);
