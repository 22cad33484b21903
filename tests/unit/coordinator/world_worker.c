/* SPDX-License-Identifier: Apache-2.0 */
/* The workers of the random world, and what their runs do to the engine and the repository. */
#include <inttypes.h>
#include <string.h>

#include "tests/unit/coordinator/world.h"

static void renew(struct world *w, struct run *r)
{
    r->valid_until_ms = world_now(w) + LEASE_MS;
}

static void step(struct world *w, const struct world_worker *k, struct run *r, const char *name,
                 const char *state, int snapshot)
{
    char id[16];
    snprintf(id, sizeof id, "s%d", snapshot);
    struct wire_handle h = {S(r->is_part ? "attachment.d1" : "snapshot"), id};
    const struct wire_step s = {.task = r->task,
                                .worker = S(k->name),
                                .attempt = r->attempt,
                                .fence = r->fence,
                                .seq = ++r->seq,
                                .step = S(name),
                                .state = S(state),
                                .handles = {&h, snapshot >= 0}};
    world_post(w, WIRE_STEP, &s);
    renew(w, r);
}

/* Returns the message id, borrowed. */
static const char *claim(struct world *w, struct world_worker *k, const char *task, int64_t attempt,
                         int64_t fence)
{
    const struct wire_claim c = {
        .task = S(task), .worker = S(k->name), .attempt = attempt, .fence = fence};
    return memcpy(k->claims[k->claim_count++ % 64], world_post(w, WIRE_CLAIM, &c), ID_BYTES);
}

/* Whether an answer is to a claim of this process, not of one before it. */
static bool is_ours(const struct world_worker *k, const char *claim_id)
{
    for (int i = 0; i < 64; i++) {
        if (claim_id && strcmp(k->claims[i], claim_id) == 0)
            return true;
    }
    return false;
}

/* A repeated grant of a run that is over begins nothing, even if its offer came twice too. */
static bool has_ended(const struct world_worker *k, const char *task, int64_t fence)
{
    for (int i = 0; i < 64; i++) {
        if (k->ended[i].fence == fence && strcmp(k->ended[i].task, task) == 0)
            return true;
    }
    return false;
}

static void forget_run(struct world_worker *k, struct run *r)
{
    struct granted *e = &k->ended[k->ended_count++ % 64];
    e->fence = r->fence;
    memcpy(e->task, r->task, ID_BYTES);
    r->used = false;
}

static void requeue(struct world *w, struct world_worker *k)
{
    if (!k->claiming)
        return;
    int q = k->offer_queue;
    assert_true(w->offer_count[q] < QUEUE_MAX);
    memmove(w->offers[q] + 1, w->offers[q], (size_t)w->offer_count[q] * sizeof w->offers[q][0]);
    w->offers[q][0] = k->offer;
    w->offer_count[q]++;
    k->claiming = false;
}

static void take_offer(struct world *w, struct world_worker *k)
{
    int q = k->zone * LANE_COUNT + (int)world_below(LANE_COUNT);
    if (w->offer_count[q] == 0)
        return;
    k->offer = w->offers[q][0];
    w->offer_count[q]--;
    memmove(w->offers[q], w->offers[q] + 1, (size_t)w->offer_count[q] * sizeof w->offers[q][0]);
    const struct wire_offer *o = k->offer.as;
    k->offer_queue = q;
    for (int i = 0; i < SLOTS; i++) {
        const struct run *r = &k->runs[i];
        if (r->used && strcmp(r->task, o->task) == 0 && r->attempt == o->attempt) {
            wire_free(&k->offer); /* redelivered: it runs already */
            return;
        }
    }
    k->claiming = true;
    k->claim_ms = world_now(w);
    (void)claim(w, k, o->task, o->attempt, 0);
}

static struct run *free_slot(struct world_worker *k)
{
    for (int i = 0; i < SLOTS; i++) {
        if (!k->runs[i].used)
            return &k->runs[i];
    }
    return NULL;
}

static void note_cleanup(struct run *r, const struct wire_offer *o)
{
    for (size_t i = 0; i < o->cleanup.count; i++) {
        const struct wire_leftover *l = &o->cleanup.v[i];
        r->snapshots |= strcmp(l->kind, "snapshot") == 0;
        r->attachments |= strcmp(l->kind, "attachment") == 0;
        if (strcmp(l->kind, "part") == 0 && r->session_count < IDS_MAX)
            snprintf(r->sessions[r->session_count++], SESSION_BYTES, "%s", l->id);
    }
}

static int64_t part_fence_of(const struct world *w, const char *part)
{
    struct err err = ERR_INIT;
    SCOPED_TASK struct task t = {0};
    assert_true(ledger_task_get(desk_core(w->bed->desk)->ledger, part, &t, &err));
    return t.part_fence;
}

