/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "proto/base/clock.h"
#include "worker/repo/collected.h"
#include "worker/repo/verb.h"
#include "worker/store/upkeep.h"

enum {
    OPT_KEEP = REPO_OPT, /* and one more for each rule */
    OPT_VM = REPO_OPT + RETENTION_RULES,
    OPT_TIMEZONE,
    OPT_DRY_RUN,
    OPT_NO_GC,
    OPT_JSON,
};
enum { VMS_MAX = 256 };

struct prune_opts {
    struct retention_policy policy;
    const char *vms[VMS_MAX];
    size_t n_vms;
    bool dry_run, no_gc, json;
};

static const struct argp_option options[] = {
    {"keep-last", OPT_KEEP + RETENTION_LAST, "N", 0, "Keep the newest N points of each VM", 0},
    {"keep-hourly", OPT_KEEP + RETENTION_HOURLY, "N", 0,
     "Keep the newest point of each of the last N hours that have one", 0},
    {"keep-daily", OPT_KEEP + RETENTION_DAILY, "N", 0, "The same for days", 0},
    {"keep-weekly", OPT_KEEP + RETENTION_WEEKLY, "N", 0, "For weeks, which begin on Monday", 0},
    {"keep-monthly", OPT_KEEP + RETENTION_MONTHLY, "N", 0, "For months", 0},
    {"keep-yearly", OPT_KEEP + RETENTION_YEARLY, "N", 0, "For years", 0},
    {"vm", OPT_VM, "VM", 0, "Only points of this VM (id or name; may be repeated)", 0},
    {"timezone", OPT_TIMEZONE, "ZONE", 0,
     "Where hours and days begin: UTC (default), local, or an offset such as +02:00", 0},
    {"dry-run", OPT_DRY_RUN, NULL, 0, "Only show what would be kept, and why", 0},
    {"no-gc", OPT_NO_GC, NULL, 0, "Delete points, but do not free their space yet", 0},
    {"json", OPT_JSON, NULL, 0, "As JSON", 0},
    {0},
};

static void take_keep(struct argp_state *state, struct prune_opts *o, int rule, const char *arg)
{
    char *end;
    unsigned long n = strtoul(arg, &end, 10);
    if (end == arg || *end != '\0' || arg[0] == '-' || n > RETENTION_MAX)
        argp_error(state, "--keep-%s: '%s' is not in 0..%d", retention_rule_names[rule], arg,
                   RETENTION_MAX);
    o->policy.keep[rule] = (unsigned)n;
}

static error_t option(int key, char *arg, struct argp_state *state, struct repo_call *call)
{
    struct prune_opts *o = call->opts;
    struct err err = ERR_INIT;
    if (key >= OPT_KEEP && key < OPT_KEEP + RETENTION_RULES) {
        take_keep(state, o, key - OPT_KEEP, arg);
        return 0;
    }
    switch (key) {
    case OPT_VM:
        if (o->n_vms == VMS_MAX)
            argp_error(state, "more than %d VMs", VMS_MAX);
        else
            o->vms[o->n_vms++] = arg;
        return 0;
    case OPT_TIMEZONE:
        if (!retention_zone_parse(arg, &o->policy, &err))
            argp_error(state, "%s", err.message);
        return 0;
    case OPT_DRY_RUN:
        o->dry_run = true;
        return 0;
    case OPT_NO_GC:
        o->no_gc = true;
        return 0;
    case OPT_JSON:
        o->json = true;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* ---- the calendar */

static void print_plan(const struct store_prune_plan *plan, const struct retention_policy *policy)
{
    char zone[RETENTION_ZONE_BYTES];
    retention_zone_text(policy, zone);
    printf("days and weeks begin in time zone %s; times are UTC\n%-20s %-20s %-48s %-7s %s\n", zone,
           "VM", "TIME", "POINT", "FATE", "WHY");
    for (size_t i = 0; i < plan->list.count; i++) {
        const struct store_point_info *p = &plan->list.items[i];
        char when[CLOCK_TEXT_BYTES], why[RETENTION_WHY_BYTES];
        clock_format_utc(p->created_ms, when);
        retention_why(plan->points[i].kept, why);
        printf("%-20s %-20s %-48s %-7s %s%s\n", p->vm_name, when, p->id,
               plan->points[i].kept ? "keep" : "delete", why, p->damage ? " (damaged)" : "");
    }
}

static json_t *plan_json(const struct store_prune_plan *plan, const struct retention_policy *policy)
{
    char zone[RETENTION_ZONE_BYTES];
    retention_zone_text(policy, zone);
    json_t *points = json_array();
    for (size_t i = 0; i < plan->list.count; i++) {
        const struct store_point_info *p = &plan->list.items[i];
        char why[RETENTION_WHY_BYTES];
        retention_why(plan->points[i].kept, why);
        json_array_append_new(
            points, json_pack("{s:s, s:s, s:s, s:I, s:b, s:s, s:b}", "id", p->id, "vm", p->vm_id,
                              "vm_name", p->vm_name, "time_ms", (json_int_t)p->created_ms, "kept",
                              plan->points[i].kept != 0, "why", why, "damaged", p->damage != NULL));
    }
    return json_pack("{s:s, s:o}", "timezone", zone, "points", points);
}

/* ---- the verb */

static bool act(struct repo_call *call, const struct prune_opts *o,
                const struct store_prune_plan *plan, json_t *json, struct err *err)
{
    size_t deleted = 0;
    struct store_collect_result result = {0};
    if (!o->dry_run && !store_prune_apply(call->store, plan, &deleted, err))
        return false;
    if (json)
        json_object_set_new(json, "deleted", json_integer((json_int_t)deleted));
    else if (!o->dry_run)
        printf("deleted %zu of %zu points\n", deleted, plan->list.count);
    else
        printf("would delete %zu of %zu points\n", plan->to_delete, plan->list.count);
    if (o->dry_run || o->no_gc)
        return true;
    if (!store_collect(call->store, NULL, &result, err))
        return false;
    if (json)
        json_object_set_new(json, "collected", collected_json(&result, false));
    else
        collected_print(&result, false);
    return collected_check(&result, err);
}

static bool run(struct repo_call *call, struct err *err)
{
    const struct prune_opts *o = call->opts;
    struct store_prune_plan plan;
    tzset();
    if (!store_prune_plan(call->store, o->vms, o->n_vms, &o->policy, &plan, err))
        return false;
    json_t *json = o->json ? plan_json(&plan, &o->policy) : NULL;
    if (!json)
        print_plan(&plan, &o->policy);
    bool ok = act(call, o, &plan, json, err);
    if (json) {
        struct err say = ERR_INIT;
        if (!repo_say_json(json, &say) && ok) {
            *err = say;
            ok = false;
        }
    }
    store_prune_plan_done(&plan);
    return ok;
}

const struct repo_verb repo_prune = {
    .name = "prune",
    .access = REPO_UPKEEP,
    .summary = "delete the points that a policy does not keep, and free their space",
    .options = options,
    .opts_bytes = sizeof(struct prune_opts),
    .option = option,
    .run = run,
};
