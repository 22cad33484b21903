/* SPDX-License-Identifier: Apache-2.0 */
/* Restoring into a file past the page cache: what is written how, and file systems that refuse. The
 * system calls are wrapped: the test says what the file system is, and fails what it likes. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/magic.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "proto/base/file.h"
#include "proto/base/log.h"
#include "tests/unit/worker/store/support.h"
#include "worker/copy/copy.h"

enum { MIB = 1 << 20, KIB = 1 << 10, BLOCK = STORE_BLOCK_BYTES, SIZE = 40 * MIB + 777 };

/* ---- the system calls of the file that is restored */

static struct {
    long fs_type;
    int refuse_direct;         /* errno of every direct write; 0 = the real one */
    int fail_write, fail_at;   /* errno of the nth write, from 1 */
    bool is_short;             /* some direct writes write less, and not whole sectors */
    int fail_reserve;          /* errno */
    int fail_sync;             /* errno */
    const uint8_t *want;       /* the disk, to see that no hole is reserved */
    atomic_int writes, direct; /* that were tried */
    atomic_int odd;            /* direct ones that are not aligned */
    atomic_int reserves, holes_reserved, syncs;
    _Atomic uint64_t reserved_bytes;
} fake;

int __real_fstatfs(int fd, struct statfs *out);
int __wrap_fstatfs(int fd, struct statfs *out);
int __wrap_fstatfs(int fd, struct statfs *out)
{
    int ret = __real_fstatfs(fd, out);
    out->f_type = fake.fs_type;
    return ret;
}

static bool is_target(int fd)
{
    return fd_ends_with(fd, "/out");
}

static int failed(int errnum)
{
    errno = errnum;
    return -1;
}

ssize_t __real_pwrite(int fd, const void *buf, size_t len, off_t offset);
ssize_t __wrap_pwrite(int fd, const void *buf, size_t len, off_t offset);
ssize_t __wrap_pwrite(int fd, const void *buf, size_t len, off_t offset)
{
    if (!is_target(fd))
        return __real_pwrite(fd, buf, len, offset);
    int n = atomic_fetch_add(&fake.writes, 1) + 1;
    if (n == fake.fail_at)
        return failed(fake.fail_write);
    if ((fcntl(fd, F_GETFL) & O_DIRECT) == 0)
        return __real_pwrite(fd, buf, len, offset);
    atomic_fetch_add(&fake.direct, 1);
    if (fake.refuse_direct)
        return failed(fake.refuse_direct);
    if ((uintptr_t)buf % BLOCK != 0 || len % BLOCK != 0 || offset % BLOCK != 0)
        atomic_fetch_add(&fake.odd, 1);
    if (fake.is_short && n % 3 == 0 && __real_pwrite(fd, buf, len, offset) == (ssize_t)len)
        return 100; /* the rest is written again, by whoever cannot trust the count */
    return __real_pwrite(fd, buf, len, offset);
}

int __real_fallocate(int fd, int mode, off_t offset, off_t len);
int __wrap_fallocate(int fd, int mode, off_t offset, off_t len);
int __wrap_fallocate(int fd, int mode, off_t offset, off_t len)
{
    if ((mode & FALLOC_FL_PUNCH_HOLE) != 0)
        return __real_fallocate(fd, mode, offset, len);
    assert(mode == FALLOC_FL_KEEP_SIZE);
    atomic_fetch_add(&fake.reserves, 1);
    if (fake.fail_reserve)
        return failed(fake.fail_reserve);
    for (off_t at = offset; at < offset + len; at += BLOCK) {
        size_t n = (size_t)(offset + len - at < BLOCK ? offset + len - at : BLOCK);
        static const uint8_t zero[BLOCK];
        if (memcmp(fake.want + at, zero, n) == 0)
            atomic_fetch_add(&fake.holes_reserved, 1);
    }
    atomic_fetch_add(&fake.reserved_bytes, (uint64_t)len);
    return __real_fallocate(fd, mode, offset, len);
}

int __real_fsync(int fd);
int __wrap_fsync(int fd);
int __wrap_fsync(int fd)
{
    if (!is_target(fd))
        return __real_fsync(fd);
    atomic_fetch_add(&fake.syncs, 1);
    return fake.fail_sync ? failed(fake.fail_sync) : __real_fsync(fd);
}

/* ---- a restore point, once for all tests */

struct fixture {
    char *dir, *out;
    struct store *store;
    struct store_point *point;
    uint8_t *data;
    uint64_t data_bytes;
    bool has_direct; /* the directory's file system allows it */
    struct err err;
};

