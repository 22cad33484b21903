/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/copy/rate.h"

#include <pthread.h>
#include <string.h>
#include <time.h>

enum {
    DAY_MINUTES = 24 * 60,
    WINDOWS_MAX = 16,
    LOOK_MS = 200, /* for a stop, and for another hour */
    BURST_MS = 200,
    IDLE_MAX_MS = 10 * 1000, /* of idle time that is counted at all */
    PIECE_BYTES = 1 << 20,
};

struct window {
    int from, to; /* minutes of the day */
};

struct rule {
    uint64_t bytes_per_s;
    struct window windows[WINDOWS_MAX];
    size_t count; /* 0 = always */
};

struct bucket {
    char *key; /* NULL = the worker */
    struct rule *rules;
    size_t count;
    int64_t credit;  /* in bytes times 1000; below 0 it owes */
    int64_t seen_ms; /* when it was brought up to date */
};

struct rate_limits {
    const struct clock *clock;
    struct bucket *buckets;
    size_t count;
    pthread_mutex_t lock; /* guards the buckets' credit and seen_ms */
};

/* --- Hours ----------------------------------------------------------------------------------- */
/* "HH:MM" at `*at`, which moves behind it; -1 = something else. 24:00 is the day's end. */
static int parse_time(const char **at)
{
    const char *s = *at;
    for (int i = 0; i < 5; i++) {
        if (i == 2 ? s[i] != ':' : s[i] < '0' || s[i] > '9')
            return -1;
    }
    int hour = (s[0] - '0') * 10 + s[1] - '0', minute = (s[3] - '0') * 10 + s[4] - '0';
    *at += 5;
    return hour > 24 || minute > 59 || (hour == 24 && minute > 0) ? -1 : hour * 60 + minute;
}

static bool parse_hours(const char *hours, struct rule *rule, struct err *err)
{
    for (const char *at = hours;;) {
        if (rule->count == WINDOWS_MAX)
            return err_set(err, ERR_BAD_ARGUMENT, 0, "hours '%s': more than %d windows", hours,
                           WINDOWS_MAX);
        struct window w = {.from = parse_time(&at)};
        bool ok = w.from >= 0 && w.from < DAY_MINUTES && *at == '-';
        at += ok;
        w.to = ok ? parse_time(&at) : -1;
        if (w.to < 0 || (*at != ',' && *at != '\0'))
            return err_set(err, ERR_BAD_ARGUMENT, 0,
                           "hours '%s' must be HH:MM-HH:MM, or several of these with commas "
                           "between them",
                           hours);
        rule->windows[rule->count++] = w;
        if (*at++ == '\0')
            return true;
    }
}

static bool holds(const struct rule *rule, int minute)
{
    for (size_t i = 0; i < rule->count; i++) {
        const struct window *w = &rule->windows[i];
        bool in = w->from < w->to ? minute >= w->from && minute < w->to
                                  : minute >= w->from || minute < w->to;
        if (in)
            return true;
    }
    return rule->count == 0;
}

static int minute_of_day(const struct clock *clock)
{
    time_t now = (time_t)(clock_wall_ms(clock) / 1000);
    struct tm local = {0};
    if (!localtime_r(&now, &local))
        return 0;
    return local.tm_hour * 60 + local.tm_min;
}

/* The smallest that holds; 0 = none does. */
static uint64_t rate_at(const struct bucket *b, int minute)
{
    uint64_t rate = 0;
    for (size_t i = 0; i < b->count; i++) {
        if (holds(&b->rules[i], minute) && (rate == 0 || b->rules[i].bytes_per_s < rate))
            rate = b->rules[i].bytes_per_s;
    }
    return rate;
}

/* --- Making ---------------------------------------------------------------------------------- */
static struct bucket *bucket_of(struct rate_limits *l, const char *key)
{
    for (size_t i = 0; i < l->count; i++) {
        const char *have = l->buckets[i].key;
        if (key ? have && strcmp(have, key) == 0 : !have)
            return &l->buckets[i];
    }
    l->buckets = xreallocarray(l->buckets, l->count + 1, sizeof *l->buckets);
    l->buckets[l->count] =
        (struct bucket){.key = xstrdup_or_null(key), .seen_ms = clock_mono_ms(l->clock)};
    return &l->buckets[l->count++];
}

