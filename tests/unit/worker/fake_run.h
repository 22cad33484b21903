/* SPDX-License-Identifier: Apache-2.0 */
/* A run without runner, engine or repository: its events are gathered as text, its clock and its
 * lease are the test's. */
#pragma once

#include <string.h>

#include "proto/base/alloc.h"
#include "proto/base/buf.h"
#include "worker/step/step.h"

#define FAKE_TASK "11111111-2222-4333-8444-555555555555"
#define FAKE_VM   "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"

struct fake_clock {
    struct clock clock; /* first: the ops cast back */
    int64_t now_ms;
};

static inline int64_t fake_now(const struct clock *c)
{
    return ((const struct fake_clock *)c)->now_ms;
}
static inline void fake_sleep(const struct clock *c, int64_t ms)
{
    struct fake_clock *f;
    memcpy(&f, &c, sizeof f);
    f->now_ms += ms;
}
static const struct clock_ops fake_clock_ops = {
    .mono_ms = fake_now, .wall_ms = fake_now, .sleep_ms = fake_sleep};

struct fake_run {
    struct task_run run;
    struct wire_offer offer;
    struct step_settings settings;
    struct fake_clock clock;
    struct buf log;        /* "snapshot:started snapshot:handle(snapshot=s1) ..." */
    enum err_code stopped; /* what stopped() says; ERR_NONE = go on */
    bool lease_lost, leaving;
    int lease_checks, events, copyings, items, aheads;
    int64_t last_seq;
    bool seq_broken;
};

static inline enum run_lease fake_lease_check(void *ctx, struct err *err)
{
    struct fake_run *f = ctx;
    f->lease_checks++;
    if (!f->lease_lost)
        return RUN_LEASE_VALID;
    err_set(err, ERR_LEASE_LOST, 0, "lost");
    return RUN_LEASE_LOST;
}

static inline bool fake_stopped(void *ctx, struct err *err)
{
    struct fake_run *f = ctx;
    if (f->stopped == ERR_NONE)
        return false;
    err_set(err, f->stopped, 0, "stopped by the test");
    return true;
}

static inline bool fake_leaving(void *ctx)
{
    return ((const struct fake_run *)ctx)->leaving;
}

static inline bool fake_emit(void *ctx, enum wire_type type, const void *message, bool ahead)
{
    struct fake_run *f = ctx;
    f->aheads += ahead;
    f->copyings += type == WIRE_COPYING;
    f->items += type == WIRE_ITEMS;
    /* Whatever a step sends must be something the codec takes. */
    struct err err = ERR_INIT;
    size_t len;
    char *body = wire_encode(type, message, &len, &err);
    if (!body)
        abort();
    free(body);
    if (type != WIRE_STEP)
        return true;
    const struct wire_step *s = message;
    f->events++;
    f->seq_broken |= s->seq != f->last_seq + 1;
    f->last_seq = s->seq;
    buf_printf(&f->log, "%s%s:%s", f->log.len ? " " : "", s->step, s->state);
    for (size_t i = 0; i < s->handles.count; i++)
        buf_printf(&f->log, "%c%s=%s", i ? ',' : '(', s->handles.v[i].name, s->handles.v[i].value);
    if (s->handles.count)
        buf_printf(&f->log, ")");
    return true;
}

static const struct run_ops fake_ops = {.lease_check = fake_lease_check,
                                        .stopped = fake_stopped,
                                        .emit = fake_emit,
                                        .is_leaving = fake_leaving};

static inline void fake_run_init(struct fake_run *f)
{
    static char task[] = FAKE_TASK, vm[] = FAKE_VM, kind[] = "backup", zone[] = "z",
                lane[] = "backup";
    *f = (struct fake_run){
        .offer = {.task = task,
                  .request = task,
                  .kind = kind,
                  .zone = zone,
                  .lane = lane,
                  .vm = vm,
                  .attempt = 1},
        .clock = {.clock = {.ops = &fake_clock_ops}, .now_ms = 1000},
    };
    buf_init(&f->log, 1 << 20);
    f->run = (struct task_run){.offer = &f->offer,
                               .worker = "w1",
                               .fence = 7,
                               .settings = &f->settings,
                               .clock = &f->clock.clock,
                               .ops = &fake_ops,
                               .ops_ctx = f};
}

static inline void fake_run_done(struct fake_run *f)
{
    run_done(&f->run);
    buf_done(&f->log);
}
