/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/runner/runner.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "proto/base/log.h"
#include "worker/runner/lease.h"

enum {
    ORDERS_MAX_BYTES = 4 << 20,
    NOTES_MAX_BYTES = 16 << 20,
    LEASE_SLICE_MS = 250,
    LEAVING_OUTAGE_MS = 20 * 1000,
};

enum stop { STOP_NONE, STOP_CANCEL, STOP_LEAVE };

/* One running task. Belongs to the runner's thread, except what its task thread uses: offer, fence,
 * lease, stop, reason, parted. */
struct active {
    struct active *next;
    struct runner *runner;
    struct wire_message message; /* the offer */
    const struct wire_offer *offer;
    int64_t fence;
    struct lease *lease;
    pthread_t thread;
    _Atomic int stop;                    /* enum stop */
    char *_Atomic reason;                /* set once, before `stop`; freed with the active */
    struct wire_message *_Atomic parted; /* the newest that the run has not taken; heap */
};

struct runner {
    struct runner_opts opts;
    struct queue *orders, *notes;
    pthread_t thread;
    /* Of the runner's thread: */
    struct active *active;
    unsigned number;
    bool connected;
};

static void push_order(struct runner *r, struct order *o)
{
    if (!queue_push(r->orders, o, sizeof *o))
        order_free(o);
}

static void push_note(struct runner *r, struct note *n)
{
    if (!queue_push(r->notes, n, note_bytes(n)))
        note_free(n);
}

/* ---- what a task thread sees ---------------------------------------------------------------- */

static bool ops_stopped(void *ctx, struct err *err)
{
    struct active *a = ctx;
    if (lease_is_lost(a->lease)) {
        err_set(err, ERR_LEASE_LOST, 0, "another run owns the task now");
        return true;
    }
    if (atomic_load(&a->stop) == STOP_NONE)
        return false;
    const char *reason = atomic_load(&a->reason);
    err_set(err, ERR_CANCELLED, 0, "stopped: %s", reason ? reason : "cancelled");
    return true;
}

static enum run_lease ops_lease_check(void *ctx, struct err *err)
{
    struct active *a = ctx;
    switch (lease_wait(a->lease, LEASE_SLICE_MS, err)) {
    case LEASE_VALID:
        return RUN_LEASE_VALID;
    case LEASE_PENDING:
        return RUN_LEASE_PENDING;
    case LEASE_LOST:
        break;
    }
    return RUN_LEASE_LOST;
}

static bool ops_emit(void *ctx, enum wire_type type, const void *message, bool ahead)
{
    struct active *a = ctx;
    struct err err = ERR_INIT;
    size_t len = 0;
    char *body = wire_encode(type, message, &len, &err);
    if (!body) {
        log_err(LOG_LEVEL_ERROR, "event_not_encoded", &err);
        return false;
    }
    struct note *n = note_new(NOTE_EVENT, a->offer->task, a->fence);
    n->attempt = a->offer->attempt;
    n->type = type;
    n->body = body;
    n->len = len;
    n->ahead = ahead;
    snprintf(n->request, sizeof n->request, "%s", a->offer->request ? a->offer->request : "");
    if (ahead)
        lease_ahead_sent(a->lease);
    push_note(a->runner, n);
    return true;
}

static bool ops_is_leaving(void *ctx)
{
    struct active *a = ctx;
    return atomic_load(&a->stop) == STOP_LEAVE;
}

static void parted_free(struct wire_message *m)
{
    if (m)
        wire_free(m);
    free(m);
}

static bool ops_take_parted(void *ctx, struct wire_message *ret)
{
    struct active *a = ctx;
    struct wire_message *m = atomic_exchange(&a->parted, NULL);
    if (!m)
        return false;
    *ret = *m;
    free(m);
    return true;
}

static void ask_for_lease(void *ctx)
{
    struct active *a = ctx;
    struct note *n = note_new(NOTE_ASK, a->offer->task, a->fence);
    n->attempt = a->offer->attempt;
    push_note(a->runner, n);
}

static const struct run_ops active_ops = {
    .lease_check = ops_lease_check,
    .stopped = ops_stopped,
    .emit = ops_emit,
    .is_leaving = ops_is_leaving,
    .take_parted = ops_take_parted,
};

struct started {
    struct active *active;
    unsigned number;
};

static void *task_thread(void *arg)
{
    struct started *started = arg;
    struct active *a = started->active;
    char name[16];
    snprintf(name, sizeof name, "task-%u", started->number);
    free(started);
    log_set_thread(name);
    struct err err = ERR_INIT;
    (void)execute_task(
        a->runner->opts.env,
        &(struct execution){.offer = a->offer, .fence = a->fence, .ops = &active_ops, .ops_ctx = a},
        &err);
    push_order(a->runner, order_new(ORDER_OVER, a->offer->task, a->fence));
    return NULL;
}

/* ---- the runner's own thread ---------------------------------------------------------------- */

static void active_free(struct active *a)
{
    lease_free(a->lease);
    wire_free(&a->message);
    free(atomic_load(&a->reason));
    parted_free(atomic_load(&a->parted));
    free(a);
}

static struct active *find(const struct runner *r, const struct order *o)
{
    for (struct active *a = r->active; a; a = a->next) {
        if (a->fence == o->fence && strcmp(a->offer->task, o->task) == 0)
            return a;
    }
    return NULL;
}