struct rate_limits *rate_limits_new(const struct rate_rule *rules, size_t count,
                                    const struct clock *clock, struct err *err)
{
    SCOPED(rate_limits) struct rate_limits *l = ALLOC_NEW(struct rate_limits);
    l->clock = clock;
    pthread_mutex_init(&l->lock, NULL);
    for (size_t i = 0; i < count; i++) {
        struct rule rule = {.bytes_per_s = rules[i].bytes_per_s};
        if (rules[i].hours && !parse_hours(rules[i].hours, &rule, err))
            return NULL;
        struct bucket *b = bucket_of(l, rules[i].storage_domain);
        b->rules = xreallocarray(b->rules, b->count + 1, sizeof *b->rules);
        b->rules[b->count++] = rule;
    }
    return TAKE(l);
}

void rate_limits_free(struct rate_limits *l)
{
    if (!l)
        return;
    for (size_t i = 0; i < l->count; i++) {
        free(l->buckets[i].key);
        free(l->buckets[i].rules);
    }
    free(l->buckets);
    pthread_mutex_destroy(&l->lock);
    free(l);
}

/* --- Passing --------------------------------------------------------------------------------- */
static bool is_meant(const struct rate_gate *gate, const struct bucket *b)
{
    return !b->key || (gate->domain_id && strcmp(b->key, gate->domain_id) == 0) ||
           (gate->domain_name && strcmp(b->key, gate->domain_name) == 0);
}

bool rate_concerns(const struct rate_gate *gate)
{
    for (size_t i = 0; gate->limits && i < gate->limits->count; i++) {
        if (is_meant(gate, &gate->limits->buckets[i]))
            return true;
    }
    return false;
}

/* With the lock held. How long until it owes nothing; 0 = it does not now, or nothing is limited.
 */
static int64_t bring_up_to_date(struct bucket *b, uint64_t rate, int64_t now_ms)
{
    int64_t past_ms = now_ms - b->seen_ms;
    b->seen_ms = now_ms;
    if (rate == 0) { /* what was owed to another hour is forgotten */
        b->credit = 0;
        return 0;
    }
    int64_t most = (int64_t)rate * BURST_MS;
    b->credit += (int64_t)rate * (past_ms < IDLE_MAX_MS ? past_ms : IDLE_MAX_MS);
    if (b->credit > most)
        b->credit = most;
    return b->credit >= 0 ? 0 : -b->credit / (int64_t)rate + 1;
}

/* 0 = the bytes have passed; else how long to wait before the next try. */
static int64_t try_pass(const struct rate_gate *gate, uint64_t bytes)
{
    struct rate_limits *l = gate->limits;
    int minute = minute_of_day(l->clock);
    int64_t wait_ms = 0;
    pthread_mutex_lock(&l->lock);
    int64_t now_ms = clock_mono_ms(l->clock);
    for (size_t i = 0; i < l->count; i++) {
        struct bucket *b = &l->buckets[i];
        int64_t ms = is_meant(gate, b) ? bring_up_to_date(b, rate_at(b, minute), now_ms) : 0;
        wait_ms = ms > wait_ms ? ms : wait_ms;
    }
    for (size_t i = 0; wait_ms == 0 && i < l->count; i++) {
        struct bucket *b = &l->buckets[i];
        if (is_meant(gate, b) && rate_at(b, minute) > 0)
            b->credit -= (int64_t)bytes * 1000;
    }
    pthread_mutex_unlock(&l->lock);
    return wait_ms;
}

bool rate_pass(const struct rate_gate *gate, uint64_t bytes, struct err *err)
{
    if (!gate->limits)
        return true;
    for (;;) {
        if (gate->stopped && gate->stopped(gate->ctx))
            return err_set(err, ERR_CANCELLED, 0, "stopped while waiting for bandwidth");
        int64_t wait_ms = try_pass(gate, bytes);
        if (wait_ms == 0)
            return true;
        clock_sleep_ms(gate->limits->clock, wait_ms < LOOK_MS ? wait_ms : LOOK_MS);
    }
}

