/* SPDX-License-Identifier: Apache-2.0 */
/* oxbow export: have the engine write running VMs out as OVAs, or into an export domain. */
#include <errno.h>
#include <string.h>

#include "coordinator/cli/args.h"
#include "coordinator/cli/verb.h"
#include "coordinator/cli/verbs.h"
#include "proto/base/alloc.h"

enum { KEY_ZONE = 0x400, KEY_TO_OVA, KEY_TO_DOMAIN };

static const struct argp_option options[] = {
    {.name = "zone",
     .key = KEY_ZONE,
     .arg = "ZONE",
     .doc = "Only VMs of this zone (data centre)",
     .group = 1},
    {.doc = "Where to (one of both):", .group = 2},
    {.name = "to-ova",
     .key = KEY_TO_OVA,
     .arg = "HOST:DIR",
     .doc = "An OVA for each VM, written by this host (name or id) into this directory of it, an "
            "absolute path that is there"},
    {.name = "to-domain",
     .key = KEY_TO_DOMAIN,
     .arg = "NAME",
     .doc = "An export domain (name or id)"},
    {0},
};

/* "host1:/mnt/ova". A host's name has no colon before a slash. */
static error_t parse_ova(struct argp_state *state, char *arg, struct export_args *args)
{
    char *colon = strstr(arg, ":/");
    if (!colon || colon == arg || colon - arg > WIRE_NAME_MAX) {
        argp_error(state, "--to-ova '%s' is not HOST:DIR with an absolute path", arg);
        return EINVAL;
    }
    free(args->host);
    args->host = xstrndup(arg, (size_t)(colon - arg));
    args->options.host = args->host;
    return args_set(state, "--to-ova", colon + 1, WIRE_NAME_MAX, &args->options.directory);
}

static error_t check(struct argp_state *state, const struct export_args *args)
{
    if (!args->options.host != !args->options.domain)
        return 0;
    argp_error(state, "where to? Give either --to-ova HOST:DIR or --to-domain NAME");
    return EINVAL;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct export_args *args = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &args->select;
        state->child_inputs[1] = &args->how;
        state->child_inputs[2] = &args->job;
        return 0;
    case KEY_ZONE:
        return args_zone(state, arg, &args->message.zone);
    case KEY_TO_OVA:
        return parse_ova(state, arg, args);
    case KEY_TO_DOMAIN:
        return args_set(state, "--to-domain", arg, WIRE_NAME_MAX, &args->options.domain);
    case ARGP_KEY_END:
        return check(state, args);
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {
    {.argp = &selection_argp}, {.argp = &how_argp, .group = 3}, {.argp = &job_argp}, {0}};
static const struct argp argp = {
    .options = options,
    .parser = parse,
    .args_doc = "[VM...] --to-ova HOST:DIR\n[VM...] --to-domain NAME",
    .doc = "Have the engine write running VMs out: a clone of each is made from a snapshot, "
           "exported, and removed. A VM is named by its name or its id."
           "\vExamples:\n"
           "  oxbow export web1 --to-ova host1:/mnt/ova\n"
           "  oxbow export --tag handover --to-domain export1\n\n"
           "The storage domains need room for a second copy of the disks meanwhile. Exit codes: 0 "
           "all succeeded, 3 some failed, 1 all failed; see oxbow(1).",
    .children = children,
};

bool export_parse(int argc, char **argv, unsigned argp_flags, struct export_args *ret)
{
    *ret = (struct export_args){0};
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

void export_args_done(struct export_args *args)
{
    selection_done(&args->select);
    free(args->host);
}

static int run(int argc, char **argv)
{
    struct export_args args;
    if (!export_parse(argc, argv, 0, &args))
        return CLI_USAGE;
    int code = job_run(&args.job, FLOW_JOB, WIRE_EXPORT, &args.message);
    export_args_done(&args);
    return code;
}

const struct cli_verb verb_export = {
    .name = "export", .summary = "write running VMs out as OVAs", .argp = &argp, .run = run};
