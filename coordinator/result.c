/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/result.h"

#include <inttypes.h>
#include <string.h>

#include "coordinator/lease.h"
#include "coordinator/leftovers.h"
#include "coordinator/outgoing.h"
#include "coordinator/rates.h"
#include "coordinator/select.h"
#include "coordinator/sweep.h"
#include "coordinator/work.h"

int64_t result_retry_ms(const char *retry, int64_t failures, bool cleanup)
{
    static const struct {
        const char *retry;
        int64_t first_ms, most_ms;
    } rules[] = {
        {"soon", 10 * 1000, 600 * 1000},
        {"later", 60 * 1000, RESULT_RETRY_MAX_MS},
        {"elsewhere", 2 * 1000, 600 * 1000},
    };
    int64_t wait = 30 * 1000, most = RESULT_RETRY_MAX_MS;
    for (size_t i = 0; i < ARRAY_LEN(rules) && !cleanup; i++) {
        if (strcmp(rules[i].retry, retry) == 0) {
            wait = rules[i].first_ms;
            most = rules[i].most_ms;
        }
    }
    for (int64_t i = 1; i < failures && wait < most; i++)
        wait *= 2;
    return wait < most ? wait : most;
}

/* --- Listings --- */
static bool relay_page(struct core *core, struct request *r, const struct task *t, int64_t page,
                       struct err *err)
{
    SCOPED_FREE char *body = NULL;
    struct wire_message m = {0};
    if (!ledger_items_get(core->ledger, t->id, t->attempt, page, &body, err))
        return false;
    if (!body)
        return err_set(err, ERR_INTERNAL, 0, "page %" PRId64 " of task %s is gone", page, t->id);
    if (!wire_decode(wire_type_name(WIRE_ITEMS), body, strlen(body), &m, err))
        return err_wrap(err, "page %" PRId64 " of task %s", page, t->id);
    const struct wire_items *items = m.as;
    const struct wire_page message = {
        .request = r->id, .page = r->pages + 1, .items = items->items};
    bool ok = outgoing_reply(core, r, WIRE_PAGE, &message, err);
    r->pages += ok;
    wire_free(&m);
    return ok;
}

static bool relay_pages(struct core *core, const struct task *t, int64_t pages, struct err *err)
{
    SCOPED_REQUEST struct request r = {0};
    if (!ledger_request_get(core->ledger, t->request, &r, err))
        return false;
    for (int64_t page = 1; page <= pages; page++) {
        if (!relay_page(core, &r, t, page, err))
            return false;
    }
    return ledger_request_save(core->ledger, &r, err);
}

/* --- Ends --- */
static bool end_with(struct core *core, struct task *t, enum task_state state,
                     const struct wire_error *error, const struct wire_result *result,
                     struct err *err)
{
    const struct work_end how = {.state = state, .error = error, .result = result};
    return work_end(core, t, &how, err);
}

/* With what was left out here beside what the worker warned of. */
static bool succeed_selection(struct core *core, struct task *t, const struct wire_result *result,
                              int64_t pages, struct err *err)
{
    SCOPED_SELECT_WARNINGS struct wire_warnings own = {0};
    if (!select_take_pages(core, t, pages, &own, err))
        return false;
    size_t count = result->warnings.count + own.count;
    SCOPED_FREE struct wire_warning *all = xcalloc(count + 1, sizeof *all);
    for (size_t i = 0; i < count; i++)
        all[i] = i < own.count ? own.v[i] : result->warnings.v[i - own.count];
    struct wire_result whole = *result;
    whole.warnings.v = all;
    whole.warnings.count = count < WIRE_WARNINGS_MAX ? count : WIRE_WARNINGS_MAX;
    return end_with(core, t, TASK_SUCCEEDED, NULL, &whole, err);
}

static bool fail(struct core *core, struct task *t, const struct wire_result *result,
                 struct err *err);