static bool allows_direct(const char *dir)
{
    SCOPED_FREE char *path = xasprintf("%s/probe", dir);
    SCOPED_FREE uint8_t *block = xaligned(BLOCK, BLOCK);
    memset(block, 0, BLOCK);
    int fd = open(path, O_WRONLY | O_CREAT | O_DIRECT | O_CLOEXEC, 0600);
    bool does = fd >= 0 && pwrite(fd, block, BLOCK, 0) == BLOCK;
    if (fd >= 0)
        (void)close(fd);
    return does;
}

/* Data in runs of many lengths, all of whole blocks but the last one. */
static void make_data(struct fixture *f)
{
    uint64_t seed = 11;
    f->data = xcalloc(1, SIZE + BLOCK);
    for (size_t at = 0; at < SIZE;) {
        size_t len = (size_t)(1 + random_next(&seed) % 300) * BLOCK;
        len = SIZE - at < len ? SIZE - at : len;
        if (at + len == SIZE || random_next(&seed) % 4 > 0) {
            fill_text(f->data + at, len, seed);
            f->data_bytes += len;
        }
        at += len;
    }
}

static int setup_point(void **state)
{
    struct fixture *f = ALLOC_NEW(struct fixture);
    log_set_level(LOG_LEVEL_ERROR);
    f->dir = temp_dir();
    f->out = xasprintf("%s/out", f->dir);
    f->has_direct = allows_direct(f->dir);
    make_data(f);
    SCOPED_FREE char *path = xasprintf("%s/repo", f->dir);
    f->store = store_init(path, NULL, &f->err);
    MUST(f->store, &f->err);
    struct disk_image image = {.id = "d", .data = f->data, .size = SIZE};
    MUST(backup_image(f->store, "direct.1", &image, NULL, NULL, &f->err), &f->err);
    f->point = store_point_open(f->store, "direct.1", &f->err);
    MUST(f->point, &f->err);
    *state = f;
    return 0;
}

static int teardown_point(void **state)
{
    struct fixture *f = *state;
    store_point_free(f->point);
    store_free(f->store);
    remove_tree(f->dir);
    free(f->dir);
    free(f->out);
    free(f->data);
    free(f);
    return 0;
}

static int reset(void **state)
{
    struct fixture *f = *state;
    memset(&fake, 0, sizeof fake);
    fake.fs_type = EXT4_SUPER_MAGIC;
    fake.want = f->data;
    (void)unlink(f->out);
    return 0;
}

static bool restore(struct fixture *f, const struct target_file_opts *to)
{
    SCOPED(store_reader) struct store_reader *reader = store_disk_open(f->point, "d", &f->err);
    MUST(reader, &f->err);
    SCOPED(target) struct target *target = target_file_open(f->out, to, &f->err);
    MUST(target, &f->err);
    struct copy_opts opts = {.threads = 4};
    return copy_restore(reader, target, &opts, NULL, &f->err);
}

static const struct target_file_opts new_file = {.create = true, .size_bytes = SIZE};

/* What was restored is the disk, and as sparse. */
static void check(struct fixture *f)
{
    SCOPED_BUF struct buf got;
    struct stat st;
    MUST(file_read_all(AT_FDCWD, f->out, SIZE, &got, &f->err), &f->err);
    assert_int_equal(got.len, SIZE);
    assert_memory_equal(got.data, f->data, SIZE);
    assert_int_equal(stat(f->out, &st), 0);
    assert_in_range((uint64_t)st.st_blocks * 512, f->data_bytes, f->data_bytes + 256 * KIB);
    assert_true(fake.syncs > 0);
}

static void test_past_the_page_cache(void **state)
{
    struct fixture *f = *state;
    MUST(restore(f, &new_file), &f->err);
    check(f);
    assert_int_equal(fake.odd, 0);
    assert_int_equal(fake.holes_reserved, 0);
    if (f->has_direct) {
        assert_int_equal(fake.writes - fake.direct, 1); /* the end of an odd-sized disk */
        assert_in_range(fake.reserved_bytes, f->data_bytes, f->data_bytes + BLOCK);
    }
}

/* What was there before is gone, in holes too. */
static void test_onto_an_image(void **state)
{
    struct fixture *f = *state;
    uint8_t *old = xmalloc(SIZE);
    memset(old, 0xee, SIZE);
    MUST(file_write_atomic(AT_FDCWD, f->out, old, SIZE, 0600, &f->err), &f->err);
    free(old);
    MUST(restore(f, NULL), &f->err);
    check(f);
    assert_int_equal(fake.odd, 0);
}

