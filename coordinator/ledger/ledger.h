/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ledger: everything the coordinator must not forget, in one SQLite file. The only module that
 * speaks SQL; callers see structs.
 *
 * - Durable: write-ahead log with synchronous=FULL, because a grant that was sent and then
 * forgotten by a power cut would let a second worker get the same fence number.
 * - Exclusive: LEDGER.lock is held with flock(2) as long as the ledger is open.
 * - Transactional: a message's effects and the messages that answer it (outbox) are committed
 *   together; messages are acknowledged after the commit only.
 *
 * Rows are structs that own their strings: fill one by a _get or _list function, change it with
 * text_set() and plain assignment, write it back whole with a _save function, free it.
 *
 * A fault of the file (full disk, I/O, damage) makes the ledger broken: ledger_is_broken(). The
 * transaction in hand is lost, its messages were not acknowledged, and the program should end.
 *
 * Threads: one at a time. Times: milliseconds, given by the caller.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/base/alloc.h"
#include "proto/base/err.h"

struct ledger;

/* --- The file -------------------------------------------------------------------------------- */
/* Open or create, lock, check, migrate. Errors: conflict (another coordinator holds it),
 * store-corrupt, unsupported-version, no-space, io-error, permission. */
struct ledger *ledger_open(const char *path, struct err *err);
/* Rolls back what is not committed. NULL is fine. */
void ledger_close(struct ledger *l);
DEFINE_SCOPED(ledger, ledger_close);
bool ledger_is_broken(const struct ledger *l);

bool ledger_begin(struct ledger *l, struct err *err);
bool ledger_commit(struct ledger *l, struct err *err);
void ledger_rollback(struct ledger *l);
bool ledger_in_transaction(const struct ledger *l);
/* One message within a transaction: keep its effects, or drop them. */
bool ledger_mark(struct ledger *l, struct err *err);
bool ledger_mark_keep(struct ledger *l, struct err *err);
bool ledger_mark_drop(struct ledger *l, struct err *err);

/* Replace an owned string by a copy of `value` (NULL allowed). */
void text_set(char **field, const char *value);

/* An error value at rest. */
struct ledger_error {
    char *code, *retry, *at, *message;
    int64_t sys;
};

/* --- Requests -------------------------------------------------------------------------------- */
enum request_state {
    REQUEST_RUNNING,
    REQUEST_SUCCEEDED,
    REQUEST_PARTLY,
    REQUEST_FAILED,
    REQUEST_CANCELLED,
};
const char *request_state_name(enum request_state state);

struct request {
    int64_t n;
    char *id, *kind;
    enum request_state state;
    char *message_id, *correlation_id, *idempotency_key;
    bool progress;
    bool cancel;   /* somebody asked to cancel all of it */
    bool selected; /* it is settled which VMs are meant, and the missing ones were reported */
    int64_t created_ms, finished_ms;
    int64_t open;      /* tasks that have not ended, clean-ups not counted */
    int64_t selecting; /* of these, the ones that find out which VMs are meant */
    int64_t total, succeeded, failed, cancelled; /* as replies count them */
    int64_t pages;                               /* page replies sent */
    struct ledger_error error;
    char *finished; /* body of the last reply */
    bool internal;  /* of our own making: not listed, and forgotten sooner */
};
void request_done(struct request *r);
#define SCOPED_REQUEST __attribute__((cleanup(request_done), unused))

struct request_list {
    struct request *v;
    size_t count;
};
void request_list_done(struct request_list *list);

/* `body` is kept as it came. */
bool ledger_request_add(struct ledger *l, struct request *r, const char *body, struct err *err);
/* The body; the caller frees. Errors: not-found. */
char *ledger_request_body(struct ledger *l, const char *id, struct err *err);
bool ledger_request_save(struct ledger *l, const struct request *r, struct err *err);
/* These leave `ret` zeroed and return true when there is none: look at ret->id. */
bool ledger_request_get(struct ledger *l, const char *id, struct request *ret, struct err *err);
bool ledger_request_by_key(struct ledger *l, const char *kind, const char *key, struct request *ret,
                           struct err *err);
/* The same message once more: the same message id (or, without one, correlation id), kind, body. */
bool ledger_request_by_message(struct ledger *l, const char *message_id, const char *correlation_id,
                               const char *kind, const char *body, struct request *ret,
                               struct err *err);
