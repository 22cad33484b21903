/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A step of a task, and the run it works in.
 *
 * A task kind is a table of steps (worker/task); a step is one file in this folder. runner/steps.c
 * walks the table: probe, run, and on failure undo in reverse order. A step finds all it needs in
 * struct task_run: what is asked (the offer), what may be used (engine, store, settings), what is
 * held (handles), and where to report (events, warnings, stats). It knows nothing of the broker, of
 * leases or of threads: those are behind run_ops, which tests replace.
 *
 * Rules for a step
 *  - Set a handle right after the call that made a thing, before waiting for it (run_handle_set).
 *  - Drop it only when the thing is proved gone (run_handle_drop).
 *  - Mutations go through the engine session, which asks run_before_mutation() first; the store's
 *    commit asks it explicitly.
 *  - Every wait has a limit and looks at run_check().
 *  - undo() must cope with a run() that stopped anywhere, and with being called twice.
 *
 * Threads: a task_run belongs to its task thread. Copy threads may call run_is_cancelled() and
 * run_copying() only.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/base/clock.h"
#include "proto/base/err.h"
#include "proto/wire/message.h"
#include "worker/step/handles.h"

struct engine;
struct engine_session;
struct rate_limits;
struct store;
struct task_run;

/* What the worker's configuration says about doing tasks. Strings are borrowed for the run. */
struct step_settings {
    const char *proxy_vm;    /* name or id of the VM this worker runs in; NULL for --once tasks that
                                need none */
    const char *zone;        /* as offers call it */
    const char *proxy_tag;   /* of VMs that a sweep (all, tag, search) leaves out; NULL = none */
    const char *device_dir;  /* where attached disks appear: /dev/disk/by-id */
    int64_t device_wait_s;   /* for an attached disk to appear, and to vanish */
    int64_t quiesce_limit_s; /* a guest is thawed after so long, whatever happens */
    uint64_t reserve_store_bytes;  /* free space that must remain in the repository */
    uint64_t reserve_domain_bytes; /* and in a storage domain that a snapshot grows in */
    int64_t space_watch_s;         /* how often the latter is looked at during a copy */
    int disks_at_once;             /* of one VM, attached and copied in parallel */
    int copy_threads;              /* compressing threads of one disk's copy */
    uint64_t map_min_bytes;        /* a disk at least so large is mapped before it is attached */
    uint64_t part_min_bytes;       /* of data, for another worker to be given a part of a VM */
    uint64_t part_align_bytes;     /* at multiples of it a disk is cut for that */
    bool compare_checksums;        /* of what came, or went, by image transfer */
    int64_t snapshot_wait_s, merge_wait_s, vm_wait_s;
    struct rate_limits *limits; /* of bandwidth, shared by all runs; NULL = none */
    int64_t export_wait_s;      /* for a clone to be made, and for it to be written out */
};

enum run_lease { RUN_LEASE_VALID, RUN_LEASE_PENDING, RUN_LEASE_LOST };

/* Behind the run: the runner, the --once mode, or a test. */
struct run_ops {
    /* May a mutation happen now? Waits a moment at most for a valid lease and for the confirmation
     * of the handles that were published ahead; PENDING = ask again, LOST = lease-lost in err. Task
     * thread. */
    enum run_lease (*lease_check)(void *ctx, struct err *err);
    /* Should this run stop? True with `cancelled` (somebody asked) or `lease-lost` in err. Any
     * thread. */
    bool (*stopped)(void *ctx, struct err *err);
    /* Publish an event. `ahead`: lease_check is pending until it is confirmed. The message is
     * encoded before the call returns; false when it breaks a limit of the codec. Any thread. */
    bool (*emit)(void *ctx, enum wire_type type, const void *message, bool ahead);
    /* When the run stops as cancelled: true when that is because the worker leaves, so that the
     * task is given back (`released`) and not ended. NULL = never. Any thread. */
    bool (*is_leaving)(void *ctx);
    /* The coordinator's newest answer about this task's parts (WIRE_PARTED), once: moved to `ret`,
     * which the caller wire_free()s. False: none since the last call. NULL = there is nobody to
     * share with (--once), and the task does all of it itself. Task thread. */
    bool (*take_parted)(void *ctx, struct wire_message *ret);
};

/* Which rules hold now. */
enum run_phase {
    RUN_FORWARD, /* cancel and deadline stop it */
    RUN_TIDY,    /* the result stands already: steps that only clean up, not to be stopped */
    RUN_UNDO,    /* taking back: not to be stopped either */
};

struct task_run {
    /* Set by whoever starts the run, and constant during it. */
    const struct wire_offer *offer;
    const char *worker;
    int64_t fence;
    int64_t deadline_mono_ms; /* 0 = none */
    const struct step_settings *settings;
    const struct clock *clock;
    struct engine *engine;          /* shared; NULL when the kind needs none */
    struct engine_session *session; /* of this run */
    struct store *store;            /* shared */
    const struct run_ops *ops;
    void *ops_ctx;

