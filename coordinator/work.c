/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/work.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "coordinator/leftovers.h"
#include "coordinator/outgoing.h"
#include "coordinator/parts.h"
#include "coordinator/select.h"
#include "proto/base/id.h"

enum { WARNINGS_FALLBACK = 10 };

void work_set_error(struct ledger_error *to, const struct wire_error *from)
{
    static const struct wire_error none = {0};
    const struct wire_error *e = from ? from : &none;
    text_set(&to->code, e->code);
    text_set(&to->retry, e->retry);
    text_set(&to->at, e->at);
    text_set(&to->message, e->message);
    to->sys = e->sys;
}

bool work_wire_error(const struct ledger_error *from, struct wire_error *ret)
{
    if (!from->code)
        return false;
    static char never[] = "never", empty[] = "";
    *ret = (struct wire_error){
        .code = from->code,
        .retry = from->retry ? from->retry : never,
        .sys = from->sys,
        .at = from->at && from->at[0] ? from->at : NULL,
        .message = from->message ? from->message : empty,
    };
    return true;
}

struct work_wait work_wait_of(const struct core *core, const struct task *t,
                              struct wire_error *error)
{
    struct work_wait w = {0};
    bool waits = t->state == TASK_WAITING || t->state == TASK_OFFERED;
    if (!waits || !work_wire_error(&t->error, error))
        return w;
    w.error = error;
    w.wait_ms = t->not_before_ms > core->now_ms ? t->not_before_ms - core->now_ms : 0;
    w.attempts_max = t->role == TASK_CLEANUP ? 0 /* no limit */
                     : t->role == TASK_PART  ? 1
                                             : core->conf->max_attempts;
    return w;
}

/* --- Adding --- */
static char *input_of(const struct task *t, const struct work_spec *spec, struct err *err)
{
    struct wire_offer offer = spec->offer;
    offer.task = t->id;
    offer.request = t->request;
    offer.kind = t->kind;
    offer.zone = t->zone;
    offer.lane = t->lane;
    offer.attempt = 1;
    if (t->vm)
        offer.vm = t->vm;
    offer.vm_name = t->vm_name;
    offer.deadline_s = t->deadline_s;
    size_t len;
    return wire_encode(WIRE_OFFER, &offer, &len, err);
}

static void count_new(struct request *r, enum task_role role)
{
    if (role == TASK_CLEANUP || role == TASK_PART)
        return;
    r->open++;
    r->selecting += role == TASK_SELECT;
    r->total += role == TASK_MAIN;
}

bool work_add(struct core *core, struct request *r, const struct work_spec *spec, struct task *ret,
              struct err *err)
{
    char id[ID_BYTES];
    id_new(id);
    SCOPED_TASK struct task t = {
        .id = xstrdup(id),
        .request = xstrdup(r->id),
        .role = spec->role,
        .kind = xstrdup(spec->kind),
        .zone = xstrdup(spec->zone),
        .lane = xstrdup(lane_name(spec->lane)),
        .vm = xstrdup_or_null(spec->vm),
        .vm_name = xstrdup_or_null(spec->vm_name),
        .attempt = 1,
        .created_ms = core->now_ms,
        .deadline_s = spec->deadline_s,
        .cleanup_of = xstrdup_or_null(spec->cleanup_of),
        .part_of = xstrdup_or_null(spec->part_of),
        .part_fence = spec->part_fence,
        .part_n = spec->part_n,
    };
    t.input = input_of(&t, spec, err);
    if (!t.input || !ledger_task_add(core->ledger, &t, err))
        return false;
    count_new(r, spec->role);
    core->admission_due = true;
    log_debug("task_added", LOG_STR("task", t.id), LOG_STR("request", t.request),
              LOG_STR("kind", t.kind), LOG_STR("zone", t.zone), LOG_STR("vm", t.vm_name));
    if (ret) {
        *ret = t;
        t = (struct task){0};
    }
    return true;
}

/* --- Back to the waiting --- */
static bool close_attempt(struct core *core, const struct task *t, const char *ended,
                          const struct ledger_error *error, struct err *err)
{
    lease_end(core->leases, t->id);
    return ledger_attempt_end(core->ledger, t, ended, error, core->now_ms, err);
}

