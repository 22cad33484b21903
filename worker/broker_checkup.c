/* SPDX-License-Identifier: Apache-2.0 */
/* Check-ups that the coordinator asks for. The checks run on a thread of their own, since a file
 * server that hangs hangs them; when the time is up, what is known is told. */
#include <pthread.h>
#include <string.h>

#include "proto/base/log.h"
#include "worker/broker_internal.h"
#include "worker/doctor/doctor.h"
#include "worker/ovirt/engine.h"

enum { GOODBYE_MS = 3000 };

/* One answer that is due. */
struct checkup_due {
    char *request;
    int64_t until_ms;
};

struct checkup {
    struct doctor *doctor;
    pthread_t thread;
    struct checkup_due *due;
    size_t count;
};

static void *run(void *arg)
{
    log_set_thread("doctor");
    doctor_run(arg);
    return NULL;
}

static bool begin(struct broker *b, int64_t limit_s)
{
    struct doctor *doctor = doctor_new(
        &(struct doctor_opts){.conf = b->conf, .engine = &b->checkup_engine, .limit_s = limit_s});
    b->checkup = ALLOC_NEW(struct checkup);
    b->checkup->doctor = doctor;
    if (pthread_create(&b->checkup->thread, NULL, run, doctor) == 0)
        return true;
    doctor_free(doctor);
    free(TAKE(b->checkup));
    return false;
}

void broker_on_checkup(struct broker *b, const struct wire_checkup *m)
{
    log_info("checkup", LOG_STR("request", m->request));
    if (!b->checkup && !begin(b, m->limit_s)) {
        log_warn("checkup_failed", LOG_STR("why", "no thread could be made"));
        return;
    }
    struct checkup *c = b->checkup;
    c->due = xreallocarray(c->due, c->count + 1, sizeof *c->due);
    c->due[c->count++] = (struct checkup_due){.request = xstrdup(m->request),
                                              .until_ms = broker_now(b) + m->limit_s * 1000};
}

static void answer(struct broker *b, const char *request)
{
    struct doctor_report r;
    doctor_read(b->checkup->doctor, &r);
    if (!r.done)
        findings_add(&r.findings,
                     &(struct finding_spec){
                         .check = "worker.time",
                         .level = FINDING_FAILURE,
                         .worker = b->conf->name,
                         .advice = "a file server or an engine that does not answer: look at the "
                                   "check that is named, and try by hand what it does",
                         .time_ms = clock_wall_ms(b->clock)},
                     "the check-up did not end in time: it is at %s", r.now ? r.now : "its end");
    broker_publish_checked(b, &(struct wire_checked){.request = (char *)(uintptr_t)request,
                                                     .worker = b->conf->name,
                                                     .repository = r.repository,
                                                     .findings = r.findings});
    doctor_report_done(&r);
}

static void end(struct broker *b)
{
    struct checkup *c = TAKE(b->checkup);
    (void)pthread_join(c->thread, NULL);
    doctor_free(c->doctor);
    free(c->due);
    free(c);
}

static bool is_done(const struct checkup *c)
{
    struct doctor_report r;
    doctor_read(c->doctor, &r);
    bool done = r.done;
    doctor_report_done(&r);
    return done;
}

void broker_tick_checkup(struct broker *b)
{
    struct checkup *c = b->checkup;
    if (!c)
        return;
    bool done = is_done(c);
    size_t kept = 0;
    for (size_t i = 0; i < c->count; i++) {
        if (!done && broker_now(b) < c->due[i].until_ms) {
            c->due[kept++] = c->due[i];
            continue;
        }
        answer(b, c->due[i].request);
        free(c->due[i].request);
    }
    c->count = kept;
    if (done)
        end(b);
}

void broker_end_checkup(struct broker *b)
{
    struct checkup *c = b->checkup;
    if (!c) {
        engine_free(TAKE(b->checkup_engine));
        return;
    }
    for (size_t i = 0; i < c->count; i++)
        free(c->due[i].request);
    c->count = 0;
    doctor_stop(c->doctor);
    int64_t until_ms = broker_now(b) + GOODBYE_MS;
    while (!is_done(c) && broker_now(b) < until_ms)
        clock_sleep_ms(b->clock, 20);
    if (is_done(c)) {
        end(b);
        engine_free(TAKE(b->checkup_engine));
        return;
    }
    /* A file server hangs: the end of the program ends the thread. What it uses is left to it. */
    (void)pthread_detach(c->thread);
    b->checkup = NULL;
}
