/* SPDX-License-Identifier: Apache-2.0 */
/* oxbow restore: make a new VM from a restore point. */
#include <errno.h>
#include <string.h>

#include "coordinator/cli/args.h"
#include "coordinator/cli/verb.h"
#include "coordinator/cli/verbs.h"

enum {
    KEY_VM = 0x400,
    KEY_NAME,
    KEY_CLUSTER,
    KEY_STORAGE_DOMAIN,
    KEY_DISK,
    KEY_CONFIG_FROM,
    KEY_NICS,
    KEY_START,
    KEY_PATH,
    KEY_WORKERS,
    KEY_ZONE,
    KEY_DEADLINE,
    KEY_KEY,
};

static const struct argp_option options[] = {
    {.doc = "What and into what:", .group = 1},
    {.name = "vm",
     .key = KEY_VM,
     .arg = "VM",
     .doc = "The newest restore point of this VM (name or id), instead of POINT"},
    {.name = "name", .key = KEY_NAME, .arg = "NEW", .doc = "Name of the VM to make (required)"},
    {.name = "cluster",
     .key = KEY_CLUSTER,
     .arg = "CLUSTER",
     .doc = "Cluster (name or id) to make it in; default: the one it was in"},
    {.name = "storage-domain",
     .key = KEY_STORAGE_DOMAIN,
     .arg = "SD",
     .doc = "Storage domain (name or id) for its disks; default: where each disk was"},
    {.name = "disk",
     .key = KEY_DISK,
     .arg = "DISK",
     .doc = "Only this disk of the restore point (id or alias); may be given several times"},
    {.name = "zone",
     .key = KEY_ZONE,
     .arg = "ZONE",
     .doc = "Zone to restore in; may be left out when there is only one"},
    {.doc = "How:", .group = 2},
    {.name = "vm-config",
     .key = KEY_CONFIG_FROM,
     .arg = "ovf|json",
     .doc = "Make the VM from the saved OVF (default) or from the saved vm.json"},
    {.name = "nics",
     .key = KEY_NICS,
     .arg = "unplugged|plugged|none",
     .doc = "Network cards of the new VM: there but unplugged (default, so that it cannot disturb "
            "the old one), plugged in, or none"},
    {.name = "path",
     .key = KEY_PATH,
     .arg = "auto|attach|imageio",
     .doc = "How the data is written: to disks attached to the proxy VM, or by upload to a host; "
            "default auto: attach where the proxy VM is in the data centre"},
    {.name = "workers",
     .key = KEY_WORKERS,
     .arg = "N",
     .doc = "So many workers may fill the disks at a time (1 to 16, default 1)"},
    {.name = "start", .key = KEY_START, .doc = "Start the new VM when its disks are complete"},
    {.name = "deadline",
     .key = KEY_DEADLINE,
     .arg = "DURATION",
     .doc = "Time that the restore may take, e.g. 4h"},
    {.name = "key",
     .key = KEY_KEY,
     .arg = "KEY",
     .doc = "Idempotency key: the same key twice is one job, however often it is sent"},
    {0},
};

static error_t parse_how(int key, char *arg, struct argp_state *state, struct restore_args *args)
{
    switch (key) {
    case KEY_CONFIG_FROM:
        return wire_config_parse(arg, &args->options.config)
                   ? 0
                   : args_bad_word(state, options, key, arg);
    case KEY_NICS:
        return wire_nics_parse(arg, &args->options.nics) ? 0
                                                         : args_bad_word(state, options, key, arg);
    case KEY_PATH:
        return wire_path_parse(arg, &args->options.path) && args->options.path < WIRE_PATH_CBT
                   ? 0
                   : args_bad_word(state, options, key, arg);
    case KEY_WORKERS:
        return args_number(state, "--workers", arg, WIRE_WORKERS_MAX, &args->options.workers);
    case KEY_START:
        args->options.start = true;
        return 0;
    case KEY_DEADLINE:
        return args_duration(state, "--deadline", arg, &args->message.deadline_s);
    case KEY_KEY:
        return args_key(state, arg, &args->message.idempotency_key);
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static error_t check(struct argp_state *state, const struct restore_args *args)
{
    const char *fault = NULL;
    if (!args->options.point && !args->options.vm)
        fault = "which restore point? Give POINT ('oxbow list' shows them) or --vm VM for its "
                "newest";
    else if (args->options.point && args->options.vm)
        fault = "give either POINT or --vm, not both";
    else if (!args->options.name)
        fault = "--name NEW is missing: a restore always makes a new VM";
    if (!fault)
        return 0;
    argp_error(state, "%s", fault);
    return EINVAL;
}

static error_t parse_arg(struct argp_state *state, char *arg, struct restore_args *args)
{
    if (!args->options.point)
        return args_set(state, "POINT", arg, WIRE_NAME_MAX, &args->options.point);
    argp_error(state, "only one POINT at a time (second one: '%s')", arg);
    return EINVAL;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct restore_args *args = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &args->job;
        return 0;
    case ARGP_KEY_ARG:
        return parse_arg(state, arg, args);
    case KEY_VM:
        return args_set(state, "--vm", arg, WIRE_NAME_MAX, &args->options.vm);
    case KEY_NAME:
        return args_set(state, "--name", arg, WIRE_NAME_MAX, &args->options.name);
    case KEY_CLUSTER:
        return args_set(state, "--cluster", arg, WIRE_NAME_MAX, &args->options.cluster);
    case KEY_STORAGE_DOMAIN:
        return args_set(state, "--storage-domain", arg, WIRE_NAME_MAX,
                        &args->options.storage_domain);
    case KEY_DISK:
        return args_add(state, "--disk", arg, &args->options.disks);
    case KEY_ZONE:
        return args_zone(state, arg, &args->message.zone);
    case ARGP_KEY_END:
        return check(state, args);
    default:
        return parse_how(key, arg, state, args);
    }
}

static const struct argp_child children[] = {{.argp = &job_argp}, {0}};
static const struct argp argp = {
    .options = options,
    .parser = parse,
    .args_doc = "POINT --name NEW\n--vm VM --name NEW",
    .doc = "Make a new VM from a restore point. POINT is its id or a unique beginning of it; no "
           "existing VM and no existing disk is ever written to."
           "\vExamples:\n"
           "  oxbow restore --vm web1 --name web1-restored --start\n"
           "  oxbow restore 3f2a9c --name db1-check --cluster lab --nics none\n\n"
           "Exit codes: 0 restored, 1 failed (what was made of the new VM is removed); see "
           "oxbow(1).",
    .children = children,
};

bool restore_parse(int argc, char **argv, unsigned argp_flags, struct restore_args *ret)
{
    *ret = (struct restore_args){0};
    ret->message.options = &ret->options;
    if (argp_parse(&argp, argc, argv, argp_flags, NULL, ret) != 0)
        return false;
    ret->message.progress = job_wants_progress(&ret->job);
    return true;
}

void restore_args_done(struct restore_args *args)
{
    free(args->options.disks.v);
}

static int run(int argc, char **argv)
{
    struct restore_args args;
    if (!restore_parse(argc, argv, 0, &args))
        return CLI_USAGE;
    int code = job_run(&args.job, FLOW_JOB, WIRE_RESTORE, &args.message);
    restore_args_done(&args);
    return code;
}

const struct cli_verb verb_restore = {
    .name = "restore", .summary = "make a new VM from a restore point", .argp = &argp, .run = run};