static void test_where_it_is_not_worth_it(void **state)
{
    struct fixture *f = *state;
    fake.fs_type = NFS_SUPER_MAGIC;
    MUST(restore(f, &new_file), &f->err);
    check(f);
    assert_int_equal(fake.direct, 0);
    assert_int_equal(fake.reserves, 0);
    (void)reset(state);
    struct target_file_opts opts = new_file;
    opts.no_direct = true;
    MUST(restore(f, &opts), &f->err);
    check(f);
    assert_int_equal(fake.direct, 0);
}

static void test_many_small_pieces(void **state)
{
    struct fixture *f = *state;
    uint8_t *data = xcalloc(1, 8 * MIB);
    for (size_t at = 0; at < 8 * MIB; at += (size_t)2 * BLOCK)
        fill_text(data + at, BLOCK, at + 1);
    struct disk_image image = {.id = "d", .data = data, .size = 8 * MIB};
    MUST(backup_image(f->store, "small.1", &image, NULL, NULL, &f->err), &f->err);
    SCOPED(store_point) struct store_point *point = store_point_open(f->store, "small.1", &f->err);
    MUST(point, &f->err);
    SCOPED(store_reader) struct store_reader *reader = store_disk_open(point, "d", &f->err);
    MUST(reader, &f->err);
    assert_int_equal(store_reader_data(reader), 4 * MIB);
    assert_in_range(store_reader_pieces(reader), 1024, 1024);
    struct target_file_opts opts = {.create = true, .size_bytes = 8 * MIB};
    SCOPED(target) struct target *target = target_file_open(f->out, &opts, &f->err);
    MUST(target, &f->err);
    MUST(copy_restore(reader, target, NULL, NULL, &f->err), &f->err);
    SCOPED_BUF struct buf got;
    MUST(file_read_all(AT_FDCWD, f->out, 8 * MIB, &got, &f->err), &f->err);
    assert_int_equal(got.len, 8 * MIB);
    assert_memory_equal(got.data, data, 8 * MIB);
    assert_int_equal(fake.direct, 0);
    assert_true(fake.writes >= 1024);
    free(data);
}

static void test_a_file_system_that_refuses(void **state)
{
    struct fixture *f = *state;
    fake.refuse_direct = EINVAL;
    MUST(restore(f, &new_file), &f->err);
    check(f);
    assert_in_range(fake.direct, f->has_direct ? 1 : 0, 8); /* once a thread, and no more */
    (void)reset(state);
    fake.fail_reserve = EOPNOTSUPP;
    MUST(restore(f, &new_file), &f->err);
    check(f);
    assert_in_range(fake.reserves, f->has_direct ? 1 : 0, 8);
}

static void test_short_writes(void **state)
{
    struct fixture *f = *state;
    fake.is_short = true;
    MUST(restore(f, &new_file), &f->err);
    check(f);
}

static void test_a_full_file_system(void **state)
{
    struct fixture *f = *state;
    if (!f->has_direct)
        skip();
    fake.fail_reserve = ENOSPC;
    MUST_FAIL(restore(f, &new_file), &f->err, ERR_NO_SPACE);
    assert_int_equal(fake.writes, 0); /* known before anything is written */
    assert_int_equal(fake.syncs, 0);
    (void)reset(state);
    fake.fail_write = ENOSPC;
    fake.fail_at = 5;
    MUST_FAIL(restore(f, &new_file), &f->err, ERR_NO_SPACE);
    assert_int_equal(fake.syncs, 0);
}

/* Each write, the last one of all too, and the sync. */
static void test_a_failing_disk(void **state)
{
    struct fixture *f = *state;
    MUST(restore(f, &new_file), &f->err);
    int writes = fake.writes;
    for (int n = 1; n <= writes; n = n < 4 || n == writes ? n + 1
                                     : n + 7 < writes     ? n + 7
                                                          : writes) {
        (void)reset(state);
        fake.fail_write = EIO;
        fake.fail_at = n;
        MUST_FAIL(restore(f, &new_file), &f->err, ERR_IO);
        assert_int_equal(fake.syncs, 0);
    }
    (void)reset(state);
    fake.fail_sync = EIO;
    MUST_FAIL(restore(f, &new_file), &f->err, ERR_IO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_past_the_page_cache, reset),
        cmocka_unit_test_setup(test_onto_an_image, reset),
        cmocka_unit_test_setup(test_where_it_is_not_worth_it, reset),
        cmocka_unit_test_setup(test_many_small_pieces, reset),
        cmocka_unit_test_setup(test_a_file_system_that_refuses, reset),
        cmocka_unit_test_setup(test_short_writes, reset),
        cmocka_unit_test_setup(test_a_full_file_system, reset),
        cmocka_unit_test_setup(test_a_failing_disk, reset),
    };
    return cmocka_run_group_tests(tests, setup_point, teardown_point);
}
