/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The repository when the system below fails: the Nth call that changes something fails, or the
 * process dies there, for every N of a backup. Whatever happens, committed points stay readable,
 * and a session that did not report success leaves no point, or a whole one when its outcome was
 * reported as unknown.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "proto/base/log.h"
#include "support.h"

enum { OLD_BYTES = 256 << 10, NEW_BYTES = 5 << 18 }; /* 1.25 MiB: two frames, two packs */

/* ---- the seam: every call of the store that changes the file system, linked with --wrap */

enum fault_mode {
    FAULT_NONE,
    FAULT_ONCE,
    FAULT_FROM_THERE,
    FAULT_SHORT_WRITE,
    FAULT_DIE,
    FAULT_DIE_AFTER
};

static struct {
    atomic_int calls;
    int nth; /* counted from 1 */
    int errnum;
    enum fault_mode mode;
    atomic_bool at_fate; /* the link of the commit record was tried */
} fault;

static void fault_set(enum fault_mode mode, int nth, int errnum)
{
    fault.mode = mode;
    fault.nth = nth;
    fault.errnum = errnum;
    atomic_store(&fault.calls, 0);
    atomic_store(&fault.at_fate, false);
}

/* True when this call must fail. */
static bool fault_hits(bool *ret_dies_after)
{
    int n = atomic_fetch_add(&fault.calls, 1) + 1;
    *ret_dies_after = fault.mode == FAULT_DIE_AFTER && n == fault.nth;
    if (fault.mode == FAULT_DIE && n == fault.nth)
        _exit(42);
    bool hits = (fault.mode == FAULT_ONCE && n == fault.nth) ||
                (fault.mode == FAULT_FROM_THERE && n >= fault.nth);
    if (hits)
        errno = fault.errnum;
    return hits;
}

#define FAULTY(type, name, params, args)                                                           \
    type __real_##name params;                                                                     \
    type __wrap_##name params;                                                                     \
    type __wrap_##name params                                                                      \
    {                                                                                              \
        bool dies;                                                                                 \
        if (fault_hits(&dies))                                                                     \
            return -1;                                                                             \
        type result = __real_##name args;                                                          \
        if (dies)                                                                                  \
            _exit(42);                                                                             \
        return result;                                                                             \
    }

FAULTY(int, fsync, (int fd), (fd))
FAULTY(int, fchmod, (int fd, mode_t mode), (fd, mode))
FAULTY(int, mkdirat, (int dir, const char *path, mode_t mode), (dir, path, mode))

static bool link_loses_reply; /* it is made, and reported as failed */
int __real_linkat(int d1, const char *p1, int d2, const char *p2, int flags);
int __wrap_linkat(int d1, const char *p1, int d2, const char *p2, int flags);
int __wrap_linkat(int d1, const char *p1, int d2, const char *p2, int flags)
{
    bool dies;
    if (strncmp(p2, "fate/", strlen("fate/")) == 0)
        atomic_store(&fault.at_fate, true);
    if (fault_hits(&dies))
        return -1;
    int result = __real_linkat(d1, p1, d2, p2, flags);
    if (dies)
        _exit(42);
    if (link_loses_reply && result == 0) {
        errno = EIO;
        return -1;
    }
    return result;
}

ssize_t __real_write(int fd, const void *buf, size_t len);
ssize_t __wrap_write(int fd, const void *buf, size_t len);
ssize_t __wrap_write(int fd, const void *buf, size_t len)
{
    bool dies;
    if (fd == STDERR_FILENO) /* the log */
        return __real_write(fd, buf, len);
    if (fault_hits(&dies))
        return -1;
    if (dies) { /* torn: half of it */
        (void)__real_write(fd, buf, len / 2);
        _exit(42);
    }
    if (fault.mode == FAULT_SHORT_WRITE && len > 1)
        len = len > 5000 ? len / 3 : 1 + len / 2;
    return __real_write(fd, buf, len);
}

int __real_close(int fd);
int __wrap_close(int fd);
int __wrap_close(int fd)
{
    bool dies, hits = fault_hits(&dies);
    int errnum = errno;
    int result = __real_close(fd); /* the descriptor is gone in any case */
    if (dies)
        _exit(42);
    errno = hits ? errnum : errno;
    return hits ? -1 : result;
}

int __real_openat(int dir, const char *path, int flags, ...);
int __wrap_openat(int dir, const char *path, int flags, ...);
int __wrap_openat(int dir, const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = flags & O_CREAT ? va_arg(args, mode_t) : 0;
    va_end(args);
    bool dies;
    if (fault_hits(&dies))
        return -1;
    int fd = __real_openat(dir, path, flags, mode);
    if (dies)
        _exit(42);
    return fd;
}

/* ---- the scene: a repository with one good point, and a second image to back up */

static const struct store_opts small_opts = {.pack_bytes = 65536, .dedup_cache_bytes = 1 << 20};

struct scene {
    char *dir, *path;
    struct disk_image old_image, new_image;
    struct file_list files; /* with the old point only */
};

