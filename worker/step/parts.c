/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/step/parts.h"

#include <inttypes.h>
#include <string.h>

#include "proto/base/alloc.h"
#include "proto/base/log.h"

enum {
    ASK_MS = 5000,           /* the question is repeated so often */
    ANSWER_MS = 15 * 1000,   /* a withdrawal that is not answered by then was not needed */
    END_MS = 10 * 60 * 1000, /* for all of them to end */
    CLEAN_MS = 60 * 1000,    /* for the clean-ups after them, from then on */
    LOOK_MS = 200,
    PIECES_AT_ONCE = 600, /* in one message: they are some 250 bytes each */
};

static const struct {
    const char *word;
    enum part_state state;
} words[] = {
    {"waiting", PART_WAITING}, {"running", PART_RUNNING},  {"succeeded", PART_DONE},
    {"failed", PART_UNDONE},   {"cancelled", PART_UNDONE},
};

bool parts_can(const struct task_run *run)
{
    return run->ops->take_parted != NULL;
}

static bool is_end(enum part_state state)
{
    return state == PART_DONE || state == PART_UNDONE;
}

bool part_has_ended(const struct part *part)
{
    return is_end(part->state);
}

static void pieces_done(struct wire_pieces *pieces)
{
    for (size_t i = 0; i < pieces->count; i++) {
        free(pieces->v[i].disk);
        free(pieces->v[i].from);
        free(pieces->v[i].image);
        free(pieces->v[i].path);
    }
    free(pieces->v);
    *pieces = (struct wire_pieces){0};
}

void parts_done(struct parts *p)
{
    for (size_t i = 0; i < p->count; i++) {
        struct part *part = &p->v[i];
        free(part->ask.snapshot);
        free(part->ask.point);
        pieces_done(&part->ask.pieces);
        free(part->task);
        free(part->worker);
        free(part->point);
        free(part->why);
    }
    free(p->v);
    *p = (struct parts){0};
}

struct part *parts_add(struct task_run *run, struct parts *p, struct wire_pieces *pieces)
{
    p->v = xreallocarray(p->v, p->count + 1, sizeof *p->v);
    struct part *part = &p->v[p->count++];
    *part = (struct part){.ask = {.of = run->offer->task, .n = (int64_t)p->count}};
    part->ask.pieces = *pieces;
    *pieces = (struct wire_pieces){0};
    return part;
}

/* ---- asking */

static void send(struct task_run *run, struct wire_parts *question)
{
    (void)run->ops->emit(run->ops_ctx, WIRE_PARTS, question, false);
    question->parts.count = question->withdraw.count = 0;
}

/* The parts that nobody has answered for, and the withdrawals. The rest is known: a question with
 * all pieces of all parts, again and again, would be a large one. What is too much for one message
 * goes in several: each part is known by its number. */
static void ask(struct task_run *run, struct parts *p)
{
    struct wire_part give[WIRE_PARTS_MAX];
    int64_t withdraw[WIRE_PARTS_MAX];
    struct wire_parts question = {
        .task = run->offer->task,
        .worker = (char *)(uintptr_t)run->worker,
        .attempt = run->offer->attempt,
        .fence = run->fence,
        .parts.v = give,
        .withdraw.v = withdraw,
    };
    size_t pieces = 0;
    for (size_t i = 0; i < p->count; i++) {
        const struct part *part = &p->v[i];
        bool is_new = part->state == PART_ASKED || (part->is_silent && !part->task);
        if (is_new && question.parts.count > 0 &&
            pieces + part->ask.pieces.count > PIECES_AT_ONCE) {
            send(run, &question);
            pieces = 0;
        }
        if (is_new) {
            give[question.parts.count++] = part->ask;
            pieces += part->ask.pieces.count;
        }
        /* In the same message: else it would be withdrawn before it is known. */
        if (part->is_silent || (part->withdrawn && !part_has_ended(part)))
            withdraw[question.withdraw.count++] = part->ask.n;
    }
    send(run, &question);
    p->due_ms = clock_mono_ms(run->clock) + ASK_MS;
}

void parts_give(struct task_run *run, struct parts *p)
{
    for (size_t i = 0; i < p->count; i++)
        log_info("part_given", LOG_I64("part", p->v[i].ask.n),
                 LOG_U64("pieces", p->v[i].ask.pieces.count));
    ask(run, p);
}

/* ---- answers */

static void replace(char **text, const char *by)
{
    if (!by || (*text && strcmp(*text, by) == 0))
        return;
    free(*text);
    *text = xstrdup(by);
}

/* The session it writes to holds what a clean-up must remove, if we do not come to it. */
static void note_session(struct task_run *run, const struct part *part)
{
    SCOPED_FREE char *name = xasprintf(HANDLE_PART "%" PRId64, part->ask.n);
    SCOPED_FREE char *session = xasprintf("%s.%" PRId64, part->task, part->fence);
    const char *known = handles_get(&run->handles, name);
    if (!known || strcmp(known, session) != 0)
        run_handle_set(run, name, session);
}

static enum part_state state_of(const struct wire_part_state *s, enum part_state before)
{
    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        if (strcmp(words[i].word, s->state) == 0)
            return words[i].state;
    }
    return before;
}

