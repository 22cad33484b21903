/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A repository under thousands of random interleavings of the real code: writers (some of which die
 * or are revoked, some of which adopt what others have stored, or put their point together of
 * parts), collectors, a deleter, who sweeps parts too, a protector and a verifier, each a thread
 * that runs only when the scheduler lets it, and gives way before each call that touches the file
 * system. Runs are decided by a seed. A model keeps what was committed and deleted; in the end
 * every point of the model restores, bit by bit, and nothing else is left.
 *
 * OXBOW_INTERLEAVE_RUNS and OXBOW_INTERLEAVE_SEED choose how many and which.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "proto/base/log.h"
#include "support.h"
#include "worker/store/gc/marks.h"
#include "worker/store/gc/pins.h"
#include "worker/store/upkeep.h"

enum {
    ACTORS_MAX = 8,
    POINTS_MAX = 64,
    SEGMENT = 32 << 10,      /* images are made of these, of a few kinds: they share chunks */
    BIG_SEGMENT = 512 << 10, /* in some runs: several frames a pack, so that packs are compacted */
    SEGMENTS = 5,
    KINDS = 6,
};

/* ---- the scheduler: one actor runs, all others wait for their turn */

struct run;
struct actor {
    struct run *run;
    unsigned number;
    pthread_t thread;
    pthread_cond_t turn;
    bool is_done;
    bool is_dead;     /* killed: calls that change something fail, and do nothing, from here on */
    unsigned weight;  /* how often it is chosen */
    unsigned dies_in; /* calls until then; 0 = it does not */
    uint64_t seed;
    void (*play)(struct actor *self);
};

struct point {
    char id[32];
    unsigned kinds[SEGMENTS];
    bool is_committed, is_unsure, is_deleted;
    bool is_protected; /* by somebody who was told that it is */
};

struct run {
    const char *path;
    pthread_mutex_t lock; /* guards all of it; held by who runs, between calls */
    uint64_t seed;
    unsigned switch_in_16; /* how often a call gives way */
    size_t segment_bytes;
    struct actor actors[ACTORS_MAX];
    unsigned n_actors, running;
    struct point points[POINTS_MAX];
    size_t n_points;
    unsigned long switches;
    unsigned long adopted; /* packs */
    unsigned long kept;    /* segments of parts */
    char failure[512];
};

static _Thread_local struct actor *self_actor; /* NULL: not scheduled (the sealer, the test) */

static void choose_next(struct run *run)
{
    unsigned sum = 0;
    for (unsigned i = 0; i < run->n_actors; i++)
        sum += run->actors[i].is_done ? 0 : run->actors[i].weight;
    if (sum == 0)
        return;
    unsigned pick = (unsigned)(random_next(&run->seed) % sum);
    for (unsigned i = 0; i < run->n_actors; i++) {
        unsigned weight = run->actors[i].is_done ? 0 : run->actors[i].weight;
        if (pick < weight) {
            run->running = i;
            run->switches++;
            pthread_cond_signal(&run->actors[i].turn);
            return;
        }
        pick -= weight;
    }
}

static void wait_for_turn(struct actor *self)
{
    while (self->run->running != self->number)
        pthread_cond_wait(&self->turn, &self->run->lock);
}

/* Before a call. True: the caller has been killed, and must not do it. */
static bool give_way(void)
{
    struct actor *self = self_actor;
    if (!self)
        return false;
    if (self->dies_in > 0 && --self->dies_in == 0)
        self->is_dead = true;
    if (self->is_dead)
        return true;
    pthread_mutex_lock(&self->run->lock);
    if (random_next(&self->run->seed) % 16 < self->run->switch_in_16) {
        choose_next(self->run);
        wait_for_turn(self);
    }
    pthread_mutex_unlock(&self->run->lock);
    return false;
}

#define SCHEDULED(name, params, args)                                                              \
    int __real_##name params;                                                                      \
    int __wrap_##name params;                                                                      \
    int __wrap_##name params                                                                       \
    {                                                                                              \
        if (give_way()) {                                                                          \
            errno = EIO;                                                                           \
            return -1;                                                                             \
        }                                                                                          \
        return __real_##name args;                                                                 \
    }

