/* SPDX-License-Identifier: Apache-2.0 */
/* A source into a session of the repository. */
#include <inttypes.h>
#include <string.h>

#include "proto/base/clock.h"
#include "worker/copy/job.h"

/* Chunks do not cross units: in long ones, more of what has moved is found again. */
enum { UNIT_BYTES = 16 << 20 };

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

static bool backup_data(struct job *job, void *thread, uint8_t *buf, const struct extent *unit,
                        struct err *err)
{
    size_t len = (size_t)unit->len, piece = job->source->piece_bytes;
    if (piece == 0 || piece > DATA_UNIT_BYTES)
        piece = DATA_UNIT_BYTES;
    for (size_t at = 0; at < len;) {
        size_t part = piece < len - at ? piece : len - at;
        if (job_is_stopped(job))
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
    .unit_bytes = UNIT_BYTES,
    .next = plan_next,
    .extents = backup_extents,
    .begin = backup_begin,
    .data = backup_data,
    .hole = backup_hole,
    .keep = backup_keep,
    .end = backup_end,
};

bool copy_backup(struct source *source, struct store_session *session, struct store_disk *disk,
                 const struct copy_opts *opts, struct copy_stats *ret_stats, struct err *err)
{
    struct job job = {
        .ops = &backup_ops,
        .opts = opts,
        .size_bytes = source->size_bytes,
        .total_bytes = opts && opts->only ? extents_data_bytes(opts->only) : source->size_bytes,
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
