/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <stdarg.h>
#include <string.h>

#include "proto/base/alloc.h"
#include "proto/base/id.h"
#include "proto/base/log.h"
#include "worker/step/step.h"

enum { COPYING_EVERY_MS = 2000, SLEEP_PIECE_MS = 250 };

void run_forget_path_stats(struct task_run *run)
{
    for (size_t i = 0; i < run->stats.paths.count; i++)
        free(run->stats.paths.v[i].path);
    free(run->stats.paths.v);
    run->stats.paths = (struct wire_paths_stats){0};
}

void run_done(struct task_run *run)
{
    run_forget_path_stats(run);
    handles_done(&run->handles);
    leftovers_done(&run->left);
    for (size_t i = 0; i < run->warnings_count; i++) {
        free(run->warnings[i].code);
        free(run->warnings[i].disk);
        free(run->warnings[i].message);
    }
    free(run->warnings);
    free(run->point);
    free(run->new_vm);
    free(run->exported);
    run->warnings = NULL;
    run->warnings_count = run->warnings_room = 0;
    run->point = run->new_vm = run->exported = NULL;
}

bool run_check(struct task_run *run, struct err *err)
{
    struct err why = ERR_INIT;
    if (run->ops->stopped(run->ops_ctx, &why) &&
        (run->phase == RUN_FORWARD || why.code == ERR_LEASE_LOST)) {
        *err = why;
        return false;
    }
    if (run->phase == RUN_FORWARD && run->deadline_mono_ms &&
        clock_mono_ms(run->clock) >= run->deadline_mono_ms)
        return err_set(err, ERR_TIMEOUT, 0, "the task's deadline of %" PRId64 " s has passed",
                       run->offer->deadline_s);
    return true;
}

bool run_is_given_back(struct task_run *run)
{
    return run->ops->is_leaving && run->ops->is_leaving(run->ops_ctx);
}

bool run_is_cancelled(struct task_run *run)
{
    struct err why = ERR_INIT;
    return !run_check(run, &why);
}

bool run_before_mutation(struct task_run *run, struct err *err)
{
    while (run_check(run, err)) {
        switch (run->ops->lease_check(run->ops_ctx, err)) {
        case RUN_LEASE_VALID:
            return true;
        case RUN_LEASE_PENDING:
            break;
        case RUN_LEASE_LOST:
            return false;
        }
    }
    return false;
}

bool run_sleep(struct task_run *run, int64_t ms, struct err *err)
{
    int64_t until = clock_mono_ms(run->clock) + ms;
    for (;;) {
        if (!run_check(run, err))
            return false;
        int64_t left = until - clock_mono_ms(run->clock);
        if (left <= 0)
            return true;
        clock_sleep_ms(run->clock, left < SLEEP_PIECE_MS ? left : SLEEP_PIECE_MS);
    }
}

void run_event(struct task_run *run, const char *step, const char *state, const struct err *error,
               int64_t duration_ms, bool ahead)
{
    char at[WIRE_AT_BYTES];
    struct wire_error wire;
    if (error)
        wire_error_of(error, &wire, at);
    /* The codec takes mutable strings for decoded messages; nothing is written through these. */
    struct wire_step event = {
        .task = run->offer->task,
        .worker = (char *)(uintptr_t)run->worker,
        .attempt = run->offer->attempt,
        .fence = run->fence,
        .seq = ++run->seq,
        .step = (char *)(uintptr_t)step,
        .state = (char *)(uintptr_t)state,
        .handles = handles_wire(&run->handles),
        .error = error ? &wire : NULL,
        .duration_ms = duration_ms,
    };
    (void)run->ops->emit(run->ops_ctx, WIRE_STEP, &event, ahead);
}

void run_handle_set(struct task_run *run, const char *name, const char *value)
{
    handles_set(&run->handles, name, value);
    run_event(run, run->step ? run->step : "run", "handle", NULL, 0, true);
}

void run_handle_drop(struct task_run *run, const char *name)
{
    handles_drop(&run->handles, name);
}

void run_copying(struct task_run *run, int64_t bytes_done, int64_t bytes_total, int64_t rate_bps)
{
    int64_t now = clock_mono_ms(run->clock);
    int64_t due = atomic_load(&run->copying_next_ms);
    if (now < due ||
        !atomic_compare_exchange_strong(&run->copying_next_ms, &due, now + COPYING_EVERY_MS))
        return;
    struct wire_copying event = {
        .task = run->offer->task,
        .worker = (char *)(uintptr_t)run->worker,
        .step = (char *)(uintptr_t)(run->step ? run->step : "copy"),
        .attempt = run->offer->attempt,
        .fence = run->fence,
        .bytes_done = bytes_done,
        .bytes_total = bytes_total,
        .rate_bps = rate_bps,
    };
    (void)run->ops->emit(run->ops_ctx, WIRE_COPYING, &event, false);
}