SCHEDULED(linkat, (int d1, const char *p1, int d2, const char *p2, int flags),
          (d1, p1, d2, p2, flags))
SCHEDULED(renameat, (int d1, const char *p1, int d2, const char *p2), (d1, p1, d2, p2))
SCHEDULED(mkdirat, (int dir, const char *path, mode_t mode), (dir, path, mode))

int __real_openat(int dir, const char *path, int flags, ...);
int __wrap_openat(int dir, const char *path, int flags, ...);
int __wrap_openat(int dir, const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = flags & O_CREAT ? va_arg(args, mode_t) : 0;
    va_end(args);
    if (give_way()) {
        errno = EIO;
        return -1;
    }
    return __real_openat(dir, path, flags, mode);
}

/* Durability is not what is tried here. */
int __wrap_fsync(int fd);
int __wrap_fsync(int fd)
{
    (void)fd;
    return 0;
}

/* Ways to break the protocol: a test that cannot fail proves nothing. */
static enum { SOUND, WITHOUT_PINS, WITHOUT_PART_PINS, WITHOUT_MARKS, WITHOUT_STOPPING } sabotage;

int __real_unlinkat(int dir, const char *path, int flags);
int __wrap_unlinkat(int dir, const char *path, int flags);
int __wrap_unlinkat(int dir, const char *path, int flags)
{
    if (give_way()) {
        errno = EIO;
        return -1;
    }
    if (sabotage == WITHOUT_STOPPING && strncmp(path, "deleting/", 9) == 0)
        return 0;
    return __real_unlinkat(dir, path, flags);
}

bool __real_pin_put(int dirfd, const uint8_t repository[16], const char *session, unsigned n,
                    const struct pin *pin, struct err *err);
bool __wrap_pin_put(int dirfd, const uint8_t repository[16], const char *session, unsigned n,
                    const struct pin *pin, struct err *err);
bool __wrap_pin_put(int dirfd, const uint8_t repository[16], const char *session, unsigned n,
                    const struct pin *pin, struct err *err)
{
    size_t len = strlen(pin->point);
    bool is_left_out = sabotage == WITHOUT_PINS ||
                       (sabotage == WITHOUT_PART_PINS && len > 0 && pin->point[len - 1] == 'p');
    return is_left_out || __real_pin_put(dirfd, repository, session, n, pin, err);
}

bool __real_mark_list_put(int dirfd, const uint8_t repository[16], const struct mark_list *list,
                          struct err *err);
bool __wrap_mark_list_put(int dirfd, const uint8_t repository[16], const struct mark_list *list,
                          struct err *err);
bool __wrap_mark_list_put(int dirfd, const uint8_t repository[16], const struct mark_list *list,
                          struct err *err)
{
    return sabotage == WITHOUT_MARKS || __real_mark_list_put(dirfd, repository, list, err);
}

/* ---- what the actors do; the model is only touched by who runs */

static const struct store_opts small_opts = {
    .pack_bytes = 64 << 20, .dedup_cache_bytes = 1 << 18, .frame_cache_bytes = 4 << 20};

static struct disk_image make_image(const struct run *run, const struct point *p)
{
    size_t size = run->segment_bytes * SEGMENTS;
    struct disk_image image = {.id = "d", .data = xmalloc(size), .size = size};
    for (unsigned i = 0; i < SEGMENTS; i++)
        for (size_t at = 0; at < run->segment_bytes; at += 8) {
            uint64_t word = (uint64_t)p->kinds[i] << 32 | at / 512; /* compresses well */
            memcpy(image.data + i * run->segment_bytes + at, &word, sizeof word);
        }
    return image;
}

static void say_failure(struct run *run, const char *what, const char *id, const struct err *err)
{
    if (run->failure[0] == '\0')
        (void)snprintf(run->failure, sizeof run->failure, "%s %.40s: %.300s", what, id,
                       err->message);
}

static unsigned chance(struct actor *self, unsigned n)
{
    return (unsigned)(random_next(&self->seed) % n);
}

