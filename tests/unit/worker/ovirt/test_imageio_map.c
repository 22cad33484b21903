/* SPDX-License-Identifier: Apache-2.0 */
/* Maps as hosts send them, in pieces of any size, and as they never should. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "worker/ovirt/imageio_map.h"

#define SIZE 300u

/* Read `json` in pieces; an error's code, or ERR_NONE with the map in *ret. */
static enum err_code read_map(const char *json, size_t piece, enum imageio_context context,
                              struct imageio_map *ret)
{
    struct err err = ERR_INIT;
    struct map_reader reader;
    map_reader_init(&reader, context, SIZE);
    size_t len = strlen(json);
    bool ok = true;
    for (size_t at = 0; ok && at < len; at += piece)
        ok = map_reader_add(&reader, json + at, len - at < piece ? len - at : piece, &err);
    ok = ok && map_reader_finish(&reader, ret, &err);
    map_reader_done(&reader);
    return ok ? ERR_NONE : err.code;
}

static void pieces_of_any_size_give_the_same_map(void **state)
{
    (void)state;
    static const char json[] =
        "[{\"start\": 0, \"length\": 100, \"zero\": false, \"hole\": false, \"note\": \"a}{\\\"\"},"
        " {\"start\": 100, \"length\": 50, \"zero\": false, \"hole\": true},\n"
        " {\"start\": 150, \"length\": 250, \"zero\": true, \"x\": {\"y\": [1]}}]\n";
    for (size_t piece = 1; piece < sizeof json; piece++) {
        struct imageio_map map;
        assert_int_equal(read_map(json, piece, IMAGEIO_ZERO, &map), ERR_NONE);
        assert_int_equal(map.count, 2);
        assert_int_equal(map.v[0].len, 150); /* alike neighbours are one */
        assert_false(map.v[0].zero);
        assert_true(map.v[0].dirty);
        assert_int_equal(map.v[1].offset, 150);
        assert_int_equal(map.v[1].len, SIZE - 150); /* cut off at the disk's end */
        assert_true(map.v[1].zero);
        imageio_map_done(&map);
    }
}

static void dirty_and_zero_are_two_questions(void **state)
{
    (void)state;
    struct imageio_map map;
    assert_int_equal(read_map("[{\"start\":0,\"length\":100,\"dirty\":true,\"zero\":true},"
                              "{\"start\":100,\"length\":100,\"dirty\":false,\"zero\":true},"
                              "{\"start\":200,\"length\":100,\"dirty\":true}]",
                              4096, IMAGEIO_DIRTY, &map),
                     ERR_NONE);
    assert_int_equal(map.count, 3);
    assert_true(map.v[0].dirty && map.v[0].zero);
    assert_true(!map.v[1].dirty && map.v[1].zero);
    assert_true(map.v[2].dirty && !map.v[2].zero); /* an old host does not say: no zeroes */
    imageio_map_done(&map);
}

static void what_is_not_a_whole_map_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "{}",
        "null",
        "[",
        "[]", /* shorter than the disk */
        "[{\"start\":0,\"length\":300}",
        "[{\"start\":0,\"length\":299}]",
        "[{\"start\":0,\"length\":100},{\"start\":101,\"length\":199}]",
        "[{\"start\":0,\"length\":200},{\"start\":100,\"length\":200}]",
        "[{\"start\":1,\"length\":299}]",
        "[{\"start\":-1,\"length\":301}]",
        "[{\"length\":300}]",
        "[{\"start\":0,\"length\":300}]]",
        "[{\"start\":0,\"length\":300}] x",
        "[{\"start\":0,\"length\":18446744073709551615},{\"start\":1,\"length\":1}]",
        "[{\"start\":0 \"length\":300}]",
        "[7]",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct imageio_map map;
        enum err_code code = read_map(bad[i], 7, IMAGEIO_ZERO, &map);
        if (code != ERR_ENGINE_PROTOCOL)
            fail_msg("'%s' gave %s", bad[i], err_code_name(code));
    }
    char endless[MAP_OBJECT_BYTES + 64] = "[{\"start\":0,\"x\":\"";
    memset(endless + strlen(endless), 'a', sizeof endless - strlen(endless) - 1);
    endless[sizeof endless - 1] = '\0';
    struct imageio_map map;
    assert_int_equal(read_map(endless, 100, IMAGEIO_ZERO, &map), ERR_ENGINE_PROTOCOL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_of_any_size_give_the_same_map),
        cmocka_unit_test(dirty_and_zero_are_two_questions),
        cmocka_unit_test(what_is_not_a_whole_map_is_refused),
    };
    return cmocka_run_group_tests_name("worker/ovirt/imageio_map", tests, NULL, NULL);
}
