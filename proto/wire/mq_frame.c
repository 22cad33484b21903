/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What comes in. Frames are taken one at a time and without waiting; a message is put together from
 * its method, header and body frames per channel, so that half a message never holds anybody up.
 */
#include <string.h>

#include "proto/wire/mq_internal.h"

void mq_incoming_reset(struct mq_incoming *in)
{
    free(in->type);
    free(in->message_id);
    free(in->correlation_id);
    free(in->reply_to);
    free(in->content_type);
    struct buf body = in->body;
    if (body.capacity > WIRE_BODY_MAX_BYTES)
        buf_done(&body);
    else
        buf_reset(&body);
    *in = (struct mq_incoming){.body = body};
}

/* --- Messages -------------------------------------------------------------------------------- */
static int64_t integer_of(const amqp_field_value_t *v)
{
    switch (v->kind) {
    case AMQP_FIELD_KIND_I8:
        return v->value.i8;
    case AMQP_FIELD_KIND_U8:
        return v->value.u8;
    case AMQP_FIELD_KIND_I16:
        return v->value.i16;
    case AMQP_FIELD_KIND_U16:
        return v->value.u16;
    case AMQP_FIELD_KIND_I32:
        return v->value.i32;
    case AMQP_FIELD_KIND_U32:
        return v->value.u32;
    case AMQP_FIELD_KIND_I64:
        return v->value.i64;
    default:
        return 0;
    }
}

static bool key_is(amqp_bytes_t key, const char *name)
{
    return key.len == strlen(name) && memcmp(key.bytes, name, key.len) == 0;
}

static void read_headers(struct mq_incoming *in, const amqp_table_t *headers)
{
    for (int i = 0; i < headers->num_entries; i++) {
        const amqp_table_entry_t *e = &headers->entries[i];
        if (key_is(e->key, "x-delivery-count"))
            in->delivery_count = integer_of(&e->value);
    }
}

static void take_header(struct mq_incoming *in, const amqp_frame_t *frame)
{
    const amqp_basic_properties_t *p = frame->payload.properties.decoded;
    in->size = frame->payload.properties.body_size;
    in->received = 0;
    in->state = MQ_WANTS_BODY;
    if (p->_flags & AMQP_BASIC_TYPE_FLAG)
        in->type = mq_text(p->type);
    if (p->_flags & AMQP_BASIC_MESSAGE_ID_FLAG)
        in->message_id = mq_text(p->message_id);
    if (p->_flags & AMQP_BASIC_CORRELATION_ID_FLAG)
        in->correlation_id = mq_text(p->correlation_id);
    if (p->_flags & AMQP_BASIC_REPLY_TO_FLAG)
        in->reply_to = mq_text(p->reply_to);
    if (p->_flags & AMQP_BASIC_CONTENT_TYPE_FLAG)
        in->content_type = mq_text(p->content_type);
    if (p->_flags & AMQP_BASIC_HEADERS_FLAG)
        read_headers(in, &p->headers);
}

static void take_body(struct mq_incoming *in, amqp_bytes_t fragment)
{
    in->received += fragment.len;
    size_t room = in->body.max - in->body.len;
    buf_add(&in->body, fragment.bytes, fragment.len < room ? fragment.len : room);
}

/* A content frame of a channel; the message is handed on when it is whole. */
static void take_content(struct mq *mq, struct mq_incoming *in, struct mq_sub *sub,
                         const amqp_frame_t *frame)
{
    if (frame->frame_type == AMQP_FRAME_HEADER && in->state == MQ_WANTS_HEADER)
        take_header(in, frame);
    else if (frame->frame_type == AMQP_FRAME_BODY && in->state == MQ_WANTS_BODY)
        take_body(in, frame->payload.body_fragment);
    else
        return;
    if (in->received < in->size)
        return;
    if (!in->is_return)
        mq_deliver(mq, sub);
    else if (in->message_id)
        mq_mark_returned(mq, in->message_id);
    mq_incoming_reset(in);
}

/* --- Methods --------------------------------------------------------------------------------- */
static void on_connection_method(struct mq *mq, const amqp_method_t *method)
{
    struct err why = ERR_INIT;
    if (method->id == AMQP_CONNECTION_CLOSE_METHOD) {
        const amqp_connection_close_t *m = method->decoded;
        mq_close_error(&why, m->reply_code, m->reply_text);
        amqp_connection_close_ok_t ok = {0};
        (void)amqp_send_method(mq->conn, 0, AMQP_CONNECTION_CLOSE_OK_METHOD, &ok);
        mq_break(mq, &why);
    } else if (method->id == AMQP_CONNECTION_BLOCKED_METHOD) {
        const amqp_connection_blocked_t *m = method->decoded;
        free(mq->blocked_reason);
        mq->blocked_reason = mq_text(m->reason);
        mq->is_blocked = true;
        mq->called = true;
        if (mq->opts.handlers.on_blocked)
            mq->opts.handlers.on_blocked(mq->opts.ctx, true, mq->blocked_reason);
    } else if (method->id == AMQP_CONNECTION_UNBLOCKED_METHOD) {
        mq->is_blocked = false;
        mq->unblocked_at_ms = mq_now_ms(mq);
        mq->called = true;
        if (mq->opts.handlers.on_blocked)
            mq->opts.handlers.on_blocked(mq->opts.ctx, false, NULL);
    }
}

