/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/doctor/doctor.h"

#include <assert.h>
#include <fcntl.h>
#include <string.h>

#include "proto/base/file.h"
#include "worker/doctor/check.h"

enum { LIMIT_DEFAULT_S = 60, FILE_MAX_BYTES = 1 << 20 };

static const struct check_table *const tables[] = {
    &checks_of_host,       &checks_of_devices, &checks_of_engine,
    &checks_of_repository, &checks_of_broker,
};

struct doctor *doctor_new(const struct doctor_opts *opts)
{
    struct doctor *d = ALLOC_NEW(struct doctor);
    d->opts = *opts;
    d->conf = opts->conf;
    d->clock = opts->clock ? opts->clock : clock_system();
    int64_t limit_s = opts->limit_s ? opts->limit_s : LIMIT_DEFAULT_S;
    d->until_ms = clock_mono_ms(d->clock) + limit_s * 1000;
    int rc = pthread_mutex_init(&d->lock, NULL);
    assert(rc == 0);
    return d;
}

static void engine_facts_done(struct engine_facts *f, bool keep_engine)
{
    json_decref(f->root);
    ovirt_vm_done(&f->proxy);
    ovirt_datacenter_done(&f->datacenter);
    ovirt_clusters_done(&f->clusters);
    ovirt_permits_done(&f->permits);
    engine_session_free(f->session);
    if (!keep_engine)
        engine_free(f->engine);
}

void doctor_free(struct doctor *d)
{
    if (!d)
        return;
    engine_facts_done(&d->engine, d->opts.engine != NULL);
    store_free(d->store);
    free(d->outcomes);
    findings_done(&d->findings);
    free(d->repository);
    (void)pthread_mutex_destroy(&d->lock);
    free(d);
}

/* --- One check ------------------------------------------------------------------------------- */
static bool is_missing(const struct doctor *d, const char *needed)
{
    for (size_t i = 0; needed && i < d->outcome_count; i++) {
        if (strcmp(d->outcomes[i].name, needed) == 0)
            return d->outcomes[i].level >= FINDING_FAILURE;
    }
    return false;
}

static void note(struct doctor *d, const struct check *c, enum finding_level level,
                 const char *message)
{
    d->outcomes = xreallocarray(d->outcomes, d->outcome_count + 1, sizeof *d->outcomes);
    d->outcomes[d->outcome_count++] = (struct outcome){.name = c->name, .level = level};
    const struct finding_spec spec = {.check = c->name,
                                      .level = level,
                                      .worker = d->conf->name,
                                      .advice = level == FINDING_SKIPPED ? NULL : c->advice,
                                      .time_ms = clock_wall_ms(d->clock)};
    (void)pthread_mutex_lock(&d->lock);
    findings_add(&d->findings, &spec, "%s", message);
    d->now = NULL;
    (void)pthread_mutex_unlock(&d->lock);
}

static bool is_wanted(const struct doctor *d, const struct check *c)
{
    if (c->needs_broker && !d->opts.broker)
        return false;
    return !d->opts.only || strncmp(c->name, d->opts.only, strlen(d->opts.only)) == 0;
}

static void run_check(struct doctor *d, const struct check *c)
{
    SCOPED_BUF struct buf say;
    buf_init(&say, SAY_BYTES);
    if (is_missing(d, c->needs)) {
        (void)buf_printf(&say, "not looked at, because of %s", c->needs);
        note(d, c, FINDING_SKIPPED, buf_str(&say));
        return;
    }
    if (doctor_is_late(d)) {
        note(d, c, FINDING_SKIPPED, "not looked at: the time was up");
        return;
    }
    (void)pthread_mutex_lock(&d->lock);
    d->now = c->name;
    (void)pthread_mutex_unlock(&d->lock);
    enum finding_level level = c->run(d, &say);
    note(d, c, level, buf_str(&say));
}

void doctor_run(struct doctor *d)
{
    for (size_t t = 0; t < ARRAY_LEN(tables); t++) {
        for (size_t i = 0; i < tables[t]->count; i++) {
            if (is_wanted(d, &tables[t]->rows[i]))
                run_check(d, &tables[t]->rows[i]);
        }
    }
    (void)pthread_mutex_lock(&d->lock);
    d->done = true;
    (void)pthread_mutex_unlock(&d->lock);
}

/* --- Reading --------------------------------------------------------------------------------- */
void doctor_read(struct doctor *d, struct doctor_report *ret)
{
    *ret = (struct doctor_report){0};
    (void)pthread_mutex_lock(&d->lock);
    for (size_t i = 0; i < d->findings.count; i++) {
        const struct wire_finding *f = &d->findings.v[i];
        findings_add(&ret->findings,
                     &(struct finding_spec){.check = f->check,
                                            .level = finding_level_of(f),
                                            .worker = f->worker,
                                            .advice = f->advice,
                                            .time_ms = f->time_ms},
                     "%s", f->message);
    }
    ret->repository = xstrdup_or_null(d->repository);
    ret->now = d->now;
    ret->done = d->done;
    (void)pthread_mutex_unlock(&d->lock);
}

void doctor_report_done(struct doctor_report *report)
{
    findings_done(&report->findings);
    free(report->repository);
    *report = (struct doctor_report){0};
}

void doctor_stop(struct doctor *d)
{
    atomic_store(&d->stopped, true);
}

/* --- Shared by the checks -------------------------------------------------------------------- */
bool doctor_is_late(const struct doctor *d)
{
    return atomic_load(&d->stopped) || clock_mono_ms(d->clock) >= d->until_ms;
}

char *doctor_path(const struct doctor *d, const char *path)
{
    return xasprintf("%s%s", d->opts.root ? d->opts.root : "", path);
}

char *doctor_read_file(const struct doctor *d, const char *path)
{
    struct err ignored = ERR_INIT;
    SCOPED_BUF struct buf text;
    SCOPED_FREE char *full = doctor_path(d, path);
    if (!file_read_all(AT_FDCWD, full, FILE_MAX_BYTES, &text, &ignored))
        return NULL;
    return buf_take(&text);
}

bool doctor_has_devices(const struct doctor *d)
{
    const char *dir = d->conf->device_dir;
    bool in_dev = strncmp(dir, "/dev/", 5) == 0 && strncmp(dir, "/dev/shm/", 9) != 0;
    return in_dev || d->opts.root;
}
