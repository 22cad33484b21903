/* SPDX-License-Identifier: Apache-2.0 */
/* The restore points of the repository, in pages. */
#include <string.h>

#include "proto/base/alloc.h"
#include "proto/base/log.h"
#include "worker/step/listing.h"
#include "worker/step/point_items.h"
#include "worker/store/store.h"

static bool wanted(const struct wire_list *list, const struct store_point_info *info)
{
    if (!list || !list->vm || info->damage)
        return true;
    return strcmp(info->vm_id, list->vm) == 0 || strcmp(info->vm_name, list->vm) == 0;
}

static bool send(struct task_run *run, struct point_items *items)
{
    if (items->count == 0)
        return true;
    run_items(run, &(struct wire_item_list){.points = items->v, .points_count = items->count});
    point_items_done(items);
    return true;
}

bool step_list(struct task_run *run, struct err *err)
{
    struct store_point_list all = {0};
    if (!store_points_list(run->store, NULL, &all, err))
        return false;
    struct point_items items = {0};
    bool ok = true;
    size_t found = 0;
    for (size_t i = 0; ok && i < all.count; i++) {
        if (!wanted(run->offer->list, &all.items[i]))
            continue;
        found++;
        point_items_add(&items, run->store, &all.items[i], run->settings->zone);
        ok = run_check(run, err) && (items.count < WIRE_PAGE_MAX || send(run, &items));
    }
    ok = ok && send(run, &items);
    if (ok)
        log_info("points_listed", LOG_U64("points", found));
    point_items_done(&items);
    store_point_list_done(&all);
    return ok;
}
