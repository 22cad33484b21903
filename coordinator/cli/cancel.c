/* SPDX-License-Identifier: Apache-2.0 */
/* oxbow cancel: end a request or one task of it. */
#include <errno.h>
#include <string.h>

#include "coordinator/cli/args.h"
#include "coordinator/cli/verb.h"
#include "coordinator/cli/verbs.h"

enum { KEY_TASK = 0x400 };

static const struct argp_option options[] = {
    {.name = "task",
     .key = KEY_TASK,
     .arg = "TASK",
     .doc = "Only this task, instead of a whole request ('oxbow status REQUEST' lists them)",
     .group = 1},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct cancel_args *args = state->input;
    const char *fault = NULL;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &args->job;
        return 0;
    case ARGP_KEY_ARG:
        if (!args->message.request)
            return args_uuid(state, "REQUEST", arg, &args->message.request);
        argp_error(state, "only one REQUEST at a time (second one: '%s')", arg);
        return EINVAL;
    case KEY_TASK:
        return args_uuid(state, "--task", arg, &args->message.task);
    case ARGP_KEY_END:
        if (!args->message.request && !args->message.task)
            fault = "what? Give a REQUEST or --task TASK ('oxbow status' lists them)";
        else if (args->message.request && args->message.task)
            fault = "give either REQUEST or --task, not both";
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    if (!fault)
        return 0;
    argp_error(state, "%s", fault);
    return EINVAL;
}

static const struct argp_child children[] = {{.argp = &job_argp}, {0}};
static const struct argp argp = {
    .options = options,
    .parser = parse,
    .args_doc = "REQUEST\n--task TASK",
    .doc = "Cancel a request, or one task. What waits ends at once; what runs stops at its next "
           "safe point, cleans up (its snapshot is removed, its disks are detached) and ends. "
           "Restore points that are complete stay.",
    .children = children,
};

bool cancel_parse(int argc, char **argv, unsigned argp_flags, struct cancel_args *ret)
{
    *ret = (struct cancel_args){0};
    return argp_parse(&argp, argc, argv, argp_flags, NULL, ret) == 0;
}

static int run(int argc, char **argv)
{
    struct cancel_args args;
    if (!cancel_parse(argc, argv, 0, &args))
        return CLI_USAGE;
    return job_run(&args.job, FLOW_QUERY, WIRE_CANCEL, &args.message);
}

const struct cli_verb verb_cancel = {
    .name = "cancel", .summary = "cancel a request or one task", .argp = &argp, .run = run};
