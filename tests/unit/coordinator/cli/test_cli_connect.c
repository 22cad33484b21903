/* SPDX-License-Identifier: Apache-2.0 */
/* Where the broker is: files, options, and what is wrong with them. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "coordinator/cli/connect.h"
#include "proto/base/file.h"
#include "tests/unit/temp_dir.h"

static struct temp_dir folder;

static char *path(const char *name)
{
    return xasprintf("%s/%s", folder.path, name);
}

static void put(const char *name, const char *text, mode_t mode)
{
    struct err err = ERR_INIT;
    SCOPED_FREE char *p = path(name);
    assert_true(file_write_atomic(AT_FDCWD, p, text, strlen(text), mode, &err));
    assert_int_equal(chmod(p, mode), 0);
}

static int set_up(void **state)
{
    (void)state;
    temp_dir_make(&folder);
    SCOPED_FREE char *home = path("home/.config/oxbow");
    SCOPED_FREE char *home_dir = path("home");
    struct err err = ERR_INIT;
    if (!file_make_dirs(home, 0700, &err))
        return 1;
    setenv("HOME", home_dir, 1);
    unsetenv("XDG_CONFIG_HOME");
    unsetenv("OXBOW_CONFIG");
    put("secret", "word\n", 0600);
    put("open", "word\n", 0644);
    put("empty", "\n", 0600);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    temp_dir_remove(&folder);
    return 0;
}

/* a.yaml with "SECRET" replaced by the secret file's path. */
static void put_config(const char *name, const char *yaml)
{
    SCOPED_FREE char *secret = path("secret");
    SCOPED_BUF struct buf text;
    buf_init(&text, 8192);
    for (const char *at = yaml; *at;) {
        bool mark = strncmp(at, "SECRET", 6) == 0;
        (void)buf_printf(&text, mark ? "%s" : "%.1s", mark ? secret : at);
        at += mark ? 6 : 1;
    }
    put(name, buf_str(&text), 0600);
}

static void assert_refused(const struct connect_args *args, enum err_code code, const char *part)
{
    struct err err = ERR_INIT;
    assert_null(connect_load(args, &err));
    assert_int_equal(err.code, code);
    if (!strstr(err.message, part))
        fail_msg("'%s' lacks '%s'", err.message, part);
}

static void from_a_file(void **state)
{
    (void)state;
    put_config("a.yaml", "broker:\n"
                         "  host: mq1\n"
                         "  vhost: /oxbow\n"
                         "  user: u\n"
                         "  password_file: SECRET\n"
                         "  heartbeat_s: 30\n"
                         "  tls:\n"
                         "    enabled: true\n"
                         "    ca_file: /ca\n");
    SCOPED_FREE char *a = path("a.yaml");
    struct err err = ERR_INIT;
    SCOPED(connect) struct connect *c = connect_load(&(struct connect_args){.config = a}, &err);
    assert_non_null(c);
    const struct mq_opts *o = connect_mq_opts(c);
    assert_string_equal(o->host, "mq1");
    assert_int_equal(o->port, 0);
    assert_string_equal(o->vhost, "/oxbow");
    assert_string_equal(o->user, "u");
    assert_int_equal(o->heartbeat_s, 30);
    assert_true(o->tls.enabled);
    assert_string_equal(o->tls.ca_file, "/ca");
    assert_null(o->tls.cert_file);
    assert_string_equal(connect_address(c), "mq1:5671");
}

static void options_win(void **state)
{
    (void)state;
    put_config("a.yaml", "broker: {host: mq1, port: 1, user: u, password_file: SECRET}\n");
    SCOPED_FREE char *a = path("a.yaml");
    SCOPED_FREE char *secret = path("secret");
    setenv("OXBOW_CONFIG", a, 1);
    struct err err = ERR_INIT;
    SCOPED(connect)
    struct connect *c = connect_load(
        &(struct connect_args){
            .host = "mq2", .port = 2, .vhost = "v", .user = "w", .password_file = secret},
        &err);
    assert_non_null(c);
    const struct mq_opts *o = connect_mq_opts(c);
    assert_string_equal(o->host, "mq2");
    assert_int_equal(o->port, 2);
    assert_string_equal(o->vhost, "v");
    assert_string_equal(o->user, "w");
    assert_false(o->tls.enabled);
    SCOPED(connect)
    struct connect *tls = connect_load(&(struct connect_args){.ca_file = "/ca"}, &err);
    assert_non_null(tls);
    assert_true(connect_mq_opts(tls)->tls.enabled);
    unsetenv("OXBOW_CONFIG");
}

