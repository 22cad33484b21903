/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/event.h"

#include <inttypes.h>
#include <string.h>

#include "coordinator/checkup.h"
#include "coordinator/lease.h"
#include "coordinator/leftovers.h"
#include "coordinator/outgoing.h"
#include "coordinator/parts.h"
#include "coordinator/result.h"
#include "coordinator/work.h"

enum {
    PROGRESS_GAP_MS = 1000,  /* between two progress replies about one task */
    ITEMS_PAGES_MAX = 5000,  /* of one listing task */
    SEEN_GAP_MS = 15 * 1000, /* a worker's row is rewritten for a new time only so often */
};

/* --- Steps --- */
static bool is_stale(struct core *core, const struct wire_step *s)
{
    core->counters.stale_events++;
    log_debug("event_stale", LOG_STR("task", s->task), LOG_STR("worker", s->worker),
              LOG_STR("step", s->step), LOG_I64("fence", s->fence));
    return true;
}

/* An attempt that was given up made something and tells it late: see that it goes away. */
static bool late_step(struct core *core, struct task *t, const struct wire_step *s, struct err *err)
{
    if (s->handles.count == 0 || t->role == TASK_CLEANUP)
        return true;
    if (task_is_open(t->state) && t->attempt == s->attempt + 1 && t->state == TASK_WAITING)
        return true; /* the next offer will name it */
    if (!leftovers_keep_late(core, t, &s->handles, err))
        return false;
    if (task_is_open(t->state))
        return true; /* cleaned up after its end */
    SCOPED_REQUEST struct request r = {0};
    return ledger_request_get(core->ledger, t->request, &r, err) &&
           work_open_cleanup(core, t, &r, err);
}

static bool on_step(struct core *core, const void *message, const char *message_id,
                    const char *body, struct err *err)
{
    (void)message_id;
    const struct wire_step *s = message;
    SCOPED_TASK struct task t = {0};
    if (!ledger_task_get(core->ledger, s->task, &t, err))
        return false;
    if (!t.id)
        return is_stale(core, s);
    bool owner = lease_is_owner(core, &t, s->worker, s->attempt, s->fence);
    const struct journal_row row = {.attempt = s->attempt,
                                    .fence = s->fence,
                                    .seq = s->seq,
                                    .stale = !owner,
                                    .body = (char *)(uintptr_t)body};
    bool added;
    if (!ledger_journal_add(core->ledger, t.id, &row, core->now_ms, &added, err))
        return false;
    if (!owner) {
        /* A double of an event of an attempt that ended well is not late news. */
        return is_stale(core, s) && (!added || late_step(core, &t, s, err));
    }
    lease_renew_task(core, t.id, core->now_ms);
    if (!added) {
        core->counters.doubles++;
        return true;
    }
    if (s->seq < t.seq)
        return true; /* out of order: kept, but not the newest */
    /* At least 1: "something was heard of this attempt", whatever the worker counts from. */
    t.seq = s->seq > 0 ? s->seq : 1;
    text_set(&t.step, s->step);
    log_debug("step", LOG_STR("task", t.id), LOG_STR("vm", t.vm_name), LOG_STR("step", s->step),
              LOG_STR("state", s->state), LOG_I64("ms", s->duration_ms));
    return ledger_task_save_step(core->ledger, &t, err) && outgoing_progress(core, &t, 0, err);
}

/* --- Progress of a copy: nothing is written --- */
static bool on_copying(struct core *core, const void *message, const char *message_id,
                       const char *body, struct err *err)
{
    (void)message_id;
    (void)body;
    const struct wire_copying *c = message;
    struct lease *lease = lease_find(core->leases, c->task);
    if (!lease || lease->fence != c->fence || strcmp(lease->worker, c->worker) != 0) {
        core->counters.stale_events++;
        return true;
    }
    lease_renew(core->leases, lease, core->now_ms);
    lease->bytes_done = c->bytes_done;
    lease->bytes_total = c->bytes_total;
    lease->rate_bps = c->rate_bps;
    if (core->now_ms - lease->progress_ms < PROGRESS_GAP_MS)
        return true;
    SCOPED_TASK struct task t = {0};
    return ledger_task_get(core->ledger, c->task, &t, err) &&
           (!t.id || outgoing_progress(core, &t, PROGRESS_GAP_MS, err));
}

static bool on_parts(struct core *core, const void *message, const char *message_id,
                     const char *body, struct err *err)
{
    (void)message_id;
    (void)body;
    return parts_take(core, message, err);
}

