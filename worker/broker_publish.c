/* SPDX-License-Identifier: Apache-2.0 */
/* What the I/O thread publishes, and what confirmations mean. */
#include <string.h>

#include "proto/base/log.h"
#include "worker/broker_internal.h"

enum { RETRY_MS = 2000 };

static bool send(struct broker *b, enum wire_type type, const char *message_id, const char *request,
                 const void *body, size_t len, uint64_t token, struct err *err)
{
    struct mq_message m = {.exchange = TOPOLOGY_EVENTS,
                           .routing_key = topology_event_key(type),
                           .type = type,
                           .message_id = message_id,
                           .correlation_id = request && *request ? request : NULL,
                           .body = body,
                           .len = len,
                           .token = token};
    return mq_publish(b->mq, &m, err);
}

/* A message of our own: encode and send; lost without harm when the queue is full. */
static void send_own(struct broker *b, enum flight_kind kind, enum wire_type type,
                     const char *message_id, const char *request, const void *message)
{
    struct err err = ERR_INIT;
    size_t len = 0;
    SCOPED_FREE char *body = wire_encode(type, message, &len, &err);
    uint64_t token = flights_add(&b->flights, kind, broker_now(b), NULL);
    if (body && send(b, type, message_id, request, body, len, token, &err))
        return;
    struct flight unused;
    (void)flights_take(&b->flights, token, &unused);
    log_err(LOG_LEVEL_WARN, "publish_failed", &err);
}

void broker_publish_claim(struct broker *b, struct job *job, int64_t fence)
{
    struct wire_claim claim = {
        .task = job->task, .worker = b->conf->name, .attempt = job->attempt, .fence = fence};
    char id[ID_BYTES];
    id_new(id);
    claims_add(&b->claims, id, fence, broker_now(b));
    send_own(b, FLIGHT_CLAIM, WIRE_CLAIM, id, job->request, &claim);
}

void broker_publish_released(struct broker *b, const char *task, int64_t attempt, int64_t fence)
{
    static char released[] = "released";
    struct wire_result result = {.task = (char *)(uintptr_t)task,
                                 .worker = b->conf->name,
                                 .attempt = attempt,
                                 .fence = fence,
                                 .status = released};
    log_info("offer_released", LOG_STR("task", task), LOG_I64("fence", fence));
    send_own(b, FLIGHT_CLAIM, WIRE_RESULT, NULL, NULL, &result);
}

void broker_publish_checked(struct broker *b, const struct wire_checked *m)
{
    send_own(b, FLIGHT_CLAIM, WIRE_CHECKED, NULL, m->request, m);
}

static const char *state_word(const struct broker *b, size_t running)
{
    if (b->drain == DRAIN_NO)
        return "up";
    return running ? "draining" : "leaving";
}

void broker_publish_presence(struct broker *b)
{
    static char version[] = OXBOW_VERSION;
    size_t count = slots_count_running(&b->slots);
    SCOPED_FREE struct wire_running *running = xcalloc(count, sizeof *running);
    size_t n = 0;
    for (struct job *job = b->slots.jobs; job; job = job->next) {
        if (job->state == JOB_RUNNING && n < WIRE_RUNNING_MAX)
            running[n++] = (struct wire_running){.task = job->task, .fence = job->fence};
    }
    struct wire_presence p = {
        .worker = b->conf->name,
        .zone = b->conf->zone,
        .version = version,
        .host = b->host,
        .proxy = b->conf->proxy_vm,
        .state = (char *)(uintptr_t)state_word(b, n),
        .slots_restore = b->slots.total[LANE_RESTORE],
        .slots_backup = b->slots.total[LANE_BACKUP],
        .slots_upkeep = b->slots.total[LANE_UPKEEP],
        .running = running,
        .running_count = n,
    };
    send_own(b, FLIGHT_PRESENCE, WIRE_PRESENCE, NULL, NULL, &p);
}

static void keep_for_retry(struct broker *b, struct note *n)
{
    if (b->retry_count == b->retry_room) {
        b->retry_room = b->retry_room ? 2 * b->retry_room : 16;
        b->retry = xreallocarray(b->retry, b->retry_room, sizeof(struct note *));
    }
    b->retry[b->retry_count++] = n;
    b->retry_due_ms = broker_now(b) + RETRY_MS;
}

static bool try_note(struct broker *b, struct note *n)
{
    struct err err = ERR_INIT;
    uint64_t token = flights_add(&b->flights, FLIGHT_EVENT, broker_now(b), n);
    if (send(b, n->type, NULL, n->request, n->body, n->len, token, &err))
        return true;
    struct flight unused;
    (void)flights_take(&b->flights, token, &unused);
    log_err(LOG_LEVEL_WARN, "publish_failed", &err);
    return false;
}

void broker_publish_note(struct broker *b, struct note *n)
{
    if (n->type == WIRE_COPYING && (b->is_blocked || !mq_is_connected(b->mq))) {
        note_free(n); /* old progress is no news */
        return;
    }
    if (b->retry_count || !try_note(b, n))
        keep_for_retry(b, n); /* behind what waits already: events stay in order */
}

void broker_retry(struct broker *b)
{
    if (b->retry_count == 0 || broker_now(b) < b->retry_due_ms)
        return;
    size_t sent = 0;
    while (sent < b->retry_count && try_note(b, b->retry[sent]))
        sent++;
    b->retry_count -= sent;
    memmove(b->retry, b->retry + sent, b->retry_count * sizeof(struct note *));
    b->retry_due_ms = broker_now(b) + RETRY_MS;
}

static void confirmed(struct broker *b, const struct flight *f)
{
    if (f->kind == FLIGHT_EVENT) {
        struct order *o = order_new(ORDER_CONFIRMED, f->note->task, f->note->fence);
        o->sent_ms = f->sent_ms;
        o->ahead = f->note->ahead;
        broker_order(b, o);
        return;
    }
    if (f->kind != FLIGHT_PRESENCE)
        return;
    for (const struct job *job = b->slots.jobs; job; job = job->next) {
        if (job->state != JOB_RUNNING || job->granted_ms > f->sent_ms)
            continue; /* it was not in that presence */
        struct order *o = order_new(ORDER_CONFIRMED, job->task, job->fence);
        o->sent_ms = f->sent_ms;
        broker_order(b, o);
    }
}

void broker_on_confirm(struct broker *b, uint64_t token, enum mq_outcome outcome)
{
    struct flight f;
    if (!flights_take(&b->flights, token, &f))
        return;
    if (outcome == MQ_CONFIRMED) {
        confirmed(b, &f);
        note_free(f.note);
        return;
    }
    log_warn("publish_not_taken",
             LOG_STR("why", outcome == MQ_RETURNED ? "no queue is bound" : "refused"));
    if (f.kind == FLIGHT_PRESENCE)
        b->presence_due_ms = broker_now(b) + RETRY_MS; /* the coordinator may just be starting */
    if (f.note && f.note->type != WIRE_COPYING)
        keep_for_retry(b, f.note);
    else
        note_free(f.note);
}
