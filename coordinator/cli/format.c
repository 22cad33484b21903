/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/cli/format.h"

#include <errno.h>
#include <inttypes.h>
#include <langinfo.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <wchar.h>

enum { DURATION_MAX_S = 366 * 24 * 3600 };

void format_size(int64_t bytes, char *out)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    if (bytes < 1000) {
        snprintf(out, FORMAT_BYTES, "%" PRId64 " B", bytes < 0 ? 0 : bytes);
        return;
    }
    double value = (double)bytes;
    size_t unit = 0;
    while (value >= 999.5 && unit + 1 < ARRAY_LEN(units)) {
        value /= 1024;
        unit++;
    }
    snprintf(out, FORMAT_BYTES, value < 99.95 ? "%.1f %s" : "%.0f %s", value, units[unit]);
}

void format_rate(int64_t bytes_per_s, char *out)
{
    char size[FORMAT_BYTES];
    format_size(bytes_per_s, size);
    snprintf(out, FORMAT_BYTES, "%.20s/s", size);
}

void format_duration(int64_t ms, char *out)
{
    int64_t s = ms < 0 ? 0 : ms / 1000;
    if (s < 60)
        snprintf(out, FORMAT_BYTES, "%" PRId64 "s", s);
    else if (s < 3600)
        snprintf(out, FORMAT_BYTES, "%" PRId64 "m%02" PRId64 "s", s / 60, s % 60);
    else if (s < 86400)
        snprintf(out, FORMAT_BYTES, "%" PRId64 "h%02" PRId64 "m", s / 3600, s / 60 % 60);
    else
        snprintf(out, FORMAT_BYTES, "%" PRId64 "d%02" PRId64 "h", s / 86400, s / 3600 % 24);
}

void format_time(int64_t wall_ms, char *out)
{
    time_t seconds = (time_t)(wall_ms / 1000);
    struct tm tm;
    if (wall_ms <= 0 || !localtime_r(&seconds, &tm) ||
        strftime(out, FORMAT_BYTES, "%Y-%m-%d %H:%M", &tm) == 0)
        snprintf(out, FORMAT_BYTES, "-");
}

void format_age(int64_t then_wall_ms, int64_t now_wall_ms, char *out)
{
    if (then_wall_ms <= 0) {
        snprintf(out, FORMAT_BYTES, "-");
        return;
    }
    int64_t s = now_wall_ms > then_wall_ms ? (now_wall_ms - then_wall_ms) / 1000 : 0;
    if (s < 60)
        snprintf(out, FORMAT_BYTES, "%" PRId64 "s", s);
    else if (s < 3600)
        snprintf(out, FORMAT_BYTES, "%" PRId64 "m", s / 60);
    else if (s < 2 * 86400)
        snprintf(out, FORMAT_BYTES, "%" PRId64 "h", s / 3600);
    else
        snprintf(out, FORMAT_BYTES, "%" PRId64 "d", s / 86400);
}

static int64_t unit_seconds(char unit)
{
    switch (unit) {
    case 's':
    case '\0':
        return 1;
    case 'm':
        return 60;
    case 'h':
        return 3600;
    case 'd':
        return 86400;
    default:
        return 0;
    }
}

bool format_parse_duration(const char *text, int64_t *ret_s, struct err *err)
{
    int64_t total = 0;
    const char *at = text;
    do {
        char *end;
        errno = 0;
        long long n = strtoll(at, &end, 10);
        int64_t unit = unit_seconds(*end);
        if (end == at || *at == '+' || *at == '-' || *at == ' ' || errno || unit == 0 ||
            n > DURATION_MAX_S)
            return err_set(err, ERR_BAD_ARGUMENT, 0,
                           "'%s' is not a duration: write 90s, 15m, 6h, 2d or a sum like 1h30m",
                           text);
        total += n * unit;
        at = *end ? end + 1 : end;
        if (total > DURATION_MAX_S)
            break;
    } while (*at);
    if (total < 1 || total > DURATION_MAX_S)
        return err_set(err, ERR_BAD_ARGUMENT, 0, "duration '%s' is not within 1s..366d", text);
    *ret_s = total;
    return true;
}

bool text_locale_is_utf8(void)
{
    return strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
}

/* The code point at `at` and its length in bytes; a malformed one is U+FFFD of one byte. */
static uint32_t decode(const unsigned char *at, int *ret_len)
{
    uint32_t c = at[0];
    int len = c < 0x80                ? 1
              : c >= 0xc2 && c < 0xe0 ? 2
              : c >= 0xe0 && c < 0xf0 ? 3
              : c < 0xf5              ? 4
                                      : 0;
    *ret_len = 1;
    if (len == 1)
        return c;
    if (c < 0xc2 || len == 0)
        return 0xfffd;
    c &= 0x7fU >> len;
    for (int i = 1; i < len; i++) {
        if ((at[i] & 0xc0) != 0x80)
            return 0xfffd;
        c = c << 6 | (at[i] & 0x3f);
    }
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    if (c < least[len] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
        return 0xfffd;
    *ret_len = len;
    return c;
}

/* Columns of a code point, or -1 when it must not reach a terminal: controls, separators that break
 * lines, direction overrides and invisible format characters (Unicode categories Cc, Zl, Zp, Cf).
 */
static int columns_of(uint32_t c, bool utf8)
{
    if (c < 0x20 || c == 0x7f)
        return -1;
    if (c < 0x7f)
        return 1;
    if (!utf8 || c < 0xa0 || c == 0xad || c == 0x61c || c == 0xfffd || c == 0xfeff ||
        (c >= 0x200b && c <= 0x200f) || (c >= 0x2028 && c <= 0x202e) ||
        (c >= 0x2060 && c <= 0x206f) || (c >= 0xfff0 && c <= 0xfffb) || c >= 0xe0000)
        return -1;
    return wcwidth((wchar_t)c);
}

/* Append at most `width` columns of `text`; *ret_rest tells whether some was left. */
static int add_upto(struct buf *out, const char *text, int width, bool utf8, bool *ret_rest)
{
    int used = 0;
    const unsigned char *at = (const unsigned char *)text;
    while (*at) {
        int len;
        int columns = columns_of(decode(at, &len), utf8);
        int take = columns < 0 ? 1 : columns;
        if (used + take > width)
            break;
        used += take;
        if (columns < 0)
            (void)buf_add(out, "?", 1);
        else
            (void)buf_add(out, at, (size_t)len);
        at += len;
    }
    *ret_rest = *at != '\0';
    return used;
}

enum { NO_LIMIT = 1 << 30 };

int text_add_clean(struct buf *out, const char *text, bool utf8)
{
    bool rest;
    return add_upto(out, text ? text : "-", NO_LIMIT, utf8, &rest);
}

int text_width(const char *text, bool utf8)
{
    SCOPED_BUF struct buf scratch;
    buf_init(&scratch, 1 << 20);
    return text_add_clean(&scratch, text, utf8);
}

void text_add_fit(struct buf *out, const char *text, int width, bool pad, bool utf8)
{
    if (!text)
        text = "-";
    bool rest;
    int used;
    if (width < 1)
        return;
    if (text_width(text, utf8) <= width) {
        used = add_upto(out, text, width, utf8, &rest);
    } else {
        used = add_upto(out, text, width - 1, utf8, &rest) + 1;
        (void)buf_printf(out, "%s", utf8 ? "…" : "~");
    }
    if (pad && used < width)
        (void)buf_printf(out, "%*s", width - used, "");
}
