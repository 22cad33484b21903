/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/broker.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <systemd/sd-daemon.h>

#include "proto/wire/mq.h"
#include "proto/wire/topology.h"

#define PRESENCE "oxbow.coordinator"

enum {
    EVENT_PREFETCH = 200,
    REQUEST_PREFETCH = 20,
    PENDING_MAX = 1000, /* publishes handed to the connection at a time */
    OUTBOX_AT_ONCE = 200,
    CONFIRMED_WAIT_MS = 250, /* confirmed messages are forgotten at the latest after so long */
    RETRY_MS = 5000,         /* a message that found no queue is sent again, ... */
    RETRY_MAX_MS = 300000,   /* ... ever more slowly */
    IDLE_MS = 5000,          /* a turn of the loop at least so often: heartbeats, watchdog */
    LAST_FLUSH_MS = 3000,
    CHECK_MS = 30000,  /* are our queues still there? */
    AMQP_LOCKED = 405, /* resource-locked: somebody else has it exclusively */
};

/* A delivery that waits for its batch. */
struct item {
    uint64_t tag;
    bool is_buried; /* too large to keep: it went to the dead letters as it came */
    char *queue, *type, *message_id, *correlation_id, *reply_to, *content_type, *body;
    size_t len;
    enum desk_verdict verdict;
    struct err why;
};

/* A message that found no queue. It stays on the list until it is confirmed after all. */
struct retry {
    int64_t n;
    int64_t wait_ms, due_ms; /* due_ms: IN_FLIGHT = sent again, not confirmed yet */
};
#define IN_FLIGHT INT64_MAX

struct broker {
    struct desk *desk;
    struct mq *mq;
    const struct clock *clock;
    struct item *items;
    size_t count, capacity;
    int64_t sent_n; /* the last message of the outbox that was handed over */
    struct retry *retries;
    size_t retry_count;
    int64_t committed_ms;
    char **deleted; /* queues that were found deleted, to be handled in the next turn */
    size_t deleted_count;
    bool quit;
    bool was_connected;
    bool stands_by; /* and has said so */
    enum err_code last_loss;
    uint64_t watchdog_us;
};

/* --- Deliveries --- */
static void item_done(struct item *i)
{
    free(i->queue);
    free(i->type);
    free(i->message_id);
    free(i->correlation_id);
    free(i->reply_to);
    free(i->content_type);
    free(i->body);
}

static void too_large(struct broker *b, const struct mq_delivery *d)
{
    struct err why = ERR_INIT;
    err_set(&why, ERR_TOO_LARGE, 0, "body of %zu bytes, at most %d", d->len,
            (int)WIRE_BODY_MAX_BYTES);
    mq_bury(b->mq, d, &why);
}

static void on_delivery(void *ctx, const struct mq_delivery *d)
{
    struct broker *b = ctx;
    if (b->count == b->capacity) {
        b->capacity = b->capacity ? b->capacity * 2 : 64;
        b->items = xreallocarray(b->items, b->capacity, sizeof *b->items);
    }
    struct item *i = &b->items[b->count++];
    *i = (struct item){
        .tag = d->tag,
        .queue = xstrdup(d->queue),
        .type = xstrdup_or_null(d->type),
        .message_id = xstrdup_or_null(d->message_id),
        .correlation_id = xstrdup_or_null(d->correlation_id),
        .reply_to = xstrdup_or_null(d->reply_to),
        .content_type = xstrdup_or_null(d->content_type),
        .len = d->len,
    };
    if (d->len > WIRE_BODY_MAX_BYTES) {
        too_large(b, d);
        i->is_buried = true;
        return;
    }
    i->body = xmalloc(d->len + 1);
    if (d->len)
        memcpy(i->body, d->body, d->len);
    i->body[d->len] = '\0';
}

