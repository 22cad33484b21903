/* SPDX-License-Identifier: Apache-2.0 */
/* Subscriptions, each on a channel of its own, and the deliveries that are not acked yet. */
#include <assert.h>
#include <string.h>

#include "proto/base/log.h"
#include "proto/wire/mq_internal.h"

/* --- Wanted ---------------------------------------------------------------------------------- */
static struct mq_sub *add_sub(struct mq *mq)
{
    assert(mq->sub_count < MQ_SUBS_MAX);
    struct mq_sub *sub = ALLOC_NEW(struct mq_sub);
    sub->channel = (amqp_channel_t)(MQ_CHANNEL_FIRST_SUB + mq->sub_count);
    sub->backoff = BACKOFF(250, 10000);
    buf_init(&sub->incoming.body, MQ_BODY_KEPT_BYTES);
    mq->subs[mq->sub_count++] = sub;
    return sub;
}

void mq_subscribe(struct mq *mq, const char *queue, int prefetch)
{
    assert(prefetch >= 0 && prefetch <= 1000);
    struct mq_sub *sub = NULL;
    for (size_t i = 0; i < mq->sub_count && !sub; i++) {
        if (!mq->subs[i]->replies && strcmp(mq->subs[i]->queue, queue) == 0)
            sub = mq->subs[i];
    }
    if (!sub) {
        sub = add_sub(mq);
        sub->queue = xstrdup(queue);
    }
    sub->wanted = prefetch;
}

void mq_subscribe_replies(struct mq *mq)
{
    for (size_t i = 0; i < mq->sub_count; i++) {
        if (mq->subs[i]->replies)
            return;
    }
    struct mq_sub *sub = add_sub(mq);
    sub->replies = true;
    sub->wanted = 100;
}

const char *mq_reply_queue(const struct mq *mq)
{
    for (size_t i = 0; i < mq->sub_count; i++) {
        if (mq->subs[i]->replies)
            return mq->subs[i]->queue;
    }
    return NULL;
}

struct mq_sub *mq_sub_of_channel(const struct mq *mq, amqp_channel_t channel)
{
    size_t i = (size_t)channel - MQ_CHANNEL_FIRST_SUB;
    return channel >= MQ_CHANNEL_FIRST_SUB && i < mq->sub_count ? mq->subs[i] : NULL;
}

/* --- In force -------------------------------------------------------------------------------- */
static void drop_unacked(struct mq *mq, amqp_channel_t channel)
{
    size_t kept = 0;
    for (size_t i = 0; i < mq->unacked_count; i++) {
        if (mq->unacked[i].channel != channel)
            mq->unacked[kept++] = mq->unacked[i];
    }
    mq->unacked_count = kept;
}

static void close_locally(struct mq *mq, struct mq_sub *sub)
{
    sub->is_open = false;
    sub->active = 0;
    free(TAKE(sub->consumer_tag));
    mq_incoming_reset(&sub->incoming);
    drop_unacked(mq, sub->channel);
}

static bool refused(struct mq *mq, struct mq_sub *sub, struct err *err, const char *what)
{
    mq_reply_error(mq, sub->channel, amqp_get_rpc_reply(mq->conn), err, "%s '%s'", what,
                   sub->queue ? sub->queue : "(replies)");
    close_locally(mq, sub);
    return false;
}

static bool cancel(struct mq *mq, struct mq_sub *sub, struct err *err)
{
    if (!amqp_basic_cancel(mq->conn, sub->channel, amqp_cstring_bytes(sub->consumer_tag)))
        return refused(mq, sub, err, "cancel the consumer of");
    sub->active = 0;
    free(TAKE(sub->consumer_tag));
    return true;
}

static bool consume(struct mq *mq, struct mq_sub *sub, struct err *err)
{
    if (sub->replies && !sub->queue && !mq_declare_replies(mq, sub, err))
        return false;
    if (!amqp_basic_qos(mq->conn, sub->channel, 0, (uint16_t)sub->wanted, 0))
        return refused(mq, sub, err, "set the prefetch of");
    const amqp_basic_consume_ok_t *ok =
        amqp_basic_consume(mq->conn, sub->channel, amqp_cstring_bytes(sub->queue), amqp_empty_bytes,
                           0, 0, 0, amqp_empty_table);
    if (!ok)
        return refused(mq, sub, err, "consume from");
    sub->consumer_tag = mq_text(ok->consumer_tag);
    sub->active = sub->wanted;
    return true;
}

static bool apply(struct mq *mq, struct mq_sub *sub, struct err *err)
{
    if (!sub->is_open) {
        if (!mq_channel_open(mq, sub->channel, err))
            return false;
        sub->is_open = true;
    }
    if (sub->active && !cancel(mq, sub, err))
        return false;
    if (sub->wanted && !consume(mq, sub, err))
        return false;
    amqp_maybe_release_buffers_on_channel(mq->conn, sub->channel);
    return true;
}

bool mq_apply_subs(struct mq *mq, struct err *err)
{
    for (size_t i = 0; i < mq->sub_count; i++) {
        struct mq_sub *sub = mq->subs[i];
        if (sub->wanted == sub->active || mq_now_ms(mq) < sub->retry_at_ms)
            continue;
        struct err why = ERR_INIT;
        if (apply(mq, sub, &why)) {
            backoff_reset(&sub->backoff);
            sub->retry_at_ms = 0;
            continue;
        }
        if (mq->fail_fast && mq_is_permanent(&why)) {
            *err = why;
            return false;
        }
        if (err_is_set(&mq->broken))
            return true;
        /* The queue may be missing until the coordinator declares it. */
        sub->retry_at_ms = mq_now_ms(mq) + backoff_next_ms(&sub->backoff);
        log_err(LOG_LEVEL_WARN, "subscribe_failed", &why);
    }
    return true;
}

