/* SPDX-License-Identifier: Apache-2.0 */
/* clang-format off */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "coordinator/conf.h"
#include "proto/base/file.h"
#include "tests/unit/temp_dir.h"

#define BROKER "broker: {user: u, password_file: /x}\n"
#define ZONES  "zones: [{name: dc1}]\n"

static struct coordinator_conf *load(const char *text, struct err *err)
{
    struct temp_dir dir;
    temp_dir_make(&dir);
    SCOPED_FREE char *path = xasprintf("%s/coordinator.yaml", dir.path);
    assert_true(file_write_atomic(AT_FDCWD, path, text, strlen(text), 0600, err));
    struct coordinator_conf *conf = coordinator_conf_load(path, err);
    temp_dir_remove(&dir);
    return conf;
}

static void defaults_are_filled_in(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    SCOPED(coordinator_conf) struct coordinator_conf *conf = load(BROKER ZONES, &err);
    if (!conf)
        fail_msg("%s", err.message);
    assert_string_equal(conf->ledger, "/var/lib/oxbow/ledger.db");
    assert_int_equal(conf->lease_s, 25);
    assert_int_equal(conf->max_attempts, 5);
    assert_int_equal(*conf->offer_surplus, 2);
    assert_int_equal(*conf->janitor.every_s, 3600);
    assert_int_equal(conf->stop_limit_s, 1800);
    assert_null(conf->metrics_file);
    assert_int_equal(conf->zones_count, 1);
    assert_string_equal(conf->log.level, "info");
    assert_int_equal(coordinator_conf_zone(conf, "dc1"), 0);
    assert_int_equal(coordinator_conf_zone(conf, "dc2"), -1);
}

static void values_are_taken(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    SCOPED(coordinator_conf)
    struct coordinator_conf *conf =
        load(BROKER "zones: [{name: a, max_running: 3}, {name: b}]\n"
                    "ledger: /l\nlease_s: 7\nmax_attempts: 2\noffer_surplus: 0\ndeadline_s: 9\n"
                    "stop_limit_s: 20\njanitor: {every_s: 0}\nmetrics_file: /m\n"
                    "keep_days: 4\nlimits: {max_running: 8, per_lane: {restore: 1, backup: 2, "
                    "upkeep: 3}}\nlog: {level: debug, format: json}\n",
             &err);
    if (!conf)
        fail_msg("%s", err.message);
    assert_int_equal(conf->zones[0].max_running, 3);
    assert_int_equal(conf->limits.max_running, 8);
    assert_int_equal(conf->limits.per_lane.restore, 1);
    assert_int_equal(conf->limits.per_lane.backup, 2);
    assert_int_equal(conf->limits.per_lane.upkeep, 3);
    assert_int_equal(*conf->offer_surplus, 0);
    assert_int_equal(conf->keep_days, 4);
    assert_int_equal(*conf->janitor.every_s, 0);
    assert_int_equal(conf->stop_limit_s, 20);
    assert_string_equal(conf->metrics_file, "/m");
    assert_string_equal(conf->log.format, "json");
}

static void hosts_of_a_cluster(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    SCOPED(coordinator_conf)
    struct coordinator_conf *conf =
        load("broker: {user: u, password_file: /x, port: 5673, hosts: "
             "[mq1, 'mq2:5674', '[::1]:5675', '[fe80::1]', '::1']}\n" ZONES,
             &err);
    if (!conf)
        fail_msg("%s", err.message);
    struct mq_opts opts = {0};
    assert_true(broker_conf_apply(&conf->broker, "x", &opts, &err));
    assert_int_equal(opts.host_count, 5);
    assert_int_equal(opts.port, 5673);
    static const struct {
        const char *name;
        int port;
    } expect[] = {{"mq1", 0}, {"mq2", 5674}, {"::1", 5675}, {"fe80::1", 0}, {"::1", 0}};
    for (size_t i = 0; i < ARRAY_LEN(expect); i++) {
        SCOPED_FREE char *name = NULL;
        int port;
        assert_true(mq_parse_host(opts.hosts[i], &name, &port, &err));
        assert_string_equal(name, expect[i].name);
        assert_int_equal(port, expect[i].port);
    }
}

