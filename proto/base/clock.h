/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Time, as a value that tests can replace. Decisions use monotonic time only; wall time is for
 * people and for timestamps in messages.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct clock;

struct clock_ops {
    int64_t (*mono_ms)(const struct clock *c); /* never goes back; no meaning across machines */
    int64_t (*wall_ms)(const struct clock *c); /* since 1970, UTC */
    void (*sleep_ms)(const struct clock *c, int64_t ms);
};

struct clock {
    const struct clock_ops *ops;
};

/* The machine's clock. Static, usable from any thread. */
const struct clock *clock_system(void);

static inline int64_t clock_mono_ms(const struct clock *c)
{
    return c->ops->mono_ms(c);
}
static inline int64_t clock_wall_ms(const struct clock *c)
{
    return c->ops->wall_ms(c);
}
/* For back-offs and polling only; never to synchronise threads. */
static inline void clock_sleep_ms(const struct clock *c, int64_t ms)
{
    c->ops->sleep_ms(c, ms);
}

enum { CLOCK_TEXT_BYTES = 32 };
/* "2026-11-28T20:06:00Z" of a wall time; `out` holds CLOCK_TEXT_BYTES. */
void clock_format_utc(int64_t wall_ms, char *out);

/* An exponential back-off with jitter. Start with BACKOFF(min, max). */
struct backoff {
    int64_t min_ms, max_ms;
    int64_t next_ms;
};
#define BACKOFF(min, max) ((struct backoff){.min_ms = (min), .max_ms = (max)})
/* The next wait: doubles from min to max, minus up to a quarter at random. */
int64_t backoff_next_ms(struct backoff *b);
void backoff_reset(struct backoff *b);
