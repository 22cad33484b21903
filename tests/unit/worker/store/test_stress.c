/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Real processes on one repository: eight writers, two collectors that prune and compact, a
 * verifier, and kill -9 for any of the writers and collectors at random, all the time. In the end
 * every point that is listed restores, bit by bit, the newest reported point of each VM is there,
 * and nothing else is left.
 *
 * OXBOW_STRESS_S says for how long; 3 s by default.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "proto/base/clock.h"
#include "proto/base/log.h"
#include "support.h"
#include "worker/store/upkeep.h"

enum { WRITERS = 8, COLLECTORS = 2, ACTORS = WRITERS + COLLECTORS + 1, VERIFIER = ACTORS - 1 };
enum { SEGMENT = 64 << 10, SEGMENTS = 24, KINDS = 40 };

static const struct store_opts opts_small = {
    .pack_bytes = 1 << 20, .dedup_cache_bytes = 1 << 18, .frame_cache_bytes = 4 << 20};

/* Shared by all processes. */
struct shared {
    atomic_uint next;            /* session number */
    atomic_uint newest[WRITERS]; /* number of the last session that reported a commit; 0 = none */
    atomic_uint committed, deleted, verified, collected;
    atomic_bool failed;
    char failure[512];
};
static struct shared *shared;

static void say_failure(const char *what, const char *id, const struct err *err)
{
    if (!atomic_exchange(&shared->failed, true))
        (void)snprintf(shared->failure, sizeof shared->failure, "%s %.60s: %.300s", what, id,
                       err->message);
}

/* Everything about a point follows from its number. */
static struct disk_image make_image(unsigned number)
{
    uint64_t seed = number;
    size_t size = (size_t)SEGMENT * SEGMENTS;
    struct disk_image image = {.id = "d", .data = xmalloc(size), .size = size};
    for (unsigned i = 0; i < SEGMENTS; i++)
        fill_text(image.data + (size_t)i * SEGMENT, SEGMENT,
                  i < SEGMENTS / 2 ? i : 1000 + random_next(&seed) % KINDS);
    return image;
}

static bool write_point(struct store *store, unsigned writer, unsigned number, struct err *err)
{
    char id[32], vm[32];
    (void)snprintf(id, sizeof id, "s%u.1", number);
    (void)snprintf(vm, sizeof vm, "vm-%u", writer);
    struct store_session_opts opts = {.id = id, .vm_id = vm, .vm_name = vm, .worker = "stress"};
    struct disk_image image = make_image(number);
    SCOPED(store_session) struct store_session *session = store_session_begin(store, &opts, err);
    bool ok = session && write_image(session, &image, SEGMENT, NULL, NULL, err) &&
              store_session_commit(session, NULL, err);
    free(image.data);
    return ok;
}

static void be_writer(struct store *store, unsigned writer)
{
    for (;;) {
        struct err err = ERR_INIT;
        unsigned number = atomic_fetch_add(&shared->next, 1);
        if (write_point(store, writer, number, &err)) {
            atomic_store(&shared->newest[writer], number);
            atomic_fetch_add(&shared->committed, 1);
        } else if (err.code != ERR_STORE_REVOKED) {
            say_failure("writing", "", &err);
        }
    }
}

/* Declares some sessions dead that are not. */
static bool seems_dead(void *context, const char *session_id)
{
    uint64_t *seed = context;
    (void)session_id;
    return random_next(seed) % 16 == 0;
}

static void be_collector(struct store *store, unsigned number)
{
    uint64_t seed = number;
    for (;;) {
        struct err err = ERR_INIT;
        struct store_prune_plan plan;
        struct retention_policy policy = {.keep[RETENTION_LAST] = 3};
        struct store_collect_opts opts = {.context = &seed, .is_dead = seems_dead};
        struct store_collect_result r;
        size_t deleted = 0;
        if (!store_prune_plan(store, NULL, 0, &policy, &plan, &err))
            return say_failure("planning", "", &err);
        bool ok = store_prune_apply(store, &plan, &deleted, &err);
        store_prune_plan_done(&plan);
        if (!ok || !store_collect(store, &opts, &r, &err))
            return say_failure("collecting", "", &err);
        atomic_fetch_add(&shared->deleted, (unsigned)deleted);
        atomic_fetch_add(&shared->collected, (unsigned)(r.packs_removed + r.packs_compacted));
    }
}

static bool is_there(struct store *store, const char *id)
{
    struct err err = ERR_INIT;
    SCOPED(store_point) struct store_point *point = store_point_open(store, id, &err);
    return point != NULL;
}

static void be_verifier(struct store *store)
{
    for (;;) {
        struct err err = ERR_INIT;
        struct store_point_list list;
        if (!store_points_list(store, NULL, &list, &err))
            return say_failure("listing", "", &err);
        for (size_t i = 0; i < list.count; i++) {
            const char *id = list.items[i].id;
            /* Pruned meanwhile: not a failure. */
            if (!store_verify_point(store, id, NULL, NULL, &err) && is_there(store, id))
                say_failure("verifying", id, &err);
            err_clear(&err);
            atomic_fetch_add(&shared->verified, 1);
        }
        store_point_list_done(&list);
    }
}

