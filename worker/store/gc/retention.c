/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/store/gc/retention.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "proto/base/alloc.h"

const char *const retention_rule_names[RETENTION_RULES] = {"last",   "hourly",  "daily",
                                                           "weekly", "monthly", "yearly"};

enum { MINUTES_MAX = 14 * 60, DAY_S = 86400 };

/* ---- zones */

static int two_digits(const char *at)
{
    bool are = at[0] >= '0' && at[0] <= '9' && at[1] >= '0' && at[1] <= '9';
    return are ? (at[0] - '0') * 10 + at[1] - '0' : -1;
}

/* "+02:00" or "+0200": minutes east of UTC. */
static bool parse_offset(const char *text, int *ret_minutes)
{
    if (text[0] != '+' && text[0] != '-')
        return false;
    int hours = two_digits(text + 1);
    const char *at = hours < 0 ? text : text + 3 + (text[3] == ':');
    int minutes = hours < 0 ? -1 : two_digits(at);
    if (minutes < 0 || minutes > 59 || at[2] != '\0' || hours * 60 + minutes > MINUTES_MAX)
        return false;
    *ret_minutes = (hours * 60 + minutes) * (text[0] == '-' ? -1 : 1);
    return true;
}

bool retention_zone_parse(const char *text, struct retention_policy *policy, struct err *err)
{
    if (strcmp(text, "UTC") == 0) {
        policy->zone = ZONE_UTC;
        return true;
    }
    if (strcmp(text, "local") == 0) {
        policy->zone = ZONE_LOCAL;
        return true;
    }
    if (parse_offset(text, &policy->offset_minutes)) {
        policy->zone = ZONE_OFFSET;
        return true;
    }
    return err_set(err, ERR_BAD_ARGUMENT, 0,
                   "'%.40s' is no time zone: UTC, local, or an offset such as +02:00", text);
}

void retention_zone_text(const struct retention_policy *policy, char *out)
{
    int m = policy->offset_minutes;
    switch (policy->zone) {
    case ZONE_UTC:
        (void)snprintf(out, RETENTION_ZONE_BYTES, "UTC");
        return;
    case ZONE_LOCAL:
        (void)snprintf(out, RETENTION_ZONE_BYTES, "local (%.20s)", tzname[0]);
        return;
    case ZONE_OFFSET:
        break;
    }
    (void)snprintf(out, RETENTION_ZONE_BYTES, "%c%02d:%02d", m < 0 ? '-' : '+', abs(m) / 60 % 100,
                   abs(m) % 60);
}

static int64_t floor_div(int64_t a, int64_t b)
{
    return a / b - (a % b < 0);
}

/* Seconds of the wall clock of the zone, as if it were UTC. */
static int64_t wall_seconds(const struct retention_policy *policy, int64_t time_ms)
{
    int64_t s = floor_div(time_ms, 1000);
    if (policy->zone == ZONE_OFFSET)
        return s + (int64_t)policy->offset_minutes * 60;
    struct tm tm;
    time_t t = (time_t)s;
    if (policy->zone == ZONE_LOCAL && localtime_r(&t, &tm))
        return s + tm.tm_gmtoff;
    return s;
}

/* A number that is the same for all times of one period of the rule. */
static int64_t period_of(enum retention_rule rule, int64_t wall_s)
{
    struct tm tm;
    time_t t = (time_t)wall_s;
    int64_t day = floor_div(wall_s, DAY_S);
    if (!gmtime_r(&t, &tm))
        return day; /* no calendar goes that far */
    switch (rule) {
    case RETENTION_HOURLY:
        return floor_div(wall_s, 3600);
    case RETENTION_WEEKLY:
        return floor_div(day + 3, 7); /* 1970-01-01 was a Thursday */
    case RETENTION_MONTHLY:
        return (int64_t)tm.tm_year * 12 + tm.tm_mon;
    case RETENTION_YEARLY:
        return tm.tm_year;
    case RETENTION_DAILY:
    case RETENTION_LAST:
    case RETENTION_RULES:
        break;
    }
    return day;
}

/* ---- deciding */

