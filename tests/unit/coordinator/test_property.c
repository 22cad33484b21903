/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small world around the desk, driven at random: workers that claim, work, give parts away,
 * crash, hang and lose their connection; messages that come twice; a coordinator that is killed
 * before or after a commit. Whatever happens:
 *
 *   - no two workers hold a valid lease (by their own clocks) for one VM at one time, but for the
 *     parts of the one run that gave them away, each on a worker of its own;
 *   - the fence of a VM only rises;
 *   - counters and leases agree with the tasks;
 *   - once the world heals, every request ends, with one outcome for each of its tasks and one
 *     finished, and nothing is left behind in the engine.
 *
 * Each seed is one story; a failing one is printed and can be run alone: OXBOW_SEED=n.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/coordinator/bed.h"

enum {
    WORKERS = 6,
    GHOSTS = 64, /* hung processes whose successor runs already */
    SLOTS = 3,
    VMS = 6,
    REQUESTS = 8,
    QUEUE_MAX = 4096,
    SNAPSHOTS_MAX = 512,
    HOLDS_MAX = 4096,
    IDS_MAX = 8,
    SESSION_BYTES = 64,
    LEASE_MS = 60000,
};

/* --- Chance --- */
static uint64_t rng;

static unsigned below(unsigned n)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return (unsigned)((rng >> 11) % n);
}

static bool chance(unsigned percent)
{
    return below(100) < percent;
}

/* --- The world --- */
struct event { /* on its way to the coordinator */
    enum wire_type type;
    char id[ID_BYTES];
    char *body;
};

struct run {
    bool used, is_listing, is_cleanup, is_part, stop, asked;
    char task[ID_BYTES], of[ID_BYTES], vm[32];
    char asked_id[ID_BYTES]; /* of the claim that asks */
    int64_t attempt, fence, seq, valid_until_ms, asked_ms;
    int work; /* steps left */
    /* A part: the main task's fence. A main task: bits of its parts, by number. */
    int64_t part_fence;
    unsigned parts_max, given, ended, unclean;
    /* A clean-up: the sessions of parts. */
    char sessions[IDS_MAX][SESSION_BYTES];
    int session_count;
    bool snapshots, attachments;
};

struct granted {
    char task[ID_BYTES];
    int64_t attempt, fence;
};

struct world_worker {
    char name[16];
    int zone;
    bool away; /* no connection */
    bool claiming;
    struct wire_message offer; /* held, not acknowledged */
    int offer_queue;
    int64_t claim_ms;
    struct run runs[SLOTS];
    struct sent control[256];
    int control_count;
    char claims[64][ID_BYTES]; /* message ids of this process's claims */
    unsigned claim_count;
    struct granted ended[64]; /* runs of this process that are over */
    unsigned ended_count;
    int64_t presence_ms;
};

struct snapshot {
    bool exists;
    char vm[32], task[ID_BYTES];
    int id;
};

/* What a part holds: the snapshot's disk, then a point; or the fact that it may never commit. */
struct part_hold {
    bool attached, committed, revoked;
    char session[SESSION_BYTES], part[ID_BYTES], of[ID_BYTES];
};

struct world {
    struct bed *bed;
    struct part_hold holds[HOLDS_MAX];
    int hold_count;
    int parts_done; /* so that a world without any is noticed */
    struct granted grants[QUEUE_MAX];
    int grant_count;
    struct event inbox[QUEUE_MAX];
    int inbox_count;
    struct wire_message offers[2 * LANE_COUNT][QUEUE_MAX];
    int offer_count[2 * LANE_COUNT];
    struct world_worker workers[WORKERS];
    struct run ghosts[GHOSTS];
    int ghost_count;
    struct snapshot snapshots[SNAPSHOTS_MAX];
    int snapshot_count;
    int64_t fences[VMS];
    char requests[REQUESTS][ID_BYTES];
    int request_count;
    bool healed;
    bool mild; /* nobody cancels, and few run out of time: more comes to its own end */
    /* What requesters were told: message ids, so that doubles count once. */
    char told[QUEUE_MAX][ID_BYTES];
    int told_count;
    int finished[REQUESTS], outcomes[REQUESTS];
    int64_t promised[REQUESTS];
};

static int64_t now(const struct world *w)
{
    return w->bed->clock.mono_ms;
}

static int vm_index(const char *vm)
{
    return strncmp(vm, "vm-", 3) == 0 ? (int)strtol(vm + 3, NULL, 10) : -1;
}

