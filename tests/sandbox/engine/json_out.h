/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How the engine writes JSON: integers and booleans as strings, dates as numbers of milliseconds,
 * empty collections as {}, references as {href,id}. Threads: pure functions.
 */
#pragma once

#include <jansson.h>

#include "tests/sandbox/engine/engine.h"

#define API_PREFIX "/ovirt-engine/api"

/* Members. A NULL string adds nothing. */
void out_str(json_t *o, const char *key, const char *value);
void out_u64(json_t *o, const char *key, uint64_t value);
void out_bool(json_t *o, const char *key, bool value);
void out_date(json_t *o, const char *key, int64_t ms);
/* "key":{"href":"/ovirt-engine/api/FMT","id":id}; `fmt` without leading slash. */
void out_ref(json_t *o, const char *key, const char *id, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* {"id","href",...}: an entity at API_PREFIX/FMT. */
json_t *out_entity(const char *id, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* One entry in "link": rel -> HREF/rel of the entity. */
void out_link(json_t *o, const char *rel);
/* One entry in "actions". */
void out_action(json_t *o, const char *name);
/* {"key":[...]}, or {} when the list is empty. Takes `list`. */
json_t *out_collection(const char *key, json_t *list);

/* References in requests: the id (or, if allowed there, the name) inside body.member; NULL if
 * absent. Borrowed. */
const char *in_ref_id(const json_t *body, const char *member);
const char *in_ref_any(const json_t *body, const char *member);
const char *in_str(const json_t *body, const char *member);
/* After members_check() these cannot be malformed; absent gives `otherwise`. */
bool in_bool(const json_t *body, const char *member, bool otherwise);
/* Negative numbers give `otherwise` as well. */
uint64_t in_u64(const json_t *body, const char *member, uint64_t otherwise);
/* The array in wrapper.plural.singular, or NULL; a single object counts as no array. */
json_t *in_list(const json_t *body, const char *plural, const char *singular);
