/* SPDX-License-Identifier: Apache-2.0 */
/* The worker's configuration: defaults, limits, and the sample file that is installed. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "proto/base/file.h"
#include "tests/unit/temp_dir.h"
#include "worker/conf.h"

static struct temp_dir dir;

static const char base[] = "name: w1\n"
                           "zone: dc1\n"
                           "proxy_vm: proxy\n"
                           "engine: {url: 'https://e/ovirt-engine', user: a@internal, "
                           "password_file: /x}\n"
                           "repository: {path: /srv/oxbow}\n";

static struct worker_conf *load(const char *extra, bool need_broker, struct err *err)
{
    SCOPED_FREE char *path = xasprintf("%s/w.yaml", dir.path);
    SCOPED_FREE char *text = xasprintf("%s%s", base, extra);
    struct err write = ERR_INIT;
    assert_true(file_write_atomic(AT_FDCWD, path, text, strlen(text), 0600, &write));
    return worker_conf_load(path, need_broker, err);
}

static void test_defaults(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    SCOPED(worker_conf) struct worker_conf *c = load("", false, &err);
    assert_non_null(c);
    assert_string_equal(c->device_dir, "/dev/disk/by-id");
    assert_int_equal(c->slots.backup, 2);
    assert_int_equal(c->wait.device_s, 60);
    assert_int_equal(c->quiesce_limit_s, 60);
    assert_string_equal(c->log.level, "info");
}

static void test_refusals(void **state)
{
    (void)state;
    static const struct {
        const char *extra, *message;
        bool need_broker;
    } cases[] = {
        {"slots: {backup: 65}\n", "slots.backup is 65", false},
        {"slots: {backup: -1}\n", "slots.backup is -1", false},
        {"colour: blue\n", "colour", false},
        {"log: {level: loud}\n", "log.level 'loud'", false},
        {"log: {format: xml}\n", "log.format 'xml'", false},
        {"quiesce_limit_s: 100000\n", "quiesce_limit_s", false},
        {"limits: [{storage_domain: x}]\n", "mib_per_s", false},
        {"limits: [{mib_per_s: 0}]\n", "limits[0]: mib_per_s is 0", false},
        {"limits: [{mib_per_s: 1}, {mib_per_s: 1, hours: noon}]\n", "limits[1]: hours 'noon'",
         false},
        {"", "broker", true},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct err err = ERR_INIT;
        assert_null(load(cases[i].extra, cases[i].need_broker, &err));
        assert_int_equal(err.code, ERR_BAD_CONFIG);
        if (!strstr(err.message, cases[i].message))
            fail_msg("'%s' is not in: %s", cases[i].message, err.message);
    }
}

static void test_missing_and_bad_values(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"zone: dc1\n", "engine.url"},
        {"zone: DC 1\nproxy_vm: p\nengine: {url: 'https://e', user: u, password_file: /x}\n"
         "repository: {path: /r}\n",
         "zone 'DC 1'"},
        {"zone: dc1\nproxy_vm: p\nengine: {url: 'http://e', user: u, password_file: /x}\n"
         "repository: {path: /r}\n",
         "https"},
    };
    SCOPED_FREE char *path = xasprintf("%s/bad.yaml", dir.path);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct err err = ERR_INIT;
        assert_true(
            file_write_atomic(AT_FDCWD, path, cases[i].text, strlen(cases[i].text), 0600, &err));
        assert_null(worker_conf_load(path, false, &err));
        if (!strstr(err.message, cases[i].message))
            fail_msg("'%s' is not in: %s", cases[i].message, err.message);
    }
}

static void test_the_sample_parses(void **state)
{
    (void)state;
    const char *top = getenv("OXBOW_SOURCE_DIR");
    SCOPED_FREE char *path = xasprintf("%s/deploy/worker.yaml", top ? top : ".");
    struct err err = ERR_INIT;
    SCOPED(worker_conf) struct worker_conf *c = worker_conf_load(path, true, &err);
    if (!c)
        fail_msg("%s", err.message);
    assert_string_equal(c->zone, "dc1");
    assert_true(c->broker.tls.enabled);
}

static int make_dir(void **state)
{
    (void)state;
    temp_dir_make(&dir);
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    temp_dir_remove(&dir);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_missing_and_bad_values),
        cmocka_unit_test(test_the_sample_parses),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
