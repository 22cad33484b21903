/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/plan.h"

#include <string.h>

#include "coordinator/work.h"
#include "proto/base/buf.h"

/* --- Zones --- */
static bool check_zone(const struct core *core, const char *zone, struct err *why)
{
    if (!zone || coordinator_conf_zone(core->conf, zone) >= 0)
        return true;
    SCOPED_BUF struct buf known;
    buf_init(&known, 400);
    for (unsigned i = 0; i < core->conf->zones_count; i++)
        buf_printf(&known, "%s%s", i ? ", " : "", core->conf->zones[i].name);
    return err_set(why, ERR_BAD_ARGUMENT, 0, "there is no zone '%s'; known: %s", zone,
                   buf_str(&known));
}

/* Add one task per zone that is meant. */
static bool add_per_zone(struct core *core, struct request *r, const char *zone,
                         struct work_spec *spec, struct err *err)
{
    for (unsigned i = 0; i < core->conf->zones_count; i++) {
        spec->zone = core->conf->zones[i].name;
        if ((!zone || strcmp(zone, spec->zone) == 0) && !work_add(core, r, spec, NULL, err))
            return false;
    }
    return true;
}

static int64_t deadline_s(const struct core *core, int64_t asked)
{
    return asked ? asked : core->conf->deadline_s;
}

/* --- backup --- */
bool plan_check_backup(struct core *core, const void *message, struct err *why)
{
    const struct wire_backup *b = message;
    return check_zone(core, b->zone, why);
}

/* First find the VMs; select.c settles it, with a task for each. */
static bool plan_select(struct core *core, struct request *r, const char *zone,
                        struct wire_select *select, int64_t deadline, struct err *err)
{
    struct work_spec spec = {
        .role = TASK_SELECT,
        .kind = "inventory",
        .lane = LANE_UPKEEP,
        .deadline_s = deadline_s(core, deadline),
        .offer = {.select = select},
    };
    r->selected = false;
    return add_per_zone(core, r, zone, &spec, err) && work_settle(core, r, err);
}

bool plan_backup(struct core *core, struct request *r, const void *message, struct err *err)
{
    const struct wire_backup *b = message;
    return plan_select(core, r, b->zone, b->select, b->deadline_s, err);
}

/* --- export --- */
bool plan_check_export(struct core *core, const void *message, struct err *why)
{
    const struct wire_export *b = message;
    const char *directory = b->options->directory;
    if (directory && directory[0] != '/')
        return err_set(why, ERR_BAD_ARGUMENT, 0,
                       "the directory '%s' for the OVA is not an absolute path", directory);
    return check_zone(core, b->zone, why);
}

bool plan_export(struct core *core, struct request *r, const void *message, struct err *err)
{
    const struct wire_export *b = message;
    return plan_select(core, r, b->zone, b->select, b->deadline_s, err);
}

/* --- restore --- */
bool plan_check_restore(struct core *core, const void *message, struct err *why)
{
    const struct wire_restore *b = message;
    if (!b->zone && core->conf->zones_count > 1)
        return err_set(why, ERR_BAD_ARGUMENT, 0,
                       "there are %u zones: say in which one to restore (\"zone\")",
                       core->conf->zones_count);
    return check_zone(core, b->zone, why);
}

bool plan_restore(struct core *core, struct request *r, const void *message, struct err *err)
{
    const struct wire_restore *b = message;
    const struct work_spec spec = {
        .role = TASK_MAIN,
        .kind = "restore",
        .zone = b->zone ? b->zone : core->conf->zones[0].name,
        .lane = LANE_RESTORE,
        .vm_name = b->options->name,
        .deadline_s = deadline_s(core, b->deadline_s),
        .offer = {.restore = b->options},
    };
    return work_add(core, r, &spec, NULL, err) && work_settle(core, r, err);
}

/* --- inventory --- */
bool plan_check_inventory(struct core *core, const void *message, struct err *why)
{
    const struct wire_inventory *b = message;
    return check_zone(core, b->zone, why);
}

bool plan_inventory(struct core *core, struct request *r, const void *message, struct err *err)
{
    const struct wire_inventory *b = message;
    struct wire_select select = {.search = b->search, .all = b->search == NULL};
    struct work_spec spec = {
        .role = TASK_MAIN,
        .kind = "inventory",
        .lane = LANE_UPKEEP,
        .deadline_s = core->conf->deadline_s,
        .offer = {.select = &select},
    };
    return add_per_zone(core, r, b->zone, &spec, err) && work_settle(core, r, err);
}