static void settle(struct broker *b, struct item *i)
{
    if (i->is_buried)
        return;
    if (i->verdict == DESK_DONE) {
        mq_ack(b->mq, i->tag);
        return;
    }
    const struct mq_delivery d = {.tag = i->tag,
                                  .queue = i->queue,
                                  .type = i->type,
                                  .message_id = i->message_id,
                                  .correlation_id = i->correlation_id,
                                  .reply_to = i->reply_to,
                                  .content_type = i->content_type,
                                  .body = i->body,
                                  .len = i->len};
    mq_bury(b->mq, &d, &i->why);
}

static bool handle_items(struct broker *b, struct err *err)
{
    for (size_t n = 0; n < b->count; n++) {
        struct item *i = &b->items[n];
        const struct desk_message m = {
            .source = strcmp(i->queue, TOPOLOGY_REQUESTS) == 0 ? DESK_REQUEST : DESK_EVENT,
            .type = i->type,
            .message_id = i->message_id,
            .correlation_id = i->correlation_id,
            .reply_to = i->reply_to,
            .body = i->body,
            .len = i->len,
        };
        i->verdict = desk_handle(b->desk, &m, &i->why);
        if (i->verdict == DESK_FATAL) {
            *err = i->why;
            return false;
        }
    }
    return true;
}

/* The offers in them are lost. */
static bool handle_deleted(struct broker *b, struct err *err)
{
    bool ok = true;
    for (size_t i = 0; i < b->deleted_count; i++) {
        ok = ok && desk_queue_deleted(b->desk, b->deleted[i], err);
        free(b->deleted[i]);
    }
    b->deleted_count = 0;
    return ok;
}

/* One transaction for all that came. Acknowledged only after the commit. */
static bool turn(struct broker *b, struct err *err)
{
    if (!desk_begin(b->desk, err) || !handle_deleted(b, err) || !handle_items(b, err) ||
        !desk_commit(b->desk, err)) {
        desk_rollback(b->desk);
        return false;
    }
    for (size_t n = 0; n < b->count; n++) {
        settle(b, &b->items[n]);
        item_done(&b->items[n]);
    }
    b->count = 0;
    b->committed_ms = clock_mono_ms(b->clock);
    return true;
}

/* --- Publishing --- */
static struct retry *find_retry(const struct broker *b, int64_t n)
{
    for (size_t i = 0; i < b->retry_count; i++) {
        if (b->retries[i].n == n)
            return &b->retries[i];
    }
    return NULL;
}

static void confirmed(struct broker *b, int64_t n)
{
    struct retry *retry = find_retry(b, n);
    if (retry)
        *retry = b->retries[--b->retry_count];
    desk_confirmed(b->desk, n);
}

static void failed(struct broker *b, int64_t n, const char *why)
{
    struct retry *retry = find_retry(b, n);
    if (!retry) {
        b->retries = xreallocarray(b->retries, b->retry_count + 1, sizeof *b->retries);
        retry = &b->retries[b->retry_count++];
        *retry = (struct retry){.n = n, .wait_ms = RETRY_MS / 2};
    }
    retry->wait_ms = retry->wait_ms * 2 < RETRY_MAX_MS ? retry->wait_ms * 2 : RETRY_MAX_MS;
    retry->due_ms = clock_mono_ms(b->clock) + retry->wait_ms;
    log_warn("publish_failed", LOG_I64("outbox", n), LOG_STR("why", why),
             LOG_I64("again_ms", retry->wait_ms));
}

static void on_confirm(void *ctx, uint64_t token, enum mq_outcome outcome)
{
    struct broker *b = ctx;
    if (token == 0)
        return; /* a progress reply */
    if (outcome == MQ_CONFIRMED)
        confirmed(b, (int64_t)token);
    else
        failed(b, (int64_t)token,
               outcome == MQ_RETURNED ? "no queue takes it" : "the broker refused it");
    if (outcome == MQ_RETURNED)
        mq_check_declared(b->mq);
}

