/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keeping a repository: deleting and protecting restore points, collecting garbage. Everything here
 * may run at any time, on any number of hosts at once, beside writers and each other
 * (docs/store-format.md, "Garbage"); nothing here needs a key.
 *
 * Threads: any, at once. Errors: as of store.h.
 */
#pragma once

#include "worker/store/gc/retention.h"
#include "worker/store/store.h"

/* ---- points */

/*
 * Delete a restore point: at once for everybody who looks; its space is freed by the next
 * store_collect(). Errors: not-found; refused when it is protected, or when it is the last good
 * point of its VM and `last_too` is false. Works on a full file system.
 */
bool store_point_delete(struct store *store, const char *id_or_prefix, bool last_too,
                        struct err *err);

/* Keep a point from being deleted, by whatever rule, until it is unprotected. Idempotent. When this
 * returns true, no deletion succeeds any more, whoever began it and when; one that was faster is
 * not-found. */
bool store_point_protect(struct store *store, const char *id_or_prefix, struct err *err);
bool store_point_unprotect(struct store *store, const char *id_or_prefix, struct err *err);

/* ---- part points (store.h): what the functions above do not know */

/* Delete a part point by its whole id. One that is not there (any more) is fine; one whose record
 * is damaged is taken for what the caller says. Errors: refused when it is an ordinary point. Needs
 * no key. */
bool store_part_point_delete(struct store *store, const char *id, struct err *err);
/* All committed ones of a task; goes on after errors, and returns the first. */
bool store_part_points_delete(struct store *store, const char *part_of, size_t *ret_deleted,
                              struct err *err);

/* ---- retention */

struct store_prune_plan {
    struct store_point_list list;   /* the selected points, oldest first */
    struct retention_point *points; /* the same; kept == 0: it will be deleted */
    size_t to_delete;
};
/* What a policy would do to the points of some VMs (ids or names; none = all). A point whose VM is
 * not known any more is kept. The caller frees with store_prune_plan_done(). */
bool store_prune_plan(struct store *store, const char *const *vms, size_t n_vms,
                      const struct retention_policy *policy, struct store_prune_plan *ret_plan,
                      struct err *err);
/* Delete what the plan does not keep; points protected since then stay. Their space is freed by the
 * next store_collect(). */
bool store_prune_apply(struct store *store, const struct store_prune_plan *plan,
                       size_t *ret_deleted, struct err *err);
void store_prune_plan_done(struct store_prune_plan *plan);

/* ---- sessions */

struct store_session_list {
    char **ids; /* sessions that have neither committed nor been revoked */
    size_t count;
};
/* The caller frees with store_session_list_done(). */
bool store_sessions_open(struct store *store, struct store_session_list *ret_list, struct err *err);
void store_session_list_done(struct store_session_list *list);

/* ---- garbage */

struct store_collect_opts {
    /* Packs of which less than this share is referred to are rewritten without the rest: percent of
     * their frames' bytes. 0 = 50; negative = none are. */
    int compact_below_percent;
    bool dry_run; /* only say what would be done */
    void *context;
    /* Whether a session that has not ended is dead: it is revoked then, which costs at most its
     * backup. NULL = none is. */
    bool (*is_dead)(void *context, const char *session_id);
    bool (*cancelled)(void *context);
};

struct store_collect_result {
    uint64_t points;       /* that are there */
    uint64_t packs_before; /* files */
    uint64_t bytes_before; /* in them */
    uint64_t
        packs_removed;   /* of committed and bequeathed sessions: nobody refers to them any more */
    uint64_t packs_dead; /* of revoked sessions */
    uint64_t packs_compacted;
    uint64_t bytes_freed;    /* by all three */
    uint64_t packs_held;     /* would have gone, but for an open session that pins or writes them */
    uint64_t sessions_swept; /* their leftovers but packs */
    uint64_t temps_swept;
    uint64_t sessions_open;
    char blocked[ERR_MESSAGE_BYTES]; /* why only the packs of dead sessions could go; "" = not so */
};

/* Free what nobody refers to. True also when that was blocked by a damaged point
 * (ret_result->blocked); false when the file system fails, or cancelled. `opts` may be NULL. */
bool store_collect(struct store *store, const struct store_collect_opts *opts,
                   struct store_collect_result *ret_result, struct err *err);

/* ---- scrubbing */

struct store_scrub_opts {
    unsigned share; /* read one part in this many of all packs: N runs read everything; 0 = all */
    uint64_t bytes_per_s; /* at most; 0 = as fast as it goes */
    unsigned threads;     /* that read; as in store_verify_opts */
    bool no_healing;
    void *context; /* of the callbacks, each of which may be NULL */
    void (*progress)(void *context, uint64_t done_packs, uint64_t total_packs);
    bool (*cancelled)(void *context);
    /* Each point that is damaged now. */
    void (*damaged)(void *context, const char *point_id, const char *text);
};

struct store_scrub_result {
    uint64_t packs, frames, bytes_read;
    uint64_t frames_damaged; /* found, or known from before */
    uint64_t frames_healed;  /* of them */
    uint64_t points_damaged;
    uint64_t points_healed; /* were known to be damaged, and are good again */
};

/* Read packs and check every byte as far as the keys at hand allow; heal what can be healed; mark
 * what cannot, so that the next backup stores it anew, and write down which points it hurts (they
 * are listed as damaged from then on). Where the last run stopped is kept in the repository. True
 * also when there is damage. `opts` may be NULL. */
bool store_scrub(struct store *store, const struct store_scrub_opts *opts,
                 struct store_scrub_result *ret_result, struct err *err);