bool retention_check(const struct retention_policy *policy, struct err *err)
{
    unsigned any = 0;
    for (int r = 0; r < RETENTION_RULES; r++) {
        any |= policy->keep[r];
        if (policy->keep[r] > RETENTION_MAX)
            return err_set(err, ERR_BAD_ARGUMENT, 0, "keep %s: %u is more than %d",
                           retention_rule_names[r], policy->keep[r], RETENTION_MAX);
    }
    return any != 0 ||
           err_set(err, ERR_BAD_ARGUMENT, 0, "the policy has no rule that keeps anything");
}

/* By VM, then newest first. */
static int compare_points(const void *a, const void *b)
{
    const struct retention_point *x = *(struct retention_point *const *)a;
    const struct retention_point *y = *(struct retention_point *const *)b;
    int vm = strcmp(x->vm_id, y->vm_id);
    if (vm != 0)
        return vm;
    if (x->time_ms != y->time_ms)
        return x->time_ms > y->time_ms ? -1 : 1;
    return strcmp(y->id, x->id);
}

/* One rule over the points of a VM, newest first. Damaged points are passed over, or, when they are
 * what is asked about, counted like the others; only they get the bit then. */
static void apply_rule(const struct retention_policy *policy, enum retention_rule rule,
                       struct retention_point **points, size_t n, bool for_damaged)
{
    unsigned left = policy->keep[rule];
    bool have_period = false;
    int64_t last = 0;
    for (size_t i = 0; i < n && left > 0; i++) {
        struct retention_point *p = points[i];
        if (!p->is_good && !for_damaged)
            continue;
        int64_t period = period_of(rule, wall_seconds(policy, p->time_ms));
        if (rule != RETENTION_LAST && have_period && period == last)
            continue;
        have_period = true;
        last = period;
        left--;
        if (p->is_good != for_damaged)
            p->kept |= 1u << rule;
    }
}

static void decide_vm(const struct retention_policy *policy, struct retention_point **points,
                      size_t n)
{
    for (int r = 0; r < RETENTION_RULES; r++) {
        apply_rule(policy, (enum retention_rule)r, points, n, false);
        apply_rule(policy, (enum retention_rule)r, points, n, true);
    }
    bool have_good = false;
    for (size_t i = 0; i < n; i++) {
        if (points[i]->is_good && !have_good) {
            points[i]->kept |= KEPT_LAST_GOOD;
            have_good = true;
        }
        if (points[i]->is_protected)
            points[i]->kept |= KEPT_PROTECTED;
        if (points[i]->vm_id[0] == '\0')
            points[i]->kept |= KEPT_UNKNOWN_VM;
    }
}

void retention_decide(const struct retention_policy *policy, struct retention_point *points,
                      size_t n)
{
    SCOPED_FREE struct retention_point **sorted = xcalloc(n + 1, sizeof *sorted);
    for (size_t i = 0; i < n; i++) {
        sorted[i] = &points[i];
        points[i].kept = 0;
    }
    qsort(sorted, n, sizeof *sorted, compare_points);
    for (size_t begin = 0, end; begin < n; begin = end) {
        end = begin + 1;
        while (end < n && strcmp(sorted[end]->vm_id, sorted[begin]->vm_id) == 0)
            end++;
        decide_vm(policy, sorted + begin, end - begin);
    }
}

void retention_why(unsigned kept, char *out)
{
    size_t len = 0;
    out[0] = '\0';
    for (unsigned bit = 0; bit < 11; bit++) {
        const char *word = bit < RETENTION_RULES          ? retention_rule_names[bit]
                           : 1u << bit == KEPT_LAST_GOOD  ? "last good"
                           : 1u << bit == KEPT_PROTECTED  ? "protected"
                           : 1u << bit == KEPT_UNKNOWN_VM ? "VM not known"
                                                          : NULL;
        if (word && (kept & 1u << bit) && len < RETENTION_WHY_BYTES)
            len += (size_t)snprintf(out + len, RETENTION_WHY_BYTES - len, "%s%s", len ? ", " : "",
                                    word);
    }
}
