/* SPDX-License-Identifier: Apache-2.0 */
/* oxbow backup: back up running VMs. */
#include "coordinator/cli/args.h"
#include "coordinator/cli/verb.h"
#include "coordinator/cli/verbs.h"

enum { KEY_ZONE = 0x400, KEY_PATH, KEY_WORKERS };

static const struct argp_option options[] = {
    {.name = "zone",
     .key = KEY_ZONE,
     .arg = "ZONE",
     .doc = "Only VMs of this zone (data centre)",
     .group = 1},
    {.name = "path",
     .key = KEY_PATH,
     .arg = "auto|attach|imageio|cbt|hybrid",
     .doc = "How the data is read (default auto: chosen per disk)",
     .group = 2},
    {.name = "workers",
     .key = KEY_WORKERS,
     .arg = "N",
     .doc = "So many workers may copy the disks of one VM at a time (1 to 16, default 1)",
     .group = 2},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct backup_args *args = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &args->select;
        state->child_inputs[1] = &args->how;
        state->child_inputs[2] = &args->job;
        return 0;
    case KEY_ZONE:
        return args_zone(state, arg, &args->message.zone);
    case KEY_PATH:
        return wire_path_parse(arg, &args->options.path) ? 0
                                                         : args_bad_word(state, options, key, arg);
    case KEY_WORKERS:
        return args_number(state, "--workers", arg, WIRE_WORKERS_MAX, &args->options.workers);
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {
    {.argp = &selection_argp}, {.argp = &how_argp}, {.argp = &job_argp}, {0}};
static const struct argp argp = {
    .options = options,
    .parser = parse,
    .args_doc = "[VM...]",
    .doc = "Back up running VMs, in parallel over all workers. A VM is named by its name or its id."
           "\vExamples:\n"
           "  oxbow backup web1 db1\n"
           "  oxbow backup --tag nightly --exclude scratch --quiesce require\n"
           "  oxbow backup --workers 4 fileserver\n"
           "  oxbow backup --all --no-wait --key nightly-2026-11-28\n\n"
           "Exit codes: 0 all succeeded, 3 some failed, 1 all failed; see oxbow(1).",
    .children = children,
};

bool backup_parse(int argc, char **argv, unsigned argp_flags, struct backup_args *ret)
{
    *ret = (struct backup_args){0};
    ret->message.select = &ret->select;
    ret->message.options = &ret->options;
    ret->how = (struct how_args){.quiesce = &ret->options.quiesce,
                                 .unsupported = &ret->options.unsupported,
                                 .deadline_s = &ret->message.deadline_s,
                                 .idempotency_key = &ret->message.idempotency_key};
    if (argp_parse(&argp, argc, argv, argp_flags, NULL, ret) != 0)
        return false;
    ret->message.progress = job_wants_progress(&ret->job);
    return true;
}

void backup_args_done(struct backup_args *args)
{
    selection_done(&args->select);
}

static int run(int argc, char **argv)
{
    struct backup_args args;
    if (!backup_parse(argc, argv, 0, &args))
        return CLI_USAGE;
    int code = job_run(&args.job, FLOW_JOB, WIRE_BACKUP, &args.message);
    backup_args_done(&args);
    return code;
}

const struct cli_verb verb_backup = {
    .name = "backup", .summary = "back up running VMs", .argp = &argp, .run = run};