static void options_alone(void **state)
{
    (void)state;
    SCOPED_FREE char *secret = path("secret");
    struct err err = ERR_INIT;
    SCOPED(connect)
    struct connect *c =
        connect_load(&(struct connect_args){.user = "u", .password_file = secret}, &err);
    assert_non_null(c);
    assert_string_equal(connect_address(c), "localhost:5672");
}

static void the_users_own_file(void **state)
{
    (void)state;
    put_config("home/.config/oxbow/oxbow.yaml",
               "broker: {host: home, user: u, password_file: SECRET}\n");
    struct err err = ERR_INIT;
    SCOPED(connect) struct connect *c = connect_load(&(struct connect_args){0}, &err);
    assert_non_null(c);
    assert_string_equal(connect_mq_opts(c)->host, "home");
}

static void what_is_wrong_is_said(void **state)
{
    (void)state;
    SCOPED_FREE char *a = path("a.yaml");
    const struct connect_args args = {.config = a};
    static const struct {
        const char *yaml, *part;
    } cases[] = {
        {"broker: {hots: x}\n", "hots"},
        {"broker: {port: many}\n", "line: 1"},
        {"broker: {user: u}\n", "broker.password_file is missing"},
        {"broker: {password_file: SECRET}\n", "broker.user is missing"},
        {"broker: {user: u, password_file: SECRET, port: 70000}\n", "broker.port 70000"},
        {"broker: {user: u, password_file: SECRET, port: -1}\n", "broker.port -1"},
        {"broker: {user: u, password_file: SECRET, heartbeat_s: 1}\n", "heartbeat_s 1"},
        {"broker: {user: u, password_file: SECRET, tls: {ca_file: x}}\n", "enabled: true"},
        {"broker: {user: u, password_file: SECRET, tls: {enabled: true, cert_file: x}}\n",
         "go together"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        put_config("a.yaml", cases[i].yaml);
        assert_refused(&args, ERR_BAD_CONFIG, cases[i].part);
    }
    SCOPED_FREE char *missing = path("missing.yaml");
    assert_refused(&(struct connect_args){.config = missing}, ERR_BAD_CONFIG, "No such file");
}

static void password_files(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        enum err_code code;
        const char *part;
    } cases[] = {
        {"open", ERR_PERMISSION, "chmod o-rwx"},
        {"empty", ERR_BAD_CONFIG, "is empty"},
        {"none", ERR_NOT_FOUND, "No such file"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        SCOPED_FREE char *file = path(cases[i].name);
        assert_refused(&(struct connect_args){.user = "u", .password_file = file}, cases[i].code,
                       cases[i].part);
    }
}

/* The sample in deploy/ holds what the schema knows. */
static void the_sample(void **state)
{
    (void)state;
    const char *top = getenv("OXBOW_SOURCE_DIR");
    SCOPED_FREE char *sample = xasprintf("%s/deploy/oxbow.yaml", top ? top : ".");
    SCOPED_FREE char *secret = path("secret");
    struct err err = ERR_INIT;
    SCOPED(connect)
    struct connect *c =
        connect_load(&(struct connect_args){.config = sample, .password_file = secret}, &err);
    if (!c)
        fail_msg("%s", err.message);
    assert_string_equal(connect_mq_opts(c)->user, "oxbow-client");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(from_a_file),
        cmocka_unit_test(options_win),
        cmocka_unit_test(options_alone),
        cmocka_unit_test(the_users_own_file),
        cmocka_unit_test(what_is_wrong_is_said),
        cmocka_unit_test(password_files),
        cmocka_unit_test(the_sample),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
