/* SPDX-License-Identifier: Apache-2.0 */
/* Which VMs: the words and options that backup and plan share. */
#include <errno.h>

#include "coordinator/cli/args.h"
#include "coordinator/cli/verbs.h"
#include "proto/base/id.h"

enum { KEY_ID = 0x500, KEY_TAG, KEY_SEARCH, KEY_ALL, KEY_EXCLUDE };

static const struct argp_option options[] = {
    {.doc = "Which VMs (the union of all that is given):", .group = 1},
    {.name = "id", .key = KEY_ID, .arg = "ID", .doc = "The VM with this id; may be repeated"},
    {.name = "tag", .key = KEY_TAG, .arg = "TAG", .doc = "VMs with this tag; may be repeated"},
    {.name = "search",
     .key = KEY_SEARCH,
     .arg = "EXPR",
     .doc = "VMs that the engine's search finds, e.g. \"cluster=prod and name=db*\""},
    {.name = "all", .key = KEY_ALL, .doc = "All VMs"},
    {.name = "exclude",
     .key = KEY_EXCLUDE,
     .arg = "VM",
     .doc = "Not the VM of this name; may be repeated"},
    {0},
};

static bool is_empty(const struct wire_select *s)
{
    return !s->names.count && !s->ids.count && !s->tags.count && !s->search && !s->all;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct wire_select *select = state->input;
    switch (key) {
    case ARGP_KEY_ARG: /* a word on the command line may be a name or an id */
        return args_add(state, "VM", arg, id_is_valid(arg) ? &select->ids : &select->names);
    case KEY_ID:
        if (!id_is_valid(arg)) {
            argp_error(state, "--id '%s' is not a UUID: 'oxbow inventory --json' shows the ids",
                       arg);
            return EINVAL;
        }
        return args_add(state, "--id", arg, &select->ids);
    case KEY_TAG:
        return args_add(state, "--tag", arg, &select->tags);
    case KEY_SEARCH:
        return args_set(state, "--search", arg, WIRE_TEXT_MAX, &select->search);
    case KEY_ALL:
        select->all = true;
        return 0;
    case KEY_EXCLUDE:
        return args_add(state, "--exclude", arg, &select->exclude);
    case ARGP_KEY_END:
        if (!is_empty(select))
            return 0;
        argp_error(state, "which VMs? Name some, or give --tag, --search or --all");
        return EINVAL;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

const struct argp selection_argp = {.options = options, .parser = parse};

void selection_done(struct wire_select *select)
{
    free(select->ids.v);
    free(select->names.v);
    free(select->tags.v);
    free(select->exclude.v);
}
