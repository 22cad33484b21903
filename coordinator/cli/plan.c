/* SPDX-License-Identifier: Apache-2.0 */
/* oxbow plan: how a backup would go. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "coordinator/cli/args.h"
#include "coordinator/cli/report.h"
#include "coordinator/cli/verb.h"
#include "coordinator/cli/verbs.h"

enum { KEY_ZONE = 0x400, KEY_PATH, KEY_UNSUPPORTED };

static const struct argp_option options[] = {
    {.name = "zone", .key = KEY_ZONE, .arg = "ZONE", .doc = "Only VMs of this zone", .group = 1},
    {.doc = "How:", .group = 2},
    {.name = "path",
     .key = KEY_PATH,
     .arg = "auto|attach|imageio|cbt|hybrid",
     .doc = "As for a backup (default auto: chosen per disk)"},
    {.name = "unsupported-disks",
     .key = KEY_UNSUPPORTED,
     .arg = "skip|fail",
     .doc =
         "As for a backup: disks that cannot be snapshotted are skipped (default), or a problem"},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct plan_args *args = state->input;
    bool ok;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &args->select;
        state->child_inputs[1] = &args->query;
        return 0;
    case KEY_ZONE:
        return args_zone(state, arg, &args->message.zone);
    case KEY_PATH:
        ok = wire_path_parse(arg, &args->options.path);
        break;
    case KEY_UNSUPPORTED:
        ok = wire_unsupported_parse(arg, &args->options.unsupported);
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return ok ? 0 : args_bad_word(state, options, key, arg);
}

static const struct argp_child children[] = {{.argp = &selection_argp}, {.argp = &query_argp}, {0}};
static const struct argp argp = {
    .options = options,
    .parser = parse,
    .args_doc = "[VM...]",
    .doc =
        "Show how a backup would go if it began now, without doing anything: by which path each "
        "disk would be read and why, what would be skipped, the bytes and the time expected, and "
        "what would make it fail."
        "\vExamples:\n"
        "  oxbow plan web1 db1\n"
        "  oxbow plan --tag nightly --json",
    .children = children,
};

bool plan_parse(int argc, char **argv, unsigned argp_flags, struct plan_args *ret)
{
    *ret = (struct plan_args){0};
    ret->message.select = &ret->select;
    ret->message.options = &ret->options;
    return argp_parse(&argp, argc, argv, argp_flags, NULL, ret) == 0;
}

void plan_args_done(struct plan_args *args)
{
    selection_done(&args->select);
}

static int by_name(const void *left, const void *right)
{
    const struct wire_plan_item *a = left, *b = right;
    int names = strcmp(a->name, b->name);
    return names ? names : strcmp(a->id, b->id);
}

static void print(struct wire_item_list *items, const struct output_style *style, struct buf *out)
{
    if (items->plans_count)
        qsort(items->plans, items->plans_count, sizeof *items->plans, by_name);
    report_plans(items->plans, items->plans_count, style->width, style->utf8, out);
}

static int run(int argc, char **argv)
{
    struct plan_args args;
    if (!plan_parse(argc, argv, 0, &args))
        return CLI_USAGE;
    int code =
        query_run_named(&args.query, WIRE_PLAN, &args.message, print, "no such VMs", &args.select);
    plan_args_done(&args);
    return code;
}

const struct cli_verb verb_plan = {
    .name = "plan", .summary = "show how a backup would go", .argp = &argp, .run = run};
