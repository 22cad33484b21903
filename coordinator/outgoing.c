/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/outgoing.h"

#include <string.h>

#include "coordinator/parts.h"
#include "coordinator/work.h"
#include "proto/base/id.h"
#include "proto/wire/topology.h"

enum {
    FLEETING_MAX = 2000,
    PART_GAP_MS = 1000, /* between two progress replies that parts cause */
};

/* Everything that is published goes through here. The strings are borrowed. */
static bool post(struct core *core, const char *exchange, const char *key, enum wire_type type,
                 const char *correlation_id, bool optional_route, const char *body, struct err *err)
{
    char message_id[ID_BYTES];
    id_new(message_id);
    struct outgoing m = {
        .exchange = (char *)(uintptr_t)exchange,
        .routing_key = (char *)(uintptr_t)key,
        .type = (char *)(uintptr_t)wire_type_name(type),
        .message_id = message_id,
        .correlation_id = (char *)(uintptr_t)correlation_id,
        .optional_route = optional_route,
        .body = (char *)(uintptr_t)body,
    };
    return ledger_outbox_add(core->ledger, &m, err);
}

bool outgoing_reply_to(struct core *core, const char *queue, const char *correlation_id,
                       enum wire_type type, const char *body, struct err *err)
{
    /* Not mandatory: a client that is gone does not want to know. */
    return !queue || post(core, "", queue, type, correlation_id, true, body, err);
}

bool outgoing_reply_body(struct core *core, const struct request *r, enum wire_type type,
                         const char *body, struct err *err)
{
    struct reply_to_list list;
    if (!ledger_reply_to_list(core->ledger, r->id, &list, err))
        return false;
    bool ok = true;
    for (size_t i = 0; i < list.count && ok; i++)
        ok = outgoing_reply_to(core, list.v[i].queue, list.v[i].correlation_id, type, body, err);
    reply_to_list_done(&list);
    return ok;
}

bool outgoing_reply(struct core *core, const struct request *r, enum wire_type type,
                    const void *message, struct err *err)
{
    size_t len;
    SCOPED_FREE char *body = wire_encode(type, message, &len, err);
    return body && outgoing_reply_body(core, r, type, body, err);
}

/* --- Pages --- */
/* The `count` items from `first` on, whichever kind they are. */
static struct wire_item_list cut(const struct wire_item_list *all, size_t first, size_t count)
{
    struct wire_item_list part = {0};
#define CUT(kind)                                                                                  \
    if (all->kind##_count) {                                                                       \
        part.kind = all->kind + first;                                                             \
        part.kind##_count = count;                                                                 \
    }
    CUT(vms)
    CUT(points)
    CUT(requests)
    CUT(tasks)
    CUT(workers)
    CUT(findings)
    CUT(traces)
    CUT(gauges)
    CUT(attempts)
#undef CUT
    return part;
}

bool outgoing_pages(struct core *core, const char *queue, const char *correlation_id,
                    const char *request, const struct wire_item_list *items, int64_t *page,
                    struct err *err)
{
    size_t total = items->vms_count + items->points_count + items->requests_count +
                   items->tasks_count + items->workers_count + items->findings_count +
                   items->traces_count + items->gauges_count + items->attempts_count;
    size_t size = WIRE_PAGE_MAX;
    for (size_t first = 0; first < total;) {
        size_t count = total - first < size ? total - first : size;
        struct wire_item_list part = cut(items, first, count);
        struct wire_page message = {
            .request = (char *)(uintptr_t)request, .page = *page + 1, .items = &part};
        size_t len;
        SCOPED_FREE char *body = wire_encode(WIRE_PAGE, &message, &len, err);
        if (!body && err->code == ERR_TOO_LARGE && count > 1) {
            err_clear(err);
            size = count / 2;
            continue;
        }
        if (!body || !outgoing_reply_to(core, queue, correlation_id, WIRE_PAGE, body, err))
            return false;
        first += count;
        ++*page;
    }
    return true;
}

/* --- Offers and control --- */
bool outgoing_offer(struct core *core, const struct task *t, const char *body, struct err *err)
{
    enum lane lane;
    if (!lane_parse(t->lane, &lane))
        return err_set(err, ERR_INTERNAL, 0, "task %s has unknown lane '%s'", t->id, t->lane);
    SCOPED_FREE char *queue = topology_task_queue(t->zone, lane);
    return post(core, TOPOLOGY_TASKS, queue, WIRE_OFFER, t->request, false, body, err);
}

static bool control(struct core *core, const char *worker, enum wire_type type,
                    const char *correlation_id, const void *message, struct err *err)
{
    SCOPED_FREE char *key = topology_control_key(worker);
    size_t len;
    SCOPED_FREE char *body = wire_encode(type, message, &len, err);
    /* Not mandatory: the control queue of a worker that is gone is gone with it. */
    return body && post(core, TOPOLOGY_CONTROL, key, type, correlation_id, true, body, err);
}

