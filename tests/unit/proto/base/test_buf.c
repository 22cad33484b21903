/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "proto/base/buf.h"

static void test_adds_up_to_its_maximum(void **state)
{
    (void)state;
    SCOPED_BUF struct buf b;
    buf_init(&b, 10);
    assert_string_equal(buf_str(&b), "");
    assert_true(buf_add(&b, "12345", 5));
    assert_true(buf_printf(&b, "%d", 678));
    assert_string_equal(buf_str(&b), "12345678");
    assert_false(buf_add(&b, "xyz", 3)); /* nothing of it is added */
    assert_string_equal(buf_str(&b), "12345678");
    assert_false(buf_printf(&b, "%s", "xyz"));
    assert_int_equal(b.len, 8);
    assert_true(buf_add(&b, "90", 2));
    assert_false(buf_add(&b, "!", 1));
    assert_true(buf_add(&b, NULL, 0));
    assert_string_equal(buf_str(&b), "1234567890");
}

static void test_grows(void **state)
{
    (void)state;
    SCOPED_BUF struct buf b;
    buf_init(&b, 1 << 20);
    for (int i = 0; i < 1 << 16; i++)
        assert_true(buf_add(&b, "0123456789abcdef", 16));
    assert_int_equal(b.len, 1 << 20);
    assert_int_equal(strlen(b.data), 1 << 20);
    assert_memory_equal(b.data + (1 << 20) - 16, "0123456789abcdef", 16);
}

static void test_reset_and_take(void **state)
{
    (void)state;
    SCOPED_BUF struct buf b;
    buf_init(&b, 100);
    char *empty = buf_take(&b);
    assert_string_equal(empty, "");
    free(empty);
    buf_add(&b, "a\0b", 3);
    char *taken = buf_take(&b);
    assert_memory_equal(taken, "a\0b\0", 4);
    free(taken);
    assert_int_equal(b.len, 0);
    assert_true(buf_add(&b, "again", 5)); /* the maximum stays */
    buf_reset(&b);
    assert_string_equal(buf_str(&b), "");
    assert_true(buf_add(&b, "more", 4));
    assert_string_equal(buf_str(&b), "more");
}

static void test_zero_maximum(void **state)
{
    (void)state;
    SCOPED_BUF struct buf b;
    buf_init(&b, 0);
    assert_false(buf_add(&b, "x", 1));
    assert_true(buf_add(&b, "", 0));
    assert_string_equal(buf_str(&b), "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_adds_up_to_its_maximum),
        cmocka_unit_test(test_grows),
        cmocka_unit_test(test_reset_and_take),
        cmocka_unit_test(test_zero_maximum),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
