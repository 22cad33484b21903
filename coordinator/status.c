/* SPDX-License-Identifier: Apache-2.0 */
/* Status requests are answered from the ledger at once and leave no trace in it. */
#include <string.h>

#include "coordinator/gauges.h"
#include "coordinator/outgoing.h"
#include "coordinator/parts.h"
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
/* Task items under construction, each main task followed by its parts; they borrow from `tasks` and
 * `parts`. */
struct task_items {
    struct task_list tasks;
    struct task_list *parts; /* of each task */
    struct wire_task_item *v;
    struct wire_error *errors; /* of each item */
    size_t count;
};

static void task_items_done(struct task_items *items)
{
    for (size_t i = 0; items->parts && i < items->tasks.count; i++)
        task_list_done(&items->parts[i]);
    free(items->parts);
    task_list_done(&items->tasks);
    free(items->v);
    free(items->errors);
}
#define SCOPED_TASK_ITEMS __attribute__((cleanup(task_items_done), unused))

static bool fill_task_item(struct core *core, const struct task *t, struct wire_task_item *ret,
                           struct wire_error *error, struct err *err)
{
    const struct lease *lease = lease_find(core->leases, t->id);
    bool waits = t->state == TASK_WAITING || t->state == TASK_OFFERED;
    struct wire_error unused;
    const struct work_wait wait = work_wait_of(core, t, &unused);
    struct parts_sum parts = {0};
    if (lease && !parts_sum_of(core, t, &parts, err))
        return false;
    *ret = (struct wire_task_item){
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
        .bytes_done = (lease ? lease->bytes_done : t->bytes_done) + parts.bytes_done,
        .bytes_total = (lease ? lease->bytes_total : t->bytes_total) + parts.bytes_total,
        .time_ms = t->created_ms,
        .finished_ms = t->finished_ms,
        .point = t->point,
        .wait_ms = wait.wait_ms,
        .attempts_max = wait.attempts_max,
        .error = work_wire_error(&t->error, error) ? error : NULL,
        .part_of = t->part_of,
    };
    return true;
}

/* The parts of all `tasks`, and how many items that makes. */
static bool load_parts(struct core *core, struct task_items *items, size_t *ret_count,
                       struct err *err)
{
    size_t count = 0;
    items->parts = xcalloc(items->tasks.count + 1, sizeof *items->parts);
    for (size_t i = 0; i < items->tasks.count; i++) {
        const struct task *t = &items->tasks.v[i];
        if (t->role == TASK_MAIN &&
            !ledger_task_parts(core->ledger, t->id, 0, &items->parts[i], err))
            return false;
        count += 1 + items->parts[i].count;
    }
    *ret_count = count;
    return true;
}

static bool add_task_item(struct core *core, struct task_items *items, const struct task *t,
                          struct err *err)
{
    size_t i = items->count++;
    return fill_task_item(core, t, &items->v[i], &items->errors[i], err);
}

/* `tasks` is filled. A part stands below its main task; `with_parts`: or where it is itself. */
static bool send_task_items(struct core *core, struct answer *a, struct task_items *items,
                            bool with_parts, struct err *err)
{
    size_t most = 0;
    if (!load_parts(core, items, &most, err))
        return false;
    items->v = xcalloc(most + 1, sizeof *items->v);
    items->errors = xcalloc(most + 1, sizeof *items->errors);
    for (size_t i = 0; i < items->tasks.count; i++) {
        const struct task *t = &items->tasks.v[i];
        if ((t->role != TASK_PART || with_parts) && !add_task_item(core, items, t, err))
            return false;
        for (size_t j = 0; j < items->parts[i].count; j++) {
            if (!add_task_item(core, items, &items->parts[i].v[j], err))
                return false;
        }
    }
    const struct wire_item_list list = {.tasks = items->v, .tasks_count = items->count};
    return send_items(core, a, &list, err);
}

static bool send_tasks(struct core *core, struct answer *a, const char *request, struct err *err)
{
    for (int64_t after = 0;;) {
        SCOPED_TASK_ITEMS struct task_items items = {0};
        if (!ledger_task_of_request(core->ledger, request, after, TASKS_AT_ONCE, &items.tasks, err))
            return false;
        if (items.tasks.count == 0)
            return true;
        after = items.tasks.v[items.tasks.count - 1].n;
        if (!send_task_items(core, a, &items, false, err))
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

/* One task with its parts, and its history. */
static bool send_task(struct core *core, struct answer *a, const char *id, struct err *err)
{
    SCOPED_TASK_ITEMS struct task_items items = {.tasks = {ALLOC_NEW(struct task), 1}};
    return ledger_task_get(core->ledger, id, &items.tasks.v[0], err) &&
           send_task_items(core, a, &items, true, err) &&
           send_attempts(core, a, &items.tasks.v[0], err);
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
