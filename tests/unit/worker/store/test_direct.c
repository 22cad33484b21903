/* SPDX-License-Identifier: Apache-2.0 */
/* Storing, verifying and scrubbing past the page cache: what is written and read how, and disks and
 * file systems that do not do it. The system calls are wrapped: the test says what the file system
 * is, and what the disk has where the page cache still has what was written. */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "proto/base/log.h"
#include "scene.h"
#include "worker/store/upkeep.h"

enum { KIB = 1 << 10, BLOCK = STORE_BLOCK_BYTES, PACK = 2048 * KIB, SIZE = 9216 * KIB + 700 };

/* ---- the system calls */

enum { FDS = 1024 };

static struct {
    long fs_type;
    int refuse_open, refuse_read;  /* errno of every direct one; 0 = the real one */
    bool is_bad;                   /* the disk has other bytes than the page cache */
    bool is_short;                 /* some reads give one block */
    bool is_cut;                   /* the file ends where it is read */
    int refuse_write;              /* errno of every direct write */
    int fail_write, fail_at;       /* errno of the nth direct write, from 1 */
    atomic_bool is_direct[FDS];    /* descriptors that were asked for with O_DIRECT */
    atomic_int opens, direct, odd; /* odd: not aligned */
    atomic_size_t cached_bytes;    /* of packs, read the other way */
    atomic_int writes;             /* direct ones */
    atomic_size_t written, cached; /* bytes of packs, the one way and the other */
} fake;

int __real_fstatfs(int fd, struct statfs *out);
int __wrap_fstatfs(int fd, struct statfs *out);
int __wrap_fstatfs(int fd, struct statfs *out)
{
    int ret = __real_fstatfs(fd, out);
    out->f_type = fake.fs_type;
    return ret;
}

static int failed(int errnum)
{
    errno = errnum;
    return -1;
}

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...)
{
    if ((flags & O_DIRECT) == 0)
        return __real_open(path, flags, 0600);
    atomic_fetch_add(&fake.opens, 1);
    if (fake.refuse_open)
        return failed(fake.refuse_open);
    int fd = __real_open(path, flags & ~O_DIRECT); /* not every $TMPDIR has it */
    assert_in_range(fd, 0, FDS - 1);
    atomic_store(&fake.is_direct[fd], true);
    return fd;
}

int __real_close(int fd);
int __wrap_close(int fd);
int __wrap_close(int fd)
{
    if (fd >= 0 && fd < FDS)
        atomic_store(&fake.is_direct[fd], false);
    return __real_close(fd);
}

static bool is_pack(int fd)
{
    return fd_ends_with(fd, ".pk");
}

ssize_t __real_pread(int fd, void *buf, size_t len, off_t offset);
ssize_t __wrap_pread(int fd, void *buf, size_t len, off_t offset);
ssize_t __wrap_pread(int fd, void *buf, size_t len, off_t offset)
{
    if (!atomic_load(&fake.is_direct[fd])) {
        if (is_pack(fd))
            atomic_fetch_add(&fake.cached_bytes, len);
        return __real_pread(fd, buf, len, offset);
    }
    int number = atomic_fetch_add(&fake.direct, 1);
    if (fake.refuse_read)
        return failed(fake.refuse_read);
    if ((uintptr_t)buf % BLOCK != 0 || len % BLOCK != 0 || offset % BLOCK != 0)
        atomic_fetch_add(&fake.odd, 1);
    if (fake.is_cut)
        return 0;
    ssize_t n = __real_pread(fd, buf, fake.is_short && number % 2 == 0 ? BLOCK : len, offset);
    if (fake.is_bad && n > BLOCK + 100)
        ((uint8_t *)buf)[BLOCK + 100] ^= 1;
    return n;
}

int __real_fcntl(int fd, int cmd, ...);
int __wrap_fcntl(int fd, int cmd, ...);
int __wrap_fcntl(int fd, int cmd, ...)
{
    va_list args;
    va_start(args, cmd);
    long arg = va_arg(args, long);
    va_end(args);
    if (cmd != F_SETFL)
        return __real_fcntl(fd, cmd, arg);
    bool direct = (arg & O_DIRECT) != 0;
    if (direct && fake.refuse_open)
        return failed(fake.refuse_open);
    atomic_store(&fake.is_direct[fd], direct);
    return __real_fcntl(fd, cmd, arg & ~O_DIRECT);
}

