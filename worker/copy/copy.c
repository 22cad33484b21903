/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pipeline. A plan walks the extents of the disk and hands out units: up to 4 MiB of data that
 * do not cross a multiple of 4 MiB (of a backup: 16 MiB, while there is enough for all threads), or
 * a hole. Each of a few threads takes a unit, does all of it (read, hash, compress, write) with a
 * buffer of its own, and takes the next. While one thread waits for its read, another has the
 * processor; nothing but the plan and the counters is shared. The calling thread watches: progress
 * and cancellation.
 */
#include "worker/copy/copy.h"

#include <assert.h>
#include <inttypes.h>
#include <pthread.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "proto/base/clock.h"

enum {
    ALIGN_BYTES = STORE_BLOCK_BYTES,
    DATA_UNIT_BYTES = 4 << 20,
    THREADS_MAX = 64,
    THREADS_DEFAULT_MAX = 8,
    WATCH_MS = 200,
};
#define HOLE_UNIT_BYTES (UINT64_C(64) << 20)
#define KEEP_UNIT_BYTES (UINT64_C(256) << 20)
/* Chunks do not cross units of a backup: in long ones, more of what has moved is found again. The
 * last part of a disk goes in short ones, so that the threads end together. */
#define LONG_UNIT_BYTES  (UINT64_C(16) << 20)
#define LAST_PART_BYTES  (UINT64_C(256) << 20)
#define PLAN_BYTES       (UINT64_C(256) << 20) /* of the map asked for at once */
#define THREAD_MIN_BYTES (UINT64_C(16) << 20)  /* a disk this small is not worth another thread */

void source_close(struct source *source)
{
    if (source)
        source->ops->close(source);
}

void target_close(struct target *target)
{
    if (target)
        target->ops->close(target);
}

struct job;
struct unit;

/* A direction. Each function works for one thread; `thread` is what begin returned. */
struct job_ops {
    bool has_long_units; /* `data` copes with LONG_UNIT_BYTES */
    /* The next unit: 1, 0 = all has been handed out, -1 = error. With the lock held. */
    int (*next)(struct job *job, struct unit *ret_unit, struct err *err);
    bool (*extents)(struct job *job, uint64_t offset, uint64_t len, struct extents *out,
                    struct err *err);
    bool (*begin)(struct job *job, void **ret_thread, struct err *err);
    bool (*data)(struct job *job, void *thread, uint8_t *buf, const struct extent *unit,
                 struct err *err);
    bool (*part)(struct job *job, const struct store_part *part, struct err *err);
    bool (*hole)(struct job *job, const struct extent *unit, struct err *err);
    /* What has not changed; NULL where there is no such thing. */
    bool (*keep)(struct job *job, void *thread, uint8_t *buf, const struct extent *unit,
                 struct err *err);
    void (*end)(void *thread);
};

/* What one thread does at once. */
enum unit_kind { UNIT_DATA, UNIT_HOLE, UNIT_KEEP, UNIT_KINDS };
struct unit {
    struct extent range; /* of a part: where it begins, and how much it holds */
    enum unit_kind kind;
    struct store_part *part; /* UNIT_DATA of a restore that does not need the disk's order */
};

struct job {
    const struct job_ops *ops;
    const struct copy_opts *opts;
    uint64_t size_bytes;  /* of what is to be covered */
    uint64_t total_bytes; /* of it, without what opts->only leaves out */
    struct source *source;
    struct store_session *session;
    struct store_disk *disk;
    struct store_reader *reader;
    struct target *target;

    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t ended; /* a thread has ended */
    unsigned n_running;
    bool is_stopped;
    struct err first;
    uint64_t done_bytes[UNIT_KINDS];
    /* The plan: [0, cursor) has been handed out; `map` covers [.., planned). */
    uint64_t cursor, planned;
    struct extents map;
    size_t at;         /* in map */
    size_t at_changed; /* in opts->changed */
    size_t at_only;    /* in opts->only */
    struct store_walk *walk;
};

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
    bool is_long = job->ops->has_long_units && job->size_bytes - job->cursor > LAST_PART_BYTES;
    return is_long ? LONG_UNIT_BYTES : DATA_UNIT_BYTES;
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
static int plan_next(struct job *job, struct unit *ret_unit, struct err *err)
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
    uint64_t done = 0;
    for (size_t i = 0; i < UNIT_KINDS; i++)
        done += job->done_bytes[i];
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
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += WATCH_MS * 1000000L;
        if (until.tv_nsec >= 1000000000L) {
            until.tv_nsec -= 1000000000L;
            until.tv_sec++;
        }
        bool is_due = false;
        while (job->n_running > 0 && !is_due)
            is_due = pthread_cond_timedwait(&job->ended, &job->lock, &until) != 0;
        pthread_mutex_unlock(&job->lock);
        watch_once(job, false);
        pthread_mutex_lock(&job->lock);
    }
    pthread_mutex_unlock(&job->lock);
}

