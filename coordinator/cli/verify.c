/* SPDX-License-Identifier: Apache-2.0 */
/* oxbow verify: read restore points, or a share of all data. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/cli/args.h"
#include "coordinator/cli/report.h"
#include "coordinator/cli/verb.h"
#include "coordinator/cli/verbs.h"

enum { KEY_ZONE = 0x400, KEY_SHARE, KEY_BANDWIDTH, KEY_POINT };
enum { VERIFY_TIMEOUT_S = 24 * 3600, BANDWIDTH_MAX = 1 << 20 };

static const struct argp_option options[] = {
    {.name = "point",
     .key = KEY_POINT,
     .arg = "POINT",
     .doc = "Only this restore point (its id, or the beginning of it)",
     .group = 1},
    {.name = "share",
     .key = KEY_SHARE,
     .arg = "1/N",
     .doc = "Read one part in N of all data, from where the last run stopped",
     .group = 1},
    {.name = "bandwidth",
     .key = KEY_BANDWIDTH,
     .arg = "MIB",
     .doc = "Read at most this many MiB a second",
     .group = 1},
    {.name = "zone",
     .key = KEY_ZONE,
     .arg = "ZONE",
     .doc = "Only the repository of this zone",
     .group = 1},
    {0},
};

static error_t set_number(struct argp_state *state, const char *option, const char *arg, long max,
                          int64_t *member)
{
    char *end;
    errno = 0;
    long n = strtol(arg, &end, 10);
    if (end == arg || *end != '\0' || errno != 0 || n < 1 || n > max) {
        argp_error(state, "%s: '%s' is not a number from 1 to %ld", option, arg, max);
        return EINVAL;
    }
    *member = n;
    return 0;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct verify_args *args = state->input;
    struct wire_verify *m = &args->message;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &args->query;
        args->query.timeout_s = VERIFY_TIMEOUT_S;
        return 0;
    case ARGP_KEY_ARG:
        if (!m->vm)
            return args_set(state, "VM", arg, WIRE_NAME_MAX, &m->vm);
        argp_error(state, "only one VM at a time (second one: '%s')", arg);
        return EINVAL;
    case ARGP_KEY_END:
        if ((m->vm || m->point) && (m->share || m->limit_mibs)) {
            argp_error(state, "--share and --bandwidth are for all data, not for a VM or a point");
            return EINVAL;
        }
        return 0;
    case KEY_POINT:
        return args_set(state, "--point", arg, WIRE_NAME_MAX, &m->point);
    case KEY_SHARE:
        return set_number(state, "--share 1/N", strncmp(arg, "1/", 2) == 0 ? arg + 2 : arg,
                          WIRE_SHARE_MAX, &m->share);
    case KEY_BANDWIDTH:
        return set_number(state, "--bandwidth", arg, BANDWIDTH_MAX, &m->limit_mibs);
    case KEY_ZONE:
        return args_zone(state, arg, &m->zone);
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {{.argp = &query_argp}, {0}};
static const struct argp argp = {
    .options = options,
    .parser = parse,
    .args_doc = "[VM]",
    .doc =
        "Read all data of the repository, or a share of it, or the restore points of one VM, and "
        "check every byte. Of all data or a share: what is damaged is healed where the "
        "repository can, and listed as damaged where it cannot.",
    .children = children,
};

bool verify_parse(int argc, char **argv, unsigned argp_flags, struct verify_args *ret)
{
    *ret = (struct verify_args){0};
    return argp_parse(&argp, argc, argv, argp_flags, NULL, ret) == 0;
}

static void print(struct wire_item_list *items, const struct output_style *style, struct buf *out)
{
    report_points(items->points, items->points_count, style->width, style->utf8,
                  clock_wall_ms(clock_system()), out);
    report_numbers(items->gauges, items->gauges_count, style->width, style->utf8, out);
}

static int run(int argc, char **argv)
{
    struct verify_args args;
    if (!verify_parse(argc, argv, 0, &args))
        return CLI_USAGE;
    return query_run(&args.query, WIRE_VERIFY, &args.message, print, "nothing to verify");
}

const struct cli_verb verb_verify = {.name = "verify",
                                     .summary = "read and check restore points, heal damage",
                                     .argp = &argp,
                                     .run = run};
