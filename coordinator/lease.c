/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/lease.h"

#include <inttypes.h>
#include <string.h>

#include "coordinator/admission.h"
#include "coordinator/outgoing.h"
#include "coordinator/parts.h"
#include "coordinator/work.h"

enum {
    AVOID_MAX = 3,          /* how often a task is kept from a worker that failed it */
    LIMIT_WAIT_MS = 2000,   /* pause before a task is offered again that met a limit */
    AVOID_WAIT_MS = 2000,   /* pause before it is offered again */
    PART_WAIT_MS = 250,     /* the same for a part that the wrong worker claimed, doubled */
    PART_WAIT_DOUBLED = 5,  /* each time, so often */
    MISSES_MAX = 2,         /* presences that do not name a task they should */
    STOP_REPEAT_MS = 15000, /* a stop may be lost with a worker's connection */
};

bool lease_reload(struct core *core, struct err *err)
{
    SCOPED_TASKS struct task_list running = {0};
    if (!ledger_task_running(core->ledger, &running, err))
        return false;
    for (size_t i = 0; i < running.count; i++) {
        const struct task *t = &running.v[i];
        const struct lease *lease = lease_find(core->leases, t->id);
        if (!lease || lease->fence != t->fence)
            lease_begin(core->leases, t->id, t->worker, t->fence, core->now_ms);
    }
    if (lease_count(core->leases) == running.count)
        return true;
    for (struct lease *lease = lease_first(core->leases), *next; lease; lease = next) {
        next = lease_next(lease);
        SCOPED_TASK struct task t = {0};
        if (!ledger_task_get(core->ledger, lease->task, &t, err))
            return false;
        if (!t.id || t.state != TASK_RUNNING)
            lease_end(core->leases, lease->task);
    }
    return true;
}

bool lease_is_owner(const struct core *core, const struct task *t, const char *worker,
                    int64_t attempt, int64_t fence)
{
    (void)core;
    return t->id && t->state == TASK_RUNNING && t->fence == fence && t->attempt == attempt &&
           t->worker && strcmp(t->worker, worker) == 0;
}

void lease_renew_task(struct core *core, const char *task, int64_t now_ms)
{
    struct lease *lease = lease_find(core->leases, task);
    if (lease)
        lease_renew(core->leases, lease, now_ms);
}

/* --- Claims --- */
/* A part's fences are its own: it makes nothing in the VM that is its main task's. */
static bool next_fence(struct core *core, const struct task *t, int64_t *ret, struct err *err)
{
    if (t->vm && t->role != TASK_PART)
        return ledger_fence_next(core->ledger, t->vm, ret, err);
    *ret = t->fence + 1;
    return true;
}

static bool grant(struct core *core, struct task *t, const struct wire_claim *claim,
                  const char *message_id, struct err *err)
{
    int64_t fence;
    if (!next_fence(core, t, &fence, err))
        return false;
    t->state = TASK_RUNNING;
    t->fence = fence;
    text_set(&t->worker, claim->worker);
    text_set(&t->claim_id, message_id);
    if (t->started_ms == 0) {
        t->started_ms = core->now_ms;
        t->deadline_ms = t->deadline_s ? core->now_ms + t->deadline_s * 1000 : 0;
    }
    lease_begin(core->leases, t->id, t->worker, t->fence, core->now_ms);
    core->counters.granted++;
    core->admission_due = true; /* one offer less is out */
    log_info("task_granted", LOG_STR("task", t->id), LOG_STR("kind", t->kind),
             LOG_STR("vm", t->vm_name), LOG_STR("worker", t->worker),
             LOG_I64("attempt", t->attempt), LOG_I64("fence", t->fence));
    return ledger_task_save(core->ledger, t, err) &&
           ledger_attempt_add(core->ledger, t, core->now_ms, err) &&
           outgoing_grant(core, t, message_id, err) && outgoing_progress(core, t, 0, err) &&
           parts_tell(core, t, err);
}

