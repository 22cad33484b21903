/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files behind mq.h share.
 *
 *   mq.c          the public calls and the poll loop
 *   mq_connect.c  socket, TLS, login, declarations; what the broker's refusals mean
 *   mq_publish.c  publishes until they are confirmed
 *   mq_consume.c  subscriptions, deliveries until they are acked
 *   mq_frame.c    what comes in: dispatch by method, messages put together from their frames
 *
 * Channels: 1 publishes (confirm mode), 2 declares, each subscription has its own from 3 on, so
 * that what the broker refuses on one closes only that one.
 *
 * A function that finds the connection unusable calls mq_break() and returns; the poll loop takes
 * it down (mq_lose). Nothing below the loop destroys the connection, so callbacks may call
 * anything.
 */
#pragma once

#include <amqp.h>

#include "proto/base/buf.h"
#include "proto/wire/mq.h"

enum {
    MQ_CHANNEL_PUBLISH = 1,
    MQ_CHANNEL_DECLARE = 2,
    MQ_CHANNEL_FIRST_SUB = 3,
    MQ_SUBS_MAX = 64,
    MQ_OPERATION_MS = 10000, /* one answer of the broker */
    MQ_ATTEMPT_MS = 3000,    /* the first attempts to connect, as a whole; MQ_OPERATION_MS later */
    MQ_ANSWER_MIN_MS = 500,  /* one answer during an attempt, however little is left of that */
    MQ_NEXT_HOST_MS = 50,    /* pause before the next host of a list */
    MQ_CLOSE_MS = 2000,      /* a polite goodbye */
    MQ_HEARTBEAT_S = 20,
    MQ_FRAME_MAX = 131072,
    MQ_SHORT_MAX = 255, /* AMQP short strings: names, ids */
    MQ_PENDING_MAX = 10000,
    MQ_PENDING_BYTES_MAX = 64 << 20,
    /* Sent and not confirmed yet: few enough to fit the socket's buffers, so that a broker that
     * stops reading (an alarm) does not make us wait inside the library. */
    MQ_FLIGHT_MAX = 1000,
    MQ_FLIGHT_BYTES_MAX = 1 << 20,
    MQ_FRAMES_AT_ONCE = 512, /* then others get their turn */
    MQ_CONFIRM_MS = 60000,
    MQ_NACK_WAIT_MS = 3000, /* so long a connection may reject publishes; longer each time, ... */
    MQ_NACK_WAIT_MAX_MS = 60000,
    MQ_NACK_FORGET_MS = 120000, /* ... until it did not for so long */
    MQ_STABLE_MS = 10000,       /* a connection that stood so long resets the back-off */
};

/* A publish until its end is known. */
struct mq_pending {
    struct mq_pending *prev, *next;
    uint64_t token;
    uint64_t bury_tag; /* not 0: a buried delivery, to ack when this is confirmed; not told */
    bool is_probe;     /* not told */
    uint64_t seq;      /* the broker's number for it on this connection; 0 = not sent */
    bool mandatory, returned;
    int64_t time_s, sent_at_ms;
    char *exchange, *routing_key;
    char *type, *message_id, *correlation_id, *reply_to, *content_type;
    char *reason, *from_queue; /* buried: why, and where it came from */
    int64_t cut_bytes;         /* buried: its size when the body was cut; 0 = whole */
    void *body;
    size_t len;
};

/* A message coming in, frame by frame: a delivery or a returned publish. */
struct mq_incoming {
    enum { MQ_NOTHING, MQ_WANTS_HEADER, MQ_WANTS_BODY } state;
    bool is_return;
    bool redelivered;
    uint64_t tag; /* the broker's delivery tag */
    int64_t delivery_count;
    char *type, *message_id, *correlation_id, *reply_to, *content_type;
    uint64_t size, received; /* of the body */
    struct buf body;
};

struct mq_sub {
    char *queue;  /* replies: the name the broker gave, NULL before */
    bool replies; /* the reply queue */
    int wanted;   /* prefetch; 0 = paused */
    int active;   /* prefetch in force; 0 = not consuming */
    amqp_channel_t channel;
    bool is_open; /* the channel */
    char *consumer_tag;
    int64_t retry_at_ms;
    struct backoff backoff;
    struct mq_incoming incoming;
};

/* A delivery that is not acked yet. */
struct mq_unacked {
    uint64_t tag;  /* ours */
    uint64_t amqp; /* the broker's, on: */
    amqp_channel_t channel;
};

struct mq_host {
    char *name;
    int port;
};

