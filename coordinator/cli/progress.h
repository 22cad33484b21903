/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a job stands, and how that looks on a terminal: one line per running VM (name, step, bar,
 * percent, rate, time left, worker) and a summary line. A model that replies are fed into, pure
 * functions that render it, and a small painter that redraws the lines in place.
 *
 *     web1         copy      ████████░░░░░░░░  52%   118 MiB/s  3m12s left  px2
 *     db1          snapshot                                                 px1
 *     and 14 more running
 *     12 of 60 done, 1 failed   540 MiB/s   12m03s
 *
 * Threads: one. Times are monotonic milliseconds.
 */
#pragma once

#include "proto/base/buf.h"
#include "proto/wire/message.h"

struct progress;

struct progress *progress_new(int64_t now_ms);
void progress_free(struct progress *p);
DEFINE_SCOPED(progress, progress_free);

/* Returns true when the task's state, step, worker or attempt changed (a line in a log). Listing
 * tasks are passed over. */
bool progress_update(struct progress *p, const struct wire_progress *m, int64_t now_ms);
void progress_end(struct progress *p, const struct wire_outcome *m);

struct progress_view {
    int width;    /* columns of the terminal */
    int max_rows; /* lines at most, the summary included; at least 1 */
    bool utf8, color;
};
/* The lines, each ended by "\n", none wider than `width` - 1 columns. Those that copy come first,
 * fastest first; what does not fit is summed up in one line. */
void progress_render(const struct progress *p, const struct progress_view *view, int64_t now_ms,
                     struct buf *out);
/* "web1: copy on px2" or "web1: waiting": one line for a log, after progress_update(). */
void progress_render_change(const struct wire_progress *m, bool utf8, struct buf *out);

/* --- The painter ------------------------------------------------------------------------------ */
/* Lines that stand at the bottom of the terminal and are replaced in place. */
struct live {
    int rows; /* standing now */
};
/* Escape sequences and text that replace what stands by `lines` ("" removes it). */
void live_paint(struct live *l, const char *lines, struct buf *out);