static bool job_run(struct job *job, unsigned threads_max, struct err *err)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&job->lock, NULL);
    pthread_cond_init(&job->ended, &attr);
    pthread_condattr_destroy(&attr);
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

/* ---- backup */

static bool backup_extents(struct job *job, uint64_t offset, uint64_t len, struct extents *out,
                           struct err *err)
{
    return job->source->ops->extents(job->source, offset, len, out, err);
}

static bool backup_begin(struct job *job, void **ret_thread, struct err *err)
{
    *ret_thread = store_stream_begin(job->session, err);
    return *ret_thread != NULL;
}

static bool is_stopped(struct job *job)
{
    pthread_mutex_lock(&job->lock);
    bool is = job->is_stopped;
    pthread_mutex_unlock(&job->lock);
    return is;
}

static bool backup_data(struct job *job, void *thread, uint8_t *buf, const struct extent *unit,
                        struct err *err)
{
    size_t len = (size_t)unit->len, piece = job->source->piece_bytes;
    if (piece == 0 || piece > DATA_UNIT_BYTES)
        piece = DATA_UNIT_BYTES;
    for (size_t at = 0; at < len;) {
        size_t part = piece < len - at ? piece : len - at;
        if (is_stopped(job))
            return err_set(err, ERR_CANCELLED, 0, "the copy has stopped");
        if (!job->source->ops->pread(job->source, buf, part, unit->offset + at, err) ||
            !store_stream_write(thread, job->disk, unit->offset + at, buf, part, err))
            return false;
        at += part;
    }
    return true;
}

static bool backup_hole(struct job *job, const struct extent *unit, struct err *err)
{
    (void)job;
    (void)unit;
    (void)err;
    return true; /* what is not written reads as zeroes */
}

/* What the parent has lost meanwhile is read after all. */
static bool backup_keep(struct job *job, void *thread, uint8_t *buf, const struct extent *unit,
                        struct err *err)
{
    SCOPED_EXTENTS struct extents lost = EXTENTS_INIT;
    if (!store_stream_keep(thread, job->disk, unit->offset, unit->len, &lost, err))
        return false;
    for (size_t i = 0; i < lost.count; i++)
        if (lost.items[i].is_data && !backup_data(job, thread, buf, &lost.items[i], err))
            return false;
    return true;
}

static void backup_end(void *thread)
{
    store_stream_end(thread);
}

static const struct job_ops backup_ops = {
    .has_long_units = true,
    .next = plan_next,
    .extents = backup_extents,
    .begin = backup_begin,
    .data = backup_data,
    .hole = backup_hole,
    .keep = backup_keep,
    .end = backup_end,
};

static const struct copy_opts default_opts;

static uint64_t data_bytes(const struct extents *list)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < list->count; i++)
        sum += list->items[i].is_data ? list->items[i].len : 0;
    return sum;
}

bool copy_backup(struct source *source, struct store_session *session, struct store_disk *disk,
                 const struct copy_opts *opts, struct copy_stats *ret_stats, struct err *err)
{
    struct job job = {
        .ops = &backup_ops,
        .opts = opts ? opts : &default_opts,
        .size_bytes = source->size_bytes,
        .total_bytes = opts && opts->only ? data_bytes(opts->only) : source->size_bytes,
        .source = source,
        .session = session,
        .disk = disk,
    };
    int64_t started_ms = clock_mono_ms(clock_system());
    if (!job_run(&job, source->threads_max, err))
        return false;
    if (ret_stats) {
        *ret_stats = (struct copy_stats){
            .size_bytes = job.total_bytes,
            .data_bytes = job.done_bytes[UNIT_DATA],
            .hole_bytes = job.done_bytes[UNIT_HOLE],
            .kept_bytes = job.done_bytes[UNIT_KEEP],
            .elapsed_ms = clock_mono_ms(clock_system()) - started_ms,
        };
        store_disk_stats(disk, &ret_stats->store);
    }
    return true;
}

/* ---- restore */

static bool restore_extents(struct job *job, uint64_t offset, uint64_t len, struct extents *out,
                            struct err *err)
{
    uint64_t size = store_reader_size(job->reader), end = offset + len;
    uint64_t disk_end = size < end ? size : end;
    if (offset < disk_end && !store_disk_extents(job->reader, offset, disk_end - offset, out, err))
        return false;
    uint64_t rest = offset > disk_end ? offset : disk_end;
    extents_add(out, rest, end - rest, false);
    return true;
}

