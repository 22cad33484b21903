/* SPDX-License-Identifier: Apache-2.0 */
/* Which path a disk takes, and what is said about it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "proto/base/alloc.h"
#include "worker/step/path.h"

#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)

static const enum ovirt_disk_class classes[] = {
    OVIRT_DISK_FIT,     OVIRT_DISK_LUN,     OVIRT_DISK_SHAREABLE,
    OVIRT_DISK_STORAGE, OVIRT_DISK_CONTENT, OVIRT_DISK_UNPLUGGED,
    OVIRT_DISK_ILLEGAL, OVIRT_DISK_LOCKED,  OVIRT_DISK_CHECKPOINTS,
};
static const enum wire_path asked[] = {WIRE_PATH_AUTO, WIRE_PATH_ATTACH, WIRE_PATH_IMAGEIO,
                                       WIRE_PATH_CBT, WIRE_PATH_HYBRID};

static struct path_facts facts(void)
{
    return (struct path_facts){.fit = OVIRT_DISK_FIT,
                               .size_bytes = 10 * GIB,
                               .used_bytes = 3 * GIB,
                               .map_min_bytes = 1 * GIB};
}

static void test_table(void **state)
{
    (void)state;
    enum { NONE = BACKUP_PATHS, A = BACKUP_ATTACH, I = BACKUP_IMAGEIO };
    static const struct {
        enum wire_path asked;
        enum ovirt_disk_class fit;
        bool checkpoints;
        int path;
        const char *why; /* a part of it */
    } rows[] = {
        {WIRE_PATH_AUTO, OVIRT_DISK_FIT, false, A, "the usual path"},
        {WIRE_PATH_AUTO, OVIRT_DISK_FIT, true, I, "the only path"},
        {WIRE_PATH_AUTO, OVIRT_DISK_CHECKPOINTS, true, I, "the only path"},
        {WIRE_PATH_AUTO, OVIRT_DISK_CHECKPOINTS, false, I, "the only path"},
        {WIRE_PATH_ATTACH, OVIRT_DISK_CHECKPOINTS, false, NONE, "checkpoints"},
        {WIRE_PATH_IMAGEIO, OVIRT_DISK_CHECKPOINTS, false, I, "asked for"},
        {WIRE_PATH_ATTACH, OVIRT_DISK_FIT, false, A, "asked for"},
        {WIRE_PATH_ATTACH, OVIRT_DISK_FIT, true, NONE, "checkpoints"},
        {WIRE_PATH_IMAGEIO, OVIRT_DISK_FIT, false, I, "asked for"},
        {WIRE_PATH_IMAGEIO, OVIRT_DISK_FIT, true, I, "asked for"},
        {WIRE_PATH_AUTO, OVIRT_DISK_LUN, false, NONE, "direct LUN"},
        {WIRE_PATH_IMAGEIO, OVIRT_DISK_LUN, false, NONE, "direct LUN"},
        {WIRE_PATH_AUTO, OVIRT_DISK_SHAREABLE, false, NONE, "shareable"},
        {WIRE_PATH_AUTO, OVIRT_DISK_STORAGE, false, NONE, "kind of storage"},
        {WIRE_PATH_AUTO, OVIRT_DISK_CONTENT, true, NONE, "not a data disk"},
        {WIRE_PATH_AUTO, OVIRT_DISK_UNPLUGGED, false, NONE, "not active"},
        {WIRE_PATH_AUTO, OVIRT_DISK_ILLEGAL, false, NONE, "illegal"},
        {WIRE_PATH_AUTO, OVIRT_DISK_LOCKED, false, NONE, "locked"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct path_facts f = facts();
        f.asked = rows[i].asked;
        f.fit = rows[i].fit;
        f.has_checkpoints = rows[i].checkpoints;
        struct path_choice c;
        path_choose(&f, &c);
        if ((int)c.path != rows[i].path || !strstr(c.why, rows[i].why))
            fail_msg("row %zu: path %s, why '%s'", i, backup_path_name(c.path), c.why);
    }
}

static bool is_engines_word(enum wire_path word)
{
    return word == WIRE_PATH_CBT || word == WIRE_PATH_HYBRID;
}

