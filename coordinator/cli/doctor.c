/* SPDX-License-Identifier: Apache-2.0 */
/* oxbow doctor: what is wrong? Looks from here at the broker, and has the coordinator and every
 * worker look around themselves. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "coordinator/cli/format.h"
#include "coordinator/cli/verb.h"
#include "coordinator/cli/verbs.h"
#include "proto/base/id.h"
#include "proto/wire/finding.h"
#include "proto/wire/topology.h"

enum {
    KEY_WORKER = 0x400,
    KEY_LIMIT,
    CONNECT_MS = 15000,
    CONFIRM_MS = 10000,
    LIMIT_DEFAULT_S = 60,
    GRACE_S = 10, /* the coordinator's answer after the workers' limit */
    SKEW_WARN_MS = 5000,
    SKEW_FAIL_MS = 300000,
    TEXT_BYTES = 1 << 20,
};

/* --- Options ---------------------------------------------------------------------------------- */
static const struct argp_option options[] = {
    {.name = "worker",
     .key = KEY_WORKER,
     .arg = "WORKER",
     .doc = "Only this worker looks around",
     .group = 1},
    {.name = "limit",
     .key = KEY_LIMIT,
     .arg = "DURATION",
     .doc = "How long a worker may take (default 1m, at most 10m)",
     .group = 1},
    {0},
};

static error_t parse_limit(struct argp_state *state, const char *arg, int64_t *member)
{
    struct err err = ERR_INIT;
    if (!format_parse_duration(arg, member, &err))
        argp_error(state, "--limit: %s", err.message);
    else if (*member > WIRE_CHECKUP_MAX_S)
        argp_error(state, "--limit: '%s' is more than 10m", arg);
    else
        return 0;
    return EINVAL;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct doctor_args *args = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &args->output;
        state->child_inputs[1] = &args->connect;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "takes no argument ('%s'); --worker names one", arg);
        return EINVAL;
    case KEY_WORKER:
        if (id_is_slug(arg, WIRE_SLUG_MAX)) {
            args->message.worker = arg;
            return 0;
        }
        argp_error(state, "--worker '%s' cannot be the name of a worker", arg);
        return EINVAL;
    case KEY_LIMIT:
        return parse_limit(state, arg, &args->message.limit_s);
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {{.argp = &output_argp}, {.argp = &connect_argp}, {0}};
static const struct argp argp = {
    .options = options,
    .parser = parse,
    .doc =
        "Find out what is wrong: the broker seen from here, the coordinator, and the surroundings "
        "of every worker (engine, proxy VM, devices, repository). Changes nothing; --quiet leaves "
        "out what is in order. Exit code 0: "
        "no failure was found; 1: one or more.",
    .children = children,
};

bool doctor_parse(int argc, char **argv, unsigned argp_flags, struct doctor_args *ret)
{
    *ret = (struct doctor_args){0};
    return argp_parse(&argp, argc, argv, argp_flags, NULL, ret) == 0;
}

/* --- Telling ---------------------------------------------------------------------------------- */
struct visit {
    const struct doctor_args *args;
    struct output_style style;
    struct finding_counts counts;
    char *who; /* whose findings were told last */
    int64_t asked_wall_ms;
    bool answered; /* by the coordinator */
    bool broken;   /* standard output is */
};

static void write_out(struct visit *v, const struct buf *text)
{
    struct err err = ERR_INIT;
    if (v->broken || output_write(text, &err))
        return;
    v->broken = true;
    output_error(&err, NULL);
}

/* `who` NULL: whoever the finding names. */
static void tell(struct visit *v, const struct wire_finding *f, const char *who)
{
    struct err err = ERR_INIT;
    SCOPED_BUF struct buf text;
    buf_init(&text, TEXT_BYTES);
    findings_count(f, 1, &v->counts);
    if (v->args->output.quiet && finding_level_of(f) == FINDING_OK)
        return;
    if (v->args->output.json) {
        if (!finding_json(f, &text, &err))
            output_error(&err, NULL);
        write_out(v, &text);
        return;
    }
    who = who ? who : f->worker ? f->worker : "coordinator";
    if (!v->who || strcmp(v->who, who) != 0) {
        free(v->who);
        v->who = xstrdup(who);
        (void)text_add_clean(&text, who, v->style.utf8);
        (void)buf_printf(&text, "\n");
    }
    const struct finding_style style = {
        .color = v->style.color, .utf8 = v->style.utf8, .add_text = text_add_clean};
    finding_render(f, &style, &text);
    write_out(v, &text);
}

