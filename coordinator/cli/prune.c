/* SPDX-License-Identifier: Apache-2.0 */
/* oxbow prune: retention, and freeing space. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/cli/args.h"
#include "coordinator/cli/report.h"
#include "coordinator/cli/verb.h"
#include "coordinator/cli/verbs.h"

enum { KEY_ZONE = 0x400, KEY_TIMEZONE, KEY_DRY_RUN, KEY_KEEP };
enum { PRUNE_TIMEOUT_S = 24 * 3600, RULES = 6 };

static const struct argp_option options[] = {
    {.name = "keep-last",
     .key = KEY_KEEP,
     .arg = "N",
     .doc = "Keep the newest N points of each VM",
     .group = 1},
    {.name = "keep-hourly",
     .key = KEY_KEEP + 1,
     .arg = "N",
     .doc = "Keep the newest good point of each of the last N hours that have one",
     .group = 1},
    {.name = "keep-daily", .key = KEY_KEEP + 2, .arg = "N", .doc = "The same for days", .group = 1},
    {.name = "keep-weekly",
     .key = KEY_KEEP + 3,
     .arg = "N",
     .doc = "For weeks, which begin on Monday",
     .group = 1},
    {.name = "keep-monthly", .key = KEY_KEEP + 4, .arg = "N", .doc = "For months", .group = 1},
    {.name = "keep-yearly", .key = KEY_KEEP + 5, .arg = "N", .doc = "For years", .group = 1},
    {.name = "timezone",
     .key = KEY_TIMEZONE,
     .arg = "ZONE",
     .doc = "Where hours and days begin: UTC (default), local (the worker's), or an offset such as "
            "+02:00",
     .group = 1},
    {.name = "dry-run",
     .key = KEY_DRY_RUN,
     .doc = "Only show what would be kept, deleted and freed",
     .group = 1},
    {.name = "zone",
     .key = KEY_ZONE,
     .arg = "ZONE",
     .doc = "Only the repository of this zone",
     .group = 1},
    {0},
};

static error_t set_keep(struct argp_state *state, struct prune_args *args, int rule,
                        const char *arg)
{
    struct wire_policy *p = &args->policy;
    int64_t *const members[RULES] = {&p->last,   &p->hourly,  &p->daily,
                                     &p->weekly, &p->monthly, &p->yearly};
    char *end;
    errno = 0;
    long n = strtol(arg, &end, 10);
    if (end == arg || *end != '\0' || errno != 0 || n < 0 || n > WIRE_KEEP_MAX) {
        argp_error(state, "%s: '%s' is not a number from 0 to %d", options[rule].name, arg,
                   WIRE_KEEP_MAX);
        return EINVAL;
    }
    *members[rule] = n;
    return 0;
}

static error_t finish(struct prune_args *args)
{
    const struct wire_policy *p = &args->policy;
    if (p->last || p->hourly || p->daily || p->weekly || p->monthly || p->yearly)
        args->message.policy = &args->policy;
    return 0;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct prune_args *args = state->input;
    if (key >= KEY_KEEP && key < KEY_KEEP + RULES)
        return set_keep(state, args, key - KEY_KEEP, arg);
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &args->query;
        args->query.timeout_s = PRUNE_TIMEOUT_S;
        return 0;
    case ARGP_KEY_ARG:
        return args_add(state, "VM", arg, &args->message.vms);
    case ARGP_KEY_END:
        if (args->policy.timezone && finish(args) == 0 && !args->message.policy) {
            argp_error(state, "--timezone without a --keep option");
            return EINVAL;
        }
        return finish(args);
    case KEY_TIMEZONE:
        return args_set(state, "--timezone", arg, 16, &args->policy.timezone);
    case KEY_DRY_RUN:
        args->message.dry_run = true;
        return 0;
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
    .args_doc = "[VM...]",
    .doc = "Delete the restore points that a policy does not keep, of all VMs or of some (names or "
           "ids), and free what nobody refers to. Without a --keep option nothing is deleted, only "
           "space is freed. The last good point of a VM and protected points are always kept.",
    .children = children,
};

bool prune_parse(int argc, char **argv, unsigned argp_flags, struct prune_args *ret)
{
    *ret = (struct prune_args){0};
    return argp_parse(&argp, argc, argv, argp_flags, NULL, ret) == 0;
}

void prune_args_done(struct prune_args *args)
{
    free(TAKE(args->message.vms.v));
    args->message.vms.count = 0;
}

static void print(struct wire_item_list *items, const struct output_style *style, struct buf *out)
{
    report_verdicts(items->points, items->points_count, style->width, style->utf8, out);
    report_numbers(items->gauges, items->gauges_count, style->width, style->utf8, out);
}

static int run(int argc, char **argv)
{
    struct prune_args args;
    if (!prune_parse(argc, argv, 0, &args))
        return CLI_USAGE;
    int code = query_run(&args.query, WIRE_PRUNE, &args.message, print, "nothing to prune");
    prune_args_done(&args);
    return code;
}

const struct cli_verb verb_prune = {.name = "prune",
                                    .summary = "delete restore points by a policy, free space",
                                    .argp = &argp,
                                    .run = run};
