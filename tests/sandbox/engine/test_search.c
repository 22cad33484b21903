/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/sandbox/engine/listing.h"
#include "tests/sandbox/engine/search.h"

struct thing {
    const char *name, *status;
    const char *tags[3];
};

static const char *const fields[] = {"name", "status", "tag", NULL};

static bool thing_field(const void *object, const char *field, search_found_fn found, void *arg)
{
    const struct thing *t = object;
    const struct listing_value v[] = {{"name", t->name}, {"status", t->status}};
    if (strcmp(field, "tag") != 0)
        return listing_found(v, ARRAY_LEN(v), field, found, arg);
    for (size_t i = 0; i < ARRAY_LEN(t->tags) && t->tags[i]; i++)
        (void)found(arg, t->tags[i]);
    return true;
}

static const struct thing web = {"web01", "up", {"backup", "nightly run"}};

static void matches(void **state)
{
    static const struct {
        const char *text;
        bool expected;
    } cases[] = {
        {"", true},
        {"name=web01", true},
        {"name = web01", true},
        {"NAME=WEB01", true},
        {"name=web", false},
        {"name=web*", true},
        {"name=*b0*", true},
        {"name=*x", false},
        {"name!=web01", false},
        {"name!=db*", true},
        {"tag=backup", true},
        {"tag=\"nightly run\"", true},
        {"tag='nightly run'", true},
        {"tag!=backup", false},
        {"tag=other", false},
        {"name=web01 and status=up", true},
        {"name=web01 and status=down", false},
        {"name=x or status=up", true},
        /* and binds closer than or */
        {"status=up or name=x and name=y", true},
        {"(status=up or name=x) and name=y", false},
        {"Vms: name=web01", true},
        {"web", true},
        {"db", false},
        {"name=web01 sortby name", true},
        {"sortby name desc page 3", true},
        {"page 2", true},
        {"name=android", false},
        {"name=or*", false},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct err err = ERR_INIT;
        struct search *s = search_parse(cases[i].text, fields, &err);
        if (!s)
            fail_msg("'%s': %s", cases[i].text, err.message);
        if (search_matches(s, &web, thing_field) != cases[i].expected)
            fail_msg("'%s' should be %d", cases[i].text, cases[i].expected);
        search_free(s);
    }
}

static void refuses(void **state)
{
    static const char *const cases[] = {
        "name=",
        "nom=web01",
        "name=web01 and",
        "(name=web01",
        "name=web01)",
        "name=\"web01",
        "sortby",
        "sortby nom",
        "page x",
        "page 0",
        "page",
        "name>web01",
        "name=web01 oder a",
        "and",
        "name==web01",
        "page 9999999999999999999999",
        "name=web01 page 1 sortby name",
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct err err = ERR_INIT;
        struct search *s = search_parse(cases[i], fields, &err);
        if (s)
            fail_msg("'%s' was taken", cases[i]);
        assert_int_equal(err.code, ERR_BAD_ARGUMENT);
    }
}

static void refuses_deep_and_long(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    char deep[200];
    memset(deep, '(', sizeof deep);
    deep[sizeof deep - 1] = '\0';
    assert_null(search_parse(deep, fields, &err));
    err_clear(&err);
    SCOPED_FREE char *text = xmalloc(5001);
    memset(text, 'a', 5000);
    text[5000] = '\0';
    assert_null(search_parse(text, fields, &err));
}

static void tail(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    bool descending;
    struct search *s = search_parse("tag=a sortby name desc page 7", fields, &err);
    assert_non_null(s);
    assert_string_equal(search_sort_field(s, &descending), "name");
    assert_true(descending);
    assert_int_equal(search_page(s), 7);
    search_free(s);
    s = search_parse("tag=a", fields, &err);
    assert_non_null(s);
    assert_null(search_sort_field(s, &descending));
    assert_int_equal(search_page(s), 1);
    search_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matches),
        cmocka_unit_test(refuses),
        cmocka_unit_test(refuses_deep_and_long),
        cmocka_unit_test(tail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
