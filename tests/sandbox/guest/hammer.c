/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sandbox-hammer: is every instant of a guest's disks, that the sandbox takes, one instant by the
 * guest's records? No part of the product takes part: a VM with two disks, a guest that writes as
 * fast as it goes and much of it zeroes, and round after round a snapshot or a backup that is
 * copied as the sandbox's references are (engine/references.c), judged, and merged or ended; while
 * guest and storage daemon are stopped and continued at random, the guest is killed, and its
 * connection is cut.
 *
 * The bracket is strict: the number acknowledged before, and one more than the number acknowledged
 * after. The first instant that is none ends it, with its images, the guest's numbers and its log.
 */
#include <argp.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/base/alloc.h"
#include "proto/base/clock.h"
#include "proto/base/file.h"
#include "tests/sandbox/block/block.h"
#include "tests/sandbox/guest/guest.h"
#include "tests/sandbox/guest/judge.h"

enum { MIB = 1 << 20, DISKS = 2, PATIENCE_MS = 120000, ROUNDS = 1000, ZEROES = 12 };
enum { SNAPSHOTS_MAX = 3, PAUSE_MAX_MS = 20, QUIET_MAX_MS = 40 };

struct volume {
    char *path; /* or the URI of a backup's export */
    enum block_format format;
};

struct hammer {
    struct pattern_spec spec;
    char dir[64];
    char *run, *spec_path;
    struct volume chains[DISKS][SNAPSHOTS_MAX + 1]; /* the guest writes the last of each */
    size_t depth;                                   /* of each */
    unsigned volumes, bitmaps;                      /* made so far, for their names */
    struct block_vm *block;
    struct guest *guest;
    uint64_t random;
    /* What stands still from time to time. The lock is held while a pid is used or changes. */
    pthread_mutex_t lock;
    atomic_bool over;
    uint64_t instants, backups, frozen, hidden, restarts, cuts, crashes;
};

#define MUST(call)                                                                                 \
    do {                                                                                           \
        struct err err = ERR_INIT;                                                                 \
        if (!(call)) {                                                                             \
            (void)fprintf(stderr, "sandbox-hammer: %s: %s: %s\n", #call, err_code_name(err.code),  \
                          err.message);                                                            \
            exit(EXIT_FAILURE);                                                                    \
        }                                                                                          \
    } while (0)

/* xorshift64: the rounds follow from the seed, the instants do not. */
static uint64_t draw(uint64_t *random, uint64_t below)
{
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    return (*random >> 11) % below;
}

/* --- The VM
 * ---------------------------------------------------------------------------------------------- */

static struct volume new_volume(struct hammer *h, size_t disk, enum block_format format)
{
    return (struct volume){.path = xasprintf("%s/v%u-%zu", h->dir, h->volumes++, disk),
                           .format = format};
}

static void make_volumes(struct hammer *h)
{
    for (size_t i = 0; i < DISKS; i++) {
        h->chains[i][0] = new_volume(h, i, i == 0 ? BLOCK_QCOW2 : BLOCK_RAW);
        const struct volume *base = &h->chains[i][0];
        MUST(block_volume_create(base->path, base->format, h->spec.disks[i].size_bytes, NULL,
                                 BLOCK_RAW, &err));
    }
    h->depth = 1;
}

static void start_block(struct hammer *h)
{
    struct block_disk disks[DISKS] = {0};
    for (size_t i = 0; i < DISKS; i++) {
        memcpy(disks[i].id, h->spec.disks[i].id, sizeof disks[i].id);
        disks[i].path = h->chains[i][h->depth - 1].path;
        disks[i].format = h->chains[i][h->depth - 1].format;
    }
    MUST(h->block = block_vm_start(h->run, disks, DISKS, &err));
}

static void start_guest(struct hammer *h)
{
    struct guest_disk disks[DISKS];
    char *uris[DISKS];
    for (size_t i = 0; i < DISKS; i++) {
        uris[i] = block_vm_nbd_uri(h->block, h->spec.disks[i].id);
        disks[i] = (struct guest_disk){h->spec.disks[i].id, uris[i]};
    }
    const struct guest_opts opts = {.run_dir = h->run,
                                    .spec_path = h->spec_path,
                                    .disks = disks,
                                    .disk_count = DISKS,
                                    .fill = true};
    MUST(h->guest = guest_start(&opts, &err));
    for (size_t i = 0; i < DISKS; i++)
        free(uris[i]);
}

static uint64_t acked(struct hammer *h)
{
    struct guest_state state = {0};
    MUST(guest_state(h->guest, &state, &err));
    return state.acked;
}

