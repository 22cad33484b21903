/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Publishes, from mq_publish() to their end. The list is in order: first those sent on this
 * connection, by rising number, then those not sent yet (from mq->unsent on).
 */
#include <assert.h>
#include <string.h>

#include "proto/base/id.h"
#include "proto/base/log.h"
#include "proto/wire/mq_internal.h"
#include "proto/wire/topology.h"

static size_t cost_of(const struct mq_pending *p)
{
    return sizeof *p + p->len;
}

static void free_one(struct mq_pending *p)
{
    free(p->exchange);
    free(p->routing_key);
    free(p->type);
    free(p->message_id);
    free(p->correlation_id);
    free(p->reply_to);
    free(p->content_type);
    free(p->reason);
    free(p->from_queue);
    free(p->body);
    free(p);
}

static void append(struct mq *mq, struct mq_pending *p)
{
    p->prev = mq->last_pending;
    if (mq->last_pending)
        mq->last_pending->next = p;
    else
        mq->first = p;
    mq->last_pending = p;
    if (!mq->unsent)
        mq->unsent = p;
    mq->pending_count++;
    mq->pending_bytes += cost_of(p);
}

static void unlink_one(struct mq *mq, struct mq_pending *p)
{
    if (p->prev)
        p->prev->next = p->next;
    else
        mq->first = p->next;
    if (p->next)
        p->next->prev = p->prev;
    else
        mq->last_pending = p->prev;
    if (mq->unsent == p)
        mq->unsent = p->next;
    mq->pending_count--;
    mq->pending_bytes -= cost_of(p);
    if (p->seq) {
        mq->flight_count--;
        mq->flight_bytes -= cost_of(p);
    }
}

/* --- Taking them in -------------------------------------------------------------------------- */
static bool has_room(const struct mq *mq, size_t len, struct err *err)
{
    if (mq->pending_count < mq->opts.max_pending && mq->pending_bytes + len < MQ_PENDING_BYTES_MAX)
        return true;
    if (mq->is_blocked)
        return err_set(err, ERR_BROKER_BLOCKED, 0, "%zu messages wait, the broker takes none: %s",
                       mq->pending_count, mq->blocked_reason ? mq->blocked_reason : "an alarm");
    if (!mq->is_up)
        return err_set(err, ERR_BROKER_UNREACHABLE, 0, "%zu messages wait for the broker: %s",
                       mq->pending_count, mq->last.message);
    return err_set(err, ERR_TOO_LARGE, 0, "%zu messages wait to be confirmed", mq->pending_count);
}

static bool check_short(const char *text, const char *what, struct err *err)
{
    if (text && strlen(text) > MQ_SHORT_MAX)
        return err_set(err, ERR_TOO_LARGE, 0, "%s '%.60s...' is longer than %d bytes", what, text,
                       (int)MQ_SHORT_MAX);
    return true;
}

bool mq_publish(struct mq *mq, const struct mq_message *m, struct err *err)
{
    if (m->len > WIRE_BODY_MAX_BYTES)
        return err_set(err, ERR_TOO_LARGE, 0, "body of %zu bytes, at most %d", m->len,
                       (int)WIRE_BODY_MAX_BYTES);
    if (!check_short(m->exchange, "exchange", err) ||
        !check_short(m->routing_key, "routing key", err) ||
        !check_short(m->message_id, "message_id", err) ||
        !check_short(m->correlation_id, "correlation_id", err) ||
        !check_short(m->reply_to, "reply_to", err) || !has_room(mq, m->len, err))
        return false;
    struct mq_pending *p = ALLOC_NEW(struct mq_pending);
    p->token = m->token;
    p->mandatory = !m->optional_route;
    p->time_s = clock_wall_ms(mq->opts.clock) / 1000;
    p->exchange = xstrdup(m->exchange);
    p->routing_key = xstrdup(m->routing_key);
    p->type = xstrdup(wire_type_name(m->type));
    p->content_type = xstrdup("application/json");
    p->correlation_id = xstrdup_or_null(m->correlation_id);
    p->reply_to = xstrdup_or_null(m->reply_to);
    if (m->message_id) {
        p->message_id = xstrdup(m->message_id);
    } else {
        p->message_id = xmalloc(ID_BYTES);
        id_new(p->message_id);
    }
    p->len = m->len;
    p->body = xmalloc(m->len);
    if (m->len)
        memcpy(p->body, m->body, m->len);
    append(mq, p);
    return true;
}

