/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "proto/base/utf8.h"

static void test_lengths(void **state)
{
    (void)state;
    assert_int_equal(utf8_length(""), 0);
    assert_int_equal(utf8_length("a"), 1);
    assert_int_equal(utf8_length("\xc3\xa4x"), 2);
    assert_int_equal(utf8_length("\xe2\x82\xac"), 3);
    assert_int_equal(utf8_length("\xf0\x9f\x9a\x80"), 4);
    assert_int_equal(utf8_length("\xe2\x82"), 0);     /* cut */
    assert_int_equal(utf8_length("\x82"), 0);         /* the middle of one */
    assert_int_equal(utf8_length("\xc0\xaf"), 0);     /* overlong */
    assert_int_equal(utf8_length("\xed\xa0\x80"), 0); /* a surrogate */
    assert_int_equal(utf8_length("\xf4\x90\x80\x80"), 0);
    assert_int_equal(utf8_length("\xff"), 0);
}

/* Every sequence of two and three bytes, against another implementation. */
static void test_against_jansson(void **state)
{
    (void)state;
    for (uint32_t v = 0x010101; v <= 0xffffff; v++) {
        char text[] = {(char)(v >> 16), (char)(v >> 8), (char)v, (char)0x80, '\0'};
        if (!text[1] || !text[2] || (unsigned char)text[0] < 0xc0)
            continue;
        if (text[2] != (char)0x80 && text[2] != (char)0xbf && text[2] != 'x')
            continue; /* the edges are enough for the last byte */
        /* The first character is valid when some beginning of the text is a valid string. */
        size_t expected = 0;
        for (size_t n = 1; n <= 4 && !expected; n++) {
            json_t *json = json_stringn(text, n);
            expected = json ? n : 0;
            json_decref(json);
        }
        assert_int_equal(utf8_length(text), expected);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_against_jansson),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
