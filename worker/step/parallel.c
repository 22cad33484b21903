/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/step/parallel.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include "proto/base/alloc.h"
#include "proto/base/log.h"

struct parallel {
    struct task_run *run;
    size_t count;
    parallel_fn work;
    void *ctx;
    int64_t start_ms, total_bytes;
    _Atomic size_t next;
    _Atomic int64_t *done_bytes; /* of each disk */
    _Atomic bool failed;
    pthread_mutex_t mutex; /* guards err */
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
    for (size_t i = 0; i < p->count; i++)
        sum += atomic_load(&p->done_bytes[i]);
    int64_t ms = clock_mono_ms(p->run->clock) - p->start_ms;
    run_copying(p->run, sum, p->total_bytes, ms > 0 ? sum * 1000 / ms : 0);
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

static void *disk_thread(void *arg)
{
    struct parallel *p = arg;
    for (;;) {
        size_t i = atomic_fetch_add(&p->next, 1);
        if (i >= p->count || atomic_load(&p->failed))
            return NULL;
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
        if (!p->work(p->ctx, i, &copy, &err))
            fail(p, &err);
    }
}

bool parallel_run(struct task_run *run, size_t count, const uint64_t *sizes, parallel_fn work,
                  void *ctx, struct err *err)
{
    struct parallel p = {.run = run,
                         .count = count,
                         .work = work,
                         .ctx = ctx,
                         .start_ms = clock_mono_ms(run->clock),
                         .done_bytes = xcalloc(count, sizeof(_Atomic int64_t))};
    pthread_mutex_init(&p.mutex, NULL);
    for (size_t i = 0; i < count; i++)
        p.total_bytes += (int64_t)sizes[i];
    size_t wanted = run->settings->disks_at_once > 0 ? (size_t)run->settings->disks_at_once : 1;
    size_t threads = count < wanted ? count : wanted;
    SCOPED_FREE pthread_t *ids = xcalloc(threads, sizeof *ids);
    for (size_t i = 0; i < threads; i++) {
        if (pthread_create(&ids[i], NULL, disk_thread, &p) != 0)
            abort(); /* out of threads is like out of memory */
    }
    for (size_t i = 0; i < threads; i++)
        pthread_join(ids[i], NULL);
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
