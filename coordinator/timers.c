/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/timers.h"

#include <string.h>

#include "coordinator/admission.h"
#include "coordinator/checkup.h"
#include "coordinator/gauges.h"
#include "coordinator/lease.h"
#include "coordinator/plan.h"
#include "coordinator/sweep.h"

enum {
    OFFERS_EVERY_MS = 30 * 1000,
    WORKERS_EVERY_MS = 5 * 1000,
    RETENTION_EVERY_MS = 600 * 1000,
    RETENTION_AGAIN_MS = 1000,  /* when there is more to forget */
    FIRST_SWEEP_MS = 10 * 1000, /* after the start: workers are there by then */
    METRICS_EVERY_MS = 15 * 1000,
    PRUNE_AT_ONCE = 50,
    INTERNAL_KEEP_MS = 24 * 3600 * 1000, /* requests of our own making */
    WORKER_FORGET_MS = 7 * 24 * 3600 * 1000,
};

/* --- Leases --- */
static bool next_lease(struct core *core, const struct timers *t, int64_t *ret, struct err *err)
{
    (void)t;
    (void)err;
    *ret = lease_next_ms(core);
    return true;
}

static bool run_leases(struct core *core, struct timers *t, struct err *err)
{
    (void)t;
    return lease_expire(core, err);
}

/* --- Retries: their time has come, admission does the rest --- */
static bool next_retry(struct core *core, const struct timers *t, int64_t *ret, struct err *err)
{
    (void)t;
    return ledger_next_not_before(core->ledger, core->now_ms, ret, err);
}

static bool run_retries(struct core *core, struct timers *t, struct err *err)
{
    bool any = false;
    if (!ledger_has_retry(core->ledger, t->retries_ms, core->now_ms, &any, err))
        return false;
    core->admission_due |= any;
    t->retries_ms = core->now_ms;
    return true;
}

/* --- Deadlines --- */
static bool next_deadline(struct core *core, const struct timers *t, int64_t *ret, struct err *err)
{
    (void)t;
    return ledger_next_deadline(core->ledger, ret, err);
}

static bool run_deadlines(struct core *core, struct timers *t, struct err *err)
{
    (void)t;
    SCOPED_TASKS struct task_list due = {0};
    if (!ledger_task_past_deadline(core->ledger, core->now_ms, &due, err))
        return false;
    for (size_t i = 0; i < due.count; i++) {
        if (!cancel_at_deadline(core, &due.v[i], err))
            return false;
    }
    return true;
}

/* --- Offers that nobody takes --- */
static bool next_offers(struct core *core, const struct timers *t, int64_t *ret, struct err *err)
{
    (void)core;
    (void)err;
    *ret = t->offers_ms;
    return true;
}

static bool run_offers(struct core *core, struct timers *t, struct err *err)
{
    if (core->now_ms < t->offers_ms)
        return true;
    t->offers_ms = core->now_ms + OFFERS_EVERY_MS;
    return core->connected_ms < 0 || admission_refresh_offers(core, err);
}

/* --- Workers --- */
static bool next_workers(struct core *core, const struct timers *t, int64_t *ret, struct err *err)
{
    (void)core;
    (void)err;
    *ret = t->workers_ms;
    return true;
}

static bool check_worker(struct core *core, struct worker *w, struct err *err)
{
    int64_t heard_ms = w->seen_ms > core->connected_ms ? w->seen_ms : core->connected_ms;
    int64_t silent_ms = core->now_ms - heard_ms;
    if (w->state == WORKER_LOST)
        return core->now_ms - w->seen_ms < WORKER_FORGET_MS ||
               ledger_worker_delete(core->ledger, w->name, err);
    /* seen_ms is written only every 15 s */
    if (silent_ms < core_lease_limit_ms(core) + 15 * 1000)
        return true;
    log_warn("worker_lost", LOG_STR("worker", w->name), LOG_STR("zone", w->zone),
             LOG_I64("silent_ms", silent_ms));
    w->state = WORKER_LOST;
    core->admission_due = true;
    return ledger_worker_save(core->ledger, w, err);
}

static bool run_workers(struct core *core, struct timers *t, struct err *err)
{
    if (core->now_ms < t->workers_ms)
        return true;
    t->workers_ms = core->now_ms + WORKERS_EVERY_MS;
    if (core->connected_ms < 0)
        return true;
    if (!lease_give_up_stopped(core, err))
        return false;
    struct worker_list list;
    if (!ledger_worker_list(core->ledger, &list, err))
        return false;
    bool ok = true;
    for (size_t i = 0; i < list.count && ok; i++)
        ok = check_worker(core, &list.v[i], err);
    worker_list_done(&list);
    return ok;
}