/* A former point to build upon, or NULL. */
static struct store_reader *open_parent(struct actor *self, struct store *store,
                                        struct store_point **ret_point)
{
    struct run *run = self->run;
    struct err err = ERR_INIT;
    *ret_point = NULL;
    if (run->n_points == 0 || chance(self, 3) == 0)
        return NULL;
    const struct point *p = &run->points[chance(self, (unsigned)run->n_points)];
    if (!p->is_committed || p->is_deleted)
        return NULL;
    char id[sizeof p->id];
    memcpy(id, p->id, sizeof id);
    *ret_point = store_point_open(store, id, &err);
    if (!*ret_point)
        return NULL; /* deleted just now */
    err_clear(&err);
    return store_disk_open(*ret_point, "d", &err);
}

/* Errors that a writer may meet although nothing is wrong. */
static bool is_expected(const struct actor *self, const struct err *err)
{
    return self->is_dead || err->code == ERR_STORE_REVOKED;
}

/* Declare somebody dead, who may be at work, and copy what it copies: as a take-over does. */
static const struct point *choose_victim(struct actor *self)
{
    const struct run *run = self->run;
    for (int i = 0; run->n_points > 0 && i < 3; i++) {
        const struct point *p = &run->points[chance(self, (unsigned)run->n_points)];
        if (!p->is_committed)
            return p;
    }
    return NULL;
}

static void adopt(struct actor *self, struct store *store, struct store_session *session,
                  const struct point *victim)
{
    struct err err = ERR_INIT;
    bool was_committed = false;
    struct store_adopted adopted = {0};
    if (!store_session_bequeath(store, victim->id, &was_committed, &err) ||
        (!was_committed && !store_session_adopt(session, victim->id, &adopted, &err))) {
        if (!self->is_dead)
            say_failure(self->run, "adopting", victim->id, &err);
    }
    self->run->adopted += adopted.packs;
}

static bool write_point(struct actor *self, struct store *store, const char *id,
                        const struct disk_image *image, const struct point *victim, struct err *err)
{
    struct store_session_opts opts = session_opts(id);
    struct store_point *parent_point;
    struct store_reader *parent = open_parent(self, store, &parent_point);
    struct store_session *session = store_session_begin(store, &opts, err);
    if (session && victim)
        adopt(self, store, session, victim);
    bool ok = session && write_image(session, image, self->run->segment_bytes, parent, NULL, err);
    if (ok && chance(self, 6) == 0) { /* its worker leaves: somebody else may go on */
        struct err ignored = ERR_INIT;
        (void)store_session_leave(session, &ignored);
        ok = err_set(err, ERR_STORE_REVOKED, 0, "left to others");
    }
    ok = ok && store_session_commit(session, NULL, err);
    store_session_free(session);
    store_reader_free(parent);
    store_point_free(parent_point);
    return ok;
}

/* ---- a point of parts */

struct wide {
    struct actor *self;
    struct store *store;
    const char *id; /* of the point; the part's is this with "p" */
    const struct disk_image *image;
    unsigned first; /* segment of the part */
    struct store_session *session;
    struct store_disk *disk;
    struct store_stream *stream;
};

static bool wide_write(struct wide *w, uint64_t offset, uint64_t len, struct err *err)
{
    return store_stream_write(w->stream, w->disk, offset, w->image->data + offset, (size_t)len,
                              err);
}

static bool wide_begin(struct wide *w, const char *id, const char *part_of,
                       struct store_reader *parent, struct err *err)
{
    struct store_session_opts opts = session_opts(id);
    struct store_disk_opts disk = {.id = "d", .size_bytes = w->image->size, .parent = parent};
    opts.part_of = part_of;
    w->session = store_session_begin(w->store, &opts, err);
    w->disk = w->session ? store_disk_begin(w->session, &disk, err) : NULL;
    w->stream = w->disk ? store_stream_begin(w->session, err) : NULL;
    return w->stream != NULL;
}

static bool wide_end(struct wide *w, bool ok, struct err *err)
{
    store_stream_end(w->stream);
    ok = ok && store_disk_finish(w->disk, NULL, err) && store_session_commit(w->session, NULL, err);
    store_session_free(w->session);
    w->session = NULL;
    w->stream = NULL;
    return ok;
}

