/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/cli/request.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "coordinator/cli/args.h"
#include "coordinator/cli/verb.h"
#include "proto/wire/topology.h"

enum {
    KEY_WAIT = 0x100,
    KEY_NO_WAIT,
    KEY_TIMEOUT,
    CONNECT_MS = 15000,
    POLL_MS = 200,
    FLUSH_MS = 2000,
};

/* --- Options ---------------------------------------------------------------------------------- */
static error_t parse_wait(int key, char *arg, struct argp_state *state)
{
    struct wait_args *args = state->input;
    switch (key) {
    case KEY_WAIT:
        args->no_wait = false;
        return 0;
    case KEY_NO_WAIT:
        args->no_wait = true;
        return 0;
    case KEY_TIMEOUT:
        return args_duration(state, "--timeout", arg, &args->timeout_s);
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option wait_options[] = {
    {.doc = "Waiting:", .group = 7},
    {.name = "wait", .key = KEY_WAIT, .doc = "Wait for the end (the default)"},
    {.name = "no-wait",
     .key = KEY_NO_WAIT,
     .doc = "Only wait until the coordinator has accepted it; print its request id"},
    {.name = "timeout",
     .key = KEY_TIMEOUT,
     .arg = "DURATION",
     .doc = "Stop waiting after this time, e.g. 90s, 15m, 6h; the job goes on (exit code 7)"},
    {0},
};
const struct argp wait_argp = {.options = wait_options, .parser = parse_wait};

/* --- The run ---------------------------------------------------------------------------------- */
struct run {
    const struct request_opts *opts;
    const char *address;
    struct flow *flow;
    struct mq *mq;
    int signal; /* that ended the waiting; 0 = none */
};

static int64_t now_ms(void)
{
    return clock_mono_ms(clock_system());
}

static bool publish(void *ctx, enum wire_type type, const void *message, const char *id,
                    uint64_t token, struct err *err)
{
    struct run *r = ctx;
    size_t len;
    SCOPED_FREE char *body = wire_encode(type, message, &len, err);
    if (!body)
        return false;
    return mq_publish(r->mq,
                      &(struct mq_message){
                          .exchange = TOPOLOGY_REQUESTS,
                          .routing_key = TOPOLOGY_REQUEST_KEY,
                          .type = type,
                          .message_id = id,
                          .correlation_id = id,
                          .reply_to = mq_reply_queue(r->mq),
                          .body = body,
                          .len = len,
                          .token = token,
                      },
                      err);
}

static void on_connected(void *ctx)
{
    struct run *r = ctx;
    flow_connected(r->flow, now_ms());
}

static void on_lost(void *ctx, const struct err *why)
{
    struct run *r = ctx;
    flow_lost(r->flow, why);
}

static void on_confirm(void *ctx, uint64_t token, enum mq_outcome outcome)
{
    struct run *r = ctx;
    flow_confirmed(r->flow, token, outcome);
}

static void clear(const struct run *r)
{
    if (r->opts->clear)
        r->opts->clear(r->opts->ctx);
}

static void complain(const struct run *r, const struct err *err, const char *advice)
{
    clear(r);
    if (r->opts->problem)
        r->opts->problem(r->opts->ctx, err, advice);
    else
        output_error(err, advice);
}

/* A reply that cannot be read is told and skipped: the end may still be learned. */
static void on_delivery(void *ctx, const struct mq_delivery *d)
{
    struct run *r = ctx;
    struct wire_message message = {0};
    struct err err = ERR_INIT;
    if (wire_decode(d->type, d->body, d->len, &message, &err)) {
        flow_reply(r->flow, d->correlation_id, &message, now_ms());
        wire_free(&message);
    } else {
        err_wrap(&err, "a reply could not be read");
        complain(r, &err, "are 'oxbow' and the coordinator of the same version?");
    }
    mq_ack(r->mq, d->tag);
}

static void on_blocked(void *ctx, bool blocked, const char *reason)
{
    struct run *r = ctx;
    if (!blocked)
        return;
    clear(r);
    output_hint(r->opts->output,
                "the broker takes no messages for now (%s): see its memory and disk alarms",
                reason ? reason : "no reason given");
}

/* From here on these signals are read, not delivered. */
static int open_signals(struct err *err)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGWINCH);
    if (sigprocmask(SIG_BLOCK, &set, NULL) != 0) {
        err_set_errno(err, errno, "block signals");
        return -1;
    }
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0)
        err_set_errno(err, errno, "open a signal descriptor");
    return fd;
}

static void read_signals(struct run *r, int fd)
{
    struct signalfd_siginfo info;
    while (read(fd, &info, sizeof info) == sizeof info)
        if (info.ssi_signo != SIGWINCH && r->signal == 0)
            r->signal = (int)info.ssi_signo;
}

static bool loop(struct run *r, struct err *err)
{
    SCOPED_FD int fd = open_signals(err);
    if (fd < 0)
        return false;
    struct pollfd poll = {.fd = fd, .events = POLLIN};
    while (flow_end(r->flow) == FLOW_GOING && r->signal == 0) {
        if (!mq_poll(r->mq, &poll, 1, POLL_MS, err))
            return false;
        if (poll.revents)
            read_signals(r, fd);
        flow_tick(r->flow, now_ms());
        if (r->opts->tick)
            r->opts->tick(r->opts->ctx, now_ms());
    }
    return true;
}