/* --- A source behind a gate ------------------------------------------------------------------ */
struct source_limited {
    struct source base;
    struct source *inner;
    struct rate_gate gate;
};

static bool limited_extents(struct source *source, uint64_t offset, uint64_t len,
                            struct extents *out, struct err *err)
{
    struct source *inner = ((struct source_limited *)source)->inner;
    return inner->ops->extents(inner, offset, len, out, err);
}

static bool limited_pread(struct source *source, void *buf, size_t len, uint64_t offset,
                          struct err *err)
{
    struct source_limited *s = (struct source_limited *)source;
    for (size_t at = 0; at < len; at += PIECE_BYTES) {
        size_t part = len - at < PIECE_BYTES ? len - at : PIECE_BYTES;
        if (!rate_pass(&s->gate, part, err) ||
            !s->inner->ops->pread(s->inner, (uint8_t *)buf + at, part, offset + at, err))
            return false;
    }
    return true;
}

static void limited_close(struct source *source)
{
    struct source_limited *s = (struct source_limited *)source;
    source_close(s->inner);
    free(s);
}

struct source *source_limited_open(struct source *inner, const struct rate_gate *gate)
{
    static const struct source_ops ops = {
        .extents = limited_extents, .pread = limited_pread, .close = limited_close};
    if (!inner || !rate_concerns(gate))
        return inner;
    struct source_limited *s = ALLOC_NEW(struct source_limited);
    s->base = *inner;
    s->base.ops = &ops;
    s->inner = inner;
    s->gate = *gate;
    return &s->base;
}

/* --- A target behind a gate ------------------------------------------------------------------ */
struct target_limited {
    struct target base;
    struct target *inner;
    struct rate_gate gate;
};

static bool limited_pwrite(struct target *target, const void *buf, size_t len, uint64_t offset,
                           struct err *err)
{
    struct target_limited *t = (struct target_limited *)target;
    for (size_t at = 0; at < len; at += PIECE_BYTES) {
        size_t part = len - at < PIECE_BYTES ? len - at : PIECE_BYTES;
        if (!rate_pass(&t->gate, part, err) ||
            !t->inner->ops->pwrite(t->inner, (const uint8_t *)buf + at, part, offset + at, err))
            return false;
    }
    return true;
}

static void limited_expect(struct target *target, uint64_t data_bytes, uint64_t pieces)
{
    struct target *inner = ((struct target_limited *)target)->inner;
    if (inner->ops->expect)
        inner->ops->expect(inner, data_bytes, pieces);
    target->takes_pieces = inner->takes_pieces;
    target->waits = inner->waits;
}

static bool limited_reserve(struct target *target, uint64_t offset, uint64_t len, struct err *err)
{
    struct target *inner = ((struct target_limited *)target)->inner;
    return !inner->ops->reserve || inner->ops->reserve(inner, offset, len, err);
}

static bool limited_zero(struct target *target, uint64_t offset, uint64_t len, struct err *err)
{
    struct target *inner = ((struct target_limited *)target)->inner;
    return inner->ops->zero(inner, offset, len, err);
}

static bool limited_flush(struct target *target, struct err *err)
{
    struct target *inner = ((struct target_limited *)target)->inner;
    return inner->ops->flush(inner, err);
}

static void limited_fail(struct target *target)
{
    struct target *inner = ((struct target_limited *)target)->inner;
    if (inner->ops->fail)
        inner->ops->fail(inner);
}

static void limited_close_target(struct target *target)
{
    struct target_limited *t = (struct target_limited *)target;
    target_close(t->inner);
    free(t);
}

struct target *target_limited_open(struct target *inner, const struct rate_gate *gate)
{
    static const struct target_ops ops = {.pwrite = limited_pwrite,
                                          .expect = limited_expect,
                                          .reserve = limited_reserve,
                                          .zero = limited_zero,
                                          .flush = limited_flush,
                                          .fail = limited_fail,
                                          .close = limited_close_target};
    if (!inner || !rate_concerns(gate))
        return inner;
    struct target_limited *t = ALLOC_NEW(struct target_limited);
    t->base = *inner;
    t->base.ops = &ops;
    t->inner = inner;
    t->gate = *gate;
    return &t->base;
}