/* In one go with its task's point, but another worker's hands. */
static bool wide_part(struct wide *w, const char *part_id, struct err *err)
{
    struct store_point *parent_point;
    struct store_reader *parent = open_parent(w->self, w->store, &parent_point);
    size_t from = w->first * w->self->run->segment_bytes;
    bool ok = wide_begin(w, part_id, w->id, parent, err) &&
              wide_write(w, from, w->image->size - from, err);
    ok = wide_end(w, ok, err);
    store_reader_free(parent);
    store_point_free(parent_point);
    return ok;
}

/* One segment of the part, or what is not there any more of it from the source. */
static bool wide_keep(struct wide *w, struct store_reader *part, unsigned i, struct err *err)
{
    size_t len = w->self->run->segment_bytes;
    SCOPED_EXTENTS struct extents lost = EXTENTS_INIT;
    bool ok = store_stream_keep_from(w->stream, w->disk, part, i * len, len, &lost, err);
    for (size_t k = 0; ok && k < lost.count; k++)
        if (lost.items[k].is_data)
            ok = wide_write(w, lost.items[k].offset, lost.items[k].len, err);
    w->self->run->kept += ok && lost.count == 0;
    return ok;
}

/* The task's own segments, and the part's; those that there is no part of it does itself. */
static bool wide_gather(struct wide *w, const char *part_id, struct err *err)
{
    size_t len = w->self->run->segment_bytes;
    struct err none = ERR_INIT;
    SCOPED(store_point) struct store_point *point = store_point_open_any(w->store, part_id, &none);
    SCOPED(store_reader)
    struct store_reader *part = point ? store_disk_open(point, "d", &none) : NULL;
    bool ok = true;
    for (unsigned i = 0; ok && i < SEGMENTS; i++)
        ok = i >= w->first && part ? wide_keep(w, part, i, err) : wide_write(w, i * len, len, err);
    return ok;
}

static bool write_wide_point(struct actor *self, struct store *store, const char *id,
                             const struct disk_image *image, struct err *err)
{
    struct wide w = {.self = self, .store = store, .id = id, .image = image};
    struct err ignored = ERR_INIT;
    SCOPED_FREE char *part_id = xasprintf("%sp", id);
    w.first = chance(self, SEGMENTS);
    if (!wide_part(&w, part_id, err))
        return false;
    struct store_point *parent_point;
    struct store_reader *parent = open_parent(self, store, &parent_point);
    bool ok = wide_begin(&w, id, NULL, parent, err) && wide_gather(&w, part_id, err);
    ok = wide_end(&w, ok, err);
    store_reader_free(parent);
    store_point_free(parent_point);
    if (ok && !store_part_point_delete(store, part_id, &ignored) && !self->is_dead)
        say_failure(self->run, "deleting part", part_id, &ignored);
    return ok;
}

/* What nobody needs, or what somebody is about to keep from. */
static void sweep_parts(struct run *run, struct store *store, unsigned percent, uint64_t *seed)
{
    struct err err = ERR_INIT;
    struct store_point_list list;
    if (!store_points_list(store, &(struct store_point_filter){.parts = true}, &list, &err))
        return say_failure(run, "listing parts", "", &err);
    for (size_t i = 0; i < list.count; i++)
        if (list.items[i].part_of && random_next(seed) % 100 < percent &&
            !store_part_point_delete(store, list.items[i].id, &err))
            say_failure(run, "sweeping part", list.items[i].id, &err);
    store_point_list_done(&list);
}

static void play_writer(struct actor *self)
{
    struct run *run = self->run;
    struct err err = ERR_INIT;
    struct store *store = store_open(run->path, &small_opts, &err);
    unsigned rounds = store ? 1 + chance(self, 3) : 0;
    for (unsigned round = 0; round < rounds && !self->is_dead; round++) {
        const struct point *victim = choose_victim(self);
        struct point *p = &run->points[run->n_points++];
        (void)snprintf(p->id, sizeof p->id, "w%u.%u", self->number, round);
        for (unsigned i = 0; i < SEGMENTS; i++)
            p->kinds[i] = victim ? victim->kinds[i] : chance(self, KINDS);
        struct disk_image image = make_image(run, p);
        err_clear(&err);
        if (!victim && chance(self, 3) == 0 ? write_wide_point(self, store, p->id, &image, &err)
                                            : write_point(self, store, p->id, &image, victim, &err))
            p->is_committed = true;
        else if (!is_expected(self, &err))
            say_failure(run, "writing", p->id, &err);
        else
            p->is_unsure = self->is_dead; /* it may have died after the commit */
        free(image.data);
    }
    store_free(store);
}

