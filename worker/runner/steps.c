/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/runner/steps.h"

#include <assert.h>
#include <string.h>

#include "proto/base/log.h"

static void add_stat(struct task_run *run, const struct step *step, int64_t ms)
{
    if (step->stat == 0)
        return;
    assert(step->stat <= sizeof run->stats - sizeof ms);
    int64_t sum;
    memcpy(&sum, (char *)&run->stats + step->stat, sizeof sum);
    sum += ms;
    memcpy((char *)&run->stats + step->stat, &sum, sizeof sum);
}

/* One step forward. */
static bool run_one(struct task_run *run, const struct step *step, struct err *err)
{
    if (!run_check(run, err))
        return false;
    int64_t start = clock_mono_ms(run->clock);
    if (step->probe) {
        enum probe_answer answer = step->probe(run, err);
        if (answer == PROBE_FAILED)
            return false;
        if (answer == PROBE_UNWANTED)
            return true;
        if (answer == PROBE_DONE) {
            log_info("step_known", LOG_STR("step", step->name));
            run_event(run, step->name, "done", NULL, 0, false);
            return true;
        }
    }
    log_info("step_started", LOG_STR("step", step->name));
    run_event(run, step->name, "started", NULL, 0, false);
    if (!step->run(run, err))
        return false;
    int64_t ms = clock_mono_ms(run->clock) - start;
    add_stat(run, step, ms);
    log_info("step_done", LOG_STR("step", step->name), LOG_I64("ms", ms));
    run_event(run, step->name, "done", NULL, ms, false);
    return true;
}

/* Take back steps[0..count), last first. What fails stays in the handles. */
static void undo_all(struct task_run *run, const struct step *steps, size_t count)
{
    run->phase = RUN_UNDO;
    for (size_t i = count; i-- > 0;) {
        if (!steps[i].undo)
            continue;
        run->step = steps[i].name;
        int64_t start = clock_mono_ms(run->clock);
        struct err err = ERR_INIT;
        log_info("undo_started", LOG_STR("step", steps[i].name));
        bool ok = steps[i].undo(run, &err);
        int64_t ms = clock_mono_ms(run->clock) - start;
        log_info("undo_ended", LOG_STR("step", steps[i].name), LOG_STR("ok", ok ? "yes" : "no"),
                 LOG_I64("ms", ms));
        if (ok) {
            run_event(run, steps[i].name, "undone", NULL, ms, false);
            continue;
        }
        log_err(LOG_LEVEL_WARN, "undo_failed", &err);
        run_event(run, steps[i].name, "undo-failed", &err, ms, false);
        if (err.code == ERR_LEASE_LOST)
            return; /* somebody else's now */
        run_warn_err(run, NULL, &err);
    }
}

bool steps_run(struct task_run *run, const struct step *steps, size_t count, struct err *err)
{
    run->phase = RUN_FORWARD;
    for (size_t i = 0; i < count; i++) {
        const struct step *step = &steps[i];
        bool tidy = run->committed && (step->flags & STEP_TIDY);
        if (tidy)
            run->phase = RUN_TIDY;
        run->step = step->name;
        if (run_one(run, step, err))
            continue;
        log_info("step_failed", LOG_STR("step", step->name)); /* why: with the task, once */
        run_event(run, step->name, "failed", err, 0, false);
        if (tidy && err->code != ERR_LEASE_LOST) {
            run_warn_err(run, NULL, err);
            err_clear(err);
            continue;
        }
        /* Some steps fail before they touched anything, but a step cannot know how far its
         * predecessor in an earlier attempt came: its undo looks. */
        if (err->code != ERR_LEASE_LOST)
            undo_all(run, steps, i + 1);
        run->step = NULL;
        return err_wrap(err, "%s", step->name);
    }
    run->step = NULL;
    return true;
}
