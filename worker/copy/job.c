/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pipeline. A plan walks the extents of the disk and hands out units: up to 4 MiB of data that
 * do not cross a multiple of 4 MiB (of a backup: 16 MiB, while there is enough for all threads), or
 * a hole. Each of a few threads takes a unit, does all of it (read, hash, compress, write) with a
 * buffer of its own, and takes the next. While one thread waits for its read, another has the
 * processor; nothing but the plan and the counters is shared. The calling thread watches: progress
 * and cancellation.
 */
#include "worker/copy/job.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "proto/base/cond.h"

enum {
    ALIGN_BYTES = STORE_BLOCK_BYTES,
    THREADS_MAX = 64,
    THREADS_DEFAULT_MAX = 8,
    WATCH_MS = 200,
};
#define HOLE_UNIT_BYTES  (UINT64_C(64) << 20)
#define KEEP_UNIT_BYTES  (UINT64_C(256) << 20)
#define LAST_PART_BYTES  (UINT64_C(256) << 20)
#define PLAN_BYTES       (UINT64_C(256) << 20) /* of the map asked for at once */
#define THREAD_MIN_BYTES (UINT64_C(16) << 20)  /* a disk this small is not worth another thread */

/* ---- the plan; with the lock held */

static uint64_t round_down(uint64_t n)
{
    return n - n % ALIGN_BYTES;
}

static uint64_t round_up(uint64_t n, uint64_t limit)
{
    uint64_t up = n + (ALIGN_BYTES - n % ALIGN_BYTES) % ALIGN_BYTES;
    return up < limit ? up : limit;
}

static bool plan_more(struct job *job, struct err *err)
{
    uint64_t len = job->size_bytes - job->planned;
    len = len < PLAN_BYTES ? len : PLAN_BYTES;
    extents_reset(&job->map);
    job->at = 0;
    if (!job->ops->extents(job, job->planned, len, &job->map, err))
        return err_wrap(err, "map at offset %" PRIu64, job->planned);
    job->planned += len;
    return true;
}

/* The end of the hole that begins at the cursor: where the next data begins, rounded down to whole
 * blocks, so that units are aligned whatever the source's granularity is. */
static uint64_t hole_end(const struct job *job)
{
    uint64_t end = job->map.items[job->at].offset + job->map.items[job->at].len;
    if (end != job->size_bytes && job->at + 1 < job->map.count)
        end = round_down(end);
    return end;
}

/* The range of the list that the cursor is in; NULL beyond its end. `at`: where it was. */
static const struct extent *range_at_cursor(const struct job *job, const struct extents *list,
                                            size_t *at)
{
    while (*at < list->count && list->items[*at].offset + list->items[*at].len <= job->cursor)
        ++*at;
    return *at < list->count ? &list->items[*at] : NULL;
}

/* Move the cursor past what is left out; the end of the range it is in then. */
static uint64_t pass_left_out(struct job *job)
{
    if (!job->opts->only)
        return job->size_bytes;
    const struct extent *range = NULL;
    while (job->cursor < job->size_bytes &&
           !((range = range_at_cursor(job, job->opts->only, &job->at_only)) && range->is_data))
        job->cursor = range ? range->offset + range->len : job->size_bytes;
    if (job->planned < job->cursor) /* nobody needs the map of it */
        job->planned = job->cursor;
    return range ? range->offset + range->len : job->size_bytes;
}

/* Cut [begin, *end) at the next multiple of `bytes`. */
static void cut_unit(uint64_t begin, uint64_t *end, uint64_t bytes)
{
    uint64_t boundary = begin - begin % bytes + bytes;
    *end = *end < boundary ? *end : boundary;
}

static uint64_t data_unit_bytes(const struct job *job)
{
    return job->size_bytes - job->cursor > LAST_PART_BYTES ? job->ops->unit_bytes : DATA_UNIT_BYTES;
}

