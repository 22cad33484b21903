/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sandbox/engine/members.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "proto/base/alloc.h"

enum { MEMBERS_DEPTH_MAX = 16, MEMBERS_PATH_BYTES = 200, MEMBERS_WORD_BYTES = 64 };

struct member {
    char kind;
    char type[MEMBERS_WORD_BYTES];
    int since;
};

struct check {
    int version;
    int depth;
    struct err *err;
};

bool members_version_parse(const char *text, int *ret_version)
{
    int part[3] = {0};
    const char *at = text;
    for (int i = 0; i < 3; i++) {
        char *end;
        long value = strtol(at, &end, 10);
        if (end == at || value < 0 || value > 99)
            return false;
        part[i] = (int)value;
        at = end;
        if (*at != '.')
            break;
        at++;
    }
    if (*at != '\0' && *at != '-')
        return false;
    *ret_version = MEMBERS_VERSION(part[0], part[1], part[2]);
    return true;
}

/* Known irregular names of the API; the rest follows the plain rule. */
void members_singular(const char *plural, char *out, size_t bytes)
{
    size_t len = strlen(plural);
    if (!strcmp(plural, "numa_nodes"))
        (void)snprintf(out, bytes, "vm_numa_node");
    else if (!strcmp(plural, "katello_errata"))
        (void)snprintf(out, bytes, "katello_erratum");
    else if (!strcmp(plural, "supported_versions"))
        (void)snprintf(out, bytes, "version");
    else if (len > 3 && !strcmp(plural + len - 3, "ies"))
        (void)snprintf(out, bytes, "%.*sy", (int)(len - 3), plural);
    else if (len > 1 && plural[len - 1] == 's')
        (void)snprintf(out, bytes, "%.*s", (int)(len - 1), plural);
    else
        (void)snprintf(out, bytes, "%s", plural);
}

static const struct member_type_row *find_type(const char *name)
{
    for (const struct member_type_row *row = member_type_rows; row->name; row++)
        if (!strcmp(row->name, name))
            return row;
    return NULL;
}

static const char *find_enum(const char *name)
{
    for (const struct member_enum_row *row = member_enum_rows; row->name; row++)
        if (!strcmp(row->name, name))
            return row->values;
    return NULL;
}

/* Is `word` in the space-separated `list`? */
static bool word_in(const char *list, const char *word)
{
    size_t len = strlen(word);
    for (const char *at = list; len > 0 && (at = strstr(at, word)) != NULL; at += len)
        if ((at == list || at[-1] == ' ') && (at[len] == ' ' || at[len] == '\0'))
            return true;
    return false;
}

/* Reads "KIND[:TYPE][@VERSION]", which ends at a space. */
static struct member parse_member(const char *spec)
{
    struct member m = {.kind = spec[0]};
    size_t len = strcspn(spec, " ");
    const char *at = memchr(spec, '@', len);
    if (at) {
        SCOPED_FREE char *version = xstrndup(at + 1, len - (size_t)(at + 1 - spec));
        (void)members_version_parse(version, &m.since);
    }
    size_t type_end = at ? (size_t)(at - spec) : len;
    if (type_end > 2)
        (void)snprintf(m.type, sizeof m.type, "%.*s", (int)(type_end - 2), spec + 2);
    return m;
}

static bool find_member(const struct member_type_row *row, const char *name, int version,
                        struct member *ret)
{
    size_t len = strlen(name);
    for (const char *at = row->members; len > 0 && (at = strstr(at, name)) != NULL; at += len) {
        if ((at != row->members && at[-1] != ' ') || at[len] != ':')
            continue;
        *ret = parse_member(at + len + 1);
        return ret->since <= version;
    }
    if (row->parent[0] == '\0')
        return false;
    const struct member_type_row *parent = find_type(row->parent);
    return parent && find_member(parent, name, version, ret);
}

static bool refuse(const struct check *c, const char *path, const char *why)
{
    return err_set(c->err, ERR_BAD_MESSAGE, 400, "%s: %s", path, why);
}

static bool check_integer(const struct check *c, const char *path, json_t *parent, const char *key,
                          json_t *value)
{
    char text[32];
    if (json_is_integer(value)) {
        (void)snprintf(text, sizeof text, "%lld", (long long)json_integer_value(value));
        json_object_set_new(parent, key, json_string(text));
        return true;
    }
    const char *s = json_string_value(value);
    if (!s)
        return refuse(c, path, "not an integer");
    char *end;
    (void)strtoll(s, &end, 10);
    return (end != s && *end == '\0') || refuse(c, path, "not an integer");
}

