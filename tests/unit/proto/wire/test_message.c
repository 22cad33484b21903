/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proto/base/file.h"
#include "proto/wire/message.h"

#define TASK "7d0c9a62-2f7e-4a0b-8f6d-1f2e3d4c5b6a"

static char *fixtures(const char *kind)
{
    const char *top = getenv("OXBOW_SOURCE_DIR");
    return xasprintf("%s/tests/fixtures/messages/%s", top ? top : ".", kind);
}

static void read_fixture(const char *dir, const char *name, struct buf *out)
{
    struct err err = ERR_INIT;
    SCOPED_FREE char *path = xasprintf("%s/%s", dir, name);
    if (!file_read_all(AT_FDCWD, path, 4 * WIRE_BODY_MAX_BYTES, out, &err))
        fail_msg("%s", err.message);
}

/* "backup.full.json" -> "oxbow.backup.v1" */
static char *type_of(const char *file)
{
    return xasprintf("oxbow.%.*s.v1", (int)strcspn(file, "."), file);
}

static bool decode(const char *type, const char *body, struct wire_message *m, struct err *err)
{
    return wire_decode(type, body, strlen(body), m, err);
}

/* Decoded, encoded, decoded and encoded again: the same text. */
static void expect_stable(const char *type, const void *body, size_t len)
{
    struct wire_message m;
    struct err err = ERR_INIT;
    if (!wire_decode(type, body, len, &m, &err))
        fail_msg("%s: %s", type, err.message);
    size_t first_len, second_len;
    SCOPED_FREE char *first = wire_encode(m.type, m.as, &first_len, &err);
    if (!first)
        fail_msg("%s: %s", type, err.message);
    assert_int_equal(first_len, strlen(first));
    wire_free(&m);
    assert_null(m.as);
    if (!wire_decode(type, first, first_len, &m, &err))
        fail_msg("%s: %s", first, err.message);
    SCOPED_FREE char *second = wire_encode(m.type, m.as, &second_len, &err);
    wire_free(&m);
    assert_string_equal(first, second);
}

static void test_valid_examples(void **state)
{
    (void)state;
    SCOPED_FREE char *dir = fixtures("valid");
    DIR *d = opendir(dir);
    assert_non_null(d);
    struct dirent *e;
    bool seen[WIRE_TYPE_COUNT] = {false};
    while ((e = readdir(d)) != NULL) {
        if (e->d_name[0] == '.')
            continue;
        SCOPED_FREE char *type = type_of(e->d_name);
        SCOPED_BUF struct buf body;
        read_fixture(dir, e->d_name, &body);
        expect_stable(type, body.data, body.len);
        enum wire_type number;
        struct err err = ERR_INIT;
        assert_true(wire_type_parse(type, &number, &err));
        seen[number] = true;
    }
    closedir(d);
    for (int i = 0; i < WIRE_TYPE_COUNT; i++)
        assert_true(seen[i]);
}

static void test_invalid_examples(void **state)
{
    (void)state;
    SCOPED_FREE char *dir = fixtures("invalid");
    SCOPED_FREE char *table = xasprintf("%s/expected", dir);
    SCOPED_FILE FILE *f = fopen(table, "re");
    assert_non_null(f);
    char line[1024], name[128], code[64], text[512];
    int rows = 0;
    while (fgets(line, sizeof line, f)) {
        if (line[0] == '#')
            continue;
        assert_int_equal(sscanf(line, "%127[^\t]\t%*[^\t]\t%63[^\t]\t%511[^\n]", name, code, text),
                         3);
        SCOPED_FREE char *type = type_of(name);
        SCOPED_FREE char *file = xasprintf("%s.json", name);
        SCOPED_BUF struct buf body;
        read_fixture(dir, file, &body);
        struct wire_message m;
        struct err err = ERR_INIT;
        if (wire_decode(type, buf_str(&body), body.len, &m, &err))
            fail_msg("%s was accepted", name);
        if (strcmp(err_code_name(err.code), code) != 0 || !strstr(err.message, text))
            fail_msg("%s: wanted %s '%s', got %s: %s", name, code, text, err_code_name(err.code),
                     err.message);
        rows++;
    }
    assert_true(rows > 40);
}

