/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shows the codec and its tables to scripts (tests/unit/proto/wire/contract).
 *
 *   wire_tool types            one message name a line
 *   wire_tool schema NAME      JSON Schema of a message, made of the tables
 *   wire_tool errors           code<tab>retry advice, one a line
 *   wire_tool check            reads lines {"type": ..., "body": "..."}; answers each with a line
 *                              {"ok": true, "body": ...} or {"ok": false, "code":, "message":}
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "proto/base/alloc.h"
#include "proto/wire/shape.h"

static const char *const type_names[] = {
#define NAME(name, wire, tag) wire,
    WIRE_MESSAGES(NAME)
#undef NAME
};

/* --- Schemas --------------------------------------------------------------------------------- */
static json_t *ref_to(const struct shape *shape)
{
    return json_pack("{s:o}", "$ref", json_sprintf("#/$defs/%s", shape->name));
}

/* "type": T, or [T, "null"] where null is the same as absent. */
static void set_type(json_t *schema, const struct shape_field *f, const char *type)
{
    json_object_set_new(schema, "type",
                        f->required ? json_string(type) : json_pack("[s,s]", type, "null"));
}

static void set_int(json_t *schema, const char *key, int64_t value)
{
    json_object_set_new(schema, key, json_integer(value));
}

static void set_words(json_t *schema, const struct shape_field *f)
{
    json_t *words = json_array();
    for (const char *const *w = f->words; *w; w++)
        json_array_append_new(words, json_string(*w));
    if (!f->required)
        json_array_append_new(words, json_null());
    json_object_set_new(schema, "enum", words);
    if (f->kind == SHAPE_ENUM)
        json_object_set_new(schema, "default", json_string(f->words[0]));
}

static void set_string(json_t *schema, const struct shape_field *f)
{
    if (f->words) {
        set_words(schema, f);
        return;
    }
    set_type(schema, f, "string");
    if (f->kind == SHAPE_UUID) {
        json_object_set_new(schema, "pattern",
                            json_string("^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"));
    } else if (f->kind == SHAPE_SLUG) {
        json_object_set_new(schema, "pattern",
                            json_sprintf("^[a-z0-9_][a-z0-9._-]{0,%d}$", (int)f->max - 1));
    } else {
        if (f->min)
            set_int(schema, "minLength", f->min);
        set_int(schema, "maxLength", f->max);
    }
}

static void collect(json_t *defs, const struct shape *shape);

static json_t *schema_of_field(const struct shape_field *f, json_t *defs)
{
    json_t *s = json_object();
    json_object_set_new(s, "description", json_string(f->doc));
    switch (f->kind) {
    case SHAPE_STRING:
    case SHAPE_UUID:
    case SHAPE_SLUG:
        set_string(s, f);
        break;
    case SHAPE_ENUM:
        set_words(s, f);
        break;
    case SHAPE_INT:
        set_type(s, f, "integer");
        set_int(s, "minimum", f->min);
        set_int(s, "maximum", f->max);
        break;
    case SHAPE_BOOL:
        set_type(s, f, "boolean");
        json_object_set_new(s, "default", json_false());
        break;
    case SHAPE_OBJECT:
        collect(defs, f->shape);
        if (f->required)
            json_object_update_new(s, ref_to(f->shape));
        else
            json_object_set_new(s, "anyOf",
                                json_pack("[o,{s:s}]", ref_to(f->shape), "type", "null"));
        break;
    case SHAPE_ARRAY:
        collect(defs, f->shape);
        set_type(s, f, "array");
        json_object_set_new(s, "items", ref_to(f->shape));
        set_int(s, "maxItems", f->max);
        break;
    case SHAPE_STRINGS:
        set_type(s, f, "array");
        json_object_set_new(s, "items",
                            json_pack("{s:s,s:i,s:i}", "type", "string", "minLength", 1,
                                      "maxLength", (int)f->item_max));
        set_int(s, "maxItems", f->max);
        break;
    case SHAPE_INTS:
        set_type(s, f, "array");
        json_object_set_new(s, "items",
                            json_pack("{s:s,s:i,s:I}", "type", "integer", "minimum", 1, "maximum",
                                      (json_int_t)f->item_max));
        set_int(s, "maxItems", f->max);
        break;
    case SHAPE_HANDLES:
        set_type(s, f, "object");
        json_object_set_new(s, "propertyNames",
                            json_pack("{s:i,s:i}", "minLength", 1, "maxLength", (int)f->item_max));
        json_object_set_new(
            s, "additionalProperties",
            json_pack("{s:s,s:i}", "type", "string", "maxLength", (int)f->item_max));
        set_int(s, "maxProperties", f->max);
        break;
    }
    return s;
}

