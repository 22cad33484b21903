/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "proto/base/err.h"

static void test_set_and_wrap(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    assert_false(err_is_set(&err));
    assert_false(err_set(&err, ERR_NOT_FOUND, 404, "no VM '%s'", "web1"));
    int line = __LINE__ - 1;
    assert_true(err_is_set(&err));
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_int_equal(err.sys, 404);
    assert_int_equal(err.line, line);
    assert_string_equal(err.file, "tests/unit/proto/base/test_err.c");
    assert_string_equal(err.message, "no VM 'web1'");
    assert_false(err_wrap(&err, "task %d", 7));
    assert_string_equal(err.message, "task 7: no VM 'web1'");
    assert_int_equal(err.code, ERR_NOT_FOUND);
    err_clear(&err);
    assert_false(err_is_set(&err));
    assert_string_equal(err.message, "");
}

static void test_first_error_is_kept(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    err_set(&err, ERR_IO, 0, "first");
    struct err other = ERR_INIT;
    err_set(&other, ERR_TIMEOUT, 0, "second");
    err_keep_first(&err, &other);
    assert_string_equal(err.message, "first");
    struct err none = ERR_INIT;
    err_keep_first(&none, &other);
    assert_int_equal(none.code, ERR_TIMEOUT);
    assert_string_equal(none.message, "second");
}

static void test_errno_chooses_the_code(void **state)
{
    (void)state;
    static const struct {
        int errnum;
        enum err_code code;
    } cases[] = {
        {ENOSPC, ERR_NO_SPACE},  {EDQUOT, ERR_NO_SPACE},    {EACCES, ERR_PERMISSION},
        {EPERM, ERR_PERMISSION}, {EROFS, ERR_UNAVAILABLE},  {ENOENT, ERR_NOT_FOUND},
        {EEXIST, ERR_EXISTS},    {ETIMEDOUT, ERR_TIMEOUT},  {EIO, ERR_IO},
        {EPIPE, ERR_IO},         {ESTALE, ERR_UNAVAILABLE}, {ENOTCONN, ERR_UNAVAILABLE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct err err = ERR_INIT;
        assert_false(err_set_errno(&err, cases[i].errnum, "open '%s'", "/x"));
        assert_int_equal(err.code, cases[i].code);
        assert_int_equal(err.sys, cases[i].errnum);
        assert_memory_equal(err.message, "open '/x': ", 11);
        assert_string_equal(err.message + 11, strerror(cases[i].errnum));
    }
}

/* A text that is too long ends in "..." on a character's boundary. */
static void test_long_text_is_cut(void **state)
{
    (void)state;
    for (int lead = 0; lead < 4; lead++) {
        char text[3 * ERR_MESSAGE_BYTES] = "";
        memset(text, 'x', (size_t)lead);
        for (size_t at = (size_t)lead; at + 3 < sizeof text; at += 3)
            memcpy(text + at, "\xe2\x82\xac", 4); /* the euro sign, 3 bytes */
        struct err err = ERR_INIT;
        err_set(&err, ERR_IO, 0, "%s", text);
        size_t len = strlen(err.message);
        assert_true(len < ERR_MESSAGE_BYTES);
        assert_true(len > ERR_MESSAGE_BYTES - 8);
        assert_string_equal(err.message + len - 3, "...");
        assert_int_equal((len - 3 - (size_t)lead) % 3, 0);
        err_wrap(&err, "around %d", lead);
        len = strlen(err.message);
        assert_true(len < ERR_MESSAGE_BYTES);
        assert_string_equal(err.message + len - 3, "...");
        assert_memory_equal(err.message, "around ", 7);
    }
}

static void test_names(void **state)
{
    (void)state;
    assert_string_equal(err_code_name(ERR_NONE), "none");
    assert_string_equal(err_code_name(ERR_NO_SPACE), "no-space");
    for (int code = 1; code < ERR_CODE_COUNT; code++) {
        const char *name = err_code_name((enum err_code)code);
        assert_true(strlen(name) > 1);
        assert_int_equal(strspn(name, "abcdefghijklmnopqrstuvwxyz-"), strlen(name));
        assert_int_equal(err_code_from_name(name), code); /* hence no name stands twice */
    }
    assert_int_equal(err_code_from_name("from-the-future"), ERR_INTERNAL);
    assert_string_equal(err_code_name((enum err_code)9999), "internal");
    assert_int_equal(err_retry(ERR_NO_SPACE), ERR_RETRY_LATER);
    assert_int_equal(err_retry(ERR_BAD_MESSAGE), ERR_RETRY_NEVER);
    assert_int_equal(err_retry((enum err_code)9999), ERR_RETRY_NEVER);
    assert_string_equal(err_retry_name(ERR_RETRY_ELSEWHERE), "elsewhere");
    assert_string_equal(err_retry_name(ERR_RETRY_SOON), "soon");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_set_and_wrap),
        cmocka_unit_test(test_first_error_is_kept),
        cmocka_unit_test(test_errno_chooses_the_code),
        cmocka_unit_test(test_long_text_is_cut),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