/* Data that nobody else has. */
static void play_wide_writer(struct actor *self)
{
    struct run *run = self->run;
    struct err err = ERR_INIT;
    struct store *store = store_open(run->path, &small_opts, &err);
    for (unsigned round = 0; store && round < 2 && !self->is_dead; round++) {
        struct point *p = &run->points[run->n_points++];
        (void)snprintf(p->id, sizeof p->id, "w%u.%u", self->number, round);
        for (unsigned i = 0; i < SEGMENTS; i++)
            p->kinds[i] = (self->number * 2 + round) * SEGMENTS + i;
        struct disk_image image = make_image(run, p);
        err_clear(&err);
        if (write_wide_point(self, store, p->id, &image, &err))
            p->is_committed = true;
        else if (!is_expected(self, &err))
            say_failure(run, "writing", p->id, &err);
        else
            p->is_unsure = self->is_dead;
        free(image.data);
    }
    store_free(store);
}

/* Takes every part for one that was left behind. */
static void play_sweeper(struct actor *self)
{
    struct err err = ERR_INIT;
    struct store *store = store_open(self->run->path, &small_opts, &err);
    for (unsigned round = 0; store && round < 6; round++) {
        (void)give_way();
        sweep_parts(self->run, store, 75, &self->seed);
    }
    store_free(store);
}

static void play_collector(struct actor *self)
{
    struct err err = ERR_INIT;
    struct store *store = store_open(self->run->path, &small_opts, &err);
    unsigned rounds = store ? 1 + chance(self, 3) : 0;
    for (unsigned round = 0; round < rounds && !self->is_dead; round++) {
        struct store_collect_result result;
        err_clear(&err);
        if (!store_collect(store, NULL, &result, &err) && !self->is_dead)
            say_failure(self->run, "collecting", "", &err);
        if (result.blocked[0] != '\0' && !self->is_dead)
            (void)snprintf(self->run->failure, sizeof self->run->failure, "blocked: %.400s",
                           result.blocked);
    }
    store_free(store);
}

static void play_deleter(struct actor *self)
{
    struct run *run = self->run;
    struct err err = ERR_INIT;
    struct store *store = store_open(run->path, &small_opts, &err);
    for (unsigned round = 0; store && round < 6; round++) {
        if (run->n_points == 0)
            continue;
        if (chance(self, 3) == 0)
            sweep_parts(run, store, 50, &self->seed);
        struct point *p = &run->points[chance(self, (unsigned)run->n_points)];
        bool was_committed;
        err_clear(&err);
        if (p->is_committed && !p->is_deleted) {
            p->is_deleted = true; /* from here on nobody may rely on it */
            if (store_point_delete(store, p->id, true, &err))
                continue;
            if (err.code != ERR_REFUSED)
                say_failure(run, "deleting", p->id, &err);
            p->is_deleted = false; /* it was protected, or is just now */
        } else if (chance(self, 4) == 0 &&
                   !store_session_revoke(store, p->id, &was_committed, &err)) {
            say_failure(run, "revoking", p->id, &err);
        }
    }
    store_free(store);
}

/* Protects points, some of which are being deleted. */
static void play_protector(struct actor *self)
{
    struct run *run = self->run;
    struct err err = ERR_INIT;
    struct store *store = store_open(run->path, &small_opts, &err);
    for (unsigned round = 0; store && round < 6; round++) {
        if (run->n_points == 0) {
            (void)give_way();
            continue;
        }
        struct point *p = &run->points[chance(self, (unsigned)run->n_points)];
        err_clear(&err);
        if (store_point_protect(store, p->id, &err))
            p->is_protected = true;
        else if (err.code != ERR_NOT_FOUND)
            say_failure(run, "protecting", p->id, &err);
    }
    store_free(store);
}

