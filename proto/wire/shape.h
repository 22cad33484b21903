/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tables behind the codec: one `struct shape` per struct of message.h, one `struct shape_field`
 * per member. Decoding, encoding, freeing, the JSON Schemas in docs/schemas/ and the field tables
 * of docs/protocol.md all follow these tables (tests/contract holds them together), so a new member
 * is one line in message.h and one row in shapes.c.
 *
 * Private to proto/wire and its tests. Everything here is static and constant; threads: any.
 */
#pragma once

#include "proto/wire/message.h"

enum shape_kind {
    SHAPE_STRING,  /* char * */
    SHAPE_UUID,    /* char *; folded to lower case when decoded */
    SHAPE_SLUG,    /* char *; id_is_slug() */
    SHAPE_INT,     /* int64_t */
    SHAPE_BOOL,    /* bool */
    SHAPE_ENUM,    /* an enum, by its words; absent = the first */
    SHAPE_OBJECT,  /* struct * */
    SHAPE_ARRAY,   /* struct *v; size_t count */
    SHAPE_STRINGS, /* char **v; size_t count */
    SHAPE_INTS,    /* int64_t *v; size_t count */
    SHAPE_HANDLES, /* struct wire_handle *v; size_t count: an object of strings on the wire */
};

struct shape_field {
    const char *name;
    const char *doc; /* one sentence for people, in schemas and docs */
    enum shape_kind kind;
    bool required;
    bool cut;                  /* string: a text for people, cut to fit when encoded */
    size_t offset;             /* of the member, or of its array pointer */
    size_t count_offset;       /* arrays: of the size_t beside it */
    int64_t min, max;          /* int: value; string: characters; arrays: how many */
    int64_t item_max;          /* strings, handles: characters in each; ints: the value */
    const char *const *words;  /* enum, string: the only ones allowed; NULL-terminated */
    const struct shape *shape; /* object, array: of each */
};

struct shape {
    const char *name; /* "select": what the schemas call it */
    size_t bytes;
    const struct shape_field *fields;
    size_t field_count;
    /* Rules between members: the text of a fault, or NULL. `*ret_member` is the member to blame, or
     * left NULL for the object itself. `rule` is the same in JSON Schema: members to merge into the
     * object's schema. */
    const char *(*check)(const void *message, const char **ret_member);
    const char *rule;
};

/* Integers on the wire stay within what every JSON reader holds exactly: 2^53 - 1. */
#define SHAPE_INT_MAX INT64_C(9007199254740991)

const struct shape *shape_of(enum wire_type type);

extern const char *const shape_quiesce_words[];
extern const char *const shape_unsupported_words[];
extern const char *const shape_path_words[];
extern const char *const shape_config_words[];
extern const char *const shape_nics_words[];

/* Generic parts of the codec (codec.c). `ret` points at zeroed memory of shape->bytes. */
struct json_t;
bool shape_decode(const struct shape *shape, const struct json_t *json, void *ret, struct err *err);
struct json_t *shape_encode(const struct shape *shape, const void *message, struct err *err);
void shape_free_members(const struct shape *shape, void *message);
