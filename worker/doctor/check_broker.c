/* SPDX-License-Identifier: Apache-2.0 */
/* The broker, for a worker that does not serve now: login and the rights of its account. */
#include <string.h>

#include "proto/base/id.h"
#include "proto/wire/topology.h"
#include "worker/doctor/check.h"

enum { CONNECT_MS = 10000, CONFIRM_MS = 10000 };

/* What became of a trial message. */
struct trial {
    bool ended;
    enum mq_outcome outcome;
};

static void on_confirm(void *ctx, uint64_t token, enum mq_outcome outcome)
{
    (void)token;
    *(struct trial *)ctx = (struct trial){.ended = true, .outcome = outcome};
}

/* A connection of our own; `queues` (NULL at its end) are consumed from, one delivery at most,
 * which goes back when the connection ends. NULL with `err` set. */
static struct mq *connect_as_worker(struct doctor *d, const char *const *queues,
                                    struct trial *trial, struct err *err)
{
    struct mq_opts opts = {.connection_name = "oxbow-worker doctor",
                           .handlers = {.on_confirm = on_confirm},
                           .ctx = trial,
                           .clock = d->clock};
    if (!broker_conf_apply(&d->conf->broker, d->opts.conf_path, &opts, err))
        return NULL;
    SCOPED(mq) struct mq *mq = mq_new(&opts);
    for (; queues && *queues; queues++)
        mq_subscribe(mq, *queues, 1);
    return mq_connect_once(mq, CONNECT_MS, err) ? TAKE(mq) : NULL;
}

static enum finding_level check_login(struct doctor *d, struct buf *say)
{
    struct err err = ERR_INIT;
    struct trial trial = {0};
    SCOPED(mq) struct mq *mq = connect_as_worker(d, NULL, &trial, &err);
    if (!mq) {
        (void)buf_printf(say, "%s", err.message);
        return FINDING_FAILURE;
    }
    (void)buf_printf(say, "logged in");
    return FINDING_OK;
}

static bool is_loopback(const char *host)
{
    return !host || strcmp(host, "localhost") == 0 || strncmp(host, "127.", 4) == 0 ||
           strcmp(host, "::1") == 0;
}

static enum finding_level check_tls(struct doctor *d, struct buf *say)
{
    const struct broker_conf *b = &d->conf->broker;
    if (b->tls.enabled || is_loopback(b->host)) {
        (void)buf_printf(say, b->tls.enabled ? "the connection is encrypted and the broker verified"
                                             : "the broker is on this machine");
        return FINDING_OK;
    }
    (void)buf_printf(say, "the password goes over the network in clear text");
    return FINDING_WARNING;
}

static enum finding_level check_reads(struct doctor *d, struct buf *say)
{
    struct err err = ERR_INIT;
    struct trial trial = {0};
    char *queues[LANE_COUNT + 1] = {0};
    for (int lane = 0; lane < LANE_COUNT; lane++)
        queues[lane] = topology_task_queue(d->conf->zone, (enum lane)lane);
    SCOPED(mq)
    struct mq *mq = connect_as_worker(d, (const char *const *)queues, &trial, &err);
    for (int lane = 0; lane < LANE_COUNT; lane++)
        free(queues[lane]);
    if (!mq) {
        (void)buf_printf(say, "the tasks of zone %s cannot be read: %s", d->conf->zone,
                         err.message);
        return FINDING_FAILURE;
    }
    (void)buf_printf(say, "the tasks of zone %s can be read", d->conf->zone);
    return FINDING_OK;
}

/* Publish something to the exchange that nobody has a use for. */
static bool try_publish(struct doctor *d, const char *exchange, const char *key, struct trial *ret,
                        struct err *err)
{
    SCOPED(mq) struct mq *mq = connect_as_worker(d, NULL, ret, err);
    if (!mq)
        return false;
    /* Progress of a task that does not exist: the coordinator counts it as stale, no more. */
    char task[ID_BYTES];
    id_new(task);
    const struct wire_copying m = {.task = task, .worker = d->conf->name, .attempt = 1};
    size_t len;
    SCOPED_FREE char *body = wire_encode(WIRE_COPYING, &m, &len, err);
    return body &&
           mq_publish(mq,
                      &(struct mq_message){.exchange = exchange,
                                           .routing_key = key,
                                           .type = WIRE_COPYING,
                                           .body = body,
                                           .len = len},
                      err) &&
           mq_flush(mq, CONFIRM_MS, err);
}

static enum finding_level check_writes(struct doctor *d, struct buf *say)
{
    struct err err = ERR_INIT;
    struct trial trial = {0};
    if (!try_publish(d, TOPOLOGY_EVENTS, topology_event_key(WIRE_COPYING), &trial, &err)) {
        (void)buf_printf(say, "events cannot be written: %s", err.message);
        return FINDING_FAILURE;
    }
    if (trial.outcome != MQ_CONFIRMED) {
        (void)buf_printf(say,
                         trial.outcome == MQ_RETURNED
                             ? "nobody listens to events: no coordinator was ever connected to "
                               "this virtual host"
                             : "the account may not write events");
        return FINDING_FAILURE;
    }
    (void)buf_printf(say, "events can be written");
    return FINDING_OK;
}

/* A key that no queue is bound by: allowed or not, nothing happens. */
static enum finding_level check_least(struct doctor *d, struct buf *say)
{
    struct err err = ERR_INIT;
    struct trial trial = {0};
    if (!try_publish(d, TOPOLOGY_TASKS, "oxbow.doctor", &trial, &err)) {
        (void)buf_printf(say, "could not be tried: %s", err.message);
        return FINDING_WARNING;
    }
    if (trial.outcome == MQ_NACKED) {
        (void)buf_printf(say, "the account may do no more than a worker must");
        return FINDING_OK;
    }
    (void)buf_printf(say, "the account may write tasks: whoever takes over a proxy VM can give "
                          "orders to all workers");
    return FINDING_WARNING;
}

static const struct check rows[] = {
    {"broker.login", check_login,
     "look at the section `broker` of worker.yaml: host, port, vhost, user, password_file, tls; "
     "the "
     "broker's own log says why it refuses a login",
     NULL, true},
    {"broker.tls", check_tls, "set broker.tls.enabled and broker.tls.ca_file", NULL, true},
    {"broker.reads", check_reads,
     "use the account oxbow-worker (docs/operations.md, section 2), and a `zone` that is in "
     "coordinator.yaml; the coordinator must have been connected once",
     "broker.login", true},
    {"broker.writes", check_writes,
     "use the account oxbow-worker (docs/operations.md, section 2); start the coordinator once",
     "broker.login", true},
    {"broker.least", check_least, "use the account oxbow-worker: docs/operations.md, section 2",
     "broker.login", true},
};
const struct check_table checks_of_broker = CHECK_TABLE(rows);