static void play_verifier(struct actor *self)
{
    struct run *run = self->run;
    struct err err = ERR_INIT;
    struct store *store = store_open(run->path, &small_opts, &err);
    for (unsigned round = 0; store && round < 4; round++) {
        if (run->n_points == 0) {
            (void)give_way();
            continue;
        }
        const struct point *p = &run->points[chance(self, (unsigned)run->n_points)];
        if (!p->is_committed || p->is_deleted)
            continue;
        err_clear(&err);
        if (!store_verify_point(store, p->id, NULL, NULL, &err) && !p->is_deleted)
            say_failure(run, "verifying", p->id, &err);
    }
    store_free(store);
}

static void *actor_main(void *arg)
{
    struct actor *self = arg;
    self_actor = self;
    pthread_mutex_lock(&self->run->lock);
    wait_for_turn(self);
    pthread_mutex_unlock(&self->run->lock);
    self->play(self);
    pthread_mutex_lock(&self->run->lock);
    self->is_done = true;
    choose_next(self->run);
    pthread_mutex_unlock(&self->run->lock);
    return NULL;
}

/* ---- a run */

static void add_actor(struct run *run, void (*play)(struct actor *self), bool may_die)
{
    struct actor *a = &run->actors[run->n_actors];
    *a = (struct actor){.run = run,
                        .number = run->n_actors++,
                        .weight = 1u << random_next(&run->seed) % 6,
                        .seed = random_next(&run->seed),
                        .play = play};
    if (may_die && random_next(&run->seed) % 4 == 0)
        a->dies_in = 1 + (unsigned)(random_next(&run->seed) % 150);
    pthread_cond_init(&a->turn, NULL);
}

static void play_all(struct run *run)
{
    pthread_mutex_lock(&run->lock);
    for (unsigned i = 0; i < run->n_actors; i++)
        assert_int_equal(pthread_create(&run->actors[i].thread, NULL, actor_main, &run->actors[i]),
                         0);
    run->running = UINT32_MAX;
    choose_next(run);
    pthread_mutex_unlock(&run->lock);
    for (unsigned i = 0; i < run->n_actors; i++) {
        pthread_join(run->actors[i].thread, NULL);
        pthread_cond_destroy(&run->actors[i].turn);
    }
}

static bool is_listed(const struct store_point_list *list, const char *id)
{
    for (size_t i = 0; i < list->count; i++)
        if (strcmp(list->items[i].id, id) == 0)
            return true;
    return false;
}

/* The model and the repository agree. */
static void check_points(struct run *run, struct store *store)
{
    struct err err = ERR_INIT;
    struct store_point_list list;
    MUST(store_points_list(store, NULL, &list, &err), &err);
    size_t expected = 0;
    for (size_t i = 0; i < run->n_points; i++) {
        struct point *p = &run->points[i];
        bool is_there = is_listed(&list, p->id);
        if (p->is_unsure)
            p->is_committed = is_there;
        if (is_there != (p->is_committed && !p->is_deleted))
            say_failure(run, is_there ? "unexpected" : "missing", p->id, &err);
        if (p->is_protected && !is_there)
            say_failure(run, "protected and deleted", p->id, &err);
        expected += is_there;
        if (!is_there)
            continue;
        struct disk_image image = make_image(run, p);
        if (!check_image(store, p->id, &image, &err) ||
            !store_verify_point(store, p->id, NULL, NULL, &err))
            say_failure(run, "restoring", p->id, &err);
        err_clear(&err);
        free(image.data);
    }
    if (expected != list.count)
        say_failure(run, "more points than were made", "", &err);
    store_point_list_done(&list);
}

static bool all_are_dead(void *context, const char *session_id)
{
    (void)context;
    (void)session_id;
    return true;
}

/* With everybody gone, what is left is what points need. */
static void check_leftovers(struct run *run, struct store *store)
{
    struct err err = ERR_INIT;
    struct store_collect_opts opts = {.is_dead = all_are_dead};
    struct store_collect_result r;
    sweep_parts(run, store, 100, &run->seed);
    for (int i = 0; i < 2; i++)
        MUST(store_collect(store, &opts, &r, &err), &err);
    if (r.blocked[0] != '\0' || r.packs_held > 0 || r.packs_removed > 0 ||
        count_files(run->path, "sessions/") > 0 || count_files(run->path, "pins/") > 0 ||
        (r.points == 0 && count_files(run->path, "packs/") > 0))
        say_failure(run, "leftovers", r.blocked, &err);
}