static void tell_own(struct visit *v, const char *check, enum finding_level level,
                     const char *advice, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
static void tell_own(struct visit *v, const char *check, enum finding_level level,
                     const char *advice, const char *fmt, ...)
{
    char message[FINDING_TEXT_BYTES];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(message, sizeof message, fmt, ap);
    va_end(ap);
    struct wire_findings list = {0};
    findings_add(&list,
                 &(struct finding_spec){.check = check,
                                        .level = level,
                                        .advice = advice,
                                        .time_ms = clock_wall_ms(clock_system())},
                 "%s", message);
    tell(v, &list.v[0], "here");
    findings_done(&list);
}

/* --- The broker, seen from here ----------------------------------------------------------------
 */
static const char *login_advice(enum err_code code)
{
    if (code == ERR_BROKER_AUTH)
        return "look at broker.user, broker.vhost and the password file; the broker's log says why";
    if (code == ERR_BROKER_TOPOLOGY)
        return "use the account oxbow-client: docs/operations.md, section 2";
    return "is the broker up, are host, port and TLS right (oxbow.yaml(5)), is a firewall in "
           "between?";
}

static bool check_login(struct visit *v, const struct connect *connect)
{
    struct err err = ERR_INIT;
    SCOPED(mq) struct mq *mq = mq_new(connect_mq_opts(connect));
    mq_subscribe_replies(mq);
    bool ok = mq_connect_once(mq, CONNECT_MS, &err);
    if (ok)
        tell_own(v, "broker.login", FINDING_OK, NULL, "logged in at %s as %s",
                 connect_address(connect),
                 connect_mq_opts(connect)->user ? connect_mq_opts(connect)->user
                                                : "the client certificate says");
    else
        tell_own(v, "broker.login", FINDING_FAILURE, login_advice(err.code), "%s", err.message);
    return ok;
}

static void check_tls(struct visit *v, const struct connect *connect)
{
    const struct mq_opts *o = connect_mq_opts(connect);
    bool is_local = !o->host || strcmp(o->host, "localhost") == 0 ||
                    strncmp(o->host, "127.", 4) == 0 || strcmp(o->host, "::1") == 0;
    if (o->tls.enabled)
        tell_own(v, "broker.tls", FINDING_OK, NULL, "the connection is encrypted");
    else if (is_local)
        tell_own(v, "broker.tls", FINDING_OK, NULL, "the broker is on this machine");
    else
        tell_own(v, "broker.tls", FINDING_WARNING, "set broker.tls.enabled and broker.tls.ca_file",
                 "the password goes over the network in clear text");
}

static void on_trial(void *ctx, uint64_t token, enum mq_outcome outcome)
{
    (void)token;
    *(enum mq_outcome *)ctx = outcome;
}

/* Whether this account may write to the exchange. The key is bound by nobody: nothing happens. */
static bool may_write(const struct connect *connect, const char *exchange, bool *ret,
                      struct err *err)
{
    enum mq_outcome outcome = MQ_NACKED;
    struct mq_opts opts = *connect_mq_opts(connect);
    opts.handlers = (struct mq_handlers){.on_confirm = on_trial};
    opts.ctx = &outcome;
    SCOPED(mq) struct mq *mq = mq_new(&opts);
    static const char body[] = "{}";
    const struct mq_message trial = {.exchange = exchange,
                                     .routing_key = "oxbow.doctor",
                                     .type = WIRE_DRAIN,
                                     .body = body,
                                     .len = strlen(body)};
    if (!mq_connect_once(mq, CONNECT_MS, err) || !mq_publish(mq, &trial, err) ||
        !mq_flush(mq, CONFIRM_MS, err))
        return false;
    *ret = outcome != MQ_NACKED;
    return true;
}

/* An exchange that is not there yet says nothing of rights: the request's fate will tell. */
static void check_rights(struct visit *v, const struct connect *connect)
{
    static const char *const forbidden[] = {TOPOLOGY_TASKS, TOPOLOGY_CONTROL};
    for (size_t i = 0; i < ARRAY_LEN(forbidden); i++) {
        struct err err = ERR_INIT;
        bool may = false;
        if (!may_write(connect, forbidden[i], &may, &err)) {
            tell_own(v, "broker.least", FINDING_WARNING, "try again", "could not be tried: %s",
                     err.message);
            return;
        }
        if (may) {
            tell_own(v, "broker.least", FINDING_WARNING,
                     "use the account oxbow-client: docs/operations.md, section 2",
                     "this account may write to %s: whoever has its password can give orders to "
                     "the workers",
                     forbidden[i]);
            return;
        }
    }
    tell_own(v, "broker.least", FINDING_OK, NULL, "the account may do no more than a client must");
}

/* --- The coordinator and the workers -----------------------------------------------------------
 */
static void check_clock(struct visit *v, int64_t said_ms)
{
    int64_t now_ms = clock_wall_ms(clock_system());
    int64_t skew_ms = said_ms > now_ms             ? said_ms - now_ms
                      : said_ms < v->asked_wall_ms ? v->asked_wall_ms - said_ms
                                                   : 0;
    if (skew_ms <= SKEW_WARN_MS)
        tell_own(v, "coordinator.clock", FINDING_OK, NULL,
                 "the coordinator's clock agrees with this machine's");
    else
        tell_own(v, "coordinator.clock", skew_ms > SKEW_FAIL_MS ? FINDING_FAILURE : FINDING_WARNING,
                 "let both machines follow a time server",
                 "the coordinator's clock is %" PRId64 " s %s this machine's", skew_ms / 1000,
                 said_ms > now_ms ? "ahead of" : "behind");
}

static void on_page(void *ctx, const struct wire_page *m)
{
    struct visit *v = ctx;
    const struct wire_item_list *items = m->items;
    if (!v->answered && items->findings_count > 0 && !items->findings[0].worker) {
        v->answered = true;
        check_clock(v, items->findings[0].time_ms);
    }
    for (size_t i = 0; i < items->findings_count; i++)
        tell(v, &items->findings[i], NULL);
}

static void on_notice(void *ctx, const char *text)
{
    struct visit *v = ctx;
    output_hint(&v->args->output, "%s", text);
}

static void on_problem(void *ctx, const struct err *err, const char *advice)
{
    struct visit *v = ctx;
    if (err->code == ERR_TIMEOUT)
        tell_own(
            v, "coordinator.answers", FINDING_FAILURE,
            "start oxbow-coordinator (systemctl status oxbow-coordinator), and look whether it "
            "uses the same broker and vhost as this command",
            v->answered ? "the check-up did not end in time"
                        : "the broker has the question, but no coordinator answers");
    else
        tell_own(v, "coordinator.answers", FINDING_FAILURE,
                 advice ? advice : "see the message, and the coordinator's journal", "%s",
                 err->message);
}

static int ask(struct visit *v)
{
    const struct doctor_args *args = v->args;
    int64_t limit_s = args->message.limit_s ? args->message.limit_s : LIMIT_DEFAULT_S;
    v->asked_wall_ms = clock_wall_ms(clock_system());
    return request_run(&(struct request_opts){
        .connect = &args->connect,
        .output = &args->output,
        .kind = FLOW_QUERY,
        .type = WIRE_DOCTOR,
        .message = &args->message,
        .wait = true,
        .timeout_ms = (limit_s + GRACE_S) * 1000,
        .events = {.page = on_page, .notice = on_notice},
        .problem = on_problem,
        .ctx = v,
    });
}

/* --- All of it ---------------------------------------------------------------------------------
 */
static int look(struct visit *v)
{
    struct err err = ERR_INIT;
    SCOPED(connect) struct connect *connect = connect_load(&v->args->connect, &err);
    if (!connect) {
        tell_own(v, "client.configuration", FINDING_FAILURE,
                 "see oxbow.yaml(5); a sample is in the documentation's examples", "%s",
                 err.message);
        return CLI_FAILED;
    }
    tell_own(v, "client.configuration", FINDING_OK, NULL, "the configuration can be read");
    if (!check_login(v, connect))
        return CLI_FAILED;
    check_tls(v, connect);
    check_rights(v, connect);
    return ask(v);
}

static int run(int argc, char **argv)
{
    struct doctor_args args;
    if (!doctor_parse(argc, argv, 0, &args))
        return CLI_USAGE;
    struct visit v = {.args = &args};
    output_init(&v.style);
    int code = look(&v);
    if (!args.output.json && code < CLI_INTERRUPTED) {
        SCOPED_BUF struct buf text;
        buf_init(&text, TEXT_BYTES);
        findings_render_sum(&v.counts, &text);
        write_out(&v, &text);
    }
    free(v.who);
    if (code >= CLI_INTERRUPTED)
        return code;
    return v.broken || v.counts.by_level[FINDING_FAILURE] ? CLI_FAILED : code;
}

const struct cli_verb verb_doctor = {
    .name = "doctor", .summary = "find out what is wrong", .argp = &argp, .run = run};
