/* SPDX-License-Identifier: Apache-2.0 */
/* One repository, several processes: writers at once, a commit against a revocation, kill -9 in the
 * middle of a write, a full disk. */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include "proto/base/clock.h"
#include "proto/base/log.h"
#include "support.h"
#include "worker/store/upkeep.h"

enum { MIB = 1 << 20 };

struct scene {
    char *dir, *path;
};

static int setup(void **state)
{
    struct scene *s = ALLOC_NEW(struct scene);
    struct err err = ERR_INIT;
    log_set_level(LOG_LEVEL_ERROR);
    s->dir = temp_dir();
    s->path = xasprintf("%s/repo", s->dir);
    struct store *store = store_init(s->path, NULL, &err);
    MUST(store, &err);
    store_free(store);
    *state = s;
    return 0;
}

static int teardown(void **state)
{
    struct scene *s = *state;
    remove_tree(s->dir);
    free(s->dir);
    free(s->path);
    free(s);
    return 0;
}

static struct store *open_store(const struct scene *s)
{
    struct err err = ERR_INIT;
    struct store *store = store_open(s->path, &(struct store_opts){.pack_bytes = MIB}, &err);
    MUST(store, &err);
    return store;
}

static int wait_for(pid_t pid)
{
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* Image number n: a part that all have, and one of its own. */
static struct disk_image make_image(unsigned n)
{
    struct disk_image image = {.id = "d", .data = xmalloc(4 * MIB), .size = 4 * MIB};
    fill_text(image.data, 2 * MIB, 1);
    fill_text(image.data + 2 * MIB, 2 * MIB, 100 + n);
    return image;
}

static void test_writers_at_once(void **state)
{
    struct scene *s = *state;
    enum { N = 4, ROUNDS = 3 };
    pid_t pids[N];
    for (unsigned n = 0; n < N; n++) {
        pids[n] = fork();
        assert_true(pids[n] >= 0);
        if (pids[n] > 0)
            continue;
        struct disk_image image = make_image(n);
        struct err err = ERR_INIT;
        struct store *store = store_open(s->path, &(struct store_opts){.pack_bytes = MIB}, &err);
        bool ok = store != NULL;
        for (unsigned round = 0; ok && round < ROUNDS; round++) {
            char id[32];
            (void)snprintf(id, sizeof id, "vm-%u.%u", n, round);
            ok = backup_image(store, id, &image, NULL, NULL, &err);
        }
        if (!ok)
            (void)fprintf(stderr, "writer %u: %s\n", n, err.message);
        _exit(ok ? 0 : 1);
    }
    for (unsigned n = 0; n < N; n++)
        assert_int_equal(wait_for(pids[n]), 0);

    struct store *store = open_store(s);
    struct err err = ERR_INIT;
    struct store_point_list list;
    MUST(store_points_list(store, NULL, &list, &err), &err);
    assert_int_equal(list.count, N * ROUNDS);
    store_point_list_done(&list);
    for (unsigned n = 0; n < N; n++) {
        struct disk_image image = make_image(n);
        for (unsigned round = 0; round < ROUNDS; round++) {
            char id[32];
            (void)snprintf(id, sizeof id, "vm-%u.%u", n, round);
            MUST(check_image(store, id, &image, &err), &err);
            MUST(store_verify_point(store, id, NULL, NULL, &err), &err);
        }
        free(image.data);
    }
    store_free(store);
}

/* Child: everything up to the commit, then at the signal of the pipe, the commit. */
static void committer(const struct scene *s, const char *id, int ready, int go)
{
    struct disk_image image = {.id = "d", .data = xmalloc(MIB), .size = MIB};
    fill_random(image.data, image.size, 5);
    struct err err = ERR_INIT;
    struct store *store = store_open(s->path, NULL, &err);
    struct store_session_opts opts = session_opts(id);
    struct store_session *session = store ? store_session_begin(store, &opts, &err) : NULL;
    char byte = 0;
    if (!session || !write_image(session, &image, 0, NULL, NULL, &err) ||
        write(ready, &byte, 1) != 1 || read(go, &byte, 1) != 1)
        _exit(2);
    if (store_session_commit(session, NULL, &err))
        _exit(0);
    if (err.code != ERR_STORE_REVOKED)
        (void)fprintf(stderr, "commit: %s\n", err.message);
    int code = err.code == ERR_STORE_REVOKED ? 1 : 2;
    store_session_free(session);
    _exit(code);
}

static void test_commit_races_revocation(void **state)
{
    struct scene *s = *state;
    struct store *store = open_store(s);
    struct err err = ERR_INIT;
    struct disk_image image = {.id = "d", .data = xmalloc(MIB), .size = MIB};
    fill_random(image.data, image.size, 5);
    int committed = 0, revoked = 0;
    for (int i = 0; i < 60; i++) {
        char id[32], byte;
        (void)snprintf(id, sizeof id, "race-%d.1", i);
        int ready[2], go[2];
        assert_int_equal(pipe(ready), 0);
        assert_int_equal(pipe(go), 0);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0)
            committer(s, id, ready[1], go[0]);
        assert_int_equal(read(ready[0], &byte, 1), 1);
        assert_int_equal(write(go[1], "g", 1), 1);
        /* From "at once" to "long after", around the time the commit takes. */
        clock_sleep_ms(clock_system(), i % 20);
        bool was_committed;
        MUST(store_session_revoke(store, id, &was_committed, &err), &err);
        int code = wait_for(pid);
        assert_in_range(code, 0, 1);
        assert_int_equal(was_committed, code == 0);
        if (code == 0) {
            committed++;
            MUST(check_image(store, id, &image, &err), &err);
        } else {
            revoked++;
            MUST_FAIL(store_point_open(store, id, &err), &err, ERR_NOT_FOUND);
        }
        for (int k = 0; k < 2; k++) {
            (void)close(ready[k]);
            (void)close(go[k]);
        }
    }
    print_message("commit won %d times, revocation %d times\n", committed, revoked);
    assert_true(committed + revoked == 60);
    free(image.data);
    store_free(store);
}