/* Files that came since, but for fates, which stay for ever. */
static size_t count_new(const struct scene *s)
{
    struct file_list now = list_files(s->path);
    size_t n = now.count - count_files(s->path, "fate/");
    file_list_done(&now);
    return n - (s->files.count - 1);
}

/* Back to the old point alone. */
static void remove_new(const struct scene *s)
{
    struct file_list now = list_files(s->path);
    for (size_t i = 0, old = 0; i < now.count; i++) {
        if (old < s->files.count && strcmp(now.items[i], s->files.items[old]) == 0) {
            old++;
            continue;
        }
        SCOPED_FREE char *path = xasprintf("%s/%s", s->path, now.items[i]);
        assert_int_equal(unlink(path), 0);
    }
    file_list_done(&now);
}

static struct store *open_store(const struct scene *s)
{
    struct err err = ERR_INIT;
    struct store *store = store_open(s->path, &small_opts, &err);
    MUST(store, &err);
    return store;
}

static int setup(void **state)
{
    struct scene *s = ALLOC_NEW(struct scene);
    struct err err = ERR_INIT;
    fault_set(FAULT_NONE, 0, 0);
    log_set_level(LOG_LEVEL_ERROR);
    s->dir = temp_dir();
    s->path = xasprintf("%s/repo", s->dir);
    s->old_image = (struct disk_image){.id = "d", .data = xmalloc(OLD_BYTES), .size = OLD_BYTES};
    s->new_image = (struct disk_image){.id = "d", .data = xmalloc(NEW_BYTES), .size = NEW_BYTES};
    fill_random(s->old_image.data, OLD_BYTES, 1);
    fill_random(s->new_image.data, NEW_BYTES, 2);
    memcpy(s->new_image.data, s->old_image.data, OLD_BYTES);
    struct store *store = store_init(s->path, NULL, &err);
    MUST(store, &err);
    MUST(backup_image(store, "old.1", &s->old_image, NULL, NULL, &err), &err);
    store_free(store);
    s->files = list_files(s->path);
    *state = s;
    return 0;
}

static int teardown(void **state)
{
    struct scene *s = *state;
    fault_set(FAULT_NONE, 0, 0);
    file_list_done(&s->files);
    remove_tree(s->dir);
    free(s->old_image.data);
    free(s->new_image.data);
    free(s->dir);
    free(s->path);
    free(s);
    return 0;
}

/* Everything of a backup, from opening the store. */
static bool back_up(const struct scene *s, const char *id, struct err *err)
{
    SCOPED(store)
    struct store *store = store_open(s->path, &small_opts, err);
    return store && backup_image(store, id, &s->new_image, NULL, NULL, err);
}

/* The calls that a backup makes. */
static int count_calls(const struct scene *s)
{
    struct err err = ERR_INIT;
    fault_set(FAULT_NONE, 0, 0);
    MUST(back_up(s, "counted.1", &err), &err);
    int calls = atomic_load(&fault.calls);
    assert_true(calls > 40);
    return calls;
}

/* What must hold afterwards, seen by a process that knows nothing. Returns whether the point
 * exists. */
static bool check_after(const struct scene *s, const char *id)
{
    struct err err = ERR_INIT;
    fault_set(FAULT_NONE, 0, 0);
    SCOPED(store) struct store *store = open_store(s);
    MUST(check_image(store, "old.1", &s->old_image, &err), &err);
    struct store_point_list list;
    MUST(store_points_list(store, NULL, &list, &err), &err);
    bool exists = false;
    for (size_t i = 0; i < list.count; i++) {
        assert_null(list.items[i].damage);
        exists = exists || strcmp(list.items[i].id, id) == 0;
    }
    store_point_list_done(&list);
    if (exists) {
        MUST(check_image(store, id, &s->new_image, &err), &err);
        MUST(store_verify_point(store, id, NULL, NULL, &err), &err);
    } else {
        MUST_FAIL(store_point_open(store, id, &err), &err, ERR_NOT_FOUND);
    }
    bool was_committed;
    MUST(store_session_revoke(store, id, &was_committed, &err), &err);
    assert_int_equal(was_committed, exists);
    return exists;
}

/* ---- sweeps */

/* All of packs/xx, so that two backups make the same calls. */
static void make_pack_dirs(const struct scene *s)
{
    for (unsigned i = 0; i < 256; i++) {
        char path[512];
        (void)snprintf(path, sizeof path, "%s/packs/%02x", s->path, i);
        (void)mkdir(path, 0700);
    }
}

static void sweep(struct scene *s, enum fault_mode mode, int errnum)
{
    if (mode == FAULT_ONCE)
        make_pack_dirs(s);
    int calls = count_calls(s), failed = 0;
    remove_new(s);
    for (int n = 1; n <= calls + 5; n++) {
        char id[32];
        (void)snprintf(id, sizeof id, "fail-%d.1", n);
        struct err err = ERR_INIT;
        fault_set(mode, n, errnum);
        bool ok = back_up(s, id, &err), at_fate = atomic_load(&fault.at_fate);
        bool exists = check_after(s, id);
        if (ok) {
            assert_true(exists); /* a failed clean-up step or hint does not undo a commit */
        } else {
            failed++;
            assert_true(err_is_set(&err));
            bool is_unsure = strstr(err.message, "not known") != NULL;
            /* How often a sweep meets these calls is chance: a thread beside syncs packs, so they
             * are not at the same place in each backup. That it is they is not. */
            assert_true(!is_unsure || at_fate);
            assert_true(!exists || is_unsure);
            if (mode == FAULT_ONCE && !is_unsure) /* nothing is left */
                assert_int_equal(count_new(s), 0);
        }
        remove_new(s);
    }
    assert_true(failed > calls / 2);
}

