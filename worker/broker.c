/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/broker.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <systemd/sd-daemon.h>

#include "proto/base/log.h"
#include "worker/broker_internal.h"

enum {
    TICK_MS = 500,
    CONTROL_PREFETCH = 100,
    MAX_PENDING = 5000,
    CLAIM_PAUSE_MIN_MS = 1000,
    CLAIM_PAUSE_MAX_MS = 60 * 1000,
    GOODBYE_MS = 15 * 1000, /* to get the last words out when leaving */
};

void broker_order(struct broker *b, struct order *o)
{
    if (!queue_push(b->orders, o, sizeof *o))
        order_free(o);
}

/* ---- the connection's callbacks ------------------------------------------------------------- */

static void order_connection(struct broker *b, bool connected)
{
    struct order *o = order_new(ORDER_CONNECTION, NULL, 0);
    o->connected = connected;
    broker_order(b, o);
}

static void on_connected(void *ctx)
{
    struct broker *b = ctx;
    log_info("broker_connected");
    order_connection(b, true);
    broker_reconfirm(b);
    broker_publish_presence(b);
    b->presence_due_ms = broker_now(b) + broker_presence_ms(b);
}

static void on_lost(void *ctx, const struct err *why)
{
    struct broker *b = ctx;
    log_err(LOG_LEVEL_WARN, "broker_lost", why);
    broker_forget_offers(b);
    order_connection(b, false);
}

static void on_delivery(void *ctx, const struct mq_delivery *d)
{
    struct broker *b = ctx;
    if (strcmp(d->queue, b->control_queue) == 0) {
        broker_on_control(b, d);
        return;
    }
    for (int lane = 0; lane < LANE_COUNT; lane++) {
        if (strcmp(d->queue, b->task_queues[lane]) == 0) {
            broker_on_offer(b, d, (enum lane)lane);
            return;
        }
    }
}

static void on_confirm(void *ctx, uint64_t token, enum mq_outcome outcome)
{
    broker_on_confirm(ctx, token, outcome);
}

/* As good as away: nothing that we say is heard, and nobody can be asked about a lease. */
static void on_blocked(void *ctx, bool blocked, const char *reason)
{
    struct broker *b = ctx;
    if (blocked)
        log_warn("broker_blocked", LOG_STR("reason", reason));
    else
        log_info("broker_unblocked");
    b->is_blocked = blocked;
    order_connection(b, !blocked);
    if (blocked || !mq_is_connected(b->mq))
        return;
    broker_reconfirm(b);
    b->presence_due_ms = 0;
}

/* ---- notes of the runner -------------------------------------------------------------------- */

static void take_notes(struct broker *b)
{
    struct note *n;
    /* While something cannot be published, the rest waits in the runner's bounded queue. */
    while (b->retry_count == 0 && (n = queue_try_pop(b->notes))) {
        switch (n->kind) {
        case NOTE_EVENT:
            broker_publish_note(b, n); /* takes it */
            continue;
        case NOTE_ASK:
            broker_ask(b, n);
            break;
        case NOTE_ENDED:
            broker_note_ended(b, n);
            break;
        }
        note_free(n);
    }
}

/* ---- leaving -------------------------------------------------------------------------------- */

void broker_block_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
}

static int open_signals(struct err *err)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0)
        err_set_errno(err, errno, "signalfd");
    return fd;
}

static void stop_tasks(struct broker *b)
{
    log_warn("tasks_stopped", LOG_U64("running", slots_count_running(&b->slots)));
    b->drain = DRAIN_STOP;
    broker_order(b, order_new(ORDER_SHUTDOWN, NULL, 0));
}

static void on_term(struct broker *b)
{
    if (b->drain == DRAIN_NO) {
        log_info("draining", LOG_U64("running", slots_count_running(&b->slots)),
                 LOG_I64("limit_s", b->conf->wait.drain_s));
        b->drain = DRAIN_FINISH;
        b->presence_due_ms = 0;
        broker_give_back_offers(b);
        (void)sd_notify(0, "STOPPING=1\nSTATUS=draining");
    } else if (b->drain == DRAIN_FINISH && b->drain_until_ms != INT64_MAX) {
        stop_tasks(b);
        return;
    }
    b->drain_until_ms = broker_now(b) + b->conf->wait.drain_s * 1000;
}

static void read_signals(struct broker *b, int fd)
{
    struct signalfd_siginfo info;
    while (read(fd, &info, sizeof info) == sizeof info) {
        if (info.ssi_signo == SIGHUP)
            log_info("sighup_ignored");
        else
            on_term(b);
    }
}

static bool is_heard(const struct broker *b)
{
    return !b->is_blocked && mq_is_connected(b->mq);
}