/* Whether another live worker of the zone could run the task. */
static bool others_can(struct core *core, const struct task *t, bool *ret, struct err *err)
{
    struct worker_list workers;
    if (!ledger_worker_list(core->ledger, &workers, err))
        return false;
    *ret = false;
    for (size_t i = 0; i < workers.count; i++) {
        const struct worker *w = &workers.v[i];
        int64_t slots = strcmp(t->lane, "restore") == 0  ? w->slots_restore
                        : strcmp(t->lane, "backup") == 0 ? w->slots_backup
                                                         : w->slots_upkeep;
        *ret |= admission_worker_is_live(core, w) && strcmp(w->zone, t->zone) == 0 &&
                strcmp(w->name, t->avoid) != 0 && slots > 0;
    }
    worker_list_done(&workers);
    return true;
}

/* A part goes to another worker than its main task and its other parts. It is offered again soon:
 * it was offered at all because another one has a free slot. */
static bool refuse_part(struct core *core, struct task *t, const struct wire_claim *claim,
                        const char *message_id, const char *why, struct err *err)
{
    int64_t wait_ms = PART_WAIT_MS
                      << (t->avoided < PART_WAIT_DOUBLED ? t->avoided : PART_WAIT_DOUBLED);
    t->avoided++;
    return outgoing_deny(core, claim, message_id, why, err) &&
           work_requeue(core, t, NULL, NULL, core->now_ms + wait_ms, err);
}

static bool claim_offered(struct core *core, struct task *t, const struct wire_claim *claim,
                          const char *message_id, struct err *err)
{
    bool may = true;
    const char *why = NULL;
    if (!admission_may_run(core, t, &may, &why, err))
        return false;
    if (!may)
        return outgoing_deny(core, claim, message_id, why, err) &&
               work_requeue(core, t, NULL, NULL, 0, err);
    if (t->role == TASK_PART && !parts_may_take(core, t, claim->worker, &may, &why, err))
        return false;
    if (!may)
        return refuse_part(core, t, claim, message_id, why, err);
    bool better = false;
    if (t->avoid && strcmp(t->avoid, claim->worker) == 0 && t->avoided < AVOID_MAX &&
        !others_can(core, t, &better, err))
        return false;
    if (better) {
        t->avoided++;
        return outgoing_deny(core, claim, message_id, "it failed here: another worker shall try",
                             err) &&
               work_requeue(core, t, NULL, NULL, core->now_ms + AVOID_WAIT_MS, err);
    }
    return grant(core, t, claim, message_id, err);
}

/* A second claim, by the worker that the task was granted to. Either the grant reached it too late,
 * and it has asked again: then the grant still counts, and its first step will be heard of. Or it
 * is another process, which knows nothing of the first one, while that one may still be there,
 * hanging: then no second run may begin under this fence. So there is no grant; unless the first
 * run is heard of the lease runs out, and the next attempt looks after what there is. */
static bool claim_again(struct core *core, const struct task *t, struct lease *lease,
                        const struct wire_claim *claim, const char *message_id, struct err *err)
{
    log_info("claimed_twice", LOG_STR("task", t->id), LOG_STR("worker", t->worker),
             LOG_I64("attempt", t->attempt), LOG_I64("seq", t->seq));
    if (t->seq == 0)
        return true;
    if (lease)
        lease->misses = MISSES_MAX;
    return outgoing_deny(core, claim, message_id,
                         "this attempt has begun already and was forgotten", err);
}

static bool claim_running(struct core *core, struct task *t, const struct wire_claim *claim,
                          const char *message_id, struct err *err)
{
    bool same_worker = strcmp(t->worker, claim->worker) == 0;
    bool same_message = message_id && t->claim_id && strcmp(message_id, t->claim_id) == 0;
    if (!same_worker || claim->attempt != t->attempt)
        return outgoing_deny(core, claim, message_id, "another attempt runs", err);
    if (claim->fence != 0 && claim->fence != t->fence)
        return outgoing_deny(core, claim, message_id, "the lease is lost", err);
    struct lease *lease = lease_find(core->leases, t->id);
    if (lease && lease->given_up)
        return outgoing_deny(core, claim, message_id, "it was told to stop and did not", err);
    if (claim->fence == 0 && !same_message)
        return claim_again(core, t, lease, claim, message_id, err);
    if (lease)
        lease_renew(core->leases, lease, core->now_ms);
    if (same_message)
        core->counters.doubles++;
    if (!outgoing_grant(core, t, message_id, err))
        return false;
    if (t->stop == TASK_STOP_NO)
        return true;
    return outgoing_stop(core, t, t->stop == TASK_STOP_CANCEL ? "cancelled" : "deadline", err) &&
           ledger_task_save(core->ledger, t, err);
}