/* The newest first; internal ones are left out. */
bool ledger_request_newest(struct ledger *l, int64_t limit, struct request_list *ret,
                           struct err *err);
/* Forget up to `limit` requests that finished before `before_ms` (internal ones: before
 * `internal_before_ms`), with all that hangs on them. Those with an open clean-up stay. */
bool ledger_request_prune(struct ledger *l, int64_t before_ms, int64_t internal_before_ms,
                          int64_t limit, int64_t *ret_count, struct err *err);

/* Where replies go. At most LEDGER_REPLY_TO_MAX per request: the newest stay. */
enum { LEDGER_REPLY_TO_MAX = 16 };
struct reply_to {
    char *queue, *correlation_id;
};
struct reply_to_list {
    struct reply_to *v;
    size_t count;
};
void reply_to_list_done(struct reply_to_list *list);
bool ledger_reply_to_add(struct ledger *l, const char *request, const char *queue,
                         const char *correlation_id, struct err *err);
bool ledger_reply_to_list(struct ledger *l, const char *request, struct reply_to_list *ret,
                          struct err *err);

/* --- Tasks ----------------------------------------------------------------------------------- */
enum task_role {
    TASK_MAIN,    /* what was asked for */
    TASK_SELECT,  /* finds out which VMs a backup request means */
    TASK_CLEANUP, /* removes what another task left behind */
    TASK_ADOPTED, /* known by its traces only: it ended before this ledger began, or was forgotten
                   */
    TASK_PART,    /* does a part of another task, which gave it away */
};
enum task_state {
    TASK_WAITING,
    TASK_OFFERED,
    TASK_RUNNING,
    TASK_SUCCEEDED,
    TASK_FAILED,
    TASK_CANCELLED,
};
const char *task_state_name(enum task_state state);
static inline bool task_is_open(enum task_state state)
{
    return state <= TASK_RUNNING;
}
/* Why the worker was, or is to be, told to stop. */
enum task_stop { TASK_STOP_NO, TASK_STOP_CANCEL, TASK_STOP_DEADLINE };

struct task {
    int64_t n;
    char *id, *request;
    enum task_role role;
    char *kind, *zone, *lane, *vm, *vm_name;
    enum task_state state;
    int64_t attempt;       /* of the current or next offer; no two offers share one */
    int64_t failures;      /* attempts that count against max_attempts */
    int64_t not_before_ms; /* waiting: not offered earlier; 0 = at once */
    int64_t created_ms, offered_ms;
    int64_t started_ms; /* first grant; 0 = not yet */
    int64_t finished_ms;
    int64_t deadline_s, deadline_ms; /* 0 = none */
    char *worker;                    /* of the last grant */
    int64_t fence;                   /* of the last grant; 0 = never granted */
    char *claim_id;                  /* message id of the claim that was granted */
    int64_t seq;                     /* of the last step event of this attempt */
    char *step;
    enum task_stop stop;
    int64_t stop_sent_ms;
    char *cleanup_of;     /* clean-up: the task that left something behind */
    int64_t cleanup_upto; /* clean-up: the last leftover that was in its offer */
    char *point, *new_vm;
    struct ledger_error error;
    char *input;   /* body of an offer without attempt and journal */
    char *outcome; /* body of the outcome reply, once ended */
    char *avoid;   /* a worker that failed and said "elsewhere" */
    int64_t avoided;
    int64_t stop_ms;                 /* when it was first told to stop; 0 = it was not */
    char *part_of;                   /* part: the task that gave it away... */
    int64_t part_fence, part_n;      /* ... under which fence, and its number among the parts */
    int64_t bytes_done, bytes_total; /* part: of its copy, once it has ended */
    char *result;                    /* part: body of its result, once it has succeeded */
};
void task_done(struct task *t);
#define SCOPED_TASK __attribute__((cleanup(task_done), unused))

struct task_list {
    struct task *v;
    size_t count;
};
void task_list_done(struct task_list *list);
#define SCOPED_TASKS __attribute__((cleanup(task_list_done), unused))

/* Errors: internal when a second task of one VM would become active (a bug in us). */
bool ledger_task_add(struct ledger *l, struct task *t, struct err *err);
bool ledger_task_save(struct ledger *l, const struct task *t, struct err *err);
/* Only `seq` and `step`: the most frequent change, and no index holds them. */
bool ledger_task_save_step(struct ledger *l, const struct task *t, struct err *err);
/* Leaves `ret` zeroed when there is none: look at ret->id. */
bool ledger_task_get(struct ledger *l, const char *id, struct task *ret, struct err *err);
/* The tasks of a request after number `after_n`, oldest first. */
bool ledger_task_of_request(struct ledger *l, const char *request, int64_t after_n, int64_t limit,
                            struct task_list *ret, struct err *err);