/* False when the connection takes no more for now. */
static bool publish(struct broker *b, const struct outgoing *m)
{
    struct err err = ERR_INIT;
    enum wire_type type;
    const struct mq_message message = {
        .exchange = m->exchange,
        .routing_key = m->routing_key,
        .type = wire_type_parse(m->type, &type, &err) ? type : WIRE_TYPE_COUNT,
        .message_id = m->message_id,
        .correlation_id = m->correlation_id,
        .body = m->body,
        .len = strlen(m->body),
        .optional_route = m->optional_route,
        .token = (uint64_t)m->n,
    };
    if (message.type != WIRE_TYPE_COUNT && mq_publish(b->mq, &message, &err))
        return true;
    if (message.type != WIRE_TYPE_COUNT && mq_pending(b->mq) > 0)
        return false;
    /* Nothing is in its way: it can never be sent. Keeping it would stop all that follow. */
    log_err(LOG_LEVEL_ERROR, "publish_impossible", &err);
    desk_confirmed(b->desk, m->n);
    return true;
}

static bool publish_retries(struct broker *b, struct err *err)
{
    int64_t now_ms = clock_mono_ms(b->clock);
    for (size_t i = 0; i < b->retry_count && mq_is_connected(b->mq); i++) {
        struct retry *retry = &b->retries[i];
        struct outgoing_list list;
        if (retry->due_ms > now_ms)
            continue;
        if (!desk_outbox_get(b->desk, retry->n, &list, err))
            return false;
        bool sent = list.count == 0 || publish(b, &list.v[0]);
        outgoing_list_done(&list);
        if (!sent)
            break;
        retry->due_ms = IN_FLIGHT;
    }
    return true;
}

static bool publish_outbox(struct broker *b, struct err *err)
{
    while (mq_pending(b->mq) < PENDING_MAX) {
        struct outgoing_list list;
        if (!desk_outbox(b->desk, b->sent_n, OUTBOX_AT_ONCE, &list, err))
            return false;
        size_t sent = 0;
        while (sent < list.count && publish(b, &list.v[sent]))
            b->sent_n = list.v[sent++].n;
        bool more = sent == list.count && sent == OUTBOX_AT_ONCE;
        outgoing_list_done(&list);
        if (!more)
            break;
    }
    return true;
}

/* Progress goes out before the outcomes of the same batch, and not at all when there is a queue. */
static void publish_fleeting(struct broker *b)
{
    size_t count;
    const struct fleeting *f = desk_fleeting(b->desk, &count);
    for (size_t i = 0; i < count && mq_is_connected(b->mq) && mq_pending(b->mq) < PENDING_MAX;
         i++) {
        struct err ignored = ERR_INIT;
        const struct mq_message m = {.exchange = "",
                                     .routing_key = f[i].reply_to,
                                     .type = WIRE_PROGRESS,
                                     .correlation_id = f[i].correlation_id,
                                     .body = f[i].body,
                                     .len = strlen(f[i].body),
                                     .optional_route = true};
        (void)mq_publish(b->mq, &m, &ignored);
    }
    desk_drop_fleeting(b->desk);
}

/* --- The connection --- */
static void tell_status(const struct broker *b, const char *what)
{
    const struct core_counters *c = desk_counters(b->desk);
    sd_notifyf(0, "STATUS=%s; %llu requests, %llu tasks granted, %llu lost", what,
               (unsigned long long)c->requests, (unsigned long long)c->granted,
               (unsigned long long)c->lost);
}

static void on_connected(void *ctx)
{
    struct broker *b = ctx;
    b->was_connected = true;
    desk_set_connected(b->desk, true);
    log_info("broker_connected", LOG_STR("after", b->stands_by ? "standing by" : NULL));
    b->stands_by = false;
    tell_status(b, "connected");
}

/* Another coordinator is at work on this virtual host, with a ledger of its own. Ours does nothing
 * until that one has gone; then it takes over with what its own ledger says, which is worth a word:
 * it may be a copy, or an empty one. */
static void stand_by(struct broker *b)
{
    if (!b->stands_by)
        log_warn("standing_by",
                 LOG_STR("message",
                         "another coordinator is connected to this virtual host (queue " PRESENCE
                         "): this one does nothing, and takes over when that one is gone; if it "
                         "was started by mistake, stop it"));
    b->stands_by = true;
    sd_notify(0, "STATUS=standing by: another coordinator is connected to this virtual host");
}