bool outgoing_grant(struct core *core, const struct task *t, const char *claim_id, struct err *err)
{
    const struct wire_grant grant = {.task = t->id,
                                     .worker = t->worker,
                                     .attempt = t->attempt,
                                     .fence = t->fence,
                                     .lease_s = core->conf->lease_s};
    return control(core, t->worker, WIRE_GRANT, claim_id, &grant, err);
}

bool outgoing_deny(struct core *core, const struct wire_claim *claim, const char *claim_id,
                   const char *reason, struct err *err)
{
    core->counters.denied++;
    log_info("claim_denied", LOG_STR("task", claim->task), LOG_STR("worker", claim->worker),
             LOG_I64("attempt", claim->attempt), LOG_STR("reason", reason));
    const struct wire_deny deny = {.task = claim->task,
                                   .worker = claim->worker,
                                   .attempt = claim->attempt,
                                   .reason = (char *)(uintptr_t)reason};
    return control(core, claim->worker, WIRE_DENY, claim_id, &deny, err);
}

bool outgoing_stop(struct core *core, struct task *t, const char *reason, struct err *err)
{
    t->stop_sent_ms = core->now_ms;
    const struct wire_stop stop = {
        .task = t->id, .worker = t->worker, .reason = (char *)(uintptr_t)reason};
    return control(core, t->worker, WIRE_STOP, t->request, &stop, err);
}

bool outgoing_parted(struct core *core, const struct wire_parted *m, const char *request,
                     struct err *err)
{
    return control(core, m->worker, WIRE_PARTED, request, m, err);
}

bool outgoing_checkup(struct core *core, const struct wire_checkup *m, struct err *err)
{
    return control(core, m->worker, WIRE_CHECKUP, m->request, m, err);
}

/* --- Progress --- */
static void add_fleeting(struct core *core, const struct reply_to *to, const char *body)
{
    if (core->fleeting_count >= FLEETING_MAX)
        return; /* the next event tells it anew */
    core->fleeting =
        xreallocarray(core->fleeting, core->fleeting_count + 1, sizeof *core->fleeting);
    core->fleeting[core->fleeting_count++] = (struct fleeting){
        .reply_to = xstrdup(to->queue),
        .correlation_id = xstrdup_or_null(to->correlation_id),
        .body = xstrdup(body),
    };
}

static char *progress_body(struct core *core, const struct task *t, const struct request *r,
                           const struct lease *lease, struct err *err)
{
    struct parts_sum parts;
    if (!parts_sum_of(core, t, &parts, err))
        return NULL;
    struct wire_error error;
    const struct work_wait wait = work_wait_of(core, t, &error);
    struct wire_progress p = {
        .request = r->id,
        .task = t->id,
        .kind = t->kind,
        .vm = t->vm,
        .vm_name = t->vm_name,
        .worker = t->state == TASK_RUNNING ? t->worker : NULL,
        .state = (char *)(uintptr_t)task_state_name(t->state),
        .step = t->step,
        .attempt = t->attempt,
        .tasks_total = r->total,
        .tasks_done = r->succeeded + r->failed + r->cancelled,
        .wait_ms = wait.wait_ms,
        .attempts_max = wait.attempts_max,
        .error = wait.error,
    };
    if (lease) {
        p.bytes_done = lease->bytes_done + parts.bytes_done;
        p.bytes_total = lease->bytes_total + parts.bytes_total;
        p.rate_bps = lease->rate_bps + parts.rate_bps;
    }
    size_t len;
    return wire_encode(WIRE_PROGRESS, &p, &len, err);
}

bool outgoing_progress(struct core *core, const struct task *t, int64_t min_gap_ms, struct err *err)
{
    if (t->role == TASK_PART) {
        SCOPED_TASK struct task owner = {0};
        return ledger_task_get(core->ledger, t->part_of, &owner, err) &&
               (!owner.id || owner.state != TASK_RUNNING ||
                outgoing_progress(core, &owner, PART_GAP_MS, err));
    }
    struct lease *lease = lease_find(core->leases, t->id);
    if (lease && lease->progress_ms && core->now_ms - lease->progress_ms < min_gap_ms)
        return true;
    SCOPED_REQUEST struct request r = {0};
    if (!ledger_request_get(core->ledger, t->request, &r, err))
        return false;
    if (!r.id || !r.progress || r.state != REQUEST_RUNNING)
        return true;
    SCOPED_FREE char *body = progress_body(core, t, &r, lease, err);
    if (!body)
        return false;
    struct reply_to_list list;
    if (!ledger_reply_to_list(core->ledger, r.id, &list, err))
        return false;
    for (size_t i = 0; i < list.count; i++)
        add_fleeting(core, &list.v[i], body);
    reply_to_list_done(&list);
    if (lease)
        lease->progress_ms = core->now_ms;
    return true;
}

void outgoing_drop_fleeting(struct core *core)
{
    for (size_t i = 0; i < core->fleeting_count; i++) {
        free(core->fleeting[i].reply_to);
        free(core->fleeting[i].correlation_id);
        free(core->fleeting[i].body);
    }
    free(core->fleeting);
    core->fleeting = NULL;
    core->fleeting_count = 0;
}