/* --- Messages to the coordinator --- */
/* Returns the message id, borrowed. */
static const char *post(struct world *w, enum wire_type type, const void *message)
{
    struct err err = ERR_INIT;
    size_t len;
    assert_true(w->inbox_count < QUEUE_MAX - 1);
    struct event *e = &w->inbox[w->inbox_count++];
    e->type = type;
    id_new(e->id);
    e->body = wire_encode(type, message, &len, &err);
    if (!e->body)
        fail_msg("%s", err.message);
    /* Unconfirmed and sent again: the same message twice. */
    if (!w->healed && chance(5)) {
        w->inbox[w->inbox_count] = *e;
        w->inbox[w->inbox_count++].body = xstrdup(e->body);
    }
    return e->id;
}

static void pop_inbox(struct world *w, int count)
{
    for (int i = 0; i < count; i++)
        free(w->inbox[i].body);
    w->inbox_count -= count;
    memmove(w->inbox, w->inbox + count, (size_t)w->inbox_count * sizeof *w->inbox);
}

/* --- Messages from the coordinator --- */
static struct world_worker *worker_named(struct world *w, const char *name)
{
    for (int i = 0; i < WORKERS; i++) {
        if (strcmp(w->workers[i].name, name) == 0)
            return &w->workers[i];
    }
    fail_msg("no worker %s", name);
    return &w->workers[0];
}

static bool was_told(struct world *w, const char *message_id)
{
    for (int i = 0; i < w->told_count; i++) {
        if (strcmp(w->told[i], message_id) == 0)
            return true;
    }
    assert_true(w->told_count < QUEUE_MAX);
    memcpy(w->told[w->told_count++], message_id, ID_BYTES);
    return false;
}

static int request_index(const struct world *w, const char *id)
{
    for (int i = 0; i < w->request_count; i++) {
        if (strcmp(w->requests[i], id) == 0)
            return i;
    }
    return -1;
}

static void hear_reply(struct world *w, const struct sent *s)
{
    if (s->m.type == WIRE_OUTCOME && !was_told(w, s->message_id)) {
        int i = request_index(w, ((const struct wire_outcome *)s->m.as)->request);
        assert_true(i >= 0 && w->finished[i] == 0); /* finished is the last word */
        w->outcomes[i]++;
    } else if (s->m.type == WIRE_FINISHED && !was_told(w, s->message_id)) {
        const struct wire_finished *f = s->m.as;
        int i = request_index(w, f->request);
        if (i < 0)
            return; /* a cancel's own */
        w->finished[i]++;
        w->promised[i] = f->tasks_total;
    }
}

/* A grant may be repeated, unchanged; a new one has a higher fence than any before for its VM. */
static void note_fence(struct world *w, const struct wire_grant *g)
{
    struct err err = ERR_INIT;
    for (int i = 0; i < w->grant_count; i++) {
        const struct granted *known = &w->grants[i];
        if (known->attempt == g->attempt && strcmp(known->task, g->task) == 0) {
            assert_int_equal(known->fence, g->fence);
            return;
        }
    }
    assert_true(w->grant_count < QUEUE_MAX);
    struct granted *new = &w->grants[w->grant_count++];
    new->attempt = g->attempt;
    new->fence = g->fence;
    memcpy(new->task, g->task, ID_BYTES);
    SCOPED_TASK struct task t = {0};
    struct ledger *l = desk_core(w->bed->desk)->ledger;
    assert_true(ledger_task_get(l, g->task, &t, &err));
    bool open = false;
    assert_true(ledger_task_has_open_part(l, g->task, &open, &err));
    assert_false(open); /* the next attempt waits for the parts of the one before */
    if (t.role == TASK_PART) {
        SCOPED_TASK struct task of = {0};
        assert_true(ledger_task_get(l, t.part_of, &of, &err));
        assert_string_not_equal(of.worker, g->worker);
        return;
    }
    int vm = t.vm ? vm_index(t.vm) : -1;
    if (vm < 0)
        return;
    assert_true(g->fence > w->fences[vm]);
    w->fences[vm] = g->fence;
}

