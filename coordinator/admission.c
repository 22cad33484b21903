/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/admission.h"

#include <string.h>

#include "coordinator/offer.h"
#include "coordinator/outgoing.h"
#include "coordinator/parts.h"
#include "coordinator/work.h"
#include "proto/wire/topology.h"

enum {
    STALE_OFFER_MS = 120 * 1000,
    BATCH = 64, /* waiting tasks looked at in one query */
    PARTS_AT_ONCE = 200,
};

struct place { /* one zone and lane */
    int64_t offered, running;
    int64_t slots; /* of live workers */
    struct task_list waiting;
    size_t next;
    bool parts_read;
    struct task_list parts; /* waiting ones */
    size_t next_part;
};

struct picture {
    struct place *places; /* [zone * LANE_COUNT + lane] */
    size_t zones;
    int64_t total; /* running, and offered to somebody who is there */
    int64_t *of_zone, of_lane[LANE_COUNT];
};

static void picture_done(struct picture *p)
{
    for (size_t i = 0; p->places && i < p->zones * LANE_COUNT; i++) {
        task_list_done(&p->places[i].waiting);
        task_list_done(&p->places[i].parts);
    }
    free(p->places);
    free(p->of_zone);
}
#define SCOPED_PICTURE __attribute__((cleanup(picture_done), unused))

static struct place *place_at(const struct picture *p, size_t zone, size_t lane)
{
    return &p->places[zone * LANE_COUNT + lane];
}

bool admission_worker_is_live(const struct core *core, const struct worker *w)
{
    return w->state == WORKER_UP && coordinator_conf_zone(core->conf, w->zone) >= 0;
}

static bool see_workers(struct core *core, struct picture *p, struct err *err)
{
    struct worker_list workers;
    if (!ledger_worker_list(core->ledger, &workers, err))
        return false;
    for (size_t i = 0; i < workers.count; i++) {
        const struct worker *w = &workers.v[i];
        if (!admission_worker_is_live(core, w))
            continue;
        size_t zone = (size_t)coordinator_conf_zone(core->conf, w->zone);
        place_at(p, zone, LANE_RESTORE)->slots += w->slots_restore;
        place_at(p, zone, LANE_BACKUP)->slots += w->slots_backup;
        place_at(p, zone, LANE_UPKEEP)->slots += w->slots_upkeep;
    }
    worker_list_done(&workers);
    return true;
}

static bool see_load(struct core *core, struct picture *p, struct err *err)
{
    struct load_list loads;
    if (!ledger_load(core->ledger, &loads, err))
        return false;
    for (size_t i = 0; i < loads.count; i++) {
        const struct load *load = &loads.v[i];
        int zone = coordinator_conf_zone(core->conf, load->zone);
        enum lane lane;
        if (!lane_parse(load->lane, &lane))
            continue;
        /* A zone that left the configuration still uses the machines. */
        int64_t busy = load->running;
        if (zone >= 0) {
            struct place *place = place_at(p, (size_t)zone, lane);
            place->offered = load->offered;
            place->running = load->running;
            busy += place->slots > 0 ? load->offered : 0;
            p->of_zone[zone] += busy;
        }
        p->of_lane[lane] += busy;
        p->total += busy;
    }
    load_list_done(&loads);
    return true;
}

static bool see(struct core *core, struct picture *p, struct err *err)
{
    p->zones = core->conf->zones_count;
    p->places = xcalloc(p->zones * LANE_COUNT, sizeof *p->places);
    p->of_zone = xcalloc(p->zones, sizeof *p->of_zone);
    return see_workers(core, p, err) && see_load(core, p, err);
}

