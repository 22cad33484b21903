/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/ovirt/export.h"

#include <string.h>
#include <strings.h>

#include "worker/ovirt/member.h"

/* --- Hosts ----------------------------------------------------------------------------------- */
void ovirt_host_done(struct ovirt_host *host)
{
    free(host->id);
    free(host->name);
    free(host->status);
    free(host->cluster_id);
    *host = (struct ovirt_host){0};
}

static bool is(const char *text, const char *word)
{
    return text && strcmp(text, word) == 0;
}

bool ovirt_host_find(struct engine_session *s, const char *id_or_name, struct ovirt_host *ret,
                     struct err *err)
{
    json_auto_t *answer = NULL;
    if (!engine_get(s, "hosts", NULL, &answer, err))
        return false;
    size_t i;
    json_t *h;
    json_array_foreach (member_list(answer, NULL, "host"), i, h) {
        if (!is(member_str(h, "id"), id_or_name) && !is(member_str(h, "name"), id_or_name))
            continue;
        if (!engine_check_id("host", member_str(h, "id"), err))
            return false;
        *ret = (struct ovirt_host){.id = xstrdup(member_str(h, "id")),
                                   .name = xstrdup_or_null(member_str(h, "name")),
                                   .status = xstrdup_or_null(member_str(h, "status")),
                                   .cluster_id = xstrdup_or_null(member_ref_id(h, "cluster"))};
        return true;
    }
    return err_set(err, ERR_NOT_FOUND, 404, "the engine has no host '%s' that this account may see",
                   id_or_name);
}

/* --- Jobs ------------------------------------------------------------------------------------ */
static enum ovirt_job_state state_of(const char *status)
{
    if (is(status, "finished"))
        return OVIRT_JOB_FINISHED;
    return is(status, "failed") || is(status, "aborted") ? OVIRT_JOB_FAILED : OVIRT_JOB_RUNNING;
}

/* What the steps tell; a job without steps, or an engine that will not show them, tells nothing. */
static int percent_of(struct engine_session *s, const char *job)
{
    SCOPED_FREE char *path = xasprintf("jobs/%s/steps", job);
    json_auto_t *answer = NULL;
    struct err ignored = ERR_INIT;
    if (!engine_get_or_gone(s, path, NULL, &answer, &ignored) || !answer)
        return 0;
    uint64_t best = 0;
    size_t i;
    json_t *step;
    json_array_foreach (member_list(answer, NULL, "step"), i, step) {
        uint64_t percent = member_u64_or(step, "progress", 0);
        best = percent > best && percent <= 100 ? percent : best;
    }
    return (int)best;
}

bool ovirt_job_look(struct engine_session *s, const char *id, enum ovirt_job_state *ret,
                    int *ret_percent, struct err *err)
{
    if (!engine_check_id("job", id, err))
        return false;
    SCOPED_FREE char *path = xasprintf("jobs/%s", id);
    json_auto_t *job = NULL;
    if (!engine_get_or_gone(s, path, NULL, &job, err))
        return false;
    *ret = job ? state_of(member_str(job, "status")) : OVIRT_JOB_GONE;
    if (ret_percent)
        *ret_percent = *ret == OVIRT_JOB_RUNNING ? percent_of(s, id) : 0;
    return true;
}

/* The engine names a job by what it does: "Exporting VM NAME as an OVA to ...". */
static bool is_export_of(const json_t *job, const char *vm_name)
{
    const char *text = member_str(job, "description");
    return text && strncasecmp(text, "export", 6) == 0 && strstr(text, vm_name) &&
           member_str(job, "id");
}

