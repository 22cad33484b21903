/* SPDX-License-Identifier: Apache-2.0 */
/* oxbow sweep: look for what tasks left behind, and have it cleaned up. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/cli/args.h"
#include "coordinator/cli/report.h"
#include "coordinator/cli/verb.h"
#include "coordinator/cli/verbs.h"

enum { KEY_ZONE = 0x400, KEY_DRY_RUN };

static const struct argp_option options[] = {
    {.name = "zone", .key = KEY_ZONE, .arg = "ZONE", .doc = "Only this zone", .group = 1},
    {.name = "dry-run",
     .key = KEY_DRY_RUN,
     .doc = "Only show what there is; open no clean-up",
     .group = 1},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct sweep_args *args = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &args->query;
        return 0;
    case KEY_ZONE:
        return args_zone(state, arg, &args->message.zone);
    case KEY_DRY_RUN:
        args->message.dry_run = true;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {{.argp = &query_argp}, {0}};
static const struct argp argp = {
    .options = options,
    .parser = parse,
    .doc = "Look through the engine and the repository for what tasks left behind, show it, and "
           "have it cleaned up. What is not known to be Oxbow's is shown and never touched.",
    .children = children,
};

bool sweep_parse(int argc, char **argv, unsigned argp_flags, struct sweep_args *ret)
{
    *ret = (struct sweep_args){0};
    return argp_parse(&argp, argc, argv, argp_flags, NULL, ret) == 0;
}

/* What needs somebody's eye first. */
static int weight(const struct wire_trace_item *t)
{
    static const char *const order[] = {"foreign", "cleanup", "stands", "in-use"};
    for (size_t i = 0; i < ARRAY_LEN(order); i++) {
        if (t->verdict && strcmp(t->verdict, order[i]) == 0)
            return (int)i;
    }
    return (int)ARRAY_LEN(order);
}

static int compare(const char *a, const char *b)
{
    return strcmp(a ? a : "", b ? b : "");
}

static int by_weight(const void *left, const void *right)
{
    const struct wire_trace_item *a = left, *b = right;
    if (weight(a) != weight(b))
        return weight(a) - weight(b);
    int order = compare(a->vm_name, b->vm_name);
    order = order ? order : compare(a->kind, b->kind);
    return order ? order : compare(a->id, b->id);
}

static void print(struct wire_item_list *items, const struct output_style *style, struct buf *out)
{
    if (items->traces_count)
        qsort(items->traces, items->traces_count, sizeof *items->traces, by_weight);
    report_traces(items->traces, items->traces_count, style->width, style->utf8,
                  clock_wall_ms(clock_system()), out);
}

static int run(int argc, char **argv)
{
    struct sweep_args args;
    if (!sweep_parse(argc, argv, 0, &args))
        return CLI_USAGE;
    return query_run(&args.query, WIRE_SWEEP, &args.message, print,
                     "nothing of Oxbow's is left anywhere");
}

const struct cli_verb verb_sweep = {
    .name = "sweep", .summary = "look for leftovers, and clean them up", .argp = &argp, .run = run};
