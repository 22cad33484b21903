/* SPDX-License-Identifier: Apache-2.0 */
/* clang-format off */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include <string.h>

#include "proto/base/alloc.h"
#include "proto/wire/finding.h"

static int plain(struct buf *out, const char *text, bool utf8)
{
    (void)utf8;
    (void)buf_printf(out, "%s", text);
    return (int)strlen(text);
}

static const struct finding_style style = {.add_text = plain};

static void make(struct wire_findings *list)
{
    findings_add(list,
                 &(struct finding_spec){
                     .check = "a.good", .worker = "w1", .advice = "nothing", .time_ms = 7},
                 "%d of %d", 1, 2);
    findings_add(list,
                 &(struct finding_spec){
                     .check = "a.bad", .level = FINDING_FAILURE, .advice = "mend it", .time_ms = 8},
                 "it is broken");
    findings_add(list, &(struct finding_spec){.check = "a.none", .level = FINDING_SKIPPED},
                 "because a.bad");
}

static void for_people(void **state)
{
    (void)state;
    struct wire_findings list = {0};
    SCOPED_BUF struct buf out;
    buf_init(&out, 4096);
    make(&list);
    for (size_t i = 0; i < list.count; i++)
        finding_render(&list.v[i], &style, &out);
    struct finding_counts counts = {0};
    findings_count(list.v, list.count, &counts);
    findings_render_sum(&counts, &out);
    assert_string_equal(buf_str(&out), "  ok       a.good                   1 of 2\n"
                                       "  FAILURE  a.bad                    it is broken\n"
                                       "           do: mend it\n"
                                       "  skipped  a.none                   because a.bad\n"
                                       "1 ok, 0 warnings, 1 failure, 1 not checked\n");
    findings_done(&list);
    assert_int_equal(list.count, 0);
}

static void for_programs(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct wire_findings list = {0};
    SCOPED_BUF struct buf out;
    buf_init(&out, 4096);
    make(&list);
    for (size_t i = 0; i < list.count; i++)
        assert_true(finding_json(&list.v[i], &out, &err));
    assert_string_equal(
        buf_str(&out),
        "{\"type\":\"finding\",\"check\":\"a.good\",\"level\":\"ok\",\"worker\":\"w1\","
        "\"message\":\"1 of 2\",\"time_ms\":7}\n"
        "{\"type\":\"finding\",\"check\":\"a.bad\",\"level\":\"failure\",\"message\":\"it is "
        "broken\",\"advice\":\"mend it\",\"time_ms\":8}\n"
        "{\"type\":\"finding\",\"check\":\"a.none\",\"level\":\"skipped\",\"message\":\"because "
        "a.bad\",\"time_ms\":0}\n");
    findings_done(&list);
}

static void what_comes_from_outside(void **state)
{
    (void)state;
    static char word[] = "catastrophe", empty[] = "";
    const struct wire_finding f = {.check = word, .level = word, .message = empty};
    assert_int_equal(finding_level_of(&f), FINDING_FAILURE);
    /* Too long a text is cut, not refused. */
    struct wire_findings list = {0};
    SCOPED_FREE char *text = xmalloc(5000);
    memset(text, 'x', 4999);
    text[4999] = '\0';
    findings_add(&list, &(struct finding_spec){.check = "a"}, "%s", text);
    assert_int_equal(strlen(list.v[0].message), FINDING_TEXT_BYTES - 1);
    findings_done(&list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(for_people),
        cmocka_unit_test(for_programs),
        cmocka_unit_test(what_comes_from_outside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