static pid_t start(const char *path, unsigned actor)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid > 0)
        return pid;
    struct err err = ERR_INIT;
    struct store *store = store_open(path, &opts_small, &err);
    if (!store)
        say_failure("opening", "", &err);
    else if (actor < WRITERS)
        be_writer(store, actor);
    else if (actor == VERIFIER)
        be_verifier(store);
    else
        be_collector(store, actor);
    _exit(1);
}

static void stop(pid_t pid)
{
    int status;
    (void)kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
}

/* ---- the end */

static bool all_dead(void *context, const char *session_id)
{
    (void)context;
    (void)session_id;
    return true;
}

static void check_points(struct store *store)
{
    struct err err = ERR_INIT;
    struct store_point_list list;
    unsigned newest[WRITERS] = {0};
    MUST(store_points_list(store, NULL, &list, &err), &err);
    for (size_t i = 0; i < list.count; i++) {
        unsigned number, writer;
        assert_int_equal(sscanf(list.items[i].id, "s%u.1", &number), 1);
        assert_int_equal(sscanf(list.items[i].vm_id, "vm-%u", &writer), 1);
        newest[writer] = number > newest[writer] ? number : newest[writer];
        struct disk_image image = make_image(number);
        MUST(check_image(store, list.items[i].id, &image, &err), &err);
        free(image.data);
    }
    for (unsigned w = 0; w < WRITERS; w++)
        assert_true(newest[w] >= atomic_load(&shared->newest[w]));
    print_message("%zu points are left\n", list.count);
    store_point_list_done(&list);
}

static void test_processes_and_kills(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    const char *text = getenv("OXBOW_STRESS_S");
    int64_t limit_ms = (text ? strtol(text, NULL, 10) : 3) * 1000;
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(shared != MAP_FAILED);
    atomic_store(&shared->next, 1);
    SCOPED_FREE char *dir = temp_dir();
    SCOPED_FREE char *path = xasprintf("%s/repo", dir);
    store_free(store_init(path, &opts_small, &err));
    MUST(!err_is_set(&err), &err);
    pid_t pids[ACTORS];
    for (unsigned i = 0; i < ACTORS; i++)
        pids[i] = start(path, i);
    uint64_t seed = 17;
    unsigned kills = 0;
    int64_t begin = clock_mono_ms(clock_system());
    /* On a busy machine longer, until enough has happened to mean something. */
    while (!atomic_load(&shared->failed) &&
           (clock_mono_ms(clock_system()) - begin < limit_ms ||
            ((atomic_load(&shared->committed) < 40 || atomic_load(&shared->collected) < 5) &&
             clock_mono_ms(clock_system()) - begin < limit_ms + 60000))) {
        clock_sleep_ms(clock_system(), (int64_t)(random_next(&seed) % 100));
        unsigned victim = (unsigned)(random_next(&seed) % WRITERS);
        if (random_next(&seed) % 16 == 0) /* collectors need time to come to something */
            victim = WRITERS + (unsigned)(random_next(&seed) % COLLECTORS);
        stop(pids[victim]);
        pids[victim] = start(path, victim);
        kills++;
    }
    for (unsigned i = 0; i < ACTORS; i++)
        stop(pids[i]);
    if (atomic_load(&shared->failed))
        fail_msg("%s", shared->failure);
    print_message("%u sessions, %u commits, %u kills, %u points deleted, %u verified, %u packs "
                  "collected\n",
                  atomic_load(&shared->next) - 1, atomic_load(&shared->committed), kills,
                  atomic_load(&shared->deleted), atomic_load(&shared->verified),
                  atomic_load(&shared->collected));
    assert_true(atomic_load(&shared->committed) > 0 && atomic_load(&shared->collected) > 0);
    struct store *store = store_open(path, &opts_small, &err);
    MUST(store, &err);
    check_points(store);
    struct store_collect_opts opts = {.is_dead = all_dead};
    struct store_collect_result r;
    MUST(store_collect(store, &opts, &r, &err), &err);
    MUST(store_collect(store, &opts, &r, &err), &err);
    assert_string_equal(r.blocked, "");
    assert_int_equal(r.packs_held + r.packs_dead, 0);
    assert_int_equal(count_files(path, "pins/") + count_files(path, "sessions/"), 0);
    check_points(store);
    store_free(store);
    remove_tree(dir);
    (void)munmap(shared, sizeof *shared);
}

int main(void)
{
    struct statvfs vfs;
    if (access("/dev/shm", W_OK) == 0 && statvfs("/dev/shm", &vfs) == 0 &&
        vfs.f_bavail * vfs.f_frsize > (512u << 20))
        (void)setenv("TMPDIR", "/dev/shm", 0);
    log_set_level(LOG_LEVEL_ERROR);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_processes_and_kills)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