/* The request's tasks that have not ended, clean-ups and parts left out. */
bool ledger_task_open_of_request(struct ledger *l, const char *request, struct task_list *ret,
                                 struct err *err);
bool ledger_task_running(struct ledger *l, struct task_list *ret, struct err *err);
/* Running tasks that were first told to stop at that time or before. */
bool ledger_task_stopped(struct ledger *l, int64_t before_ms, struct task_list *ret,
                         struct err *err);
/* The open clean-up for what a task left behind; `ret` stays zeroed when there is none. */
bool ledger_task_cleanup_of(struct ledger *l, const char *task, struct task *ret, struct err *err);
/* The parts that a task gave away under this fence (0 = any), by fence and number. */
bool ledger_task_parts(struct ledger *l, const char *part_of, int64_t fence, struct task_list *ret,
                       struct err *err);
/* One of them; `ret` stays zeroed when there is none. */
bool ledger_task_part(struct ledger *l, const char *part_of, int64_t fence, int64_t n,
                      struct task *ret, struct err *err);
/* Whether one of its parts has not ended. */
bool ledger_task_has_open_part(struct ledger *l, const char *part_of, bool *ret, struct err *err);
/* How many clean-ups are open, and since when the oldest is; 0 = there is none. */
bool ledger_task_cleanups(struct ledger *l, int64_t *ret_count, int64_t *ret_oldest_ms,
                          struct err *err);
/* Waiting tasks of a zone and lane that may be offered at `now_ms`, whose VM is not busy and whose
 * parts have all ended (for a clean-up: those of the task that it cleans up after). No parts. */
bool ledger_task_waiting(struct ledger *l, const char *zone, const char *lane, int64_t now_ms,
                         int64_t limit, struct task_list *ret, struct err *err);
/* Waiting parts, likewise; whether somebody can take them is for the caller to find out. */
bool ledger_task_waiting_parts(struct ledger *l, const char *zone, const char *lane, int64_t now_ms,
                               int64_t limit, struct task_list *ret, struct err *err);
bool ledger_vm_is_busy(struct ledger *l, const char *vm, bool *ret, struct err *err);
/* True when the request has a backup task for this VM already. */
bool ledger_task_has_vm(struct ledger *l, const char *request, const char *vm, bool *ret,
                        struct err *err);
/* ... or one whose VM has this name. */
bool ledger_task_has_vm_name(struct ledger *l, const char *request, const char *name, bool *ret,
                             struct err *err);
/* A zone whose selection failed in this request: its error code; NULL in *ret when all answered.
 * The caller frees. */
bool ledger_select_failure(struct ledger *l, const char *request, char **ret_code, char **ret_zone,
                           struct err *err);
/* Open tasks whose deadline has come, and offers older than `before_ms`. */
bool ledger_task_past_deadline(struct ledger *l, int64_t now_ms, struct task_list *ret,
                               struct err *err);
bool ledger_task_stale_offers(struct ledger *l, int64_t before_ms, struct task_list *ret,
                              struct err *err);
/* The next times at which something waits for the clock; 0 = nothing does. */
bool ledger_next_not_before(struct ledger *l, int64_t now_ms, int64_t *ret_ms, struct err *err);
/* Whether a wait ended after `after_ms` and not after `now_ms`. */
bool ledger_has_retry(struct ledger *l, int64_t after_ms, int64_t now_ms, bool *ret,
                      struct err *err);
bool ledger_next_deadline(struct ledger *l, int64_t *ret_ms, struct err *err);
/* After a start: no time in the ledger may lie further ahead than the longest wait. */
bool ledger_clamp_times(struct ledger *l, int64_t now_ms, int64_t longest_wait_ms, struct err *err);

/* How many tasks are offered and running, per zone and lane. */
struct load {
    char *zone, *lane;
    int64_t offered, running;
};
struct load_list {
    struct load *v;
    size_t count;
};
void load_list_done(struct load_list *list);
bool ledger_load(struct ledger *l, struct load_list *ret, struct err *err);

