/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "proto/base/conf.h"
#include "proto/base/file.h"
#include "tests/unit/temp_dir.h"

struct sample {
    char *name;
    int count;
    bool flag;
};

static const cyaml_schema_field_t fields[] = {
    CYAML_FIELD_STRING_PTR("name", CYAML_FLAG_POINTER, struct sample, name, 1, 100),
    CYAML_FIELD_INT("count", CYAML_FLAG_OPTIONAL, struct sample, count),
    CYAML_FIELD_BOOL("flag", CYAML_FLAG_OPTIONAL, struct sample, flag),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct sample, fields),
};

static struct temp_dir dir;
static char path[TEMP_DIR_BYTES + 16];

static struct sample *load(const char *text, struct err *err)
{
    assert_true(file_write_atomic(AT_FDCWD, path, text, strlen(text), 0600, err));
    return conf_load(path, &schema, err);
}

static void test_good(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct sample *s = load("# a comment\nname: web\ncount: 7\nflag: true\n", &err);
    assert_non_null(s);
    assert_string_equal(s->name, "web");
    assert_int_equal(s->count, 7);
    assert_true(s->flag);
    conf_free(s, &schema);
    s = load("name: alone\n", &err);
    assert_non_null(s);
    assert_int_equal(s->count, 0);
    conf_free(s, &schema);
    conf_free(NULL, &schema);
}

static void expect_refused(const char *text, const char *first, const char *second)
{
    struct err err = ERR_INIT;
    assert_null(load(text, &err));
    assert_int_equal(err.code, ERR_BAD_CONFIG);
    if (!strstr(err.message, path) || !strstr(err.message, first) || !strstr(err.message, second))
        fail_msg("wanted '%s' and '%s' in: %s", first, second, err.message);
}

static void test_refusals_say_where(void **state)
{
    (void)state;
    expect_refused("name: web\ncolour: red\n", "colour", "line: ");
    expect_refused("name: web\ncount: many\n", "many", "line: 2, column: 8");
    expect_refused("count: 1\n", "name", "");
    expect_refused("name: web\n  broken: [\n", "", "");
    expect_refused("- a\n- b\n", "MAPPING", "SEQUENCE");
    expect_refused("", "is empty", "");
    expect_refused("# nothing\n", "is empty", "");
}

static void test_missing_file(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    assert_null(conf_load("/nonexistent/oxbow.yaml", &schema, &err));
    assert_int_equal(err.code, ERR_BAD_CONFIG);
    assert_string_equal(err.message, "/nonexistent/oxbow.yaml: No such file or directory");
}

/* What is dumped can be loaded. */
static void test_dump(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct sample *s = load("name: web\ncount: 7\nflag: true\n", &err);
    assert_non_null(s);
    fflush(stdout);
    int saved = dup(STDOUT_FILENO);
    SCOPED_FD int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
    assert_true(dup2(fd, STDOUT_FILENO) >= 0);
    bool ok = conf_dump(s, &schema, &err);
    fflush(stdout);
    dup2(saved, STDOUT_FILENO);
    close(saved);
    assert_true(ok);
    conf_free(s, &schema);
    s = conf_load(path, &schema, &err);
    assert_non_null(s);
    assert_string_equal(s->name, "web");
    assert_int_equal(s->count, 7);
    conf_free(s, &schema);
}

int main(void)
{
    temp_dir_make(&dir);
    snprintf(path, sizeof path, "%s/conf.yaml", dir.path);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_refusals_say_where),
        cmocka_unit_test(test_missing_file),
        cmocka_unit_test(test_dump),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    temp_dir_remove(&dir);
    return failed;
}