void mq_bury(struct mq *mq, const struct mq_delivery *d, const struct err *why)
{
    /* No limit here: there are never more of these than unacked deliveries. */
    struct mq_pending *p = ALLOC_NEW(struct mq_pending);
    p->bury_tag = d->tag;
    p->mandatory = true;
    p->time_s = clock_wall_ms(mq->opts.clock) / 1000;
    p->exchange = xstrdup(TOPOLOGY_DEAD);
    p->routing_key = xstrdup("");
    p->type = xstrdup_or_null(d->type);
    p->content_type = xstrdup_or_null(d->content_type);
    p->correlation_id = xstrdup_or_null(d->correlation_id);
    p->reply_to = xstrdup_or_null(d->reply_to);
    p->message_id = xstrdup_or_null(d->message_id);
    if (!p->message_id) {
        p->message_id = xmalloc(ID_BYTES);
        id_new(p->message_id);
    }
    p->reason = xasprintf("%s: %s", err_code_name(why->code), why->message);
    p->from_queue = xstrdup(d->queue);
    p->len = d->len < MQ_BODY_KEPT_BYTES ? d->len : MQ_BODY_KEPT_BYTES;
    p->cut_bytes = p->len < d->len ? (int64_t)d->len : 0;
    p->body = xmalloc(p->len);
    if (p->len)
        memcpy(p->body, d->body, p->len);
    append(mq, p);
}

void mq_probe(struct mq *mq)
{
    if (mq->opts.probe_ms == 0 || !mq->is_up || mq->is_blocked || mq->pending_count > 0 ||
        mq_now_ms(mq) - mq->published_at_ms < mq->opts.probe_ms)
        return;
    struct mq_pending *p = ALLOC_NEW(struct mq_pending);
    p->is_probe = true;
    p->time_s = clock_wall_ms(mq->opts.clock) / 1000;
    p->exchange = xstrdup(TOPOLOGY_CONTROL);
    p->routing_key = xstrdup("probe"); /* nobody binds this */
    p->message_id = xmalloc(ID_BYTES);
    id_new(p->message_id);
    append(mq, p);
}

/* --- Sending --------------------------------------------------------------------------------- */
static void set_property(amqp_basic_properties_t *props, amqp_flags_t flag, amqp_bytes_t *member,
                         const char *value)
{
    if (!value)
        return;
    *member = amqp_cstring_bytes(value);
    props->_flags |= flag;
}

