/* SPDX-License-Identifier: Apache-2.0 */
/* oxbow backup: back up running VMs. */
#include <errno.h>
#include <string.h>

#include "coordinator/cli/format.h"
#include "coordinator/cli/verb.h"
#include "coordinator/cli/verbs.h"

enum {
    KEY_ZONE = 0x400,
    KEY_QUIESCE,
    KEY_UNSUPPORTED,
    KEY_PATH,
    KEY_DEADLINE,
    KEY_KEY,
};

static const struct argp_option options[] = {
    {.name = "zone",
     .key = KEY_ZONE,
     .arg = "ZONE",
     .doc = "Only VMs of this zone (data centre)",
     .group = 1},
    {.doc = "How:", .group = 2},
    {.name = "quiesce",
     .key = KEY_QUIESCE,
     .arg = "auto|require|off",
     .doc = "Freeze the guest's file systems around the snapshot: when its agent answers (auto, "
            "the default), or fail otherwise (require), or never (off)"},
    {.name = "unsupported-disks",
     .key = KEY_UNSUPPORTED,
     .arg = "skip|fail",
     .doc = "Disks that cannot be snapshotted: skip with a warning (default), or fail the VM"},
    {.name = "path",
     .key = KEY_PATH,
     .arg = "auto|attach|imageio|cbt",
     .doc = "How the data is read (default auto: chosen per disk)"},
    {.name = "deadline",
     .key = KEY_DEADLINE,
     .arg = "DURATION",
     .doc = "Time that each VM may take, e.g. 4h"},
    {.name = "key",
     .key = KEY_KEY,
     .arg = "KEY",
     .doc = "Idempotency key: the same key twice is one job, however often it is sent"},
    {0},
};

static error_t parse_how(int key, char *arg, struct argp_state *state, struct backup_args *args)
{
    struct err err = ERR_INIT;
    bool ok;
    switch (key) {
    case KEY_QUIESCE:
        ok = wire_quiesce_parse(arg, &args->options.quiesce);
        break;
    case KEY_UNSUPPORTED:
        ok = wire_unsupported_parse(arg, &args->options.unsupported);
        break;
    case KEY_PATH:
        ok = wire_path_parse(arg, &args->options.path);
        break;
    case KEY_DEADLINE:
        if (format_parse_duration(arg, &args->message.deadline_s, &err))
            return 0;
        argp_error(state, "--deadline: %s", err.message);
        return EINVAL;
    case KEY_KEY:
        return args_set(state, "--key", arg, WIRE_NAME_MAX, &args->message.idempotency_key);
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return ok ? 0 : args_bad_word(state, options, key, arg);
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct backup_args *args = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &args->select;
        state->child_inputs[1] = &args->job;
        return 0;
    case KEY_ZONE:
        return args_zone(state, arg, &args->message.zone);
    default:
        return parse_how(key, arg, state, args);
    }
}

static const struct argp_child children[] = {{.argp = &selection_argp}, {.argp = &job_argp}, {0}};
static const struct argp argp = {
    .options = options,
    .parser = parse,
    .args_doc = "[VM...]",
    .doc = "Back up running VMs, in parallel over all workers. A VM is named by its name or its id."
           "\vExamples:\n"
           "  oxbow backup web1 db1\n"
           "  oxbow backup --tag nightly --exclude scratch --quiesce require\n"
           "  oxbow backup --all --no-wait --key nightly-2026-11-28\n\n"
           "Exit codes: 0 all succeeded, 3 some failed, 1 all failed; see oxbow(1).",
    .children = children,
};

bool backup_parse(int argc, char **argv, unsigned argp_flags, struct backup_args *ret)
{
    *ret = (struct backup_args){0};
    ret->message.select = &ret->select;
    ret->message.options = &ret->options;
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
