/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who copies what, where several workers copy the disks of one VM: whole disks, and ranges of large
 * ones, so that all are busy for about as long. Pure: nothing is asked, nothing is known but what
 * stands here.
 *
 *     struct share_plan plan;
 *     share_out(disks, count, &opts, &plan);
 *     for (size_t i = 1; i < plan.count; i++) ... plan.v[i].pieces ...     (v[0] is ours)
 *     share_plan_done(&plan);
 *
 * Threads: reentrant.
 */
#pragma once

#include "worker/store/extent.h"

enum {
    SHARE_WORKERS_MAX = 16,
    SHARE_PIECES_MAX = 256, /* of one worker but the first */
    SHARE_OWN_MAX = 4096,   /* of the first: but for this many disks and holes, not limited */
};

struct share_disk {
    uint64_t size_bytes;
    /* Which ranges hold data, from 0 on: the rest costs nothing. NULL or empty = all does. */
    const struct extents *data;
    bool is_whole; /* it goes to one worker: its path lets only one at it at a time */
};

struct share_opts {
    unsigned workers;     /* ourselves included; 0 = 1 */
    uint64_t align_bytes; /* ranges begin at multiples of it; a multiple of the store's blocks */
    uint64_t min_bytes;   /* of data, for another worker to be worth it; 0 = 1 */
    uint64_t hole_bytes;  /* holes at least so large are in no piece; 0 = all are */
};

struct share_piece {
    size_t disk;
    uint64_t offset, len_bytes;
    uint64_t cost_bytes; /* of data in it */
};

/* One worker's: by disk and offset, neighbours joined. */
struct share {
    struct share_piece *pieces;
    size_t count;
    uint64_t cost_bytes;
};

struct share_plan {
    struct share v[SHARE_WORKERS_MAX]; /* the first is the largest, and ours */
    size_t count;                      /* 1 = nobody else */
};

/* Each byte of data of each disk is in exactly one piece, and no byte in two. Pieces begin at
 * multiples of the alignment, or behind a hole that was left out, in whole blocks. Holes are left
 * out, the largest first, while there is room for the pieces. Every share but the first has at
 * least min_bytes of data and at most SHARE_PIECES_MAX pieces. The caller calls share_plan_done().
 */
void share_out(const struct share_disk *disks, size_t count, const struct share_opts *opts,
               struct share_plan *ret);
void share_plan_done(struct share_plan *plan);

/* By disk and offset. */
void share_sort(struct share_piece *pieces, size_t count);
