/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether images of a guest's disks are one instant of its life: there is a number S such that
 * every block holds what the last write <= S put there, else its initial content; nothing else, on
 * all given disks at once (pattern.h).
 *
 * Zero writes carry no number and writes to disks that are not given leave no trace, so several S
 * can fit: all from s_min to s_max were tried, and a bracket is met when one in it fits.
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
    uint64_t s, s_min, s_max; /* s fits and lies in the bracket; valid when good */
    uint64_t highest;         /* the highest number found, good or not */
    uint64_t wrong_blocks;
    char why[512]; /* when not good: the first few faults */
};

/* False when the judging itself failed (an unreadable image); `ret` says what was found otherwise.
 */
bool judge_images(const struct judge_opts *opts, struct judge_verdict *ret, struct err *err);