bool work_requeue(struct core *core, struct task *t, const char *ended,
                  const struct ledger_error *error, int64_t not_before_ms, struct err *err)
{
    assert(task_is_open(t->state));
    if (ended && !close_attempt(core, t, ended, error, err))
        return false;
    t->state = TASK_WAITING;
    t->attempt++;
    t->not_before_ms = not_before_ms > core->now_ms ? not_before_ms : 0;
    t->offered_ms = 0;
    t->seq = 0;
    text_set(&t->step, NULL);
    text_set(&t->claim_id, NULL);
    core->admission_due = true;
    log_info("task_waits_again", LOG_STR("task", t->id), LOG_STR("vm", t->vm_name),
             LOG_STR("why", ended ? ended : "offer withdrawn"), LOG_I64("attempt", t->attempt),
             LOG_I64("failures", t->failures),
             LOG_I64("wait_ms", t->not_before_ms ? t->not_before_ms - core->now_ms : 0));
    return ledger_task_save(core->ledger, t, err) && outgoing_progress(core, t, 0, err) &&
           (!ended || (parts_stop(core, t, err) && parts_tell(core, t, err)));
}

/* --- Clean-ups --- */
bool work_open_cleanup(struct core *core, const struct task *t, struct request *r, struct err *err)
{
    SCOPED_TASK struct task open = {0};
    if (!ledger_task_cleanup_of(core->ledger, t->id, &open, err))
        return false;
    if (open.id)
        return true; /* it will find the new ones too */
    SCOPED_LEFTOVERS struct wire_leftovers left = {0};
    int64_t upto;
    if (!leftovers_load(core, t->id, &left, &upto, err) || left.count == 0)
        return !err_is_set(err);
    log_warn("left_behind", LOG_STR("task", t->id), LOG_STR("vm", t->vm_name),
             LOG_U64("things", left.count), LOG_STR("first", left.v[0].kind));
    struct work_spec spec = {
        .role = TASK_CLEANUP,
        .kind = "cleanup",
        .zone = t->zone,
        .lane = LANE_UPKEEP,
        /* After a part it must not wait for the end of the main task, which waits for it. */
        .vm = t->role == TASK_PART ? NULL
              : t->vm              ? t->vm
                                   : t->new_vm,
        .vm_name = t->vm_name,
        .cleanup_of = t->id,
        .offer = {.cleanup = left, .cleanup_task = t->id},
    };
    return work_add(core, r, &spec, NULL, err);
}

/* --- Ending --- */
/* What replies show: what was asked for, and whatever went wrong on the way to it. */
static bool is_visible(const struct task *t, const struct work_end *how)
{
    if (t->role == TASK_SELECT)
        return t->state != TASK_SUCCEEDED || (how->result && how->result->warnings.count > 0);
    return t->role == TASK_MAIN;
}

static void count_ended(struct request *r, const struct task *t)
{
    r->open--;
    r->selecting -= t->role == TASK_SELECT;
    if (t->role == TASK_SELECT && t->state == TASK_SUCCEEDED)
        return;
    r->total += t->role == TASK_SELECT;
    r->succeeded += t->state == TASK_SUCCEEDED;
    r->failed += t->state == TASK_FAILED;
    r->cancelled += t->state == TASK_CANCELLED;
}

static char *outcome_body(const struct task *t, const struct work_end *how, bool cleanup_open,
                          struct err *err)
{
    struct wire_error error;
    struct wire_stats stats = {0};
    struct wire_outcome outcome = {
        .request = t->request,
        .task = t->id,
        .kind = t->kind,
        .vm = t->vm,
        .vm_name = t->vm_name,
        .worker = t->worker,
        .status = (char *)(uintptr_t)task_state_name(t->state),
        .attempts = t->failures + (t->state != TASK_FAILED),
        .point = t->point,
        .new_vm = t->new_vm,
        .error = work_wire_error(&t->error, &error) ? &error : NULL,
        .cleanup_open = cleanup_open,
    };
    if (t->started_ms == 0)
        outcome.attempts = 0;
    else if (outcome.attempts == 0)
        outcome.attempts = 1;
    if (how->result) {
        outcome.warnings = how->result->warnings;
        outcome.exported = how->result->exported;
        if (how->result->stats)
            stats = *how->result->stats;
        if (stats.wait_ms == 0)
            stats.wait_ms = t->started_ms - t->created_ms;
        outcome.stats = &stats;
    }
    size_t len;
    char *body = wire_encode(WIRE_OUTCOME, &outcome, &len, err);
    if (!body && err->code == ERR_TOO_LARGE && outcome.warnings.count > WARNINGS_FALLBACK) {
        err_clear(err);
        outcome.warnings.count = WARNINGS_FALLBACK;
        body = wire_encode(WIRE_OUTCOME, &outcome, &len, err);
    }
    return body;
}

