/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proto/base/alloc.h"
#include "tests/sandbox/imageio/range.h"

static void test_ranges(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        enum range_result result;
        struct range range;
    } cases[] = {
        {"bytes=0-0", RANGE_OK, {0, true, 0}},
        {"bytes=5-10", RANGE_OK, {5, true, 10}},
        {"bytes=5-", RANGE_OK, {5, false, 0}},
        {"bytes=0-9223372036854775807", RANGE_OK, {0, true, INT64_MAX}},
        {"bytes=-5", RANGE_SUFFIX, {0}},
        {"bytes=-", RANGE_BAD, {0}},
        {"bytes=", RANGE_BAD, {0}},
        {"bytes=6-5", RANGE_BAD, {0}},
        {"bytes=1-2,3-4", RANGE_BAD, {0}},
        {"bytes= 1-2", RANGE_BAD, {0}},
        {"bytes=1 -2", RANGE_BAD, {0}},
        {"bytes=1-2 ", RANGE_BAD, {0}},
        {"bytes=+1-2", RANGE_BAD, {0}},
        {"bytes=0x1-2", RANGE_BAD, {0}},
        {"bytes=1-9223372036854775808", RANGE_BAD, {0}},
        {"bytes=99999999999999999999-", RANGE_BAD, {0}},
        {"Bytes=1-2", RANGE_BAD, {0}},
        {"items=1-2", RANGE_BAD, {0}},
        {"", RANGE_BAD, {0}},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct range got = {0};
        const char *why = NULL;
        if (range_parse(cases[i].header, &got, &why) != cases[i].result)
            fail_msg("'%s'", cases[i].header);
        assert_int_equal(got.first, cases[i].range.first);
        assert_int_equal(got.has_last, cases[i].range.has_last);
        assert_int_equal(got.last, cases[i].range.last);
    }
}

static void test_content_ranges(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        bool ok;
        uint64_t first;
    } cases[] = {
        {"bytes 7-9/*", true, 7},
        {"bytes 7-9/10", true, 7},
        {"bytes 7-*/*", true, 7},
        {"bytes 7-*/10", true, 7},
        {"bytes 7-9/9", false, 0},
        {"bytes 7-6/*", false, 0},
        {"bytes */*", false, 0},
        {"bytes */10", false, 0},
        {"bytes 7-9", false, 0},
        {"bytes 7-9/", false, 0},
        {"bytes 7/10", false, 0},
        {"bytes=7-9/10", false, 0},
        {"7-9/10", false, 0},
        {"bytes 7-9/10 ", false, 0},
        {"bytes 18446744073709551616-9/*", false, 0},
        {"", false, 0},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        uint64_t first = 0;
        if (content_range_parse(cases[i].header, &first) != cases[i].ok)
            fail_msg("'%s'", cases[i].header);
        assert_int_equal(first, cases[i].first);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_content_ranges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