static void test_types(void **state)
{
    (void)state;
    enum wire_type type;
    for (int i = 0; i < WIRE_TYPE_COUNT; i++) {
        struct err err = ERR_INIT;
        assert_true(wire_type_parse(wire_type_name((enum wire_type)i), &type, &err));
        assert_int_equal(type, i);
    }
    assert_string_equal(wire_type_name(WIRE_BACKUP), "oxbow.backup.v1");
    static const struct {
        const char *type;
        enum err_code code;
    } bad[] = {
        {NULL, ERR_BAD_MESSAGE},
        {"", ERR_BAD_MESSAGE},
        {"oxbow.", ERR_BAD_MESSAGE},
        {"oxbow.backup", ERR_BAD_MESSAGE},
        {"oxbow.backup.", ERR_BAD_MESSAGE},
        {"oxbow.backup.v", ERR_BAD_MESSAGE},
        {"oxbow.backup.vx", ERR_BAD_MESSAGE},
        {"oxbow.backup.v1.v1", ERR_BAD_MESSAGE},
        {"oxbow.backup.v2", ERR_UNSUPPORTED_VERSION},
        {"oxbow.backup.v10", ERR_UNSUPPORTED_VERSION},
        {"oxbow.backups.v1", ERR_BAD_MESSAGE},
        {"oxbow.dance.v2", ERR_BAD_MESSAGE},
        {"Oxbow.backup.v1", ERR_BAD_MESSAGE},
        {"backup", ERR_BAD_MESSAGE},
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct err err = ERR_INIT;
        struct wire_message m;
        assert_false(wire_decode(bad[i].type, "{}", 2, &m, &err));
        assert_int_equal(err.code, bad[i].code);
    }
}

static void test_defaults_and_null(void **state)
{
    (void)state;
    struct wire_message m;
    struct err err = ERR_INIT;
    assert_true(decode("oxbow.backup.v1",
                       "{\"select\":{\"all\":true,\"names\":null,\"search\":null},\"zone\":null,"
                       "\"options\":{},\"progress\":null,\"deadline_s\":null,\"new_thing\":[1]}",
                       &m, &err));
    const struct wire_backup *b = m.as;
    assert_int_equal(m.type, WIRE_BACKUP);
    assert_null(b->zone);
    assert_null(b->idempotency_key);
    assert_true(b->select->all);
    assert_int_equal(b->select->names.count, 0);
    assert_null(b->select->search);
    assert_non_null(b->options);
    assert_int_equal(b->options->quiesce, WIRE_QUIESCE_AUTO);
    assert_int_equal(b->options->unsupported, WIRE_UNSUPPORTED_SKIP);
    assert_false(b->progress);
    assert_int_equal(b->deadline_s, 0);
    wire_free(&m);
    wire_free(&m); /* zeroed: nothing happens */
    assert_true(decode("oxbow.backup.v1", "{\"select\":{\"all\":true}}", &m, &err));
    assert_null(((struct wire_backup *)m.as)->options);
    wire_free(&m);
}

static void test_ids_are_folded(void **state)
{
    (void)state;
    struct wire_message m;
    struct err err = ERR_INIT;
    assert_true(
        decode("oxbow.cancel.v1", "{\"task\":\"7D0C9A62-2F7E-4A0B-8F6D-1F2E3D4C5B6A\"}", &m, &err));
    assert_string_equal(((struct wire_cancel *)m.as)->task, TASK);
    wire_free(&m);
}

static void test_handles(void **state)
{
    (void)state;
    struct wire_message m;
    struct err err = ERR_INIT;
    assert_true(decode("oxbow.step.v1",
                       "{\"task\":\"" TASK "\",\"worker\":\"w1\",\"attempt\":1,\"fence\":4,"
                       "\"seq\":2,\"step\":\"snapshot\",\"state\":\"handle\","
                       "\"handles\":{\"snapshot\":\"s-1\",\"attachment.d1\":\"\"}}",
                       &m, &err));
    const struct wire_step *s = m.as;
    assert_int_equal(s->fence, 4);
    assert_int_equal(s->handles.count, 2);
    assert_string_equal(s->handles.v[0].name, "snapshot");
    assert_string_equal(s->handles.v[0].value, "s-1");
    assert_string_equal(s->handles.v[1].value, "");
    wire_free(&m);
}

