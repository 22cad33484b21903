/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A connection to the broker (AMQP 0-9-1 over librabbitmq) that heals itself.
 *
 * One struct mq belongs to one thread, the I/O thread (librabbitmq is not thread-safe); that thread
 * calls mq_poll() at least every few seconds, which serves heartbeats however long the tasks of
 * other threads run. Other threads hand their messages to the I/O thread through a queue.
 *
 * - Connecting, declaring and subscribing happen inside mq_poll(), with back-off, again after each
 *   loss. Declarations are idempotent. One attempt holds the thread up for 3 s at most, or up to 10
 * s when earlier ones took too long; of several hosts the next one is tried then.
 * - Publishes are persistent, mandatory unless said otherwise, and confirmed: each is kept until
 * the broker confirmed it and is sent again, with the same message id, after a reconnect. Receivers
 *   tolerate the double. on_confirm() tells each one's end exactly once.
 * - connection.blocked (memory or disk alarm) holds publishes back and is told.
 * - A consumer that the broker cancelled (queue deleted, node lost) is declared and subscribed
 * anew; so is one whose queue is not there yet, or whose channel the broker closed.
 * - A broker that rejects publishes for seconds is connected to anew: RabbitMQ 3.10 may reject all
 * of a connection for want of a queue's new leader. So is one that does not confirm: it may never
 * read on when a queue was deleted to which more than 32 publishes were under way.
 * - Deliveries of a lost connection cannot be acked any more: mq_ack() on one is silently void, the
 *   broker delivers it again.
 *
 * Facts: RabbitMQ documentation (confirms, consumer cancel, blocked connections), rabbitmq-c
 * README.
 */
#pragma once

#include <poll.h>
#include <stdint.h>

#include "proto/base/alloc.h"
#include "proto/base/clock.h"
#include "proto/base/err.h"
#include "proto/wire/message.h"

struct mq;

struct mq_tls {
    bool enabled;
    const char *ca_file;   /* NULL = the system's */
    const char *cert_file; /* client certificate; NULL = none */
    const char *key_file;
    bool insecure_skip_verify; /* tests only; logged as a warning at each connect */
};

/* One exchange, queue or binding to declare. `kind` MQ_END ends a list. */
struct mq_declare {
    enum { MQ_END, MQ_EXCHANGE, MQ_QUEUE, MQ_BIND } kind;
    char *name;           /* exchange or queue */
    char *type;           /* exchange: direct | topic | fanout */
    char *exchange, *key; /* bind `name` to this */
    bool quorum, exclusive, single_active;
    int64_t delivery_limit;     /* 0 = none */
    char *dead_letter_exchange; /* NULL = none */
    int64_t message_ttl_ms;     /* 0 = none */
};

struct mq_delivery {
    uint64_t tag; /* for mq_ack() and mq_reject(); unique over reconnects */
    const char *queue;
    const char *type, *message_id, *correlation_id, *reply_to, *content_type; /* NULL if absent */
    bool redelivered;
    int64_t delivery_count; /* x-delivery-count of a quorum queue; 0 if absent */
    const void *body;
    size_t len; /* over MQ_BODY_KEPT_BYTES: the true size, but `body` holds only so much */
};

enum { MQ_BODY_KEPT_BYTES = 1 << 20 };

enum mq_outcome {
    MQ_CONFIRMED, /* the broker has it safe */
    MQ_RETURNED,  /* unroutable: no queue is bound there, or no such exchange */
    MQ_NACKED,    /* the broker could not keep it, or we have no right to that exchange */
};

/* Called from mq_poll(), on the I/O thread. They may publish, ack and subscribe, and must not
 * block. */
struct mq_handlers {
    /* Declared and subscribed; what was pending will be sent again. */
    void (*on_connected)(void *ctx);
    /* The connection was lost, or an attempt to connect failed (told each time). */
    void (*on_lost)(void *ctx, const struct err *why);
    void (*on_delivery)(void *ctx, const struct mq_delivery *d);
    /* `token` is what mq_publish() was given. */
    void (*on_confirm)(void *ctx, uint64_t token, enum mq_outcome outcome);
    void (*on_blocked)(void *ctx, bool blocked, const char *reason);
    /* A queue that was declared had been deleted, with what it held; it is there again, empty. Told
     * of those that are not exclusive. */
    void (*on_deleted)(void *ctx, const char *queue);
};

enum { MQ_HOSTS_MAX = 16 };