static void begin(struct world *w, struct world_worker *k, const struct wire_grant *g)
{
    struct run *r = free_slot(k);
    const struct wire_offer *o = k->offer.as;
    if (!r)
        return;
    *r = (struct run){.used = true,
                      .is_cleanup = strcmp(o->kind, "cleanup") == 0,
                      .attempt = o->attempt,
                      .fence = g->fence,
                      .valid_until_ms = k->claim_ms + LEASE_MS,
                      .work = 2 + (int)world_below(6)};
    snprintf(r->task, sizeof r->task, "%s", o->task);
    snprintf(r->of, sizeof r->of, "%s", o->cleanup_task ? o->cleanup_task : o->task);
    snprintf(r->vm, sizeof r->vm, "%s", o->vm ? o->vm : "");
    note_cleanup(r, o);
    r->is_part = wire_is_part(o->kind);
    if (r->is_part) {
        memcpy(r->of, o->part->of, ID_BYTES);
        r->part_fence = part_fence_of(w, r->task);
        r->work = 1 + (int)world_below(3);
    } else if (o->backup) {
        r->parts_max = (unsigned)o->backup->workers;
    }
    if (strcmp(o->kind, "inventory") == 0) {
        struct wire_vm_item vms[VMS];
        char ids[VMS][16];
        struct wire_item_list list = {.vms = vms};
        for (int i = 0; i < VMS; i++) {
            if (i % 2 != k->zone)
                continue;
            snprintf(ids[i], sizeof ids[i], "vm-%d", i);
            vms[list.vms_count++] = (struct wire_vm_item){.id = ids[i], .name = ids[i]};
        }
        const struct wire_items items = {.task = r->task,
                                         .worker = k->name,
                                         .attempt = r->attempt,
                                         .fence = r->fence,
                                         .page = 1,
                                         .items = &list};
        world_post(w, WIRE_ITEMS, &items);
        r->is_listing = true;
    }
    wire_free(&k->offer);
    k->claiming = false;
}

static void hear_parted(struct run *r, const struct wire_parted *p)
{
    if (strcmp(r->task, p->task) != 0 || r->fence != p->fence)
        return;
    r->ended = r->unclean = 0;
    for (size_t i = 0; i < p->states.count; i++) {
        const struct wire_part_state *s = &p->states.v[i];
        bool open = strcmp(s->state, "waiting") == 0 || strcmp(s->state, "running") == 0;
        r->ended |= !open ? 1U << s->n : 0;
        r->unclean |= s->cleanup_open ? 1U << s->n : 0;
    }
}

static void hear(struct world *w, struct world_worker *k)
{
    for (int i = 0; i < k->control_count; i++) {
        const struct wire_message *m = &k->control[i].m;
        const char *answers = k->control[i].correlation_id;
        bool ours = is_ours(k, answers);
        const struct wire_grant *g = m->as;
        const struct wire_deny *d = m->as;
        const struct wire_stop *s = m->as;
        const struct wire_offer *o = k->claiming ? k->offer.as : NULL;
        if (m->type == WIRE_GRANT && ours && o && strcmp(o->task, g->task) == 0 &&
            o->attempt == g->attempt && !has_ended(k, g->task, g->fence))
            begin(w, k, g);
        else if (m->type == WIRE_DENY && ours && o && strcmp(o->task, d->task) == 0 &&
                 o->attempt == d->attempt) {
            wire_free(&k->offer);
            k->claiming = false;
        }
        for (int n = 0; n < SLOTS; n++) {
            struct run *r = &k->runs[n];
            if (!r->used)
                continue;
            /* A grant that came twice is no answer to a later question. */
            if (m->type == WIRE_GRANT && strcmp(r->task, g->task) == 0 && r->fence == g->fence &&
                r->asked && answers && strcmp(answers, r->asked_id) == 0) {
                r->valid_until_ms = r->asked_ms + LEASE_MS;
                r->asked = false;
            } else if (m->type == WIRE_DENY && strcmp(r->task, d->task) == 0 &&
                       r->attempt == d->attempt) {
                forget_run(k, r);
            } else if (m->type == WIRE_STOP && strcmp(r->task, s->task) == 0) {
                r->stop = true;
            } else if (m->type == WIRE_PARTED) {
                hear_parted(r, m->as);
            }
        }
        sent_done(&k->control[i]);
    }
    k->control_count = 0;
}