    /* The kind's own state (struct backup, struct restore): what steps tell each other. */
    void *state;

    /* The outcome so far. */
    enum run_phase phase;
    const char *step; /* the one at work; NULL between */
    int64_t seq;      /* of the last step event */
    struct handles handles;
    struct wire_leftovers left;    /* what a clean-up could not remove */
    struct wire_warning *warnings; /* at most WIRE_WARNINGS_MAX are kept */
    size_t warnings_count, warnings_room, warnings_dropped;
    struct wire_stats stats;
    char *point, *new_vm, *exported;
    int64_t pages;
    bool committed; /* the work is done and stands; what follows is tidying */

    _Atomic int64_t copying_next_ms; /* throttle of run_copying() */
};

enum probe_answer {
    PROBE_TODO,
    PROBE_DONE,
    PROBE_UNWANTED, /* this task does not ask for it: as if it were not in the table */
    PROBE_FAILED
};

enum step_flags {
    /* Only cleans up after the work is done and stands: a failure becomes a warning and the run
     * goes on; cancel and deadline do not stop it. */
    STEP_TIDY = 1,
};

struct step {
    const char *name; /* on the wire; docs/protocol.md lists them */
    unsigned flags;
    size_t stat; /* offsetof(struct wire_stats, x_ms) that takes its duration; 0 = none */
    bool (*run)(struct task_run *run, struct err *err);
    /* Take back what run() did, or began. NULL = nothing to take back. */
    bool (*undo)(struct task_run *run, struct err *err);
    /* Did an earlier attempt do it already? NULL = never. DONE makes run() unnecessary, with all
     * state filled in that later steps need. */
    enum probe_answer (*probe)(struct task_run *run, struct err *err);
};

/* Frees what the run owns (not what it borrows, not `state`). */
void run_done(struct task_run *run);
/* Frees stats.paths, whose words the run owns. */
void run_forget_path_stats(struct task_run *run);

/* False with `cancelled`, `timeout` or `lease-lost` when this run should stop. While tidying or
 * undoing only a lost lease stops it. Any thread. */
bool run_check(struct task_run *run, struct err *err);
bool run_is_cancelled(struct task_run *run);
/* Will another attempt go on, since this worker leaves? */
bool run_is_given_back(struct task_run *run);
/* For every mutating call: the lease is valid and all handles are known to the coordinator. */
bool run_before_mutation(struct task_run *run, struct err *err);
/* Sleep in small pieces; false as run_check(). */
bool run_sleep(struct task_run *run, int64_t ms, struct err *err);

/* One step event with all handles. `error` may be NULL. */
void run_event(struct task_run *run, const char *step, const char *state, const struct err *error,
               int64_t duration_ms, bool ahead);
/* Set and publish at once, ahead of the next mutation. */
void run_handle_set(struct task_run *run, const char *name, const char *value);
void run_handle_drop(struct task_run *run, const char *name);
/* Progress of the copy; sent at most every two seconds. Any thread. */
void run_copying(struct task_run *run, int64_t bytes_done, int64_t bytes_total, int64_t rate_bps);
/* One page of a listing. */
void run_items(struct task_run *run, const struct wire_item_list *items);

/* A warning for the result, logged too. `code` is a name of err_codes.def or a word of
 * docs/protocol.md; `disk` may be NULL. */
void run_warn(struct task_run *run, const char *code, const char *disk, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* The error as a warning. */
void run_warn_err(struct task_run *run, const char *disk, const struct err *err);

/* "oxbow task=<uuid> fence=<n>": how a snapshot of this run is known in the engine; the caller
 * frees. And the one of a VM that is being restored. */
char *run_marker(const struct task_run *run);
char *run_marker_restoring(const struct task_run *run);
/* And the one of an export's clone, for a run of `task` or the clean-up after it. */
char *run_marker_exporting(const struct task_run *run, const char *task);
/* What these begin with. */
#define MARKER_SNAPSHOT "oxbow task="
#define MARKER_RESTORE  "oxbow restoring task="
#define MARKER_EXPORT   "oxbow exporting task="
/* What the markers of all snapshots of a task begin with, of whatever fence; the caller frees. */
char *marker_of_task(const char *task);
/* Task and fence of a description that is exactly one of our markers. `task` holds ID_BYTES. */
bool marker_parse(const char *description, char *task, int64_t *ret_fence);
/* True when a description is one of our markers; with `task` not NULL, of that task only. */
bool marker_is_ours(const char *description, const char *task);
/* Fence in a marker, or -1. */
int64_t marker_fence(const char *description);