static void check_answer(const struct path_facts *f, const struct path_choice *c)
{
    assert_non_null(c->why);
    for (int p = 0; p < BACKUP_PATHS; p++) {
        assert_true((c->why_not[p] == NULL) == ((int)c->path == p));
        bool asked_only = p == BACKUP_HYBRID && f->fit != OVIRT_DISK_FIT;
        if (c->path == BACKUP_PATHS && f->asked == WIRE_PATH_AUTO && !asked_only)
            assert_string_equal(c->why_not[p], c->why);
    }
    if (c->path == BACKUP_PATHS) {
        assert_true(c->fit != OVIRT_DISK_FIT || (is_engines_word(f->asked) && !f->can_cbt));
        assert_int_equal(c->read_bytes, 0);
        return;
    }
    assert_true(c->fit == OVIRT_DISK_FIT || c->fit == OVIRT_DISK_CHECKPOINTS);
    assert_true(c->read_bytes > 0 && c->read_bytes <= f->size_bytes);
    assert_true(c->copy_ms > 0);
    assert_int_equal(c->is_measured, f->rates[c->path].bytes_per_s > 0);
    assert_true(!c->is_mapped || c->path == BACKUP_ATTACH);
    /* The rules that nothing may break. */
    if (f->has_checkpoints || f->fit == OVIRT_DISK_CHECKPOINTS)
        assert_true(c->path != BACKUP_ATTACH);
    if (!f->can_cbt)
        assert_true(!path_is_engines(c->path));
    else if (f->asked == WIRE_PATH_AUTO) /* of all the VM's disks or of none */
        assert_int_equal(c->path, BACKUP_CBT);
    if (f->asked == WIRE_PATH_CBT)
        assert_int_equal(c->path, BACKUP_CBT);
    assert_int_equal(c->path == BACKUP_HYBRID, f->asked == WIRE_PATH_HYBRID);
    if (f->asked == WIRE_PATH_ATTACH)
        assert_int_equal(c->path, BACKUP_ATTACH);
    if (f->asked == WIRE_PATH_IMAGEIO)
        assert_int_equal(c->path, BACKUP_IMAGEIO);
}

static void test_every_combination_has_a_whole_answer(void **state)
{
    (void)state;
    static const uint64_t rates[] = {0, 1, 50 * MIB, 500 * MIB};
    static const int64_t samples[] = {0, 1, PATH_SAMPLES_MIN};
    static const uint64_t used[] = {0, 1 * GIB, 10 * GIB, 11 * GIB};
    enum { N = 9 * 5 * 2 * 2 * 4 * 4 * 3 * 4 };
    for (unsigned n = 0; n < N; n++) {
        unsigned at = n;
        struct path_facts f = facts();
#define PICK(list) (list)[at % ARRAY_LEN(list)], at /= (unsigned)ARRAY_LEN(list)
        f.fit = PICK(classes);
        f.asked = PICK(asked);
        f.has_checkpoints = at % 2 == 1;
        at /= 2;
        f.can_cbt = at % 2 == 1;
        at /= 2;
        f.rates[BACKUP_ATTACH].bytes_per_s = PICK(rates);
        f.rates[BACKUP_IMAGEIO].bytes_per_s = PICK(rates);
        f.rates[BACKUP_ATTACH].samples = f.rates[BACKUP_IMAGEIO].samples = PICK(samples);
        f.used_bytes = PICK(used);
#undef PICK
        struct path_choice c;
        path_choose(&f, &c);
        check_answer(&f, &c);
    }
}

/* The other path is taken only when both were measured often enough, and it is clearly faster. */
static void test_rates_decide_only_when_they_are_clear(void **state)
{
    (void)state;
    static const struct {
        uint64_t attach_mibs, imageio_mibs;
        int64_t attach_n, imageio_n;
        enum backup_path path;
    } rows[] = {
        {0, 900, 0, 9, BACKUP_ATTACH},    /* attach was never measured */
        {100, 900, 2, 9, BACKUP_ATTACH},  /* too seldom */
        {100, 900, 9, 2, BACKUP_ATTACH},  /* the other one too seldom */
        {100, 900, 3, 3, BACKUP_IMAGEIO}, /* clearly faster */
        {100, 125, 9, 9, BACKUP_IMAGEIO}, /* just so: 80 % of the time */
        {100, 124, 9, 9, BACKUP_ATTACH},  /* just not */
        {900, 100, 9, 9, BACKUP_ATTACH},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct path_facts f = facts();
        f.rates[BACKUP_ATTACH] = (struct path_rate){rows[i].attach_mibs * MIB, rows[i].attach_n};
        f.rates[BACKUP_IMAGEIO] = (struct path_rate){rows[i].imageio_mibs * MIB, rows[i].imageio_n};
        struct path_choice c;
        path_choose(&f, &c);
        if (c.path != rows[i].path)
            fail_msg("row %zu: %s, %s", i, backup_path_name(c.path), c.why);
        if (c.path == BACKUP_IMAGEIO) {
            assert_non_null(strstr(c.why, "clearly faster"));
            assert_non_null(strstr(c.why_not[BACKUP_ATTACH], "clearly slower"));
        } else {
            bool slower = rows[i].attach_mibs > 2 * rows[i].imageio_mibs && rows[i].imageio_mibs;
            assert_non_null(
                strstr(c.why_not[BACKUP_IMAGEIO], slower ? "clearly slower" : "not known to be"));
        }
    }
}