/* --- Attempts, journal, fences --------------------------------------------------------------- */
struct attempt {
    int64_t attempt, fence;
    char *worker;
    int64_t granted_ms, ended_ms; /* 0 = it runs */
    char *step;                   /* the last one heard of; NULL while it runs */
    char *ended, *code, *message; /* NULL = it runs, or went well */
};
struct attempt_list {
    struct attempt *v;
    size_t count;
};
void attempt_list_done(struct attempt_list *list);
bool ledger_attempt_add(struct ledger *l, const struct task *t, int64_t now_ms, struct err *err);
/* `ended`: succeeded, failed, cancelled, released, lost. `error` may be NULL. */
bool ledger_attempt_end(struct ledger *l, const struct task *t, const char *ended,
                        const struct ledger_error *error, int64_t now_ms, struct err *err);
bool ledger_attempt_list(struct ledger *l, const char *task, struct attempt_list *ret,
                         struct err *err);

struct journal_row {
    int64_t attempt, fence, seq;
    bool stale;
    char *body; /* of a step event */
};
struct journal_list {
    struct journal_row *v;
    size_t count;
};
void journal_list_done(struct journal_list *list);
/* *ret_added is false for a double. */
bool ledger_journal_add(struct ledger *l, const char *task, const struct journal_row *row,
                        int64_t now_ms, bool *ret_added, struct err *err);
/* The newest `limit` entries, oldest first. */
bool ledger_journal_list(struct ledger *l, const char *task, int64_t limit,
                         struct journal_list *ret, struct err *err);

/* The next fence number of a VM. */
bool ledger_fence_next(struct ledger *l, const char *vm, int64_t *ret, struct err *err);

/* --- Listing pages --------------------------------------------------------------------------- */
bool ledger_items_add(struct ledger *l, const char *task, int64_t attempt, int64_t page,
                      const char *body, struct err *err);
bool ledger_items_count(struct ledger *l, const char *task, int64_t attempt, int64_t *ret,
                        struct err *err);
/* One page's body, NULL when it is not there; the caller frees. */
bool ledger_items_get(struct ledger *l, const char *task, int64_t attempt, int64_t page,
                      char **ret_body, struct err *err);
bool ledger_items_delete(struct ledger *l, const char *task, struct err *err);

/* --- Leftovers ------------------------------------------------------------------------------- */
struct leftover {
    int64_t n;
    char *kind, *vm, *item;
};
struct leftover_list {
    struct leftover *v;
    size_t count;
};
void leftover_list_done(struct leftover_list *list);
/* A leftover that is known already is not added again. */
bool ledger_leftover_add(struct ledger *l, const char *task, const char *kind, const char *vm,
                         const char *item, struct err *err);
bool ledger_leftover_list(struct ledger *l, const char *task, int64_t limit,
                          struct leftover_list *ret, struct err *err);
bool ledger_leftover_delete(struct ledger *l, const char *task, int64_t upto_n, struct err *err);
bool ledger_leftover_count(struct ledger *l, const char *task, int64_t *ret, struct err *err);

/* --- Cancels --------------------------------------------------------------------------------- */
bool ledger_cancel_wait_add(struct ledger *l, const char *request, const char *task,
                            struct err *err);
/* The cancel requests that wait for this task; ids, the caller frees each and the array. */
bool ledger_cancel_wait_of(struct ledger *l, const char *task, char ***ret_ids, size_t *ret_count,
                           struct err *err);

/* --- Rates ----------------------------------------------------------------------------------- */
/* How fast earlier backups of a zone were by one path. */
struct rate {
    int64_t n;
    char *zone, *path;
    int64_t bytes_per_s, samples;
    int64_t at_ms; /* of the last sample */
};
void rate_done(struct rate *r);
#define SCOPED_RATE __attribute__((cleanup(rate_done), unused))
struct rate_list {
    struct rate *v;
    size_t count;
};
void rate_list_done(struct rate_list *list);
#define SCOPED_RATES __attribute__((cleanup(rate_list_done), unused))
/* Adds it when n is 0. */
bool ledger_rate_save(struct ledger *l, struct rate *r, struct err *err);
/* Leaves `ret` zeroed when there is none. */
bool ledger_rate_get(struct ledger *l, const char *zone, const char *path, struct rate *ret,
                     struct err *err);
bool ledger_rate_list(struct ledger *l, const char *zone, struct rate_list *ret, struct err *err);