/* Use the pages of a listing. A page that is not there (it was refused, or is late: sent again
 * after the broker rejected it) fails the attempt: half a listing must not pass for a whole one. */
static bool succeed_listing(struct core *core, struct task *t, const struct wire_result *result,
                            struct err *err)
{
    int64_t have = 0;
    if (!ledger_items_count(core->ledger, t->id, t->attempt, &have, err))
        return false;
    if (have != result->pages) {
        struct err why = ERR_INIT;
        err_set(&why, ERR_BAD_MESSAGE, 0,
                "worker '%s' announced %" PRId64 " pages, %" PRId64 " were usable", t->worker,
                result->pages, have);
        struct wire_error error;
        char at[WIRE_AT_BYTES];
        static char soon[] = "soon";
        wire_error_of(&why, &error, at);
        error.retry = soon;
        struct wire_result failed = *result;
        failed.error = &error;
        return fail(core, t, &failed, err);
    }
    if (t->role == TASK_SELECT)
        return succeed_selection(core, t, result, have, err);
    bool ok = strcmp(t->kind, "sweep") == 0 ? sweep_take_pages(core, t, have, err)
                                            : relay_pages(core, t, have, err);
    return ok && end_with(core, t, TASK_SUCCEEDED, NULL, result, err);
}

/* A clean-up is done when nothing is left. */
static bool succeed_cleanup(struct core *core, struct task *t, const struct wire_result *result,
                            struct err *err)
{
    int64_t left = 0;
    if (!ledger_leftover_delete(core->ledger, t->cleanup_of, t->cleanup_upto, err) ||
        !leftovers_keep(core, t->cleanup_of, &result->leftovers, err) ||
        !ledger_leftover_count(core->ledger, t->cleanup_of, &left, err))
        return false;
    if (left == 0)
        return end_with(core, t, TASK_SUCCEEDED, NULL, result, err);
    bool refused = result->leftovers.count > 0;
    t->failures += refused;
    return work_requeue(core, t, refused ? "failed" : "succeeded", NULL,
                        refused ? core->now_ms + result_retry_ms("later", t->failures, true) : 0,
                        err);
}

static bool succeed(struct core *core, struct task *t, const struct wire_result *result,
                    struct err *err)
{
    if (t->role == TASK_CLEANUP)
        return succeed_cleanup(core, t, result, err);
    if (wire_is_listing(t->kind) || strcmp(t->kind, "sweep") == 0)
        return succeed_listing(core, t, result, err);
    if (strcmp(t->kind, "backup") == 0 && result->stats &&
        !rates_take(core, t->zone, &result->stats->paths, err))
        return false;
    return end_with(core, t, TASK_SUCCEEDED, NULL, result, err);
}

static bool try_again(struct core *core, struct task *t, const struct wire_error *error,
                      const struct wire_result *result, int64_t at_ms, struct err *err)
{
    work_set_error(&t->error, error);
    if (strcmp(error->retry, "elsewhere") == 0)
        text_set(&t->avoid, t->worker);
    /* What a clean-up could not remove is its list from now on. The next attempt of another kind
     * inherits what is left through the journal, and answers for it in its own result. */
    if (t->role == TASK_CLEANUP && result->leftovers.count > 0 &&
        (!ledger_leftover_delete(core->ledger, t->cleanup_of, t->cleanup_upto, err) ||
         !leftovers_keep(core, t->cleanup_of, &result->leftovers, err)))
        return false;
    log_warn("attempt_failed", LOG_STR("task", t->id), LOG_STR("vm", t->vm_name),
             LOG_STR("worker", t->worker), LOG_I64("attempt", t->attempt),
             LOG_STR("code", error->code), LOG_STR("retry", error->retry),
             LOG_STR("message", error->message));
    return work_requeue(core, t, "failed", &t->error, at_ms, err);
}

