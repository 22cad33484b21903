/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>

#include "proto/base/clock.h"
#include "worker/repo/verb.h"

enum { OPT_JSON = REPO_OPT };

struct show_opts {
    bool json;
};

static const struct argp_option options[] = {
    {"json", OPT_JSON, NULL, 0, "All of point.json", 0},
    {0},
};

static error_t option(int key, char *arg, struct argp_state *state, struct repo_call *call)
{
    (void)arg;
    (void)state;
    struct show_opts *o = call->opts;
    if (key != OPT_JSON)
        return ARGP_ERR_UNKNOWN;
    o->json = true;
    return 0;
}

static bool run(struct repo_call *call, struct err *err)
{
    const struct show_opts *o = call->opts;
    SCOPED(store_point)
    struct store_point *point = store_point_open_any(call->store, call->words[0], err);
    if (!point)
        return false;
    if (o->json)
        return repo_say_json(json_deep_copy(store_point_json(point)), err);
    const struct store_point_info *info = store_point_info(point);
    char when[CLOCK_TEXT_BYTES];
    clock_format_utc(info->created_ms, when);
    printf("point   %s\nvm      %s (%s)\nwritten %s by %s\nsize    %" PRIu64 " bytes, %" PRIu64
           " stored\n",
           info->id, info->vm_name, info->vm_id, when, info->worker, info->size_bytes,
           info->stored_bytes);
    if (info->part_of)
        printf("part of task %s: not a whole VM\n", info->part_of);
    for (size_t i = 0; i < store_point_disk_count(point); i++) {
        const struct store_point_disk *d = store_point_disk(point, i);
        printf("disk    %s %" PRIu64 " bytes\n", d->id, d->size_bytes);
    }
    for (size_t i = 0; i < store_point_blob_count(point); i++)
        printf("file    %s\n", store_point_blob_name(point, i));
    return true;
}

const struct repo_verb repo_show = {
    .name = "show",
    .summary = "show one restore point: its VM, disks and files",
    .words = "POINT",
    .words_min = 1,
    .words_max = 1,
    .access = REPO_UPKEEP,
    .options = options,
    .opts_bytes = sizeof(struct show_opts),
    .option = option,
    .run = run,
};