static int hand_out(struct job *job, uint64_t end, enum unit_kind kind, struct unit *ret_unit)
{
    ret_unit->range = (struct extent){
        .offset = job->cursor, .len = end - job->cursor, .is_data = kind == UNIT_DATA};
    ret_unit->kind = kind;
    job->cursor = end;
    return 1;
}

/* 1 = a unit, 0 = all has been handed out, -1 = error. */
int plan_next(struct job *job, struct unit *ret_unit, struct err *err)
{
    uint64_t limit = pass_left_out(job); /* of what is alike: to be copied, and changed */
    if (job->cursor == job->size_bytes)
        return 0;
    if (job->opts->changed && job->ops->keep) {
        const struct extent *range = range_at_cursor(job, job->opts->changed, &job->at_changed);
        uint64_t end =
            range && range->offset + range->len < limit ? range->offset + range->len : limit;
        if (range && !range->is_data) {
            cut_unit(job->cursor, &end, KEEP_UNIT_BYTES);
            return hand_out(job, end, UNIT_KEEP, ret_unit);
        }
        limit = end;
        if (job->planned < job->cursor) /* nobody needs the map of what is kept */
            job->planned = job->cursor;
    }
    for (;;) {
        while (job->at < job->map.count &&
               job->map.items[job->at].offset + job->map.items[job->at].len <= job->cursor)
            job->at++;
        if (job->at == job->map.count) {
            if (job->planned >= job->size_bytes)
                return 0;
            if (!plan_more(job, err))
                return -1;
            continue;
        }
        bool is_data = job->map.items[job->at].is_data;
        uint64_t begin = job->cursor, end = hole_end(job);
        if (is_data)
            end = round_up(job->map.items[job->at].offset + job->map.items[job->at].len,
                           job->size_bytes);
        if (end <= begin) { /* a hole within one block: the data around it covers it */
            job->at++;
            continue;
        }
        end = end < limit ? end : limit;
        cut_unit(begin, &end, is_data ? data_unit_bytes(job) : HOLE_UNIT_BYTES);
        return hand_out(job, end, is_data ? UNIT_DATA : UNIT_HOLE, ret_unit);
    }
}

/* ---- threads */

static void job_fail(struct job *job, const struct err *err)
{
    pthread_mutex_lock(&job->lock);
    err_keep_first(&job->first, err);
    job->is_stopped = true;
    pthread_mutex_unlock(&job->lock);
    if (job->target && job->target->ops->fail)
        job->target->ops->fail(job->target);
}

static int job_next(struct job *job, const struct unit *done, struct unit *ret_unit,
                    struct err *err)
{
    pthread_mutex_lock(&job->lock);
    job->done_bytes[done->kind] += done->range.len;
    int got = job->is_stopped ? 0 : job->ops->next(job, ret_unit, err);
    pthread_mutex_unlock(&job->lock);
    return got;
}

static bool run_unit(struct job *job, void *thread, uint8_t *buf, const struct unit *unit,
                     struct err *err)
{
    switch (unit->kind) {
    case UNIT_DATA:
        if (unit->part)
            return job->ops->part(job, unit->part, err);
        return job->ops->data(job, thread, buf, &unit->range, err);
    case UNIT_KEEP:
        return job->ops->keep(job, thread, buf, &unit->range, err);
    case UNIT_RESERVE:
        return job->ops->reserve(job, &unit->range, err);
    case UNIT_HOLE:
    case UNIT_KINDS:
        break;
    }
    return job->ops->hole(job, &unit->range, err);
}

static bool run_units(struct job *job, struct err *err)
{
    void *thread = NULL;
    if (!job->ops->begin(job, &thread, err))
        return false;
    SCOPED_FREE uint8_t *buf = xaligned(ALIGN_BYTES, DATA_UNIT_BYTES);
    struct unit unit = {0}, done = {0};
    int got;
    bool ok = true;
    while (ok && (got = job_next(job, &done, &unit, err)) != 0) {
        ok = got > 0 && (run_unit(job, thread, buf, &unit, err) ||
                         err_wrap(err, "at offset %" PRIu64, unit.range.offset));
        store_part_free(unit.part);
        unit.part = NULL;
        done = unit;
    }
    job->ops->end(thread);
    return ok;
}

