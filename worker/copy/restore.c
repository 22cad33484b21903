/* SPDX-License-Identifier: Apache-2.0 */
/* A disk of a restore point into a target. */
#include <inttypes.h>
#include <string.h>

#include "proto/base/clock.h"
#include "worker/copy/job.h"

enum { RESERVE_UNIT_BYTES = 64 << 20 };

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

static bool restore_reserve(struct job *job, const struct extent *unit, struct err *err)
{
    return job->target->ops->reserve(job->target, unit->offset, unit->len, err);
}

/* First the holes and the room for the data, as the disk has them. */
static int prepare_next(struct job *job, struct unit *ret_unit, struct err *err)
{
    bool zeroes = !job->target->is_zero, reserves = job->target->ops->reserve != NULL;
    int got = zeroes || reserves ? 1 : 0;
    while (got > 0 && (got = plan_next(job, ret_unit, err)) > 0) {
        if (ret_unit->kind == UNIT_HOLE && zeroes)
            return 1;
        if (ret_unit->kind == UNIT_DATA && reserves) {
            ret_unit->kind = UNIT_RESERVE;
            return 1;
        }
    }
    return got;
}

/* Then the data, as the repository has it. */
static int restore_next(struct job *job, struct unit *ret_unit, struct err *err)
{
    int got = prepare_next(job, ret_unit, err);
    if (got != 0)
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
    .unit_bytes = RESERVE_UNIT_BYTES,
    .next = restore_next,
    .extents = restore_extents,
    .begin = restore_begin,
    .part = restore_part,
    .hole = restore_hole,
    .reserve = restore_reserve,
    .end = restore_end,
};

static const struct job_ops in_order_ops = {
    .unit_bytes = DATA_UNIT_BYTES,
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
    uint64_t data = store_reader_data(reader);
    if (target->ops->expect)
        target->ops->expect(target, data, store_reader_pieces(reader));
    bool by_frames = target->takes_pieces && !target->is_ordered;
    SCOPED(store_walk) struct store_walk *walk = by_frames ? store_walk_new(reader) : NULL;
    data = data < target->size_bytes ? data : target->size_bytes;
    struct job job = {
        .ops = by_frames ? &by_frame_ops : &in_order_ops,
        .opts = opts,
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
