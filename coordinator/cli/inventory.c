/* SPDX-License-Identifier: Apache-2.0 */
/* oxbow inventory: the VMs that the engines know. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/cli/args.h"
#include "coordinator/cli/report.h"
#include "coordinator/cli/verb.h"
#include "coordinator/cli/verbs.h"

enum { KEY_ZONE = 0x400, KEY_SEARCH };

static const struct argp_option options[] = {
    {.name = "search",
     .key = KEY_SEARCH,
     .arg = "EXPR",
     .doc = "Only VMs that the engine's search finds, e.g. \"cluster=prod and name=db*\"",
     .group = 1},
    {.name = "zone", .key = KEY_ZONE, .arg = "ZONE", .doc = "Only VMs of this zone", .group = 1},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct inventory_args *args = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &args->query;
        return 0;
    case KEY_SEARCH:
        return args_set(state, "--search", arg, WIRE_TEXT_MAX, &args->message.search);
    case KEY_ZONE:
        return args_zone(state, arg, &args->message.zone);
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {{.argp = &query_argp}, {0}};
static const struct argp argp = {
    .options = options,
    .parser = parse,
    .doc = "List the VMs as the engine knows them now: what 'oxbow backup' could select.",
    .children = children,
};

bool inventory_parse(int argc, char **argv, unsigned argp_flags, struct inventory_args *ret)
{
    *ret = (struct inventory_args){0};
    return argp_parse(&argp, argc, argv, argp_flags, NULL, ret) == 0;
}

static int by_name(const void *left, const void *right)
{
    const struct wire_vm_item *a = left, *b = right;
    int names = strcmp(a->name, b->name);
    return names ? names : strcmp(a->id, b->id);
}

static void print(struct wire_item_list *items, const struct output_style *style, struct buf *out)
{
    if (items->vms_count)
        qsort(items->vms, items->vms_count, sizeof *items->vms, by_name);
    report_vms(items->vms, items->vms_count, style->width, style->utf8, out);
}

static int run(int argc, char **argv)
{
    struct inventory_args args;
    if (!inventory_parse(argc, argv, 0, &args))
        return CLI_USAGE;
    return query_run(&args.query, WIRE_INVENTORY, &args.message, print,
                     args.message.search ? "no VM matches the search" : "no VMs");
}

const struct cli_verb verb_inventory = {.name = "inventory",
                                        .summary = "list the VMs that could be backed up",
                                        .argp = &argp,
                                        .run = run};