static void end_run(struct world *w, struct world_worker *k, struct run *r, const char *status,
                    enum err_code code, int left)
{
    char id[16];
    snprintf(id, sizeof id, "s%d", left);
    struct wire_leftover leftover = {.kind = S("snapshot"), .vm = r->vm, .id = id};
    SCOPED_FREE char *point = xasprintf("%s.%" PRId64, r->task, r->fence);
    struct wire_error error = {.code = S(err_code_name(code)),
                               .retry = S(err_retry_name(err_retry(code))),
                               .message = S("by chance")};
    const struct wire_result result = {.task = r->task,
                                       .worker = k->name,
                                       .attempt = r->attempt,
                                       .fence = r->fence,
                                       .status = S(status),
                                       .error = code ? &error : NULL,
                                       .point = r->is_part && !code ? point : NULL,
                                       .leftovers = {&leftover, left >= 0},
                                       .pages = r->is_listing};
    world_post(w, WIRE_RESULT, &result);
    forget_run(k, r);
}

static void work_on_cleanup(struct world *w, struct world_worker *k, struct run *r)
{
    for (int i = 0; i < w->hold_count; i++) {
        if (r->attachments && strcmp(w->holds[i].part, r->of) == 0)
            w->holds[i].attached = false;
    }
    for (int i = 0; i < r->session_count; i++) {
        struct part_hold *h = world_hold_of(w, r->sessions[i]);
        h->revoked = !h->committed;
        h->committed = false;
    }
    if (r->snapshots && !world_remove_snapshots(w, r->of))
        end_run(w, k, r, "failed", ERR_CONFLICT, world_newest_snapshot(w, r->of));
    else
        end_run(w, k, r, "succeeded", ERR_NONE, -1);
}

/* Attach, copy, commit, detach; then say so. */
static void work_on_part(struct world *w, struct world_worker *k, struct run *r)
{
    struct part_hold *h = world_hold_of_run(w, r);
    bool gives_up = r->stop || (!w->healed && world_chance(5));
    if (r->seq == 0 && !w->healed && world_chance(5)) {
        end_run(w, k, r, "released", ERR_NONE, -1);
    } else if (r->seq == 0 && !gives_up) {
        h->attached = true;
        step(w, k, r, "attach", "handle", 1);
    } else if (gives_up && !h->committed) {
        h->attached = false;
        end_run(w, k, r, r->stop ? "cancelled" : "failed", r->stop ? ERR_CANCELLED : ERR_IO, -1);
    } else if (!h->committed && --r->work > 0) {
        step(w, k, r, "copy", "started", 1);
    } else if (!h->committed && h->revoked) {
        h->attached = false;
        end_run(w, k, r, "failed", ERR_STORE_REVOKED, -1);
    } else if (!h->committed) {
        h->committed = true;
        step(w, k, r, "commit", "done", 1);
    } else {
        h->attached = false;
        w->parts_done++;
        end_run(w, k, r, "succeeded", ERR_NONE, -1);
    }
}

/* Parts 1..parts_max - 1, some of them, or none: then it is the question. */
static void ask_parts(struct world *w, const struct world_worker *k, struct run *r, unsigned give,
                      unsigned withdraw)
{
    struct wire_piece piece = {
        .disk = S("d1"), .path = S("attach"), .size_bytes = 10, .length = 10};
    struct wire_part parts[WIRE_PARTS_MAX];
    int64_t numbers[WIRE_PARTS_MAX];
    struct wire_parts m = {.task = r->task,
                           .worker = S(k->name),
                           .attempt = r->attempt,
                           .fence = r->fence,
                           .parts = {parts, 0},
                           .withdraw = {numbers, 0}};
    for (unsigned n = 1; n < r->parts_max; n++) {
        if (give & 1U << n)
            parts[m.parts.count++] = (struct wire_part){
                .of = r->task, .n = n, .snapshot = S("s"), .pieces = {&piece, 1}};
        if (withdraw & 1U << n)
            numbers[m.withdraw.count++] = n;
    }
    world_post(w, WIRE_PARTS, &m);
    renew(w, r);
    r->given |= give & ((1U << r->parts_max) - 2);
}

/* Before what parts hold can go: wait for them, or withdraw them at some time. */
static bool parts_have_let_go(struct world *w, const struct world_worker *k, struct run *r,
                              unsigned withdraw_percent)
{
    if (!(r->given & ~r->ended) && !r->unclean)
        return true;
    if (world_chance(30))
        ask_parts(w, k, r, 0, world_chance(withdraw_percent) ? r->given : 0);
    return false;
}

/* Take back the snapshot, and the points of parts. False: not yet. */
static bool undo(struct world *w, const struct world_worker *k, struct run *r)
{
    if (!parts_have_let_go(w, k, r, 90) || !world_remove_snapshots(w, r->task))
        return false;
    world_delete_points(w, r->task);
    return true;
}

static void finish(struct world *w, struct world_worker *k, struct run *r, int held)
{
    /* A part whose clean-up lasts, or is lost: the snapshot stays for a clean-up of our own. */
    if (!parts_have_let_go(w, k, r, 10) && (w->healed || !world_chance(3)))
        return;
    world_delete_points(w, r->task);
    bool merged = (w->healed || world_chance(70)) && world_remove_snapshots(w, r->task);
    end_run(w, k, r, "succeeded", ERR_NONE, merged ? -1 : held);
}

