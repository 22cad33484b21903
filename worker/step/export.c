/* SPDX-License-Identifier: Apache-2.0 */
/* The engine writes the clone out: asked for once, waited for, and taken over by the next attempt.
 */
#include "worker/step/export.h"

#include <inttypes.h>
#include <string.h>

#include "proto/base/alloc.h"
#include "proto/base/log.h"
#include "worker/ovirt/export.h"

#define NO_FILE "-"

struct watch {
    struct task_run *run;
    const struct export *x;
    const char *job;
};

static enum engine_verdict look(struct engine_session *s, void *ctx, struct err *err)
{
    const struct watch *w = ctx;
    enum ovirt_job_state state;
    int percent = 0;
    if (!ovirt_job_look(s, w->job, &state, &percent, err))
        return ENGINE_FAILED;
    switch (state) {
    case OVIRT_JOB_FINISHED:
        return ENGINE_REACHED;
    case OVIRT_JOB_RUNNING:
        run_copying(w->run, w->run->stats.bytes_total / 100 * percent, w->run->stats.bytes_total,
                    0);
        return ENGINE_AGAIN;
    case OVIRT_JOB_FAILED:
    case OVIRT_JOB_GONE:
        break;
    }
    err_set(err, ERR_ENGINE_FAULT, 0,
            state == OVIRT_JOB_GONE
                ? "the engine has forgotten its job %s, the export of VM %s to %s"
                : "the engine's job %s, the export of VM %s to %s, has failed: its events say why "
                  "(room on the host? the directory?)",
            w->job, w->x->base.vm.name, w->x->goal);
    return ENGINE_FAILED;
}

static bool wait_job(struct task_run *run, const struct export *x, const char *job, struct err *err)
{
    struct watch watch = {.run = run, .x = x, .job = job};
    return engine_poll(run->session, "the engine to write the VM out",
                       run->settings->export_wait_s * 1000, look, &watch, err);
}

/* From here on the export stands: what follows only tidies up. */
static void take(struct task_run *run, const struct export *x, const char *file)
{
    free(run->exported);
    run->exported = x->domain_id ? xasprintf("%s:%s", x->goal, x->clone_name)
                                 : xasprintf("%s:%s/%s", x->goal, x->opts->directory, file);
    run->committed = true;
    run_handle_set(run, HANDLE_EXPORTED, run->exported);
    log_info("exported", LOG_STR("to", run->exported));
}

/* The job that an earlier attempt began, or may have begun: the caller frees; NULL = there is none.
 */
static bool find_begun(struct task_run *run, const struct export *x, char **ret, struct err *err)
{
    const char *known = handles_get(&run->handles, HANDLE_JOB);
    if (!known)
        return ovirt_export_find_job(run->session, x->clone_name, ret, err);
    *ret = xstrdup(known);
    return true;
}

enum probe_answer probe_export(struct task_run *run, struct err *err)
{
    struct export *x = run->state;
    if (x->base.stands)
        return PROBE_DONE;
    const char *file = handles_get(&run->handles, HANDLE_EXPORT);
    if (!file)
        return PROBE_TODO;
    SCOPED_FREE char *job = NULL;
    enum ovirt_job_state state = OVIRT_JOB_GONE;
    if (!find_begun(run, x, &job, err) ||
        (job && !ovirt_job_look(run->session, job, &state, NULL, err)))
        return PROBE_FAILED;
    if (state == OVIRT_JOB_GONE || state == OVIRT_JOB_FAILED)
        return PROBE_TODO;
    log_info("export_taken_over", LOG_STR("job", job), LOG_STR("file", file));
    if (!wait_job(run, x, job, err))
        return PROBE_FAILED;
    SCOPED_FREE char *copy = xstrdup(file);
    take(run, x, copy);
    return PROBE_DONE;
}

bool step_export(struct task_run *run, struct err *err)
{
    struct export *x = run->state;
    /* A name of its own for each try: the engine may not write over what another one left. */
    SCOPED_FREE char *file = x->domain_id
                                 ? xstrdup(NO_FILE)
                                 : xasprintf("%s.%" PRId64 ".ova", x->clone_name, run->fence);
    struct ovirt_export to = {.host_id = x->host_id,
                              .directory = x->opts->directory,
                              .filename = file,
                              .domain_id = x->domain_id};
    const char *description = x->base.vm.description;
    run_handle_drop(run, HANDLE_JOB);
    run_handle_set(run, HANDLE_EXPORT, file);
    if (!ovirt_vm_set_description(run->session, x->clone_id, description ? description : "", err))
        return false;
    SCOPED_FREE char *job = ovirt_export_begin(run->session, x->clone_id, x->clone_name, &to, err);
    if (!job)
        return false;
    run_handle_set(run, HANDLE_JOB, job);
    log_info("export_begun", LOG_STR("job", job), LOG_STR("file", file));
    if (!wait_job(run, x, job, err))
        return false;
    take(run, x, file);
    return true;
}
