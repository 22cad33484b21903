/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sandbox/imageio/range.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A number of digits only, below 2^63. */
static bool take_number(const char **at, uint64_t *ret)
{
    if (!isdigit((unsigned char)**at))
        return false;
    char *end;
    errno = 0;
    unsigned long long value = strtoull(*at, &end, 10);
    if (errno != 0 || value > INT64_MAX)
        return false;
    *at = end;
    *ret = value;
    return true;
}

static bool take_text(const char **at, const char *text)
{
    size_t len = strlen(text);
    if (strncmp(*at, text, len) != 0)
        return false;
    *at += len;
    return true;
}

enum range_result range_parse(const char *header, struct range *ret, const char **ret_why)
{
    const char *at = header;
    uint64_t ignored;
    struct range r = {0};
    *ret_why = "invalid range or multiple ranges";
    if (!take_text(&at, "bytes="))
        return RANGE_BAD;
    if (take_text(&at, "-")) {
        if (*at == '\0')
            *ret_why = "no first or last";
        return take_number(&at, &ignored) && *at == '\0' ? RANGE_SUFFIX : RANGE_BAD;
    }
    if (!take_number(&at, &r.first) || !take_text(&at, "-"))
        return RANGE_BAD;
    r.has_last = take_number(&at, &r.last);
    if (*at != '\0')
        return RANGE_BAD;
    if (r.has_last && r.last < r.first) {
        *ret_why = "first > last";
        return RANGE_BAD;
    }
    *ret = r;
    return RANGE_OK;
}

bool content_range_parse(const char *header, uint64_t *ret_first)
{
    const char *at = header;
    uint64_t first, last = 0, complete = 0;
    if (!take_text(&at, "bytes ") || !take_number(&at, &first) || !take_text(&at, "-"))
        return false;
    bool has_last = !take_text(&at, "*");
    if (has_last && (!take_number(&at, &last) || last < first))
        return false;
    if (!take_text(&at, "/"))
        return false;
    bool has_complete = !take_text(&at, "*");
    if (has_complete && (!take_number(&at, &complete) || (has_last && last >= complete)))
        return false;
    if (*at != '\0')
        return false;
    *ret_first = first;
    return true;
}