/* A small disk without a map is read whole when it is attached, not so by a transfer: time counts,
 * not the rate alone. */
static void test_bytes_and_time_that_are_expected(void **state)
{
    (void)state;
    struct path_facts f = facts();
    struct path_choice c;
    f.rates[BACKUP_ATTACH] = (struct path_rate){300 * MIB, 1};
    path_choose(&f, &c);
    assert_true(c.is_mapped && c.is_measured);
    assert_int_equal(c.read_bytes, 3 * GIB);
    assert_int_equal(c.copy_ms, 10240);

    f.map_min_bytes = 20 * GIB; /* no map: all of it */
    path_choose(&f, &c);
    assert_false(c.is_mapped);
    assert_int_equal(c.read_bytes, 10 * GIB);

    f.rates[BACKUP_ATTACH] = (struct path_rate){300 * MIB, 5};
    f.rates[BACKUP_IMAGEIO] = (struct path_rate){200 * MIB, 5};
    path_choose(&f, &c);
    assert_int_equal(c.path, BACKUP_IMAGEIO);
    assert_int_equal(c.read_bytes, 3 * GIB);

    f = facts();
    f.used_bytes = 0; /* not known: all of it */
    path_choose(&f, &c);
    assert_int_equal(c.read_bytes, 10 * GIB);
    assert_false(c.is_measured);
    assert_int_equal(c.copy_ms / 10, 10 * GIB * 100 / path_default_rate(BACKUP_ATTACH));
}

/* What the engine's backup API needs of a VM, which is asked once for all its disks. */
static void test_what_cbt_needs(void **state)
{
    (void)state;
    static const struct {
        enum wire_path asked;
        int minor, build;
        const char *status;
        int incremental, plain, unfit; /* disks */
        const char *why;               /* a part of it; NULL = it can */
    } rows[] = {
        {WIRE_PATH_AUTO, 5, 0, "up", 2, 0, 0, NULL},
        {WIRE_PATH_AUTO, 4, 7, "down", 1, 0, 1, NULL},
        {WIRE_PATH_CBT, 5, 0, "up", 1, 1, 0, NULL},
        {WIRE_PATH_AUTO, 5, 0, "up", 1, 1, 0, "some of its disks"},
        {WIRE_PATH_CBT, 5, 0, "up", 0, 2, 0, "off for its disks"},
        {WIRE_PATH_CBT, 5, 0, "up", 0, 0, 1, "off for its disks"},
        {WIRE_PATH_CBT, 5, 0, "paused", 1, 0, 0, "up or down"},
        {WIRE_PATH_CBT, 5, 0, NULL, 1, 0, 0, "up or down"},
        {WIRE_PATH_CBT, 4, 6, "up", 1, 0, 0, "older than"},
        {WIRE_PATH_HYBRID, 5, 0, "up", 1, 1, 0, NULL},
        {WIRE_PATH_HYBRID, 4, 10, "up", 1, 0, 0, "older than 4.5"},
        {WIRE_PATH_HYBRID, 5, 0, "up", 0, 1, 0, "off for its disks"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct ovirt_disk disks[4] = {0};
        struct ovirt_disks list = {.v = disks};
        for (int n = 0; n < rows[i].incremental; n++)
            disks[list.count++] =
                (struct ovirt_disk){.fit = OVIRT_DISK_CHECKPOINTS, .incremental = true};
        for (int n = 0; n < rows[i].plain; n++)
            disks[list.count++] = (struct ovirt_disk){.fit = OVIRT_DISK_FIT};
        for (int n = 0; n < rows[i].unfit; n++)
            disks[list.count++] = (struct ovirt_disk){.fit = OVIRT_DISK_LUN, .incremental = true};
        struct engine_version version = {4, rows[i].minor, rows[i].build};
        const char *why = path_cbt_obstacle(rows[i].asked, &version, rows[i].status, &list);
        if (!why != !rows[i].why || (why && !strstr(why, rows[i].why)))
            fail_msg("row %zu: %s", i, why ? why : "it can");
    }
}

static void test_names(void **state)
{
    (void)state;
    for (int p = 0; p < BACKUP_PATHS; p++)
        assert_int_equal(backup_path_parse(backup_path_name((enum backup_path)p)), p);
    assert_string_equal(backup_path_name(BACKUP_PATHS), "none");
    assert_int_equal(backup_path_parse("none"), BACKUP_PATHS);
    assert_int_equal(backup_path_parse(""), BACKUP_PATHS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_every_combination_has_a_whole_answer),
        cmocka_unit_test(test_rates_decide_only_when_they_are_clear),
        cmocka_unit_test(test_bytes_and_time_that_are_expected),
        cmocka_unit_test(test_what_cbt_needs),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