bool job_is_stopped(struct job *job)
{
    pthread_mutex_lock(&job->lock);
    bool is = job->is_stopped;
    pthread_mutex_unlock(&job->lock);
    return is;
}

static void *thread_main(void *arg)
{
    struct job *job = arg;
    struct err err = ERR_INIT;
    if (!run_units(job, &err))
        job_fail(job, &err);
    pthread_mutex_lock(&job->lock);
    job->n_running--;
    pthread_cond_signal(&job->ended);
    pthread_mutex_unlock(&job->lock);
    return NULL;
}

static unsigned thread_count(const struct job *job, unsigned most)
{
    unsigned n = job->opts->threads;
    if (n == 0) {
        long cores = sysconf(_SC_NPROCESSORS_ONLN);
        n = cores < 1 ? 2 : (unsigned)cores + 1;
        n = n < THREADS_DEFAULT_MAX ? n : THREADS_DEFAULT_MAX;
    }
    n = n < THREADS_MAX ? n : THREADS_MAX;
    if (job->walk && job->target->waits)
        n *= 2;
    if (most > 0 && n > most)
        n = most;
    if (n > job->total_bytes / THREAD_MIN_BYTES + 1)
        n = (unsigned)(job->total_bytes / THREAD_MIN_BYTES + 1);
    return n < THREADS_MAX ? n : THREADS_MAX;
}

/* ---- the watch */

static void watch_once(struct job *job, bool is_last)
{
    pthread_mutex_lock(&job->lock);
    uint64_t done =
        job->done_bytes[UNIT_DATA] + job->done_bytes[UNIT_HOLE] + job->done_bytes[UNIT_KEEP];
    bool is_stopped = job->is_stopped;
    pthread_mutex_unlock(&job->lock);
    const struct copy_opts *opts = job->opts;
    if (opts->progress && (!is_last || !is_stopped))
        opts->progress(opts->context, done < job->total_bytes ? done : job->total_bytes,
                       job->total_bytes);
    if (!is_last && !is_stopped && opts->cancelled && opts->cancelled(opts->context)) {
        struct err err = ERR_INIT;
        err_set(&err, ERR_CANCELLED, 0, "the copy was cancelled after %" PRIu64 " bytes", done);
        job_fail(job, &err);
    }
}

/* Until all threads have ended. */
static void watch(struct job *job)
{
    pthread_mutex_lock(&job->lock);
    while (job->n_running > 0) {
        struct timespec until = cond_after_ms(WATCH_MS);
        bool is_due = false;
        while (job->n_running > 0 && !is_due)
            is_due = !cond_wait_until(&job->ended, &job->lock, &until);
        pthread_mutex_unlock(&job->lock);
        watch_once(job, false);
        pthread_mutex_lock(&job->lock);
    }
    pthread_mutex_unlock(&job->lock);
}

bool job_run(struct job *job, unsigned threads_max, struct err *err)
{
    static const struct copy_opts defaults;
    job->opts = job->opts ? job->opts : &defaults;
    pthread_mutex_init(&job->lock, NULL);
    cond_init(&job->ended);
    pthread_t threads[THREADS_MAX];
    unsigned want = thread_count(job, threads_max), n = 0;
    job->n_running = want;
    while (n < want) {
        int errnum = pthread_create(&threads[n], NULL, thread_main, job);
        if (errnum != 0) { /* fewer will do, but for none */
            if (n == 0)
                err_set_errno(&job->first, errnum, "start a thread");
            pthread_mutex_lock(&job->lock);
            job->n_running -= want - n;
            pthread_mutex_unlock(&job->lock);
            break;
        }
        n++;
    }
    watch(job);
    for (unsigned i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    watch_once(job, true);
    pthread_cond_destroy(&job->ended);
    pthread_mutex_destroy(&job->lock);
    extents_done(&job->map);
    if (!err_is_set(&job->first))
        return true;
    *err = job->first;
    return false;
}
