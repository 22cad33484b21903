/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/coordinator/world.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* --- Chance --- */
static uint64_t rng;

unsigned world_below(unsigned n)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return (unsigned)((rng >> 11) % n);
}

bool world_chance(unsigned percent)
{
    return world_below(100) < percent;
}

void world_seed(uint64_t seed)
{
    rng = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
}

int world_vm_index(const char *vm)
{
    return strncmp(vm, "vm-", 3) == 0 ? (int)strtol(vm + 3, NULL, 10) : -1;
}

/* --- Messages to the coordinator --- */
const char *world_post(struct world *w, enum wire_type type, const void *message)
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
    if (!w->healed && world_chance(5)) {
        w->inbox[w->inbox_count] = *e;
        w->inbox[w->inbox_count++].body = xstrdup(e->body);
    }
    return e->id;
}

void world_pop_inbox(struct world *w, int count)
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
    int vm = t.vm ? world_vm_index(t.vm) : -1;
    if (vm < 0)
        return;
    assert_true(g->fence > w->fences[vm]);
    w->fences[vm] = g->fence;
}

void world_route(struct world *w)
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
    world_route(w);
}

void world_coordinator_turn(struct world *w)
{
    struct err err = ERR_INIT;
    int count = w->inbox_count ? 1 + (int)world_below((unsigned)w->inbox_count) : 0;
    w->bed->keep_outbox = !w->healed && world_chance(30);
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
    if (!w->healed && world_chance(2)) { /* killed before the commit */
        restart_coordinator(w);
        return;
    }
    bed_commit(w->bed);
    if (!w->healed && world_chance(2)) { /* ... or after it, before the acks */
        bed_drop(w->bed);
        restart_coordinator(w);
        return;
    }
    world_pop_inbox(w, count);
    world_route(w);
}

/* --- The engine --- */
int world_make_snapshot(struct world *w, const struct run *r)
{
    assert_true(w->snapshot_count < SNAPSHOTS_MAX);
    struct snapshot *s = &w->snapshots[w->snapshot_count];
    s->exists = true;
    s->id = w->snapshot_count;
    memcpy(s->vm, r->vm, sizeof s->vm);
    memcpy(s->task, r->task, sizeof s->task);
    return w->snapshot_count++;
}

struct part_hold *world_hold_of(struct world *w, const char *session)
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

struct part_hold *world_hold_of_run(struct world *w, const struct run *r)
{
    char session[SESSION_BYTES];
    snprintf(session, sizeof session, "%s.%" PRId64, r->task, r->fence);
    struct part_hold *h = world_hold_of(w, session);
    memcpy(h->of, r->of, ID_BYTES);
    return h;
}

bool world_remove_snapshots(struct world *w, const char *task)
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

void world_delete_points(struct world *w, const char *task)
{
    for (int i = 0; i < w->hold_count; i++) {
        if (strcmp(w->holds[i].of, task) == 0)
            w->holds[i].committed = false;
    }
}

int world_newest_snapshot(const struct world *w, const char *task)
{
    for (int i = w->snapshot_count - 1; i >= 0; i--) {
        if (w->snapshots[i].exists && strcmp(w->snapshots[i].task, task) == 0)
            return i;
    }
    return -1;
}
