/* SPDX-License-Identifier: Apache-2.0 */
/* Retention and garbage, as a task. */
#include <string.h>

#include "proto/base/alloc.h"
#include "proto/base/log.h"
#include "worker/step/point_items.h"
#include "worker/step/upkeep.h"
#include "worker/store/upkeep.h"

enum { NUMBERS_MAX = 16 };

void upkeep_send_numbers(struct task_run *run, const struct upkeep_number *numbers, size_t count)
{
    struct wire_gauge_item v[NUMBERS_MAX] = {0};
    for (size_t i = 0; i < count && i < NUMBERS_MAX; i++)
        v[i] = (struct wire_gauge_item){.name = (char *)(uintptr_t)numbers[i].name,
                                        .zone = (char *)(uintptr_t)run->settings->zone,
                                        .value = (int64_t)numbers[i].value};
    run_items(run, &(struct wire_item_list){.gauges = v, .gauges_count = count});
}

static bool take_policy(const struct wire_policy *from, struct retention_policy *policy,
                        struct err *err)
{
    const int64_t keep[RETENTION_RULES] = {from->last,   from->hourly,  from->daily,
                                           from->weekly, from->monthly, from->yearly};
    for (int r = 0; r < RETENTION_RULES; r++)
        policy->keep[r] = (unsigned)keep[r];
    return retention_zone_parse(from->timezone ? from->timezone : "UTC", policy, err) &&
           retention_check(policy, err);
}

/* The calendar: every selected point with what becomes of it. */
static bool send_plan(struct task_run *run, const struct store_prune_plan *plan, struct err *err)
{
    struct point_items items = {0};
    bool ok = true;
    for (size_t i = 0; ok && i < plan->list.count; i++) {
        char why[RETENTION_WHY_BYTES];
        point_items_add(&items, run->store, &plan->list.items[i], run->settings->zone);
        struct wire_point_item *item = &items.v[items.count - 1];
        item->verdict = xstrdup(plan->points[i].kept ? "keep" : "delete");
        retention_why(plan->points[i].kept, why);
        if (why[0] != '\0')
            item->rules = xstrdup(why);
        ok = run_check(run, err);
        if (items.count == WIRE_PAGE_MAX || i + 1 == plan->list.count) {
            run_items(run,
                      &(struct wire_item_list){.points = items.v, .points_count = items.count});
            point_items_done(&items);
        }
    }
    point_items_done(&items);
    return ok;
}

static bool delete_points(struct task_run *run, const struct wire_prune *prune, struct err *err)
{
    struct retention_policy policy = {0};
    struct store_prune_plan plan;
    if (!take_policy(prune->policy, &policy, err) ||
        !store_prune_plan(run->store, (const char *const *)prune->vms.v, prune->vms.count, &policy,
                          &plan, err))
        return false;
    size_t deleted = 0;
    bool ok = send_plan(run, &plan, err);
    if (ok && !prune->dry_run)
        ok = run_before_mutation(run, err) && store_prune_apply(run->store, &plan, &deleted, err);
    if (ok)
        log_info("points_pruned", LOG_U64("points", plan.list.count), LOG_U64("deleted", deleted));
    store_prune_plan_done(&plan);
    return ok;
}

static bool stops(void *context)
{
    return run_is_cancelled(context);
}

static bool collect(struct task_run *run, bool dry_run, struct err *err)
{
    struct store_collect_result r;
    struct store_collect_opts opts = {.dry_run = dry_run, .context = run, .cancelled = stops};
    if (!run_before_mutation(run, err) || !store_collect(run->store, &opts, &r, err))
        return false;
    const struct upkeep_number numbers[] = {
        {"points", r.points},
        {"packs_before", r.packs_before},
        {"bytes_before", r.bytes_before},
        {"packs_removed", r.packs_removed + r.packs_dead},
        {"packs_compacted", r.packs_compacted},
        {"packs_held", r.packs_held},
        {"bytes_freed", r.bytes_freed},
        {"bytes_after", r.bytes_before - r.bytes_freed},
        {"sessions_open", r.sessions_open},
    };
    upkeep_send_numbers(run, numbers, ARRAY_LEN(numbers));
    if (r.blocked[0] != '\0')
        run_warn(run, err_code_name(ERR_STORE_CORRUPT), NULL,
                 "only the data of dead sessions was freed, as it is not known what a damaged "
                 "point refers to: %s",
                 r.blocked);
    return true;
}

bool step_prune(struct task_run *run, struct err *err)
{
    const struct wire_prune *prune = run->offer->prune;
    if (prune->policy && !delete_points(run, prune, err))
        return false;
    return collect(run, prune->dry_run, err);
}