/* One bit of work with a valid lease and a connection. */
static void work_on(struct world *w, struct world_worker *k, struct run *r)
{
    if (r->is_listing) {
        end_run(w, k, r, "succeeded", ERR_NONE, -1);
        return;
    }
    if (r->is_cleanup || r->is_part) {
        if (r->is_part)
            work_on_part(w, k, r);
        else
            work_on_cleanup(w, k, r);
        return;
    }
    if (r->seq == 0) { /* an earlier attempt's things first */
        if (undo(w, k, r))
            step(w, k, r, "precheck", "done", -1);
        return;
    }
    int held = world_newest_snapshot(w, r->task);
    if (r->stop) {
        if (undo(w, k, r))
            end_run(w, k, r, "cancelled", ERR_CANCELLED, -1);
    } else if (!w->healed && world_chance(6)) {
        static const enum err_code codes[] = {ERR_ENGINE_BUSY, ERR_NO_SPACE, ERR_IO,
                                              ERR_ENGINE_AUTH};
        bool clean = world_chance(50) && undo(w, k, r);
        if (clean || world_chance(30))
            end_run(w, k, r, "failed", codes[world_below(4)], clean ? -1 : held);
    } else if (!w->healed && world_chance(4)) {
        if (undo(w, k, r))
            end_run(w, k, r, "released", ERR_NONE, -1);
    } else if (held < 0) {
        held = world_make_snapshot(w, r);
        step(w, k, r, "snapshot", "handle", held);
    } else if (r->parts_max > 1 && world_chance(r->given ? 20 : 70)) {
        ask_parts(w, k, r, world_below(1U << r->parts_max), world_chance(10) ? r->given : 0);
    } else if (--r->work > 0) {
        step(w, k, r, "copy", "started", held);
    } else {
        finish(w, k, r, held);
    }
}

static void presence(struct world *w, struct world_worker *k)
{
    struct wire_running running[SLOTS];
    size_t count = 0;
    for (int i = 0; i < SLOTS; i++) {
        if (!k->runs[i].used)
            continue;
        running[count++] = (struct wire_running){k->runs[i].task, k->runs[i].fence};
        if (world_now(w) < k->runs[i].valid_until_ms)
            renew(w, &k->runs[i]);
    }
    const struct wire_presence p = {.worker = k->name,
                                    .zone = S(k->zone ? "dc2" : "dc1"),
                                    .state = S("up"),
                                    .slots_restore = 1,
                                    .slots_backup = 2,
                                    .slots_upkeep = 1,
                                    .running = running,
                                    .running_count = count};
    world_post(w, WIRE_PRESENCE, &p);
    k->presence_ms = world_now(w);
}

static void crash(struct world *w, struct world_worker *k)
{
    requeue(w, k);
    for (int i = 0; i < SLOTS; i++) {
        /* Hung, not dead: it may still act for as long as it believes in its lease. */
        if (k->runs[i].used && w->ghost_count < GHOSTS)
            w->ghosts[w->ghost_count++] = k->runs[i];
        k->runs[i].used = false;
    }
    for (int i = 0; i < k->control_count; i++)
        sent_done(&k->control[i]);
    k->control_count = 0;
    memset(k->claims, 0, sizeof k->claims);
    memset(k->ended, 0, sizeof k->ended);
    k->away = false;
    presence(w, k);
}

static void lose_connection(struct world *w, struct world_worker *k)
{
    requeue(w, k); /* unacknowledged */
    for (int i = 0; i < k->control_count; i++)
        sent_done(&k->control[i]);
    k->control_count = 0;
    k->away = true;
}

void world_worker_turn(struct world *w, struct world_worker *k)
{
    if (!w->healed && world_chance(1))
        crash(w, k);
    if (!w->healed && world_chance(2))
        lose_connection(w, k);
    if (k->away) {
        k->away = !w->healed && !world_chance(10);
        return;
    }
    hear(w, k);
    if (world_now(w) - k->presence_ms >= 10000)
        presence(w, k);
    if (k->claiming && world_now(w) - k->claim_ms > 15000)
        requeue(w, k);
    if (!k->claiming && free_slot(k) && world_chance(60))
        take_offer(w, k);
    struct run *r = &k->runs[world_below(SLOTS)];
    if (!r->used)
        return;
    if (world_now(w) < r->valid_until_ms) {
        work_on(w, k, r);
    } else if (!r->asked || world_now(w) - r->asked_ms > 20000) {
        r->asked = true;
        r->asked_ms = world_now(w);
        memcpy(r->asked_id, claim(w, k, r->task, r->attempt, r->fence), ID_BYTES);
    }
}
