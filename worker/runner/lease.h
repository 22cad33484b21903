/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The lease of one run: may it still change something?
 *
 * Valid until `lease_ms` after the last renewing message was SENT, once the broker has confirmed
 * it; by our own monotonic clock. A lease that went stale is not renewed by confirmations any more:
 * the broker took the message, but nobody knows whether the coordinator gave the task away
 * meanwhile. Only a grant revives it, and a denial ends it for good.
 *
 * Mutations also wait for the confirmation of handles that were published ahead, so that no thing
 * in the engine is unknown to the coordinator when the next one is made.
 *
 * Threads: any. Lock: one mutex inside, taken alone.
 */
#pragma once

#include "proto/base/alloc.h"
#include "proto/base/clock.h"
#include "proto/base/err.h"

struct lease;

struct lease_opts {
    const struct clock *clock;
    int64_t lease_ms;
    int64_t outage_ms; /* longest wait for a lost broker or coordinator */
    /* Called (with no lock held, from the thread of lease_wait or lease_is_lost) when the lease is
     * stale and should be confirmed by a claim with the fence. */
    void (*ask)(void *ctx);
    void *ctx;
};

/* Valid from `sent_ms` on: when the granted claim was sent. */
struct lease *lease_new(const struct lease_opts *opts, int64_t sent_ms);
void lease_free(struct lease *l);
DEFINE_SCOPED(lease, lease_free);

/* A renewing message sent at `sent_ms` has been confirmed by the broker. */
void lease_confirmed(struct lease *l, int64_t sent_ms);
/* The coordinator granted a claim, sent at `sent_ms`, again. */
void lease_granted(struct lease *l, int64_t sent_ms);
/* The coordinator says the task is not ours. Final. */
void lease_denied(struct lease *l);
void lease_set_connected(struct lease *l, bool connected);
/* From now on wait for a lost broker or coordinator no longer than this. */
void lease_limit_outage(struct lease *l, int64_t outage_ms);

/* A handle was published ahead / one such message was confirmed. */
void lease_ahead_sent(struct lease *l);
void lease_ahead_confirmed(struct lease *l);

/* Asks about a stale lease, and does not wait for the answer: so a run that only copies learns,
 * too, that it has been given up. */
bool lease_is_lost(struct lease *l);

enum lease_state { LEASE_VALID, LEASE_PENDING, LEASE_LOST };
/* Whether a mutation may happen; waits up to `wait_ms` for that. PENDING: call again. LOST: err is
 * set to lease-lost. Gives up (LOST) when the broker or the coordinator was away for outage_ms. */
enum lease_state lease_wait(struct lease *l, int64_t wait_ms, struct err *err);