static void go_on(struct hammer *h, uint64_t more)
{
    MUST(guest_wait(h->guest, acked(h) + more, PATIENCE_MS, &err));
}

/* --- What disturbs
 * --------------------------------------------------------------------------------------- */

static void stand_still(pid_t pid, uint64_t ms)
{
    (void)kill(pid, SIGSTOP);
    clock_sleep_ms(clock_system(), (int64_t)ms);
    (void)kill(pid, SIGCONT);
}

static void *disturb(void *arg)
{
    struct hammer *h = arg;
    uint64_t random = h->spec.seed + 1;
    while (!atomic_load(&h->over)) {
        clock_sleep_ms(clock_system(), (int64_t)draw(&random, QUIET_MAX_MS));
        uint64_t ms = draw(&random, PAUSE_MAX_MS);
        bool daemon = draw(&random, 2) == 0;
        pthread_mutex_lock(&h->lock);
        stand_still(daemon ? block_vm_pid(h->block) : guest_pid(h->guest), ms);
        pthread_mutex_unlock(&h->lock);
    }
    return NULL;
}

static void restart_guest(struct hammer *h)
{
    uint64_t at = acked(h);
    pthread_mutex_lock(&h->lock);
    guest_stop(h->guest);
    start_guest(h);
    pthread_mutex_unlock(&h->lock);
    MUST(guest_wait(h->guest, at + 1, PATIENCE_MS, &err)); /* it has looked at its disks then */
    h->restarts++;
}

/* What was not flushed may be lost; the guest writes it again before anything else. An answer may
 * still be on its way to it when the daemon is dead: the second write after that is made anew. */
static void restart_daemon(struct hammer *h)
{
    pthread_mutex_lock(&h->lock);
    (void)kill(block_vm_pid(h->block), SIGKILL);
    block_vm_stop(h->block);
    uint64_t at = acked(h);
    start_block(h);
    pthread_mutex_unlock(&h->lock);
    MUST(guest_wait(h->guest, at + 2, PATIENCE_MS, &err));
    MUST(block_vm_drop_bitmaps(h->block, h->spec.disks[0].id, NULL, &err)); /* broken by it */
    h->crashes++;
}

/* A fault filter comes and goes; with it goes the connection, and with that perhaps a write. */
static void cut_connection(struct hammer *h)
{
    const char *disk = h->spec.disks[draw(&h->random, DISKS)].id;
    MUST(block_vm_set_write_error(h->block, disk, ENOSPC, &err));
    MUST(block_vm_set_write_error(h->block, disk, 0, &err));
    h->cuts++;
}

/* --- Instants
 * -------------------------------------------------------------------------------------------- */

struct instant {
    const char *kind;
    uint64_t after, before;
};

static void fail_at(struct hammer *h, const struct instant *x, const struct judge_verdict *v)
{
    (void)printf("a %s between %" PRIu64 " and %" PRIu64 " is no instant: highest %" PRIu64
                 ", nearest %" PRIu64 ", %" PRIu64 " blocks wrong: %s\nkept: %s\n",
                 x->kind, x->after, x->before, v->highest, v->nearest, v->wrong_blocks, v->why,
                 h->dir);
    (void)fflush(stdout);
    guest_stop(h->guest);
    block_vm_stop(h->block);
    exit(EXIT_FAILURE);
}

/* Whether a record that was made by then is under zeroes, and none after it is there. */
static bool hides_a_record(const struct hammer *h, const struct judge_verdict *v)
{
    for (uint64_t n = v->highest + 1; n <= v->s_min; n++) {
        if (pattern_write_at(&h->spec, n).kind == PATTERN_RECORD)
            return true;
    }
    return false;
}

/* Copy as engine/references.c does, and judge. The guest goes on meanwhile. */
static void expect_instant(struct hammer *h, const struct instant *x, const struct volume *volumes)
{
    char *copies[DISKS];
    struct judge_opts opts = {.spec = &h->spec, .after = x->after, .before = x->before};
    for (size_t i = 0; i < DISKS; i++) {
        opts.images[i] = copies[i] = xasprintf("%s/copy-%zu.raw", h->dir, i);
        MUST(block_volume_flatten(volumes[i].path, volumes[i].format, copies[i], &err));
    }
    struct judge_verdict v;
    MUST(judge_images(&opts, &v, &err));
    if (!v.good)
        fail_at(h, x, &v);
    h->instants++;
    h->hidden += hides_a_record(h, &v);
    for (size_t i = 0; i < DISKS; i++) {
        (void)unlink(copies[i]);
        free(copies[i]);
    }
}

