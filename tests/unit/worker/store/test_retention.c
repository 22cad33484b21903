/* SPDX-License-Identifier: Apache-2.0 */
/* Which points a policy keeps: known calendars, and properties of random ones. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "support.h"
#include "worker/store/gc/retention.h"

static int64_t at(int year, int month, int day, int hour, int minute)
{
    struct tm tm = {.tm_year = year - 1900,
                    .tm_mon = month - 1,
                    .tm_mday = day,
                    .tm_hour = hour,
                    .tm_min = minute};
    return (int64_t)timegm(&tm) * 1000;
}

static struct retention_point point(const char *vm, const char *id, int64_t time_ms)
{
    return (struct retention_point){.vm_id = vm, .id = id, .time_ms = time_ms, .is_good = true};
}

/* "k" for each kept point, "." for the others. */
static const char *decide(const struct retention_policy *policy, struct retention_point *p,
                          size_t n)
{
    static char out[64];
    retention_decide(policy, p, n);
    for (size_t i = 0; i < n; i++)
        out[i] = p[i].kept ? 'k' : '.';
    out[n] = '\0';
    return out;
}

static void test_last(void **state)
{
    (void)state;
    struct retention_policy policy = {.keep[RETENTION_LAST] = 2};
    struct retention_point p[] = {point("a", "1", 10), point("a", "2", 20), point("b", "3", 5),
                                  point("a", "4", 30), point("a", "5", 30)};
    assert_string_equal(decide(&policy, p, 5), "..kkk");
    p[3].is_good = false; /* takes nobody's place; it would have been kept by itself */
    assert_string_equal(decide(&policy, p, 5), ".kkkk");
    p[0].is_protected = true;
    assert_string_equal(decide(&policy, p, 5), "kkkkk");
}

static void test_calendar(void **state)
{
    (void)state;
    struct retention_point p[] = {
        point("a", "0", at(2023, 12, 31, 23, 0)), /* a Sunday */
        point("a", "1", at(2024, 1, 1, 1, 0)),    /* a Monday */
        point("a", "2", at(2024, 1, 1, 13, 10)),  point("a", "3", at(2024, 1, 1, 13, 50)),
        point("a", "4", at(2024, 1, 7, 23, 59)), /* the Sunday of that week */
        point("a", "5", at(2024, 1, 8, 0, 0)),    point("a", "6", at(2024, 2, 29, 12, 0)),
    };
    enum { N = 7 };
    struct retention_policy policy = {.keep[RETENTION_YEARLY] = 2};
    assert_string_equal(decide(&policy, p, N), "k.....k");
    policy = (struct retention_policy){.keep[RETENTION_MONTHLY] = 2};
    assert_string_equal(decide(&policy, p, N), ".....kk");
    policy = (struct retention_policy){.keep[RETENTION_WEEKLY] = 4};
    assert_string_equal(decide(&policy, p, N), "k...kkk");
    policy = (struct retention_policy){.keep[RETENTION_DAILY] = 4};
    assert_string_equal(decide(&policy, p, N), "...kkkk");
    policy = (struct retention_policy){.keep[RETENTION_HOURLY] = 5};
    assert_string_equal(decide(&policy, p, N), ".k.kkkk");
    char why[RETENTION_WHY_BYTES];
    policy = (struct retention_policy){.keep = {1, 0, 1}};
    (void)decide(&policy, p, N);
    retention_why(p[6].kept, why);
    assert_string_equal(why, "last, daily, last good");
    retention_why(p[0].kept, why);
    assert_string_equal(why, "");
}