static int send_one(struct mq *mq, const struct mq_pending *p)
{
    amqp_table_entry_t headers[3];
    int count = 0;
    if (p->reason) {
        headers[count++] =
            (amqp_table_entry_t){.key = amqp_cstring_bytes("x-oxbow-reason"),
                                 .value = {.kind = AMQP_FIELD_KIND_UTF8,
                                           .value = {.bytes = amqp_cstring_bytes(p->reason)}}};
        headers[count++] =
            (amqp_table_entry_t){.key = amqp_cstring_bytes("x-oxbow-queue"),
                                 .value = {.kind = AMQP_FIELD_KIND_UTF8,
                                           .value = {.bytes = amqp_cstring_bytes(p->from_queue)}}};
    }
    if (p->cut_bytes)
        headers[count++] = (amqp_table_entry_t){
            .key = amqp_cstring_bytes("x-oxbow-original-bytes"),
            .value = {.kind = AMQP_FIELD_KIND_I64, .value = {.i64 = p->cut_bytes}}};
    amqp_basic_properties_t props = {
        ._flags = AMQP_BASIC_DELIVERY_MODE_FLAG | AMQP_BASIC_TIMESTAMP_FLAG |
                  AMQP_BASIC_APP_ID_FLAG | (count ? AMQP_BASIC_HEADERS_FLAG : 0),
        .delivery_mode = AMQP_DELIVERY_PERSISTENT,
        .timestamp = (uint64_t)p->time_s,
        .app_id = amqp_cstring_bytes("oxbow"),
        .headers = {.num_entries = count, .entries = headers},
    };
    set_property(&props, AMQP_BASIC_TYPE_FLAG, &props.type, p->type);
    set_property(&props, AMQP_BASIC_CONTENT_TYPE_FLAG, &props.content_type, p->content_type);
    set_property(&props, AMQP_BASIC_MESSAGE_ID_FLAG, &props.message_id, p->message_id);
    set_property(&props, AMQP_BASIC_CORRELATION_ID_FLAG, &props.correlation_id, p->correlation_id);
    set_property(&props, AMQP_BASIC_REPLY_TO_FLAG, &props.reply_to, p->reply_to);
    return amqp_basic_publish(mq->conn, MQ_CHANNEL_PUBLISH, amqp_cstring_bytes(p->exchange),
                              amqp_cstring_bytes(p->routing_key), p->mandatory, 0, &props,
                              (amqp_bytes_t){.len = p->len, .bytes = p->body});
}

void mq_send_pending(struct mq *mq)
{
    while (mq->unsent && !mq->is_blocked && !err_is_set(&mq->broken)) {
        struct mq_pending *p = mq->unsent;
        if (mq->flight_count >= MQ_FLIGHT_MAX ||
            (mq->flight_count && mq->flight_bytes + cost_of(p) > MQ_FLIGHT_BYTES_MAX))
            return;
        int status = send_one(mq, p);
        if (status != AMQP_STATUS_OK) {
            mq_break_status(mq, status, "publish");
            return;
        }
        p->sent_at_ms = mq->sent_at_ms = mq->published_at_ms = mq_now_ms(mq);
        p->seq = ++mq->seq;
        mq->flight_count++;
        mq->flight_bytes += cost_of(p);
        mq->unsent = p->next;
    }
}

/* --- Their end ------------------------------------------------------------------------------- */
/* A buried delivery leaves its queue only when the copy is safe. */
static void end_burial(struct mq *mq, const struct mq_pending *p, enum mq_outcome outcome)
{
    if (outcome == MQ_CONFIRMED) {
        mq_ack(mq, p->bury_tag);
        return;
    }
    log_warn("bury_failed", LOG_STR("queue", p->from_queue), LOG_STR("reason", p->reason));
    mq->declare_is_due = true; /* the dead-letter queue may have been deleted */
    mq_reject(mq, p->bury_tag, true);
}

static void end_one(struct mq *mq, struct mq_pending *p, enum mq_outcome outcome)
{
    unlink_one(mq, p);
    if (p->bury_tag) {
        end_burial(mq, p, outcome);
    } else if (!p->is_probe && mq->opts.handlers.on_confirm) {
        mq->called = true;
        mq->opts.handlers.on_confirm(mq->opts.ctx, p->token, outcome);
    }
    free_one(p);
}

/* A channel of RabbitMQ 3.10 that first publishes to a quorum queue while the node of its leader is
 * lost rejects all for ever, though the queue has a new leader (rabbit_fifo_client:enqueue/3). Only
 * a new channel looks for that. Once rejected is no reason, so ends what was under way to a queue
 * that is deleted. A queue that is really full costs a connection now and then. */