/* The newest one that is not in `known` (ids, as keys; NULL = none is). *ret is borrowed. */
static bool find_job(struct engine_session *s, const char *vm_name, const json_t *known,
                     json_t **ret_answer, const char **ret, struct err *err)
{
    *ret = NULL;
    if (!engine_get(s, "jobs", NULL, ret_answer, err))
        return false;
    int64_t newest = -1;
    size_t i;
    json_t *job;
    json_array_foreach (member_list(*ret_answer, NULL, "job"), i, job) {
        int64_t time_ms = member_time_ms_or(job, "start_time", 0);
        if (!is_export_of(job, vm_name) || json_object_get(known, member_str(job, "id")) ||
            time_ms < newest)
            continue;
        newest = time_ms;
        *ret = member_str(job, "id");
    }
    return true;
}

bool ovirt_export_find_job(struct engine_session *s, const char *vm_name, char **ret,
                           struct err *err)
{
    json_auto_t *answer = NULL;
    const char *id = NULL;
    if (!find_job(s, vm_name, NULL, &answer, &id, err))
        return false;
    *ret = xstrdup_or_null(id);
    return true;
}

/* --- Asking for it --------------------------------------------------------------------------- */
struct begin_probe {
    const char *vm_name;
    json_t *before; /* ids of earlier jobs, as keys */
};

static bool probe_begun(struct engine_session *s, void *ctx, bool *ret_done, json_t **ret_object,
                        struct err *err)
{
    const struct begin_probe *p = ctx;
    json_auto_t *answer = NULL;
    const char *id = NULL;
    if (!find_job(s, p->vm_name, p->before, &answer, &id, err))
        return false;
    *ret_done = id != NULL;
    if (id)
        *ret_object = json_pack("{s:{s:s}}", "job", "id", id);
    return true;
}

static json_t *jobs_before(struct engine_session *s, const char *vm_name, struct err *err)
{
    json_auto_t *answer = NULL;
    if (!engine_get(s, "jobs", NULL, &answer, err))
        return NULL;
    json_t *ids = json_object();
    size_t i;
    json_t *job;
    json_array_foreach (member_list(answer, NULL, "job"), i, job) {
        if (is_export_of(job, vm_name))
            json_object_set_new(ids, member_str(job, "id"), json_true());
    }
    return ids;
}

static json_t *body_of(const struct ovirt_export *to)
{
    if (to->domain_id)
        return json_pack("{s:{s:s}, s:s, s:s}", "storage_domain", "id", to->domain_id, "exclusive",
                         "true", "discard_snapshots", "true");
    return json_pack("{s:{s:s}, s:s, s:s}", "host", "id", to->host_id, "directory", to->directory,
                     "filename", to->filename);
}

char *ovirt_export_begin(struct engine_session *s, const char *vm_id, const char *vm_name,
                         const struct ovirt_export *to, struct err *err)
{
    if (!engine_check_id("VM", vm_id, err))
        return NULL;
    json_auto_t *body = body_of(to);
    if (!body) {
        err_set(err, ERR_BAD_ARGUMENT, 0, "the directory or file name of an export is not UTF-8");
        return NULL;
    }
    SCOPED_FREE char *path = xasprintf("vms/%s/export", vm_id);
    json_auto_t *before = jobs_before(s, vm_name, err);
    json_auto_t *answer = NULL;
    struct begin_probe probe = {.vm_name = vm_name, .before = before};
    struct engine_mutation m = {
        .method = ENGINE_POST,
        .path = path,
        .body = body,
        .probe = probe_begun,
        .probe_ctx = &probe,
    };
    if (!before || !engine_mutate(s, &m, &answer, err)) {
        err_wrap(err, "export VM %s", vm_name);
        return NULL;
    }
    const char *id = member_ref_id(answer, "job");
    json_auto_t *listed = NULL;
    if (!id && !find_job(s, vm_name, before, &listed, &id, err))
        return NULL;
    if (id && engine_check_id("job", id, err))
        return xstrdup(id);
    if (!err_is_set(err))
        err_set(err, ERR_ENGINE_PROTOCOL, 0, "the export of VM %s has no job", vm_name);
    return NULL;
}