/* --- The end ---------------------------------------------------------------------------------- */
static void hint_follow(const struct run *r)
{
    const char *id = flow_request_id(r->flow);
    output_hint(r->opts->output, "follow it with:  oxbow status %s --watch", id);
    output_hint(r->opts->output, "stop it with:    oxbow cancel %s", id);
}

static int end_interrupted(const struct run *r)
{
    clear(r);
    if (r->opts->kind == FLOW_QUERY)
        return CLI_INTERRUPTED + r->signal;
    if (r->opts->kind == FLOW_FOLLOW || flow_is_sent(r->flow))
        output_hint(r->opts->output, "no longer waiting; request %s goes on",
                    flow_request_id(r->flow));
    else
        output_hint(r->opts->output,
                    "no longer waiting; the broker had not confirmed request %s: it may or may "
                    "not run",
                    flow_request_id(r->flow));
    hint_follow(r);
    return CLI_INTERRUPTED + r->signal;
}

static int end_timed_out(const struct run *r)
{
    struct err err = ERR_INIT;
    if (r->opts->kind == FLOW_QUERY) {
        err_set(&err, ERR_TIMEOUT, 0, "no complete answer in time");
        complain(r, &err,
                 "is oxbow-coordinator running, and a worker of each zone? "
                 "Try 'oxbow status', or a longer --timeout");
        return CLI_TIMED_OUT;
    }
    err_set(&err, ERR_TIMEOUT, 0, "no longer waiting: --timeout is over; request %s goes on",
            flow_request_id(r->flow));
    complain(r, &err, NULL);
    hint_follow(r);
    return CLI_TIMED_OUT;
}

/* What to do about a refusal, a fault at the broker or a failed request; NULL = it says so itself.
 */
static const char *advice_for(const struct flow *f)
{
    enum err_code code = flow_error(f)->code;
    if (flow_end(f) == FLOW_BROKEN)
        return "ask 'oxbow status' for what is known";
    if (code == ERR_UNSUPPORTED_VERSION)
        return "are 'oxbow' and the coordinator of the same version?";
    return NULL;
}

static int end_plain(const struct run *r)
{
    clear(r);
    if (err_is_set(flow_error(r->flow))) {
        struct err err = *flow_error(r->flow);
        if (flow_end(r->flow) == FLOW_REFUSED)
            err_wrap(&err, "refused");
        complain(r, &err, advice_for(r->flow));
    }
    return flow_exit_code(r->flow);
}

static int end(const struct run *r)
{
    if (flow_end(r->flow) == FLOW_GOING)
        return end_interrupted(r);
    if (flow_end(r->flow) == FLOW_TIMED_OUT)
        return end_timed_out(r);
    return end_plain(r);
}

static int exit_for_connect(const struct run *r, const struct err *err, const char *address)
{
    SCOPED_FREE char *advice = NULL;
    if (err->code == ERR_BROKER_AUTH)
        advice = xasprintf("check broker.user, broker.vhost and the password file for %s", address);
    else
        advice = xasprintf("check that the broker runs at %s and that host, port and TLS are right "
                           "(oxbow.yaml(5))",
                           address);
    complain(r, err, advice);
    return CLI_BROKER;
}

static int run_connected(struct run *r)
{
    struct err err = ERR_INIT;
    if (!mq_connect_once(r->mq, CONNECT_MS, &err))
        return exit_for_connect(r, &err, r->address);
    if (!loop(r, &err)) {
        complain(r, &err, NULL);
        return CLI_BROKER;
    }
    return end(r);
}

int request_run(const struct request_opts *opts)
{
    struct err err = ERR_INIT;
    SCOPED(connect) struct connect *connect = connect_load(opts->connect, &err);
    if (!connect) {
        output_error(&err, NULL);
        return CLI_USAGE;
    }
    struct run r = {.opts = opts, .address = connect_address(connect)};
    SCOPED(flow)
    struct flow *flow = flow_new(
        &(struct flow_opts){
            .kind = opts->kind,
            .type = opts->type,
            .message = opts->message,
            .follow = opts->follow,
            .wait = opts->wait,
            .timeout_ms = opts->timeout_ms,
            .publish = publish,
            .publish_ctx = &r,
            .events = opts->events,
            .events_ctx = opts->ctx,
        },
        now_ms());
    struct mq_opts mq_opts = *connect_mq_opts(connect);
    mq_opts.handlers = (struct mq_handlers){
        .on_connected = on_connected,
        .on_lost = on_lost,
        .on_delivery = on_delivery,
        .on_confirm = on_confirm,
        .on_blocked = on_blocked,
    };
    mq_opts.ctx = &r;
    SCOPED(mq) struct mq *mq = mq_new(&mq_opts);
    mq_subscribe_replies(mq);
    r.flow = flow;
    r.mq = mq;
    return run_connected(&r);
}
