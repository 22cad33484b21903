/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One request from its sending to its end, as a state machine without I/O: told what happened
 * (connected, lost, confirmed, a reply, time passed), it publishes through a callback and tells its
 * owner what came back. request.c joins it to the broker; tests drive it by hand.
 *
 * The reply queue dies with the connection, and the replies in it. So after a reconnect:
 *
 * A query (list, inventory, status, cancel: the same again does no harm) is sent again under a new
 * id, and its pages are gathered anew.
 *
 * For a job (backup, restore) its `status` is asked. When the ledger knows it, the very same
 * message is sent once more: from the new reply queue it starts no second job, but has everything
 * told again. Until that is answered, status requests go on; they, too, tell the outcomes and the
 * end. When the ledger does not know the job, the request never arrived: it is sent again with the
 * same ids, which the coordinator takes once.
 *
 * A reply that comes twice is told once.
 *
 * Ownership: strings given to events are borrowed. Threads: one. Times are monotonic milliseconds.
 */
#pragma once

#include <stdint.h>

#include "proto/base/alloc.h"
#include "proto/base/id.h"
#include "proto/wire/message.h"
#include "proto/wire/mq.h"

struct flow;

/* What comes back. Each may be NULL. */
struct flow_events {
    void (*accepted)(void *ctx, const struct wire_accepted *m);
    void (*progress)(void *ctx, const struct wire_progress *m);
    void (*outcome)(void *ctx, const struct wire_outcome *m);
    void (*page)(void *ctx, const struct wire_page *m);
    void (*finished)(void *ctx, const struct wire_finished *m);
    void (*refused)(void *ctx, const struct wire_refused *m);
    void (*restarted)(void *ctx); /* forget the pages told so far */
    /* Something the user should know; a sentence. */
    void (*notice)(void *ctx, const char *text);
};

/* Publish to the requests' queue with this message_id = correlation_id. */
typedef bool (*flow_publish_fn)(void *ctx, enum wire_type type, const void *message, const char *id,
                                uint64_t token, struct err *err);

enum flow_kind {
    FLOW_JOB,
    FLOW_QUERY,
    FLOW_FOLLOW, /* send nothing; follow a request by its status from the start */
};

struct flow_opts {
    enum flow_kind kind;
    enum wire_type type;
    const void *message; /* borrowed until flow_free(); FLOW_FOLLOW: unused */
    const char *follow;  /* FLOW_FOLLOW: the request's UUID */
    bool wait;           /* false: it ends for us when it is accepted */
    int64_t timeout_ms;  /* how long to wait in all; 0 = for ever */
    flow_publish_fn publish;
    void *publish_ctx;
    struct flow_events events;
    void *events_ctx;
};

enum flow_end {
    FLOW_GOING,
    FLOW_ACCEPTED,  /* only with wait = false */
    FLOW_FINISHED,  /* see flow_status() */
    FLOW_REFUSED,   /* flow_error() says why */
    FLOW_TIMED_OUT, /* the job goes on */
    FLOW_UNSENT,    /* the broker did not take the request; flow_error() says why */
    FLOW_BROKEN,    /* no way to learn the end; flow_error() says why */
};

struct flow *flow_new(const struct flow_opts *opts, int64_t now_ms);
void flow_free(struct flow *f);
DEFINE_SCOPED(flow, flow_free);

void flow_connected(struct flow *f, int64_t now_ms);
void flow_lost(struct flow *f, const struct err *why);
void flow_confirmed(struct flow *f, uint64_t token, enum mq_outcome outcome);
void flow_reply(struct flow *f, const char *correlation_id, const struct wire_message *reply,
                int64_t now_ms);
void flow_tick(struct flow *f, int64_t now_ms);

enum flow_end flow_end(const struct flow *f);
/* Of the request, or of the earlier one with the same idempotency key. Borrowed. */
const char *flow_request_id(const struct flow *f);
/* True once the broker has the request for sure. */
bool flow_is_sent(const struct flow *f);
/* "succeeded", "partly", "failed", "cancelled" after FLOW_FINISHED; else NULL. Borrowed. */
const char *flow_status(const struct flow *f);
/* The fault of the request as a whole; not set when there is none. Borrowed. */
const struct err *flow_error(const struct flow *f);
/* The exit code of oxbow(1) that says how it ended (enum cli_exit). */
int flow_exit_code(const struct flow *f);
