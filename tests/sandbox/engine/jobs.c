/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sandbox/engine/jobs.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "tests/sandbox/engine/json_out.h"
#include "tests/sandbox/engine/listing.h"
#include "tests/sandbox/engine/route.h"

enum { EVENTS_MAX = 20000 };

struct job *jobs_start(struct engine *e, const char *correlation_id, const char *description)
{
    struct job *job = ALLOC_NEW(struct job);
    id_new(job->id);
    id_new(job->step.id);
    (void)snprintf(job->correlation_id, sizeof job->correlation_id, "%s", correlation_id);
    job->description = xstrdup(description);
    job->step.description = xstrdup("Executing");
    job->status = job->step.status = "started";
    job->start_ms = job->step.start_ms = engine_now_ms(e);
    VEC_ADD(&e->model.jobs, job);
    return job;
}

void jobs_describe(struct job *job, const char *fmt, ...)
{
    va_list ap;
    char text[300];
    if (!job)
        return;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    free(job->description);
    job->description = xstrdup(text);
}

void jobs_finish(struct engine *e, struct job *job, bool ok)
{
    if (!job || job->end_ms != 0)
        return;
    job->end_ms = job->step.end_ms = engine_now_ms(e);
    job->status = job->step.status = ok ? "finished" : "failed";
    engine_changed(e);
}

/* Old jobs are no longer listed. They are freed with the engine: a job thread may hold one. */
static bool is_listed(const struct engine *e, const struct job *job)
{
    int64_t keep =
        !strcmp(job->status, "failed") ? e->timings.job_keep_failed_ms : e->timings.job_keep_ok_ms;
    return job->end_ms == 0 || engine_now_ms(e) - job->end_ms < keep;
}

static bool job_field(const void *object, const char *field, search_found_fn found, void *arg)
{
    const struct job *job = object;
    const struct listing_value v[] = {{"correlation_id", job->correlation_id},
                                      {"status", job->status},
                                      {"description", job->description},
                                      {"name", job->description},
                                      {"id", job->id}};
    return listing_found(v, ARRAY_LEN(v), field, found, arg);
}

static json_t *job_show(struct engine *e, struct request *r, const void *object)
{
    (void)r;
    const struct job *job = object;
    json_t *o = out_entity(job->id, "jobs/%s", job->id);
    out_str(o, "description", job->description);
    out_str(o, "status", job->status);
    out_date(o, "start_time", job->start_ms);
    out_date(o, "last_updated", job->end_ms ? job->end_ms : engine_now_ms(e));
    if (job->end_ms)
        out_date(o, "end_time", job->end_ms);
    out_bool(o, "external", false);
    out_bool(o, "auto_cleared", true);
    json_object_set_new(o, "owner",
                        json_pack("{s:s}", "id", "00000019-0019-0019-0019-000000000001"));
    out_link(o, "steps");
    return o;
}

void jobs_list(struct engine *e, struct request *r)
{
    static const char *const fields[] = {"correlation_id", "status", "description",
                                         "name",           "id",     NULL};
    static const struct listing admin = {"job", fields, job_field, job_show};
    /* A filtered user's search is ignored. */
    static const struct listing filtered = {"job", NULL, NULL, job_show};
    VEC(struct job) alive = {0};
    struct job *job;
    VEC_EACH(&e->model.jobs, job)
    if (is_listed(e, job))
        VEC_ADD(&alive, job);
    listing_reply(e, r, r->filter ? &filtered : &admin, LISTING_OF(alive));
    free(alive.at);
}

void jobs_get(struct engine *e, struct request *r)
{
    const struct job *job = model_job(&e->model, r->ids[0]);
    if (job && is_listed(e, job))
        reply_json(r, 200, job_show(e, r, job));
    else
        reply_empty(r, 404);
}

void job_steps(struct engine *e, struct request *r)
{
    const struct job *job = model_job(&e->model, r->ids[0]);
    if (!job || !is_listed(e, job)) {
        reply_empty(r, 404);
        return;
    }
    json_t *o = out_entity(job->step.id, "jobs/%s/steps/%s", job->id, job->step.id);
    out_str(o, "description", job->step.description);
    out_str(o, "status", job->step.status);
    out_str(o, "type", "executing");
    out_u64(o, "number", 0);
    out_date(o, "start_time", job->step.start_ms);
    if (job->step.end_ms)
        out_date(o, "end_time", job->step.end_ms);
    out_bool(o, "external", false);
    out_ref(o, "job", job->id, "jobs/%s", job->id);
    reply_json(r, 200, json_pack("{s:[o]}", "step", o));
}

/* --- Events ---------------------------------------------------------------------------------- */

static void event_free_oldest(struct model *m)
{
    free(m->events.at[0]->description);
    free(m->events.at[0]->origin);
    free(m->events.at[0]);
    VEC_REMOVE_AT(&m->events, 0);
}

