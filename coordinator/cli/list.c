/* SPDX-License-Identifier: Apache-2.0 */
/* oxbow list: the restore points. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/cli/args.h"
#include "coordinator/cli/report.h"
#include "coordinator/cli/verb.h"
#include "coordinator/cli/verbs.h"

enum { KEY_ZONE = 0x400 };

static const struct argp_option options[] = {
    {.name = "zone",
     .key = KEY_ZONE,
     .arg = "ZONE",
     .doc = "Only the repository of this zone",
     .group = 1},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct list_args *args = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &args->query;
        return 0;
    case ARGP_KEY_ARG:
        if (!args->message.vm)
            return args_set(state, "VM", arg, WIRE_NAME_MAX, &args->message.vm);
        argp_error(state, "only one VM at a time (second one: '%s')", arg);
        return EINVAL;
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
    .args_doc = "[VM]",
    .doc = "List the restore points of all VMs, or of one (name or id): by VM, oldest first.",
    .children = children,
};

bool list_parse(int argc, char **argv, unsigned argp_flags, struct list_args *ret)
{
    *ret = (struct list_args){0};
    return argp_parse(&argp, argc, argv, argp_flags, NULL, ret) == 0;
}

static int by_vm_and_time(const void *left, const void *right)
{
    const struct wire_point_item *a = left, *b = right;
    const char *a_name = a->vm_name ? a->vm_name : "", *b_name = b->vm_name ? b->vm_name : "";
    int names = strcmp(a_name, b_name);
    if (names)
        return names;
    if (a->time_ms != b->time_ms)
        return a->time_ms < b->time_ms ? -1 : 1;
    return strcmp(a->id, b->id);
}

static void print(struct wire_item_list *items, const struct output_style *style, struct buf *out)
{
    if (items->points_count)
        qsort(items->points, items->points_count, sizeof *items->points, by_vm_and_time);
    report_points(items->points, items->points_count, style->width, style->utf8,
                  clock_wall_ms(clock_system()), out);
}

static int run(int argc, char **argv)
{
    struct list_args args;
    if (!list_parse(argc, argv, 0, &args))
        return CLI_USAGE;
    return query_run(&args.query, WIRE_LIST, &args.message, print,
                     args.message.vm ? "no restore points of this VM; 'oxbow list' shows all"
                                     : "no restore points");
}

const struct cli_verb verb_list = {
    .name = "list", .summary = "list restore points", .argp = &argp, .run = run};