static void test_size_limit(void **state)
{
    (void)state;
    static char body[WIRE_BODY_MAX_BYTES + 2];
    struct wire_message m;
    struct err err = ERR_INIT;
    memset(body, ' ', sizeof body);
    memcpy(body, "{}", 2);
    assert_true(wire_decode("oxbow.status.v1", body, WIRE_BODY_MAX_BYTES, &m, &err));
    wire_free(&m);
    assert_false(wire_decode("oxbow.status.v1", body, WIRE_BODY_MAX_BYTES + 1, &m, &err));
    assert_int_equal(err.code, ERR_TOO_LARGE);
}

/* --- Encoding -------------------------------------------------------------------------------- */
static char text_a[] = "a";

static void expect_encode_fault(enum wire_type type, const void *message, enum err_code code,
                                const char *text)
{
    struct err err = ERR_INIT;
    size_t len;
    char *body = wire_encode(type, message, &len, &err);
    if (body)
        fail_msg("encoded: %s", body);
    if (err.code != code || !strstr(err.message, text))
        fail_msg("wanted %s '%s', got %s: %s", err_code_name(code), text, err_code_name(err.code),
                 err.message);
}

static void test_encode_refuses_what_decode_would(void **state)
{
    (void)state;
    static char *names[WIRE_SELECT_MAX + 1];
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        names[i] = text_a;
    struct wire_select select = {.names = {.v = names, .count = ARRAY_LEN(names)}};
    struct wire_backup backup = {.select = &select};
    expect_encode_fault(WIRE_BACKUP, &backup, ERR_TOO_LARGE, "$.select.names: 2001 items");
    select.names.count = 0;
    expect_encode_fault(WIRE_BACKUP, &backup, ERR_BAD_MESSAGE, "$.select: selects nothing");
    select.all = true;
    char zone[] = "No Slug";
    backup.zone = zone;
    expect_encode_fault(WIRE_BACKUP, &backup, ERR_BAD_MESSAGE, "$.zone");
    backup.zone = NULL;
    char bad_utf8[] = "a\xff";
    names[0] = bad_utf8;
    select.names.count = 1;
    expect_encode_fault(WIRE_BACKUP, &backup, ERR_BAD_ARGUMENT, "$.select.names[0]");
    names[0] = text_a;
    backup.deadline_s = -1;
    expect_encode_fault(WIRE_BACKUP, &backup, ERR_BAD_MESSAGE, "$.deadline_s: -1");
    struct wire_status status = {.request = text_a};
    expect_encode_fault(WIRE_STATUS, &status, ERR_BAD_MESSAGE, "'a' is not a UUID");
}

/* 2000 names of 255 characters are more than one message may carry. */
static void test_encode_size_limit(void **state)
{
    (void)state;
    static char *names[WIRE_SELECT_MAX];
    char name[WIRE_NAME_MAX + 1];
    memset(name, 'n', WIRE_NAME_MAX);
    name[WIRE_NAME_MAX] = '\0';
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        names[i] = name;
    struct wire_select select = {.names = {.v = names, .count = ARRAY_LEN(names)}};
    struct wire_backup backup = {.select = &select};
    expect_encode_fault(WIRE_BACKUP, &backup, ERR_TOO_LARGE, "backup: body of");
}

/* Texts for people always go through: any byte, any length. */
static void test_encode_cuts_texts(void **state)
{
    (void)state;
    char message[4 * WIRE_TEXT_MAX] = "bad \xff byte ";
    char code[] = "internal", retry[] = "never";
    struct wire_error error = {.code = code, .retry = retry, .message = message};
    struct wire_refused refused = {.error = &error};
    struct err err = ERR_INIT;
    size_t len;
    char *body = wire_encode(WIRE_REFUSED, &refused, &len, &err);
    assert_non_null(strstr(body, "\"bad ? byte \""));
    free(body);
    for (int extra = -3; extra <= 3; extra++) {
        size_t at = 0;
        for (int i = 0; i < WIRE_TEXT_MAX + extra; i++, at += 3)
            memcpy(message + at, "\xe2\x82\xac", 4);
        body = wire_encode(WIRE_REFUSED, &refused, &len, &err);
        struct wire_message m;
        if (!body || !wire_decode("oxbow.refused.v1", body, len, &m, &err))
            fail_msg("%d: %s", extra, err.message);
        const char *back = ((struct wire_refused *)m.as)->error->message;
        if (extra <= 0) {
            assert_string_equal(back, message);
        } else {
            assert_int_equal(strlen(back), 3 * (WIRE_TEXT_MAX - 3) + 3);
            assert_string_equal(back + strlen(back) - 3, "...");
        }
        wire_free(&m);
        free(body);
    }
}

