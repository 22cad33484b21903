/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sandbox/engine/json_out.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HREF_BYTES = 512 };

void out_str(json_t *o, const char *key, const char *value)
{
    if (value)
        json_object_set_new(o, key, json_string(value));
}

void out_u64(json_t *o, const char *key, uint64_t value)
{
    char text[32];
    (void)snprintf(text, sizeof text, "%" PRIu64, value);
    json_object_set_new(o, key, json_string(text));
}

void out_bool(json_t *o, const char *key, bool value)
{
    json_object_set_new(o, key, json_string(value ? "true" : "false"));
}

void out_date(json_t *o, const char *key, int64_t ms)
{
    json_object_set_new(o, key, json_integer(ms));
}

__attribute__((format(printf, 2, 0))) static void href_of(char *out, const char *fmt, va_list ap)
{
    size_t prefix = strlen(API_PREFIX "/");
    (void)snprintf(out, HREF_BYTES, API_PREFIX "/");
    (void)vsnprintf(out + prefix, HREF_BYTES - prefix, fmt, ap);
}

void out_ref(json_t *o, const char *key, const char *id, const char *fmt, ...)
{
    char href[HREF_BYTES];
    va_list ap;
    va_start(ap, fmt);
    href_of(href, fmt, ap);
    va_end(ap);
    json_object_set_new(o, key, json_pack("{s:s, s:s}", "href", href, "id", id));
}

json_t *out_entity(const char *id, const char *fmt, ...)
{
    char href[HREF_BYTES];
    va_list ap;
    va_start(ap, fmt);
    href_of(href, fmt, ap);
    va_end(ap);
    return json_pack("{s:s, s:s}", "id", id, "href", href);
}

static void add_link(json_t *list, const char *href, const char *rel)
{
    SCOPED_FREE char *full = xasprintf("%s/%s", href, rel);
    json_array_append_new(list, json_pack("{s:s, s:s}", "href", full, "rel", rel));
}

void out_link(json_t *o, const char *rel)
{
    json_t *list = json_object_get(o, "link");
    if (!list) {
        list = json_array();
        json_object_set_new(o, "link", list);
    }
    add_link(list, json_string_value(json_object_get(o, "href")), rel);
}

void out_action(json_t *o, const char *name)
{
    json_t *actions = json_object_get(o, "actions");
    if (!actions) {
        actions = json_pack("{s:[]}", "link");
        json_object_set_new(o, "actions", actions);
    }
    add_link(json_object_get(actions, "link"), json_string_value(json_object_get(o, "href")), name);
}

json_t *out_collection(const char *key, json_t *list)
{
    json_t *o = json_object();
    if (json_array_size(list) > 0)
        json_object_set(o, key, list);
    json_decref(list);
    return o;
}

const char *in_str(const json_t *body, const char *member)
{
    return json_string_value(json_object_get(body, member));
}

const char *in_ref_id(const json_t *body, const char *member)
{
    return in_str(json_object_get(body, member), "id");
}

const char *in_ref_any(const json_t *body, const char *member)
{
    const char *id = in_ref_id(body, member);
    return id ? id : in_str(json_object_get(body, member), "name");
}

bool in_bool(const json_t *body, const char *member, bool otherwise)
{
    const char *text = in_str(body, member);
    return text ? !strcmp(text, "true") : otherwise;
}

uint64_t in_u64(const json_t *body, const char *member, uint64_t otherwise)
{
    const char *text = in_str(body, member);
    if (!text || text[0] == '-')
        return otherwise;
    return strtoull(text, NULL, 10);
}

json_t *in_list(const json_t *body, const char *plural, const char *singular)
{
    json_t *list = json_object_get(json_object_get(body, plural), singular);
    return json_is_array(list) ? list : NULL;
}