static void route(struct world *w)
{
    for (size_t i = 0; i < w->bed->count; i++) {
        struct sent *s = &w->bed->sent[i];
        if (s->m.type == WIRE_OFFER) {
            const struct wire_offer *o = s->m.as;
            enum lane lane;
            assert_true(lane_parse(o->lane, &lane));
            int q = (strcmp(o->zone, "dc2") == 0) * LANE_COUNT + (int)lane;
            assert_true(w->offer_count[q] < QUEUE_MAX);
            w->offers[q][w->offer_count[q]++] = s->m;
            s->m = (struct wire_message){0};
        } else if (strcmp(s->exchange, TOPOLOGY_CONTROL) == 0) {
            if (s->m.type == WIRE_GRANT)
                note_fence(w, s->m.as);
            struct world_worker *k = worker_named(w, s->key + strlen("worker."));
            if (!k->away && k->control_count < 256) {
                k->control[k->control_count++] = *s;
                *s = (struct sent){0};
            }
        } else {
            hear_reply(w, s);
        }
    }
    bed_drop(w->bed);
}

/* --- The coordinator --- */
static void restart_coordinator(struct world *w)
{
    bed_restart(w->bed);
    w->bed->seen_n = 0; /* the outbox is sent again */
    bed_turn(w->bed);
    route(w);
}

static void coordinator_turn(struct world *w)
{
    struct err err = ERR_INIT;
    int count = w->inbox_count ? 1 + (int)below((unsigned)w->inbox_count) : 0;
    w->bed->keep_outbox = !w->healed && chance(30);
    assert_true(desk_begin(w->bed->desk, &err));
    for (int i = 0; i < count; i++) {
        const struct event *e = &w->inbox[i];
        const struct desk_message m = {.source = DESK_EVENT,
                                       .type = wire_type_name(e->type),
                                       .message_id = e->id,
                                       .body = e->body,
                                       .len = strlen(e->body)};
        if (desk_handle(w->bed->desk, &m, &err) != DESK_DONE)
            fail_msg("%s", err.message);
    }
    if (!w->healed && chance(2)) { /* killed before the commit */
        restart_coordinator(w);
        return;
    }
    bed_commit(w->bed);
    if (!w->healed && chance(2)) { /* ... or after it, before the acks */
        bed_drop(w->bed);
        restart_coordinator(w);
        return;
    }
    pop_inbox(w, count);
    route(w);
}

/* --- The engine --- */
static int make_snapshot(struct world *w, const struct run *r)
{
    assert_true(w->snapshot_count < SNAPSHOTS_MAX);
    struct snapshot *s = &w->snapshots[w->snapshot_count];
    s->exists = true;
    s->id = w->snapshot_count;
    memcpy(s->vm, r->vm, sizeof s->vm);
    memcpy(s->task, r->task, sizeof s->task);
    return w->snapshot_count++;
}

static struct part_hold *hold_of(struct world *w, const char *session)
{
    for (int i = 0; i < w->hold_count; i++) {
        if (strcmp(w->holds[i].session, session) == 0)
            return &w->holds[i];
    }
    assert_true(w->hold_count < HOLDS_MAX);
    struct part_hold *h = &w->holds[w->hold_count++];
    snprintf(h->session, sizeof h->session, "%s", session);
    memcpy(h->part, session, ID_BYTES - 1);
    return h;
}

static struct part_hold *hold_of_run(struct world *w, const struct run *r)
{
    char session[SESSION_BYTES];
    snprintf(session, sizeof session, "%s.%" PRId64, r->task, r->fence);
    struct part_hold *h = hold_of(w, session);
    memcpy(h->of, r->of, ID_BYTES);
    return h;
}

/* False when a part has one of its disks attached: the engine refuses. */
static bool remove_snapshots(struct world *w, const char *task)
{
    for (int i = 0; i < w->hold_count; i++) {
        if (w->holds[i].attached && strcmp(w->holds[i].of, task) == 0)
            return false;
    }
    for (int i = 0; i < w->snapshot_count; i++) {
        if (strcmp(w->snapshots[i].task, task) == 0)
            w->snapshots[i].exists = false;
    }
    return true;
}

/* All points of a task's parts, as its worker finds them in the repository. */
static void delete_points(struct world *w, const char *task)
{
    for (int i = 0; i < w->hold_count; i++) {
        if (strcmp(w->holds[i].of, task) == 0)
            w->holds[i].committed = false;
    }
}

/* --- Workers --- */
static void renew(struct world *w, struct run *r)
{
    r->valid_until_ms = now(w) + LEASE_MS;
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
    post(w, WIRE_STEP, &s);
    renew(w, r);
}