/* A guest without a connection says no, which is fine; what it was told it may obey later. */
static bool freeze(struct hammer *h)
{
    struct err err = ERR_INIT;
    if (!guest_freeze(h->guest, PATIENCE_MS, NULL, &err))
        return false;
    h->frozen++;
    return true;
}

static struct instant take_snapshot(struct hammer *h)
{
    struct block_overlay overlays[DISKS] = {0};
    for (size_t i = 0; i < DISKS; i++) {
        h->chains[i][h->depth] = new_volume(h, i, BLOCK_QCOW2);
        memcpy(overlays[i].disk_id, h->spec.disks[i].id, sizeof overlays[i].disk_id);
        overlays[i].path = h->chains[i][h->depth].path;
    }
    bool frozen = draw(&h->random, 4) == 0 && freeze(h);
    struct instant x = {.kind = "snapshot", .after = acked(h)};
    MUST(block_vm_snapshot(h->block, overlays, DISKS, &err));
    x.before = acked(h) + !frozen;
    if (frozen)
        MUST(guest_thaw(h->guest, PATIENCE_MS, &err));
    h->depth++;
    return x;
}

/* What lies upon layer `index` goes down into it. */
static void merge_into(struct hammer *h, size_t index)
{
    for (size_t i = 0; i < DISKS; i++) {
        struct volume *chain = h->chains[i], *top = &chain[index + 1];
        MUST(block_vm_merge(h->block, h->spec.disks[i].id, top->path, chain[index].path, 0, &err));
        (void)unlink(top->path);
        free(top->path);
        memmove(top, top + 1, (h->depth - index - 2) * sizeof *top);
    }
    h->depth--;
}

static void expect_layer(struct hammer *h, const struct instant *x, size_t index)
{
    const struct volume volumes[DISKS] = {h->chains[0][index], h->chains[1][index]};
    expect_instant(h, x, volumes);
}

/* Some snapshots, each looked at, and merged from anywhere; those that are left are as they were.
 */
static void hammer_snapshots(struct hammer *h)
{
    struct instant x[SNAPSHOTS_MAX + 1] = {0};
    size_t count = 1 + draw(&h->random, SNAPSHOTS_MAX);
    for (size_t i = 0; i < count; i++) {
        x[i] = take_snapshot(h);
        if (draw(&h->random, 2) == 0)
            go_on(h, draw(&h->random, 100));
        expect_layer(h, &x[i], i);
    }
    while (h->depth > 1) {
        size_t index = draw(&h->random, h->depth - 1);
        merge_into(h, index);
        memmove(&x[index], &x[index + 1], (h->depth - index) * sizeof *x);
        if (h->depth > 1)
            expect_layer(h, &x[h->depth - 2], h->depth - 2);
    }
}

/* As the engine's backups: every one begins a bitmap on the disk that can have them, and all go
 * from time to time. */
static void hammer_backup(struct hammer *h)
{
    struct block_backup parts[DISKS] = {0};
    struct volume volumes[DISKS];
    SCOPED_FREE char *bitmap = xasprintf("c%u", h->bitmaps++);
    char *scratch[DISKS];
    for (size_t i = 0; i < DISKS; i++) {
        parts[i].scratch = scratch[i] = xasprintf("%s/s%zu", h->dir, i);
        parts[i].begin = i == 0 ? bitmap : NULL;
        memcpy(parts[i].disk_id, h->spec.disks[i].id, sizeof parts[i].disk_id);
    }
    struct instant x = {.kind = "backup", .after = acked(h)};
    MUST(block_vm_backup_begin(h->block, parts, DISKS, &err));
    x.before = acked(h) + 1;
    for (size_t i = 0; i < DISKS; i++)
        volumes[i] = (struct volume){block_vm_backup_uri(h->block, parts[i].disk_id), BLOCK_RAW};
    go_on(h, draw(&h->random, 300));
    expect_instant(h, &x, volumes);
    h->backups++;
    MUST(block_vm_backup_end(h->block, &err));
    if (h->bitmaps % 8 == 0)
        MUST(block_vm_drop_bitmaps(h->block, h->spec.disks[0].id, NULL, &err));
    for (size_t i = 0; i < DISKS; i++) {
        free(volumes[i].path);
        free(scratch[i]);
    }
}

static void hammer_round(struct hammer *h)
{
    uint64_t what = draw(&h->random, 16);
    if (what == 0)
        restart_guest(h);
    else if (what == 1)
        cut_connection(h);
    else if (what == 2)
        restart_daemon(h);
    if (draw(&h->random, 4) == 0)
        hammer_backup(h);
    else
        hammer_snapshots(h);
}