static void test_each_call_fails_once_with_eio(void **state)
{
    sweep(*state, FAULT_ONCE, EIO);
}

static void test_each_call_fails_once_with_enospc(void **state)
{
    sweep(*state, FAULT_ONCE, ENOSPC);
}

static void test_disk_dies_at_each_call(void **state)
{
    sweep(*state, FAULT_FROM_THERE, EIO);
}

static void test_disk_is_full_from_each_call(void **state)
{
    sweep(*state, FAULT_FROM_THERE, ENOSPC);
}

static void test_short_writes_are_completed(void **state)
{
    struct scene *s = *state;
    struct err err = ERR_INIT;
    fault_set(FAULT_SHORT_WRITE, 0, 0);
    MUST(back_up(s, "short.1", &err), &err);
    assert_true(check_after(s, "short.1"));
}

/* kill -9 before or in the middle of each call. */
static void die_sweep(struct scene *s, enum fault_mode mode)
{
    make_pack_dirs(s);
    int calls = count_calls(s), died = 0, committed = 0;
    remove_new(s);
    for (int n = 1; n <= calls; n++) {
        char id[32];
        (void)snprintf(id, sizeof id, "die-%d.1", n);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            struct err err = ERR_INIT;
            fault_set(mode, n, 0);
            _exit(back_up(s, id, &err) ? 0 : 1);
        }
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status));
        died += WEXITSTATUS(status) == 42;
        assert_true(WEXITSTATUS(status) == 42 || WEXITSTATUS(status) == 0);
        committed += check_after(s, id);
        remove_new(s);
    }
    assert_true(died > calls / 2);
    assert_true(committed < calls / 2);
    /* And the repository is as good as new for the next one. */
    struct err err = ERR_INIT;
    MUST(back_up(s, "next.1", &err), &err);
    assert_true(check_after(s, "next.1"));
}

static void test_process_dies_before_each_call(void **state)
{
    die_sweep(*state, FAULT_DIE);
}

static void test_process_dies_after_each_call(void **state)
{
    die_sweep(*state, FAULT_DIE_AFTER);
}

/* Making a repository: it is there as a whole, or can be made again. */
static void test_init_fails_at_each_call(void **state)
{
    struct scene *s = *state;
    for (int n = 1; n < 60; n++) {
        SCOPED_FREE char *path = xasprintf("%s/init-%d", s->dir, n);
        struct err err = ERR_INIT;
        fault_set(FAULT_ONCE, n, EIO);
        struct store *store = store_init(path, NULL, &err);
        bool made = store != NULL;
        store_free(store);
        fault_set(FAULT_NONE, 0, 0);
        if (!made) {
            err_clear(&err);
            store = store_init(path, NULL, &err);
            if (!store && err.code == ERR_EXISTS) { /* the failure came after the last step */
                err_clear(&err);
                store = store_open(path, NULL, &err);
            }
            MUST(store, &err);
            MUST(backup_image(store, "first.1", &s->old_image, NULL, NULL, &err), &err);
            store_free(store);
        }
    }
}

/* A lost reply of link(2), as NFS may give: the link is there, and an error comes back. */
static void test_lost_reply_of_the_commit(void **state)
{
    struct scene *s = *state;
    struct err err = ERR_INIT;
    SCOPED(store) struct store *store = open_store(s);
    struct store_session_opts opts = session_opts("lost.1");
    SCOPED(store_session) struct store_session *session = store_session_begin(store, &opts, &err);
    MUST(session, &err);
    MUST(write_image(session, &s->new_image, 0, NULL, NULL, &err), &err);
    link_loses_reply = true;
    MUST(store_session_commit(session, NULL, &err), &err);
    link_loses_reply = false;
    assert_true(check_after(s, "lost.1"));
}

/* In memory where there is room: thousands of fsyncs on a busy disk take minutes and prove nothing
 * more here, where the test decides what fails. */
static void prefer_memory(void)
{
    struct statvfs vfs;
    if (access("/dev/shm", W_OK) == 0 && statvfs("/dev/shm", &vfs) == 0 &&
        vfs.f_bavail * vfs.f_frsize > (256u << 20))
        (void)setenv("TMPDIR", "/dev/shm", 0);
}

int main(void)
{
    prefer_memory();
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_each_call_fails_once_with_eio), T(test_each_call_fails_once_with_enospc),
        T(test_disk_dies_at_each_call),        T(test_disk_is_full_from_each_call),
        T(test_short_writes_are_completed),    T(test_process_dies_before_each_call),
        T(test_process_dies_after_each_call),  T(test_init_fails_at_each_call),
        T(test_lost_reply_of_the_commit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
