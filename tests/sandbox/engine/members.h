/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a request body may contain: the members of each type of the API model. The real engine binds
 * JSON to its schema and refuses the whole request (400) for one unknown member, one unknown
 * enumeration constant or one malformed number, and the schema grows from version to version; a
 * client that sends a 4.5 member to a 4.3 engine must notice here.
 *
 * Threads: pure functions over constant tables.
 */
#pragma once

#include <stddef.h>

#include <jansson.h>

#include "proto/base/err.h"

/* A version as a number that compares: 4.4.10 is 40410. */
#define MEMBERS_VERSION(major, minor, build) ((major)*10000 + (minor)*100 + (build))

/* "4.4.10-1.el8" or "4.5" to a number; false for anything else. */
bool members_version_parse(const char *text, int *ret_version);

/* One row of members_table.c. `members` is a list of "name:KIND[:TYPE][@VERSION]", kinds: s string,
 * i integer, b boolean, t time, n number, e enumeration, o object, l list wrapper. */
struct member_type_row {
    const char *name, *parent, *members;
};
struct member_enum_row {
    const char *name, *values;
};
/* Both end with a row whose name is NULL. */
extern const struct member_type_row member_type_rows[];
extern const struct member_enum_row member_enum_rows[];

/*
 * Hold `body` against `type` as an engine of `version` knows it, and bring it into the engine's own
 * form in place: integers and booleans become strings, nulls go away. Error: bad-message, naming
 * the path of the member.
 */
bool members_check(const char *type, int version, json_t *body, struct err *err);

/* The key inside the wrapper of a list member: "disk_attachments" to "disk_attachment". `out` holds
 * `bytes`. */
void members_singular(const char *plural, char *out, size_t bytes);