/* Child: writes without end. */
static void endless_writer(const struct scene *s, const char *id)
{
    struct err err = ERR_INIT;
    struct store *store = store_open(s->path, &(struct store_opts){.pack_bytes = MIB}, &err);
    struct store_session_opts opts = session_opts(id);
    struct store_session *session = store ? store_session_begin(store, &opts, &err) : NULL;
    struct store_disk_opts disk_opts = {.id = "d", .size_bytes = UINT64_C(1) << 40};
    struct store_disk *disk = session ? store_disk_begin(session, &disk_opts, &err) : NULL;
    struct store_stream *stream = disk ? store_stream_begin(session, &err) : NULL;
    uint8_t *data = xmalloc(MIB);
    for (uint64_t at = 0; stream && at < 256; at++) {
        fill_random(data, MIB, at);
        if (!store_stream_write(stream, disk, at * MIB, data, MIB, &err))
            break;
    }
    _exit(3); /* not reached but for an error */
}

static void test_kill_in_mid_write(void **state)
{
    struct scene *s = *state;
    struct err err = ERR_INIT;
    struct store *store = open_store(s);
    struct disk_image image = make_image(0);
    MUST(backup_image(store, "good.1", &image, NULL, NULL, &err), &err);
    size_t packs = count_files(s->path, "packs/");
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        endless_writer(s, "killed.1");
    for (int i = 0; i < 1000 && count_files(s->path, "packs/") < packs + 3; i++)
        clock_sleep_ms(clock_system(), 10);
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(wait_for(pid), 128 + SIGKILL);
    assert_true(count_files(s->path, "packs/") >= packs + 3);

    struct store_point_list list;
    MUST(store_points_list(store, NULL, &list, &err), &err);
    assert_int_equal(list.count, 1);
    assert_null(list.items[0].damage);
    store_point_list_done(&list);
    MUST(check_image(store, "good.1", &image, &err), &err);
    MUST_FAIL(store_point_open(store, "killed.1", &err), &err, ERR_NOT_FOUND);
    /* What the next attempt does: declare it dead, write its own. */
    bool was_committed;
    MUST(store_session_revoke(store, "killed.1", &was_committed, &err), &err);
    assert_false(was_committed);
    struct disk_image random = {.id = "d", .data = xmalloc(2 * MIB), .size = 2 * MIB};
    fill_random(random.data, MIB, 0);
    fill_random(random.data + MIB, MIB, 1);
    struct store_stats stats;
    MUST(backup_image(store, "killed.2", &random, NULL, &stats, &err), &err);
    assert_int_equal(stats.dedup_bytes, 0); /* nothing of the dead is used */
    MUST(check_image(store, "killed.2", &random, &err), &err);
    free(random.data);
    free(image.data);
    store_free(store);
}

