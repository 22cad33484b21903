/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/slots.h"

#include <stdio.h>
#include <string.h>

#include "proto/base/alloc.h"

void slots_init(struct slots *s, int restore, int backup, int upkeep)
{
    *s = (struct slots){
        .total = {[LANE_RESTORE] = restore, [LANE_BACKUP] = backup, [LANE_UPKEEP] = upkeep}};
}

static void job_free(struct job *job)
{
    wire_free(&job->message);
    free(job);
}

void slots_done(struct slots *s)
{
    while (s->jobs) {
        struct job *job = s->jobs;
        s->jobs = job->next;
        job_free(job);
    }
}

struct job *slots_add(struct slots *s, struct wire_message *offer, enum lane lane, uint64_t tag)
{
    struct job *job = ALLOC_NEW(struct job);
    const struct wire_offer *o = offer->as;
    job->state = JOB_WAITING;
    job->lane = lane;
    job->tag = tag;
    job->attempt = o->attempt;
    snprintf(job->task, sizeof job->task, "%s", o->task);
    snprintf(job->request, sizeof job->request, "%s", o->request ? o->request : "");
    job->message = *offer;
    *offer = (struct wire_message){0};
    struct job **at = &s->jobs;
    while (*at)
        at = &(*at)->next;
    *at = job;
    return job;
}

void slots_remove(struct slots *s, struct job *job)
{
    struct job **at = &s->jobs;
    while (*at != job)
        at = &(*at)->next;
    *at = job->next;
    if (job->state == JOB_RUNNING) {
        size_t i = s->ended_next++ % SLOTS_ENDED_KEPT;
        memcpy(s->ended[i].task, job->task, sizeof job->task);
        s->ended[i].fence = job->fence;
    }
    job_free(job);
}

struct job *slots_find(const struct slots *s, const char *task, int64_t attempt)
{
    for (struct job *job = s->jobs; job; job = job->next) {
        if (job->attempt == attempt && strcmp(job->task, task) == 0)
            return job;
    }
    return NULL;
}

struct job *slots_running_task(const struct slots *s, const char *task)
{
    for (struct job *job = s->jobs; job; job = job->next) {
        if (job->state == JOB_RUNNING && strcmp(job->task, task) == 0)
            return job;
    }
    return NULL;
}

bool slots_has_ended(const struct slots *s, const char *task, int64_t fence)
{
    for (size_t i = 0; i < SLOTS_ENDED_KEPT; i++) {
        if (s->ended[i].fence == fence && strcmp(s->ended[i].task, task) == 0)
            return true;
    }
    return false;
}

static int count(const struct slots *s, enum lane lane, enum job_state state)
{
    int n = 0;
    for (const struct job *job = s->jobs; job; job = job->next)
        n += job->lane == lane && job->state == state;
    return n;
}

int slots_not_running(const struct slots *s, enum lane lane)
{
    int left = s->total[lane] - count(s, lane, JOB_RUNNING);
    return left > 0 ? left : 0;
}

bool slots_can_run(const struct slots *s, const struct job *job)
{
    return slots_not_running(s, job->lane) > 0 && !slots_running_task(s, job->task);
}

bool slots_can_claim(const struct slots *s, const struct job *job)
{
    return job->state == JOB_WAITING && !slots_running_task(s, job->task) &&
           count(s, job->lane, JOB_CLAIMED) < slots_not_running(s, job->lane);
}

size_t slots_count_running(const struct slots *s)
{
    size_t n = 0;
    for (const struct job *job = s->jobs; job; job = job->next)
        n += job->state == JOB_RUNNING;
    return n;
}
