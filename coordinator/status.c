/* SPDX-License-Identifier: Apache-2.0 */
/* Status requests are answered from the ledger at once and leave no trace in it. */
#include <string.h>

#include "coordinator/gauges.h"
#include "coordinator/outgoing.h"
#include "coordinator/plan.h"
#include "coordinator/work.h"

enum { REQUESTS_DEFAULT = 50, TASKS_AT_ONCE = 200 };

/* Where the pages go, and how many went. */
struct answer {
    const char *request, *queue, *correlation_id;
    int64_t pages;
};

bool status_check(struct core *core, const void *message, struct err *why)
{
    const struct wire_status *s = message;
    if (!s->request)
        return true;
    SCOPED_REQUEST struct request r = {0};
    SCOPED_TASK struct task t = {0};
    if (!ledger_request_get(core->ledger, s->request, &r, why) ||
        (!r.id && !ledger_task_get(core->ledger, s->request, &t, why)))
        return false;
    return r.id || t.id || err_set(why, ERR_NOT_FOUND, 0, "no request or task %s", s->request);
}

static bool send_items(struct core *core, struct answer *a, const struct wire_item_list *items,
                       struct err *err)
{
    return outgoing_pages(core, a->queue, a->correlation_id, a->request, items, &a->pages, err);
}

/* --- Requests --- */
static struct wire_request_item request_item(const struct request *r)
{
    return (struct wire_request_item){
        .id = r->id,
        .kind = r->kind,
        .state = (char *)(uintptr_t)request_state_name(r->state),
        .time_ms = r->created_ms,
        .finished_ms = r->finished_ms,
        .tasks_total = r->total,
        .tasks_done = r->succeeded + r->failed + r->cancelled,
        .tasks_failed = r->failed,
        .message = r->error.message,
    };
}

static bool send_requests(struct core *core, struct answer *a, int64_t limit, struct err *err)
{
    struct request_list list;
    if (!ledger_request_newest(core->ledger, limit, &list, err))
        return false;
    struct wire_request_item *v = xcalloc(list.count + 1, sizeof *v);
    for (size_t i = 0; i < list.count; i++)
        v[i] = request_item(&list.v[i]);
    const struct wire_item_list items = {.requests = v, .requests_count = list.count};
    bool ok = send_items(core, a, &items, err);
    free(v);
    request_list_done(&list);
    return ok;
}

/* --- Workers --- */
static bool send_workers(struct core *core, struct answer *a, struct err *err)
{
    struct worker_list list;
    if (!ledger_worker_list(core->ledger, &list, err))
        return false;
    struct wire_worker_item *v = xcalloc(list.count + 1, sizeof *v);
    bool ok = true;
    for (size_t i = 0; i < list.count && ok; i++) {
        const struct worker *w = &list.v[i];
        v[i] = (struct wire_worker_item){
            .name = w->name,
            .zone = w->zone,
            .version = w->version,
            .state = (char *)(uintptr_t)worker_state_name(w->state),
            .seen_ms = w->seen_ms,
            .slots = w->slots_restore + w->slots_backup + w->slots_upkeep,
        };
        ok = ledger_worker_running(core->ledger, w->name, &v[i].running, err);
    }
    const struct wire_item_list items = {.workers = v, .workers_count = list.count};
    ok = ok && send_items(core, a, &items, err);
    free(v);
    worker_list_done(&list);
    return ok;
}

/* --- Gauges --- */
static bool send_gauges(struct core *core, struct answer *a, struct err *err)
{
    SCOPED_GAUGES struct gauges g = {0};
    if (!gauges_read(core, &g, err))
        return false;
    const struct wire_item_list items = {.gauges = g.v, .gauges_count = g.count};
    return send_items(core, a, &items, err);
}

/* --- Tasks --- */
static struct wire_task_item task_item(const struct core *core, const struct task *t,
                                       struct wire_error *error)
{
    const struct lease *lease = lease_find(core->leases, t->id);
    bool waits = t->state == TASK_WAITING || t->state == TASK_OFFERED;
    struct wire_error unused;
    const struct work_wait wait = work_wait_of(core, t, &unused);
    return (struct wire_task_item){
        .id = t->id,
        .request = t->request,
        .kind = t->kind,
        .zone = t->zone,
        .lane = t->lane,
        .vm = t->vm,
        .vm_name = t->vm_name,
        .state = (char *)(uintptr_t)task_state_name(t->state),
        .worker = waits ? NULL : t->worker,
        .step = t->step,
        .attempt = t->attempt,
        .bytes_done = lease ? lease->bytes_done : 0,
        .bytes_total = lease ? lease->bytes_total : 0,
        .time_ms = t->created_ms,
        .finished_ms = t->finished_ms,
        .point = t->point,
        .wait_ms = wait.wait_ms,
        .attempts_max = wait.attempts_max,
        .error = work_wire_error(&t->error, error) ? error : NULL,
    };
}