static void take_state(struct task_run *run, struct part *part, const struct wire_part_state *s)
{
    enum part_state before = part->state;
    part->state = state_of(s, before);
    replace(&part->task, s->task);
    replace(&part->worker, s->worker);
    replace(&part->point, s->point);
    if (part->state == PART_UNDONE)
        replace(&part->why, s->error && s->error->message ? s->error->message : s->state);
    part->bytes_done = s->bytes_done;
    part->fence = s->fence;
    if (run->offer->part == NULL && part->fence > 0 && part->ask.snapshot)
        note_session(run, part);
    if (part->state != before)
        log_info("part_state", LOG_I64("part", part->ask.n), LOG_STR("state", s->state),
                 LOG_STR("worker", part->worker), LOG_STR("why", part->why));
}

static void take_answer(struct task_run *run, struct parts *p, const struct wire_parted *parted)
{
    if (parted->fence != run->fence || strcmp(parted->task, run->offer->task) != 0)
        return;
    for (size_t i = 0; i < parted->states.count; i++) {
        const struct wire_part_state *s = &parted->states.v[i];
        for (size_t k = 0; k < p->count; k++) {
            if (p->v[k].ask.n != s->n)
                continue;
            /* What has ended stays so: an older answer may come late. */
            if (!part_has_ended(&p->v[k]))
                take_state(run, &p->v[k], s);
            else if (p->v[k].is_silent && is_end(state_of(s, PART_ASKED)))
                p->v[k].is_silent = false;
            p->v[k].unclean = s->cleanup_open;
        }
    }
}

static bool any_open(const struct parts *p)
{
    for (size_t i = 0; i < p->count; i++) {
        if (!part_has_ended(&p->v[i]))
            return true;
    }
    return false;
}

static bool any_silent(const struct parts *p)
{
    for (size_t i = 0; i < p->count; i++) {
        if (p->v[i].is_silent)
            return true;
    }
    return false;
}

static bool any_unclean(const struct parts *p)
{
    for (size_t i = 0; i < p->count; i++) {
        if (p->v[i].unclean)
            return true;
    }
    return false;
}

void parts_look(struct task_run *run, struct parts *p)
{
    struct wire_message m = {0};
    while (p->count > 0 && run->ops->take_parted(run->ops_ctx, &m)) {
        if (m.type == WIRE_PARTED)
            take_answer(run, p, m.as);
        wire_free(&m);
    }
    if ((any_open(p) || any_unclean(p) || any_silent(p)) && clock_mono_ms(run->clock) >= p->due_ms)
        ask(run, p);
}

/* ---- ending */

static void undone(struct part *part, const char *why)
{
    part->state = PART_UNDONE;
    replace(&part->why, why);
}

void parts_withdraw_idle(struct task_run *run, struct parts *p)
{
    int64_t now = clock_mono_ms(run->clock);
    bool any = false;
    for (size_t i = 0; i < p->count; i++) {
        struct part *part = &p->v[i];
        if (part->state != PART_ASKED && part->state != PART_WAITING)
            continue;
        any = any || !part->withdrawn;
        part->withdrawn = true;
        if (p->withdrawn_ms && now - p->withdrawn_ms >= ANSWER_MS) {
            undone(part, "the coordinator has not answered");
            part->is_silent = true;
        }
    }
    if (!p->withdrawn_ms)
        p->withdrawn_ms = now;
    if (any)
        ask(run, p);
}

void parts_warn_idle(struct task_run *run, const struct parts *p, const char *done)
{
    size_t idle = 0;
    for (size_t i = 0; i < p->count; i++)
        idle += p->v[i].worker == NULL;
    if (idle > 0)
        run_warn(run, "not-shared", NULL,
                 "%zu of %zu parts were taken by no other worker and %s by this one", idle,
                 p->count, done);
}

bool parts_end(struct task_run *run, struct parts *p, struct err *err)
{
    int64_t until = clock_mono_ms(run->clock) + END_MS;
    int64_t clean_until = clock_mono_ms(run->clock) + CLEAN_MS;
    bool any = false;
    for (size_t i = 0; i < p->count; i++) {
        any = any || (!p->v[i].withdrawn && !part_has_ended(&p->v[i]));
        p->v[i].withdrawn = true;
    }
    if (any)
        ask(run, p);
    for (;;) {
        parts_look(run, p);
        int64_t now = clock_mono_ms(run->clock);
        if (any_open(p))
            clean_until = now + CLEAN_MS;
        else if (!any_unclean(p) || now >= clean_until)
            return true;
        if (any_open(p) && now >= until)
            return err_set(err, ERR_TIMEOUT, 0,
                           "the coordinator has not told within %d s that all parts have ended",
                           END_MS / 1000);
        if (!run_sleep(run, LOOK_MS, err))
            return false;
    }
}

bool parts_are_unclean(struct task_run *run, struct parts *p)
{
    parts_look(run, p);
    return any_unclean(p);
}

bool parts_settle(struct task_run *run, struct parts *p, struct err *err)
{
    for (;;) {
        parts_look(run, p);
        if (!any_open(p) && !any_silent(p))
            return true;
        if (!run_sleep(run, LOOK_MS, err))
            return false;
    }
}