static void on_run(struct runner *r, struct order *o)
{
    struct active *a = ALLOC_NEW(struct active);
    a->runner = r;
    a->message = o->offer;
    o->offer = (struct wire_message){0};
    a->offer = a->message.as;
    a->fence = o->fence;
    a->lease = lease_new(&(struct lease_opts){.clock = r->opts.env->clock,
                                              .lease_ms = o->lease_ms,
                                              .outage_ms = r->opts.outage_ms,
                                              .ask = ask_for_lease,
                                              .ctx = a},
                         o->sent_ms);
    lease_set_connected(a->lease, r->connected);
    struct started *started = ALLOC_NEW(struct started);
    *started = (struct started){.active = a, .number = ++r->number};
    a->next = r->active;
    r->active = a;
    /* Out of threads is like out of memory: die, and let the lease expire. */
    if (pthread_create(&a->thread, NULL, task_thread, started) != 0)
        abort();
}

static void stop_one(struct active *a, enum stop why, char *reason)
{
    if (atomic_load(&a->stop) != STOP_NONE) {
        free(reason);
        return;
    }
    atomic_store(&a->reason, reason);
    atomic_store(&a->stop, why);
}

static void stop_all(struct runner *r)
{
    for (struct active *a = r->active; a; a = a->next) {
        stop_one(a, STOP_LEAVE, xstrdup("the worker is leaving"));
        /* Its clean-up needs the lease. Without the broker it is another worker's, later. */
        lease_limit_outage(a->lease, LEAVING_OUTAGE_MS);
    }
}

static void on_stop(struct runner *r, struct order *o)
{
    /* Whatever its fence: it is the task that was cancelled. */
    for (struct active *a = r->active; a; a = a->next) {
        if (strcmp(a->offer->task, o->task) == 0)
            stop_one(a, STOP_CANCEL, TAKE(o->reason));
    }
}

static void on_over(struct runner *r, const struct order *o)
{
    for (struct active **at = &r->active; *at; at = &(*at)->next) {
        struct active *a = *at;
        if (a->fence != o->fence || strcmp(a->offer->task, o->task) != 0)
            continue;
        *at = a->next;
        pthread_join(a->thread, NULL);
        struct note *n = note_new(NOTE_ENDED, a->offer->task, a->fence);
        n->attempt = a->offer->attempt;
        push_note(r, n);
        active_free(a);
        return;
    }
}

static void on_lease(struct runner *r, const struct order *o)
{
    struct active *a = find(r, o);
    if (!a)
        return; /* it has just ended */
    if (o->kind == ORDER_GRANTED)
        lease_granted(a->lease, o->sent_ms);
    else if (o->kind == ORDER_DENIED)
        lease_denied(a->lease);
    else
        lease_confirmed(a->lease, o->sent_ms);
    if (o->ahead)
        lease_ahead_confirmed(a->lease);
}

static void on_parted(struct runner *r, struct order *o)
{
    struct active *a = find(r, o);
    if (!a)
        return; /* it has just ended */
    struct wire_message *m = ALLOC_NEW(struct wire_message);
    *m = o->parted;
    o->parted = (struct wire_message){0};
    parted_free(atomic_exchange(&a->parted, m));
}

static void on_connection(struct runner *r, const struct order *o)
{
    r->connected = o->connected;
    for (struct active *a = r->active; a; a = a->next)
        lease_set_connected(a->lease, o->connected);
}

/* False when the thread should end, after the last run. */
static bool obey(struct runner *r, struct order *o)
{
    switch (o->kind) {
    case ORDER_RUN:
        on_run(r, o);
        return true;
    case ORDER_STOP:
        on_stop(r, o);
        return true;
    case ORDER_SHUTDOWN:
        stop_all(r);
        return true;
    case ORDER_GRANTED:
    case ORDER_CONFIRMED:
    case ORDER_DENIED:
        on_lease(r, o);
        return true;
    case ORDER_CONNECTION:
        on_connection(r, o);
        return true;
    case ORDER_PARTED:
        on_parted(r, o);
        return true;
    case ORDER_OVER:
        on_over(r, o);
        return true;
    case ORDER_QUIT:
        stop_all(r);
        return false;
    }
    return true;
}

static void *runner_thread(void *arg)
{
    struct runner *r = arg;
    log_set_thread("runner");
    bool go_on = true;
    while (go_on || r->active) {
        struct order *o = queue_pop(r->orders);
        if (!o)
            break;
        go_on = obey(r, o) && go_on;
        order_free(o);
    }
    return NULL;
}

struct runner *runner_new(const struct runner_opts *opts)
{
    struct runner *r = ALLOC_NEW(struct runner);
    r->opts = *opts;
    r->connected = true;
    r->orders = queue_new(ORDERS_MAX_BYTES, order_free);
    r->notes = queue_new(NOTES_MAX_BYTES, note_free);
    if (pthread_create(&r->thread, NULL, runner_thread, r) != 0)
        abort();
    return r;
}

void runner_free(struct runner *r)
{
    if (!r)
        return;
    push_order(r, order_new(ORDER_QUIT, NULL, 0));
    queue_close(r->notes); /* nobody reads them any more: let no task wait for room */
    pthread_join(r->thread, NULL);
    queue_free(r->orders);
    queue_free(r->notes);
    free(r);
}

struct queue *runner_orders(struct runner *r)
{
    return r->orders;
}

struct queue *runner_notes(struct runner *r)
{
    return r->notes;
}
