/* SPDX-License-Identifier: Apache-2.0 */
/* How the tables in shapes*.c are written down: one macro per kind of member, each of which checks
 * the member's C type while compiling. Private to these files. */
#pragma once

#include <stddef.h>

#include "proto/base/alloc.h"
#include "proto/wire/shape.h"

enum { OPTIONAL = false, REQUIRED = true };

/* offsetof, after a check that the member has this type. */
#define OFFSET(tag, member, type)                                                                  \
    (offsetof(struct tag, member) +                                                                \
     0 * sizeof(char[__builtin_types_compatible_p(__typeof__(((struct tag *)0)->member), type)     \
                         ? 1                                                                       \
                         : -1]))

#define STRING_OF(kind_, tag, member, need, min_, max_, doc_)                                      \
    {                                                                                              \
        .name = #member, .doc = (doc_), .kind = (kind_), .required = (need),                       \
        .offset = OFFSET(tag, member, char *), .min = (min_), .max = (max_)                        \
    }
/* char *: min..max characters */
#define STRING(tag, member, need, min, max, doc)                                                   \
    STRING_OF(SHAPE_STRING, tag, member, need, min, max, doc)
#define UUID(tag, member, need, doc) STRING_OF(SHAPE_UUID, tag, member, need, 36, 36, doc)
#define SLUG(tag, member, need, doc) STRING_OF(SHAPE_SLUG, tag, member, need, 1, WIRE_SLUG_MAX, doc)
/* char *: a text for people, cut to fit when encoded */
#define TEXT(tag, member_, need, max_, doc_)                                                       \
    {                                                                                              \
        .name = #member_, .doc = (doc_), .kind = SHAPE_STRING, .required = (need), .cut = true,    \
        .offset = OFFSET(tag, member_, char *), .max = (max_)                                      \
    }
/* char *: one of `words_` */
#define WORDS(tag, member, need, words_, doc_)                                                     \
    {                                                                                              \
        .name = #member, .doc = (doc_), .kind = SHAPE_STRING, .required = (need),                  \
        .offset = OFFSET(tag, member, char *), .words = (words_)                                   \
    }
/* enum: `words_` in the order of its constants */
#define ENUM(tag, member, words_, doc_)                                                            \
    {                                                                                              \
        .name = #member, .doc = (doc_), .kind = SHAPE_ENUM,                                        \
        .offset = offsetof(struct tag, member), .words = (words_)                                  \
    }
#define INT(tag, member, need, min_, max_, doc_)                                                   \
    {                                                                                              \
        .name = #member, .doc = (doc_), .kind = SHAPE_INT, .required = (need),                     \
        .offset = OFFSET(tag, member, int64_t), .min = (min_), .max = (max_)                       \
    }
/* int64_t: a count, bytes or a time, 0 when absent */
#define AMOUNT(tag, member, doc) INT(tag, member, OPTIONAL, 0, SHAPE_INT_MAX, doc)
#define BOOL(tag, member, doc_)                                                                    \
    {                                                                                              \
        .name = #member, .doc = (doc_), .kind = SHAPE_BOOL, .offset = OFFSET(tag, member, bool)    \
    }
#define OBJECT(tag, member, need, of, shape_, doc_)                                                \
    {                                                                                              \
        .name = #member, .doc = (doc_), .kind = SHAPE_OBJECT, .required = (need),                  \
        .offset = OFFSET(tag, member, struct of *), .shape = &(shape_)                             \
    }
/* NOLINTBEGIN(bugprone-macro-parentheses): a member's name cannot be in parentheses */
/* struct wire_strings */
#define STRINGS(tag, member, max_, item_max_, doc_)                                                \
    {                                                                                              \
        .name = #member, .doc = (doc_), .kind = SHAPE_STRINGS,                                     \
        .offset = OFFSET(tag, member.v, char **),                                                  \
        .count_offset = OFFSET(tag, member.count, size_t), .max = (max_), .item_max = (item_max_)  \
    }
/* struct wire_numbers: each 1..item_max_ */
#define INTS(tag, member, max_, item_max_, doc_)                                                   \
    {                                                                                              \
        .name = #member, .doc = (doc_), .kind = SHAPE_INTS,                                        \
        .offset = OFFSET(tag, member.v, int64_t *),                                                \
        .count_offset = OFFSET(tag, member.count, size_t), .max = (max_), .item_max = (item_max_)  \
    }
/* struct wire_handles */
#define HANDLES(tag, member, doc_)                                                                 \
    {                                                                                              \
        .name = #member, .doc = (doc_), .kind = SHAPE_HANDLES,                                     \
        .offset = OFFSET(tag, member.v, struct wire_handle *),                                     \
        .count_offset = OFFSET(tag, member.count, size_t), .max = WIRE_HANDLES_MAX,                \
        .item_max = WIRE_NAME_MAX                                                                  \
    }
/* a struct of v and count */
#define ARRAY(tag, member, of, shape_, max_, doc_)                                                 \
    {                                                                                              \
        .name = #member, .doc = (doc_), .kind = SHAPE_ARRAY,                                       \
        .offset = OFFSET(tag, member.v, struct of *),                                              \
        .count_offset = OFFSET(tag, member.count, size_t), .shape = &(shape_), .max = (max_)       \
    }
/* NOLINTEND(bugprone-macro-parentheses) */
/* member and member_count */
#define ARRAY_PAIR(tag, member, of, shape_, max_, doc_)                                            \
    {                                                                                              \
        .name = #member, .doc = (doc_), .kind = SHAPE_ARRAY,                                       \
        .offset = OFFSET(tag, member, struct of *),                                                \
        .count_offset = OFFSET(tag, member##_count, size_t), .shape = &(shape_), .max = (max_)     \
    }

#define SHAPE(tag, name_, fields_)                                                                 \
    {                                                                                              \
        .name = (name_), .bytes = sizeof(struct tag), .fields = (fields_),                         \
        .field_count = ARRAY_LEN(fields_)                                                          \
    }
#define SHAPE_WITH_RULE(tag, name_, fields_, check_, rule_)                                        \
    {                                                                                              \
        .name = (name_), .bytes = sizeof(struct tag), .fields = (fields_),                         \
        .field_count = ARRAY_LEN(fields_), .check = (check_), .rule = (rule_)                      \
    }

/* A shared part, and the requirement that it be given, in JSON Schema. */
#define GIVEN_ARRAY(name)                                                                          \
    "{\"required\":[\"" name "\"],\"properties\":{\"" name "\":{\"type\":\"array\","               \
    "\"minItems\":1}}}"
#define GIVEN(name, type)                                                                          \
    "{\"required\":[\"" name "\"],\"properties\":{\"" name "\":{\"type\":\"" type "\"}}}"

extern const struct shape shape_error, shape_select, shape_backup_opts, shape_restore_opts,
    shape_export_opts, shape_warning, shape_stats, shape_item_list, shape_finding;
extern const char *const shape_task_kinds[];
extern const char *const shape_lanes[];

/* One for each message, by the tag of its struct. */
#define SHAPE_EXTERN(name, wire, tag) extern const struct shape shape_##tag;
WIRE_MESSAGES(SHAPE_EXTERN)
#undef SHAPE_EXTERN