/* ---- the loop ------------------------------------------------------------------------------- */

static void tick(struct broker *b)
{
    take_notes(b);
    broker_retry(b);
    broker_tick_jobs(b);
    broker_tick_checkup(b);
    if (is_heard(b) && broker_now(b) >= b->presence_due_ms) {
        broker_publish_presence(b);
        b->presence_due_ms = broker_now(b) + broker_presence_ms(b);
    }
    if (b->drain == DRAIN_FINISH && broker_now(b) >= b->drain_until_ms)
        stop_tasks(b);
    broker_set_prefetch(b);
}

/* Up to the next tick, or the next presence if that is earlier. */
static int wait_ms(const struct broker *b)
{
    int64_t presence = b->presence_due_ms - broker_now(b);
    if (!is_heard(b) || presence > TICK_MS)
        return TICK_MS;
    return presence > 0 ? (int)presence : 0;
}

static bool loop(struct broker *b, int signals, struct err *err)
{
    uint64_t watchdog_us = 0;
    bool watchdog = sd_watchdog_enabled(0, &watchdog_us) > 0;
    while (b->drain == DRAIN_NO || slots_count_running(&b->slots) > 0) {
        struct pollfd fds[] = {{.fd = signals, .events = POLLIN},
                               /* Not looked at while its notes could not be published. */
                               {.fd = b->retry_count ? -1 : queue_fd(b->notes), .events = POLLIN}};
        if (!mq_poll(b->mq, fds, ARRAY_LEN(fds), wait_ms(b), err))
            return false;
        if (fds[0].revents & POLLIN)
            read_signals(b, signals);
        tick(b);
        if (watchdog)
            (void)sd_notify(0, "WATCHDOG=1");
    }
    return true;
}

static void say_goodbye(struct broker *b)
{
    struct err err = ERR_INIT;
    take_notes(b);
    b->retry_due_ms = 0;
    broker_retry(b);
    if (!mq_is_connected(b->mq))
        return;
    broker_publish_presence(b);
    if (!mq_flush(b->mq, GOODBYE_MS, &err))
        log_err(LOG_LEVEL_WARN, "last_words_lost", &err);
}

static bool begin(struct broker *b, const struct broker_opts *opts, struct err *err)
{
    const struct worker_conf *conf = opts->conf;
    slots_init(&b->slots, (int)conf->slots.restore, (int)conf->slots.backup,
               (int)conf->slots.upkeep);
    (void)gethostname(b->host, sizeof b->host - 1);
    b->control_queue = topology_control_queue(conf->name);
    b->declare = topology_worker(conf->name);
    SCOPED_FREE char *name = xasprintf("oxbow-worker %s", conf->name);
    struct mq_opts mq = {
        .connection_name = name,
        .declare = b->declare,
        .max_pending = MAX_PENDING,
        .handlers = {on_connected, on_lost, on_delivery, on_confirm, on_blocked, NULL},
        .ctx = b,
        .clock = b->clock,
    };
    if (!broker_conf_apply(&conf->broker, opts->conf_path, &mq, err))
        return false;
    b->mq = mq_new(&mq);
    mq_subscribe(b->mq, b->control_queue, CONTROL_PREFETCH);
    for (int lane = 0; lane < LANE_COUNT; lane++)
        b->task_queues[lane] = topology_task_queue(conf->zone, (enum lane)lane);
    broker_set_prefetch(b);
    order_connection(b, false);
    return true;
}

static void end(struct broker *b)
{
    broker_end_checkup(b);
    mq_free(b->mq);
    topology_free(b->declare);
    flights_done(&b->flights);
    slots_done(&b->slots);
    for (size_t i = 0; i < b->retry_count; i++)
        note_free(b->retry[i]);
    free(b->retry);
    free(b->control_queue);
    for (int lane = 0; lane < LANE_COUNT; lane++)
        free(b->task_queues[lane]);
}

bool broker_run(const struct broker_opts *opts, struct err *err)
{
    struct broker b = {.conf = opts->conf,
                       .clock = clock_system(),
                       .orders = opts->orders,
                       .notes = opts->notes,
                       .claim_pause = BACKOFF(CLAIM_PAUSE_MIN_MS, CLAIM_PAUSE_MAX_MS)};
    SCOPED_FD int signals = open_signals(err);
    bool ok = signals >= 0 && begin(&b, opts, err);
    if (ok) {
        log_info("worker_started", LOG_STR("name", opts->conf->name),
                 LOG_STR("zone", opts->conf->zone), LOG_STR("version", OXBOW_VERSION));
        (void)sd_notify(0, "READY=1\nSTATUS=serving");
        ok = loop(&b, signals, err);
        say_goodbye(&b);
    }
    end(&b);
    return ok;
}
