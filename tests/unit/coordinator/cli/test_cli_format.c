/* SPDX-License-Identifier: Apache-2.0 */
#include <locale.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "coordinator/cli/format.h"

static void sizes(void **state)
{
    (void)state;
    static const struct {
        int64_t bytes;
        const char *text;
    } cases[] = {
        {-1, "0 B"},
        {0, "0 B"},
        {999, "999 B"},
        {1000, "1.0 KiB"},
        {1536, "1.5 KiB"},
        {102348, "99.9 KiB"},
        {102400, "100 KiB"},
        {1023488, "1.0 MiB"},
        {INT64_C(13314398618), "12.4 GiB"},
        {INT64_C(1) << 40, "1.0 TiB"},
        {INT64_MAX, "8.0 EiB"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char out[FORMAT_BYTES];
        format_size(cases[i].bytes, out);
        assert_string_equal(out, cases[i].text);
    }
    char rate[FORMAT_BYTES];
    format_rate(123731968, rate);
    assert_string_equal(rate, "118 MiB/s");
}

static void durations(void **state)
{
    (void)state;
    static const struct {
        int64_t ms;
        const char *text;
    } cases[] = {
        {-5, "0s"},         {999, "0s"},          {59999, "59s"},
        {60000, "1m00s"},   {192000, "3m12s"},    {3599000, "59m59s"},
        {3840000, "1h04m"}, {183600000, "2d03h"}, {INT64_C(366) * 86400000, "366d00h"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char out[FORMAT_BYTES];
        format_duration(cases[i].ms, out);
        assert_string_equal(out, cases[i].text);
    }
}

static void ages_and_times(void **state)
{
    (void)state;
    char out[FORMAT_BYTES];
    const int64_t now = INT64_C(1000000000000);
    format_age(0, now, out);
    assert_string_equal(out, "-");
    format_age(now + 5000, now, out);
    assert_string_equal(out, "0s");
    format_age(now - 59000, now, out);
    assert_string_equal(out, "59s");
    format_age(now - 61 * 60000, now, out);
    assert_string_equal(out, "1h");
    format_age(now - INT64_C(47) * 3600000, now, out);
    assert_string_equal(out, "47h");
    format_age(now - INT64_C(49) * 3600000, now, out);
    assert_string_equal(out, "2d");
    setenv("TZ", "UTC-2", 1);
    tzset();
    format_time(now, out);
    assert_string_equal(out, "2001-09-09 03:46");
    format_time(0, out);
    assert_string_equal(out, "-");
}

static void durations_parse(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t seconds; /* 0 = refused */
    } cases[] = {
        {"90", 90},     {"90s", 90},     {"15m", 900},       {"6h", 21600},
        {"2d", 172800}, {"1h30m", 5400}, {"366d", 31622400}, {"1", 1},
        {"", 0},        {"0", 0},        {"0s", 0},          {"-5", 0},
        {"+5", 0},      {" 5", 0},       {"5 ", 0},          {"5x", 0},
        {"h", 0},       {"1h30", 3630},  {"367d", 0},        {"99999999999999999999", 0},
        {"1.5h", 0},    {"366d1s", 0},   {"5m-1s", 0},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct err err = ERR_INIT;
        int64_t seconds = 0;
        bool ok = format_parse_duration(cases[i].text, &seconds, &err);
        assert_int_equal(ok, cases[i].seconds != 0);
        assert_int_equal(seconds, cases[i].seconds);
        assert_int_equal(err.code, ok ? ERR_NONE : ERR_BAD_ARGUMENT);
    }
}

static void assert_clean(const char *text, bool utf8, const char *expected, int columns)
{
    SCOPED_BUF struct buf out;
    buf_init(&out, 4096);
    assert_int_equal(text_add_clean(&out, text, utf8), columns);
    assert_string_equal(buf_str(&out), expected);
}

static void unsafe_characters_never_pass(void **state)
{
    (void)state;
    assert_clean(NULL, true, "-", 1);
    assert_clean("", true, "", 0);
    assert_clean("web-1.example", true, "web-1.example", 13);
    assert_clean("a\033[2Jb\a\r\n\tc\177d", true, "a?[2Jb????c?d", 13);
    assert_clean("\302\233K", true, "?K", 2);           /* U+009B, CSI */
    assert_clean("a\342\200\256b", true, "a?b", 3);     /* U+202E, right-to-left override */
    assert_clean("a\342\201\247b", true, "a?b", 3);     /* U+2067 */
    assert_clean("a\342\200\213b", true, "a?b", 3);     /* U+200B, zero width space */
    assert_clean("a\357\273\277b", true, "a?b", 3);     /* U+FEFF */
    assert_clean("a\363\240\201\201b", true, "a?b", 3); /* U+E0041, a tag */
    assert_clean("\355\240\200", true, "???", 3);       /* a surrogate */
    assert_clean("\300\200\377\376", true, "????", 4);  /* overlong, not UTF-8 */
    assert_clean("\364\220\200\200", true, "????", 4);  /* above U+10FFFF */
    assert_clean("\342\202", true, "??", 2);            /* cut short */
    assert_clean("caf\303\251", true, "caf\303\251", 4);
    assert_clean("\346\227\245", true, "\346\227\245", 2); /* a wide one */
    assert_clean("caf\303\251", false, "caf?", 4);
}

/* Whatever the bytes are, nothing that steers a terminal comes out. */
static void any_bytes(void **state)
{
    (void)state;
    uint32_t x = 12345;
    for (int round = 0; round < 2000; round++) {
        char text[40];
        for (size_t i = 0; i + 1 < sizeof text; i++) {
            x = x * 1664525 + 1013904223;
            text[i] = (char)(x >> 24);
        }
        text[sizeof text - 1] = '\0';
        SCOPED_BUF struct buf out;
        buf_init(&out, 4096);
        (void)text_add_clean(&out, text, round % 2);
        for (size_t i = 0; i < out.len; i++) {
            unsigned char c = (unsigned char)out.data[i];
            assert_true(c >= 0x20 && c != 0x7f);
            if (c == 0xc2)
                assert_true((unsigned char)out.data[i + 1] >= 0xa0);
        }
    }
}

static void assert_fit(const char *text, int width, bool pad, bool utf8, const char *expected)
{
    SCOPED_BUF struct buf out;
    buf_init(&out, 4096);
    text_add_fit(&out, text, width, pad, utf8);
    assert_string_equal(buf_str(&out), expected);
}

static void fitting(void **state)
{
    (void)state;
    assert_fit("web1", 6, true, true, "web1  ");
    assert_fit("web1", 6, false, true, "web1");
    assert_fit("web1", 4, true, true, "web1");
    assert_fit("webserver", 4, true, true, "web…");
    assert_fit("webserver", 4, true, false, "web~");
    assert_fit("webserver", 1, true, true, "…");
    assert_fit("webserver", 0, true, true, "");
    /* A wide character that would be cut in two leaves a blank. */
    assert_fit("\346\227\245\346\227\245\346\227\245", 4, true, true, "\346\227\245… ");
}

int main(void)
{
    if (!setlocale(LC_CTYPE, "C.UTF-8"))
        return 77;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes),
        cmocka_unit_test(durations),
        cmocka_unit_test(ages_and_times),
        cmocka_unit_test(durations_parse),
        cmocka_unit_test(unsafe_characters_never_pass),
        cmocka_unit_test(any_bytes),
        cmocka_unit_test(fitting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