/* --- All of it
 * ------------------------------------------------------------------------------------------ */

struct args {
    unsigned rounds, seed, zeroes;
};

static void set_up(struct hammer *h, const struct args *args)
{
    h->spec = (struct pattern_spec){
        .vm = "web1",
        .seed = args->seed,
        .common_seed = 1,
        .zeroes = args->zeroes,
        .disk_count = DISKS,
        .disks = {{"8fb9bea9-5b55-448a-9a1e-000000000001", 4 * MIB, 40, 50, 1},
                  {"8fb9bea9-5b55-448a-9a1e-000000000002", 2 * MIB, 20, 0, 1}}};
    h->random = args->seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
    (void)pthread_mutex_init(&h->lock, NULL);
    (void)snprintf(h->dir, sizeof h->dir, "/tmp/hammer-XXXXXX");
    if (!mkdtemp(h->dir)) {
        perror("sandbox-hammer");
        exit(EXIT_FAILURE);
    }
    h->run = xasprintf("%s/vm", h->dir);
    h->spec_path = xasprintf("%s/spec.json", h->dir);
    MUST(pattern_spec_save(&h->spec, h->spec_path, &err));
    make_volumes(h);
    start_block(h);
    start_guest(h);
    MUST(guest_wait(h->guest, 500, PATIENCE_MS, &err));
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    (void)type;
    (void)at;
    return remove(path);
}

/* What is on the disks in the end, when all was merged, is the last instant. */
static void finish(struct hammer *h)
{
    struct instant x = {.kind = "disk in the end"};
    guest_stop(h->guest);
    h->guest = NULL;
    SCOPED_FREE char *state_path = xasprintf("%s/writer.state", h->run);
    struct guest_state state = {0};
    MUST(guest_state_read(state_path, &state, &err));
    block_vm_stop(h->block);
    h->block = NULL;
    x.after = state.acked;
    x.before = state.acked + 1;
    expect_layer(h, &x, 0);
    for (size_t i = 0; i < DISKS; i++)
        free(h->chains[i][0].path);
    (void)nftw(h->dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    (void)pthread_mutex_destroy(&h->lock);
    free(h->run);
    free(h->spec_path);
}

static const struct argp_option options[] = {
    {"rounds", 'n', "N", 0, "So many rounds (1000), each of 1 to 3 snapshots or a backup", 0},
    {"seed", 's', "N", 0, "Another guest, other rounds (1)", 0},
    {"zeroes", 'z', "N", 0, "Of 64 writes, so many zero a group, and as many a block (12)", 0},
    {0},
};

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct args *a = state->input;
    unsigned *number = key == 'n' ? &a->rounds : key == 's' ? &a->seed : &a->zeroes;
    if (key != 'n' && key != 's' && key != 'z')
        return ARGP_ERR_UNKNOWN;
    char *end;
    errno = 0;
    unsigned long value = strtoul(arg, &end, 10);
    if (errno != 0 || *end != '\0' || end == arg || value == 0 ||
        value > (key == 'z' ? PATTERN_ZEROES_MAX : 100000000UL))
        argp_error(state, "'%s' is out of range", arg);
    *number = (unsigned)value;
    return 0;
}

static const struct argp parser = {
    options,
    parse_option,
    NULL,
    "Snapshots, backups and merges of a sandbox VM under a fast guest, and a judgement of each.",
    NULL,
    NULL,
    NULL};

int main(int argc, char **argv)
{
    struct args args = {.rounds = ROUNDS, .seed = 1, .zeroes = ZEROES};
    if (argp_parse(&parser, argc, argv, 0, NULL, &args) != 0)
        return EXIT_FAILURE;
    static struct hammer h;
    pthread_t disturber;
    set_up(&h, &args);
    if (pthread_create(&disturber, NULL, disturb, &h) != 0)
        return EXIT_FAILURE;
    for (unsigned i = 0; i < args.rounds; i++)
        hammer_round(&h);
    atomic_store(&h.over, true);
    (void)pthread_join(disturber, NULL);
    uint64_t writes = acked(&h);
    finish(&h);
    (void)printf("%" PRIu64 " instants of %" PRIu64 " writes are good: %" PRIu64
                 " of backups, %" PRIu64 " frozen, %" PRIu64
                 " whose last record lies under zeroes; the guest was killed %" PRIu64
                 " times, the daemon %" PRIu64 " times, and the guest cut off %" PRIu64 " times\n",
                 h.instants, writes, h.backups, h.frozen, h.hidden, h.restarts, h.crashes, h.cuts);
    return EXIT_SUCCESS;
}
