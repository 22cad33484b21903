/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A test bed for the coordinator's state machine: a desk on a ledger in a temporary folder, a clock
 * that moves only when told, and everything the desk sends, decoded, in order. No broker.
 *
 * Each call that feeds a message is one committed batch. Sent messages gather in `sent` until a
 * test takes them.
 */
#pragma once

/* clang-format off */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include "coordinator/desk.h"
#include "proto/base/id.h"
#include "proto/wire/topology.h"
#include "tests/unit/temp_dir.h"

/* Wire structs are one for both directions, so their strings are not const; encoding only reads. */
#define S(text) ((char *)(uintptr_t)(text))

struct sent {
    char *exchange, *key, *message_id, *correlation_id;
    struct wire_message m;
};

struct bed_clock {
    struct clock clock;
    int64_t mono_ms, wall_ms;
};

struct bed {
    struct temp_dir dir;
    char *ledger;
    struct coordinator_conf conf;
    struct conf_zone zones[8];
    int surplus, sweep_s;
    struct bed_clock clock;
    struct desk *desk;
    struct sent *sent;
    size_t count;
    int64_t seen_n;   /* of the outbox */
    bool keep_outbox; /* do not confirm what was sent */
};

/* Zones end with NULL. Connected, time at a fixed date. */
struct bed *bed_new(const char *zone, ...) __attribute__((sentinel));
void bed_free(struct bed *bed);
DEFINE_SCOPED(bed, bed_free);
/* Close the desk and the ledger, open them again, reconnect: a restart. */
void bed_restart(struct bed *bed);
/* From now on, in all beds: a restart after each message. Leases begin anew each time. */
void bed_restart_always(bool always);
void bed_wait(struct bed *bed, int64_t ms); /* time passes, then one turn */
void bed_turn(struct bed *bed);             /* one batch without messages */
void bed_commit(struct bed *bed);           /* end a batch that desk_begin() began */
void bed_gather(struct bed *bed);           /* see what was committed to the outbox */

struct bed_props {
    const char *message_id, *correlation_id, *reply_to, *type;
};
/* Feed raw text. */
enum desk_verdict bed_feed(struct bed *bed, bool is_request, const struct bed_props *props,
                           const char *body, struct err *why);
/* Feed a struct; it must be accepted (not buried). `reply_to` "replies" unless given. */
void bed_request(struct bed *bed, enum wire_type type, const void *message,
                 const struct bed_props *props);
void bed_event(struct bed *bed, enum wire_type type, const void *message, const char *message_id);

/* The oldest sent message of this type, taken off the list; fails the test when there is none. The
 * caller frees with sent_done(). */
struct sent bed_take(struct bed *bed, enum wire_type type);
/* The same by a routing key. */
struct sent bed_take_for(struct bed *bed, enum wire_type type, const char *key);
void sent_done(struct sent *s);
#define SCOPED_SENT __attribute__((cleanup(sent_done), unused))
size_t bed_count(const struct bed *bed, enum wire_type type);
void bed_drop(struct bed *bed); /* forget all that was sent */
void bed_drop_type(struct bed *bed, enum wire_type type);

/* --- A worker's part -------------------------------------------------------------------------- */
void bed_presence(struct bed *bed, const char *worker, const char *zone, int64_t slots);
void bed_presence_running(struct bed *bed, const char *worker, const char *zone, int64_t slots,
                          const struct wire_running *running, size_t count);
/* What a worker holds of a task. */
struct hold {
    char task[ID_BYTES], worker[64];
    int64_t attempt, fence, seq;
    char vm[256], kind[32];
};
/* Take the oldest offer. */
struct hold bed_offer(struct bed *bed);
/* Claim it; the grant is expected and its fence kept in `h`. */
void bed_claim(struct bed *bed, struct hold *h, const char *worker);
/* Claim it and expect a denial. */
void bed_claim_denied(struct bed *bed, const struct hold *h, const char *worker, int64_t fence);
/* One step event. `handles` are name, value pairs that end with NULL. */
void bed_step(struct bed *bed, struct hold *h, const char *step, const char *state, ...)
    __attribute__((sentinel));
void bed_copying(struct bed *bed, const struct hold *h, int64_t done, int64_t total);
/* A result without extras. */
void bed_result(struct bed *bed, const struct hold *h, const char *status);
void bed_fail(struct bed *bed, const struct hold *h, enum err_code code,
              const struct wire_leftovers *left);
/* Answer an inventory offer with VMs "vm-<first>".. named "name-<n>". */
void bed_inventory(struct bed *bed, struct hold *h, int first, int count);
/* A request for these names, or all when NULL; returns the request's id. */
void bed_backup(struct bed *bed, const char *name, char *ret_id);
/* A backup request of one VM whose selection is done: its offer. */
struct hold bed_backup_one(struct bed *bed, const char *worker, char *ret_request);

/* Whole-ledger checks: counters agree with tasks, one active task per VM. */
void bed_check(struct bed *bed);