static void faults_are_named(void **state)
{
    (void)state;
    const struct {
        const char *text, *expect;
    } cases[] = {
        {ZONES, "broker"},
        {BROKER, "zones"},
        {"broker: {user: u}\n" ZONES, "password_file"},
        {"broker: {user: u, password_file: /x, host: a, hosts: [b]}\n" ZONES, "exclude"},
        {"broker: {user: u, password_file: /x, hosts: ['a:b']}\n" ZONES, "'a:b'"},
        {"broker: {user: u, password_file: /x, hosts: ['a:70000']}\n" ZONES, "'a:70000'"},
        {"broker: {user: u, password_file: /x, hosts: [':5672']}\n" ZONES, "':5672'"},
        {"broker: {user: u, password_file: /x, hosts: ['[::1']}\n" ZONES, "'[::1'"},
        {BROKER "zones: []\n", "zones"},
        {BROKER "zones: [{name: 'A b'}]\n", "A b"},
        {BROKER "zones: [{name: a}, {name: a}]\n", "twice"},
        {BROKER "zones: [{name: a, max_running: -1}]\n", "max_running"},
        {BROKER ZONES "lease_s: 1\n", "lease_s"},
        {BROKER ZONES "lease_s: many\n", "lease_s"},
        {BROKER ZONES "max_attempts: 1000\n", "max_attempts"},
        {BROKER ZONES "offer_surplus: -1\n", "offer_surplus"},
        {BROKER ZONES "deadline_s: 99999999\n", "deadline_s"},
        {BROKER ZONES "keep_days: -5\n", "keep_days"},
        {BROKER ZONES "stop_limit_s: 3\n", "stop_limit_s"},
        {BROKER ZONES "janitor: {every_s: -1}\n", "janitor.every_s"},
        {BROKER ZONES "limits: {max_running: -2}\n", "max_running"},
        {BROKER ZONES "log: {level: loud}\n", "loud"},
        {BROKER ZONES "log: {format: xml}\n", "xml"},
        {BROKER ZONES "colour: blue\n", "colour"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct err err = ERR_INIT;
        SCOPED(coordinator_conf) struct coordinator_conf *conf = load(cases[i].text, &err);
        assert_null(conf);
        assert_int_equal(err.code, ERR_BAD_CONFIG);
        if (!strstr(err.message, cases[i].expect))
            fail_msg("'%s' does not name '%s'", err.message, cases[i].expect);
    }
}

static void the_sample_is_good(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    SCOPED_FREE char *sample = xasprintf("%s/deploy/coordinator.yaml", getenv("OXBOW_SOURCE_DIR"));
    SCOPED(coordinator_conf) struct coordinator_conf *conf = coordinator_conf_load(sample, &err);
    if (!conf)
        fail_msg("%s", err.message);
    /* It shows the defaults: they must be the real ones. */
    SCOPED(coordinator_conf) struct coordinator_conf *plain = load(BROKER ZONES, &err);
    assert_int_equal(conf->limits.max_running, plain->limits.max_running);
    assert_int_equal(conf->lease_s, plain->lease_s);
    assert_int_equal(conf->max_attempts, plain->max_attempts);
    assert_int_equal(*conf->offer_surplus, *plain->offer_surplus);
    assert_int_equal(conf->deadline_s, plain->deadline_s);
    assert_int_equal(conf->keep_days, plain->keep_days);
    assert_int_equal(conf->stop_limit_s, plain->stop_limit_s);
    assert_int_equal(*conf->janitor.every_s, *plain->janitor.every_s);
    assert_string_equal(conf->ledger, plain->ledger);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_filled_in), cmocka_unit_test(values_are_taken),
        cmocka_unit_test(hosts_of_a_cluster),     cmocka_unit_test(faults_are_named),
        cmocka_unit_test(the_sample_is_good),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