static void test_zones(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct retention_point p[] = {point("a", "0", at(2024, 1, 1, 21, 0)),
                                  point("a", "1", at(2024, 1, 1, 23, 0)),
                                  point("a", "2", at(2024, 1, 2, 1, 0))};
    struct retention_policy policy = {.keep[RETENTION_DAILY] = 9};
    char zone[RETENTION_ZONE_BYTES];
    assert_string_equal(decide(&policy, p, 3), ".kk");
    MUST(retention_zone_parse("+02:00", &policy, &err), &err);
    assert_string_equal(decide(&policy, p, 3), "k.k"); /* 23:00, 01:00 and 03:00 there */
    retention_zone_text(&policy, zone);
    assert_string_equal(zone, "+02:00");
    MUST(retention_zone_parse("-0330", &policy, &err), &err);
    assert_int_equal(policy.offset_minutes, -210);
    retention_zone_text(&policy, zone);
    assert_string_equal(zone, "-03:30");
    assert_string_equal(decide(&policy, p, 3), "..k");
    setenv("TZ", "EST5", 1);
    tzset();
    MUST(retention_zone_parse("local", &policy, &err), &err);
    assert_string_equal(decide(&policy, p, 3), "..k");
    MUST(retention_zone_parse("UTC", &policy, &err), &err);
    assert_string_equal(decide(&policy, p, 3), ".kk");
    static const char *const bad[] = {"",       "utc",   "+2",           "+25:00",
                                      "+02:60", "02:00", "Europe/Berlin"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        MUST_FAIL(retention_zone_parse(bad[i], &policy, &err), &err, ERR_BAD_ARGUMENT);
}

static void test_policies_that_keep_nothing_are_refused(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct retention_policy policy = {0};
    MUST_FAIL(retention_check(&policy, &err), &err, ERR_BAD_ARGUMENT);
    policy.keep[RETENTION_DAILY] = RETENTION_MAX + 1;
    MUST_FAIL(retention_check(&policy, &err), &err, ERR_BAD_ARGUMENT);
    policy.keep[RETENTION_DAILY] = RETENTION_MAX;
    MUST(retention_check(&policy, &err), &err);
}

/* ---- properties */

enum { RANDOM_POINTS = 40 };

/* How many distinct values of time / unit the kept-by-rule points have must be min(rule, distinct),
 * and each is the newest good one of its period, and no newer period with a good point is left out.
 */
static void check_days(const struct retention_point *p, size_t n, const char *vm, unsigned keep)
{
    int64_t newest_left_out = INT64_MIN, oldest_kept = INT64_MAX;
    unsigned kept = 0;
    for (size_t i = 0; i < n; i++) {
        if (strcmp(p[i].vm_id, vm) != 0 || !p[i].is_good)
            continue;
        int64_t day = p[i].time_ms / 86400000;
        bool is_newest = true, day_has_kept = false;
        for (size_t k = 0; k < n; k++) {
            if (strcmp(p[k].vm_id, vm) != 0 || !p[k].is_good || p[k].time_ms / 86400000 != day)
                continue;
            is_newest =
                is_newest && (p[k].time_ms < p[i].time_ms ||
                              (p[k].time_ms == p[i].time_ms && strcmp(p[k].id, p[i].id) <= 0));
            day_has_kept = day_has_kept || (p[k].kept & 1u << RETENTION_DAILY);
        }
        if (p[i].kept & 1u << RETENTION_DAILY) {
            assert_true(is_newest);
            kept++;
            oldest_kept = day < oldest_kept ? day : oldest_kept;
        } else if (!day_has_kept) {
            newest_left_out = day > newest_left_out ? day : newest_left_out;
        }
    }
    assert_true(kept <= keep);
    if (newest_left_out != INT64_MIN) {
        assert_int_equal(kept, keep);
        assert_true(newest_left_out < oldest_kept || kept == 0);
    }
}

static void test_random_calendars(void **state)
{
    (void)state;
    static const char *const vms[] = {"a", "b", ""};
    uint64_t seed = 7;
    for (int round = 0; round < 2000; round++) {
        struct retention_point p[RANDOM_POINTS];
        char ids[RANDOM_POINTS][8];
        size_t n = random_next(&seed) % (RANDOM_POINTS + 1);
        for (size_t i = 0; i < n; i++) {
            (void)snprintf(ids[i], sizeof ids[i], "p%zu", i);
            p[i] = point(vms[random_next(&seed) % 3], ids[i],
                         (int64_t)(random_next(&seed) % (20ull * 86400000)));
            p[i].is_good = random_next(&seed) % 5 != 0;
            p[i].is_protected = random_next(&seed) % 10 == 0;
        }
        struct retention_policy policy = {0};
        for (int r = 0; r < RETENTION_RULES; r++)
            policy.keep[r] = (unsigned)(random_next(&seed) % 4);
        retention_decide(&policy, p, n);
        bool has_good[2] = {false}, keeps_good[2] = {false};
        for (size_t i = 0; i < n; i++) {
            int vm = p[i].vm_id[0] == 'a' ? 0 : p[i].vm_id[0] == 'b' ? 1 : -1;
            assert_true(vm >= 0 || p[i].kept);
            assert_true(!p[i].is_protected || p[i].kept);
            if (vm >= 0 && p[i].is_good) {
                has_good[vm] = true;
                keeps_good[vm] = keeps_good[vm] || p[i].kept;
            }
        }
        for (int vm = 0; vm < 2; vm++) {
            assert_true(!has_good[vm] || keeps_good[vm]);
            check_days(p, n, vms[vm], policy.keep[RETENTION_DAILY]);
        }
        /* What a run keeps, the next run keeps: pruning twice is pruning once. */
        struct retention_point again[RANDOM_POINTS];
        size_t m = 0;
        for (size_t i = 0; i < n; i++)
            if (p[i].kept)
                again[m++] = p[i];
        retention_decide(&policy, again, m);
        for (size_t i = 0; i < m; i++)
            assert_true(again[i].kept != 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_last),
        cmocka_unit_test(test_calendar),
        cmocka_unit_test(test_zones),
        cmocka_unit_test(test_policies_that_keep_nothing_are_refused),
        cmocka_unit_test(test_random_calendars),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