/* True when all held; else the reason is in run->failure. */
static bool play_run(const char *path, uint64_t seed, struct run *run)
{
    struct err err = ERR_INIT;
    *run = (struct run){.path = path, .seed = seed};
    static const unsigned switching[] = {16, 8, 2, 1};
    pthread_mutex_init(&run->lock, NULL);
    run->switch_in_16 = switching[random_next(&run->seed) % ARRAY_LEN(switching)];
    run->segment_bytes = random_next(&run->seed) % 8 == 0 ? BIG_SEGMENT : SEGMENT;
    store_free(store_init(path, NULL, &err));
    MUST(!err_is_set(&err), &err);
    for (int i = 0; i < 3; i++)
        add_actor(run, play_writer, true);
    add_actor(run, play_collector, false);
    add_actor(run, play_collector, true);
    add_actor(run, play_deleter, false);
    add_actor(run, play_protector, false);
    add_actor(run, play_verifier, false);
    play_all(run);
    struct store *store = store_open(path, &small_opts, &err);
    MUST(store, &err);
    check_points(run, store);
    check_leftovers(run, store);
    check_points(run, store);
    store_free(store);
    pthread_mutex_destroy(&run->lock);
    return run->failure[0] == '\0';
}

/* Points of parts, and nothing but who sweeps these and collects. */
static bool play_parts(const char *path, uint64_t seed, struct run *run)
{
    struct err err = ERR_INIT;
    *run = (struct run){.path = path, .seed = seed, .segment_bytes = SEGMENT};
    run->switch_in_16 = 1u << random_next(&run->seed) % 5;
    pthread_mutex_init(&run->lock, NULL);
    struct store *store = store_init(path, &small_opts, &err);
    MUST(store, &err);
    add_actor(run, play_wide_writer, false);
    add_actor(run, play_wide_writer, true);
    add_actor(run, play_sweeper, false);
    add_actor(run, play_collector, false);
    add_actor(run, play_collector, true);
    play_all(run);
    check_points(run, store);
    check_leftovers(run, store);
    check_points(run, store);
    store_free(store);
    pthread_mutex_destroy(&run->lock);
    return run->failure[0] == '\0';
}

static unsigned long from_env(const char *name, unsigned long fallback)
{
    const char *text = getenv(name);
    return text ? strtoul(text, NULL, 0) : fallback;
}

static unsigned long packs_adopted, segments_kept; /* in all runs of the last call */

/* The number of runs until one fails; `runs` when none does. */
static unsigned long play_runs(bool (*play)(const char *path, uint64_t seed, struct run *run),
                               unsigned long runs, uint64_t first_seed, struct run *run,
                               unsigned long *ret_switches)
{
    char *dir = temp_dir();
    unsigned long i = 0;
    *ret_switches = 0;
    packs_adopted = segments_kept = 0;
    for (; i < runs; i++) {
        SCOPED_FREE char *path = xasprintf("%s/r", dir);
        bool ok = play(path, first_seed + i, run);
        *ret_switches += run->switches;
        packs_adopted += run->adopted;
        segments_kept += run->kept;
        remove_tree(path);
        if (!ok)
            break;
    }
    remove_tree(dir);
    free(dir);
    return i;
}

/* One point, and nothing but who deletes, protects and sweeps. */
static bool play_protection(const char *path, uint64_t seed, struct run *run)
{
    struct err err = ERR_INIT;
    *run = (struct run){.path = path, .seed = seed, .segment_bytes = SEGMENT};
    run->switch_in_16 = 1u << random_next(&run->seed) % 4;
    pthread_mutex_init(&run->lock, NULL);
    struct store *store = store_init(path, &small_opts, &err);
    MUST(store, &err);
    struct point *p = &run->points[run->n_points++];
    (void)snprintf(p->id, sizeof p->id, "p.0");
    struct disk_image image = make_image(run, p);
    MUST(backup_image(store, p->id, &image, NULL, NULL, &err), &err);
    free(image.data);
    p->is_committed = true;
    add_actor(run, play_deleter, false);
    add_actor(run, play_protector, false);
    if (seed % 2)
        add_actor(run, play_collector, true);
    play_all(run);
    check_points(run, store);
    store_free(store);
    pthread_mutex_destroy(&run->lock);
    return run->failure[0] == '\0';
}

