/* SPDX-License-Identifier: Apache-2.0 */
/* What log_write() puts on standard error, read back through a pipe. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "proto/base/alloc.h"
#include "proto/base/log.h"

static int saved_stderr, pipe_fds[2];
static char line[65536];

static void capture(void)
{
    assert_int_equal(pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK), 0);
    saved_stderr = dup(STDERR_FILENO);
    assert_true(dup2(pipe_fds[1], STDERR_FILENO) >= 0);
}

static const char *captured(void)
{
    dup2(saved_stderr, STDERR_FILENO);
    close(saved_stderr);
    close(pipe_fds[1]);
    ssize_t n = read(pipe_fds[0], line, sizeof line - 1);
    close(pipe_fds[0]);
    line[n > 0 ? n : 0] = '\0';
    return line;
}

#define LOGGED(statement) (capture(), (statement), captured())

static void test_logfmt(void **state)
{
    (void)state;
    const char *text = LOGGED(
        log_info("disk_copied", LOG_STR("disk", "d1"), LOG_U64("bytes", 5), LOG_I64("delta", -3)));
    assert_memory_equal(text, "<6>ts=20", 8);
    assert_non_null(strstr(text, "Z level=info event=disk_copied disk=d1 bytes=5 delta=-3\n"));
}

static void test_levels(void **state)
{
    (void)state;
    assert_memory_equal(LOGGED(log_error("x")), "<3>", 3);
    assert_memory_equal(LOGGED(log_warn("x")), "<4>", 3);
    assert_string_equal(LOGGED(log_debug("x")), "");
    log_set_level(LOG_LEVEL_DEBUG);
    assert_memory_equal(LOGGED(log_debug("x")), "<7>", 3);
    log_set_level(LOG_LEVEL_ERROR);
    assert_string_equal(LOGGED(log_warn("x")), "");
    log_set_level(LOG_LEVEL_INFO);
    enum log_level level;
    assert_true(log_level_parse("warn", &level));
    assert_int_equal(level, LOG_LEVEL_WARN);
    assert_false(log_level_parse("loud", &level));
    enum log_format format;
    assert_true(log_format_parse("json", &format));
    assert_int_equal(format, LOG_FORMAT_JSON);
    assert_false(log_format_parse("xml", &format));
}

static void test_quoting(void **state)
{
    (void)state;
    static const struct {
        const char *value, *shown;
    } cases[] = {
        {"plain", " k=plain\n"},
        {"two words", " k=\"two words\"\n"},
        {"", " k=\"\"\n"},
        {NULL, " k=\"\"\n"},
        {"a=b", " k=\"a=b\"\n"},
        {"say \"hi\"", " k=\"say \\\"hi\\\"\"\n"},
        {"back\\slash", " k=\"back\\\\slash\"\n"},
        {"line\nbreak", " k=\"line\\nbreak\"\n"},
        {"bad \xff byte", " k=\"bad ? byte\"\n"},
        {"esc\x1b[0m", " k=\"esc\\u001b[0m\"\n"},
        {"gr\xc3\xbc\xc3\x9f", " k=\"gr\xc3\xbc\xc3\x9f\"\n"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const char *text = LOGGED(log_info("e", LOG_STR("k", cases[i].value)));
        const char *at = strstr(text, "event=e");
        assert_non_null(at);
        assert_string_equal(at + 7, cases[i].shown);
    }
}

static void test_context(void **state)
{
    (void)state;
    log_set_thread("task-3");
    log_set_context("t-1", "web1");
    const char *text = LOGGED(log_info("e"));
    assert_non_null(strstr(text, " thread=task-3 task=t-1 vm=web1 event=e\n"));
    log_set_context(NULL, "");
    text = LOGGED(log_info("e"));
    assert_non_null(strstr(text, " thread=task-3 event=e\n"));
}

static void test_error_record(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    err_set(&err, ERR_NO_SPACE, 28, "write 'x'");
    const char *text = LOGGED(log_err(LOG_LEVEL_WARN, "task_failed", &err));
    assert_non_null(strstr(text, "event=task_failed code=no-space retry=later sys=28 "
                                 "at=tests/unit/proto/base/test_log.c:"));
    assert_non_null(strstr(text, "message=\"write 'x'\"\n"));
}

/* One line, one JSON object, whatever the values are. */
static void test_json(void **state)
{
    (void)state;
    static char nasty[5000], euros[6000];
    memset(nasty, '\x01', sizeof nasty - 1); /* six times as long when escaped */
    for (size_t i = 0; i + 3 < sizeof euros; i += 3)
        memcpy(euros + i, "\xe2\x82\xac", 4);
    const char *const values[] = {"plain", "a\nb\"c\\d\te",      nasty,
                                  euros,   "bad \xff\xfe bytes", "cut \xe2\x82"};
    log_set_format(LOG_FORMAT_JSON);
    for (size_t i = 0; i < ARRAY_LEN(values); i++) {
        const char *text =
            LOGGED(log_info("e", LOG_STR("k", values[i]), LOG_STR("again", values[i]),
                            LOG_STR("more", values[i]), LOG_U64("n", 7)));
        assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
        json_error_t why;
        json_t *json = json_loads(text, 0, &why);
        if (!json)
            fail_msg("value %zu: %s: ...%s", i, why.text,
                     strlen(text) > 60 ? text + strlen(text) - 60 : text);
        assert_string_equal(json_string_value(json_object_get(json, "event")), "e");
        assert_non_null(json_object_get(json, "k"));
        if (i < 2)
            assert_string_equal(json_string_value(json_object_get(json, "k")), values[i]);
        json_decref(json);
    }
    log_set_format(LOG_FORMAT_LOGFMT);
    for (size_t i = 0; i < ARRAY_LEN(values); i++) {
        const char *text = LOGGED(log_info("e", LOG_STR("k", values[i]), LOG_STR("l", values[i])));
        assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
        assert_true(strlen(text) <= 8192);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_logfmt),       cmocka_unit_test(test_levels),
        cmocka_unit_test(test_quoting),      cmocka_unit_test(test_context),
        cmocka_unit_test(test_error_record), cmocka_unit_test(test_json),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
