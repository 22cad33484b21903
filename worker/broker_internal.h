/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the broker thread share; nobody else includes this. */
#pragma once

#include "proto/wire/mq.h"
#include "worker/broker.h"
#include "worker/claims.h"
#include "worker/flights.h"
#include "worker/slots.h"

enum drain { DRAIN_NO, DRAIN_FINISH /* let running tasks end */, DRAIN_STOP /* stop them */ };

struct broker {
    const struct worker_conf *conf;
    const struct clock *clock;
    struct queue *orders, *notes;
    struct mq *mq;
    char *control_queue;
    char *task_queues[LANE_COUNT];
    struct mq_declare *declare;
    char host[256];

    struct slots slots;
    struct flights flights;
    struct claims claims;
    struct backoff claim_pause; /* between giving unanswered offers back */
    bool is_blocked;            /* the broker is there, and takes nothing (an alarm) */
    int64_t presence_due_ms;
    int64_t lease_ms; /* of the last grant; 0 = none yet */

    /* Notes that could not be published, in order: the queue is full, or nobody listened. */
    struct note **retry;
    size_t retry_count, retry_room;
    int64_t retry_due_ms;

    struct checkup *checkup;       /* under way; NULL = none */
    struct engine *checkup_engine; /* its connection; only its thread touches it while one is */

    enum drain drain;
    int64_t drain_until_ms;
};

static inline int64_t broker_now(const struct broker *b)
{
    return clock_mono_ms(b->clock);
}

/* broker_jobs.c: offers, claims, grants, runs. */
void broker_on_offer(struct broker *b, const struct mq_delivery *d, enum lane lane);
void broker_on_control(struct broker *b, const struct mq_delivery *d);
/* The connection is gone: so are the offers we held. */
void broker_forget_offers(struct broker *b);
/* Ask whether each running task is still ours. */
void broker_reconfirm(struct broker *b);
/* What has become due: claims, give-backs. */
void broker_tick_jobs(struct broker *b);
void broker_set_prefetch(struct broker *b);
void broker_note_ended(struct broker *b, const struct note *n);
void broker_ask(struct broker *b, const struct note *n);
void broker_give_back_offers(struct broker *b);

/* broker_checkup.c */
void broker_on_checkup(struct broker *b, const struct wire_checkup *m);
/* Answers that have become due. */
void broker_tick_checkup(struct broker *b);
void broker_end_checkup(struct broker *b);

/* broker_publish.c */
void broker_publish_checked(struct broker *b, const struct wire_checked *m);
void broker_publish_claim(struct broker *b, struct job *job, int64_t fence);
void broker_publish_presence(struct broker *b);
/* "released": the grant came, but it will not be run here. */
void broker_publish_released(struct broker *b, const char *task, int64_t attempt, int64_t fence);
/* Takes the note. */
void broker_publish_note(struct broker *b, struct note *n);
void broker_on_confirm(struct broker *b, uint64_t token, enum mq_outcome outcome);
void broker_retry(struct broker *b);

void broker_order(struct broker *b, struct order *o);

/* How often leases are renewed: as configured, but three times in a lease at least. */
static inline int64_t broker_presence_ms(const struct broker *b)
{
    int64_t ms = b->conf->lease.presence_s * 1000;
    return b->lease_ms && b->lease_ms / 3 < ms ? b->lease_ms / 3 : ms;
}