static enum request_state verdict(const struct request *r)
{
    if (r->cancelled > 0 && (r->cancel || (r->succeeded == 0 && r->failed == 0)))
        return REQUEST_CANCELLED;
    if (r->error.code)
        return r->succeeded > 0 ? REQUEST_PARTLY : REQUEST_FAILED;
    if (r->failed == 0 && r->cancelled == 0)
        return REQUEST_SUCCEEDED;
    return r->succeeded > 0 ? REQUEST_PARTLY : REQUEST_FAILED;
}

bool work_finish(struct core *core, struct request *r, struct err *err)
{
    bool is_cancel = strcmp(r->kind, "cancel") == 0;
    r->state = is_cancel ? REQUEST_SUCCEEDED : verdict(r);
    r->finished_ms = core->now_ms;
    struct wire_error error;
    const struct wire_finished finished = {
        .request = r->id,
        .kind = r->kind,
        .status = (char *)(uintptr_t)request_state_name(r->state),
        .tasks_total = r->total,
        .tasks_succeeded = r->succeeded,
        .tasks_failed = r->failed,
        .tasks_cancelled = r->cancelled,
        .pages = r->pages,
        .error = work_wire_error(&r->error, &error) ? &error : NULL,
    };
    size_t len;
    SCOPED_FREE char *body = wire_encode(WIRE_FINISHED, &finished, &len, err);
    if (!body)
        return false;
    text_set(&r->finished, body);
    log_info("request_finished", LOG_STR("request", r->id), LOG_STR("kind", r->kind),
             LOG_STR("status", request_state_name(r->state)), LOG_I64("tasks", r->total),
             LOG_I64("succeeded", r->succeeded), LOG_I64("failed", r->failed),
             LOG_I64("cancelled", r->cancelled), LOG_I64("ms", r->finished_ms - r->created_ms));
    return ledger_request_save(core->ledger, r, err) &&
           outgoing_reply_body(core, r, WIRE_FINISHED, body, err);
}

static bool end_task(struct core *core, struct request *r, struct task *t,
                     const struct work_end *how, struct err *err);

/* A VM that was asked for and that is not there: a task that never ran, so that it has an outcome
 * like the others. */
static bool add_missing(struct core *core, struct request *r, const struct select_missing *what,
                        struct err *err)
{
    /* A task names its VM by id, and an export its goal; this one has none. */
    static char unknown[] = "unknown";
    struct wire_export_opts nowhere = {.domain = unknown};
    struct work_spec spec = {
        .role = TASK_MAIN,
        .kind = r->kind,
        .zone = core->conf->zones[0].name,
        .lane = LANE_BACKUP,
        .vm = what->id,
        .vm_name = what->name,
    };
    spec.offer.vm = unknown;
    spec.offer.export = strcmp(r->kind, "export") == 0 ? &nowhere : NULL;
    SCOPED_TASK struct task t = {0};
    if (!work_add(core, r, &spec, &t, err))
        return false;
    struct wire_error error;
    char at[WIRE_AT_BYTES];
    wire_error_of(what->why, &error, at);
    struct work_end how = {.state = TASK_FAILED, .error = &error};
    return end_task(core, r, &t, &how, err);
}

static bool nothing_found(struct request *r, struct err *err)
{
    struct err why = ERR_INIT;
    err_set(&why, ERR_NOT_FOUND, 0, "no VM matches the selection");
    struct wire_error error;
    char at[WIRE_AT_BYTES];
    wire_error_of(&why, &error, at);
    work_set_error(&r->error, &error);
    return !err_is_set(err);
}

bool work_settle(struct core *core, struct request *r, struct err *err)
{
    if (r->state != REQUEST_RUNNING)
        return ledger_request_save(core->ledger, r, err);
    if (!r->selected && r->selecting == 0) {
        r->selected = true;
        if (!r->cancel && !select_each_missing(core, r, add_missing, err))
            return false;
        if (r->total == 0)
            nothing_found(r, err);
    }
    return r->open > 0 ? ledger_request_save(core->ledger, r, err) : work_finish(core, r, err);
}

/* Cancel requests that wait for this task. */
static bool tell_cancels(struct core *core, const struct task *t, struct err *err)
{
    char **ids = NULL;
    size_t count = 0;
    bool ok = ledger_cancel_wait_of(core->ledger, t->id, &ids, &count, err);
    for (size_t i = 0; i < count; i++) {
        SCOPED_REQUEST struct request c = {0};
        SCOPED_FREE char *id = ids[i];
        ok = ok && ledger_request_get(core->ledger, id, &c, err);
        if (!ok || c.state != REQUEST_RUNNING)
            continue;
        c.open--;
        c.succeeded += t->state == TASK_SUCCEEDED;
        c.failed += t->state == TASK_FAILED;
        c.cancelled += t->state == TASK_CANCELLED;
        ok = work_settle(core, &c, err);
    }
    free(ids);
    return ok;
}