ssize_t __real_write(int fd, const void *buf, size_t len);
ssize_t __wrap_write(int fd, const void *buf, size_t len);
ssize_t __wrap_write(int fd, const void *buf, size_t len)
{
    if (!is_pack(fd))
        return __real_write(fd, buf, len);
    if (!atomic_load(&fake.is_direct[fd])) {
        atomic_fetch_add(&fake.cached, len);
        return __real_write(fd, buf, len);
    }
    int number = atomic_fetch_add(&fake.writes, 1) + 1;
    if (fake.refuse_write)
        return failed(fake.refuse_write);
    if (number == fake.fail_at)
        return failed(fake.fail_write);
    off_t at = lseek(fd, 0, SEEK_CUR);
    if ((uintptr_t)buf % BLOCK != 0 || len % BLOCK != 0 || at % BLOCK != 0)
        return failed(EINVAL);
    if (fake.is_short && number % 2 == 0)
        len = number % 4 == 0 ? BLOCK : 100;
    atomic_fetch_add(&fake.written, len);
    return __real_write(fd, buf, len);
}

/* ---- a repository with a point */

static void start(struct scene *s, const char *key)
{
    memset(&fake, 0, sizeof fake);
    fake.fs_type = EXT4_SUPER_MAGIC;
    scene_begin(s, key, PACK, SIZE);
    MUST(backup_image(s->store, "a.1", &s->image, NULL, NULL, &s->err), &s->err);
}

/* As somebody else, whose caches are empty. */
static void again(struct scene *s, long fs_type)
{
    store_free(s->store);
    memset(&fake, 0, sizeof fake);
    fake.fs_type = fs_type;
    scene_open(s);
}

static bool verify(struct scene *s, struct store_verify_result *ret)
{
    const struct store_verify_opts opts = {.threads = 3};
    return store_verify_point(s->store, "a.1", &opts, ret, &s->err);
}

static void check_whole(struct scene *s)
{
    struct store_verify_result r;
    MUST(verify(s, &r), &s->err);
    assert_true(r.checked_bytes >= SIZE);
    assert_int_equal(r.damaged_ranges, 0);
}

/* Bytes that no other point has. */
static void back_up_anew(struct scene *s, const char *id)
{
    fill_random(s->image.data, SIZE, (uint64_t)id[2]);
    MUST(backup_image(s->store, id, &s->image, NULL, NULL, &s->err), &s->err);
    MUST(check_image(s->store, id, &s->image, &s->err), &s->err);
}

/* ---- tests */

static void what_is_stored_goes_to_the_disk(void **state)
{
    (void)state;
    struct scene s;
    start(&s, "full");
    again(&s, EXT4_SUPER_MAGIC);
    back_up_anew(&s, "a.2");
    assert_in_range(fake.written, SIZE / 2, SIZE);
    assert_in_range(fake.cached, 1, SIZE / 2); /* the end of each pack: less than a MiB of two */
    again(&s, NFS_SUPER_MAGIC);
    back_up_anew(&s, "a.3");
    assert_int_equal(fake.writes, 0);
    assert_true(fake.cached > SIZE);
    scene_end(&s);
}

static void a_file_system_that_does_not_store_so(void **state)
{
    (void)state;
    struct scene s;
    start(&s, "");
    again(&s, EXT4_SUPER_MAGIC);
    fake.refuse_write = EINVAL;
    back_up_anew(&s, "a.2");
    assert_in_range(fake.writes, 1, SIZE / PACK + 1); /* once a pack */
    again(&s, EXT4_SUPER_MAGIC);
    fake.refuse_open = EINVAL;
    back_up_anew(&s, "a.3");
    assert_int_equal(fake.writes, 0);
    scene_end(&s);
}

static void short_writes_go_on(void **state)
{
    (void)state;
    struct scene s;
    start(&s, "");
    again(&s, EXT4_SUPER_MAGIC);
    fake.is_short = true;
    back_up_anew(&s, "a.2");
    scene_end(&s);
}

static void a_disk_that_fails_or_is_full_stores_nothing(void **state)
{
    (void)state;
    static const struct {
        const char *id;
        int errnum;
        enum err_code want;
    } cases[] = {{"a.2", EIO, ERR_IO}, {"a.3", ENOSPC, ERR_NO_SPACE}};
    struct scene s;
    start(&s, "");
    size_t packs = count_files(s.path, "packs/");
    for (size_t i = 0; i < 2; i++) {
        again(&s, EXT4_SUPER_MAGIC);
        fill_random(s.image.data, SIZE, 8 + i);
        fake.fail_write = cases[i].errnum;
        fake.fail_at = 3;
        MUST_FAIL(backup_image(s.store, cases[i].id, &s.image, NULL, NULL, &s.err), &s.err,
                  cases[i].want);
        MUST_FAIL(store_point_open(s.store, cases[i].id, &s.err), &s.err, ERR_NOT_FOUND);
    }
    /* At most the finished one of each, which the next attempt adopts. */
    assert_in_range(count_files(s.path, "packs/"), packs, packs + 2);
    scene_end(&s);
}

