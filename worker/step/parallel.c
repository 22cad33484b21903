/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/step/parallel.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include "proto/base/alloc.h"
#include "proto/base/cond.h"
#include "proto/base/log.h"

enum { TICK_MS = 300 };

struct parallel {
    struct task_run *run;
    const struct parallel_opts *opts;
    int64_t start_ms, total_bytes;
    _Atomic size_t next;
    _Atomic int64_t *done_bytes; /* of each disk */
    _Atomic bool failed;
    pthread_mutex_t mutex; /* guards what follows */
    pthread_cond_t ended;  /* a thread has */
    size_t n_running;
    struct err err;
};

/* Of one disk: what the callbacks of its copy see. */
struct one {
    struct parallel *all;
    size_t index;
};

static void on_progress(void *context, uint64_t done_bytes, uint64_t total_bytes)
{
    (void)total_bytes;
    const struct one *o = context;
    struct parallel *p = o->all;
    atomic_store(&p->done_bytes[o->index], (int64_t)done_bytes);
    int64_t sum = 0;
    for (size_t i = 0; i < p->opts->count; i++)
        sum += atomic_load(&p->done_bytes[i]);
    int64_t ms = clock_mono_ms(p->run->clock) - p->start_ms;
    run_copying(p->run, p->opts->before_bytes + sum, p->total_bytes, ms > 0 ? sum * 1000 / ms : 0);
}

static bool on_cancelled(void *context)
{
    const struct one *o = context;
    return atomic_load(&o->all->failed) || run_is_cancelled(o->all->run);
}

static void fail(struct parallel *p, const struct err *err)
{
    pthread_mutex_lock(&p->mutex);
    /* A disk that stopped because another one failed says `cancelled`: not the cause. */
    if (!err_is_set(&p->err) || p->err.code == ERR_CANCELLED)
        p->err = *err;
    atomic_store(&p->failed, true);
    pthread_mutex_unlock(&p->mutex);
}

static void copy_disks(struct parallel *p)
{
    for (;;) {
        size_t i = atomic_fetch_add(&p->next, 1);
        if (i >= p->opts->count || atomic_load(&p->failed))
            return;
        char name[16];
        snprintf(name, sizeof name, "disk-%u", (unsigned)(i % 10000));
        log_set_thread(name);
        log_set_context(p->run->offer->task, p->run->offer->vm_name);
        struct one one = {.all = p, .index = i};
        struct copy_opts copy = {.threads = (unsigned)p->run->settings->copy_threads,
                                 .context = &one,
                                 .progress = on_progress,
                                 .cancelled = on_cancelled};
        struct err err = ERR_INIT;
        if (!p->opts->work(p->opts->ctx, i, &copy, &err))
            fail(p, &err);
    }
}

static void *disk_thread(void *arg)
{
    struct parallel *p = arg;
    copy_disks(p);
    pthread_mutex_lock(&p->mutex);
    p->n_running--;
    pthread_cond_signal(&p->ended);
    pthread_mutex_unlock(&p->mutex);
    return NULL;
}

/* Until all threads have ended. */
static void wait_for_all(struct parallel *p)
{
    pthread_mutex_lock(&p->mutex);
    while (p->n_running > 0) {
        struct timespec until = cond_after_ms(TICK_MS);
        bool is_due = false;
        while (p->n_running > 0 && !is_due)
            is_due = !cond_wait_until(&p->ended, &p->mutex, &until);
        if (!is_due || !p->opts->tick)
            continue;
        pthread_mutex_unlock(&p->mutex);
        p->opts->tick(p->opts->ctx);
        pthread_mutex_lock(&p->mutex);
    }
    pthread_mutex_unlock(&p->mutex);
}

static void init(struct parallel *p)
{
    pthread_mutex_init(&p->mutex, NULL);
    cond_init(&p->ended);
    for (size_t i = 0; p->opts->total_bytes == 0 && i < p->opts->count; i++)
        p->total_bytes += (int64_t)p->opts->sizes[i];
}

bool parallel_run(struct task_run *run, const struct parallel_opts *opts, struct err *err)
{
    struct parallel p = {.run = run,
                         .opts = opts,
                         .start_ms = clock_mono_ms(run->clock),
                         .total_bytes = opts->total_bytes,
                         .done_bytes = xcalloc(opts->count, sizeof(_Atomic int64_t))};
    init(&p);
    size_t wanted = run->settings->disks_at_once > 0 ? (size_t)run->settings->disks_at_once : 1;
    size_t threads = opts->count < wanted ? opts->count : wanted;
    p.n_running = threads;
    SCOPED_FREE pthread_t *ids = xcalloc(threads, sizeof *ids);
    for (size_t i = 0; i < threads; i++) {
        if (pthread_create(&ids[i], NULL, disk_thread, &p) != 0)
            abort(); /* out of threads is like out of memory */
    }
    wait_for_all(&p);
    for (size_t i = 0; i < threads; i++)
        pthread_join(ids[i], NULL);
    pthread_cond_destroy(&p.ended);
    pthread_mutex_destroy(&p.mutex);
    free(p.done_bytes);
    if (!err_is_set(&p.err))
        return true;
    /* Name the true reason of a stop: cancelled, deadline or lease. */
    if (p.err.code == ERR_CANCELLED && !run_check(run, err))
        return false;
    *err = p.err;
    return false;
}
