/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which restore points a policy keeps. Pure: no I/O, no clock. "Hourly 24" keeps the newest good
 * point of each of the last 24 hours that have one, and so on; what several rules keep is kept
 * once. The newest good point of a VM and protected points are always kept.
 *
 * Times are those the writers wrote down: they choose which points are kept, never whether
 * something may be removed that is in use.
 *
 * Threads: reentrant.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/base/err.h"

enum { RETENTION_MAX = 100000 }; /* of each rule */

enum retention_rule {
    RETENTION_LAST, /* the newest n points */
    RETENTION_HOURLY,
    RETENTION_DAILY,
    RETENTION_WEEKLY, /* weeks begin on Monday */
    RETENTION_MONTHLY,
    RETENTION_YEARLY,
    RETENTION_RULES
};
extern const char *const retention_rule_names[RETENTION_RULES]; /* "last", "hourly", ... */

enum retention_zone { ZONE_UTC, ZONE_OFFSET, ZONE_LOCAL };

struct retention_policy {
    unsigned keep[RETENTION_RULES]; /* 0 = the rule keeps nothing */
    enum retention_zone zone;
    int offset_minutes; /* ZONE_OFFSET: east of UTC */
};

/* "UTC", "+02:00", "-0330", or "local": the zone of this process. bad-argument otherwise. */
bool retention_zone_parse(const char *text, struct retention_policy *policy, struct err *err);
/* The zone in words, of a policy; `out` has RETENTION_ZONE_BYTES. */
enum { RETENTION_ZONE_BYTES = 48 };
void retention_zone_text(const struct retention_policy *policy, char *out);
/* bad-argument: a policy by which no rule keeps anything, or a number beyond RETENTION_MAX. */
bool retention_check(const struct retention_policy *policy, struct err *err);

/* Why a point is kept: bit r for rule r, and these. None: it is not kept. */
enum {
    KEPT_LAST_GOOD = 1u << 8,
    KEPT_PROTECTED = 1u << 9,
    KEPT_UNKNOWN_VM = 1u << 10, /* damaged so that nobody can say whose it is */
};

struct retention_point {
    const char *vm_id; /* "" = not known */
    const char *id;    /* breaks ties of time */
    int64_t time_ms;
    bool is_good; /* false: damaged. Such a point takes no good one's place */
    bool is_protected;
    unsigned kept; /* out */
};

/* Decide about all points, of any number of VMs, in any order. */
void retention_decide(const struct retention_policy *policy, struct retention_point *points,
                      size_t n);
/* "daily 3, last good": for people. `out` has RETENTION_WHY_BYTES. */
enum { RETENTION_WHY_BYTES = 128 };
void retention_why(unsigned kept, char *out);