static bool keep_leftovers(struct core *core, const struct task *t, const struct work_end *how,
                           struct err *err)
{
    if (t->role == TASK_CLEANUP)
        return true;
    const struct wire_leftovers *left = how->result ? &how->result->leftovers : NULL;
    if (left && !leftovers_keep(core, t->id, left, err))
        return false;
    if (left && left->count > 0 && t->attempt > 1 && !leftovers_keep_holds(core, t, err))
        return false;
    return parts_keep_leftovers(core, t, how, err) &&
           (!how->abandoned || leftovers_keep_of_journal(core, t, err));
}

static void log_end(const struct task *t)
{
    log_write(t->state == TASK_FAILED ? LOG_LEVEL_WARN : LOG_LEVEL_INFO, "task_ended",
              (const struct log_field[]){
                  LOG_STR("task", t->id), LOG_STR("request", t->request), LOG_STR("kind", t->kind),
                  LOG_STR("vm", t->vm_name), LOG_STR("status", task_state_name(t->state)),
                  LOG_STR("worker", t->worker), LOG_I64("attempt", t->attempt),
                  LOG_STR("point", t->point), LOG_STR("code", t->error.code),
                  LOG_STR("message", t->error.message), LOG_END});
}

/* The end of a part, or of the clean-up after one. */
static bool tell_part(struct core *core, const struct task *t, struct err *err)
{
    if (!t->cleanup_of)
        return parts_tell(core, t, err);
    SCOPED_TASK struct task of = {0};
    return ledger_task_get(core->ledger, t->cleanup_of, &of, err) &&
           (!of.id || parts_tell(core, &of, err));
}

/* Changes the counters in `r`, does not save it. */
static bool end_task(struct core *core, struct request *r, struct task *t,
                     const struct work_end *how, struct err *err)
{
    assert(task_is_open(t->state) && !task_is_open(how->state));
    bool was_running = t->state == TASK_RUNNING;
    t->state = how->state;
    t->finished_ms = core->now_ms;
    work_set_error(&t->error, how->error);
    if (how->result) {
        text_set(&t->point, how->result->point);
        text_set(&t->new_vm, how->result->new_vm);
    }
    if (!parts_keep_result(core, t, how, err))
        return false;
    if (was_running &&
        !(how->abandoned ? close_attempt(core, t, "lost", NULL, err)
                         : close_attempt(core, t, task_state_name(t->state), &t->error, err)))
        return false;
    int64_t left = 0;
    if (!keep_leftovers(core, t, how, err) || !ledger_items_delete(core->ledger, t->id, err) ||
        !ledger_leftover_count(core->ledger, t->id, &left, err))
        return false;
    if (is_visible(t, how)) {
        t->outcome = outcome_body(t, how, left > 0, err);
        if (!t->outcome)
            return false;
    }
    if (!ledger_task_save(core->ledger, t, err) ||
        (left > 0 && !work_open_cleanup(core, t, r, err)))
        return false;
    core->counters.ended++;
    core->admission_due = true;
    log_end(t);
    if (t->role == TASK_CLEANUP || t->role == TASK_PART)
        return tell_part(core, t, err) && tell_cancels(core, t, err);
    count_ended(r, t);
    return parts_stop(core, t, err) &&
           (!t->outcome || outgoing_reply_body(core, r, WIRE_OUTCOME, t->outcome, err)) &&
           tell_cancels(core, t, err);
}

bool work_end(struct core *core, struct task *t, const struct work_end *how, struct err *err)
{
    SCOPED_REQUEST struct request r = {0};
    if (!ledger_request_get(core->ledger, t->request, &r, err) || !end_task(core, &r, t, how, err))
        return false;
    /* A part changes nothing in the request; it may end while its main task does. */
    return t->role == TASK_PART || work_settle(core, &r, err);
}

bool work_fail(struct core *core, struct task *t, enum task_state state, const struct err *why,
               bool abandoned, struct err *err)
{
    struct wire_error error;
    char at[WIRE_AT_BYTES];
    wire_error_of(why, &error, at);
    const struct work_end how = {.state = state, .error = &error, .abandoned = abandoned};
    return work_end(core, t, &how, err);
}