/* ---- a disk that is really full */

static void full_disk(const char *dir)
{
    struct err err = ERR_INIT;
    SCOPED_FREE char *path = xasprintf("%s/repo", dir);
    struct store *store = store_init(path, &(struct store_opts){.pack_bytes = MIB}, &err);
    MUST(store, &err);
    struct disk_image small = {.id = "d", .data = xmalloc(MIB), .size = MIB};
    struct disk_image large = {.id = "d", .data = xmalloc(16 * MIB), .size = 16 * MIB};
    fill_random(small.data, small.size, 1);
    fill_random(large.data, large.size, 2);
    MUST(backup_image(store, "small.1", &small, NULL, NULL, &err), &err);
    uint64_t before, after;
    MUST(store_free_space(store, &before, &err), &err);
    MUST_FAIL(backup_image(store, "large.1", &large, NULL, NULL, &err), &err, ERR_NO_SPACE);
    MUST(store_free_space(store, &after, &err), &err);
    assert_true(after + 65536 >= before); /* its packs are gone */
    MUST(check_image(store, "small.1", &small, &err), &err);
    bool was_committed;
    MUST(store_session_revoke(store, "large.1", &was_committed, &err), &err);
    assert_false(was_committed);
    MUST(backup_image(store, "small.2", &small, NULL, NULL, &err), &err);
    MUST(check_image(store, "small.2", &small, &err), &err);

    /* Not a byte is free: deleting and collecting still work, and make room. */
    fill_random(large.data, MIB, 3);
    large.size = MIB;
    MUST(backup_image(store, "gone.1", &large, NULL, NULL, &err), &err);
    SCOPED_FREE char *filler = xasprintf("%s/filler", dir);
    FILE *f = fopen(filler, "wb");
    assert_non_null(f);
    static const char page[4096] = {1};
    while (fwrite(page, 1, sizeof page, f) == sizeof page && fflush(f) == 0)
        continue;
    (void)fclose(f);
    MUST(store_free_space(store, &before, &err), &err);
    assert_int_equal(before, 0);
    struct store_collect_result result;
    MUST(store_point_delete(store, "gone.1", true, &err), &err);
    MUST(store_collect(store, NULL, &result, &err), &err);
    assert_int_equal(result.packs_removed, 1);
    MUST(store_free_space(store, &after, &err), &err);
    assert_true(after >= MIB);
    MUST(check_image(store, "small.2", &small, &err), &err);
    free(small.data);
    free(large.data);
    store_free(store);
}

static void test_full_disk(void **state)
{
    struct scene *s = *state;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        /* A mount of our own, that ends with this process. */
        if ((unshare(CLONE_NEWNS) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) ||
            mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
            mount("tmpfs", s->dir, "tmpfs", 0, "size=6m") != 0)
            _exit(77);
        full_disk(s->dir);
        _exit(0);
    }
    int code = wait_for(pid);
    if (code == 77)
        skip();
    assert_int_equal(code, 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_writers_at_once),
        T(test_commit_races_revocation),
        T(test_kill_in_mid_write),
        T(test_full_disk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
