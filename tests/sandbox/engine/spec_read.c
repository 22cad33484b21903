/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sandbox/engine/spec_read.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/alloc.h"
#include "proto/base/id.h"

enum { SPEC_NAME_MAX = 64 };

bool spec_known(const json_t *o, const char *what, const char *const *known, struct err *err)
{
    if (!json_is_object(o))
        return err_set(err, ERR_BAD_CONFIG, 0, "spec: a %s is not an object", what);
    const char *key;
    json_t *value;
    json_object_foreach ((json_t *)(uintptr_t)o, key, value) {
        const char *const *k = known;
        while (*k && strcmp(*k, key) != 0)
            k++;
        if (!*k)
            return err_set(err, ERR_BAD_CONFIG, 0, "spec: %s: unknown member '%s'", what, key);
    }
    return true;
}

bool spec_name(const json_t *o, const char *what, const char **ret, struct err *err)
{
    const char *name = json_string_value(json_object_get(o, "name"));
    if (!name || !*name || strlen(name) > SPEC_NAME_MAX || strchr(name, '/'))
        return err_set(err, ERR_BAD_CONFIG, 0,
                       "spec: a %s needs a name of 1 to %d characters without '/'", what,
                       SPEC_NAME_MAX);
    *ret = name;
    return true;
}

bool spec_id(const json_t *o, char *out, struct err *err)
{
    const char *id = json_string_value(json_object_get(o, "id"));
    if (id && !id_is_valid(id))
        return err_set(err, ERR_BAD_CONFIG, 0, "spec: '%s' is not a UUID", id);
    if (id)
        (void)snprintf(out, ID_BYTES, "%s", id);
    else if (out[0] == '\0')
        id_new(out);
    return true;
}

bool spec_size(const json_t *o, const char *key, uint64_t *ret, struct err *err)
{
    static const struct {
        const char *unit;
        unsigned shift;
    } units[] = {{"", 0}, {"KiB", 10}, {"MiB", 20}, {"GiB", 30}, {"TiB", 40}};
    const json_t *value = json_object_get(o, key);
    const char *text = json_string_value(value);
    if (!value)
        return true;
    if (json_is_integer(value) && json_integer_value(value) >= 0) {
        *ret = (uint64_t)json_integer_value(value);
        return true;
    }
    char *end = NULL;
    unsigned long long number = text && *text >= '0' && *text <= '9' ? strtoull(text, &end, 10) : 0;
    for (size_t i = 0; end && i < ARRAY_LEN(units); i++)
        if (!strcmp(end, units[i].unit) && number <= (UINT64_MAX >> 1 >> units[i].shift)) {
            *ret = (uint64_t)number << units[i].shift;
            return true;
        }
    return err_set(err, ERR_BAD_CONFIG, 0, "spec: '%s' is not a size such as 67108864 or 64MiB",
                   key);
}

bool spec_fraction(const json_t *o, const char *key, double *ret, struct err *err)
{
    const json_t *value = json_object_get(o, key);
    if (!value)
        return true;
    if (!json_is_number(value) || json_number_value(value) < 0 || json_number_value(value) > 1)
        return err_set(err, ERR_BAD_CONFIG, 0, "spec: '%s' is not a number from 0 to 1", key);
    *ret = json_number_value(value);
    return true;
}

bool spec_bool(const json_t *o, const char *key, bool otherwise)
{
    const json_t *value = json_object_get(o, key);
    return json_is_boolean(value) ? json_is_true(value) : otherwise;
}

char *spec_number_name(const char *pattern, unsigned number)
{
    const char *percent = strchr(pattern, '%');
    if (!percent)
        return number == 1 ? xstrdup(pattern) : xasprintf("%s-%u", pattern, number);
    char *end;
    unsigned long width = strtoul(percent + 1, &end, 10);
    if (*end == 'd')
        end++;
    return xasprintf("%.*s%0*u%s", (int)(percent - pattern), pattern, width > 9 ? 9 : (int)width,
                     number, end);
}
