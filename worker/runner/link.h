/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the runner and the broker thread say to each other: two queues, nothing else. Items are
 * heap objects handed over whole (proto/base/queue.h).
 *
 *   order: broker -> runner     start this, stop that, your lease was renewed or denied
 *   note:  runner -> broker     publish this event, confirm this lease, this run has ended
 */
#pragma once

#include "proto/base/id.h"
#include "proto/wire/message.h"

enum order_kind {
    ORDER_RUN,        /* a granted offer: start it */
    ORDER_STOP,       /* somebody cancelled it */
    ORDER_SHUTDOWN,   /* stop every run and clean up: the worker must leave */
    ORDER_GRANTED,    /* the lease was granted again */
    ORDER_CONFIRMED,  /* a renewing message was confirmed by the broker */
    ORDER_DENIED,     /* the lease is lost */
    ORDER_CONNECTION, /* the broker is there, or away */
    ORDER_PARTED,     /* the coordinator's answer about the run's parts */
    ORDER_OVER,       /* a task thread's own last word */
    ORDER_QUIT,       /* stop every run and end the runner's thread after the last */
};
struct order {
    enum order_kind kind;
    char task[ID_BYTES];
    int64_t fence;
    struct wire_message offer;  /* RUN: owned */
    struct wire_message parted; /* PARTED: owned */
    int64_t lease_ms;           /* RUN */
    int64_t sent_ms;            /* RUN, GRANTED, CONFIRMED: when the renewing message was sent */
    bool ahead;                 /* CONFIRMED: it was one that the run waits for */
    bool connected;             /* CONNECTION */
    char *reason;               /* STOP: owned, may be NULL */
};
struct order *order_new(enum order_kind kind, const char *task, int64_t fence);
void order_free(void *order);

enum note_kind {
    NOTE_EVENT, /* publish `body` */
    NOTE_ASK,   /* claim again with the fence, to confirm the lease */
    NOTE_ENDED, /* the run is over and its thread gone: the slot is free */
};
struct note {
    enum note_kind kind;
    char task[ID_BYTES];
    int64_t attempt, fence;
    enum wire_type type; /* EVENT */
    char *body;          /* EVENT: owned, encoded */
    size_t len;
    bool ahead;             /* EVENT: the run waits for its confirmation */
    char request[ID_BYTES]; /* EVENT: correlation id */
};
struct note *note_new(enum note_kind kind, const char *task, int64_t fence);
void note_free(void *note);
/* What a note weighs in a queue. */
size_t note_bytes(const struct note *note);