static void fill_object(json_t *schema, const struct shape *shape, json_t *defs)
{
    json_t *properties = json_object();
    json_t *required = json_array();
    for (size_t i = 0; i < shape->field_count; i++) {
        const struct shape_field *f = &shape->fields[i];
        json_object_set_new(properties, f->name, schema_of_field(f, defs));
        if (f->required)
            json_array_append_new(required, json_string(f->name));
    }
    json_object_set_new(schema, "type", json_string("object"));
    json_object_set_new(schema, "properties", properties);
    if (json_array_size(required))
        json_object_set_new(schema, "required", required);
    else
        json_decref(required);
    if (shape->rule) {
        json_t *rule = json_loads(shape->rule, 0, NULL);
        if (!rule)
            abort();
        json_object_update_new(schema, rule);
    }
}

static void collect(json_t *defs, const struct shape *shape)
{
    if (json_object_get(defs, shape->name))
        return;
    json_t *schema = json_object();
    json_object_set_new(defs, shape->name, schema); /* before its parts, which may not recurse */
    fill_object(schema, shape, defs);
}

static int print_schema(const char *name)
{
    int type = 0;
    while (type < WIRE_TYPE_COUNT && strcmp(type_names[type], name) != 0)
        type++;
    if (type == WIRE_TYPE_COUNT)
        return 2;
    json_t *defs = json_object();
    json_t *schema = json_object();
    json_object_set_new(schema, "$schema",
                        json_string("https://json-schema.org/draft/2020-12/schema"));
    json_object_set_new(schema, "title", json_string(wire_type_name((enum wire_type)type)));
    fill_object(schema, shape_of((enum wire_type)type), defs);
    json_object_set_new(json_object_get(schema, "properties"), "type",
                        json_pack("{s:s,s:[s,n]}", "description",
                                  "The message's type once more; what Oxbow sends has it.", "enum",
                                  wire_type_name((enum wire_type)type)));
    if (json_object_size(defs))
        json_object_set(schema, "$defs", defs);
    json_decref(defs);
    json_dumpf(schema, stdout, JSON_INDENT(2));
    json_decref(schema);
    putchar('\n');
    return 0;
}

/* --- Checking -------------------------------------------------------------------------------- */
static json_t *check_one(const char *type, const char *body, size_t len)
{
    struct wire_message m;
    struct err err = ERR_INIT;
    if (!wire_decode(type, body, len, &m, &err))
        return json_pack("{s:b,s:s,s:s}", "ok", 0, "code", err_code_name(err.code), "message",
                         err.message);
    size_t again_len;
    SCOPED_FREE char *again = wire_encode(m.type, m.as, &again_len, &err);
    wire_free(&m);
    if (!again) { /* what was decoded can be encoded, but defaults may take it over the size */
        if (err.code != ERR_TOO_LARGE)
            abort();
        return json_pack("{s:b}", "ok", 1);
    }
    return json_pack("{s:b,s:s}", "ok", 1, "body", again);
}

static int check(void)
{
    char *line = NULL;
    size_t capacity = 0;
    ssize_t n;
    while ((n = getline(&line, &capacity, stdin)) > 0) {
        json_t *in = json_loadb(line, (size_t)n, JSON_ALLOW_NUL, NULL);
        const char *type = json_string_value(json_object_get(in, "type"));
        const json_t *body = json_object_get(in, "body");
        if (!type || !body)
            return 2;
        json_t *answer = check_one(type, json_string_value(body), json_string_length(body));
        json_dumpf(answer, stdout, JSON_COMPACT);
        putchar('\n');
        json_decref(answer);
        json_decref(in);
    }
    free(line);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "types") == 0) {
        for (int i = 0; i < WIRE_TYPE_COUNT; i++)
            puts(type_names[i]);
        return 0;
    }
    if (argc == 2 && strcmp(argv[1], "errors") == 0) {
        for (int i = 1; i < ERR_CODE_COUNT; i++)
            printf("%s\t%s\n", err_code_name((enum err_code)i),
                   err_retry_name(err_retry((enum err_code)i)));
        return 0;
    }
    if (argc == 2 && strcmp(argv[1], "check") == 0)
        return check();
    if (argc == 3 && strcmp(argv[1], "schema") == 0)
        return print_schema(argv[2]);
    fprintf(stderr, "usage: wire_tool types | errors | schema NAME | check\n");
    return 2;
}