struct mq {
    struct mq_opts opts; /* strings owned, but for the hosts, which are here: */
    struct mq_host hosts[MQ_HOSTS_MAX];
    size_t host_count, host;      /* which one it is, or will be tried next */
    size_t hosts_failed;          /* in a row */
    amqp_connection_state_t conn; /* NULL = none */
    bool is_up;                   /* connected, declared, told */
    bool fail_fast;
    bool is_blocked;
    bool more;   /* frames are left that poll() would not see */
    bool called; /* a callback was made: let the caller look */
    bool declare_is_open, declare_is_due;
    int64_t declare_at_ms;
    struct err broken; /* set: take the connection down */
    struct err last;   /* why the last attempt failed, for time-outs */
    struct backoff backoff;
    int64_t connect_at_ms, up_since_ms, sent_at_ms, published_at_ms;
    int attempt_ms;           /* the limit of an attempt to connect */
    int64_t attempt_until_ms; /* of the present one; 0 = connected */
    int heartbeat_s;          /* as agreed with the broker, which may want it shorter */
    char *blocked_reason;
    int64_t unblocked_at_ms;
    int64_t nacked_at_ms, nack_wait_ms;
    int64_t nacked_from_ms; /* on this connection; 0 = not yet */

    struct mq_pending *first, *last_pending, *unsent;
    size_t pending_count, pending_bytes, flight_count, flight_bytes;
    uint64_t seq;
    struct mq_incoming returned; /* on the publishing channel */

    struct mq_sub *subs[MQ_SUBS_MAX];
    size_t sub_count;
    struct mq_unacked *unacked; /* by rising tag */
    size_t unacked_count, unacked_capacity;
    uint64_t tag;

    struct pollfd *fds;
    size_t fds_capacity;
};

static inline int64_t mq_now_ms(const struct mq *mq)
{
    return clock_mono_ms(mq->opts.clock);
}

/* Remember the first reason why the connection must go. */
void mq_break(struct mq *mq, const struct err *why);
/* mq_break() for a status of the library that is not AMQP_STATUS_OK. */
void mq_break_status(struct mq *mq, int status, const char *what);

static inline const struct mq_host *mq_host(const struct mq *mq)
{
    return &mq->hosts[mq->host];
}

/* --- mq_connect.c ---------------------------------------------------------------------------- */
/* Socket, login, channels, declarations. On failure nothing is left of the connection. */
bool mq_open(struct mq *mq, struct err *err);
/* Drop the connection; with a goodbye when it is sound. */
void mq_close(struct mq *mq, bool polite);
/* How long the next answer of the broker may take. */
void mq_limit_answer(struct mq *mq);
/* Declare all of opts.declare anew; with `tell`, look before whether the queues are there, and tell
 * of those that were not. False: a channel or connection error; the channel is shut. */
bool mq_declare_all(struct mq *mq, bool tell, struct err *err);
/* Declare the reply queue of `sub` and set its name. */
bool mq_declare_replies(struct mq *mq, struct mq_sub *sub, struct err *err);
bool mq_channel_open(struct mq *mq, amqp_channel_t channel, struct err *err);
/* The error of the last answer; answers channel.close with close-ok. Sets mq->broken as well when
 * the whole connection is gone. Always false. */
bool mq_reply_error(struct mq *mq, amqp_channel_t channel, amqp_rpc_reply_t reply, struct err *err,
                    const char *fmt, ...) __attribute__((format(printf, 5, 6)));
/* What a close of a channel or connection by the broker means. Always false. */
bool mq_close_error(struct err *err, uint16_t code, amqp_bytes_t text);
bool mq_is_permanent(const struct err *err);

/* --- mq_publish.c ---------------------------------------------------------------------------- */
void mq_send_pending(struct mq *mq);
/* A publish that goes nowhere, when opts.probe_ms says that it is due. */
void mq_probe(struct mq *mq);
void mq_confirm(struct mq *mq, uint64_t seq, bool multiple, bool acked);
/* Break a connection on which the oldest publish waits for its confirm for too long. */
void mq_check_confirms(struct mq *mq);
/* A returned publish: its confirm will follow. */
void mq_mark_returned(struct mq *mq, const char *message_id);
/* The broker closed the publishing channel over an exchange: end what was sent to it. */
void mq_refuse_exchange(struct mq *mq, uint16_t code, amqp_bytes_t text);
/* After a loss: all is to be sent again. */
void mq_unsend_all(struct mq *mq);
void mq_free_pending(struct mq *mq);

/* --- mq_consume.c ---------------------------------------------------------------------------- */
/* Bring each subscription to what is wanted. With `fail_fast` false is a refusal (in err). */
bool mq_apply_subs(struct mq *mq, struct err *err);
struct mq_sub *mq_sub_of_channel(const struct mq *mq, amqp_channel_t channel);
void mq_sub_channel_closed(struct mq *mq, struct mq_sub *sub, const struct err *why);
void mq_sub_cancelled(struct mq *mq, struct mq_sub *sub);
void mq_deliver(struct mq *mq, struct mq_sub *sub);
/* After a loss. */
void mq_reset_subs(struct mq *mq);
void mq_free_subs(struct mq *mq);

/* --- mq_frame.c ------------------------------------------------------------------------------ */
/* Take in what is there, without waiting. */
void mq_receive(struct mq *mq);
void mq_incoming_reset(struct mq_incoming *in);
/* Keep the broker content while callbacks take their time. */
void mq_serve_heartbeat(struct mq *mq);

/* A string of the wire as ours; the caller frees. */
char *mq_text(amqp_bytes_t bytes);
