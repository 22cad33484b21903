/* SPDX-License-Identifier: Apache-2.0 */
/* oxbow status: what runs, what ran, and who works. */
#include <errno.h>

#include "coordinator/cli/args.h"
#include "coordinator/cli/report.h"
#include "coordinator/cli/verb.h"
#include "coordinator/cli/verbs.h"

enum { KEY_WATCH = 0x400, KEY_LIMIT, LIMIT_MAX = 1000 };

static const struct argp_option options[] = {
    {.name = "watch",
     .key = KEY_WATCH,
     .doc = "Follow the request ID until it has ended, as if it had been sent from here; the exit "
            "code is "
            "the request's",
     .group = 1},
    {.name = "limit",
     .key = KEY_LIMIT,
     .arg = "N",
     .doc = "Without ID: show the newest N requests (default 50)",
     .group = 1},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct status_args *args = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &args->job;
        return 0;
    case ARGP_KEY_ARG:
        if (!args->message.request)
            return args_uuid(state, "ID", arg, &args->message.request);
        argp_error(state, "only one ID at a time (second one: '%s')", arg);
        return EINVAL;
    case KEY_WATCH:
        args->watch = true;
        return 0;
    case KEY_LIMIT:
        return args_number(state, "--limit", arg, LIMIT_MAX, &args->message.limit);
    case ARGP_KEY_END:
        if (!args->watch || args->message.request)
            return 0;
        argp_error(state,
                   "--watch needs the ID of a request; for the overview use 'watch oxbow status'");
        return EINVAL;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {{.argp = &job_argp}, {0}};
static const struct argp argp = {
    .options = options,
    .parser = parse,
    .args_doc = "[ID]",
    .doc = "Show the workers, the newest requests and what is left anywhere; or one request with "
           "its tasks; or one task with its attempts.",
    .children = children,
};

bool status_parse(int argc, char **argv, unsigned argp_flags, struct status_args *ret)
{
    *ret = (struct status_args){0};
    if (argp_parse(&argp, argc, argv, argp_flags, NULL, ret) != 0)
        return false;
    ret->query = (struct query_args){
        .connect = ret->job.connect,
        .output = ret->job.output,
        .timeout_s = ret->job.wait.timeout_s,
    };
    return true;
}

static void print(struct wire_item_list *items, const struct output_style *style, struct buf *out)
{
    int64_t now = clock_wall_ms(clock_system());
    report_workers(items->workers, items->workers_count, style->width, style->utf8, now, out);
    if (items->workers_count && items->requests_count)
        (void)buf_printf(out, "\n");
    report_requests(items->requests, items->requests_count, style->width, style->utf8, now, out);
    if (items->requests_count && items->tasks_count)
        (void)buf_printf(out, "\n");
    report_tasks(items->tasks, items->tasks_count, style->width, style->utf8, out);
    if (items->tasks_count && items->attempts_count)
        (void)buf_printf(out, "\n");
    report_attempts(items->attempts, items->attempts_count, style->width, style->utf8, now, out);
    if (items->gauges_count && (items->workers_count || items->requests_count))
        (void)buf_printf(out, "\n");
    report_gauges(items->gauges, items->gauges_count, style->utf8, out);
}

static int run(int argc, char **argv)
{
    struct status_args args;
    if (!status_parse(argc, argv, 0, &args))
        return CLI_USAGE;
    if (args.watch)
        return job_follow(&args.job, args.message.request);
    return query_run(&args.query, WIRE_STATUS, &args.message, print,
                     "no requests yet, and no worker has been heard of");
}

const struct cli_verb verb_status = {
    .name = "status", .summary = "show workers, requests and tasks", .argp = &argp, .run = run};