static bool check_boolean(const struct check *c, const char *path, json_t *parent, const char *key,
                          json_t *value)
{
    const char *s = json_string_value(value);
    bool truth;
    if (json_is_boolean(value))
        truth = json_is_true(value);
    else if (json_is_integer(value) && json_integer_value(value) >= 0 &&
             json_integer_value(value) <= 1)
        truth = json_integer_value(value) == 1;
    else if (s && (!strcasecmp(s, "true") || !strcmp(s, "1")))
        truth = true;
    else if (s && (!strcasecmp(s, "false") || !strcmp(s, "0")))
        truth = false;
    else
        return refuse(c, path, "not a boolean");
    json_object_set_new(parent, key, json_string(truth ? "true" : "false"));
    return true;
}

static bool check_string(const struct check *c, const char *path, json_t *parent, const char *key,
                         json_t *value)
{
    char text[64];
    if (json_is_string(value))
        return true;
    if (json_is_integer(value))
        (void)snprintf(text, sizeof text, "%lld", (long long)json_integer_value(value));
    else if (json_is_real(value))
        (void)snprintf(text, sizeof text, "%g", json_real_value(value));
    else if (json_is_boolean(value))
        (void)snprintf(text, sizeof text, "%s", json_is_true(value) ? "true" : "false");
    else
        return refuse(c, path, "not a string");
    json_object_set_new(parent, key, json_string(text));
    return true;
}

static bool check_object(struct check *c, const char *path, const char *type, json_t *body);

static bool check_constant(const struct check *c, const char *path, const char *type,
                           const json_t *value)
{
    const char *constants = find_enum(type);
    const char *s = json_string_value(value);
    if (!s)
        return refuse(c, path, "not an enumeration constant");
    return (constants && word_in(constants, s)) || refuse(c, path, "unknown enumeration constant");
}

static bool check_element(struct check *c, const char *path, const char *type, json_t *element)
{
    if (!strcmp(type, "String"))
        return json_is_string(element) || refuse(c, path, "not a string");
    if (find_enum(type))
        return check_constant(c, path, type, element);
    return check_object(c, path, type, element);
}

/* {"x":[...]}; an object in place of the array stands for one element, as in the real binding. */
static bool check_list(struct check *c, const char *path, const char *name, const char *type,
                       json_t *wrapper)
{
    char singular[MEMBERS_WORD_BYTES];
    members_singular(name, singular, sizeof singular);
    if (!strcmp(name, "link") && json_is_array(wrapper))
        return true;
    if (!json_is_object(wrapper))
        return refuse(c, path, "not a list wrapper");
    const char *key;
    json_t *value;
    json_object_foreach (wrapper, key, value) {
        if (!strcmp(key, "href") || !strcmp(key, "id") || json_is_null(value))
            continue;
        if (strcmp(key, singular) != 0)
            return refuse(c, path, "unknown member in the list wrapper");
        if (!json_is_array(value)) {
            if (!check_element(c, path, type, value))
                return false;
            continue;
        }
        size_t i;
        json_t *element;
        json_array_foreach (value, i, element)
            if (!check_element(c, path, type, element))
                return false;
    }
    return true;
}

static bool check_member(struct check *c, const char *path, json_t *parent, const char *key,
                         const struct member *m, json_t *value)
{
    switch (m->kind) {
    case 's':
        return check_string(c, path, parent, key, value);
    case 'i':
        return check_integer(c, path, parent, key, value);
    case 'b':
        return check_boolean(c, path, parent, key, value);
    case 't':
    case 'n':
        return json_is_number(value) || json_is_string(value) || refuse(c, path, "not a number");
    case 'e':
        return check_constant(c, path, m->type, value);
    case 'o':
        return check_object(c, path, m->type, value);
    default:
        return check_list(c, path, key, m->type, value);
    }
}

static bool check_object(struct check *c, const char *path, const char *type, json_t *body)
{
    const struct member_type_row *row = find_type(type);
    if (!row)
        row = find_type("Identified");
    if (!json_is_object(body))
        return refuse(c, path, "not an object");
    if (++c->depth > MEMBERS_DEPTH_MAX)
        return refuse(c, path, "nested too deep");
    const char *key;
    json_t *value;
    void *next;
    json_object_foreach_safe(body, next, key, value)
    {
        char below[MEMBERS_PATH_BYTES];
        struct member m;
        (void)snprintf(below, sizeof below, "%s%s%.60s", path, path[0] ? "." : "", key);
        if (!find_member(row, key, c->version, &m))
            return refuse(c, below, "unknown member");
        if (json_is_null(value)) {
            (void)json_object_del(body, key);
            continue;
        }
        if (!check_member(c, below, body, key, &m, value))
            return false;
    }
    c->depth--;
    return true;
}

bool members_check(const char *type, int version, json_t *body, struct err *err)
{
    struct check c = {.version = version, .err = err};
    return check_object(&c, "", type, body);
}
