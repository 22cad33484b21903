/* SPDX-License-Identifier: Apache-2.0 */
/* Offers and what becomes of them. */
#include <string.h>

#include "proto/base/log.h"
#include "worker/broker_internal.h"

enum {
    HOLD_MS = 10 * 1000, /* an offer without a slot is given back after so long */
    LEASE_MAX_S = 24 * 3600,
};

/* ---- offers --------------------------------------------------------------------------------- */

static void give_back(struct broker *b, struct job *job)
{
    mq_reject(b->mq, job->tag, true);
    slots_remove(&b->slots, job);
}

/* An offer we hold already, or run: the double is void. True when it was one. */
static bool is_double(struct broker *b, const struct wire_offer *o, const struct mq_delivery *d)
{
    if (!slots_find(&b->slots, o->task, o->attempt))
        return false;
    mq_ack(b->mq, d->tag);
    return true;
}

void broker_on_offer(struct broker *b, const struct mq_delivery *d, enum lane lane)
{
    if (b->drain != DRAIN_NO) {
        mq_reject(b->mq, d->tag, true);
        return;
    }
    struct err err = ERR_INIT;
    struct wire_message m = {0};
    bool ok = wire_decode(d->type, d->body, d->len, &m, &err);
    if (ok && m.type != WIRE_OFFER)
        ok = err_set(&err, ERR_BAD_MESSAGE, 0, "a task queue holds offers only, not %s",
                     wire_type_name(m.type));
    if (!ok) {
        log_err(LOG_LEVEL_WARN, "offer_buried", &err);
        mq_bury(b->mq, d, &err);
        wire_free(&m);
        return;
    }
    if (is_double(b, m.as, d)) {
        wire_free(&m);
        return;
    }
    struct job *job = slots_add(&b->slots, &m, lane, d->tag);
    job->until_ms = broker_now(b) + HOLD_MS;
    /* An older run of the same task can only be one that the coordinator has given up: ask, so that
     * it learns of it and ends. */
    struct job *older = slots_running_task(&b->slots, job->task);
    if (older)
        broker_publish_claim(b, older, older->fence);
    broker_tick_jobs(b);
}

void broker_forget_offers(struct broker *b)
{
    for (struct job *job = b->slots.jobs, *next; job; job = next) {
        next = job->next;
        if (job->state != JOB_RUNNING)
            slots_remove(&b->slots, job);
    }
}

void broker_give_back_offers(struct broker *b)
{
    for (struct job *job = b->slots.jobs, *next; job; job = next) {
        next = job->next;
        if (job->state != JOB_RUNNING)
            give_back(b, job);
    }
}

void broker_tick_jobs(struct broker *b)
{
    int64_t now = broker_now(b);
    for (struct job *job = b->slots.jobs, *next; job; job = next) {
        next = job->next;
        if (job->state == JOB_RUNNING)
            continue;
        if (slots_can_claim(&b->slots, job)) {
            job->state = JOB_CLAIMED;
            job->until_ms = now + b->conf->lease.claim_s * 1000;
            broker_publish_claim(b, job, 0);
        } else if (now >= job->until_ms && job->state == JOB_CLAIMED) {
            job->state = JOB_PAUSED;
            job->until_ms = now + backoff_next_ms(&b->claim_pause);
            log_warn("claim_not_answered", LOG_STR("task", job->task));
        } else if (now >= job->until_ms) {
            give_back(b, job);
        }
    }
}

void broker_set_prefetch(struct broker *b)
{
    for (int lane = 0; lane < LANE_COUNT; lane++) {
        int want = b->drain == DRAIN_NO ? slots_not_running(&b->slots, (enum lane)lane) : 0;
        mq_subscribe(b->mq, b->task_queues[lane], want);
    }
}

/* ---- runs ----------------------------------------------------------------------------------- */

/* `sent_ms`: when the claim was sent that was granted. */
static void start(struct broker *b, struct job *job, const struct wire_grant *g, int64_t sent_ms)
{
    mq_ack(b->mq, job->tag);
    backoff_reset(&b->claim_pause);
    job->state = JOB_RUNNING;
    job->fence = g->fence;
    job->granted_ms = broker_now(b);
    struct order *o = order_new(ORDER_RUN, job->task, g->fence);
    o->offer = job->message;
    job->message = (struct wire_message){0};
    o->lease_ms = b->lease_ms = g->lease_s * 1000;
    o->sent_ms = sent_ms;
    broker_order(b, o);
    b->presence_due_ms = 0; /* tell that it runs */
}

static void drop_offer(struct broker *b, struct job *job)
{
    mq_ack(b->mq, job->tag);
    slots_remove(&b->slots, job);
}

/* The claim that an answer is about; NULL: not one that this process made. */
static const struct claim *claim_of(const struct broker *b, const char *id)
{
    return id ? claims_find(&b->claims, id) : NULL;
}

static void on_grant(struct broker *b, const struct wire_grant *g, const char *claim_id)
{
    struct job *job = slots_find(&b->slots, g->task, g->attempt);
    const struct claim *claim = claim_of(b, claim_id);
    if (job && job->state == JOB_RUNNING) {
        if (job->fence != g->fence || !claim)
            return;
        struct order *o = order_new(ORDER_GRANTED, job->task, job->fence);
        o->sent_ms = claim->sent_ms;
        broker_order(b, o);
    } else if (slots_has_ended(&b->slots, g->task, g->fence)) {
        /* Offer and grant came twice, and this run has ended here already: never again. */
        if (job)
            drop_offer(b, job);
    } else if (job && claim && slots_can_run(&b->slots, job)) {
        /* Also when the offer came anew after the claim: it is the same attempt. */
        start(b, job, g, claim->sent_ms);
    } else {
        /* The answer to a claim whose offer went back meanwhile, or of another process of our name.
         * Let it be offered again, as the next attempt. */
        broker_publish_released(b, g->task, g->attempt, g->fence);
        if (job)
            drop_offer(b, job);
    }
}