static void test_encode_leaves_out_what_is_absent(void **state)
{
    (void)state;
    struct wire_select select = {.all = true};
    struct wire_backup backup = {.select = &select};
    struct err err = ERR_INIT;
    size_t len;
    SCOPED_FREE char *body = wire_encode(WIRE_BACKUP, &backup, &len, &err);
    assert_string_equal(body, "{\"type\":\"oxbow.backup.v1\",\"select\":{\"all\":true},"
                              "\"deadline_s\":0,\"progress\":false}");
}

static void test_free_members(void **state)
{
    (void)state;
    struct wire_stop stop = {.task = xstrdup(TASK), .worker = xstrdup("w1")};
    wire_free_members(WIRE_STOP, &stop);
    assert_null(stop.task);
    wire_free_members(WIRE_STOP, &stop);
}

/* --- Parts ----------------------------------------------------------------------------------- */
static void test_part_lies_within_its_disks(void **state)
{
    (void)state;
    char task[] = TASK, other[] = "11112222-3333-4444-8555-666677778888", disk[] = "d1";
    struct wire_piece pieces[] = {
        {.disk = disk, .size_bytes = 100, .offset = 0, .length = 100},
        {.disk = disk, .size_bytes = 100, .offset = 99, .length = 1},
    };
    struct wire_part part = {.of = task, .n = 1, .pieces = {pieces, 2}};
    struct err err = ERR_INIT;
    assert_true(wire_part_check(&part, TASK, &err));
    assert_false(wire_part_check(&part, other, &err));
    assert_int_equal(err.code, ERR_BAD_MESSAGE);
    static const struct {
        int64_t offset, length;
    } bad[] = {{99, 2}, {100, 1}, {101, 1}, {1, INT64_MAX}, {INT64_MAX, 1}};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        err_clear(&err);
        pieces[1].offset = bad[i].offset;
        pieces[1].length = bad[i].length;
        assert_false(wire_part_check(&part, TASK, &err));
        assert_int_equal(err.code, ERR_BAD_MESSAGE);
        assert_non_null(strstr(err.message, "ends behind the disk"));
    }
}

static void test_part_kinds(void **state)
{
    (void)state;
    assert_true(wire_is_part("backup-part"));
    assert_true(wire_is_part("restore-part"));
    assert_false(wire_is_part("backup"));
    assert_false(wire_is_part("part"));
}

/* --- Errors and words ------------------------------------------------------------------------ */
static void test_errors_travel(void **state)
{
    (void)state;
    struct err err = ERR_INIT, back;
    err_set(&err, ERR_NO_SPACE, 28, "write 'x'");
    struct wire_error wire;
    char at[WIRE_AT_BYTES];
    wire_error_of(&err, &wire, at);
    assert_string_equal(wire.code, "no-space");
    assert_string_equal(wire.retry, "later");
    assert_int_equal(wire.sys, 28);
    assert_memory_equal(wire.at, "tests/unit/proto/wire/test_message.c:", 37);
    assert_string_equal(wire.message, "write 'x'");
    wire_error_to_err(&wire, &back);
    assert_int_equal(back.code, ERR_NO_SPACE);
    assert_int_equal(back.sys, 28);
    assert_string_equal(back.message, "write 'x'");
    char unknown[] = "from-the-future", none[] = "none";
    wire.code = unknown;
    wire.sys = INT64_MAX;
    wire_error_to_err(&wire, &back);
    assert_int_equal(back.code, ERR_INTERNAL);
    assert_int_equal(back.sys, 0);
    wire.code = none;
    wire_error_to_err(&wire, &back);
    assert_int_equal(back.code, ERR_INTERNAL); /* an error is one */
}

