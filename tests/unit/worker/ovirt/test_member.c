/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "worker/ovirt/member.h"

static json_t *parse(const char *text)
{
    json_t *json = json_loads(text, JSON_DECODE_ANY, NULL);
    assert_non_null(json);
    return json;
}

static void integers_come_as_strings_or_numbers(void **state)
{
    (void)state;
    static const struct {
        const char *json;
        bool ok;
        uint64_t value;
    } cases[] = {
        {"{\"k\":\"1073741824\"}", true, 1073741824},
        {"{\"k\":1073741824}", true, 1073741824},
        {"{\"k\":\"18446744073709551615\"}", true, UINT64_MAX},
        {"{\"k\":\"0\"}", true, 0},
        {"{\"k\":\"18446744073709551616\"}", false, 0},
        {"{\"k\":\"-1\"}", false, 0},
        {"{\"k\":-1}", false, 0},
        {"{\"k\":\" 1\"}", false, 0},
        {"{\"k\":\"0x10\"}", false, 0},
        {"{\"k\":\"12a\"}", false, 0},
        {"{\"k\":\"\"}", false, 0},
        {"{\"k\":1.5}", false, 0},
        {"{\"k\":true}", false, 0},
        {"{\"k\":null}", false, 0},
        {"{\"k\":{}}", false, 0},
        {"{}", false, 0},
        {"[1]", false, 0},
        {"3", false, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        json_auto_t *json = parse(cases[i].json);
        uint64_t v = 77;
        assert_int_equal(member_u64(json, "k", &v), cases[i].ok);
        assert_int_equal(v, cases[i].ok ? cases[i].value : 77);
        assert_int_equal(member_u64_or(json, "k", 5), cases[i].ok ? cases[i].value : 5);
    }
    assert_int_equal(member_u64_or(NULL, "k", 5), 5);
}

static void booleans_come_in_many_forms(void **state)
{
    (void)state;
    static const struct {
        const char *json;
        int value; /* -1 = fallback */
    } cases[] = {
        {"{\"k\":\"true\"}", 1},
        {"{\"k\":\"TRUE\"}", 1},
        {"{\"k\":true}", 1},
        {"{\"k\":\"1\"}", 1},
        {"{\"k\":\"false\"}", 0},
        {"{\"k\":false}", 0},
        {"{\"k\":\"0\"}", 0},
        {"{\"k\":0}", 0},
        {"{\"k\":\"yes\"}", -1},
        {"{\"k\":[]}", -1},
        {"{}", -1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        json_auto_t *json = parse(cases[i].json);
        assert_int_equal(member_bool_or(json, "k", true), cases[i].value != 0);
        assert_int_equal(member_bool_or(json, "k", false), cases[i].value == 1);
    }
}

static void dates_are_milliseconds_or_iso(void **state)
{
    (void)state;
    static const struct {
        const char *json;
        int64_t ms; /* -1 = fallback */
    } cases[] = {
        {"{\"k\":1767630835851}", 1767630835851},
        {"{\"k\":1767630835851.0}", 1767630835851},
        {"{\"k\":\"1767630835851\"}", 1767630835851},
        {"{\"k\":\"2026-01-05T16:33:55.851Z\"}", 1767630835851},
        {"{\"k\":\"2026-01-05T17:33:55.851+01:00\"}", 1767630835851},
        {"{\"k\":\"2026-01-05T17:33:55.851+0100\"}", 1767630835851},
        {"{\"k\":\"2026-01-05T14:33:55.851-02:00\"}", 1767630835851},
        {"{\"k\":\"2026-01-05T16:33:55\"}", 1767630835000},
        {"{\"k\":\"2026-01-05T16:33:55.8519999Z\"}", 1767630835851},
        {"{\"k\":\"2026-01-05T16:33:55+99:00\"}", -1},
        {"{\"k\":\"2026-01-05T16:33:55+1\"}", -1},
        {"{\"k\":\"2026-01-05T16:33:55+01:0\"}", -1},
        {"{\"k\":\"2026-01-05T16:33:55+01:000\"}", -1},
        {"{\"k\":\"yesterday\"}", -1},
        {"{\"k\":\"\"}", -1},
        {"{\"k\":1e300}", -1},
        {"{\"k\":{}}", -1},
        {"{}", -1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        json_auto_t *json = parse(cases[i].json);
        assert_int_equal(member_time_ms_or(json, "k", -1), cases[i].ms);
    }
}

static void empty_collections_have_no_key(void **state)
{
    (void)state;
    json_auto_t *json =
        parse("{\"a\":{},\"b\":{\"x\":[1,2]},\"c\":{\"x\":{}},\"vm\":[{}],\"d\":{\"x\":[]},"
              "\"cluster\":{\"id\":\"7\"},\"s\":\"text\",\"n\":5}");
    assert_null(member_list(json, "a", "x"));
    assert_int_equal(json_array_size(member_list(json, "a", "x")), 0);
    assert_int_equal(json_array_size(member_list(json, "b", "x")), 2);
    assert_null(member_list(json, "c", "x"));
    assert_int_equal(json_array_size(member_list(json, "d", "x")), 0);
    assert_null(member_list(json, "nothing", "x"));
    assert_null(member_list(NULL, NULL, "vm"));
    assert_int_equal(json_array_size(member_list(json, NULL, "vm")), 1);
    assert_string_equal(member_ref_id(json, "cluster"), "7");
    assert_null(member_ref_id(json, "a"));
    assert_null(member_ref_id(json, "s"));
    assert_string_equal(member_str(json, "s"), "text");
    assert_null(member_str(json, "n"));
    assert_null(member_str(NULL, "n"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integers_come_as_strings_or_numbers),
        cmocka_unit_test(booleans_come_in_many_forms),
        cmocka_unit_test(dates_are_milliseconds_or_iso),
        cmocka_unit_test(empty_collections_have_no_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
