/* SPDX-License-Identifier: Apache-2.0 */
/* Maps of changed ranges: what nbdinfo writes, whole blocks, odd ends, and what is no map. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "proto/base/alloc.h"
#include "worker/repo/changed.h"

static bool parse(const char *text, uint64_t size, uint64_t parent, struct extents *map)
{
    struct err err = ERR_INIT;
    bool ok = changed_parse(text, strlen(text), size, parent, map, &err);
    if (!ok)
        assert_int_equal(err.code, ERR_BAD_ARGUMENT);
    return ok;
}

/* "0-8192 c" of a list, in blocks of 4096 and bytes, for comparing. */
static char *text_of(const struct extents *map)
{
    char *all = xstrdup("");
    uint64_t at = 0;
    for (size_t i = 0; i < map->count; i++) {
        const struct extent *x = &map->items[i];
        assert_int_equal(x->offset, at);
        at += x->len;
        char *longer = xasprintf("%s%s%c%llu", all, i ? " " : "", x->is_data ? 'd' : 'c',
                                 (unsigned long long)x->len);
        free(all);
        all = longer;
    }
    return all;
}

static void expect(const char *text, uint64_t size, uint64_t parent, const char *want)
{
    SCOPED_EXTENTS struct extents map = EXTENTS_INIT;
    assert_true(parse(text, size, parent, &map));
    SCOPED_FREE char *got = text_of(&map);
    assert_string_equal(got, want);
}

static void test_maps(void **state)
{
    (void)state;
    expect("[]", 65536, 65536, "d65536");
    expect("[{\"offset\":0,\"length\":65536,\"type\":0,\"description\":\"clean\"}]", 65536, 65536,
           "c65536");
    expect("[{\"offset\":0,\"length\":65536,\"type\":1},{\"offset\":65536,\"length\":65536,"
           "\"type\":0}]",
           131072, 131072, "d65536 c65536");
    /* A clean range that does not cover whole blocks gives up their rest. */
    expect("[{\"offset\":100,\"length\":10000,\"type\":0},{\"offset\":10100,\"length\":10380,"
           "\"type\":1}]",
           20480, 20480, "d4096 c4096 d12288");
    expect("[{\"offset\":100,\"length\":200,\"type\":0}]", 8192, 8192, "d8192");
    /* A gap in the map, and its end, have changed. */
    expect(
        "[{\"offset\":0,\"length\":4096,\"type\":0},{\"offset\":8192,\"length\":4096,\"type\":0}]",
        16384, 16384, "c4096 d4096 c4096 d4096");
    /* Neighbours of the same kind are one. */
    expect(
        "[{\"offset\":0,\"length\":4096,\"type\":2},{\"offset\":4096,\"length\":4096,\"type\":0}]",
        8192, 8192, "c8192");
    /* The last, odd block is clean with its range. */
    expect("[{\"offset\":0,\"length\":5000,\"type\":0}]", 5000, 5000, "c5000");
    /* A disk that has grown: its new part was never saved; one that has shrunk. */
    expect("[{\"offset\":0,\"length\":20000,\"type\":0}]", 20000, 10000, "c8192 d11808");
    expect("[{\"offset\":0,\"length\":10000,\"type\":0}]", 10000, 20000, "c10000");
    expect("[]", 0, 0, "");
}

static void test_what_is_no_map(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "{}",
        "[1]",
        "[{}]",
        "[{\"offset\":0,\"length\":1}]",
        "[{\"offset\":-1,\"length\":1,\"type\":0}]",
        "[{\"offset\":0,\"length\":-1,\"type\":0}]",
        "[{\"offset\":\"0\",\"length\":1,\"type\":0}]",
        "[{\"offset\":0,\"length\":8193,\"type\":0}]",
        "[{\"offset\":9223372036854775807,\"length\":9223372036854775807,\"type\":0}]",
        "[{\"offset\":4096,\"length\":4096,\"type\":0},{\"offset\":0,\"length\":4096,\"type\":0}]",
        "[{\"offset\":0,\"length\":4097,\"type\":0},{\"offset\":4096,\"length\":1,\"type\":0}]",
        "[{\"offset\":0,\"length\":4096,\"type\":0}",
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        SCOPED_EXTENTS struct extents map = EXTENTS_INIT;
        assert_false(parse(bad[i], 8192, 8192, &map));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_maps),
        cmocka_unit_test(test_what_is_no_map),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
