/* SPDX-License-Identifier: Apache-2.0 */
/* Cancel requests and deadlines: both end tasks before their time. */
#include <inttypes.h>
#include <string.h>

#include "coordinator/outgoing.h"
#include "coordinator/parts.h"
#include "coordinator/plan.h"
#include "coordinator/work.h"

/* --- One task --- */
/* A running task ends when its worker says so, or is lost. */
static bool stop_running(struct core *core, struct task *t, enum task_stop stop, const char *reason,
                         struct err *err)
{
    if (t->stop != TASK_STOP_NO)
        return true; /* it was told already */
    t->stop = stop;
    t->stop_ms = core->now_ms;
    log_info("task_stop", LOG_STR("task", t->id), LOG_STR("vm", t->vm_name),
             LOG_STR("worker", t->worker), LOG_STR("reason", reason));
    /* Its parts too: it cannot clean up before they have let go. */
    return outgoing_stop(core, t, reason, err) && ledger_task_save(core->ledger, t, err) &&
           parts_stop(core, t, err);
}

bool cancel_task(struct core *core, struct task *t, const char *reason, struct err *err)
{
    if (t->state == TASK_RUNNING)
        return stop_running(core, t, TASK_STOP_CANCEL, reason, err);
    struct err why = ERR_INIT;
    err_set(&why, ERR_CANCELLED, 0, "cancelled before it ran%s", t->attempt > 1 ? " again" : "");
    /* Earlier attempts relied on this one to look after what they left. */
    return work_fail(core, t, TASK_CANCELLED, &why, t->attempt > 1, err);
}

bool cancel_at_deadline(struct core *core, struct task *t, struct err *err)
{
    if (t->state == TASK_RUNNING)
        return stop_running(core, t, TASK_STOP_DEADLINE, "deadline", err);
    struct err why = ERR_INIT;
    err_set(&why, ERR_TIMEOUT, 0,
            "its deadline of %" PRId64 " s passed while it waited for its next attempt",
            t->deadline_s);
    return work_fail(core, t, TASK_FAILED, &why, true, err);
}

/* --- The request --- */
bool cancel_check(struct core *core, const void *message, struct err *why)
{
    const struct wire_cancel *c = message;
    if (c->request) {
        SCOPED_REQUEST struct request target = {0};
        if (!ledger_request_get(core->ledger, c->request, &target, why))
            return false;
        return target.id || err_set(why, ERR_NOT_FOUND, 0, "no request %s", c->request);
    }
    SCOPED_TASK struct task target = {0};
    if (!ledger_task_get(core->ledger, c->task, &target, why))
        return false;
    return target.id || err_set(why, ERR_NOT_FOUND, 0, "no task %s", c->task);
}

static bool mark_request(struct core *core, const char *id, struct err *err)
{
    SCOPED_REQUEST struct request target = {0};
    if (!ledger_request_get(core->ledger, id, &target, err))
        return false;
    if (target.state != REQUEST_RUNNING)
        return true;
    target.cancel = true;
    return ledger_request_save(core->ledger, &target, err);
}

static bool find_targets(struct core *core, const struct wire_cancel *c, struct task_list *ret,
                         struct err *err)
{
    if (c->request)
        return mark_request(core, c->request, err) &&
               ledger_task_open_of_request(core->ledger, c->request, ret, err);
    ret->v = ALLOC_NEW(struct task);
    ret->count = 1;
    return ledger_task_get(core->ledger, c->task, &ret->v[0], err);
}

bool cancel_plan(struct core *core, struct request *r, const void *message, struct err *err)
{
    const struct wire_cancel *c = message;
    SCOPED_TASKS struct task_list tasks = {0};
    if (!find_targets(core, c, &tasks, err))
        return false;
    for (size_t i = 0; i < tasks.count; i++) {
        if (!task_is_open(tasks.v[i].state))
            continue;
        if (!ledger_cancel_wait_add(core->ledger, r->id, tasks.v[i].id, err))
            return false;
        r->open++;
        r->total++;
    }
    if (r->open == 0)
        return work_settle(core, r, err);
    /* From here on each task's end counts in the ledger's copy of this request. */
    if (!ledger_request_save(core->ledger, r, err))
        return false;
    for (size_t i = 0; i < tasks.count; i++) {
        if (task_is_open(tasks.v[i].state) && !cancel_task(core, &tasks.v[i], "cancelled", err))
            return false;
    }
    return true;
}
