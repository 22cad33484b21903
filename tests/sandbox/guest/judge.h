/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether images of a guest's disks are one instant of its life: there is a number S such that
 * every block holds what the last write <= S put there, else its initial content; nothing else, on
 * all given disks at once (pattern.h). That is the whole rule, and each S is held against it as it
 * stands: a write is there with all its blocks or not at all, also one of sixteen blocks, and no
 * block is excused.
 *
 * Why a snapshot of a running guest must pass: the guest has one write under way, and QEMU waits
 * for it before the overlay is put in place, disk by disk; what comes later on a disk that has its
 * overlay waits for the others. So the disks show the writes up to one of them, all of it.
 *
 * No S is below the highest number found in a block. It may be above: zeroes carry no number,
 * writes to disks that are not given leave no trace, and a record whose place a later zero write
 * has hit leaves none either. So several S can fit, not always in a row. All are tried, to beyond
 * the bracket or to where more records would have to lie under zeroes than ever do; a bracket is
 * met when one in it fits.
 */
#pragma once

#include "proto/base/err.h"
#include "tests/sandbox/guest/pattern.h"

struct judge_opts {
    const struct pattern_spec *spec;
    /* Raw images, one for each disk of the spec; NULL = that disk is not given. */
    const char *images[PATTERN_DISKS_MAX];
    /* The instant must lie in after..before: the numbers acknowledged before and, plus one, after
     * the image was taken. 0 and UINT64_MAX = no bracket. */
    uint64_t after, before;
};

struct judge_verdict {
    bool good;
    uint64_t s, s_min, s_max; /* s fits and lies in the bracket, s_min and s_max are the first and
                               * the last that fit; valid when good */
    uint64_t highest;         /* the highest number found, good or not */
    /* When not good: */
    uint64_t nearest; /* the S that leaves the fewest blocks wrong, if all were readable */
    uint64_t wrong_blocks;
    char why[1024]; /* the first few faults: what a block holds, and must hold as of `nearest` */
};

/* False when the judging itself failed (an unreadable image); `ret` says what was found otherwise.
 */
bool judge_images(const struct judge_opts *opts, struct judge_verdict *ret, struct err *err);
