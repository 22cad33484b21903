/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a backup and a restore share: a plan that hands out units, and threads that take them
 * (docs/modules/copy.md). Not for other modules.
 */
#pragma once

#include <pthread.h>

#include "worker/copy/copy.h"

enum { DATA_UNIT_BYTES = 4 << 20 /* and the size of a thread's buffer */ };

struct job;
struct unit;

/* A direction. Each function works for one thread; `thread` is what begin returned. */
struct job_ops {
    /* Of a unit of data, at most; the last ones are of DATA_UNIT_BYTES, so that the threads end
     * together. */
    uint64_t unit_bytes;
    /* The next unit: 1, 0 = all has been handed out, -1 = error. With the lock held. */
    int (*next)(struct job *job, struct unit *ret_unit, struct err *err);
    bool (*extents)(struct job *job, uint64_t offset, uint64_t len, struct extents *out,
                    struct err *err);
    bool (*begin)(struct job *job, void **ret_thread, struct err *err);
    bool (*data)(struct job *job, void *thread, uint8_t *buf, const struct extent *unit,
                 struct err *err);
    bool (*part)(struct job *job, const struct store_part *part, struct err *err);
    bool (*hole)(struct job *job, const struct extent *unit, struct err *err);
    bool (*reserve)(struct job *job, const struct extent *unit, struct err *err);
    /* What has not changed; NULL where there is no such thing. */
    bool (*keep)(struct job *job, void *thread, uint8_t *buf, const struct extent *unit,
                 struct err *err);
    void (*end)(void *thread);
};

/* What one thread does at once. */
enum unit_kind {
    UNIT_DATA,
    UNIT_HOLE,
    UNIT_KEEP,
    UNIT_RESERVE, /* will be data later: counts for nothing */
    UNIT_KINDS
};
struct unit {
    struct extent range; /* of a part: where it begins, and how much it holds */
    enum unit_kind kind;
    struct store_part *part; /* UNIT_DATA of a restore that does not need the disk's order */
};

struct job {
    const struct job_ops *ops;
    const struct copy_opts *opts; /* NULL = defaults, until job_run */
    uint64_t size_bytes;          /* of what is to be covered */
    uint64_t total_bytes;         /* of it, without what opts->only leaves out */
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

/* Until all units are done, or the first error. `threads_max` is the source's or target's. */
bool job_run(struct job *job, unsigned threads_max, struct err *err);

/* The rest is for the functions of a job_ops. */

/* The next unit in the order of the disk, as of job_ops.next. */
int plan_next(struct job *job, struct unit *ret_unit, struct err *err);
/* Whether a unit that takes long should give up. */
bool job_is_stopped(struct job *job);
