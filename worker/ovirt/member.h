/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading members of the engine's JSON, whose encoding is its own: integers and booleans come as
 * strings (but native scalars are taken too), dates as numbers of milliseconds, an empty collection
 * as {} without the key. All getters accept NULL and wrong types and then give the fallback:
 * what comes from outside is never asserted. Returned pointers are borrowed from the JSON.
 * Threads: reentrant.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

/* The string, or NULL. */
const char *member_str(const json_t *object, const char *key);
/* "123" or 123. False when absent, negative, malformed or over 2^64-1. */
bool member_u64(const json_t *object, const char *key, uint64_t *ret);
uint64_t member_u64_or(const json_t *object, const char *key, uint64_t fallback);
/* "true"/"false"/"1"/"0" in any case, or a JSON boolean. */
bool member_bool_or(const json_t *object, const char *key, bool fallback);
/* Milliseconds since 1970: a number, a string of digits, or ISO 8601 ("2026-01-05T17:13:55.851Z",
 * "...+01:00"). */
int64_t member_time_ms_or(const json_t *object, const char *key, int64_t fallback);
/* The nested object, or NULL. */
json_t *member_object(const json_t *object, const char *key);
/* object.KEY.id, or NULL: the id of a reference. */
const char *member_ref_id(const json_t *object, const char *key);
/* The array object.WRAPPER.ELEMENT (or object.ELEMENT when wrapper is NULL), or NULL when empty.
 * jansson's json_array_size(NULL) is 0, so NULL can be iterated. */
json_t *member_list(const json_t *object, const char *wrapper, const char *element);
