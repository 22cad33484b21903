/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What all parts of the state machine share while they handle one message or one timer: the ledger,
 * the rules, the time, and what is to be sent.
 *
 * Every handler runs inside a ledger transaction that the desk opened, reads the time from
 * `now_ms` only, and answers by adding to the outbox. So each is a plain function of (ledger,
 * message, now), and tests need no broker.
 *
 * Time: one number, milliseconds since 1970, that starts from the wall clock when the program
 * starts and then follows the monotonic clock, so that a step of the wall clock moves no deadline.
 *
 * Threads: one at a time.
 */
#pragma once

#include "coordinator/conf.h"
#include "coordinator/lease_table.h"
#include "coordinator/ledger/ledger.h"
#include "proto/wire/message.h"

/* Progress replies are not kept in the ledger: they are sent when the batch is committed, or never.
 */
struct fleeting {
    char *reply_to, *correlation_id, *body;
};

struct core_counters {
    uint64_t requests, refused, buried, events, stale_events, doubles;
    uint64_t offered, granted, denied, lost, ended;
};

struct core {
    struct ledger *ledger;
    const struct coordinator_conf *conf;
    struct lease_table *leases;
    int64_t now_ms;
    int64_t wall_ms; /* the wall clock, for people; nothing is decided by it */
    /* Since when the broker connection stands; -1 = it does not. Leases and workers are given their
     * full time from here on. */
    int64_t connected_ms;
    struct checkup *checkups; /* under way: checkup.h */
    bool metrics_failed;      /* the metrics file could not be written, and it was said */
    bool admission_due;       /* something happened that may let a waiting task run */
    struct fleeting *fleeting;
    size_t fleeting_count;
    struct core_counters counters;
};

/* Twice the worker's own time: its clock has surely run out when ours does. */
static inline int64_t core_lease_limit_ms(const struct core *core)
{
    return 2 * (int64_t)core->conf->lease_s * 1000;
}