static void on_lost(void *ctx, const struct err *why)
{
    struct broker *b = ctx;
    desk_set_connected(b->desk, false);
    if (why->code == ERR_BROKER_TOPOLOGY && why->sys == AMQP_LOCKED) {
        stand_by(b);
        b->was_connected = false;
        return;
    }
    /* Once per outage and kind; the attempts in between for who asks. */
    bool news = b->was_connected || why->code != b->last_loss;
    log_err(news ? LOG_LEVEL_WARN : LOG_LEVEL_DEBUG, "broker_lost", why);
    b->was_connected = false;
    b->last_loss = why->code;
    if (news)
        sd_notifyf(0, "STATUS=no broker: %s", why->message);
}

static void on_blocked(void *ctx, bool blocked, const char *reason)
{
    struct broker *b = ctx;
    if (blocked)
        log_warn("broker_blocked", LOG_STR("reason", reason));
    else
        log_info("broker_unblocked");
    /* It takes nothing from the workers either: no lease can be renewed, none runs out. */
    desk_set_connected(b->desk, !blocked);
    tell_status(b, blocked ? "the broker takes no messages (alarm)" : "connected");
}

static void on_deleted(void *ctx, const char *queue)
{
    struct broker *b = ctx;
    b->deleted = xreallocarray(b->deleted, b->deleted_count + 1, sizeof *b->deleted);
    b->deleted[b->deleted_count++] = xstrdup(queue);
}

static bool connect_to(struct broker *b, const struct coordinator_conf *conf, const char *origin,
                       const struct mq_declare *declare, struct err *err)
{
    struct mq_opts opts = {
        .connection_name = "oxbow-coordinator",
        .declare = declare,
        .max_pending = PENDING_MAX * 4,
        /* Well before a lease runs out for want of renewals that an alarm holds back. */
        .probe_ms = conf->lease_s * 1000 / 2,
        .check_ms = CHECK_MS,
        .handlers = {on_connected, on_lost, on_delivery, on_confirm, on_blocked, on_deleted},
        .ctx = b,
        .clock = b->clock,
    };
    if (!broker_conf_apply(&conf->broker, origin, &opts, err))
        return false;
    b->mq = mq_new(&opts);
    mq_subscribe(b->mq, TOPOLOGY_LEDGER, EVENT_PREFETCH);
    mq_subscribe(b->mq, TOPOLOGY_REQUESTS, REQUEST_PREFETCH);
    return true;
}

/* Held while connected: two coordinators with two ledgers on one virtual host would each deny what
 * the other granted. The second one cannot declare it, and tries again until the first is gone. */
static struct mq_declare *add_presence(struct mq_declare *list)
{
    size_t count = 0;
    while (list[count].kind != MQ_END)
        count++;
    list = xreallocarray(list, count + 2, sizeof *list);
    memmove(list + 1, list, (count + 1) * sizeof *list);
    list[0] = (struct mq_declare){.kind = MQ_QUEUE, .name = xstrdup(PRESENCE), .exclusive = true};
    return list;
}

static struct mq_declare *topology_of(const struct coordinator_conf *conf)
{
    const char **zones = xcalloc(conf->zones_count, sizeof *zones);
    for (unsigned i = 0; i < conf->zones_count; i++)
        zones[i] = conf->zones[i].name;
    struct mq_declare *declare = topology_coordinator(zones, conf->zones_count);
    free(zones);
    return add_presence(declare);
}

/* --- Signals --- */
static int open_signals(struct err *err)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    /* A ledger that meets its file size limit shall say so, not die. */
    (void)signal(SIGXFSZ, SIG_IGN);
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0)
        err_set_errno(err, errno, "signalfd");
    return fd;
}