/* Returns the message id, borrowed. */
static const char *claim(struct world *w, struct world_worker *k, const char *task, int64_t attempt,
                         int64_t fence)
{
    const struct wire_claim c = {
        .task = S(task), .worker = S(k->name), .attempt = attempt, .fence = fence};
    return memcpy(k->claims[k->claim_count++ % 64], post(w, WIRE_CLAIM, &c), ID_BYTES);
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
    int q = k->zone * LANE_COUNT + (int)below(LANE_COUNT);
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
    k->claim_ms = now(w);
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
                      .work = 2 + (int)below(6)};
    snprintf(r->task, sizeof r->task, "%s", o->task);
    snprintf(r->of, sizeof r->of, "%s", o->cleanup_task ? o->cleanup_task : o->task);
    snprintf(r->vm, sizeof r->vm, "%s", o->vm ? o->vm : "");
    note_cleanup(r, o);
    r->is_part = wire_is_part(o->kind);
    if (r->is_part) {
        memcpy(r->of, o->part->of, ID_BYTES);
        r->part_fence = part_fence_of(w, r->task);
        r->work = 1 + (int)below(3);
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
        post(w, WIRE_ITEMS, &items);
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
    post(w, WIRE_RESULT, &result);
    forget_run(k, r);
}

static int newest_snapshot(const struct world *w, const char *task)
{
    for (int i = w->snapshot_count - 1; i >= 0; i--) {
        if (w->snapshots[i].exists && strcmp(w->snapshots[i].task, task) == 0)
            return i;
    }
    return -1;
}

static void work_on_cleanup(struct world *w, struct world_worker *k, struct run *r)
{
    for (int i = 0; i < w->hold_count; i++) {
        if (r->attachments && strcmp(w->holds[i].part, r->of) == 0)
            w->holds[i].attached = false;
    }
    for (int i = 0; i < r->session_count; i++) {
        struct part_hold *h = hold_of(w, r->sessions[i]);
        h->revoked = !h->committed;
        h->committed = false;
    }
    if (r->snapshots && !remove_snapshots(w, r->of))
        end_run(w, k, r, "failed", ERR_CONFLICT, newest_snapshot(w, r->of));
    else
        end_run(w, k, r, "succeeded", ERR_NONE, -1);
}