#define EXPECT_WORDS(what, count)                                                                  \
    for (int i_ = 0; i_ < (count); i_++) {                                                         \
        enum wire_##what v_;                                                                       \
        assert_true(wire_##what##_parse(wire_##what##_name((enum wire_##what)i_), &v_));           \
        assert_int_equal(v_, i_);                                                                  \
        assert_false(wire_##what##_parse("no such word", &v_));                                    \
    }

static void test_words(void **state)
{
    (void)state;
    assert_string_equal(wire_quiesce_name(WIRE_QUIESCE_OFF), "off");
    assert_string_equal(wire_unsupported_name(WIRE_UNSUPPORTED_FAIL), "fail");
    assert_string_equal(wire_path_name(WIRE_PATH_ATTACH), "attach");
    assert_string_equal(wire_config_name(WIRE_CONFIG_JSON), "json");
    assert_string_equal(wire_nics_name(WIRE_NICS_NONE), "none");
    EXPECT_WORDS(quiesce, 3);
    EXPECT_WORDS(unsupported, 2);
    EXPECT_WORDS(path, 2);
    EXPECT_WORDS(config, 2);
    EXPECT_WORDS(nics, 3);
}

/* --- Damage ---------------------------------------------------------------------------------- */
/* The same numbers in every run. */
static uint32_t next_random(uint64_t *seed)
{
    *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*seed >> 33);
}

static void damage(char *body, size_t *len, uint64_t *seed)
{
    static const char bytes[] = "{}[]\",:0-9eE.tfn\\u \x00\xff\xc3";
    size_t at = next_random(seed) % *len;
    switch (next_random(seed) % 4) {
    case 0: /* another byte */
        body[at] = bytes[next_random(seed) % (sizeof bytes - 1)];
        break;
    case 1: /* a bit */
        body[at] = (char)(body[at] ^ (1 << next_random(seed) % 8));
        break;
    case 2: /* cut out */
        memmove(body + at, body + at + 1, *len - at - 1);
        *len -= *len > 1;
        break;
    default: /* cut off */
        *len = at + 1;
    }
}

/* Whatever is damaged: refused with a reason, or read and stable. Memory is the sanitizers' job. */
static void test_random_damage(void **state)
{
    (void)state;
    SCOPED_FREE char *dir = fixtures("valid");
    DIR *d = opendir(dir);
    assert_non_null(d);
    struct dirent *e;
    uint64_t seed = 42;
    int accepted = 0, refused = 0;
    while ((e = readdir(d)) != NULL) {
        if (e->d_name[0] == '.')
            continue;
        SCOPED_FREE char *type = type_of(e->d_name);
        SCOPED_BUF struct buf body;
        read_fixture(dir, e->d_name, &body);
        for (int round = 0; round < 400; round++) {
            SCOPED_FREE char *copy = xmalloc(body.len);
            size_t len = body.len;
            memcpy(copy, body.data, len);
            for (uint32_t n = 1 + next_random(&seed) % 3; n > 0; n--)
                damage(copy, &len, &seed);
            struct wire_message m;
            struct err err = ERR_INIT;
            if (wire_decode(type, copy, len, &m, &err)) {
                wire_free(&m);
                expect_stable(type, copy, len);
                accepted++;
            } else {
                assert_true(err.code == ERR_BAD_MESSAGE || err.code == ERR_TOO_LARGE);
                assert_true(strlen(err.message) > 0);
                refused++;
            }
        }
    }
    closedir(d);
    assert_true(refused > 1000);
    assert_true(accepted > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_valid_examples),
        cmocka_unit_test(test_invalid_examples),
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_defaults_and_null),
        cmocka_unit_test(test_ids_are_folded),
        cmocka_unit_test(test_handles),
        cmocka_unit_test(test_size_limit),
        cmocka_unit_test(test_encode_refuses_what_decode_would),
        cmocka_unit_test(test_encode_size_limit),
        cmocka_unit_test(test_encode_cuts_texts),
        cmocka_unit_test(test_encode_leaves_out_what_is_absent),
        cmocka_unit_test(test_free_members),
        cmocka_unit_test(test_part_lies_within_its_disks),
        cmocka_unit_test(test_part_kinds),
        cmocka_unit_test(test_errors_travel),
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_random_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