/* --- Listings --- */
static bool on_items(struct core *core, const void *message, const char *message_id,
                     const char *body, struct err *err)
{
    (void)message_id;
    const struct wire_items *i = message;
    if (i->page > ITEMS_PAGES_MAX)
        return err_set(err, ERR_TOO_LARGE, 0, "$.page: %" PRId64 " is over the limit of %d",
                       i->page, ITEMS_PAGES_MAX);
    SCOPED_TASK struct task t = {0};
    if (!ledger_task_get(core->ledger, i->task, &t, err))
        return false;
    if (!lease_is_owner(core, &t, i->worker, i->attempt, i->fence)) {
        core->counters.stale_events++;
        return true;
    }
    lease_renew_task(core, t.id, core->now_ms);
    return ledger_items_add(core->ledger, t.id, i->attempt, i->page, body, err);
}

/* --- Presence --- */
static bool is_same(const char *a, const char *b)
{
    return strcmp(a ? a : "", b ? b : "") == 0;
}

static bool save_worker(struct core *core, const struct wire_presence *p, struct err *err)
{
    SCOPED_WORKER struct worker w = {0};
    if (!ledger_worker_get(core->ledger, p->worker, &w, err))
        return false;
    enum worker_state state = strcmp(p->state, "up") == 0 ? WORKER_UP : WORKER_DRAINING;
    bool changed = w.n == 0 || w.state != state || !is_same(w.zone, p->zone) ||
                   !is_same(w.version, p->version) || !is_same(w.host, p->host) ||
                   !is_same(w.proxy, p->proxy) || w.slots_restore != p->slots_restore ||
                   w.slots_backup != p->slots_backup || w.slots_upkeep != p->slots_upkeep;
    if (!changed && core->now_ms - w.seen_ms < SEEN_GAP_MS)
        return true;
    if (changed) {
        core->admission_due = true;
        log_info("worker_presence", LOG_STR("worker", p->worker), LOG_STR("zone", p->zone),
                 LOG_STR("state", p->state), LOG_STR("version", p->version),
                 LOG_I64("slots_restore", p->slots_restore),
                 LOG_I64("slots_backup", p->slots_backup),
                 LOG_I64("slots_upkeep", p->slots_upkeep));
        if (coordinator_conf_zone(core->conf, p->zone) < 0)
            log_warn("worker_in_unknown_zone", LOG_STR("worker", p->worker),
                     LOG_STR("zone", p->zone));
    }
    if (w.n == 0) {
        text_set(&w.name, p->worker);
        w.first_ms = core->now_ms;
    }
    text_set(&w.zone, p->zone);
    text_set(&w.version, p->version);
    text_set(&w.host, p->host);
    text_set(&w.proxy, p->proxy);
    w.state = state;
    w.slots_restore = p->slots_restore;
    w.slots_backup = p->slots_backup;
    w.slots_upkeep = p->slots_upkeep;
    w.seen_ms = core->now_ms;
    return ledger_worker_save(core->ledger, &w, err);
}

static bool on_presence(struct core *core, const void *message, const char *message_id,
                        const char *body, struct err *err)
{
    (void)message_id;
    (void)body;
    const struct wire_presence *p = message;
    if (!lease_presence(core, p, err))
        return false;
    if (strcmp(p->state, "leaving") != 0)
        return save_worker(core, p, err);
    log_info("worker_left", LOG_STR("worker", p->worker), LOG_STR("zone", p->zone));
    core->admission_due = true;
    return ledger_worker_delete(core->ledger, p->worker, err);
}

static bool on_claim(struct core *core, const void *message, const char *message_id,
                     const char *body, struct err *err)
{
    (void)body;
    return lease_claim(core, message, message_id, err);
}

static bool on_result(struct core *core, const void *message, const char *message_id,
                      const char *body, struct err *err)
{
    (void)message_id;
    (void)body;
    return result_handle(core, message, err);
}

static bool on_checked(struct core *core, const void *message, const char *message_id,
                       const char *body, struct err *err)
{
    (void)message_id;
    (void)body;
    return checkup_checked(core, message, err);
}

static const struct {
    enum wire_type type;
    bool (*handle)(struct core *core, const void *message, const char *message_id, const char *body,
                   struct err *err);
} events[] = {
    {WIRE_CLAIM, on_claim},     {WIRE_STEP, on_step},     {WIRE_COPYING, on_copying},
    {WIRE_ITEMS, on_items},     {WIRE_RESULT, on_result}, {WIRE_PRESENCE, on_presence},
    {WIRE_CHECKED, on_checked}, {WIRE_PARTS, on_parts},
};

bool event_is(enum wire_type type)
{
    for (size_t i = 0; i < ARRAY_LEN(events); i++) {
        if (events[i].type == type)
            return true;
    }
    return false;
}

bool event_handle(struct core *core, const struct wire_message *m, const char *message_id,
                  const char *body, struct err *err)
{
    for (size_t i = 0; i < ARRAY_LEN(events); i++) {
        if (events[i].type == m->type) {
            core->counters.events++;
            return events[i].handle(core, m->as, message_id, body, err);
        }
    }
    return err_set(err, ERR_BAD_MESSAGE, 0, "a message of type '%s' is not an event",
                   wire_type_name(m->type));
}