static int64_t lane_limit(const struct core *core, enum lane lane)
{
    const struct conf_lanes *limits = &core->conf->limits.per_lane;
    const int of[LANE_COUNT] = {limits->restore, limits->backup, limits->upkeep};
    return of[lane];
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* How many more offers this place may have. */
static int64_t room_at(const struct core *core, const struct picture *p, size_t zone,
                       enum lane lane)
{
    const struct place *place = place_at(p, zone, lane);
    if (place->slots == 0)
        /* Nobody is known there, or nobody has a slot of that lane: one offer, for whoever comes
         * first. It uses up no limit; the claim is checked. */
        return 1 - place->offered;
    int64_t free_slots = place->slots > place->running ? place->slots - place->running : 0;
    int64_t room = free_slots + *core->conf->offer_surplus;
    room = (room > 0 ? room : 1) - place->offered;
    room = least(room, core->conf->limits.max_running - p->total);
    room = least(room, core->conf->zones[zone].max_running - p->of_zone[zone]);
    return least(room, lane_limit(core, lane) - p->of_lane[lane]);
}

/* A task whose offer cannot be made must not keep the others waiting: it fails. */
static bool give_up(struct core *core, struct task *t, struct err *err)
{
    if (ledger_is_broken(core->ledger))
        return false;
    struct err why = *err;
    err_clear(err);
    err_wrap(&why, "the offer cannot be made");
    return work_fail(core, t, TASK_FAILED, &why, t->attempt > 1, err);
}

static bool offer(struct core *core, struct task *t, struct err *err)
{
    SCOPED_FREE char *body = offer_body(core, t, err);
    if (!body)
        return give_up(core, t, err);
    t->state = TASK_OFFERED;
    t->offered_ms = core->now_ms;
    if (!ledger_task_save(core->ledger, t, err) || !outgoing_offer(core, t, body, err))
        return false;
    core->counters.offered++;
    log_info("task_offered", LOG_STR("task", t->id), LOG_STR("kind", t->kind),
             LOG_STR("vm", t->vm_name), LOG_STR("zone", t->zone), LOG_STR("lane", t->lane),
             LOG_I64("attempt", t->attempt));
    return true;
}

/* The next task that waits at a place, parts first: their main task waits for them. NULL in *ret
 * when there is none. */
static bool next_waiting(struct core *core, struct place *place, size_t zone, enum lane lane,
                         struct task **ret, struct err *err)
{
    const char *zone_name = core->conf->zones[zone].name;
    *ret = NULL;
    bool anybody = place->running < place->slots; /* could take one */
    if (!place->parts_read && anybody &&
        !ledger_task_waiting_parts(core->ledger, zone_name, lane_name(lane), core->now_ms,
                                   PARTS_AT_ONCE, &place->parts, err))
        return false;
    place->parts_read = true;
    if (place->next_part < place->parts.count) {
        *ret = &place->parts.v[place->next_part++];
        return true;
    }
    if (place->next >= place->waiting.count) {
        bool was_last = place->waiting.v && place->waiting.count < BATCH;
        task_list_done(&place->waiting);
        place->next = 0;
        if (was_last || !ledger_task_waiting(core->ledger, zone_name, lane_name(lane), core->now_ms,
                                             BATCH, &place->waiting, err))
            return !err_is_set(err);
        if (place->waiting.count == 0)
            return true;
    }
    *ret = &place->waiting.v[place->next++];
    return true;
}

/* Whether it cannot be offered after all: its VM was taken a moment ago; there is nobody for a
 * part. */
static bool must_wait(struct core *core, const struct task *t, bool *ret, struct err *err)
{
    *ret = false;
    if (t->role != TASK_PART)
        return !t->vm || ledger_vm_is_busy(core->ledger, t->vm, ret, err);
    bool taker = false;
    if (!parts_has_taker(core, t, &taker, err))
        return false;
    *ret = !taker;
    return true;
}

/* Offer the next waiting task of a place. *ret_offered is false when there is none. */
static bool offer_next(struct core *core, struct picture *p, size_t zone, enum lane lane,
                       bool *ret_offered, struct err *err)
{
    struct place *place = place_at(p, zone, lane);
    *ret_offered = false;
    for (;;) {
        struct task *t = NULL;
        bool waits = false;
        if (!next_waiting(core, place, zone, lane, &t, err) ||
            (t && !must_wait(core, t, &waits, err)))
            return false;
        if (!t)
            return true;
        if (waits)
            continue;
        if (!offer(core, t, err))
            return false;
        if (t->state != TASK_OFFERED)
            continue;
        bool counts = place->slots > 0;
        place->offered++;
        p->total += counts;
        p->of_zone[zone] += counts;
        p->of_lane[lane] += counts;
        *ret_offered = true;
        return true;
    }
}

/* One task per zone in turn, so that no zone uses up the limits alone. */
static bool run_lane(struct core *core, struct picture *p, enum lane lane, struct err *err)
{
    bool any = true;
    while (any) {
        any = false;
        for (size_t zone = 0; zone < p->zones; zone++) {
            bool offered = false;
            if (room_at(core, p, zone, lane) > 0 && !offer_next(core, p, zone, lane, &offered, err))
                return false;
            any |= offered;
        }
    }
    return true;
}

bool admission_run(struct core *core, struct err *err)
{
    core->admission_due = false;
    SCOPED_PICTURE struct picture p = {0};
    if (!see(core, &p, err))
        return false;
    for (int lane = 0; lane < LANE_COUNT; lane++) {
        if (!run_lane(core, &p, (enum lane)lane, err))
            return false;
    }
    return true;
}

bool admission_may_run(struct core *core, const struct task *t, bool *ret, const char **ret_why,
                       struct err *err)
{
    struct load_list loads;
    if (!ledger_load(core->ledger, &loads, err))
        return false;
    int zone = coordinator_conf_zone(core->conf, t->zone);
    enum lane lane = LANE_BACKUP;
    (void)lane_parse(t->lane, &lane);
    int64_t total = 0, of_zone = 0, of_lane = 0;
    for (size_t i = 0; i < loads.count; i++) {
        const struct load *load = &loads.v[i];
        total += load->running;
        of_zone += strcmp(load->zone, t->zone) == 0 ? load->running : 0;
        of_lane += strcmp(load->lane, t->lane) == 0 ? load->running : 0;
    }
    load_list_done(&loads);
    *ret_why = total >= core->conf->limits.max_running ? "the limit of running tasks is reached"
               : of_lane >= lane_limit(core, lane)     ? "the limit of the lane is reached"
               : zone >= 0 && of_zone >= core->conf->zones[zone].max_running
                   ? "the limit of the zone is reached"
                   : NULL;
    *ret = *ret_why == NULL;
    return true;
}

bool admission_refresh_offers(struct core *core, struct err *err)
{
    SCOPED_TASKS struct task_list stale = {0};
    if (!ledger_task_stale_offers(core->ledger, core->now_ms - STALE_OFFER_MS, &stale, err))
        return false;
    if (stale.count == 0)
        return true;
    SCOPED_PICTURE struct picture p = {0};
    if (!see(core, &p, err))
        return false;
    for (size_t i = 0; i < stale.count; i++) {
        struct task *t = &stale.v[i];
        int zone = coordinator_conf_zone(core->conf, t->zone);
        enum lane lane;
        if (zone < 0 || !lane_parse(t->lane, &lane))
            continue;
        const struct place *place = place_at(&p, (size_t)zone, lane);
        if (place->slots > place->running && !work_requeue(core, t, NULL, NULL, 0, err))
            return false;
    }
    return true;
}

bool admission_queue_deleted(struct core *core, const char *queue, struct err *err)
{
    SCOPED_TASKS struct task_list offered = {0};
    if (!ledger_task_stale_offers(core->ledger, INT64_MAX, &offered, err))
        return false;
    for (size_t i = 0; i < offered.count; i++) {
        struct task *t = &offered.v[i];
        enum lane lane;
        if (!lane_parse(t->lane, &lane))
            continue;
        SCOPED_FREE char *name = topology_task_queue(t->zone, lane);
        if (strcmp(name, queue) == 0 && !work_requeue(core, t, NULL, NULL, 0, err))
            return false;
    }
    return true;
}
