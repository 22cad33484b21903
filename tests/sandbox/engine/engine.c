/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sandbox/engine/engine.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "proto/base/clock.h"
#include "proto/base/log.h"
#include "tests/sandbox/engine/members.h"

enum { TIMING_MAX_MS = 86400000, THREAD_STACK_BYTES = 512 * 1024 };

static const struct timings timings_normal = {
#define TIMING(name, normal, fast) .name = (normal),
    ENGINE_TIMINGS
#undef TIMING
};

static const struct timings timings_fast = {
#define TIMING(name, normal, fast) .name = (fast),
    ENGINE_TIMINGS
#undef TIMING
};

void timings_set_profile(struct timings *t, bool fast)
{
    *t = fast ? timings_fast : timings_normal;
}

bool timings_set(struct timings *t, const char *name, int64_t value_ms)
{
    if (value_ms < 0 || value_ms > TIMING_MAX_MS)
        return false;
#define TIMING(field, normal, fast)                                                                \
    if (!strcmp(name, #field)) {                                                                   \
        t->field = value_ms;                                                                       \
        return true;                                                                               \
    }
    ENGINE_TIMINGS
#undef TIMING
    return false;
}

struct engine *engine_new(const struct engine_opts *opts)
{
    struct engine *e = ALLOC_NEW(struct engine);
    pthread_condattr_t attr;
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_mutex_init(&e->lock, NULL);
    (void)pthread_cond_init(&e->changed, &attr);
    (void)pthread_condattr_destroy(&attr);
    e->opts = *opts;
    e->version = MEMBERS_VERSION(4, 5, 5);
    (void)snprintf(e->version_text, sizeof e->version_text, "4.5.5");
    e->pci_slots = 26;
    timings_set_profile(&e->timings, false);
    id_new(e->instance_id);
    return e;
}

void engine_stop_threads(struct engine *e)
{
    engine_lock(e);
    e->stopping = true;
    engine_changed(e);
    while (e->threads > 0)
        (void)pthread_cond_wait(&e->changed, &e->lock);
    engine_unlock(e);
}

void engine_free(struct engine *e)
{
    if (!e)
        return;
    model_done(&e->model);
    json_decref(e->role.permits);
    free(e->opts.dir);
    free(e->opts.keep_dir);
    free(e->opts.writer);
    free(e->opts.linux_dir);
    (void)pthread_cond_destroy(&e->changed);
    (void)pthread_mutex_destroy(&e->lock);
    free(e);
}

void engine_lock(struct engine *e)
{
    (void)pthread_mutex_lock(&e->lock);
}

void engine_unlock(struct engine *e)
{
    (void)pthread_mutex_unlock(&e->lock);
}

void engine_changed(struct engine *e)
{
    (void)pthread_cond_broadcast(&e->changed);
}

static struct timespec deadline_in(int64_t ms)
{
    struct timespec at;
    (void)clock_gettime(CLOCK_MONOTONIC, &at);
    at.tv_sec += (time_t)(ms / 1000);
    at.tv_nsec += (long)(ms % 1000) * 1000000;
    if (at.tv_nsec >= 1000000000) {
        at.tv_sec++;
        at.tv_nsec -= 1000000000;
    }
    return at;
}

bool engine_sleep_until_changed(struct engine *e, int64_t ms)
{
    struct timespec until = deadline_in(ms);
    if (!e->stopping)
        (void)pthread_cond_timedwait(&e->changed, &e->lock, &until);
    return !e->stopping;
}

bool engine_sleep(struct engine *e, int64_t ms)
{
    struct timespec until = deadline_in(ms);
    if (ms <= 0) {
        engine_unlock(e);
        engine_lock(e);
    } else {
        while (!e->stopping && pthread_cond_timedwait(&e->changed, &e->lock, &until) != ETIMEDOUT)
            continue;
    }
    return !e->stopping;
}

void engine_wait(struct engine *e)
{
    (void)pthread_cond_wait(&e->changed, &e->lock);
}

struct spawned {
    struct engine *e;
    engine_job_fn fn;
    void *arg;
};

static void *run_job(void *arg)
{
    SCOPED_FREE struct spawned *s = arg;
    log_set_thread("job");
    engine_lock(s->e);
    s->fn(s->e, s->arg);
    s->e->threads--;
    engine_changed(s->e);
    engine_unlock(s->e);
    return NULL;
}

void engine_spawn(struct engine *e, engine_job_fn fn, void *arg)
{
    struct spawned *s = ALLOC_NEW(struct spawned);
    *s = (struct spawned){.e = e, .fn = fn, .arg = arg};
    pthread_attr_t attr;
    pthread_t thread;
    (void)pthread_attr_init(&attr);
    (void)pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    (void)pthread_attr_setstacksize(&attr, THREAD_STACK_BYTES);
    e->threads++;
    int failed = pthread_create(&thread, &attr, run_job, s);
    (void)pthread_attr_destroy(&attr);
    if (failed != 0) {
        log_error("thread_failed", LOG_I64("errno", failed));
        abort();
    }
}

int64_t engine_now_ms(const struct engine *e)
{
    return clock_wall_ms(clock_system()) + e->clock_offset_ms;
}

int64_t engine_mono_ms(void)
{
    return clock_mono_ms(clock_system());
}

bool engine_since(const struct engine *e, int major, int minor, int build)
{
    return e->version >= MEMBERS_VERSION(major, minor, build);
}

int engine_level_minor(const struct engine *e)
{
    if (e->level_minor > 0)
        return e->level_minor;
    return engine_since(e, 4, 5, 0) ? 7 : engine_since(e, 4, 4, 0) ? 6 : 3;
}

bool engine_set_version(struct engine *e, const char *text)
{
    int version;
    if (strlen(text) >= sizeof e->version_text || !members_version_parse(text, &version) ||
        version < MEMBERS_VERSION(4, 0, 0) || version >= MEMBERS_VERSION(5, 0, 0))
        return false;
    e->version = version;
    (void)snprintf(e->version_text, sizeof e->version_text, "%s", text);
    return true;
}
