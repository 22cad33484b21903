/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/step/ticker.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "proto/base/alloc.h"
#include "proto/base/cond.h"
#include "proto/base/log.h"

struct ticker {
    struct task_run *run;
    struct ticker_opts opts;
    pthread_t thread;
    pthread_mutex_t mutex; /* guards done */
    pthread_cond_t changed;
    bool done;
    _Atomic bool stopping; /* as done, for the session's hook */
};

static bool is_stopping(void *ctx, struct err *err)
{
    struct ticker *t = ctx;
    return atomic_load(&t->stopping) && !err_set(err, ERR_CANCELLED, 0, "the copy has ended");
}

/* Until the interval has passed (true), or the end. */
static bool wait_next(struct ticker *t)
{
    struct timespec until = cond_after_ms(t->opts.every_s * 1000);
    pthread_mutex_lock(&t->mutex);
    while (!t->done && cond_wait_until(&t->changed, &t->mutex, &until))
        ;
    bool again = !t->done;
    pthread_mutex_unlock(&t->mutex);
    return again;
}

static void *run_ticks(void *arg)
{
    struct ticker *t = arg;
    log_set_thread(t->opts.name);
    log_set_context(t->run->offer->task, t->run->offer->vm_name);
    SCOPED(engine_session)
    struct engine_session *session = engine_session_new(
        t->run->engine, &(struct engine_hooks){.ctx = t, .cancelled = is_stopping});
    engine_session_set_step(session, t->opts.name);
    bool again = t->opts.at_once || wait_next(t);
    while (again)
        again = t->opts.tick(t->opts.ctx, session) && wait_next(t);
    return NULL;
}

struct ticker *ticker_begin(struct task_run *run, const struct ticker_opts *opts)
{
    struct ticker *t = ALLOC_NEW(struct ticker);
    t->run = run;
    t->opts = *opts;
    pthread_mutex_init(&t->mutex, NULL);
    cond_init(&t->changed);
    if (pthread_create(&t->thread, NULL, run_ticks, t) != 0)
        abort(); /* out of threads is like out of memory */
    return t;
}

void ticker_end(struct ticker *t)
{
    if (!t)
        return;
    atomic_store(&t->stopping, true);
    pthread_mutex_lock(&t->mutex);
    t->done = true;
    pthread_cond_broadcast(&t->changed);
    pthread_mutex_unlock(&t->mutex);
    pthread_join(t->thread, NULL);
    pthread_cond_destroy(&t->changed);
    pthread_mutex_destroy(&t->mutex);
    free(t);
}