static void on_rejected(struct mq *mq)
{
    int64_t now = mq_now_ms(mq);
    if (mq->nacked_at_ms == 0 || now - mq->nacked_at_ms > MQ_NACK_FORGET_MS)
        mq->nack_wait_ms = MQ_NACK_WAIT_MS;
    if (mq->nacked_from_ms == 0 || now - mq->nacked_at_ms > MQ_NACK_FORGET_MS)
        mq->nacked_from_ms = now;
    mq->nacked_at_ms = now;
    if (now - mq->nacked_from_ms < mq->nack_wait_ms)
        return;
    mq->nack_wait_ms =
        2 * mq->nack_wait_ms < MQ_NACK_WAIT_MAX_MS ? 2 * mq->nack_wait_ms : MQ_NACK_WAIT_MAX_MS;
    struct err why = ERR_INIT;
    err_set(&why, ERR_BROKER_BLOCKED, 0,
            "the broker rejects what is published: a queue is full, or this connection has not "
            "noticed its new leader");
    mq_break(mq, &why);
}

static void end_confirmed(struct mq *mq, struct mq_pending *p, bool acked)
{
    if (!acked)
        on_rejected(mq);
    end_one(mq, p, p->returned ? MQ_RETURNED : acked ? MQ_CONFIRMED : MQ_NACKED);
}

void mq_confirm(struct mq *mq, uint64_t seq, bool multiple, bool acked)
{
    if (multiple) {
        while (mq->first && mq->first->seq && mq->first->seq <= seq)
            end_confirmed(mq, mq->first, acked);
        return;
    }
    struct mq_pending *p = mq->first;
    while (p && p->seq && p->seq < seq)
        p = p->next;
    if (p && p->seq == seq)
        end_confirmed(mq, p, acked);
}

void mq_check_confirms(struct mq *mq)
{
    const struct mq_pending *p = mq->first;
    if (!p || !p->seq || mq->is_blocked || mq->more || err_is_set(&mq->broken))
        return;
    int64_t since_ms = p->sent_at_ms > mq->unblocked_at_ms ? p->sent_at_ms : mq->unblocked_at_ms;
    if (mq_now_ms(mq) - since_ms < mq->opts.confirm_ms)
        return;
    struct err why = ERR_INIT;
    err_set(&why, ERR_TIMEOUT, 0, "the broker has not confirmed a message for %d ms",
            mq->opts.confirm_ms);
    mq_break(mq, &why);
}

void mq_mark_returned(struct mq *mq, const char *message_id)
{
    /* Returns come in the order of the publishes, each before its confirm. */
    for (struct mq_pending *p = mq->first; p && p->seq; p = p->next) {
        if (p->mandatory && !p->returned && strcmp(p->message_id, message_id) == 0) {
            p->returned = true;
            return;
        }
    }
}

void mq_refuse_exchange(struct mq *mq, uint16_t code, amqp_bytes_t text)
{
    if (code != AMQP_NOT_FOUND && code != AMQP_ACCESS_REFUSED)
        return;
    /* "NOT_FOUND - no exchange 'oxbow.requests' in vhost '/'" */
    SCOPED_FREE char *why = mq_text(text);
    static const char before[] = "exchange '";
    char *name = strstr(why, before);
    if (!name)
        return;
    name += sizeof before - 1;
    name[strcspn(name, "'")] = '\0';
    if (strcmp(name, "amq.default") == 0) /* how the broker calls the one without a name */
        name[0] = '\0';
    struct mq_pending *next;
    for (struct mq_pending *p = mq->first; p && p->seq; p = next) {
        next = p->next;
        if (strcmp(p->exchange, name) == 0)
            end_one(mq, p, code == AMQP_NOT_FOUND ? MQ_RETURNED : MQ_NACKED);
    }
}

void mq_unsend_all(struct mq *mq)
{
    for (struct mq_pending *p = mq->first; p; p = p->next) {
        p->seq = 0;
        p->returned = false;
    }
    mq->unsent = mq->first;
    mq->seq = 0;
    mq->flight_count = 0;
    mq->flight_bytes = 0;
}

void mq_free_pending(struct mq *mq)
{
    while (mq->first) {
        struct mq_pending *p = mq->first;
        unlink_one(mq, p);
        free_one(p);
    }
}