static void what_is_verified_comes_from_the_disk(void **state)
{
    (void)state;
    struct scene s;
    static const char *const keys[] = {"", "full"};
    for (size_t i = 0; i < 2; i++) {
        start(&s, keys[i]);
        again(&s, EXT4_SUPER_MAGIC);
        check_whole(&s);
        assert_in_range(fake.direct, SIZE / (1024 * KIB), 20);
        assert_int_equal(fake.odd, 0);
        assert_true(fake.cached_bytes < SIZE / 10); /* headers and ends of packs */
        again(&s, XFS_SUPER_MAGIC);
        struct store_scrub_result r;
        MUST(store_scrub(s.store, NULL, &r, &s.err), &s.err);
        assert_int_equal(r.frames_damaged, 0);
        assert_in_range(fake.direct, r.frames, r.frames);
        assert_int_equal(fake.odd, 0);
        scene_end(&s);
    }
}

/* A reader may come again for the same bytes, and soon. */
static void what_is_restored_comes_from_the_page_cache(void **state)
{
    (void)state;
    struct scene s;
    start(&s, "");
    again(&s, EXT4_SUPER_MAGIC);
    MUST(check_image(s.store, "a.1", &s.image, &s.err), &s.err);
    assert_int_equal(fake.opens, 0);
    scene_end(&s);
}

static void a_disk_that_lost_what_the_cache_has_is_found_out(void **state)
{
    (void)state;
    struct scene s;
    start(&s, "");
    again(&s, EXT4_SUPER_MAGIC);
    fake.is_bad = true;
    struct store_verify_result r;
    MUST_FAIL(verify(&s, &r), &s.err, ERR_STORE_CORRUPT);
    assert_true(r.damaged_bytes > 0);
    struct store_scrub_result scrubbed;
    MUST(store_scrub(s.store, &(struct store_scrub_opts){.no_healing = true}, &scrubbed, &s.err),
         &s.err);
    assert_true(scrubbed.frames_damaged > 0);
    assert_int_equal(scrubbed.points_damaged, 1);
    scene_end(&s);
}

static void a_failing_disk_is_not_hidden_by_the_cache(void **state)
{
    (void)state;
    struct scene s;
    struct store_verify_result r;
    start(&s, "");
    again(&s, EXT4_SUPER_MAGIC);
    fake.refuse_read = EIO;
    MUST_FAIL(verify(&s, &r), &s.err, ERR_IO);
    assert_true(r.damaged_bytes > 0);
    again(&s, EXT4_SUPER_MAGIC);
    fake.is_cut = true;
    MUST_FAIL(verify(&s, &r), &s.err, ERR_IO);
    scene_end(&s);
}

static void short_reads_go_on(void **state)
{
    (void)state;
    struct scene s;
    start(&s, "");
    again(&s, EXT4_SUPER_MAGIC);
    fake.is_short = true;
    check_whole(&s);
    assert_int_equal(fake.odd, 0);
    scene_end(&s);
}

static void where_it_is_not_to_be_had(void **state)
{
    (void)state;
    struct scene s;
    start(&s, "");
    again(&s, NFS_SUPER_MAGIC);
    check_whole(&s);
    assert_int_equal(fake.opens, 0);
    again(&s, EXT4_SUPER_MAGIC);
    fake.refuse_open = EINVAL;
    check_whole(&s);
    assert_in_range(fake.opens, 1, 9); /* once a thread, and no more */
    assert_int_equal(fake.direct, 0);
    again(&s, EXT4_SUPER_MAGIC);
    fake.refuse_read = EINVAL;
    check_whole(&s);
    assert_in_range(fake.direct, 1, 9);
    scene_end(&s);
}

int main(void)
{
    log_set_level(LOG_LEVEL_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_stored_goes_to_the_disk),
        cmocka_unit_test(a_file_system_that_does_not_store_so),
        cmocka_unit_test(short_writes_go_on),
        cmocka_unit_test(a_disk_that_fails_or_is_full_stores_nothing),
        cmocka_unit_test(what_is_verified_comes_from_the_disk),
        cmocka_unit_test(what_is_restored_comes_from_the_page_cache),
        cmocka_unit_test(a_disk_that_lost_what_the_cache_has_is_found_out),
        cmocka_unit_test(a_failing_disk_is_not_hidden_by_the_cache),
        cmocka_unit_test(short_reads_go_on),
        cmocka_unit_test(where_it_is_not_to_be_had),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
