/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "proto/base/clock.h"
#include "worker/repo/verb.h"
#include "worker/step/point_items.h"

enum { OPT_JSON = REPO_OPT, OPT_VM, OPT_PARTS };

struct list_opts {
    bool json, parts;
    const char *vm;
};

static const struct argp_option options[] = {
    {"json", OPT_JSON, NULL, 0, "As JSON Lines", 0},
    {"parts", OPT_PARTS, NULL, 0,
     "Also what was copied for a backup by several workers and is not a whole VM", 0},
    {"vm", OPT_VM, "VM", 0, "Only points of this VM (id or name)", 0},
    {0},
};

static error_t option(int key, char *arg, struct argp_state *state, struct repo_call *call)
{
    (void)state;
    struct list_opts *o = call->opts;
    switch (key) {
    case OPT_JSON:
        o->json = true;
        return 0;
    case OPT_PARTS:
        o->parts = true;
        return 0;
    case OPT_VM:
        o->vm = arg;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static json_t *item_json(const struct wire_point_item *p)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:s, s:s, s:s*}", "type", "point",
                     "id", p->id, "vm", p->vm, "vm_name", p->vm_name, "time_ms",
                     (json_int_t)p->time_ms, "disks", (json_int_t)p->disks, "size_bytes",
                     (json_int_t)p->size_bytes, "stored_bytes", (json_int_t)p->stored_bytes,
                     "quiesced", p->quiesced, "state", p->state, "message", p->message);
}

/* JSON Lines, as `oxbow list --json` writes them. */
static bool print_json(const struct point_items *items, struct err *err)
{
    bool ok = true;
    for (size_t i = 0; i < items->count && ok; i++) {
        json_t *line = item_json(&items->v[i]);
        ok = line && json_dumpf(line, stdout, JSON_COMPACT) == 0 && putchar('\n') != EOF;
        json_decref(line);
    }
    return (ok && fflush(stdout) == 0) || err_set(err, ERR_IO, 0, "write to standard output");
}

static void print_text(const struct point_items *items)
{
    printf("%-48s %-20s %-20s %5s %12s %12s %-3s %s\n", "POINT", "TIME", "VM", "DISKS", "SIZE_MIB",
           "STORED_MIB", "QUI", "STATE");
    for (size_t i = 0; i < items->count; i++) {
        const struct wire_point_item *p = &items->v[i];
        char when[CLOCK_TEXT_BYTES];
        clock_format_utc(p->time_ms, when);
        printf("%-48s %-20s %-20s %5" PRId64 " %12" PRId64 " %12" PRId64 " %-3s %s%s%s\n", p->id,
               when, p->vm_name, p->disks, p->size_bytes >> 20, p->stored_bytes >> 20, p->quiesced,
               p->state, p->message ? ": " : "", p->message ? p->message : "");
    }
}

/* A part is named as such, whatever else is known of it. */
static void add_point(struct point_items *items, struct store *store,
                      const struct store_point_info *p)
{
    point_items_add(items, store, p, NULL);
    if (!p->part_of)
        return;
    struct wire_point_item *item = &items->v[items->count - 1];
    free(item->state);
    free(item->message);
    item->state = xstrdup("part");
    item->message = xasprintf("of task %s", p->part_of);
}

static bool run(struct repo_call *call, struct err *err)
{
    const struct list_opts *o = call->opts;
    const struct store_point_filter filter = {.parts = o->parts};
    struct store_point_list all = {0};
    if (!store_points_list(call->store, &filter, &all, err))
        return false;
    struct point_items items = {0};
    for (size_t i = 0; i < all.count; i++) {
        const struct store_point_info *p = &all.items[i];
        if (!o->vm || p->damage || strcmp(p->vm_id, o->vm) == 0 || strcmp(p->vm_name, o->vm) == 0)
            add_point(&items, call->store, p);
    }
    bool ok = true;
    if (o->json)
        ok = print_json(&items, err);
    else
        print_text(&items);
    point_items_done(&items);
    store_point_list_done(&all);
    return ok;
}

const struct repo_verb repo_list = {
    .name = "list",
    .summary = "list the restore points",
    .access = REPO_UPKEEP,
    .options = options,
    .opts_bytes = sizeof(struct list_opts),
    .option = option,
    .run = run,
};
