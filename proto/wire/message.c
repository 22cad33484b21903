/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/wire/message.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <jansson.h>

#include "proto/base/alloc.h"
#include "proto/wire/shapes.h"

#define TYPE_PREFIX  "oxbow."
#define TYPE_VERSION "v1"

static const struct {
    const char *name; /* "backup" */
    const char *type; /* "oxbow.backup.v1" */
    const struct shape *shape;
} messages[WIRE_TYPE_COUNT] = {
#define ROW(name, wire, tag)                                                                       \
    [WIRE_##name] = {wire, TYPE_PREFIX wire "." TYPE_VERSION, &shape_##tag},
    WIRE_MESSAGES(ROW)
#undef ROW
};

const struct shape *shape_of(enum wire_type type)
{
    assert(type < WIRE_TYPE_COUNT);
    return messages[type].shape;
}

const char *wire_type_name(enum wire_type type)
{
    assert(type < WIRE_TYPE_COUNT);
    return messages[type].type;
}

bool wire_is_listing(const char *task_kind)
{
    static const char *const kinds[] = {"inventory", "list", "prune", "verify", "plan"};
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
        if (strcmp(task_kind, kinds[i]) == 0)
            return true;
    return false;
}

bool wire_is_part(const char *task_kind)
{
    return strcmp(task_kind, "backup-part") == 0 || strcmp(task_kind, "restore-part") == 0;
}

bool wire_part_check(const struct wire_part *part, const char *of, struct err *err)
{
    if (strcmp(part->of, of) != 0)
        return err_set(err, ERR_BAD_MESSAGE, 0, "part %" PRId64 " is one of task %s, not of %s",
                       part->n, part->of, of);
    for (size_t i = 0; i < part->pieces.count; i++) {
        const struct wire_piece *p = &part->pieces.v[i];
        if (p->offset > p->size_bytes || p->length > p->size_bytes - p->offset)
            return err_set(err, ERR_BAD_MESSAGE, 0,
                           "part %" PRId64 ": piece %zu (disk %s, %" PRId64 " bytes at %" PRId64
                           ") ends behind the disk's %" PRId64 " bytes",
                           part->n, i, p->disk, p->length, p->offset, p->size_bytes);
    }
    return true;
}

/* Whether `text` is "v" and a number. */
static bool is_version(const char *text)
{
    return text[0] == 'v' && text[1] != '\0' && strspn(text + 1, "0123456789") == strlen(text + 1);
}

bool wire_type_parse(const char *type_property, enum wire_type *ret_type, struct err *err)
{
    if (!type_property)
        return err_set(err, ERR_BAD_MESSAGE, 0, "the type property is missing");
    size_t prefix_len = strlen(TYPE_PREFIX);
    if (strncmp(type_property, TYPE_PREFIX, prefix_len) != 0)
        return err_set(err, ERR_BAD_MESSAGE, 0, "'%.80s' is not a type of this contract",
                       type_property);
    const char *name = type_property + prefix_len;
    size_t name_len = strcspn(name, ".");
    const char *version = name[name_len] ? name + name_len + 1 : "";
    for (int i = 0; i < WIRE_TYPE_COUNT; i++) {
        if (strlen(messages[i].name) != name_len || memcmp(messages[i].name, name, name_len) != 0)
            continue;
        if (strcmp(version, TYPE_VERSION) == 0) {
            *ret_type = (enum wire_type)i;
            return true;
        }
        if (is_version(version))
            return err_set(err, ERR_UNSUPPORTED_VERSION, 0,
                           "version %.20s of '%s' is not supported, " TYPE_VERSION " is", version,
                           messages[i].name);
        break;
    }
    return err_set(err, ERR_BAD_MESSAGE, 0, "'%.80s' is not a type of this contract",
                   type_property);
}

static json_t *parse(const void *body, size_t len, struct err *err)
{
    if (len > WIRE_BODY_MAX_BYTES) {
        err_set(err, ERR_TOO_LARGE, 0, "body of %zu bytes, at most %d", len,
                (int)WIRE_BODY_MAX_BYTES);
        return NULL;
    }
    json_error_t why;
    json_t *json = json_loadb(len ? body : "", len, JSON_REJECT_DUPLICATES, &why);
    if (!json)
        err_set(err, ERR_BAD_MESSAGE, 0, "$: not valid JSON: line %d, column %d: %s", why.line,
                why.column, why.text);
    return json;
}

/* A body may say its own type, for readers that do not see properties; it must be the right one. */
static bool check_type_member(const json_t *json, enum wire_type type, struct err *err)
{
    const json_t *member = json_object_get(json, "type");
    if (!member || json_is_null(member))
        return true;
    const char *text = json_string_value(member);
    if (!text)
        return err_set(err, ERR_BAD_MESSAGE, 0, "$.type: must be a string");
    if (strcmp(text, messages[type].type) != 0)
        return err_set(err, ERR_BAD_MESSAGE, 0, "$.type: is '%.80s', but the message is a '%s'",
                       text, messages[type].type);
    return true;
}

bool wire_decode(const char *type_property, const void *body, size_t len,
                 struct wire_message *ret_message, struct err *err)
{
    enum wire_type type = WIRE_BACKUP;
    if (!wire_type_parse(type_property, &type, err))
        return false;
    json_t *json = parse(body, len, err);
    if (!json)
        return err_wrap(err, "%s", messages[type].name);
    struct wire_message message = {.type = type, .as = xcalloc(1, messages[type].shape->bytes)};
    bool ok = check_type_member(json, type, err) &&
              shape_decode(messages[type].shape, json, message.as, err);
    json_decref(json);
    if (!ok) {
        wire_free(&message);
        return err_wrap(err, "%s", messages[type].name);
    }
    *ret_message = message;
    return true;
}

char *wire_encode(enum wire_type type, const void *message, size_t *ret_len, struct err *err)
{
    json_t *json = shape_encode(shape_of(type), message, err);
    if (!json) {
        err_wrap(err, "%s", messages[type].name);
        return NULL;
    }
    json_t *typed = json_pack("{s:s}", "type", messages[type].type);
    json_object_update(typed, json);
    json_decref(json);
    char *body = json_dumps(typed, JSON_COMPACT);
    json_decref(typed);
    assert(body);
    size_t len = strlen(body);
    if (len > WIRE_BODY_MAX_BYTES) {
        free(body);
        err_set(err, ERR_TOO_LARGE, 0, "%s: body of %zu bytes, at most %d", messages[type].name,
                len, (int)WIRE_BODY_MAX_BYTES);
        return NULL;
    }
    *ret_len = len;
    return body;
}

void wire_free(struct wire_message *message)
{
    if (!message->as)
        return;
    wire_free_members(message->type, message->as);
    free(message->as);
    *message = (struct wire_message){0};
}

void wire_free_members(enum wire_type type, void *message)
{
    shape_free_members(shape_of(type), message);
}

void wire_error_of(const struct err *err, struct wire_error *out, char at_buf[WIRE_AT_BYTES])
{
    /* The struct is one for both directions and so its strings are not const; encoding only reads.
     */
    *out = (struct wire_error){
        .code = (char *)(uintptr_t)err_code_name(err->code),
        .retry = (char *)(uintptr_t)err_retry_name(err_retry(err->code)),
        .sys = err->sys,
        .message = (char *)(uintptr_t)err->message,
    };
    if (err->file) {
        snprintf(at_buf, WIRE_AT_BYTES, "%s:%d", err->file, err->line);
        out->at = at_buf;
    }
}

void wire_error_to_err(const struct wire_error *wire, struct err *out)
{
    err_clear(out);
    enum err_code code = err_code_from_name(wire->code);
    int sys = wire->sys >= INT32_MIN && wire->sys <= INT32_MAX ? (int)wire->sys : 0;
    if (code == ERR_NONE)
        code = ERR_INTERNAL;
    err_set(out, code, sys, "%s", wire->message ? wire->message : "");
    out->file = NULL; /* it did not happen here */
    out->line = 0;
}

/* --- Words of the enums ---------------------------------------------------------------------- */
static bool word_parse(const char *const *words, const char *word, unsigned *ret)
{
    for (unsigned i = 0; words[i]; i++) {
        if (strcmp(words[i], word) == 0) {
            *ret = i;
            return true;
        }
    }
    return false;
}

#define DEFINE_WORDS(what)                                                                         \
    const char *wire_##what##_name(enum wire_##what v)                                             \
    {                                                                                              \
        return shape_##what##_words[v];                                                            \
    }                                                                                              \
    bool wire_##what##_parse(const char *word, enum wire_##what *ret)                              \
    {                                                                                              \
        unsigned v = 0;                                                                            \
        if (!word_parse(shape_##what##_words, word, &v))                                           \
            return false;                                                                          \
        *ret = (enum wire_##what)v;                                                                \
        return true;                                                                               \
    }

DEFINE_WORDS(quiesce)
DEFINE_WORDS(unsupported)
DEFINE_WORDS(path)
DEFINE_WORDS(config)
DEFINE_WORDS(nics)
