/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/step/thaw.h"

#include <pthread.h>
#include <string.h>

#include "proto/base/alloc.h"
#include "proto/base/cond.h"
#include "proto/base/log.h"
#include "worker/ovirt/vm.h"

enum { THAW_TRIES = 3, THAW_PAUSE_MS = 2000 };

/* An engine that is away says nothing of the guest: it is asked until it is back, within its
 * budget. One that answers is asked THAW_TRIES times. */
static bool is_away(const struct err *err)
{
    return err->code == ERR_ENGINE_UNREACHABLE || err->code == ERR_ENGINE_BUSY;
}

struct frozen {
    struct engine *engine;
    const struct clock *clock;
    char *vm_id, *task;
    int64_t limit_ms;
    pthread_t watcher;
    pthread_mutex_t mutex; /* guards all below */
    pthread_cond_t changed;
    bool wanted;  /* the step wants it thawed now */
    bool refused; /* it never was frozen: end without a thaw */
    bool expired; /* the limit passed first */
    bool thawed;
    struct err err; /* why not */
};

static bool thaw_hard(struct engine *engine, const struct clock *clock, const char *vm_id,
                      struct err *err)
{
    SCOPED(engine_session) struct engine_session *s = engine_session_new(engine, NULL);
    engine_session_set_step(s, "thaw");
    int64_t until_ms = clock_mono_ms(clock) + engine_session_conf(s)->busy_budget_ms;
    for (int answers = 0;;) {
        err_clear(err);
        if (ovirt_vm_thaw(s, vm_id, err))
            return true;
        if (!is_away(err))
            answers++;
        if (answers == THAW_TRIES || err->code == ERR_NOT_FOUND || clock_mono_ms(clock) >= until_ms)
            return false;
        log_warn("thaw_retried", LOG_STR("message", err->message));
        clock_sleep_ms(clock, THAW_PAUSE_MS);
    }
}

/* Waits for the step's word or the limit, then thaws. */
static void *watch(void *arg)
{
    struct frozen *f = arg;
    log_set_thread("thaw");
    log_set_context(f->task, f->vm_id);
    struct timespec until = cond_after_ms(f->limit_ms);
    pthread_mutex_lock(&f->mutex);
    while (!f->wanted && cond_wait_until(&f->changed, &f->mutex, &until))
        ;
    f->expired = !f->wanted;
    bool expired = f->expired, refused = f->refused;
    pthread_mutex_unlock(&f->mutex);
    if (refused)
        return NULL;
    if (expired)
        log_warn("thaw_limit_passed", LOG_I64("limit_ms", f->limit_ms));
    struct err err = ERR_INIT;
    bool ok = thaw_hard(f->engine, f->clock, f->vm_id, &err);
    if (ok)
        log_info("thawed");
    pthread_mutex_lock(&f->mutex);
    f->thawed = ok;
    f->err = err;
    pthread_mutex_unlock(&f->mutex);
    return NULL;
}

static struct frozen *guard_new(struct task_run *run, const char *vm_id)
{
    struct frozen *f = ALLOC_NEW(struct frozen);
    f->engine = run->engine;
    f->clock = run->clock;
    f->vm_id = xstrdup(vm_id);
    f->task = xstrdup(run->offer->task);
    f->limit_ms = run->settings->quiesce_limit_s * 1000;
    pthread_mutex_init(&f->mutex, NULL);
    cond_init(&f->changed);
    if (pthread_create(&f->watcher, NULL, watch, f) != 0)
        abort();
    return f;
}

static bool has_expired(struct frozen *f)
{
    pthread_mutex_lock(&f->mutex);
    bool expired = f->expired;
    pthread_mutex_unlock(&f->mutex);
    return expired;
}

/* The freeze was asked for until the limit had passed: what the watcher thawed, a later try may
 * have frozen again, and nobody watches any more. */
static bool thaw_too_late(struct task_run *run, const char *vm_id, struct err *err)
{
    struct err thaw = ERR_INIT;
    bool ok = thaw_hard(run->engine, run->clock, vm_id, &thaw);
    if (ok)
        return err_set(err, ERR_QUIESCE_FAILED, 0,
                       "freezing the guest took longer than quiesce_limit_s (%lld s)",
                       (long long)run->settings->quiesce_limit_s);
    err_set(err, ERR_QUIESCE_FAILED, thaw.sys, "the guest may be frozen and cannot be thawed: %s",
            thaw.message);
    return true;
}

struct frozen *freeze_begin(struct task_run *run, const char *vm_id, bool *ret_may_be_frozen,
                            struct err *err)
{
    /* The watcher first: from the moment the request leaves, the guest may be frozen. */
    struct frozen *f = guard_new(run, vm_id);
    struct err ignored = ERR_INIT;
    bool in_time;
    *ret_may_be_frozen = false;
    if (ovirt_vm_freeze(run->session, vm_id, err)) {
        if (!has_expired(f))
            return f;
        (void)frozen_end(f, &in_time, &ignored);
        *ret_may_be_frozen = thaw_too_late(run, vm_id, err);
        return NULL;
    }
    /* A refusal left the guest as it was, as far as the engine can tell: one quiet thaw for the
     * rest. Anything else may have frozen it. */
    bool refused = err->code == ERR_QUIESCE_FAILED || err->code == ERR_LEASE_LOST;
    if (err->code == ERR_QUIESCE_FAILED)
        thaw_in_case(run, vm_id);
    pthread_mutex_lock(&f->mutex);
    f->refused = refused;
    pthread_mutex_unlock(&f->mutex);
    *ret_may_be_frozen = !frozen_end(f, &in_time, &ignored);
    return NULL;
}

bool frozen_end(struct frozen *f, bool *ret_in_time, struct err *err)
{
    *ret_in_time = false;
    if (!f)
        return true;
    pthread_mutex_lock(&f->mutex);
    f->wanted = true;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->mutex);
    pthread_join(f->watcher, NULL);
    *ret_in_time = !f->expired;
    bool ok = f->thawed || f->refused;
    if (!ok) {
        *err = f->err;
        err_wrap(err, "the guest could not be thawed: check it, and run a thaw by hand");
    }
    pthread_cond_destroy(&f->changed);
    pthread_mutex_destroy(&f->mutex);
    free(f->vm_id);
    free(f->task);
    free(f);
    return ok;
}

bool thaw_may_be_due(const struct task_run *run)
{
    const struct wire_journal *journal = &run->offer->journal;
    for (size_t i = 0; i < journal->count; i++) {
        if (strcmp(journal->v[i].step, "quiesce") == 0 ||
            strcmp(journal->v[i].step, "begin") == 0 || strcmp(journal->v[i].step, "snapshot") == 0)
            return true;
    }
    return false;
}

void thaw_in_case(struct task_run *run, const char *vm_id)
{
    struct err err = ERR_INIT;
    SCOPED(engine_session) struct engine_session *s = engine_session_new(run->engine, NULL);
    engine_session_set_step(s, "thaw");
    if (ovirt_vm_thaw(s, vm_id, &err))
        log_info("thawed_in_case");
    else
        log_debug("thaw_not_needed", LOG_STR("message", err.message));
}