static void answer_channel_close(struct mq *mq, amqp_channel_t channel,
                                 const amqp_channel_close_t *m, struct err *why)
{
    mq_close_error(why, m->reply_code, m->reply_text);
    amqp_channel_close_ok_t ok = {0};
    int status = amqp_send_method(mq->conn, channel, AMQP_CHANNEL_CLOSE_OK_METHOD, &ok);
    if (status != AMQP_STATUS_OK)
        mq_break_status(mq, status, "answer channel.close");
}

static void on_publish_method(struct mq *mq, const amqp_method_t *method)
{
    struct err why = ERR_INIT;
    if (method->id == AMQP_BASIC_ACK_METHOD) {
        const amqp_basic_ack_t *m = method->decoded;
        mq_confirm(mq, m->delivery_tag, m->multiple, true);
    } else if (method->id == AMQP_BASIC_NACK_METHOD) {
        const amqp_basic_nack_t *m = method->decoded;
        mq_confirm(mq, m->delivery_tag, m->multiple, false);
    } else if (method->id == AMQP_BASIC_RETURN_METHOD) {
        mq_incoming_reset(&mq->returned);
        mq->returned.state = MQ_WANTS_HEADER;
        mq->returned.is_return = true;
    } else if (method->id == AMQP_CHANNEL_CLOSE_METHOD) {
        const amqp_channel_close_t *m = method->decoded;
        answer_channel_close(mq, MQ_CHANNEL_PUBLISH, m, &why);
        err_wrap(&why, "publish");
        mq_refuse_exchange(mq, m->reply_code, m->reply_text);
        mq_break(mq, &why); /* numbers and confirms begin anew with a new connection */
    }
}

static void on_sub_method(struct mq *mq, struct mq_sub *sub, const amqp_method_t *method)
{
    struct err why = ERR_INIT;
    if (method->id == AMQP_BASIC_DELIVER_METHOD) {
        const amqp_basic_deliver_t *m = method->decoded;
        mq_incoming_reset(&sub->incoming);
        sub->incoming.state = MQ_WANTS_HEADER;
        sub->incoming.tag = m->delivery_tag;
        sub->incoming.redelivered = m->redelivered;
    } else if (method->id == AMQP_BASIC_CANCEL_METHOD) {
        const amqp_basic_cancel_t *m = method->decoded;
        if (sub->consumer_tag && key_is(m->consumer_tag, sub->consumer_tag))
            mq_sub_cancelled(mq, sub);
    } else if (method->id == AMQP_CHANNEL_CLOSE_METHOD) {
        answer_channel_close(mq, sub->channel, method->decoded, &why);
        mq_sub_channel_closed(mq, sub, &why);
    }
}

static void dispatch(struct mq *mq, const amqp_frame_t *frame)
{
    struct mq_sub *sub = mq_sub_of_channel(mq, frame->channel);
    if (frame->frame_type != AMQP_FRAME_METHOD) {
        if (frame->channel == MQ_CHANNEL_PUBLISH)
            take_content(mq, &mq->returned, NULL, frame);
        else if (sub)
            take_content(mq, &sub->incoming, sub, frame);
        return;
    }
    const amqp_method_t *method = &frame->payload.method;
    if (frame->channel == 0) {
        on_connection_method(mq, method);
    } else if (frame->channel == MQ_CHANNEL_PUBLISH) {
        on_publish_method(mq, method);
    } else if (sub) {
        on_sub_method(mq, sub, method);
    } else if (method->id == AMQP_CHANNEL_CLOSE_METHOD) {
        struct err why = ERR_INIT;
        answer_channel_close(mq, frame->channel, method->decoded, &why);
        mq->declare_is_open = false;
    }
}

/* --- The loop -------------------------------------------------------------------------------- */
void mq_serve_heartbeat(struct mq *mq)
{
    /* The library sends heartbeats only when it waits for input, which it does not do while input
     * is there; callbacks may be slow, so count for ourselves. */
    int64_t now = mq_now_ms(mq);
    if (err_is_set(&mq->broken) || now - mq->sent_at_ms < mq->heartbeat_s * INT64_C(1000) / 3)
        return;
    amqp_frame_t heartbeat = {.frame_type = AMQP_FRAME_HEARTBEAT, .channel = 0};
    int status = amqp_send_frame(mq->conn, &heartbeat);
    if (status != AMQP_STATUS_OK)
        mq_break_status(mq, status, "heartbeat");
    mq->sent_at_ms = now;
}

void mq_receive(struct mq *mq)
{
    mq->more = false;
    for (int i = 0; i < MQ_FRAMES_AT_ONCE && !err_is_set(&mq->broken); i++) {
        struct timeval now = {0};
        amqp_frame_t frame;
        int status = amqp_simple_wait_frame_noblock(mq->conn, &frame, &now);
        if (status == AMQP_STATUS_TIMEOUT)
            return;
        if (status != AMQP_STATUS_OK) {
            mq_break_status(mq, status, "receive");
            return;
        }
        dispatch(mq, &frame);
        amqp_maybe_release_buffers_on_channel(mq->conn, frame.channel);
        mq_serve_heartbeat(mq);
    }
    mq->more = true;
}