/* --- Sweeps and gauges ----------------------------------------------------------------------- */
/* What the last sweep of a zone counted. */
struct sweep {
    int64_t n;
    char *zone;
    int64_t at_ms;
    int64_t snapshots, oldest_ms; /* of ours; when the oldest one was made, 0 = there is none */
    int64_t attachments;          /* disks of ours on proxies */
    int64_t transfers;            /* image transfers of ours that are open */
    int64_t half_made;            /* VMs and disks of restores */
    int64_t left_behind;          /* of all these, of tasks that have ended */
    int64_t foreign_things;
};
void sweep_done(struct sweep *s);
#define SCOPED_SWEEP __attribute__((cleanup(sweep_done), unused))
struct sweep_list {
    struct sweep *v;
    size_t count;
};
void sweep_list_done(struct sweep_list *list);
/* Adds it when n is 0. */
bool ledger_sweep_save(struct ledger *l, struct sweep *s, struct err *err);
/* Leaves `ret` zeroed when there is none. */
bool ledger_sweep_get(struct ledger *l, const char *zone, struct sweep *ret, struct err *err);
bool ledger_sweep_list(struct ledger *l, struct sweep_list *ret, struct err *err);
/* Whether a sweep of this zone is open. */
bool ledger_sweep_is_open(struct ledger *l, const char *zone, bool *ret, struct err *err);

/* Tasks by zone, lane and state (waiting, offered, running); clean-ups count too. */
struct crowd {
    char *zone, *lane;
    int64_t waiting, running; /* offered ones wait */
};
struct crowd_list {
    struct crowd *v;
    size_t count;
};
void crowd_list_done(struct crowd_list *list);
bool ledger_crowd(struct ledger *l, struct crowd_list *ret, struct err *err);
/* Open clean-ups, and when the oldest was made (0 = there is none). */
bool ledger_cleanups(struct ledger *l, int64_t *ret_count, int64_t *ret_oldest_ms, struct err *err);
/* Tasks that were given up after too many attempts and are still in the ledger. */
bool ledger_quarantined(struct ledger *l, int64_t *ret, struct err *err);

/* --- Workers --------------------------------------------------------------------------------- */
enum worker_state { WORKER_UP, WORKER_DRAINING, WORKER_LOST };
const char *worker_state_name(enum worker_state state);
struct worker {
    int64_t n;
    char *name, *zone, *version, *host;
    char *proxy; /* the proxy VM it runs in, name or id; NULL = not told */
    enum worker_state state;
    int64_t slots_restore, slots_backup, slots_upkeep;
    int64_t first_ms, seen_ms;
};
void worker_done(struct worker *w);
#define SCOPED_WORKER __attribute__((cleanup(worker_done), unused))
struct worker_list {
    struct worker *v;
    size_t count;
};
void worker_list_done(struct worker_list *list);
/* Adds it when n is 0. */
bool ledger_worker_save(struct ledger *l, struct worker *w, struct err *err);
bool ledger_worker_get(struct ledger *l, const char *name, struct worker *ret, struct err *err);
bool ledger_worker_list(struct ledger *l, struct worker_list *ret, struct err *err);
bool ledger_worker_delete(struct ledger *l, const char *name, struct err *err);
bool ledger_worker_running(struct ledger *l, const char *name, int64_t *ret, struct err *err);
/* The same in one lane. */
bool ledger_worker_running_in(struct ledger *l, const char *name, const char *lane, int64_t *ret,
                              struct err *err);

/* --- Outbox ---------------------------------------------------------------------------------- */
struct outgoing {
    int64_t n;
    char *exchange, *routing_key, *type, *message_id, *correlation_id, *body;
    bool optional_route;
};
struct outgoing_list {
    struct outgoing *v;
    size_t count;
};
void outgoing_list_done(struct outgoing_list *list);
bool ledger_outbox_add(struct ledger *l, struct outgoing *m, struct err *err);
/* Messages after number `after_n`, in order. */
bool ledger_outbox_list(struct ledger *l, int64_t after_n, int64_t limit, struct outgoing_list *ret,
                        struct err *err);
bool ledger_outbox_get(struct ledger *l, int64_t n, struct outgoing_list *ret, struct err *err);
bool ledger_outbox_delete(struct ledger *l, int64_t n, struct err *err);
bool ledger_outbox_count(struct ledger *l, int64_t *ret, struct err *err);