bool lease_claim(struct core *core, const struct wire_claim *claim, const char *message_id,
                 struct err *err)
{
    SCOPED_TASK struct task t = {0};
    if (!ledger_task_get(core->ledger, claim->task, &t, err))
        return false;
    if (!t.id)
        return outgoing_deny(core, claim, message_id, "no such task", err);
    if (t.state == TASK_OFFERED && claim->fence == 0 && claim->attempt == t.attempt)
        return claim_offered(core, &t, claim, message_id, err);
    if (t.state == TASK_RUNNING)
        return claim_running(core, &t, claim, message_id, err);
    return outgoing_deny(core, claim, message_id,
                         task_is_open(t.state) ? "this attempt is over" : "the task has ended",
                         err);
}

/* --- Presence --- */
static bool repeat_stop(struct core *core, const char *task, struct err *err)
{
    SCOPED_TASK struct task t = {0};
    if (!ledger_task_get(core->ledger, task, &t, err))
        return false;
    if (!t.id || t.state != TASK_RUNNING || t.stop == TASK_STOP_NO ||
        core->now_ms - t.stop_sent_ms < STOP_REPEAT_MS)
        return true;
    return outgoing_stop(core, &t, t.stop == TASK_STOP_CANCEL ? "cancelled" : "deadline", err) &&
           ledger_task_save(core->ledger, &t, err);
}

static bool is_listed(const struct wire_presence *p, const struct lease *lease)
{
    for (size_t i = 0; i < p->running_count; i++) {
        if (strcmp(p->running[i].task, lease->task) == 0 && p->running[i].fence == lease->fence)
            return true;
    }
    return false;
}

bool lease_presence(struct core *core, const struct wire_presence *p, struct err *err)
{
    for (size_t i = 0; i < p->running_count; i++) {
        const struct wire_running *running = &p->running[i];
        struct lease *lease = lease_find(core->leases, running->task);
        if (!lease || lease->fence != running->fence || strcmp(lease->worker, p->worker) != 0) {
            core->counters.stale_events++;
            continue;
        }
        lease_renew(core->leases, lease, core->now_ms);
        if (!repeat_stop(core, running->task, err))
            return false;
    }
    for (struct lease *lease = lease_first(core->leases); lease; lease = lease_next(lease)) {
        if (strcmp(lease->worker, p->worker) == 0 && !is_listed(p, lease))
            lease->misses++;
    }
    return true;
}

/* --- Stopping that does not end --- */
static bool give_up(struct core *core, const struct task *t, struct lease *lease, struct err *err)
{
    log_warn("task_does_not_stop", LOG_STR("task", t->id), LOG_STR("vm", t->vm_name),
             LOG_STR("worker", t->worker), LOG_STR("step", t->step),
             LOG_I64("told_ms_ago", core->now_ms - t->stop_ms));
    lease->given_up = true;
    const struct wire_claim claim = {.task = t->id, .worker = t->worker, .attempt = t->attempt};
    return outgoing_deny(core, &claim, NULL, "it was told to stop and did not", err);
}

bool lease_give_up_stopped(struct core *core, struct err *err)
{
    int64_t before_ms = core->now_ms - (int64_t)core->conf->stop_limit_s * 1000;
    SCOPED_TASKS struct task_list list = {0};
    if (!ledger_task_stopped(core->ledger, before_ms, &list, err))
        return false;
    for (size_t i = 0; i < list.count; i++) {
        struct lease *lease = lease_find(core->leases, list.v[i].id);
        if (lease && !lease->given_up && !give_up(core, &list.v[i], lease, err))
            return false;
    }
    return true;
}

