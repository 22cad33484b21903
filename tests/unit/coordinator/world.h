/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small world around the desk, driven at random by test_property.c: the messages on their way,
 * the coordinator that is restarted between them, an engine with snapshots and attached disks, a
 * repository with points, and the workers.
 *
 * One story at a time: the numbers of chance are one sequence, which a seed begins.
 */
#pragma once

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

/* --- Chance --- */
void world_seed(uint64_t seed);
unsigned world_below(unsigned n);
bool world_chance(unsigned percent);

static inline int64_t world_now(const struct world *w)
{
    return w->bed->clock.mono_ms;
}
/* Of "vm-<n>"; -1 = it is none. */
int world_vm_index(const char *vm);

/* --- Messages and the coordinator --- */
/* To the coordinator; sometimes twice. Returns the message id, borrowed. */
const char *world_post(struct world *w, enum wire_type type, const void *message);
void world_pop_inbox(struct world *w, int count);
/* What the desk has sent goes to queues, workers and requesters. */
void world_route(struct world *w);
/* It handles some of what is on its way; sometimes it is killed. */
void world_coordinator_turn(struct world *w);

/* --- The engine and the repository --- */
int world_make_snapshot(struct world *w, const struct run *r);
/* -1 = it has none. */
int world_newest_snapshot(const struct world *w, const char *task);
/* False when a part has one of its disks attached: the engine refuses. */
bool world_remove_snapshots(struct world *w, const char *task);
/* By session, "<part's task>.<fence>". */
struct part_hold *world_hold_of(struct world *w, const char *session);
struct part_hold *world_hold_of_run(struct world *w, const struct run *r);
/* All points of a task's parts, as its worker finds them in the repository. */
void world_delete_points(struct world *w, const char *task);

/* --- Workers: world_worker.c --- */
/* It listens, takes, works, asks, crashes or loses its connection. */
void world_worker_turn(struct world *w, struct world_worker *k);