/* --- Retention --- */
static bool next_retention(struct core *core, const struct timers *t, int64_t *ret, struct err *err)
{
    (void)core;
    (void)err;
    *ret = t->retention_ms;
    return true;
}

static bool run_retention(struct core *core, struct timers *t, struct err *err)
{
    if (core->now_ms < t->retention_ms)
        return true;
    int64_t keep_ms = (int64_t)core->conf->keep_days * 24 * 3600 * 1000;
    int64_t count = 0;
    int64_t internal_ms = keep_ms < INTERNAL_KEEP_MS ? keep_ms : INTERNAL_KEEP_MS;
    if (!ledger_request_prune(core->ledger, core->now_ms - keep_ms, core->now_ms - internal_ms,
                              PRUNE_AT_ONCE, &count, err))
        return false;
    if (count > 0)
        log_info("requests_forgotten", LOG_I64("count", count));
    t->retention_ms =
        core->now_ms + (count == PRUNE_AT_ONCE ? RETENTION_AGAIN_MS : RETENTION_EVERY_MS);
    return true;
}

/* --- Check-ups --- */
static bool next_checkup(struct core *core, const struct timers *t, int64_t *ret, struct err *err)
{
    (void)t;
    (void)err;
    *ret = checkup_next_ms(core);
    return true;
}

static bool run_checkups(struct core *core, struct timers *t, struct err *err)
{
    (void)t;
    return checkup_expire(core, err);
}

/* --- Sweeps --- */
static int64_t sweep_due_ms(const struct core *core, const struct timers *t)
{
    if (*core->conf->janitor.every_s == 0 || core->connected_ms < 0)
        return 0;
    return t->sweep_ms ? t->sweep_ms : core->connected_ms + FIRST_SWEEP_MS;
}

static bool next_sweep(struct core *core, const struct timers *t, int64_t *ret, struct err *err)
{
    (void)err;
    *ret = sweep_due_ms(core, t);
    return true;
}

static bool run_sweep(struct core *core, struct timers *t, struct err *err)
{
    int64_t due_ms = sweep_due_ms(core, t);
    if (due_ms == 0 || core->now_ms < due_ms)
        return true;
    t->sweep_ms = core->now_ms + (int64_t)*core->conf->janitor.every_s * 1000;
    return sweep_begin(core, err);
}

/* --- Metrics --- */
static bool next_metrics(struct core *core, const struct timers *t, int64_t *ret, struct err *err)
{
    (void)err;
    *ret = !core->conf->metrics_file ? 0 : t->metrics_ms ? t->metrics_ms : core->now_ms;
    return true;
}

static bool run_metrics(struct core *core, struct timers *t, struct err *err)
{
    if (!core->conf->metrics_file || core->now_ms < t->metrics_ms)
        return true;
    t->metrics_ms = core->now_ms + METRICS_EVERY_MS;
    return gauges_write(core, core->conf->metrics_file, err);
}

static const struct {
    bool (*next)(struct core *core, const struct timers *t, int64_t *ret, struct err *err);
    bool (*run)(struct core *core, struct timers *t, struct err *err);
} timers[] = {
    {next_lease, run_leases},     {next_retry, run_retries},   {next_deadline, run_deadlines},
    {next_offers, run_offers},    {next_workers, run_workers}, {next_retention, run_retention},
    {next_checkup, run_checkups}, {next_sweep, run_sweep},     {next_metrics, run_metrics},
};

bool timers_next_ms(struct core *core, const struct timers *t, int64_t *ret_ms, struct err *err)
{
    int64_t next = core->now_ms + RETENTION_EVERY_MS;
    for (size_t i = 0; i < ARRAY_LEN(timers); i++) {
        int64_t due = 0;
        if (!timers[i].next(core, t, &due, err))
            return false;
        if (due > 0 && due < next)
            next = due;
    }
    *ret_ms = next;
    return true;
}

bool timers_run(struct core *core, struct timers *t, struct err *err)
{
    for (size_t i = 0; i < ARRAY_LEN(timers); i++) {
        if (!timers[i].run(core, t, err))
            return false;
    }
    return true;
}