/* --- list --- */
bool plan_check_list(struct core *core, const void *message, struct err *why)
{
    const struct wire_list *b = message;
    return check_zone(core, b->zone, why);
}

bool plan_list(struct core *core, struct request *r, const void *message, struct err *err)
{
    const struct wire_list *b = message;
    struct wire_list list = *b;
    struct work_spec spec = {
        .role = TASK_MAIN,
        .kind = "list",
        .lane = LANE_UPKEEP,
        .deadline_s = core->conf->deadline_s,
        .offer = {.list = &list},
    };
    return add_per_zone(core, r, b->zone, &spec, err) && work_settle(core, r, err);
}

/* --- sweep --- */
bool plan_check_sweep(struct core *core, const void *message, struct err *why)
{
    const struct wire_sweep *b = message;
    return check_zone(core, b->zone, why);
}

bool plan_sweep(struct core *core, struct request *r, const void *message, struct err *err)
{
    const struct wire_sweep *b = message;
    struct work_spec spec = {
        .role = TASK_MAIN,
        .kind = "sweep",
        .lane = LANE_UPKEEP,
        .deadline_s = core->conf->deadline_s,
    };
    return add_per_zone(core, r, b->zone, &spec, err) && work_settle(core, r, err);
}

/* --- upkeep of the repository: one task a zone --- */
bool plan_check_prune(struct core *core, const void *message, struct err *why)
{
    const struct wire_prune *b = message;
    return check_zone(core, b->zone, why);
}

bool plan_prune(struct core *core, struct request *r, const void *message, struct err *err)
{
    const struct wire_prune *b = message;
    struct wire_prune prune = *b;
    struct work_spec spec = {
        .role = TASK_MAIN,
        .kind = "prune",
        .lane = LANE_UPKEEP,
        .deadline_s = core->conf->deadline_s,
        .offer = {.prune = &prune},
    };
    return add_per_zone(core, r, b->zone, &spec, err) && work_settle(core, r, err);
}

bool plan_check_verify(struct core *core, const void *message, struct err *why)
{
    const struct wire_verify *b = message;
    return check_zone(core, b->zone, why);
}

bool plan_verify(struct core *core, struct request *r, const void *message, struct err *err)
{
    const struct wire_verify *b = message;
    struct wire_verify verify = *b;
    struct work_spec spec = {
        .role = TASK_MAIN,
        .kind = "verify",
        .lane = LANE_UPKEEP,
        .deadline_s = core->conf->deadline_s,
        .offer = {.verify = &verify},
    };
    return add_per_zone(core, r, b->zone, &spec, err) && work_settle(core, r, err);
}

/* --- plan: one task a zone --- */
bool plan_check_plan(struct core *core, const void *message, struct err *why)
{
    const struct wire_plan *b = message;
    return check_zone(core, b->zone, why);
}

/* The VMs that the zone's workers run in, which "all" and the like do not mean. Borrowed from
 * `workers`. */
static struct wire_strings proxies_of(const struct worker_list *workers, const char *zone)
{
    struct wire_strings all = {.v = xcalloc(workers->count + 1, sizeof *all.v)};
    for (size_t i = 0; i < workers->count && all.count < WIRE_SELECT_MAX; i++) {
        const struct worker *w = &workers->v[i];
        if (w->proxy && w->proxy[0] && strcmp(w->zone, zone) == 0)
            all.v[all.count++] = w->proxy;
    }
    return all;
}

bool plan_plan(struct core *core, struct request *r, const void *message, struct err *err)
{
    const struct wire_plan *b = message;
    struct wire_plan plan = *b;
    struct worker_list workers = {0};
    bool ok = ledger_worker_list(core->ledger, &workers, err);
    for (unsigned i = 0; ok && i < core->conf->zones_count; i++) {
        const char *zone = core->conf->zones[i].name;
        struct wire_strings proxies = proxies_of(&workers, zone);
        struct work_spec spec = {
            .role = TASK_MAIN,
            .kind = "plan",
            .lane = LANE_UPKEEP,
            .deadline_s = core->conf->deadline_s,
            .offer = {.plan = &plan, .proxies = proxies},
        };
        if (!b->zone || strcmp(b->zone, zone) == 0)
            ok = add_per_zone(core, r, zone, &spec, err);
        free(proxies.v);
    }
    worker_list_done(&workers);
    return ok && work_settle(core, r, err);
}