static void test_random_interleavings(void **state)
{
    (void)state;
    unsigned long runs = from_env("OXBOW_INTERLEAVE_RUNS", 300), switches;
    uint64_t seed = from_env("OXBOW_INTERLEAVE_SEED", 1);
    static struct run run;
    sabotage = SOUND;
    unsigned long good = play_runs(play_run, runs, seed, &run, &switches);
    print_message("%lu runs, %lu switches, %lu packs adopted, %lu segments of parts kept\n", good,
                  switches, packs_adopted, segments_kept);
    if (good < runs)
        fail_msg("seed %llu: %s", (unsigned long long)(seed + good), run.failure);
    /* The test tries what it is for. */
    assert_true(runs < 100 || (packs_adopted > runs / 10 && segments_kept > runs / 2));
}

static void test_a_broken_protocol_is_found_out(void **state)
{
    (void)state;
    static struct run run;
    unsigned long switches;
    sabotage = WITHOUT_PINS;
    unsigned long good = play_runs(play_run, 2000, 1, &run, &switches);
    print_message("without pins: run %lu: %s\n", good, run.failure);
    assert_true(good < 2000);
    sabotage = WITHOUT_MARKS;
    good = play_runs(play_run, 2000, 1, &run, &switches);
    print_message("without marks: run %lu: %s\n", good, run.failure);
    assert_true(good < 2000);
    sabotage = SOUND;
}

/* Of protecting and deleting a point at the same instant, one wins, and both know which. */
static void test_what_is_protected_is_not_deleted(void **state)
{
    (void)state;
    enum { RUNS = 600, BROKEN_RUNS = 5000 };
    static struct run run;
    unsigned long switches;
    sabotage = SOUND;
    unsigned long good = play_runs(play_protection, RUNS, 1, &run, &switches);
    print_message("%lu runs, %lu switches\n", good, switches);
    if (good < RUNS)
        fail_msg("seed %lu: %s", good + 1, run.failure);
    sabotage = WITHOUT_STOPPING;
    good = play_runs(play_protection, BROKEN_RUNS, 1, &run, &switches);
    print_message("without stopping deletions: run %lu: %s\n", good, run.failure);
    sabotage = SOUND;
    assert_true(good < BROKEN_RUNS);
}

/* Parts may be deleted at any time: who keeps from them has them, or knows that it has not. */
static void test_parts_are_kept_or_known_to_be_lost(void **state)
{
    (void)state;
    enum { BROKEN_RUNS = 3000 };
    unsigned long runs = from_env("OXBOW_INTERLEAVE_RUNS", 150), switches;
    uint64_t seed = from_env("OXBOW_INTERLEAVE_SEED", 1);
    static struct run run;
    sabotage = SOUND;
    unsigned long good = play_runs(play_parts, runs, seed, &run, &switches);
    print_message("%lu runs, %lu switches, %lu segments of parts kept\n", good, switches,
                  segments_kept);
    if (good < runs)
        fail_msg("seed %llu: %s", (unsigned long long)(seed + good), run.failure);
    sabotage = WITHOUT_PART_PINS;
    good = play_runs(play_parts, BROKEN_RUNS, 400, &run, &switches); /* a seed that finds it soon */
    print_message("without pins of parts: run %lu: %s\n", good, run.failure);
    sabotage = SOUND;
    assert_true(good < BROKEN_RUNS);
}

int main(void)
{
    struct statvfs vfs;
    if (access("/dev/shm", W_OK) == 0 && statvfs("/dev/shm", &vfs) == 0 &&
        vfs.f_bavail * vfs.f_frsize > (256u << 20))
        (void)setenv("TMPDIR", "/dev/shm", 0);
    log_set_level(LOG_LEVEL_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_interleavings),
        cmocka_unit_test(test_a_broken_protocol_is_found_out),
        cmocka_unit_test(test_what_is_protected_is_not_deleted),
        cmocka_unit_test(test_parts_are_kept_or_known_to_be_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