void mq_sub_channel_closed(struct mq *mq, struct mq_sub *sub, const struct err *why)
{
    log_write(LOG_LEVEL_WARN, "consumer_lost",
              (const struct log_field[]){LOG_STR("queue", sub->queue),
                                         LOG_STR("message", why->message), LOG_END});
    close_locally(mq, sub);
    sub->retry_at_ms = mq_now_ms(mq) + backoff_next_ms(&sub->backoff);
}

void mq_sub_cancelled(struct mq *mq, struct mq_sub *sub)
{
    if (sub->replies) { /* its name has been given away: begin anew, with a new one */
        struct err why = ERR_INIT;
        err_set(&why, ERR_BROKER_TOPOLOGY, 0, "the reply queue '%s' was deleted", sub->queue);
        mq_break(mq, &why);
        return;
    }
    log_write(LOG_LEVEL_WARN, "consumer_cancelled",
              (const struct log_field[]){LOG_STR("queue", sub->queue), LOG_END});
    sub->active = 0;
    free(TAKE(sub->consumer_tag));
    mq->declare_is_due = true;
    sub->retry_at_ms = mq_now_ms(mq) + backoff_next_ms(&sub->backoff);
}

void mq_reset_subs(struct mq *mq)
{
    for (size_t i = 0; i < mq->sub_count; i++) {
        struct mq_sub *sub = mq->subs[i];
        close_locally(mq, sub);
        sub->retry_at_ms = 0;
        backoff_reset(&sub->backoff);
        if (sub->replies)
            free(TAKE(sub->queue));
    }
    mq->unacked_count = 0;
}

void mq_free_subs(struct mq *mq)
{
    for (size_t i = 0; i < mq->sub_count; i++) {
        struct mq_sub *sub = mq->subs[i];
        mq_incoming_reset(&sub->incoming);
        buf_done(&sub->incoming.body);
        free(sub->consumer_tag);
        free(sub->queue);
        free(sub);
    }
    free(mq->unacked);
}

/* --- Deliveries ------------------------------------------------------------------------------ */
static uint64_t note_unacked(struct mq *mq, const struct mq_sub *sub, uint64_t amqp)
{
    if (mq->unacked_count == mq->unacked_capacity) {
        mq->unacked_capacity = mq->unacked_capacity ? 2 * mq->unacked_capacity : 64;
        mq->unacked = xreallocarray(mq->unacked, mq->unacked_capacity, sizeof *mq->unacked);
    }
    mq->unacked[mq->unacked_count++] =
        (struct mq_unacked){.tag = ++mq->tag, .amqp = amqp, .channel = sub->channel};
    return mq->tag;
}

void mq_deliver(struct mq *mq, struct mq_sub *sub)
{
    const struct mq_incoming *in = &sub->incoming;
    struct mq_delivery d = {
        .tag = note_unacked(mq, sub, in->tag),
        .queue = sub->queue,
        .type = in->type,
        .message_id = in->message_id,
        .correlation_id = in->correlation_id,
        .reply_to = in->reply_to,
        .content_type = in->content_type,
        .redelivered = in->redelivered,
        .delivery_count = in->delivery_count,
        .body = buf_str(&in->body),
        .len = in->body.len,
    };
    /* What was not kept of an oversized body still counts: every decoder refuses it by its size. */
    if (in->size > d.len)
        d.len = in->size > SIZE_MAX / 2 ? SIZE_MAX / 2 : (size_t)in->size;
    mq->called = true;
    if (mq->opts.handlers.on_delivery)
        mq->opts.handlers.on_delivery(mq->opts.ctx, &d);
    else
        mq_reject(mq, d.tag, true);
}

/* Forget the delivery, and say where the broker knows it. False: of a lost connection. */
static bool take_unacked(struct mq *mq, uint64_t tag, struct mq_unacked *ret)
{
    for (size_t i = 0; i < mq->unacked_count; i++) {
        if (mq->unacked[i].tag != tag)
            continue;
        *ret = mq->unacked[i];
        mq->unacked_count--;
        memmove(&mq->unacked[i], &mq->unacked[i + 1],
                (mq->unacked_count - i) * sizeof *mq->unacked);
        return mq->conn && !err_is_set(&mq->broken);
    }
    return false;
}

void mq_ack(struct mq *mq, uint64_t tag)
{
    struct mq_unacked u;
    if (!take_unacked(mq, tag, &u))
        return;
    int status = amqp_basic_ack(mq->conn, u.channel, u.amqp, 0);
    if (status != AMQP_STATUS_OK)
        mq_break_status(mq, status, "ack");
    mq->sent_at_ms = mq_now_ms(mq);
}

void mq_reject(struct mq *mq, uint64_t tag, bool requeue)
{
    struct mq_unacked u;
    if (!take_unacked(mq, tag, &u))
        return;
    int status = amqp_basic_reject(mq->conn, u.channel, u.amqp, requeue);
    if (status != AMQP_STATUS_OK)
        mq_break_status(mq, status, "reject");
    mq->sent_at_ms = mq_now_ms(mq);
}
