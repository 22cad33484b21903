/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Limits of bandwidth: one token bucket for the whole worker and one for each storage domain that a
 * rule names. All streams of a worker share them. A rule may hold at some hours of the day only; of
 * several that hold at once for the same bucket, the smallest counts.
 *
 * A bucket lets a piece pass while it owes nothing, and then owes the piece: so a rate that changes
 * with the hour counts at once, and whoever gives up while it waits leaves nothing behind. What
 * comes in bursts after a pause is at most a fifth of a second's worth.
 *
 * Threads: rate_limits and gates are for any number of threads at once; a lock inside guards the
 * buckets and is never held while waiting.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "proto/base/alloc.h"
#include "proto/base/clock.h"
#include "proto/base/err.h"
#include "worker/copy/copy.h"

struct rate_rule {
    const char *storage_domain; /* id or name; NULL = all that the worker reads and writes */
    uint64_t bytes_per_s;       /* not 0 */
    const char *hours; /* "08:00-12:00,13:00-18:00" of local time, an end at or before its beginning
                          is on the next day; NULL = always */
};

struct rate_limits;

/* Strings are copied; `clock` is borrowed. Errors: bad-argument for hours that cannot be read. */
struct rate_limits *rate_limits_new(const struct rate_rule *rules, size_t count,
                                    const struct clock *clock, struct err *err);
void rate_limits_free(struct rate_limits *limits);
DEFINE_SCOPED(rate_limits, rate_limits_free);

/* Where a stream passes. */
struct rate_gate {
    struct rate_limits *limits;          /* borrowed; NULL = nothing is limited */
    const char *domain_id, *domain_name; /* borrowed; NULL = not known */
    /* Asked several times a second while it waits; true ends the wait with `cancelled`. NULL =
     * never. Any thread. */
    bool (*stopped)(void *ctx);
    void *ctx;
};

/* Wait until so many bytes may pass. */
bool rate_pass(const struct rate_gate *gate, uint64_t bytes, struct err *err);
/* Whether any rule can ever hold for this gate. */
bool rate_concerns(const struct rate_gate *gate);

/* The same source or target, behind a gate; takes over what it is given. Without a rule for it,
 * that is given back unchanged. */
struct source *source_limited_open(struct source *inner, const struct rate_gate *gate);
struct target *target_limited_open(struct target *inner, const struct rate_gate *gate);
