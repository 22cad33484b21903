/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "worker/repo/number.h"
#include "worker/repo/verb.h"
#include "worker/store/upkeep.h"

enum { OPT_SHARE = REPO_OPT, OPT_BANDWIDTH, OPT_NO_HEALING, OPT_THREADS, OPT_JSON };
enum { SHARE_MAX = 65536, BANDWIDTH_MAX = 1 << 20 };

struct scrub_opts {
    struct store_scrub_opts store;
    bool json;
};

static const struct argp_option options[] = {
    {"share", OPT_SHARE, "1/N", 0,
     "Read one part in N of the data, from where the last run stopped: N runs read all of it", 0},
    {"bandwidth", OPT_BANDWIDTH, "MIB", 0, "Read at most this many MiB a second", 0},
    {"no-healing", OPT_NO_HEALING, NULL, 0, "Find and write down damage, but do not heal it", 0},
    {"threads", OPT_THREADS, "N", 0, "Default: one for each processor, at most 8", 0},
    {"json", OPT_JSON, NULL, 0, "As JSON", 0},
    {0},
};

static error_t option(int key, char *arg, struct argp_state *state, struct repo_call *call)
{
    struct scrub_opts *o = call->opts;
    uint64_t n = 0;
    switch (key) {
    case OPT_SHARE:
        if (strncmp(arg, "1/", 2) != 0 || !repo_number(arg + 2, 1, SHARE_MAX, &n))
            argp_error(state, "--share: '%s' is not 1/1 to 1/%d", arg, SHARE_MAX);
        o->store.share = (unsigned)n;
        return 0;
    case OPT_BANDWIDTH:
        if (!repo_number(arg, 1, BANDWIDTH_MAX, &n))
            argp_error(state, "--bandwidth: '%s' is not in 1..%d", arg, BANDWIDTH_MAX);
        o->store.bytes_per_s = n << 20;
        return 0;
    case OPT_NO_HEALING:
        o->store.no_healing = true;
        return 0;
    case OPT_THREADS:
        o->store.threads = repo_threads(state, arg);
        return 0;
    case OPT_JSON:
        o->json = true;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static void on_damaged(void *context, const char *point_id, const char *text)
{
    FILE *out = context;
    fprintf(out, "damaged %s: %s\n", point_id, text);
}

static json_t *result_json(const struct store_scrub_result *r)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "packs", (json_int_t)r->packs, "frames",
                     (json_int_t)r->frames, "bytes_read", (json_int_t)r->bytes_read,
                     "frames_damaged", (json_int_t)r->frames_damaged, "frames_healed",
                     (json_int_t)r->frames_healed, "points_damaged", (json_int_t)r->points_damaged,
                     "points_healed", (json_int_t)r->points_healed);
}

static bool run(struct repo_call *call, struct err *err)
{
    const struct scrub_opts *o = call->opts;
    struct store_scrub_opts opts = o->store;
    struct store_scrub_result r;
    opts.context = o->json ? stderr : stdout;
    opts.damaged = on_damaged;
    if (!store_scrub(call->store, &opts, &r, err))
        return false;
    if (o->json && !repo_say_json(result_json(&r), err))
        return false;
    if (!o->json)
        printf("read %" PRIu64 " packs, %" PRIu64 " frames, %.1f MiB: %" PRIu64
               " frames damaged, %" PRIu64 " of them healed; %" PRIu64 " points damaged, %" PRIu64
               " good again\n",
               r.packs, r.frames, (double)r.bytes_read / (1 << 20), r.frames_damaged,
               r.frames_healed, r.points_damaged, r.points_healed);
    return r.points_damaged == 0 ||
           err_set(err, ERR_STORE_CORRUPT, 0, "%" PRIu64 " restore points are damaged",
                   r.points_damaged);
}

const struct repo_verb repo_scrub = {
    .name = "scrub",
    .access = REPO_UPKEEP,
    .summary = "read all data, or a share of it; heal what is damaged, or name what it hurts",
    .options = options,
    .opts_bytes = sizeof(struct scrub_opts),
    .option = option,
    .run = run,
};