/* --- Running out --- */
static int64_t ends_ms(const struct core *core, const struct lease *lease)
{
    int64_t from = lease->renewed_ms > core->connected_ms ? lease->renewed_ms : core->connected_ms;
    /* A run that was heard of, and whose worker knows nothing of it by its own word: the worker's
     * own time must pass, no more. Of a run that was not, the grant may still be on its way, and
     * its time begin later than ours. */
    bool forgotten = lease->heard && lease->misses >= MISSES_MAX;
    return from + (forgotten ? core_lease_limit_ms(core) / 2 : core_lease_limit_ms(core));
}

int64_t lease_next_ms(const struct core *core)
{
    int64_t next = 0;
    if (core->connected_ms < 0)
        return 0;
    for (const struct lease *lease = lease_first(core->leases); lease; lease = lease_next(lease)) {
        int64_t ends = ends_ms(core, lease);
        if (next == 0 || ends < next)
            next = ends;
    }
    return next;
}

static bool quarantine(struct core *core, struct task *t, struct err *err)
{
    struct err why = ERR_INIT;
    err_set(&why, ERR_QUARANTINED, 0,
            "%" PRId64 " attempts were lost or failed, the last one on worker '%s'%s%s: look at "
            "the worker's log before asking again",
            t->failures, t->worker, t->error.message ? ", earlier: " : "",
            t->error.message ? t->error.message : "");
    return work_fail(core, t, TASK_FAILED, &why, true, err);
}

bool lease_lose(struct core *core, struct task *t, const struct wire_error *said, struct err *err)
{
    core->counters.lost++;
    t->failures += t->stop != TASK_STOP_CANCEL;
    log_warn("task_lost", LOG_STR("task", t->id), LOG_STR("vm", t->vm_name),
             LOG_STR("worker", t->worker), LOG_I64("attempt", t->attempt),
             LOG_I64("fence", t->fence), LOG_I64("failures", t->failures));
    struct err why = ERR_INIT;
    if (t->stop == TASK_STOP_CANCEL) {
        err_set(&why, ERR_CANCELLED, 0, "cancelled; its worker '%s' was lost", t->worker);
        return work_fail(core, t, TASK_CANCELLED, &why, true, err);
    }
    if (t->stop == TASK_STOP_DEADLINE) {
        err_set(&why, ERR_TIMEOUT, 0,
                "the deadline of %" PRId64 " s passed; its worker '%s' was lost", t->deadline_s,
                t->worker);
        return work_fail(core, t, TASK_FAILED, &why, true, err);
    }
    if (t->role != TASK_CLEANUP && t->role != TASK_PART && t->failures >= core->conf->max_attempts)
        return quarantine(core, t, err);
    struct wire_error error;
    char at[WIRE_AT_BYTES];
    err_set(&why, ERR_TIMEOUT, 0, "worker '%s' was not heard of any more", t->worker);
    if (t->role == TASK_PART) /* not tried again: its main task does it */
        return work_fail(core, t, TASK_FAILED, &why, true, err);
    wire_error_of(&why, &error, at);
    work_set_error(&t->error, said ? said : &error);
    return work_requeue(core, t, "lost", &t->error, 0, err);
}

bool lease_expire(struct core *core, struct err *err)
{
    if (core->connected_ms < 0)
        return true;
    for (struct lease *lease = lease_first(core->leases), *next; lease; lease = next) {
        next = lease_next(lease);
        if (ends_ms(core, lease) > core->now_ms)
            continue;
        SCOPED_TASK struct task t = {0};
        if (!ledger_task_get(core->ledger, lease->task, &t, err))
            return false;
        if (!t.id || t.state != TASK_RUNNING)
            lease_end(core->leases, lease->task);
        else if (!lease_lose(core, &t, NULL, err))
            return false;
    }
    return true;
}