static void on_deny(struct broker *b, const struct wire_deny *deny, const char *claim_id)
{
    const struct claim *claim = claim_of(b, claim_id);
    struct job *job = slots_find(&b->slots, deny->task, deny->attempt);
    if (!job)
        return;
    log_info("claim_denied", LOG_STR("task", job->task), LOG_STR("reason", deny->reason));
    if (job->state == JOB_RUNNING) {
        if (claim && claim->fence != job->fence)
            return; /* a claim of its offer, made anew and answered late: the run was granted before
                     */
        broker_order(b, order_new(ORDER_DENIED, job->task, job->fence));
        return;
    }
    drop_offer(b, job);
}

static void on_stop(struct broker *b, const struct wire_stop *stop)
{
    for (struct job *job = b->slots.jobs, *next; job; job = next) {
        next = job->next;
        if (strcmp(job->task, stop->task) != 0)
            continue;
        if (job->state != JOB_RUNNING) {
            drop_offer(b, job);
            continue;
        }
        log_info("task_stopped", LOG_STR("task", job->task), LOG_STR("reason", stop->reason));
        struct order *o = order_new(ORDER_STOP, job->task, job->fence);
        o->reason = xstrdup_or_null(stop->reason);
        broker_order(b, o);
    }
}

/* Moved into the order: it is a large message. */
static void on_parted(struct broker *b, struct wire_message *m)
{
    const struct wire_parted *parted = m->as;
    const struct job *job = slots_find(&b->slots, parted->task, parted->attempt);
    if (!job || job->state != JOB_RUNNING || job->fence != parted->fence)
        return;
    struct order *o = order_new(ORDER_PARTED, job->task, job->fence);
    o->parted = *m;
    *m = (struct wire_message){0};
    broker_order(b, o);
}

static bool is_for_us(const struct broker *b, const char *worker)
{
    return !worker || strcmp(worker, b->conf->name) == 0;
}

static bool check_grant(const struct wire_grant *g)
{
    return g->fence > 0 && g->lease_s > 0 && g->lease_s <= LEASE_MAX_S;
}

static void obey(struct broker *b, struct wire_message *m, const char *correlation_id)
{
    switch ((int)m->type) {
    case WIRE_GRANT: {
        const struct wire_grant *g = m->as;
        if (!check_grant(g))
            log_warn("grant_ignored", LOG_I64("fence", g->fence), LOG_I64("lease_s", g->lease_s));
        else if (is_for_us(b, g->worker))
            on_grant(b, g, correlation_id);
        break;
    }
    case WIRE_DENY: {
        const struct wire_deny *deny = m->as;
        if (is_for_us(b, deny->worker))
            on_deny(b, deny, correlation_id);
        break;
    }
    case WIRE_STOP: {
        const struct wire_stop *stop = m->as;
        if (is_for_us(b, stop->worker))
            on_stop(b, stop);
        break;
    }
    case WIRE_PARTED: {
        const struct wire_parted *parted = m->as;
        if (is_for_us(b, parted->worker))
            on_parted(b, m);
        break;
    }
    case WIRE_DRAIN: {
        const struct wire_drain *drain = m->as;
        if (is_for_us(b, drain->worker) && b->drain == DRAIN_NO) {
            log_info("drain_ordered");
            b->drain = DRAIN_FINISH;
            b->drain_until_ms = INT64_MAX; /* told by an operator: as long as it takes */
            b->presence_due_ms = 0;
            broker_give_back_offers(b);
        }
        break;
    }
    case WIRE_CHECKUP: {
        const struct wire_checkup *checkup = m->as;
        if (is_for_us(b, checkup->worker))
            broker_on_checkup(b, checkup);
        break;
    }
    default:
        log_warn("control_ignored", LOG_STR("type", wire_type_name(m->type)));
    }
}

void broker_on_control(struct broker *b, const struct mq_delivery *d)
{
    struct err err = ERR_INIT;
    struct wire_message m = {0};
    if (!wire_decode(d->type, d->body, d->len, &m, &err)) {
        log_err(LOG_LEVEL_WARN, "control_buried", &err);
        mq_bury(b->mq, d, &err);
        return;
    }
    obey(b, &m, d->correlation_id);
    wire_free(&m);
    mq_ack(b->mq, d->tag);
}

void broker_reconfirm(struct broker *b)
{
    for (struct job *job = b->slots.jobs; job; job = job->next) {
        if (job->state == JOB_RUNNING)
            broker_publish_claim(b, job, job->fence);
    }
}

void broker_ask(struct broker *b, const struct note *n)
{
    struct job *job = slots_running_task(&b->slots, n->task);
    if (job && job->fence == n->fence)
        broker_publish_claim(b, job, job->fence);
}

void broker_note_ended(struct broker *b, const struct note *n)
{
    for (struct job *job = b->slots.jobs, *next; job; job = next) {
        next = job->next;
        if (job->state == JOB_RUNNING && job->fence == n->fence && strcmp(job->task, n->task) == 0)
            slots_remove(&b->slots, job);
    }
    b->presence_due_ms = 0; /* tell that a slot is free */
}
