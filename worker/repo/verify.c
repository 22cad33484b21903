/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>

#include "worker/repo/number.h"
#include "worker/repo/verb.h"

enum { OPT_QUICK = REPO_OPT, OPT_THREADS };

struct verify_opts {
    bool quick;
    unsigned threads;
};

static const struct argp_option options[] = {
    {"quick", OPT_QUICK, NULL, 0, "Only maps and structure, not the data", 0},
    {"threads", OPT_THREADS, "N", 0, "Default: one for each processor, at most 8", 0},
    {0},
};

static error_t option(int key, char *arg, struct argp_state *state, struct repo_call *call)
{
    struct verify_opts *o = call->opts;
    switch (key) {
    case OPT_QUICK:
        o->quick = true;
        return 0;
    case OPT_THREADS:
        o->threads = repo_threads(state, arg);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static void on_damage(void *context, const char *disk_id, uint64_t offset, uint64_t len,
                      const struct err *why)
{
    (void)context;
    printf("damaged %s offset %" PRIu64 " len %" PRIu64 ": %s\n", disk_id ? disk_id : "(file)",
           offset, len, why->message);
}

static bool verify_one(const struct repo_call *call, const char *id, struct err *err)
{
    const struct verify_opts *o = call->opts;
    struct store_verify_opts opts = {
        .threads = o->threads, .quick = o->quick, .damaged = on_damage};
    struct store_verify_result result = {0};
    bool ok = store_verify_point(call->store, id, &opts, &result, err);
    if (!ok && call->count > 0 && err->code == ERR_NOT_FOUND)
        return false; /* no such point: nothing was verified */
    if (ok && o->quick)
        printf("good    %s: maps and structure checked, not the data\n", id);
    else
        printf("%s %s: %" PRIu64 " bytes checked, %" PRIu64 " damaged%s\n",
               ok ? "good   " : "BAD    ", id, result.checked_bytes, result.damaged_bytes,
               result.sums_only ? "; checksums only, for want of a key that may read" : "");
    return ok;
}

static bool run(struct repo_call *call, struct err *err)
{
    if (call->count > 0)
        return verify_one(call, call->words[0], err);
    struct store_point_list all = {0};
    if (!store_points_list(call->store, NULL, &all, err))
        return false;
    bool ok = true;
    if (all.count == 0)
        puts("no restore points");
    for (size_t i = 0; i < all.count; i++) {
        struct err one = ERR_INIT;
        if (verify_one(call, all.items[i].id, &one))
            continue;
        err_keep_first(err, &one);
        ok = false;
    }
    store_point_list_done(&all);
    return ok;
}

const struct repo_verb repo_verify = {
    .name = "verify",
    .summary = "check everything that a restore needs, of one point or of all",
    .words = "[POINT]",
    .words_max = 1,
    .access = REPO_UPKEEP,
    .options = options,
    .opts_bytes = sizeof(struct verify_opts),
    .option = option,
    .run = run,
};
