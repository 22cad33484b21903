/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a task costs the coordinator: tasks go through the whole state machine and its ledger on a
 * real disk, with as many messages each as a backup of one VM makes, in batches of different sizes.
 * No broker. Beside it, in the same run and on the same disk: what plain SQLite takes for a durable
 * commit, the floor for anything that must not forget.
 *
 * usage: coordinator_cost [FOLDER [TASKS]]      the folder (default .) says which disk
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <sqlite3.h>

#include "coordinator/desk.h"
#include "proto/base/id.h"

#define S(text) ((char *)(uintptr_t)(text))

enum {
    STEPS = 20,
    COPYING = 10,
    MESSAGES = 1 + STEPS + COPYING + 1,
    ROUND = 50,
    SQLITE_COMMITS = 200
};

static void die(const struct err *err)
{
    fprintf(stderr, "coordinator_cost: %s\n", err->message);
    exit(1);
}

static double now_s(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static double cpu_s(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* --- Feeding --- */
struct bench {
    struct desk *desk;
    int batch, in_batch;
    int64_t after_n;
    struct task_holds {
        char task[ID_BYTES];
        int64_t fence;
    } holds[ROUND];
    int offered;
};

static void take_outbox(struct bench *b)
{
    struct err err = ERR_INIT;
    for (;;) {
        struct outgoing_list list;
        if (!desk_outbox(b->desk, b->after_n, 500, &list, &err))
            die(&err);
        for (size_t i = 0; i < list.count; i++) {
            struct wire_message m = {0};
            b->after_n = list.v[i].n;
            desk_confirmed(b->desk, list.v[i].n);
            if (!wire_decode(list.v[i].type, list.v[i].body, strlen(list.v[i].body), &m, &err))
                die(&err);
            if (m.type == WIRE_OFFER && b->offered < ROUND)
                snprintf(b->holds[b->offered++].task, ID_BYTES, "%s",
                         ((const struct wire_offer *)m.as)->task);
            if (m.type == WIRE_GRANT) {
                const struct wire_grant *g = m.as;
                for (int h = 0; h < b->offered; h++) {
                    if (strcmp(b->holds[h].task, g->task) == 0)
                        b->holds[h].fence = g->fence;
                }
            }
            wire_free(&m);
        }
        size_t got = list.count;
        outgoing_list_done(&list);
        if (got == 0)
            return;
    }
}

static void end_batch(struct bench *b)
{
    struct err err = ERR_INIT;
    if (b->in_batch > 0 && !desk_commit(b->desk, &err))
        die(&err);
    b->in_batch = 0;
    take_outbox(b);
}

static void feed(struct bench *b, bool is_request, enum wire_type type, const void *message)
{
    struct err err = ERR_INIT;
    size_t len;
    SCOPED_FREE char *body = wire_encode(type, message, &len, &err);
    char id[ID_BYTES];
    id_new(id);
    if (!body || (b->in_batch == 0 && !desk_begin(b->desk, &err)))
        die(&err);
    const struct desk_message m = {.source = is_request ? DESK_REQUEST : DESK_EVENT,
                                   .type = wire_type_name(type),
                                   .message_id = id,
                                   .reply_to = "bench",
                                   .body = body,
                                   .len = len};
    if (desk_handle(b->desk, &m, &err) != DESK_DONE)
        die(&err);
    if (++b->in_batch >= b->batch)
        end_batch(b);
}

/* --- One round: tasks side by side, message by message --- */
static void step(struct bench *b, int h, int64_t seq)
{
    struct wire_handle handle = {S("snapshot"), S("5d6a5a8e-0000-4000-8000-000000000000")};
    const struct wire_step s = {.task = b->holds[h].task,
                                .worker = S("w"),
                                .attempt = 1,
                                .fence = b->holds[h].fence,
                                .seq = seq,
                                .step = S("copy"),
                                .state = S("done"),
                                .handles = {&handle, 1}};
    feed(b, false, WIRE_STEP, &s);
}

static void play_round(struct bench *b)
{
    for (int h = 0; h < b->offered; h++) {
        const struct wire_claim c = {.task = b->holds[h].task, .worker = S("w"), .attempt = 1};
        feed(b, false, WIRE_CLAIM, &c);
    }
    end_batch(b);
    for (int i = 1; i <= STEPS; i++) {
        for (int h = 0; h < b->offered; h++)
            step(b, h, i);
    }
    for (int i = 1; i <= COPYING; i++) {
        for (int h = 0; h < b->offered; h++) {
            const struct wire_copying c = {.task = b->holds[h].task,
                                           .worker = S("w"),
                                           .attempt = 1,
                                           .fence = b->holds[h].fence,
                                           .bytes_done = i,
                                           .bytes_total = COPYING};
            feed(b, false, WIRE_COPYING, &c);
        }
    }
    for (int h = 0; h < b->offered; h++) {
        const struct wire_result r = {.task = b->holds[h].task,
                                      .worker = S("w"),
                                      .attempt = 1,
                                      .fence = b->holds[h].fence,
                                      .status = S("succeeded")};
        feed(b, false, WIRE_RESULT, &r);
    }
    int done = b->offered;
    b->offered = 0;
    (void)done;
    end_batch(b);
}

static void run(const char *folder, int tasks, int batch)
{
    struct err err = ERR_INIT;
    SCOPED_FREE char *ledger = xasprintf("%s/bench-%d.db", folder, (int)getpid());
    struct conf_zone zone = {S("dc1"), 100000};
    int surplus = 0;
    int never = 0;
    struct coordinator_conf conf = {.ledger = ledger,
                                    .zones = &zone,
                                    .zones_count = 1,
                                    .limits = {ROUND, {100000, 100000, 100000}},
                                    .lease_s = 60,
                                    .max_attempts = 5,
                                    .offer_surplus = &surplus,
                                    .stop_limit_s = 1800,
                                    .janitor = {&never},
                                    .deadline_s = 86400,
                                    .keep_days = 30};
    struct bench b = {.desk = desk_new(&conf, clock_system(), &err), .batch = batch};
    if (!b.desk)
        die(&err);
    desk_set_connected(b.desk, true);
    const struct wire_presence p = {
        .worker = S("w"), .zone = S("dc1"), .state = S("up"), .slots_restore = ROUND};
    feed(&b, false, WIRE_PRESENCE, &p);
    end_batch(&b);
    struct wire_restore_opts opts = {.point = S("p"), .name = S("n")};
    const struct wire_restore ask = {.options = &opts};
    double wall = now_s(), cpu = cpu_s();
    for (int done = 0; done < tasks; done += ROUND) {
        for (int i = 0; i < ROUND; i++)
            feed(&b, true, WIRE_RESTORE, &ask);
        end_batch(&b);
        play_round(&b);
    }
    wall = now_s() - wall;
    cpu = cpu_s() - cpu;
    printf("batch %4d: %7.0f tasks/s %8.0f messages/s %7.0f us CPU per task\n", batch, tasks / wall,
           (double)tasks * (MESSAGES + 1) / wall, cpu / tasks * 1e6);
    desk_free(b.desk);
    static const char *const ends[] = {"", "-wal", "-shm", ".lock"};
    for (size_t i = 0; i < ARRAY_LEN(ends); i++) {
        SCOPED_FREE char *name = xasprintf("%s%s", ledger, ends[i]);
        (void)unlink(name);
    }
}

/* One row, one durable commit, again and again: SQLite by itself. */
static void run_sqlite(const char *folder)
{
    SCOPED_FREE char *path = xasprintf("%s/bench-sqlite-%d.db", folder, (int)getpid());
    sqlite3 *db = NULL;
    if (sqlite3_open(path, &db) != SQLITE_OK ||
        sqlite3_exec(db, "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE t(x)",
                     NULL, NULL, NULL) != SQLITE_OK) {
        fprintf(stderr, "coordinator_cost: %s\n", sqlite3_errmsg(db));
        exit(1);
    }
    double wall = now_s();
    for (int i = 0; i < SQLITE_COMMITS; i++)
        sqlite3_exec(db, "INSERT INTO t VALUES(zeroblob(300))", NULL, NULL, NULL);
    wall = now_s() - wall;
    printf("SQLite %s alone: %.0f durable commits/s\n", sqlite3_libversion(),
           SQLITE_COMMITS / wall);
    sqlite3_close(db);
    static const char *const ends[] = {"", "-wal", "-shm"};
    for (size_t i = 0; i < ARRAY_LEN(ends); i++) {
        SCOPED_FREE char *name = xasprintf("%s%s", path, ends[i]);
        (void)unlink(name);
    }
}

int main(int argc, char **argv)
{
    const char *folder = argc > 1 ? argv[1] : ".";
    int tasks = argc > 2 ? (int)strtol(argv[2], NULL, 10) : 1000;
    if (tasks < ROUND)
        tasks = ROUND;
    log_set_level(LOG_LEVEL_ERROR);
    printf("%d tasks of %d messages each, ledger in %s\n", tasks, MESSAGES + 1, folder);
    run_sqlite(folder);
    run(folder, tasks / 10 < ROUND ? ROUND : tasks / 10, 1);
    run(folder, tasks, 20);
    run(folder, tasks, 200);
    return 0;
}
