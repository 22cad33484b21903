/* SPDX-License-Identifier: Apache-2.0 */
#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "proto/base/id.h"

static void test_new_ids(void **state)
{
    (void)state;
    char a[ID_BYTES], b[ID_BYTES];
    id_new(a);
    id_new(b);
    assert_int_equal(strlen(a), ID_BYTES - 1);
    assert_true(id_is_valid(a));
    assert_string_not_equal(a, b);
    for (const char *c = a; *c; c++)
        assert_false(isupper((unsigned char)*c));
    assert_int_equal(a[14], '4'); /* random: version 4 */
}

static void test_valid(void **state)
{
    (void)state;
    assert_true(id_is_valid("01234567-89ab-cdef-0123-456789abcdef"));
    assert_true(id_is_valid("01234567-89AB-CDEF-0123-456789ABCDEF"));
    assert_false(id_is_valid(NULL));
    assert_false(id_is_valid(""));
    assert_false(id_is_valid("01234567-89ab-cdef-0123-456789abcde"));
    assert_false(id_is_valid("01234567-89ab-cdef-0123-456789abcdef0"));
    assert_false(id_is_valid("01234567-89ab-cdef-0123-456789abcdeg"));
    assert_false(id_is_valid("0123456789abcdef0123456789abcdef0123"));
    assert_false(id_is_valid("{1234567-89ab-cdef-0123-456789abcdef"));
    assert_false(id_is_valid(" 1234567-89ab-cdef-0123-456789abcdef"));
}

static void test_slug(void **state)
{
    (void)state;
    assert_true(id_is_slug("dc1", 64));
    assert_true(id_is_slug("proxy-1.example.org", 64));
    assert_true(id_is_slug("0_a", 3));
    assert_true(id_is_slug("_a", 64));
    assert_false(id_is_slug("", 64));
    assert_false(id_is_slug("abcd", 3));
    assert_false(id_is_slug(".hidden", 64));
    assert_false(id_is_slug("-option", 64));
    assert_false(id_is_slug("Upper", 64));
    assert_false(id_is_slug("a/b", 64));
    assert_false(id_is_slug("a*", 64));
    assert_false(id_is_slug("a#", 64));
    assert_false(id_is_slug("a b", 64));
    assert_false(id_is_slug("\xc3\xa4", 64));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_new_ids),
        cmocka_unit_test(test_valid),
        cmocka_unit_test(test_slug),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
