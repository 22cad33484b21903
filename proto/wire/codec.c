/* SPDX-License-Identifier: Apache-2.0 */
/* The generic codec: walks the tables of shapes.c. */
#include <assert.h>
#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include <jansson.h>

#include "proto/base/alloc.h"
#include "proto/base/buf.h"
#include "proto/base/id.h"
#include "proto/base/utf8.h"
#include "proto/wire/shape.h"

enum { PATH_MAX_BYTES = 400 };

/* Where we are in the document; a chain on the stack, rendered only for an error. */
struct place {
    const struct place *parent;
    const char *member; /* NULL: an array index */
    size_t index;
    bool quoted; /* the member's name came from outside */
};

static void render(const struct place *at, struct buf *out)
{
    if (!at) {
        buf_printf(out, "$");
        return;
    }
    render(at->parent, out);
    if (!at->member)
        buf_printf(out, "[%zu]", at->index);
    else if (at->quoted)
        buf_printf(out, "[\"%.100s\"]", at->member);
    else
        buf_printf(out, ".%s", at->member);
}

static bool fault(struct err *err, enum err_code code, const struct place *at, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
static bool fault(struct err *err, enum err_code code, const struct place *at, const char *fmt, ...)
{
    SCOPED_BUF struct buf path;
    buf_init(&path, PATH_MAX_BYTES);
    render(at, &path);
    char what[ERR_MESSAGE_BYTES];
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    return err_set(err, code, 0, "%s: %s", buf_str(&path), what);
}

static const char *json_kind_name(const json_t *json)
{
    switch (json_typeof(json)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
        return "an integer";
    case JSON_REAL:
        return "a number with a fraction";
    case JSON_TRUE:
    case JSON_FALSE:
        return "a boolean";
    case JSON_NULL:
    default:
        return "null";
    }
}

static bool wrong_kind(struct err *err, const struct place *at, const char *want,
                       const json_t *json)
{
    return fault(err, ERR_BAD_MESSAGE, at, "must be %s, is %s", want, json_kind_name(json));
}

/* --- Access to members by offset ------------------------------------------------------------- */
static void *member_at(void *message, size_t offset)
{
    return (char *)message + offset;
}

static const void *member_at_const(const void *message, size_t offset)
{
    return (const char *)message + offset;
}

static void *get_pointer(const void *message, size_t offset)
{
    void *p;
    memcpy(&p, member_at_const(message, offset), sizeof p);
    return p;
}

static void set_pointer(void *message, size_t offset, const void *p)
{
    memcpy(member_at(message, offset), &p, sizeof p);
}

static size_t get_size(const void *message, size_t offset)
{
    size_t n;
    memcpy(&n, member_at_const(message, offset), sizeof n);
    return n;
}

static void set_size(void *message, size_t offset, size_t n)
{
    memcpy(member_at(message, offset), &n, sizeof n);
}

/* --- Rules on values, the same for both directions ------------------------------------------- */
static size_t count_characters(const char *text)
{
    size_t n = 0;
    for (; *text; text++)
        n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

static bool check_word(const char *text, const char *const *words, const struct place *at,
                       struct err *err)
{
    SCOPED_BUF struct buf list;
    buf_init(&list, 300);
    for (const char *const *w = words; *w; w++) {
        if (strcmp(*w, text) == 0)
            return true;
        buf_printf(&list, "%s%s", w == words ? "" : ", ", *w);
    }
    return fault(err, ERR_BAD_MESSAGE, at, "'%.60s' is not one of: %s", text, buf_str(&list));
}

static bool check_length(const char *text, int64_t min, int64_t max, const struct place *at,
                         struct err *err)
{
    int64_t n = (int64_t)count_characters(text);
    if (n < min)
        return fault(err, ERR_BAD_MESSAGE, at, "must not be empty");
    if (n > max)
        return fault(err, ERR_TOO_LARGE, at, "%" PRId64 " characters, at most %" PRId64, n, max);
    return true;
}

static bool check_string(const struct shape_field *f, const char *text, const struct place *at,
                         struct err *err)
{
    if (f->kind == SHAPE_UUID && !id_is_valid(text))
        return fault(err, ERR_BAD_MESSAGE, at, "'%.60s' is not a UUID", text);
    if (f->kind == SHAPE_SLUG && !id_is_slug(text, (unsigned)f->max))
        return fault(err, ERR_BAD_MESSAGE, at,
                     "'%.80s' must be 1 to %" PRId64
                     " of a-z 0-9 . _ - and must not begin with . or -",
                     text, f->max);
    if (f->kind == SHAPE_STRING && f->words)
        return check_word(text, f->words, at, err);
    return f->kind != SHAPE_STRING || check_length(text, f->min, f->max, at, err);
}

static bool check_int(const struct shape_field *f, int64_t value, const struct place *at,
                      struct err *err)
{
    if (value < f->min || value > f->max)
        return fault(err, ERR_BAD_MESSAGE, at,
                     "%" PRId64 " is not between %" PRId64 " and %" PRId64, value, f->min, f->max);
    return true;
}

static bool check_count(const struct shape_field *f, size_t count, const struct place *at,
                        struct err *err)
{
    if ((int64_t)count > f->max)
        return fault(err, ERR_TOO_LARGE, at, "%zu items, at most %" PRId64, count, f->max);
    return true;
}

static bool check_rules(const struct shape *shape, const void *message, const struct place *at,
                        struct err *err)
{
    const char *member = NULL;
    const char *text = shape->check ? shape->check(message, &member) : NULL;
    if (!text)
        return true;
    struct place place = {.parent = at, .member = member};
    return fault(err, ERR_BAD_MESSAGE, member ? &place : at, "%s", text);
}

/* --- Decoding -------------------------------------------------------------------------------- */
static bool decode_object(const struct shape *shape, const json_t *json, void *ret,
                          const struct place *at, struct err *err);

static bool decode_string(const struct shape_field *f, const json_t *json, void *message,
                          const struct place *at, struct err *err)
{
    if (!json_is_string(json))
        return wrong_kind(err, at, "a string", json);
    const char *text = json_string_value(json);
    if (!check_string(f, text, at, err))
        return false;
    char *copy = xstrdup(text);
    for (char *c = copy; f->kind == SHAPE_UUID && *c; c++)
        *c = (char)tolower((unsigned char)*c);
    set_pointer(message, f->offset, copy);
    return true;
}

static bool decode_int(const struct shape_field *f, const json_t *json, void *message,
                       const struct place *at, struct err *err)
{
    int64_t value;
    if (json_is_integer(json)) {
        value = json_integer_value(json);
    } else if (json_is_real(json)) {
        /* 5.0 is an integer to JSON Schema, and what some languages write. */
        double real = json_real_value(json);
        if (trunc(real) != real || fabs(real) > (double)SHAPE_INT_MAX)
            return wrong_kind(err, at, "an integer", json);
        value = (int64_t)real;
    } else {
        return wrong_kind(err, at, "an integer", json);
    }
    if (!check_int(f, value, at, err))
        return false;
    memcpy(member_at(message, f->offset), &value, sizeof value);
    return true;
}

static bool decode_bool(const struct shape_field *f, const json_t *json, void *message,
                        const struct place *at, struct err *err)
{
    if (!json_is_boolean(json))
        return wrong_kind(err, at, "a boolean", json);
    bool value = json_is_true(json);
    memcpy(member_at(message, f->offset), &value, sizeof value);
    return true;
}

static bool decode_enum(const struct shape_field *f, const json_t *json, void *message,
                        const struct place *at, struct err *err)
{
    if (!json_is_string(json))
        return wrong_kind(err, at, "a string", json);
    if (!check_word(json_string_value(json), f->words, at, err))
        return false;
    unsigned value = 0;
    while (strcmp(f->words[value], json_string_value(json)) != 0)
        value++;
    memcpy(member_at(message, f->offset), &value, sizeof value);
    return true;
}

static bool decode_member_object(const struct shape_field *f, const json_t *json, void *message,
                                 const struct place *at, struct err *err)
{
    if (!json_is_object(json))
        return wrong_kind(err, at, "an object", json);
    void *object = xcalloc(1, f->shape->bytes);
    set_pointer(message, f->offset, object);
    return decode_object(f->shape, json, object, at, err);
}

static size_t item_bytes_of(const struct shape_field *f)
{
    if (f->kind == SHAPE_STRINGS)
        return sizeof(char *);
    return f->kind == SHAPE_INTS ? sizeof(int64_t) : f->shape->bytes;
}

/* One item of an array of integers, as a member of its own. */
static struct shape_field int_item(const struct shape_field *f)
{
    return (struct shape_field){
        .name = f->name, .kind = SHAPE_INT, .required = true, .min = 1, .max = f->item_max};
}

/* Room for the items of a list, zeroed and in its place in the message. NULL when there are none;
 * when there are too many `err` is set. */
static void *open_list(const struct shape_field *f, size_t count, size_t item_bytes, void *message,
                       const struct place *at, struct err *err)
{
    if (!check_count(f, count, at, err) || count == 0)
        return NULL;
    void *v = xcalloc(count, item_bytes);
    set_pointer(message, f->offset, v);
    set_size(message, f->count_offset, count);
    return v;
}

/* One item of an array into its place. */
typedef bool (*decode_item_fn)(const struct shape_field *f, const json_t *json, void *ret,
                               const struct place *at, struct err *err);

static bool decode_object_item(const struct shape_field *f, const json_t *json, void *ret,
                               const struct place *at, struct err *err)
{
    if (!json_is_object(json))
        return wrong_kind(err, at, "an object", json);
    return decode_object(f->shape, json, ret, at, err);
}

static bool decode_string_item(const struct shape_field *f, const json_t *json, void *ret,
                               const struct place *at, struct err *err)
{
    if (!json_is_string(json))
        return wrong_kind(err, at, "a string", json);
    if (!check_length(json_string_value(json), 1, f->item_max, at, err))
        return false;
    set_pointer(ret, 0, xstrdup(json_string_value(json)));
    return true;
}

static bool decode_int_item(const struct shape_field *f, const json_t *json, void *ret,
                            const struct place *at, struct err *err)
{
    const struct shape_field item = int_item(f);
    return decode_int(&item, json, ret, at, err);
}

static bool decode_array(const struct shape_field *f, const json_t *json, void *message,
                         const struct place *at, struct err *err)
{
    size_t item_bytes = item_bytes_of(f);
    decode_item_fn decode_item = f->kind == SHAPE_STRINGS ? decode_string_item
                                 : f->kind == SHAPE_INTS  ? decode_int_item
                                                          : decode_object_item;
    if (!json_is_array(json))
        return wrong_kind(err, at, "an array", json);
    size_t count = json_array_size(json);
    char *v = open_list(f, count, item_bytes, message, at, err);
    if (!v)
        return count == 0;
    for (size_t i = 0; i < count; i++) {
        struct place place = {.parent = at, .index = i};
        if (!decode_item(f, json_array_get(json, i), v + i * item_bytes, &place, err))
            return false;
    }
    return true;
}

static bool decode_handles(const struct shape_field *f, const json_t *json, void *message,
                           const struct place *at, struct err *err)
{
    if (!json_is_object(json))
        return wrong_kind(err, at, "an object", json);
    size_t count = json_object_size(json);
    struct wire_handle *v = open_list(f, count, sizeof *v, message, at, err);
    if (!v)
        return count == 0;
    const char *name;
    json_t *value;
    json_object_foreach ((json_t *)(uintptr_t)json, name, value) {
        struct place place = {.parent = at, .member = name, .quoted = true};
        if (!json_is_string(value))
            return wrong_kind(err, &place, "a string", value);
        if (!check_length(name, 1, f->item_max, &place, err) ||
            !check_length(json_string_value(value), 0, f->item_max, &place, err))
            return false;
        *v++ =
            (struct wire_handle){.name = xstrdup(name), .value = xstrdup(json_string_value(value))};
    }
    return true;
}

static bool decode_field(const struct shape_field *f, const json_t *json, void *message,
                         const struct place *at, struct err *err)
{
    switch (f->kind) {
    case SHAPE_STRING:
    case SHAPE_UUID:
    case SHAPE_SLUG:
        return decode_string(f, json, message, at, err);
    case SHAPE_INT:
        return decode_int(f, json, message, at, err);
    case SHAPE_BOOL:
        return decode_bool(f, json, message, at, err);
    case SHAPE_ENUM:
        return decode_enum(f, json, message, at, err);
    case SHAPE_OBJECT:
        return decode_member_object(f, json, message, at, err);
    case SHAPE_ARRAY:
    case SHAPE_STRINGS:
    case SHAPE_INTS:
        return decode_array(f, json, message, at, err);
    case SHAPE_HANDLES:
        return decode_handles(f, json, message, at, err);
    }
    return false;
}

static bool decode_object(const struct shape *shape, const json_t *json, void *ret,
                          const struct place *at, struct err *err)
{
    for (size_t i = 0; i < shape->field_count; i++) {
        const struct shape_field *f = &shape->fields[i];
        const json_t *value = json_object_get(json, f->name);
        struct place place = {.parent = at, .member = f->name};
        if (!value || json_is_null(value)) { /* null is the same as absent */
            if (f->required)
                return fault(err, ERR_BAD_MESSAGE, &place, "is missing");
            continue;
        }
        if (!decode_field(f, value, ret, &place, err))
            return false;
    }
    return check_rules(shape, ret, at, err);
}

bool shape_decode(const struct shape *shape, const json_t *json, void *ret, struct err *err)
{
    if (!json_is_object(json))
        return wrong_kind(err, NULL, "an object", json);
    return decode_object(shape, json, ret, NULL, err);
}

/* --- Encoding -------------------------------------------------------------------------------- */
static json_t *encode_object(const struct shape *shape, const void *message, const struct place *at,
                             struct err *err);

/* A text for people (an error message may quote any byte): bad bytes become '?', and it is cut to
 * `max` characters. */
static char *fit_text(const char *text, int64_t max)
{
    char *out = xmalloc(strlen(text) + 4);
    size_t len = 0, mark = 0;
    int64_t characters = 0;
    while (*text && characters < max) {
        if (characters == max - 3)
            mark = len; /* room for the dots, should it be too long */
        size_t n = utf8_length(text);
        if (n)
            memcpy(out + len, text, n);
        else
            out[len] = '?';
        len += n ? n : 1;
        text += n ? n : 1;
        characters++;
    }
    if (*text) {
        memcpy(out + mark, "...", 3);
        len = mark + 3;
    }
    out[len] = '\0';
    return out;
}

static json_t *encode_text(const char *text, const struct place *at, struct err *err)
{
    json_t *json = json_string(text);
    if (!json)
        fault(err, ERR_BAD_ARGUMENT, at, "is not valid UTF-8");
    return json;
}

static json_t *encode_string(const struct shape_field *f, const void *message,
                             const struct place *at, struct err *err)
{
    const char *text = get_pointer(message, f->offset);
    if (f->cut) {
        SCOPED_FREE char *fit = fit_text(text, f->max);
        return encode_text(fit, at, err);
    }
    return check_string(f, text, at, err) ? encode_text(text, at, err) : NULL;
}

static json_t *encode_int(const struct shape_field *f, const void *message, const struct place *at,
                          struct err *err)
{
    int64_t value;
    memcpy(&value, member_at_const(message, f->offset), sizeof value);
    return check_int(f, value, at, err) ? json_integer(value) : NULL;
}

static json_t *encode_enum(const struct shape_field *f, const void *message)
{
    unsigned value;
    memcpy(&value, member_at_const(message, f->offset), sizeof value);
    for (unsigned i = 0; i <= value; i++)
        assert(f->words[i]);
    return json_string(f->words[value]);
}

static json_t *encode_item(const struct shape_field *f, const char *item, const struct place *at,
                           struct err *err)
{
    if (f->kind == SHAPE_ARRAY)
        return encode_object(f->shape, item, at, err);
    if (f->kind == SHAPE_INTS) {
        const struct shape_field int_field = int_item(f);
        return encode_int(&int_field, item, at, err);
    }
    const char *text = get_pointer(item, 0);
    return check_length(text, 1, f->item_max, at, err) ? encode_text(text, at, err) : NULL;
}

static json_t *encode_array(const struct shape_field *f, const void *message,
                            const struct place *at, struct err *err)
{
    size_t item_bytes = item_bytes_of(f);
    const char *v = get_pointer(message, f->offset);
    size_t count = get_size(message, f->count_offset);
    if (!check_count(f, count, at, err))
        return NULL;
    json_t *array = json_array();
    for (size_t i = 0; i < count; i++) {
        struct place place = {.parent = at, .index = i};
        json_t *item = encode_item(f, v + i * item_bytes, &place, err);
        if (!item) {
            json_decref(array);
            return NULL;
        }
        json_array_append_new(array, item);
    }
    return array;
}

static json_t *encode_handles(const struct shape_field *f, const void *message,
                              const struct place *at, struct err *err)
{
    const struct wire_handle *v = get_pointer(message, f->offset);
    size_t count = get_size(message, f->count_offset);
    if (!check_count(f, count, at, err))
        return NULL;
    json_t *object = json_object();
    for (size_t i = 0; i < count; i++) {
        struct place place = {.parent = at, .member = v[i].name, .quoted = true};
        json_t *value = check_length(v[i].name, 1, f->item_max, &place, err) &&
                                check_length(v[i].value, 0, f->item_max, &place, err)
                            ? encode_text(v[i].value, &place, err)
                            : NULL;
        if (!value || json_object_set_new(object, v[i].name, value) != 0) {
            if (!err_is_set(err))
                fault(err, ERR_BAD_ARGUMENT, &place, "the name is not valid UTF-8");
            json_decref(object);
            return NULL;
        }
    }
    return object;
}

/* An absent optional member is left out; an absent required one is a bug in us. */
static bool is_absent(const struct shape_field *f, const void *message)
{
    bool absent = false;
    int64_t value;
    switch (f->kind) {
    case SHAPE_STRING:
    case SHAPE_UUID:
    case SHAPE_SLUG:
    case SHAPE_OBJECT:
        absent = get_pointer(message, f->offset) == NULL;
        break;
    case SHAPE_ARRAY:
    case SHAPE_STRINGS:
    case SHAPE_INTS:
    case SHAPE_HANDLES:
        return !f->required && get_size(message, f->count_offset) == 0;
    case SHAPE_INT:
        memcpy(&value, member_at_const(message, f->offset), sizeof value);
        return !f->required && value == 0 && f->min > 0;
    case SHAPE_BOOL:
    case SHAPE_ENUM:
        return false;
    }
    assert(!absent || !f->required);
    return absent;
}

static json_t *encode_field(const struct shape_field *f, const void *message,
                            const struct place *at, struct err *err)
{
    bool flag;
    switch (f->kind) {
    case SHAPE_STRING:
    case SHAPE_UUID:
    case SHAPE_SLUG:
        return encode_string(f, message, at, err);
    case SHAPE_INT:
        return encode_int(f, message, at, err);
    case SHAPE_BOOL:
        memcpy(&flag, member_at_const(message, f->offset), sizeof flag);
        return json_boolean(flag);
    case SHAPE_ENUM:
        return encode_enum(f, message);
    case SHAPE_OBJECT:
        return encode_object(f->shape, get_pointer(message, f->offset), at, err);
    case SHAPE_ARRAY:
    case SHAPE_STRINGS:
    case SHAPE_INTS:
        return encode_array(f, message, at, err);
    case SHAPE_HANDLES:
        return encode_handles(f, message, at, err);
    }
    return NULL;
}

static json_t *encode_object(const struct shape *shape, const void *message, const struct place *at,
                             struct err *err)
{
    if (!check_rules(shape, message, at, err))
        return NULL;
    json_t *object = json_object();
    for (size_t i = 0; i < shape->field_count; i++) {
        const struct shape_field *f = &shape->fields[i];
        struct place place = {.parent = at, .member = f->name};
        if (is_absent(f, message))
            continue;
        json_t *value = encode_field(f, message, &place, err);
        if (!value) {
            json_decref(object);
            return NULL;
        }
        json_object_set_new(object, f->name, value);
    }
    return object;
}

json_t *shape_encode(const struct shape *shape, const void *message, struct err *err)
{
    return encode_object(shape, message, NULL, err);
}

/* --- Freeing --------------------------------------------------------------------------------- */
static void free_field(const struct shape_field *f, void *message)
{
    size_t count = f->count_offset ? get_size(message, f->count_offset) : 0;
    char *v = get_pointer(message, f->offset);
    switch (f->kind) {
    case SHAPE_OBJECT:
        if (v)
            shape_free_members(f->shape, v);
        break;
    case SHAPE_ARRAY:
        for (size_t i = 0; i < count; i++)
            shape_free_members(f->shape, v + i * f->shape->bytes);
        break;
    case SHAPE_STRINGS:
        for (size_t i = 0; i < count; i++)
            free(((char **)(void *)v)[i]);
        break;
    case SHAPE_HANDLES:
        for (size_t i = 0; i < count; i++) {
            struct wire_handle *handle = (struct wire_handle *)(void *)v + i;
            free(handle->name);
            free(handle->value);
        }
        break;
    case SHAPE_STRING:
    case SHAPE_UUID:
    case SHAPE_SLUG:
    case SHAPE_INT:
    case SHAPE_INTS:
    case SHAPE_BOOL:
    case SHAPE_ENUM:
        break;
    }
    free(v);
}

void shape_free_members(const struct shape *shape, void *message)
{
    for (size_t i = 0; i < shape->field_count; i++) {
        const struct shape_field *f = &shape->fields[i];
        if (f->kind != SHAPE_INT && f->kind != SHAPE_BOOL && f->kind != SHAPE_ENUM)
            free_field(f, message);
    }
    memset(message, 0, shape->bytes);
}
