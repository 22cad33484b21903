/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/base/clock.h"

#include <errno.h>
#include <stdio.h>
#include <sys/random.h>
#include <time.h>

static int64_t read_ms(clockid_t id)
{
    struct timespec ts;
    clock_gettime(id, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static int64_t system_mono_ms(const struct clock *c)
{
    (void)c;
    /* BOOTTIME, not MONOTONIC: a proxy that was suspended must see that its lease has passed. */
    return read_ms(CLOCK_BOOTTIME);
}

static int64_t system_wall_ms(const struct clock *c)
{
    (void)c;
    return read_ms(CLOCK_REALTIME);
}

static void system_sleep_ms(const struct clock *c, int64_t ms)
{
    (void)c;
    struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = (ms % 1000) * 1000000};
    while (nanosleep(&ts, &ts) != 0 && errno == EINTR)
        ;
}

const struct clock *clock_system(void)
{
    static const struct clock_ops ops = {
        .mono_ms = system_mono_ms,
        .wall_ms = system_wall_ms,
        .sleep_ms = system_sleep_ms,
    };
    static const struct clock system_clock = {.ops = &ops};
    return &system_clock;
}

void clock_format_utc(int64_t wall_ms, char *out)
{
    time_t seconds = (time_t)(wall_ms / 1000);
    struct tm tm;
    gmtime_r(&seconds, &tm);
    if (strftime(out, CLOCK_TEXT_BYTES, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
        out[0] = '\0';
}

int64_t backoff_next_ms(struct backoff *b)
{
    int64_t wait = b->next_ms ? b->next_ms : b->min_ms;
    b->next_ms = wait * 2 > b->max_ms ? b->max_ms : wait * 2;
    uint32_t r = 0;
    if (getrandom(&r, sizeof r, 0) != sizeof r)
        r = 0;
    return wait - (int64_t)(r % (uint32_t)(wait / 4 + 1));
}

void backoff_reset(struct backoff *b)
{
    b->next_ms = 0;
}
