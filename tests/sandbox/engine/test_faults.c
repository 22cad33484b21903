/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "proto/base/alloc.h"
#include "tests/sandbox/engine/faults.h"

static bool add(struct faults *f, const char *quoted, struct err *err)
{
    SCOPED_FREE char *text = xstrdup(quoted);
    for (char *at = text; *at; at++)
        if (*at == '\'')
            *at = '"';
    json_t *rules = json_loads(text, 0, NULL);
    assert_non_null(rules);
    bool ok = faults_add(f, rules, err);
    json_decref(rules);
    return ok;
}

static enum fault_action hit(struct faults *f, const char *method, const char *path)
{
    return faults_http(f, FAULT_BEFORE, &(struct fault_call){method, path, "c-1", "admin@internal"})
        .action;
}

static void skips_and_counts(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct faults *f = faults_new();
    assert_true(add(f,
                    "{'method':'POST','path':'/snapshots$','action':'status','status':409,"
                    "'skip':1,'count':2}",
                    &err));
    assert_int_equal(hit(f, "GET", "/api/vms/1/snapshots"), FAULT_NONE);
    assert_int_equal(hit(f, "POST", "/api/vms/1/snapshots/2"), FAULT_NONE);
    assert_int_equal(hit(f, "POST", "/api/vms/1/snapshots"), FAULT_NONE); /* skipped */
    assert_int_equal(hit(f, "POST", "/api/vms/1/snapshots"), FAULT_STATUS);
    assert_int_equal(hit(f, "POST", "/api/vms/2/snapshots"), FAULT_STATUS);
    assert_int_equal(hit(f, "POST", "/api/vms/1/snapshots"), FAULT_NONE); /* used up */
    json_t *shown = faults_show(f);
    const json_t *rule = json_array_get(shown, 0);
    assert_int_equal(json_integer_value(json_object_get(rule, "hits")), 4);
    assert_int_equal(json_integer_value(json_object_get(rule, "fired")), 2);
    json_decref(shown);
    faults_free(f);
}

static void first_rule_that_fires_wins(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct faults *f = faults_new();
    assert_true(add(f,
                    "[{'name':'a','path':'vms','action':'drop'},"
                    "{'name':'b','path':'vms','action':'hang','count':0}]",
                    &err));
    assert_int_equal(hit(f, "GET", "/api/vms"), FAULT_DROP);
    assert_int_equal(hit(f, "GET", "/api/vms"), FAULT_HANG);
    assert_int_equal(hit(f, "GET", "/api/vms"), FAULT_HANG);
    assert_true(faults_has(f, 2));
    assert_int_equal(faults_remove(f, "b"), 1);
    assert_false(faults_has(f, 2));
    assert_int_equal(hit(f, "GET", "/api/vms"), FAULT_NONE);
    assert_int_equal(faults_remove(f, "b"), 0);
    assert_int_equal(faults_remove(f, NULL), 1);
    faults_free(f);
}

static void before_after_and_correlation(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct faults *f = faults_new();
    assert_true(add(f,
                    "{'path':'.','when':'after','action':'drop','count':0,"
                    "'correlation_id':'^job-'}",
                    &err));
    const struct fault_call job = {"GET", "/x", "job-1", ""}, other = {"GET", "/x", "other", ""};
    assert_int_equal(faults_http(f, FAULT_BEFORE, &job).action, FAULT_NONE);
    assert_int_equal(faults_http(f, FAULT_AFTER, &other).action, FAULT_NONE);
    assert_int_equal(faults_http(f, FAULT_AFTER, &job).action, FAULT_DROP);
    faults_free(f);
}

static void users(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct faults *f = faults_new();
    assert_true(add(f, "{'path':'vms$','action':'hold','user':'^w1@'}", &err));
    const struct fault_call of_2 = {"POST", "/vms", "", "w2@internal"};
    const struct fault_call of_1 = {"POST", "/vms", "", "w1@internal"};
    const struct fault_call of_nobody = {"POST", "/vms", "", ""};
    assert_int_equal(faults_http(f, FAULT_BEFORE, &of_2).action, FAULT_NONE);
    assert_int_equal(faults_http(f, FAULT_BEFORE, &of_nobody).action, FAULT_NONE);
    assert_int_equal(faults_http(f, FAULT_BEFORE, &of_1).action, FAULT_HOLD);
    faults_free(f);
}

static void points(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    int64_t delay_ms = 0;
    struct faults *f = faults_new();
    assert_true(add(f, "{'point':'merge-fail','vm':'^web','count':1,'delay_ms':70}", &err));
    assert_false(faults_point(f, "hotplug-fail", "web1", NULL));
    assert_false(faults_point(f, "merge-fail", "db1", NULL));
    assert_int_equal(hit(f, "GET", "web"), FAULT_NONE);
    assert_true(faults_point(f, "merge-fail", "web1", &delay_ms));
    assert_int_equal(delay_ms, 70);
    assert_false(faults_point(f, "merge-fail", "web1", NULL));
    faults_free(f);
}

static void refuses(void **state)
{
    static const char *const cases[] = {"'x'",
                                        "{}",
                                        "{'action':'explode'}",
                                        "{'path':'(','action':'drop'}",
                                        "{'point':'no-such-point'}",
                                        "{'path':'.','action':'drop','when':'later'}",
                                        "{'path':'.','action':'drop','count':-1}",
                                        "{'path':'.','action':'drop','count':'1'}",
                                        "{'path':'.','action':'status','status':1000}",
                                        "{'path':'.','action':'drop','pth':'x'}",
                                        "{'path':'.','action':'delay','delay_ms':999999999}",
                                        "{'path':'.','action':'drop','correlation_id':'['}",
                                        "[{'path':'.','action':'drop'},{'action':'nothing'}]"};
    (void)state;
    struct faults *f = faults_new();
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct err err = ERR_INIT;
        json_t *rules;
        SCOPED_FREE char *text = xstrdup(cases[i]);
        for (char *at = text; *at; at++)
            if (*at == '\'')
                *at = '"';
        rules = json_loads(text, JSON_DECODE_ANY, NULL);
        assert_non_null(rules);
        if (faults_add(f, rules, &err))
            fail_msg("%s was taken", cases[i]);
        assert_int_equal(err.code, ERR_BAD_CONFIG);
        json_decref(rules);
    }
    /* Not even the good half of a list with a bad rule. */
    json_t *shown = faults_show(f);
    assert_int_equal(json_array_size(shown), 0);
    json_decref(shown);
    faults_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(skips_and_counts),
        cmocka_unit_test(first_rule_that_fires_wins),
        cmocka_unit_test(before_after_and_correlation),
        cmocka_unit_test(users),
        cmocka_unit_test(points),
        cmocka_unit_test(refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