/* Attach, copy, commit, detach; then say so. */
static void work_on_part(struct world *w, struct world_worker *k, struct run *r)
{
    struct part_hold *h = hold_of_run(w, r);
    bool gives_up = r->stop || (!w->healed && chance(5));
    if (r->seq == 0 && !w->healed && chance(5)) {
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
    post(w, WIRE_PARTS, &m);
    renew(w, r);
    r->given |= give & ((1U << r->parts_max) - 2);
}

/* Before what parts hold can go: wait for them, or withdraw them at some time. */
static bool parts_have_let_go(struct world *w, const struct world_worker *k, struct run *r,
                              unsigned withdraw_percent)
{
    if (!(r->given & ~r->ended) && !r->unclean)
        return true;
    if (chance(30))
        ask_parts(w, k, r, 0, chance(withdraw_percent) ? r->given : 0);
    return false;
}

/* Take back the snapshot, and the points of parts. False: not yet. */
static bool undo(struct world *w, const struct world_worker *k, struct run *r)
{
    if (!parts_have_let_go(w, k, r, 90) || !remove_snapshots(w, r->task))
        return false;
    delete_points(w, r->task);
    return true;
}

static void finish(struct world *w, struct world_worker *k, struct run *r, int held)
{
    /* A part whose clean-up lasts, or is lost: the snapshot stays for a clean-up of our own. */
    if (!parts_have_let_go(w, k, r, 10) && (w->healed || !chance(3)))
        return;
    delete_points(w, r->task);
    bool merged = (w->healed || chance(70)) && remove_snapshots(w, r->task);
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
    int held = newest_snapshot(w, r->task);
    if (r->stop) {
        if (undo(w, k, r))
            end_run(w, k, r, "cancelled", ERR_CANCELLED, -1);
    } else if (!w->healed && chance(6)) {
        static const enum err_code codes[] = {ERR_ENGINE_BUSY, ERR_NO_SPACE, ERR_IO,
                                              ERR_ENGINE_AUTH};
        bool clean = chance(50) && undo(w, k, r);
        if (clean || chance(30))
            end_run(w, k, r, "failed", codes[below(4)], clean ? -1 : held);
    } else if (!w->healed && chance(4)) {
        if (undo(w, k, r))
            end_run(w, k, r, "released", ERR_NONE, -1);
    } else if (held < 0) {
        held = make_snapshot(w, r);
        step(w, k, r, "snapshot", "handle", held);
    } else if (r->parts_max > 1 && chance(r->given ? 20 : 70)) {
        ask_parts(w, k, r, below(1U << r->parts_max), chance(10) ? r->given : 0);
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
        if (now(w) < k->runs[i].valid_until_ms)
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
    post(w, WIRE_PRESENCE, &p);
    k->presence_ms = now(w);
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

static void worker_turn(struct world *w, struct world_worker *k)
{
    if (!w->healed && chance(1))
        crash(w, k);
    if (!w->healed && chance(2))
        lose_connection(w, k);
    if (k->away) {
        k->away = !w->healed && !chance(10);
        return;
    }
    hear(w, k);
    if (now(w) - k->presence_ms >= 10000)
        presence(w, k);
    if (k->claiming && now(w) - k->claim_ms > 15000)
        requeue(w, k);
    if (!k->claiming && free_slot(k) && chance(60))
        take_offer(w, k);
    struct run *r = &k->runs[below(SLOTS)];
    if (!r->used)
        return;
    if (now(w) < r->valid_until_ms) {
        work_on(w, k, r);
    } else if (!r->asked || now(w) - r->asked_ms > 20000) {
        r->asked = true;
        r->asked_ms = now(w);
        memcpy(r->asked_id, claim(w, k, r->task, r->attempt, r->fence), ID_BYTES);
    }
}

/* --- What must always hold --- */
/* Beside a part runs nobody but who gave it away, elsewhere, and other parts, elsewhere too. */
static void check_part(const struct world *w, const struct run *part, const struct run *holder,
                       const struct world_worker *k)
{
    if (holder) {
        assert_string_equal(holder->task, part->of);
        assert_int_equal(holder->fence, part->part_fence);
    }
    for (int i = 0; i < SLOTS; i++) {
        const struct run *other = &k->runs[i];
        if (other == part || !other->used || now(w) >= other->valid_until_ms)
            continue;
        assert_string_not_equal(other->task, part->of);
        assert_false(other->is_part && strcmp(other->of, part->of) == 0);
    }
}

static void check_exclusion(const struct world *w)
{
    const struct run *holder[VMS] = {NULL};
    for (int i = 0; i < WORKERS * SLOTS + w->ghost_count; i++) {
        const struct run *r = i < WORKERS * SLOTS ? &w->workers[i / SLOTS].runs[i % SLOTS]
                                                  : &w->ghosts[i - WORKERS * SLOTS];
        int vm = r->used && !r->is_part ? vm_index(r->vm) : -1;
        if (vm < 0 || now(w) >= r->valid_until_ms)
            continue;
        if (holder[vm])
            fail_msg("vm-%d: task %s fence %" PRId64 " and task %s fence %" PRId64, vm,
                     holder[vm]->task, holder[vm]->fence, r->task, r->fence);
        holder[vm] = r;
    }
    for (int i = 0; i < WORKERS * SLOTS; i++) {
        const struct run *r = &w->workers[i / SLOTS].runs[i % SLOTS];
        if (r->used && r->is_part && now(w) < r->valid_until_ms)
            check_part(w, r, holder[vm_index(r->vm)], &w->workers[i / SLOTS]);
    }
}

/* --- Requesters --- */
static void ask(struct world *w)
{
    struct err err = ERR_INIT;
    if (w->request_count < REQUESTS && chance(20)) {
        int i = w->request_count++;
        struct wire_select select = {.all = true};
        struct wire_backup_opts opts = {.workers = chance(70) ? 2 + below(2) : 0};
        const struct wire_backup b = {
            .select = &select, .options = &opts, .deadline_s = chance(w->mild ? 2 : 20) ? 300 : 0};
        id_new(w->requests[i]);
        size_t len;
        SCOPED_FREE char *body = wire_encode(WIRE_BACKUP, &b, &len, &err);
        const struct bed_props props = {.type = wire_type_name(WIRE_BACKUP),
                                        .correlation_id = w->requests[i],
                                        .reply_to = "replies"};
        for (int n = chance(30) ? 2 : 1; n > 0; n--)
            assert_int_equal(bed_feed(w->bed, true, &props, body, &err), DESK_DONE);
    } else if (w->request_count > 0 && chance(w->mild ? 0 : 3)) {
        const struct wire_cancel c = {.request = w->requests[below((unsigned)w->request_count)]};
        bed_request(w->bed, WIRE_CANCEL, &c, &(struct bed_props){.reply_to = "canceller"});
    } else {
        return;
    }
    route(w);
}

static void pass_time(struct world *w)
{
    int64_t ms = chance(85) ? below(2000) : below(20000);
    w->bed->clock.mono_ms += ms;
    w->bed->clock.wall_ms += ms;
    check_exclusion(w);
}

static void tick(struct world *w)
{
    if (!w->healed)
        ask(w);
    worker_turn(w, &w->workers[below(WORKERS)]);
    check_exclusion(w);
    coordinator_turn(w);
    pass_time(w);
}

/* --- The story --- */
static bool is_quiet(struct world *w)
{
    struct err err = ERR_INIT;
    struct load_list loads;
    struct ledger *l = desk_core(w->bed->desk)->ledger;
    assert_true(ledger_load(l, &loads, &err));
    bool quiet = loads.count == 0;
    load_list_done(&loads);
    for (int i = 0; i < w->request_count; i++) {
        SCOPED_TASKS struct task_list tasks = {0};
        assert_true(ledger_task_of_request(l, w->requests[i], 0, 1000, &tasks, &err));
        for (size_t n = 0; n < tasks.count; n++)
            quiet &= !task_is_open(tasks.v[n].state);
    }
    return quiet && w->inbox_count == 0;
}

static void check_end(struct world *w)
{
    for (int i = 0; i < w->request_count; i++) {
        assert_int_equal(w->finished[i], 1);
        assert_int_equal(w->outcomes[i], w->promised[i]);
    }
    for (int i = 0; i < w->snapshot_count; i++) {
        if (w->snapshots[i].exists)
            fail_msg("snapshot s%d of task %s was left behind", i, w->snapshots[i].task);
    }
    for (int i = 0; i < w->hold_count; i++) {
        const struct part_hold *h = &w->holds[i];
        if (h->attached || h->committed)
            fail_msg("part %s of task %s left its %s behind", h->session, h->of,
                     h->attached ? "attachment" : "point");
    }
    bed_check(w->bed);
}

static void world_free(struct world *w)
{
    pop_inbox(w, w->inbox_count);
    for (int q = 0; q < 2 * LANE_COUNT; q++) {
        for (int i = 0; i < w->offer_count[q]; i++)
            wire_free(&w->offers[q][i]);
    }
    for (int i = 0; i < WORKERS; i++) {
        struct world_worker *k = &w->workers[i];
        if (k->claiming)
            wire_free(&k->offer);
        for (int n = 0; n < k->control_count; n++)
            sent_done(&k->control[n]);
    }
    bed_free(w->bed);
    free(w);
}

static int tell_story(uint64_t seed, int ticks)
{
    rng = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
    struct world *w = ALLOC_NEW(struct world);
    w->bed = bed_new("dc1", "dc2", NULL);
    w->bed->conf.limits.max_running = 6;
    w->mild = chance(50);
    for (int i = 0; i < WORKERS; i++) {
        snprintf(w->workers[i].name, sizeof w->workers[i].name, "w%d", i);
        w->workers[i].zone = i % 2;
    }
    for (int i = 0; i < ticks; i++) {
        tick(w);
        if (i % 50 == 0)
            bed_check(w->bed);
    }
    w->healed = true;
    int limit = 20000;
    while (!is_quiet(w) && limit-- > 0) {
        for (int i = 0; i < 20; i++)
            tick(w);
    }
    assert_true(limit > 0);
    check_end(w);
    int parts = w->parts_done;
    world_free(w);
    return parts;
}

static void every_story_ends_well(void **state)
{
    (void)state;
    const char *one = getenv("OXBOW_SEED"), *many = getenv("OXBOW_SEEDS");
    uint64_t first = one ? strtoull(one, NULL, 10) : 1;
    uint64_t last = one ? first : many ? strtoull(many, NULL, 10) : 15;
    int parts = 0;
    for (uint64_t seed = first; seed <= last; seed++) {
        print_message("seed %" PRIu64 "\n", seed);
        parts += tell_story(seed, 1500);
    }
    print_message("%d parts succeeded\n", parts);
    assert_true(one || parts > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_story_ends_well)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