static struct event *event_new(struct engine *e, int code, const char *severity,
                               const struct vm *vm)
{
    struct event *ev = ALLOC_NEW(struct event);
    ev->index = ++e->model.last_event;
    ev->code = code;
    ev->severity = severity;
    ev->custom_id = -1;
    ev->time_ms = engine_now_ms(e);
    if (vm)
        memcpy(ev->vm_id, vm->id, sizeof ev->vm_id);
    if (e->model.events.len >= EVENTS_MAX)
        event_free_oldest(&e->model);
    VEC_ADD(&e->model.events, ev);
    return ev;
}

void events_note(struct engine *e, enum event_code code, const char *severity, const struct vm *vm,
                 const char *correlation_id, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    struct event *ev = event_new(e, (int)code, severity, vm);
    ev->description = xstrdup(text);
    ev->origin = xstrdup("oVirt");
    (void)snprintf(ev->correlation_id, sizeof ev->correlation_id, "%s", correlation_id);
}

static json_t *event_show(struct engine *e, struct request *r, const void *object)
{
    (void)e;
    (void)r;
    const struct event *ev = object;
    char id[32];
    (void)snprintf(id, sizeof id, "%" PRIu64, ev->index);
    json_t *o = out_entity(id, "events/%s", id);
    out_u64(o, "index", ev->index);
    out_u64(o, "code", (uint64_t)ev->code);
    out_str(o, "severity", ev->severity);
    out_date(o, "time", ev->time_ms);
    out_str(o, "description", ev->description);
    out_str(o, "origin", ev->origin);
    if (ev->correlation_id[0])
        out_str(o, "correlation_id", ev->correlation_id);
    if (ev->custom_id >= 0)
        out_u64(o, "custom_id", (uint64_t)ev->custom_id);
    else
        out_str(o, "custom_id", "-1");
    if (ev->vm_id[0])
        out_ref(o, "vm", ev->vm_id, "vms/%s", ev->vm_id);
    return o;
}

static bool event_field(const void *object, const char *field, search_found_fn found, void *arg)
{
    const struct event *ev = object;
    char code[16];
    (void)snprintf(code, sizeof code, "%d", ev->code);
    const struct listing_value v[] = {{"type", code},
                                      {"severity", ev->severity},
                                      {"name", ev->description},
                                      {"message", ev->description},
                                      {"correlation_id", ev->correlation_id},
                                      {"event_vm.id", ev->vm_id},
                                      {"event_origin", ev->origin}};
    return listing_found(v, ARRAY_LEN(v), field, found, arg);
}

void events_list(struct engine *e, struct request *r)
{
    static const char *const fields[] = {"type",         "severity",       "name",
                                         "message",      "correlation_id", "event_vm.id",
                                         "event_origin", "time",           NULL};
    static const struct listing l = {"event", fields, event_field, event_show};
    const char *from = request_param(r, "from");
    uint64_t after = from ? strtoull(from, NULL, 10) : 0;
    VEC(struct event) newest_first = {0};
    for (size_t i = e->model.events.len; i-- > 0;)
        if (e->model.events.at[i]->index > after)
            VEC_ADD(&newest_first, e->model.events.at[i]);
    listing_reply(e, r, &l, LISTING_OF(newest_first));
    free(newest_first.at);
}

void events_get(struct engine *e, struct request *r)
{
    const struct event *ev;
    uint64_t index = strtoull(r->ids[0], NULL, 10);
    VEC_EACH(&e->model.events, ev)
    if (ev->index == index) {
        reply_json(r, 200, event_show(e, r, ev));
        return;
    }
    reply_empty(r, 404);
}

static const char *severity_of(const char *text)
{
    static const char *const words[] = {"normal", "warning", "error", "alert"};
    for (size_t i = 0; text && i < ARRAY_LEN(words); i++)
        if (!strcmp(words[i], text))
            return words[i];
    return NULL;
}

void events_add(struct engine *e, struct request *r)
{
    const char *origin = in_str(r->body, "origin"), *text = in_str(r->body, "description");
    const char *severity = severity_of(in_str(r->body, "severity"));
    uint64_t custom_id = in_u64(r->body, "custom_id", UINT64_MAX);
    if (!origin || !text || !severity || custom_id == UINT64_MAX) {
        reply_incomplete(r, "Event", "origin, severity, customId, description", "add");
        return;
    }
    if (custom_id > INT32_MAX) {
        reply_bad_syntax(e, r);
        return;
    }
    const struct event *old;
    VEC_EACH(&e->model.events, old)
    if (old->custom_id == (int64_t)custom_id && !strcmp(old->origin, origin)) {
        reply_refused(r, 409,
                      "Cannot add External Event. An Event with that origin and custom "
                      "id exists already.");
        return;
    }
    const char *vm_id = in_ref_id(r->body, "vm");
    const struct vm *vm = vm_id ? model_vm(&e->model, vm_id) : NULL;
    if (vm_id && !vm) {
        reply_fault(r, 404, "Operation Failed", "Entity not found: %s", vm_id);
        return;
    }
    struct event *ev = event_new(e, 9801, severity, vm);
    ev->description = xstrdup(text);
    ev->origin = xstrdup(origin);
    ev->custom_id = (int64_t)custom_id;
    json_t *o = event_show(e, r, ev);
    reply_created(r, 201, in_str(o, "href"), o);
}
