/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/runner/execute.h"

#include <stdio.h>
#include <string.h>

#include "proto/base/alloc.h"
#include "proto/base/log.h"
#include "worker/ovirt/engine.h"
#include "worker/runner/steps.h"
#include "worker/store/store.h"
#include "worker/task/task.h"

static bool hook_cancelled(void *ctx, struct err *err)
{
    return !run_check(ctx, err);
}

static bool hook_before_mutation(void *ctx, struct err *err)
{
    return run_before_mutation(ctx, err);
}

static bool check_offer(const struct task_run *run, const struct task_kind *kind, struct err *err)
{
    if (!kind)
        return err_set(err, ERR_UNSUPPORTED, 0, "this worker knows no task of kind '%s'",
                       run->offer->kind);
    if (kind->needs_engine && !run->engine)
        return err_set(err, ERR_BAD_CONFIG, 0, "a %s task needs an engine", kind->name);
    if (kind->needs_store && !run->store)
        return err_set(err, ERR_BAD_CONFIG, 0, "a %s task needs a repository", kind->name);
    return true;
}

/* A clean-up does what it can without the repository. */
static bool check_store(const struct task_run *run, const struct task_kind *kind, struct err *err)
{
    struct err why = ERR_INIT;
    if (!run->store || store_refresh(run->store, &why))
        return true;
    if (!kind->needs_store) {
        log_err(LOG_LEVEL_WARN, "repository_unavailable", &why);
        return true;
    }
    *err = why;
    return false;
}

static bool run_kind(struct task_run *run, const struct task_kind *kind, struct err *err)
{
    if (!check_offer(run, kind, err) || !check_store(run, kind, err))
        return false;
    if (kind->state_new) {
        run->state = kind->state_new(run, err);
        if (!run->state)
            return false;
    }
    bool ok = steps_run(run, kind->steps, kind->step_count, err);
    if (kind->state_free)
        kind->state_free(run->state);
    run->state = NULL;
    return ok;
}

static const char *status_word(struct task_run *run, bool ok, const struct err *err)
{
    if (ok)
        return "succeeded";
    if (err->code != ERR_CANCELLED)
        return "failed";
    return run_is_given_back(run) ? "released" : "cancelled";
}

/* Say in the last warning that there were more. */
static void count_dropped_warnings(struct task_run *run)
{
    if (run->warnings_dropped == 0 || run->warnings_count == 0)
        return;
    struct wire_warning *last = &run->warnings[run->warnings_count - 1];
    char *message = xasprintf("%s (and %zu more warnings, see the worker's log)", last->message,
                              run->warnings_dropped);
    free(last->message);
    last->message = message;
}

/* A result that cannot be encoded must not be silence: the task would run until its lease ends. */
static void emit_result(struct task_run *run, struct wire_result *result)
{
    if (run->ops->emit(run->ops_ctx, WIRE_RESULT, result, false))
        return;
    result->warnings = (struct wire_warnings){0};
    if (run->ops->emit(run->ops_ctx, WIRE_RESULT, result, false))
        return;
    struct err err = ERR_INIT;
    err_set(&err, ERR_INTERNAL, 0, "the task's result could not be encoded: see the worker's log");
    char at[WIRE_AT_BYTES];
    struct wire_error error;
    wire_error_of(&err, &error, at);
    static char failed[] = "failed";
    struct wire_result least = {.task = result->task,
                                .worker = result->worker,
                                .attempt = result->attempt,
                                .fence = result->fence,
                                .status = failed,
                                .error = &error};
    (void)run->ops->emit(run->ops_ctx, WIRE_RESULT, &least, false);
}

static void publish_result(struct task_run *run, const char *status, const struct err *err)
{
    char at[WIRE_AT_BYTES];
    struct wire_error error;
    if (err)
        wire_error_of(err, &error, at);
    count_dropped_warnings(run);
    /* Whoever took the task over has the handles from the journal. */
    bool lost = err && err->code == ERR_LEASE_LOST;
    struct wire_leftovers held = {0};
    if (!lost)
        held = handles_leftovers(&run->handles, run->offer->vm);
    struct wire_result result = {
        .task = run->offer->task,
        .worker = (char *)(uintptr_t)run->worker,
        .attempt = run->offer->attempt,
        .fence = run->fence,
        .status = (char *)(uintptr_t)status,
        .error = err ? &error : NULL,
        .warnings = {.v = run->warnings, .count = run->warnings_count},
        .point = run->point,
        .new_vm = run->new_vm,
        .exported = run->exported,
        .stats = &run->stats,
        .leftovers = run->left.count ? run->left : held,
        .pages = run->pages,
    };
    emit_result(run, &result);
    leftovers_done(&held);
}

/* Whoever reads the error at night wants to know it. */
static void say_what_is_left(const struct task_run *run, struct err *err)
{
    if (err->code == ERR_LEASE_LOST)
        return;
    struct wire_leftovers held = handles_leftovers(&run->handles, run->offer->vm);
    const struct wire_leftovers *left = run->left.count ? &run->left : &held;
    size_t at = strlen(err->message);
    for (size_t i = 0; i < left->count && at < sizeof err->message; i++) {
        const struct wire_leftover *l = &left->v[i];
        at += (size_t)snprintf(err->message + at, sizeof err->message - at, "%s%s %s%s%s",
                               i == 0 ? "; left for now: " : ", ", l->kind, l->id ? l->id : "",
                               l->vm ? " on VM " : "", l->vm ? l->vm : "");
    }
    if (left->count && at < sizeof err->message)
        (void)snprintf(err->message + at, sizeof err->message - at,
                       " (a clean-up is tried until it is gone)");
    leftovers_done(&held);
}

bool execute_task(const struct worker_env *env, const struct execution *what, struct err *err)
{
    const struct wire_offer *offer = what->offer;
    log_set_context(offer->task, offer->vm_name ? offer->vm_name : offer->vm);
    int64_t start = clock_mono_ms(env->clock);
    struct task_run run = {
        .offer = offer,
        .worker = env->name,
        .fence = what->fence,
        .deadline_mono_ms = offer->deadline_s > 0 ? start + offer->deadline_s * 1000 : 0,
        .settings = &env->settings,
        .clock = env->clock,
        .engine = env->engine,
        .store = env->store,
        .ops = what->ops,
        .ops_ctx = what->ops_ctx,
    };
    handles_inherit(&run.handles, &offer->journal);
    SCOPED(engine_session) struct engine_session *session = NULL;
    if (env->engine) {
        session = engine_session_new(
            env->engine, &(struct engine_hooks){.ctx = &run,
                                                .cancelled = hook_cancelled,
                                                .before_mutation = hook_before_mutation});
        run.session = session;
    }
    log_info("task_started", LOG_STR("kind", offer->kind), LOG_I64("attempt", offer->attempt),
             LOG_I64("fence", what->fence));
    bool ok = run_kind(&run, task_kind_find(offer->kind), err);
    run.stats.total_ms = clock_mono_ms(env->clock) - start;
    if (!ok)
        say_what_is_left(&run, err);
    const char *status = status_word(&run, ok, err);
    if (ok)
        log_info("task_succeeded", LOG_I64("ms", run.stats.total_ms), LOG_STR("point", run.point),
                 LOG_U64("warnings", run.warnings_count));
    else
        log_err(err->code == ERR_CANCELLED ? LOG_LEVEL_WARN : LOG_LEVEL_ERROR, "task_failed", err);
    publish_result(&run, status, ok ? NULL : err);
    run_done(&run);
    log_set_context(NULL, NULL);
    return ok;
}