static bool restore_begin(struct job *job, void **ret_thread, struct err *err)
{
    (void)job;
    (void)err;
    *ret_thread = NULL;
    return true;
}

static bool restore_data(struct job *job, void *thread, uint8_t *buf, const struct extent *unit,
                         struct err *err)
{
    (void)thread;
    /* The last block of an odd-sized disk is filled up with zeroes where the target has room. */
    uint64_t have = store_reader_size(job->reader) - unit->offset;
    have = have < unit->len ? have : unit->len;
    memset(buf + have, 0, (size_t)(unit->len - have));
    return store_disk_read(job->reader, buf, (size_t)have, unit->offset, err) &&
           job->target->ops->pwrite(job->target, buf, (size_t)unit->len, unit->offset, err);
}

static bool restore_hole(struct job *job, const struct extent *unit, struct err *err)
{
    return job->target->is_zero ||
           job->target->ops->zero(job->target, unit->offset, unit->len, err);
}

/* Holes first, as the disk has them, then the data, as the repository has it. */
static int restore_next(struct job *job, struct unit *ret_unit, struct err *err)
{
    int got = job->target->is_zero ? 0 : 1;
    while (got > 0) {
        got = plan_next(job, ret_unit, err);
        if (got > 0 && ret_unit->kind == UNIT_HOLE)
            return 1;
    }
    if (got < 0)
        return got;
    struct store_part *part = store_walk_next(job->walk, err);
    if (!part)
        return err_is_set(err) ? -1 : 0;
    uint64_t offset = store_part_offset(part), len = store_part_bytes(part);
    *ret_unit = (struct unit){
        .range = {.offset = offset, .len = len, .is_data = true}, .kind = UNIT_DATA, .part = part};
    return 1;
}

static bool restore_piece(void *context, const void *data, size_t len, uint64_t offset,
                          struct err *err)
{
    struct job *job = context;
    uint64_t room = job->target->size_bytes - offset; /* the last block of an odd-sized disk */
    return job->target->ops->pwrite(job->target, data, len < room ? len : (size_t)room, offset,
                                    err);
}

static bool restore_part(struct job *job, const struct store_part *part, struct err *err)
{
    return store_part_read(part, restore_piece, job, err);
}

static void restore_end(void *thread)
{
    (void)thread;
}

static const struct job_ops by_frame_ops = {
    .next = restore_next,
    .extents = restore_extents,
    .begin = restore_begin,
    .part = restore_part,
    .hole = restore_hole,
    .end = restore_end,
};

static const struct job_ops in_order_ops = {
    .next = plan_next,
    .extents = restore_extents,
    .begin = restore_begin,
    .data = restore_data,
    .hole = restore_hole,
    .end = restore_end,
};

bool copy_restore(struct store_reader *reader, struct target *target, const struct copy_opts *opts,
                  struct copy_stats *ret_stats, struct err *err)
{
    uint64_t size = store_reader_size(reader);
    if (target->size_bytes < size)
        return err_set(err, ERR_BAD_ARGUMENT, 0,
                       "the target has %" PRIu64 " bytes, the disk needs %" PRIu64,
                       target->size_bytes, size);
    bool by_frames = target->takes_pieces && !target->is_ordered;
    SCOPED(store_walk) struct store_walk *walk = by_frames ? store_walk_new(reader) : NULL;
    uint64_t data = store_reader_data(reader);
    data = data < target->size_bytes ? data : target->size_bytes;
    struct job job = {
        .ops = by_frames ? &by_frame_ops : &in_order_ops,
        .opts = opts ? opts : &default_opts,
        .size_bytes = target->size_bytes,
        .total_bytes = target->size_bytes,
        .reader = reader,
        .target = target,
        .walk = walk,
    };
    if (target->is_zero && by_frames) /* nobody passes its holes */
        job.done_bytes[UNIT_HOLE] = target->size_bytes - data;
    int64_t started_ms = clock_mono_ms(clock_system());
    if (!job_run(&job, target->threads_max, err) || !target->ops->flush(target, err))
        return false;
    if (ret_stats)
        *ret_stats = (struct copy_stats){
            .size_bytes = size,
            .data_bytes = target->size_bytes - job.done_bytes[UNIT_HOLE],
            .hole_bytes = job.done_bytes[UNIT_HOLE],
            .elapsed_ms = clock_mono_ms(clock_system()) - started_ms,
        };
    return true;
}
