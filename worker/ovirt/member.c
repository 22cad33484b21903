/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/ovirt/member.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

const char *member_str(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

/* Digits only: strtoull alone would take signs, blanks and "0x". */
static bool digits_u64(const char *text, uint64_t *ret)
{
    if (!isdigit((unsigned char)*text))
        return false;
    char *end;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    if (errno != 0 || *end != '\0')
        return false;
    *ret = v;
    return true;
}

bool member_u64(const json_t *object, const char *key, uint64_t *ret)
{
    const json_t *v = json_object_get(object, key);
    if (json_is_string(v))
        return digits_u64(json_string_value(v), ret);
    if (!json_is_integer(v) || json_integer_value(v) < 0)
        return false;
    *ret = (uint64_t)json_integer_value(v);
    return true;
}

uint64_t member_u64_or(const json_t *object, const char *key, uint64_t fallback)
{
    uint64_t v;
    return member_u64(object, key, &v) ? v : fallback;
}

bool member_bool_or(const json_t *object, const char *key, bool fallback)
{
    const json_t *v = json_object_get(object, key);
    if (json_is_boolean(v))
        return json_is_true(v);
    if (json_is_integer(v))
        return json_integer_value(v) != 0;
    const char *text = json_string_value(v);
    if (!text)
        return fallback;
    if (strcasecmp(text, "true") == 0 || strcmp(text, "1") == 0)
        return true;
    if (strcasecmp(text, "false") == 0 || strcmp(text, "0") == 0)
        return false;
    return fallback;
}

/* Two digits at `text`, or -1. */
static int two_digits(const char *text)
{
    if (!isdigit((unsigned char)text[0]) || !isdigit((unsigned char)text[1]))
        return -1;
    return (text[0] - '0') * 10 + (text[1] - '0');
}

/* "Z", "+01:00", "-0230" or nothing; minutes east of UTC. */
static bool zone_minutes(const char *text, long *ret)
{
    *ret = 0;
    if (*text == '\0' || strcmp(text, "Z") == 0)
        return true;
    if (*text != '+' && *text != '-')
        return false;
    int hours = two_digits(text + 1);
    if (hours < 0 || hours > 14)
        return false;
    const char *rest = text[3] == ':' ? text + 4 : text + 3;
    int minutes = two_digits(rest);
    if (minutes < 0 || minutes > 59 || rest[2] != '\0')
        return false;
    *ret = (hours * 60L + minutes) * (*text == '-' ? -1 : 1);
    return true;
}

static bool iso_time_ms(const char *text, int64_t *ret)
{
    struct tm tm = {0};
    const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
    if (!rest)
        return false;
    int64_t ms = 0;
    if (*rest == '.') {
        int scale = 100;
        for (rest++; isdigit((unsigned char)*rest); rest++) {
            ms += (*rest - '0') * scale;
            scale /= 10;
        }
    }
    long east;
    if (!zone_minutes(rest, &east))
        return false;
    *ret = ((int64_t)timegm(&tm) - east * 60) * 1000 + ms;
    return true;
}

int64_t member_time_ms_or(const json_t *object, const char *key, int64_t fallback)
{
    const json_t *v = json_object_get(object, key);
    if (json_is_integer(v))
        return json_integer_value(v);
    if (json_is_real(v)) {
        double real = json_real_value(v);
        return real > -9e15 && real < 9e15 ? (int64_t)real : fallback;
    }
    const char *text = json_string_value(v);
    uint64_t number;
    int64_t ms;
    if (text && digits_u64(text, &number) && number <= INT64_MAX)
        return (int64_t)number;
    if (text && iso_time_ms(text, &ms))
        return ms;
    return fallback;
}

json_t *member_object(const json_t *object, const char *key)
{
    json_t *v = json_object_get(object, key);
    return json_is_object(v) ? v : NULL;
}

const char *member_ref_id(const json_t *object, const char *key)
{
    return member_str(member_object(object, key), "id");
}

json_t *member_list(const json_t *object, const char *wrapper, const char *element)
{
    json_t *list = json_object_get(wrapper ? member_object(object, wrapper) : object, element);
    return json_is_array(list) ? list : NULL;
}
