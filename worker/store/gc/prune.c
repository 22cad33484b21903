/* SPDX-License-Identifier: Apache-2.0 */
/* Retention: the plan for the points that are there, and carrying it out. */
#include <stdlib.h>
#include <string.h>

#include "worker/store/gc/delete.h"
#include "worker/store/object.h"
#include "worker/store/repo.h"
#include "worker/store/upkeep.h"

static bool is_selected(const struct store_point_info *p, const char *const *vms, size_t n_vms)
{
    bool selected = n_vms == 0;
    for (size_t i = 0; i < n_vms; i++)
        selected = selected || strcmp(p->vm_id, vms[i]) == 0 || strcmp(p->vm_name, vms[i]) == 0;
    return selected;
}

/* Keeps the selected points of `list`, and frees the others. */
static void select_points(struct store_point_list *list, const char *const *vms, size_t n_vms)
{
    struct store_point_list rest = {0};
    rest.items = xcalloc(list->count + 1, sizeof *rest.items);
    size_t kept = 0;
    for (size_t i = 0; i < list->count; i++) {
        if (is_selected(&list->items[i], vms, n_vms))
            list->items[kept++] = list->items[i];
        else
            rest.items[rest.count++] = list->items[i];
    }
    list->count = kept;
    store_point_list_done(&rest);
}

bool store_prune_plan(struct store *store, const char *const *vms, size_t n_vms,
                      const struct retention_policy *policy, struct store_prune_plan *ret_plan,
                      struct err *err)
{
    struct store_prune_plan plan = {0};
    SCOPED_NAMES struct object_names protected = {0};
    if (!retention_check(policy, err) || !store_list_protected(store, &protected, err) ||
        !store_points_list(store, NULL, &plan.list, err))
        return false;
    select_points(&plan.list, vms, n_vms);
    plan.points = xcalloc(plan.list.count + 1, sizeof *plan.points);
    for (size_t i = 0; i < plan.list.count; i++) {
        const struct store_point_info *info = &plan.list.items[i];
        plan.points[i] = (struct retention_point){
            .vm_id = info->vm_id,
            .id = info->id,
            .time_ms = info->created_ms,
            .is_good = !info->damage,
            .is_protected = object_names_have(&protected, info->id),
        };
    }
    retention_decide(policy, plan.points, plan.list.count);
    for (size_t i = 0; i < plan.list.count; i++)
        plan.to_delete += plan.points[i].kept == 0;
    *ret_plan = plan;
    return true;
}

bool store_prune_apply(struct store *store, const struct store_prune_plan *plan,
                       size_t *ret_deleted, struct err *err)
{
    *ret_deleted = 0;
    for (size_t i = 0; i < plan->list.count; i++) {
        bool is_protected = false;
        if (plan->points[i].kept != 0)
            continue;
        if (!delete_planned(store, plan->points[i].id, &is_protected, err))
            return err_wrap(err, "delete point %s", plan->points[i].id);
        *ret_deleted += !is_protected;
    }
    return true;
}

void store_prune_plan_done(struct store_prune_plan *plan)
{
    store_point_list_done(&plan->list);
    free(plan->points);
    *plan = (struct store_prune_plan){0};
}