static bool send_tasks(struct core *core, struct answer *a, const char *request, struct err *err)
{
    for (int64_t after = 0;;) {
        SCOPED_TASKS struct task_list list = {0};
        if (!ledger_task_of_request(core->ledger, request, after, TASKS_AT_ONCE, &list, err))
            return false;
        if (list.count == 0)
            return true;
        after = list.v[list.count - 1].n;
        struct wire_task_item *v = xcalloc(list.count, sizeof *v);
        struct wire_error *errors = xcalloc(list.count, sizeof *errors);
        for (size_t i = 0; i < list.count; i++)
            v[i] = task_item(core, &list.v[i], &errors[i]);
        const struct wire_item_list items = {.tasks = v, .tasks_count = list.count};
        bool ok = send_items(core, a, &items, err);
        free(v);
        free(errors);
        if (!ok)
            return false;
    }
}

static struct wire_attempt_item attempt_item(const struct task *t, const struct attempt *a,
                                             struct wire_error *error)
{
    static char none[] = "";
    bool runs = a->ended == NULL;
    if (a->code)
        *error = (struct wire_error){
            .code = a->code,
            .retry = (char *)(uintptr_t)err_retry_name(err_retry(err_code_from_name(a->code))),
            .message = a->message ? a->message : none,
        };
    return (struct wire_attempt_item){
        .task = t->id,
        .attempt = a->attempt,
        .fence = a->fence,
        .worker = a->worker,
        .time_ms = a->granted_ms,
        .ended_ms = a->ended_ms,
        .step = runs ? t->step : a->step,
        .ended = a->ended,
        .error = a->code ? error : NULL,
    };
}

static bool send_attempts(struct core *core, struct answer *a, const struct task *t,
                          struct err *err)
{
    struct attempt_list list;
    if (!ledger_attempt_list(core->ledger, t->id, &list, err))
        return false;
    struct wire_attempt_item *v = xcalloc(list.count + 1, sizeof *v);
    struct wire_error *errors = xcalloc(list.count + 1, sizeof *errors);
    for (size_t i = 0; i < list.count; i++)
        v[i] = attempt_item(t, &list.v[i], &errors[i]);
    const struct wire_item_list items = {.attempts = v, .attempts_count = list.count};
    bool ok = send_items(core, a, &items, err);
    free(v);
    free(errors);
    attempt_list_done(&list);
    return ok;
}

/* One task and its history. */
static bool send_task(struct core *core, struct answer *a, const char *id, struct err *err)
{
    SCOPED_TASK struct task t = {0};
    struct wire_error error;
    if (!ledger_task_get(core->ledger, id, &t, err))
        return false;
    struct wire_task_item item = task_item(core, &t, &error);
    const struct wire_item_list items = {.tasks = &item, .tasks_count = 1};
    return send_items(core, a, &items, err) && send_attempts(core, a, &t, err);
}

static bool send_one(struct core *core, struct answer *a, const char *id, struct err *err)
{
    SCOPED_REQUEST struct request r = {0};
    if (!ledger_request_get(core->ledger, id, &r, err))
        return false;
    if (!r.id)
        return send_task(core, a, id, err);
    struct wire_request_item item = request_item(&r);
    const struct wire_item_list items = {.requests = &item, .requests_count = 1};
    return send_items(core, a, &items, err) && send_tasks(core, a, id, err);
}

bool status_answer(struct core *core, const char *request_id, const void *message,
                   const char *queue, const char *correlation_id, struct err *err)
{
    const struct wire_status *s = message;
    struct answer a = {.request = request_id, .queue = queue, .correlation_id = correlation_id};
    bool ok = s->request ? send_one(core, &a, s->request, err)
                         : send_requests(core, &a, s->limit ? s->limit : REQUESTS_DEFAULT, err) &&
                               send_workers(core, &a, err) && send_gauges(core, &a, err);
    if (!ok)
        return false;
    static char kind[] = "status", succeeded[] = "succeeded";
    const struct wire_finished finished = {.request = (char *)(uintptr_t)request_id,
                                           .kind = kind,
                                           .status = succeeded,
                                           .pages = a.pages};
    size_t len;
    SCOPED_FREE char *body = wire_encode(WIRE_FINISHED, &finished, &len, err);
    return body && outgoing_reply_to(core, queue, correlation_id, WIRE_FINISHED, body, err);
}
