/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/repo/collected.h"
#include "worker/repo/verb.h"

enum { OPT_DRY_RUN = REPO_OPT, OPT_DEAD, OPT_COMPACT, OPT_JSON };
enum { DEAD_MAX = 64 };

struct gc_opts {
    bool dry_run, json, all_dead;
    int compact_below_percent;
    const char *dead[DEAD_MAX];
    size_t n_dead;
};

static const struct argp_option options[] = {
    {"dry-run", OPT_DRY_RUN, NULL, 0, "Only say what would be freed", 0},
    {"dead", OPT_DEAD, "SESSION", 0,
     "This open session is dead (may be repeated; 'all': every one). A backup that is declared "
     "dead "
     "by mistake fails; nothing else happens",
     0},
    {"compact", OPT_COMPACT, "PERCENT", 0,
     "Rewrite packs of which less than this is used (default 50; 0: none)", 0},
    {"json", OPT_JSON, NULL, 0, "As JSON", 0},
    {0},
};

static error_t option(int key, char *arg, struct argp_state *state, struct repo_call *call)
{
    struct gc_opts *o = call->opts;
    char *end = NULL;
    switch (key) {
    case OPT_DRY_RUN:
        o->dry_run = true;
        return 0;
    case OPT_JSON:
        o->json = true;
        return 0;
    case OPT_DEAD:
        if (strcmp(arg, "all") == 0)
            o->all_dead = true;
        else if (o->n_dead < DEAD_MAX)
            o->dead[o->n_dead++] = arg;
        else
            argp_error(state, "more than %d dead sessions", DEAD_MAX);
        return 0;
    case OPT_COMPACT: {
        long percent = strtol(arg, &end, 10);
        if (end == arg || *end != '\0' || percent < 0 || percent > 100)
            argp_error(state, "--compact: '%s' is not in 0..100", arg);
        o->compact_below_percent = percent == 0 ? -1 : (int)percent;
        return 0;
    }
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static bool is_dead(void *context, const char *session_id)
{
    const struct gc_opts *o = context;
    bool dead = o->all_dead;
    for (size_t i = 0; i < o->n_dead; i++)
        dead = dead || strcmp(o->dead[i], session_id) == 0;
    return dead;
}

static bool run(struct repo_call *call, struct err *err)
{
    struct gc_opts *o = call->opts;
    struct store_collect_opts opts = {.compact_below_percent = o->compact_below_percent,
                                      .dry_run = o->dry_run,
                                      .context = o,
                                      .is_dead = is_dead};
    struct store_collect_result result;
    struct store_session_list open;
    if (!store_collect(call->store, &opts, &result, err) ||
        !store_sessions_open(call->store, &open, err))
        return false;
    bool ok = true;
    if (o->json) {
        json_t *json = collected_json(&result, o->dry_run);
        json_t *ids = json_array();
        for (size_t i = 0; i < open.count; i++)
            json_array_append_new(ids, json_string(open.ids[i]));
        json_object_set_new(json, "open_sessions", ids);
        ok = repo_say_json(json, err);
    } else {
        collected_print(&result, o->dry_run);
        for (size_t i = 0; i < open.count; i++)
            printf("open session %s\n", open.ids[i]);
    }
    store_session_list_done(&open);
    return ok && collected_check(&result, err);
}

const struct repo_verb repo_gc = {
    .name = "gc",
    .access = REPO_UPKEEP,
    .summary = "free the space of deleted points and dead sessions",
    .options = options,
    .opts_bytes = sizeof(struct gc_opts),
    .option = option,
    .run = run,
};
