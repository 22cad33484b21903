/* SPDX-License-Identifier: Apache-2.0 */
/* Verbs about single points: forget, protect, unprotect. */
#include <stdio.h>

#include "worker/repo/verb.h"
#include "worker/store/upkeep.h"

enum { OPT_LAST_TOO = REPO_OPT };

struct forget_opts {
    bool last_too;
};

static const struct argp_option options[] = {
    {"last-too", OPT_LAST_TOO, NULL, 0, "Even if it is the last good point of its VM", 0},
    {0},
};

static error_t option(int key, char *arg, struct argp_state *state, struct repo_call *call)
{
    (void)arg;
    (void)state;
    struct forget_opts *o = call->opts;
    if (key != OPT_LAST_TOO)
        return ARGP_ERR_UNKNOWN;
    o->last_too = true;
    return 0;
}

static bool run_forget(struct repo_call *call, struct err *err)
{
    const struct forget_opts *o = call->opts;
    if (!store_point_delete(call->store, call->words[0], o->last_too, err))
        return false;
    printf("%s is deleted; 'repo gc' frees its space\n", call->words[0]);
    return true;
}

static bool run_protect(struct repo_call *call, struct err *err)
{
    return store_point_protect(call->store, call->words[0], err);
}

static bool run_unprotect(struct repo_call *call, struct err *err)
{
    return store_point_unprotect(call->store, call->words[0], err);
}

const struct repo_verb repo_forget = {
    .name = "forget",
    .access = REPO_UPKEEP,
    .summary = "delete one restore point",
    .words = "POINT",
    .words_min = 1,
    .words_max = 1,
    .options = options,
    .opts_bytes = sizeof(struct forget_opts),
    .option = option,
    .run = run_forget,
};

const struct repo_verb repo_protect = {
    .name = "protect",
    .access = REPO_UPKEEP,
    .summary = "keep a restore point whatever the policy says",
    .words = "POINT",
    .words_min = 1,
    .words_max = 1,
    .run = run_protect,
};

const struct repo_verb repo_unprotect = {
    .name = "unprotect",
    .access = REPO_UPKEEP,
    .summary = "let the policy decide about a restore point again",
    .words = "POINT",
    .words_min = 1,
    .words_max = 1,
    .run = run_unprotect,
};