static void log_counters(const struct broker *b)
{
    const struct core_counters *c = desk_counters(b->desk);
    log_info("counters", LOG_U64("requests", c->requests), LOG_U64("refused", c->refused),
             LOG_U64("buried", c->buried), LOG_U64("events", c->events),
             LOG_U64("stale_events", c->stale_events), LOG_U64("doubles", c->doubles),
             LOG_U64("offered", c->offered), LOG_U64("granted", c->granted),
             LOG_U64("denied", c->denied), LOG_U64("lost", c->lost), LOG_U64("ended", c->ended),
             LOG_U64("unconfirmed", mq_pending(b->mq)));
}

static void read_signals(struct broker *b, int fd)
{
    struct signalfd_siginfo info;
    while (read(fd, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo == SIGUSR1) {
            log_counters(b);
            continue;
        }
        log_info("stopping", LOG_STR("signal", strsignal((int)info.ssi_signo)));
        sd_notify(0, "STOPPING=1");
        b->quit = true;
    }
}

/* --- The loop --- */
static bool is_due(const struct broker *b, int64_t due_ms)
{
    int64_t now_ms = clock_mono_ms(b->clock);
    return b->count > 0 || b->deleted_count > 0 || now_ms >= due_ms ||
           (desk_confirmed_count(b->desk) > 0 && now_ms - b->committed_ms >= CONFIRMED_WAIT_MS);
}

static bool loop_once(struct broker *b, int signals, struct err *err)
{
    int64_t wait_ms;
    if (!desk_wait_ms(b->desk, IDLE_MS, &wait_ms, err))
        return false;
    int64_t due_ms = clock_mono_ms(b->clock) + wait_ms;
    if (desk_confirmed_count(b->desk) > 0 || b->retry_count > 0)
        wait_ms = wait_ms < CONFIRMED_WAIT_MS ? wait_ms : CONFIRMED_WAIT_MS;
    struct pollfd fd = {.fd = signals, .events = POLLIN};
    if (!mq_poll(b->mq, &fd, 1, (int)wait_ms, err))
        return false;
    if (fd.revents)
        read_signals(b, signals);
    if (is_due(b, due_ms) && !turn(b, err))
        return false;
    publish_fleeting(b);
    if (b->watchdog_us > 0)
        sd_notify(0, "WATCHDOG=1");
    return publish_outbox(b, err) && publish_retries(b, err);
}

/* Let what was committed get out, and note what was confirmed. What does not is sent at the next
 * start. */
static void last_words(struct broker *b)
{
    struct err ignored = ERR_INIT;
    if (mq_is_connected(b->mq))
        (void)mq_flush(b->mq, LAST_FLUSH_MS, &ignored);
    err_clear(&ignored);
    for (size_t i = 0; i < b->count; i++) /* not handled: not acknowledged */
        item_done(&b->items[i]);
    b->count = 0;
    if (desk_confirmed_count(b->desk) > 0 && !turn(b, &ignored))
        log_err(LOG_LEVEL_WARN, "last_commit_failed", &ignored);
}

bool broker_run(struct desk *desk, const struct coordinator_conf *conf, const char *origin,
                const struct clock *clock, struct err *err)
{
    struct broker b = {.desk = desk, .clock = clock};
    SCOPED_FD int signals = open_signals(err);
    if (signals < 0)
        return false;
    struct mq_declare *declare = topology_of(conf);
    bool ok = connect_to(&b, conf, origin, declare, err);
    if (ok) {
        (void)sd_watchdog_enabled(0, &b.watchdog_us);
        sd_notify(0, "READY=1\nSTATUS=connecting to the broker");
        while (ok && !b.quit)
            ok = loop_once(&b, signals, err);
        if (ok)
            last_words(&b);
        log_counters(&b);
    }
    for (size_t i = 0; i < b.count; i++)
        item_done(&b.items[i]);
    mq_free(b.mq);
    for (size_t i = 0; i < b.deleted_count; i++)
        free(b.deleted[i]);
    free(b.deleted);
    topology_free(declare);
    free(b.items);
    free(b.retries);
    return ok;
}
