/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/step/space.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "proto/base/alloc.h"
#include "proto/base/log.h"

struct space_watch {
    struct task_run *run;
    const struct backup *b;
    pthread_t thread;
    pthread_mutex_t mutex; /* guards done */
    pthread_cond_t changed;
    bool done;
    _Atomic bool stopping; /* as done, for the session's hook */
    _Atomic bool low;
    struct err err; /* why; the watcher's until it has ended */
};

uint64_t space_limit_bytes(const struct step_settings *settings)
{
    return settings->reserve_domain_bytes / 2;
}

static bool is_stopping(void *ctx, struct err *err)
{
    struct space_watch *w = ctx;
    if (!atomic_load(&w->stopping))
        return false;
    err_set(err, ERR_CANCELLED, 0, "the copy has ended");
    return true;
}

/* True when one of the disks lies in the domain. */
static bool is_concerned(const struct backup *b, const struct ovirt_storage_domain *sd)
{
    for (size_t i = 0; i < b->plan_count; i++) {
        const char *id = b->plan[i].disk->storage_domain_id;
        if (id && strcmp(id, sd->id) == 0)
            return true;
    }
    return false;
}

static void judge(struct space_watch *w, const struct ovirt_storage_domains *domains)
{
    const struct step_settings *set = w->run->settings;
    for (size_t i = 0; i < domains->count && !err_is_set(&w->err); i++) {
        const struct ovirt_storage_domain *sd = &domains->v[i];
        if (!is_concerned(w->b, sd) || sd->available_bytes >= space_limit_bytes(set))
            continue;
        err_set(&w->err, ERR_NO_SPACE, 0,
                "storage domain %s has %" PRIu64 " MiB free, less than half of "
                "reserve.storage_domain_mib (%" PRIu64
                "): the backup is given up before the domain "
                "is full and pauses its VMs; make room there",
                sd->name, sd->available_bytes >> 20, set->reserve_domain_bytes >> 20);
        atomic_store(&w->low, true);
    }
}

static void look(struct space_watch *w, struct engine_session *session)
{
    struct err err = ERR_INIT;
    struct ovirt_storage_domains domains = {0};
    if (ovirt_storage_domains_list(session, w->b->site.datacenter_id, &domains, &err))
        judge(w, &domains);
    else if (err.code != ERR_CANCELLED)
        log_err(LOG_LEVEL_WARN, "space_not_seen", &err);
    ovirt_storage_domains_done(&domains);
}

/* Until the interval has passed, or the end. */
static bool wait_next(struct space_watch *w)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += w->run->settings->space_watch_s;
    pthread_mutex_lock(&w->mutex);
    int rc = 0;
    while (!w->done && rc == 0)
        rc = pthread_cond_timedwait(&w->changed, &w->mutex, &until);
    bool again = !w->done;
    pthread_mutex_unlock(&w->mutex);
    return again;
}

static void *watch(void *arg)
{
    struct space_watch *w = arg;
    log_set_thread("space");
    log_set_context(w->run->offer->task, w->run->offer->vm_name);
    SCOPED(engine_session)
    struct engine_session *session = engine_session_new(
        w->run->engine, &(struct engine_hooks){.ctx = w, .cancelled = is_stopping});
    engine_session_set_step(session, "space");
    do
        look(w, session);
    while (!atomic_load(&w->low) && wait_next(w));
    return NULL;
}

struct space_watch *space_watch_begin(struct task_run *run, const struct backup *b)
{
    struct space_watch *w = ALLOC_NEW(struct space_watch);
    w->run = run;
    w->b = b;
    pthread_mutex_init(&w->mutex, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&w->changed, &attr);
    pthread_condattr_destroy(&attr);
    if (pthread_create(&w->thread, NULL, watch, w) != 0)
        abort(); /* out of threads is like out of memory */
    return w;
}

bool space_watch_is_low(const struct space_watch *w)
{
    return atomic_load(&w->low);
}

bool space_watch_end(struct space_watch *w, struct err *err)
{
    atomic_store(&w->stopping, true);
    pthread_mutex_lock(&w->mutex);
    w->done = true;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->mutex);
    pthread_join(w->thread, NULL);
    bool ok = !err_is_set(&w->err);
    if (!ok)
        *err = w->err;
    pthread_cond_destroy(&w->changed);
    pthread_mutex_destroy(&w->mutex);
    free(w);
    return ok;
}