struct mq_opts {
    const char *host;
    int port; /* 0 = 5672, or 5671 with TLS */
    /* The nodes of a cluster as mq_parse_host() takes them, at most MQ_HOSTS_MAX: tried in turn,
     * at a loss the next one first. Instead of `host`; `port` is for those that name none. */
    const char *const *hosts;
    size_t host_count;
    const char *vhost; /* NULL = "/" */
    const char *user;
    const char *password_file; /* read at each connect, so that a changed password is picked up */
    struct mq_tls tls;
    int heartbeat_s;                  /* 0 = 20 */
    int confirm_ms;                   /* longest wait for a confirm, but for alarms; 0 = 60 s */
    const char *connection_name;      /* shown by the broker's management */
    const struct mq_declare *declare; /* borrowed for the life of the mq; NULL = nothing */
    size_t max_pending;               /* publishes kept at most; 0 = 10000 */
    /* Publish something that goes nowhere after so long without a publish, so that an alarm, which
     * the broker tells only to those who publish, is known in time. 0 = do not. */
    int probe_ms;
    /* While connected, see every so often that what was declared is still there. 0 = do not. */
    int check_ms;
    struct mq_handlers handlers;
    void *ctx;
    const struct clock *clock; /* NULL = the system's */
};

/* "HOST", "HOST:PORT" or "[ADDRESS]:PORT". The caller frees the name; port 0 = none given. Errors:
 * bad-config. */
bool mq_parse_host(const char *text, char **ret_name, int *ret_port, struct err *err);

/* Copies what it needs of `opts` (not `declare`). Does not connect yet. Without `user`, the client
 * certificate says who we are (SASL EXTERNAL). The program ignores SIGPIPE. */
struct mq *mq_new(const struct mq_opts *opts);
/* Closes politely when connected. Unconfirmed publishes are dropped: see mq_flush(). */
void mq_free(struct mq *mq);
DEFINE_SCOPED(mq, mq_free);

/* Wait up to `timeout_ms` for the broker's socket or any of `fds` (their revents are set), then do
 * all that is due: connect, heartbeats, deliveries, confirms. Returns false only for a fault that
 * no retry heals while `fail_fast` was set (mq_connect_once); otherwise true. */
bool mq_poll(struct mq *mq, struct pollfd *fds, size_t count, int timeout_ms, struct err *err);

/* For short-lived clients: connect, declare and subscribe now or say why not. Errors:
 * broker-unreachable, broker-auth, broker-topology, timeout. */
bool mq_connect_once(struct mq *mq, int timeout_ms, struct err *err);

bool mq_is_connected(const struct mq *mq);

/* Something seems to be missing: check, as by check_ms, at the next mq_poll(), though at most once
 * in a second. */
void mq_check_declared(struct mq *mq);

struct mq_message {
    const char *exchange; /* "" = the default exchange */
    const char *routing_key;
    enum wire_type type;
    const char *message_id; /* NULL = a new one */
    const char *correlation_id, *reply_to;
    const void *body; /* copied */
    size_t len;
    bool optional_route; /* not mandatory: nobody listening is fine (events, replies) */
    uint64_t token;      /* for on_confirm; any value */
};
/* Queue a publish. Errors: broker-blocked/too-large when max_pending is reached. */
bool mq_publish(struct mq *mq, const struct mq_message *m, struct err *err);
/* How many publishes are not confirmed yet. */
size_t mq_pending(const struct mq *mq);
/* Poll until nothing is pending, or the time is up (timeout). */
bool mq_flush(struct mq *mq, int timeout_ms, struct err *err);

/* Consume from a queue with at most `prefetch` unacked deliveries (1..1000). May be called before
 * the connection is there; stays in force over reconnects. prefetch 0 pauses: cancels the consumer;
 * a later call resumes. Takes effect in mq_poll(): deliveries that are under way still come, and
 * what was unacked before a change does not count against the new prefetch. At most 64 queues. */
void mq_subscribe(struct mq *mq, const char *queue, int prefetch);
/* Declare a server-named exclusive queue for replies, subscribe to it, and give its name, which
 * changes at a reconnect: read it again in on_connected. NULL before the connection stands.
 * Borrowed. */
void mq_subscribe_replies(struct mq *mq);
const char *mq_reply_queue(const struct mq *mq);

void mq_ack(struct mq *mq, uint64_t tag);
/* Give it back (requeue), or send it to the dead-letter exchange of its queue. */
void mq_reject(struct mq *mq, uint64_t tag, bool requeue);
/* Publish a copy of a bad delivery to TOPOLOGY_DEAD with headers that say why (x-oxbow-reason,
 * x-oxbow-queue), then ack it once that is confirmed: refused, kept and explained. */
void mq_bury(struct mq *mq, const struct mq_delivery *d, const struct err *why);