static bool fail(struct core *core, struct task *t, const struct wire_result *result,
                 struct err *err)
{
    struct err silent = ERR_INIT;
    struct wire_error unsaid;
    char at[WIRE_AT_BYTES];
    err_set(&silent, ERR_INTERNAL, 0, "worker '%s' gave no reason", t->worker);
    wire_error_of(&silent, &unsaid, at);
    const struct wire_error *error = result->error ? result->error : &unsaid;
    t->failures++;
    bool cleanup = t->role == TASK_CLEANUP;
    /* A part is not tried again: its main task does it. */
    bool more = cleanup || (t->role != TASK_PART && strcmp(error->retry, "never") != 0 &&
                            t->failures < core->conf->max_attempts);
    int64_t again_ms = core->now_ms + result_retry_ms(error->retry, t->failures, cleanup);
    bool in_time = t->deadline_ms == 0 || again_ms < t->deadline_ms;
    if (more && in_time)
        return try_again(core, t, error, result, again_ms, err);
    return end_with(core, t, TASK_FAILED, error, result, err);
}

/* The worker stopped, or failed while it was stopping. */
static bool stopped(struct core *core, struct task *t, const struct wire_result *result,
                    struct err *err)
{
    struct err why = ERR_INIT;
    struct wire_error error;
    char at[WIRE_AT_BYTES];
    if (t->stop == TASK_STOP_DEADLINE) {
        err_set(&why, ERR_TIMEOUT, 0, "stopped at its deadline of %" PRId64 " s", t->deadline_s);
        wire_error_of(&why, &error, at);
        t->failures++;
        return end_with(core, t, TASK_FAILED, &error, result, err);
    }
    err_set(&why, ERR_CANCELLED, 0, "cancelled");
    wire_error_of(&why, &error, at);
    return end_with(core, t, TASK_CANCELLED, result->error ? result->error : &error, result, err);
}

/* A result that is not from the owner. An attempt that was given up may still name what it could
 * not remove; if nobody works on the task any more, it is cleaned up now. */
static bool late_result(struct core *core, const struct task *t, const struct wire_result *result,
                        struct err *err)
{
    core->counters.stale_events++;
    log_debug("result_stale", LOG_STR("task", result->task), LOG_STR("worker", result->worker),
              LOG_STR("status", result->status), LOG_I64("fence", result->fence));
    bool known = t->id && t->fence == result->fence && !task_is_open(t->state);
    if (!t->id || known || task_is_open(t->state) || result->leftovers.count == 0)
        return true;
    for (size_t i = 0; i < result->leftovers.count; i++) {
        const struct wire_leftover *left = &result->leftovers.v[i];
        bool sure = strcmp(left->kind, "snapshot") == 0 || strcmp(left->kind, "attachment") == 0;
        if (sure && !ledger_leftover_add(core->ledger, t->id, left->kind, left->vm, left->id, err))
            return false;
    }
    SCOPED_REQUEST struct request r = {0};
    return ledger_request_get(core->ledger, t->request, &r, err) &&
           work_open_cleanup(core, t, &r, err);
}

bool result_handle(struct core *core, const struct wire_result *result, struct err *err)
{
    SCOPED_TASK struct task t = {0};
    if (!ledger_task_get(core->ledger, result->task, &t, err))
        return false;
    if (!lease_is_owner(core, &t, result->worker, result->attempt, result->fence))
        return late_result(core, &t, result, err);
    if (strcmp(result->status, "succeeded") == 0)
        return succeed(core, &t, result, err);
    /* The owner itself, which nobody has replaced: it waited in vain for us, and left all as it is.
     */
    if (result->error && strcmp(result->error->code, "lease-lost") == 0)
        return lease_lose(core, &t, result->error, err);
    if (t.stop != TASK_STOP_NO || strcmp(result->status, "cancelled") == 0)
        return stopped(core, &t, result, err);
    if (strcmp(result->status, "released") == 0)
        return work_requeue(core, &t, "released", NULL, 0, err);
    return fail(core, &t, result, err);
}