void run_items(struct task_run *run, const struct wire_item_list *items)
{
    struct wire_item_list copy = *items;
    struct wire_items event = {
        .task = run->offer->task,
        .worker = (char *)(uintptr_t)run->worker,
        .attempt = run->offer->attempt,
        .fence = run->fence,
        .page = ++run->pages,
        .items = &copy,
    };
    (void)run->ops->emit(run->ops_ctx, WIRE_ITEMS, &event, false);
}

void run_warn(struct task_run *run, const char *code, const char *disk, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    char message[ERR_MESSAGE_BYTES];
    vsnprintf(message, sizeof message, fmt, args);
    va_end(args);
    log_warn("task_warning", LOG_STR("code", code), LOG_STR("disk", disk),
             LOG_STR("message", message));
    if (run->warnings_count >= WIRE_WARNINGS_MAX) {
        run->warnings_dropped++;
        return;
    }
    if (run->warnings_count == run->warnings_room) {
        run->warnings_room = run->warnings_room ? 2 * run->warnings_room : 4;
        run->warnings = xreallocarray(run->warnings, run->warnings_room, sizeof *run->warnings);
    }
    run->warnings[run->warnings_count++] = (struct wire_warning){
        .code = xstrdup(code), .disk = xstrdup_or_null(disk), .message = xstrdup(message)};
}

void run_warn_err(struct task_run *run, const char *disk, const struct err *err)
{
    run_warn(run, err_code_name(err->code), disk, "%s", err->message);
}

char *marker_of_task(const char *task)
{
    return xasprintf(MARKER_SNAPSHOT "%s ", task);
}

char *run_marker(const struct task_run *run)
{
    return xasprintf(MARKER_SNAPSHOT "%s fence=%" PRId64, run->offer->task, run->fence);
}

char *run_marker_restoring(const struct task_run *run)
{
    return xasprintf(MARKER_RESTORE "%s fence=%" PRId64, run->offer->task, run->fence);
}

char *run_marker_exporting(const struct task_run *run, const char *task)
{
    return xasprintf(MARKER_EXPORT "%s fence=%" PRId64, task, run->fence);
}

/* The part after the marker's beginning, or NULL. */
static const char *marker_rest(const char *description)
{
    if (!description)
        return NULL;
    if (strncmp(description, MARKER_SNAPSHOT, strlen(MARKER_SNAPSHOT)) == 0)
        return description + strlen(MARKER_SNAPSHOT);
    if (strncmp(description, MARKER_RESTORE, strlen(MARKER_RESTORE)) == 0)
        return description + strlen(MARKER_RESTORE);
    if (strncmp(description, MARKER_EXPORT, strlen(MARKER_EXPORT)) == 0)
        return description + strlen(MARKER_EXPORT);
    return NULL;
}

/* "<uuid> fence=<n>" and nothing behind it; the fence, or -1. */
static int64_t parse_rest(const char *rest, char task[ID_BYTES])
{
    size_t len = strcspn(rest, " ");
    if (len != ID_BYTES - 1)
        return -1;
    memcpy(task, rest, len);
    task[len] = '\0';
    if (!id_is_valid(task) || strncmp(rest + len, " fence=", 7) != 0)
        return -1;
    const char *digits = rest + len + 7;
    size_t n = strspn(digits, "0123456789");
    if (n == 0 || n > 15 || digits[n] != '\0')
        return -1;
    return strtoll(digits, NULL, 10);
}

bool marker_parse(const char *description, char *task, int64_t *ret_fence)
{
    const char *rest = marker_rest(description);
    int64_t fence = rest ? parse_rest(rest, task) : -1;
    if (fence < 0)
        return false;
    *ret_fence = fence;
    return true;
}

bool marker_is_ours(const char *description, const char *task)
{
    char found[ID_BYTES];
    int64_t fence;
    return marker_parse(description, found, &fence) && (!task || strcmp(task, found) == 0);
}

int64_t marker_fence(const char *description)
{
    char found[ID_BYTES];
    int64_t fence;
    return marker_parse(description, found, &fence) ? fence : -1;
}
