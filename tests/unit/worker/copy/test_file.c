/* SPDX-License-Identifier: Apache-2.0 */
/* Files and (where this machine allows one) a block device as source and target. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/base/file.h"
#include "tests/unit/worker/store/support.h"
#include "worker/copy/copy.h"

enum { MIB = 1 << 20, KIB = 1 << 10 };

struct fixture {
    char *dir, *path;
    struct err err;
};

static int setup(void **state)
{
    struct fixture *f = ALLOC_NEW(struct fixture);
    f->dir = temp_dir();
    f->path = xasprintf("%s/disk", f->dir);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    remove_tree(f->dir);
    free(f->dir);
    free(f->path);
    free(f);
    return 0;
}

/* A sparse file with data at [1 MiB, 2 MiB) and in its last byte. */
static uint8_t *make_file(struct fixture *f, size_t size)
{
    uint8_t *data = xcalloc(1, size);
    fill_random(data + MIB, MIB, 1);
    data[size - 1] = 9;
    int fd = open(f->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    MUST(file_pwrite_full(fd, data + MIB, MIB, MIB, &f->err), &f->err);
    MUST(file_pwrite_full(fd, data + size - 1, 1, size - 1, &f->err), &f->err);
    assert_int_equal(fsync(fd), 0);
    (void)close(fd);
    return data;
}

static void test_source_reads_and_maps(void **state)
{
    struct fixture *f = *state;
    const size_t size = 8 * MIB + 333;
    uint8_t *data = make_file(f, size);
    SCOPED(source) struct source *s = source_file_open(f->path, NULL, &f->err);
    MUST(s, &f->err);
    assert_int_equal(s->size_bytes, size);
    struct extents map = EXTENTS_INIT;
    MUST(s->ops->extents(s, 0, size, &map, &f->err), &f->err);
    uint64_t at = 0, data_bytes = 0;
    for (size_t i = 0; i < map.count; i++) {
        assert_int_equal(map.items[i].offset, at);
        at += map.items[i].len;
        data_bytes += map.items[i].is_data ? map.items[i].len : 0;
    }
    assert_int_equal(at, size);
    assert_in_range(data_bytes, MIB + 1, size);
    extents_reset(&map); /* a window in the middle of the data */
    MUST(s->ops->extents(s, MIB + 4 * KIB, 8 * KIB, &map, &f->err), &f->err);
    assert_int_equal(map.count, 1);
    assert_true(map.items[0].is_data);
    assert_int_equal(map.items[0].len, 8 * KIB);
    extents_done(&map);
    uint8_t *buf = xaligned(4096, 9 * MIB);
    MUST(s->ops->pread(s, buf, size, 0, &f->err), &f->err);
    assert_memory_equal(buf, data, size);
    MUST_FAIL(s->ops->pread(s, buf, 4096, 8 * MIB, &f->err), &f->err, ERR_IO); /* it ends */
    free(buf);
    free(data);
}

static void test_source_that_shrinks(void **state)
{
    struct fixture *f = *state;
    uint8_t *data = make_file(f, 4 * MIB);
    SCOPED(source) struct source *s = source_file_open(f->path, NULL, &f->err);
    MUST(s, &f->err);
    assert_int_equal(truncate(f->path, 3 * MIB), 0);
    uint8_t *buf = xaligned(4096, 4 * MIB);
    MUST_FAIL(s->ops->pread(s, buf, 4 * MIB, 0, &f->err), &f->err, ERR_IO);
    struct extents map = EXTENTS_INIT;
    MUST(s->ops->extents(s, 0, 4 * MIB, &map, &f->err), &f->err);
    extents_done(&map);
    free(buf);
    free(data);
}

static void test_source_refusals(void **state)
{
    struct fixture *f = *state;
    MUST_FAIL(source_file_open(f->path, NULL, &f->err), &f->err, ERR_NOT_FOUND);
    MUST_FAIL(source_file_open("/dev/null", NULL, &f->err), &f->err, ERR_BAD_ARGUMENT);
    MUST_FAIL(source_file_open(f->dir, NULL, &f->err), &f->err, ERR_BAD_ARGUMENT);
    assert_int_equal(mkfifo(f->path, 0600), 0);
    MUST_FAIL(source_file_open(f->path, NULL, &f->err), &f->err, ERR_BAD_ARGUMENT);
}

static void test_target_creates(void **state)
{
    struct fixture *f = *state;
    struct target_file_opts opts = {.create = true, .size_bytes = 2 * MIB + 5};
    struct target *t = target_file_open(f->path, &opts, &f->err);
    MUST(t, &f->err);
    assert_true(t->is_zero);
    assert_int_equal(t->size_bytes, 2 * MIB + 5);
    uint8_t *data = xaligned(4096, MIB);
    fill_random(data, MIB, 3);
    MUST(t->ops->pwrite(t, data, MIB, 4096, &f->err), &f->err);
    MUST(t->ops->pwrite(t, data, 5, 2 * MIB, &f->err), &f->err);
    MUST(t->ops->flush(t, &f->err), &f->err);
    target_close(t);
    SCOPED_BUF struct buf got;
    MUST(file_read_all(AT_FDCWD, f->path, 4 * MIB, &got, &f->err), &f->err);
    assert_int_equal(got.len, 2 * MIB + 5);
    assert_memory_equal(got.data + 4096, data, MIB);
    assert_memory_equal(got.data + 2 * MIB, data, 5);
    free(data);
    MUST_FAIL(target_file_open(f->path, &opts, &f->err), &f->err, ERR_EXISTS);
    MUST_FAIL(target_file_open("/nowhere/x", NULL, &f->err), &f->err, ERR_NOT_FOUND);
}

static void test_target_zeroes(void **state)
{
    struct fixture *f = *state;
    const size_t size = 3 * MIB;
    uint8_t *data = xmalloc(size);
    memset(data, 0xee, size);
    MUST(file_write_atomic(AT_FDCWD, f->path, data, size, 0600, &f->err), &f->err);
    SCOPED(target) struct target *t = target_file_open(f->path, NULL, &f->err);
    MUST(t, &f->err);
    assert_false(t->is_zero);
    MUST(t->ops->zero(t, 4096, MIB, &f->err), &f->err);
    MUST(t->ops->zero(t, 2 * MIB + 100, 1000, &f->err), &f->err); /* no hole possible: written */
    MUST(t->ops->zero(t, 2 * MIB + 512, MIB - 512, &f->err), &f->err);
    SCOPED_BUF struct buf got;
    MUST(file_read_all(AT_FDCWD, f->path, size, &got, &f->err), &f->err);
    assert_int_equal(got.len, size); /* the size stays */
    memset(data + 4096, 0, MIB);
    memset(data + 2 * MIB + 100, 0, 1000);
    memset(data + 2 * MIB + 512, 0, MIB - 512);
    assert_memory_equal(got.data, data, size);
    free(data);
}

/* ---- from file to file through the repository */

static void test_file_to_file(void **state)
{
    struct fixture *f = *state;
    const size_t size = 12 * MIB + 700;
    uint8_t *data = make_file(f, size);
    SCOPED_FREE char *repo = xasprintf("%s/repo", f->dir), *out = xasprintf("%s/out", f->dir);
    SCOPED(store) struct store *store = store_init(repo, NULL, &f->err);
    MUST(store, &f->err);
    SCOPED(source) struct source *from = source_file_open(f->path, NULL, &f->err);
    MUST(from, &f->err);
    struct store_session_opts so = session_opts("file.1");
    SCOPED(store_session) struct store_session *session = store_session_begin(store, &so, &f->err);
    MUST(session, &f->err);
    struct store_disk_opts d = {.id = "d", .size_bytes = size};
    struct store_disk *disk = store_disk_begin(session, &d, &f->err);
    struct copy_stats stats;
    MUST(copy_backup(from, session, disk, NULL, &stats, &f->err), &f->err);
    MUST(store_disk_finish(disk, NULL, &f->err), &f->err);
    MUST(store_session_commit(session, NULL, &f->err), &f->err);

    SCOPED(store_point) struct store_point *point = store_point_open(store, "file.1", &f->err);
    MUST(point, &f->err);
    SCOPED(store_reader) struct store_reader *reader = store_disk_open(point, "d", &f->err);
    MUST(reader, &f->err);
    struct target_file_opts to = {.create = true, .size_bytes = size};
    struct target *target = target_file_open(out, &to, &f->err);
    MUST(target, &f->err);
    MUST(copy_restore(reader, target, NULL, NULL, &f->err), &f->err);
    target_close(target);
    SCOPED_BUF struct buf got;
    MUST(file_read_all(AT_FDCWD, out, size, &got, &f->err), &f->err);
    assert_int_equal(got.len, size);
    assert_memory_equal(got.data, data, size);
    struct stat st;
    assert_int_equal(stat(out, &st), 0);
    assert_true(st.st_blocks * 512 < 4 * MIB); /* as sparse as before */
    free(data);
}

/* ---- a loop device, if we may have one */

/* `sector_bytes`: of its logical blocks; 0 = as the kernel likes. */
static int loop_attach(const char *path, unsigned long sector_bytes, char *ret_device)
{
    int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    int number = control < 0 ? -1 : ioctl(control, LOOP_CTL_GET_FREE);
    if (control >= 0)
        (void)close(control);
    if (number < 0)
        return -1;
    (void)snprintf(ret_device, 32, "/dev/loop%d", number);
    int device = open(ret_device, O_RDWR | O_CLOEXEC), file = open(path, O_RDWR | O_CLOEXEC);
    if (device >= 0 && file >= 0 && ioctl(device, LOOP_SET_FD, file) == 0) {
        /* It ends with its last user, however this test ends. */
        struct loop_info64 info = {.lo_flags = LO_FLAGS_AUTOCLEAR};
        assert_int_equal(ioctl(device, LOOP_SET_STATUS64, &info), 0);
        if (sector_bytes)
            assert_int_equal(ioctl(device, LOOP_SET_BLOCK_SIZE, sector_bytes), 0);
        (void)close(file);
        return device;
    }
    if (device >= 0)
        (void)close(device);
    if (file >= 0)
        (void)close(file);
    return -1;
}

static void test_block_device(void **state)
{
    struct fixture *f = *state;
    const size_t size = 6 * MIB;
    char device[32];
    uint8_t *data = make_file(f, size);
    int loop = loop_attach(f->path, 0, device);
    if (loop < 0) {
        free(data);
        skip();
    }
    struct source *s = source_file_open(device, NULL, &f->err);
    MUST(s, &f->err);
    assert_int_equal(s->size_bytes, size);
    uint8_t *buf = xaligned(4096, size);
    MUST(s->ops->pread(s, buf, size, 0, &f->err), &f->err);
    assert_memory_equal(buf, data, size);
    source_close(s);
    struct target *t = target_file_open(device, NULL, &f->err);
    MUST(t, &f->err);
    assert_false(t->is_zero);
    MUST(t->ops->zero(t, MIB + 4096, 64 * KIB, &f->err), &f->err);
    fill_random(buf, MIB, 8);
    MUST(t->ops->pwrite(t, buf, MIB, 4 * MIB, &f->err), &f->err);
    MUST(t->ops->flush(t, &f->err), &f->err);
    target_close(t);
    memset(data + MIB + 4096, 0, 64 * KIB);
    memcpy(data + 4 * MIB, buf, MIB);
    s = source_file_open(device, &(struct source_file_opts){.no_direct = true}, &f->err);
    MUST(s, &f->err);
    MUST(s->ops->pread(s, buf, size, 0, &f->err), &f->err);
    assert_memory_equal(buf, data, size);
    source_close(s);
    (void)close(loop);
    free(buf);
    free(data);
}

/* A disk with data in pieces of a size, restored onto a device full of other things. */
static void restore_onto_device(struct fixture *f, struct store *store, size_t piece,
                                bool by_frames)
{
    const size_t size = 24 * MIB;
    char id[32], device[32];
    (void)snprintf(id, sizeof id, "device.%zu", piece);
    uint8_t *data = xcalloc(1, size), *got = xaligned(4096, size);
    for (size_t at = 0; at < size; at += 2 * piece)
        fill_text(data + at, piece, at + 1);
    struct disk_image image = {.id = "d", .data = data, .size = size};
    MUST(backup_image(store, id, &image, NULL, NULL, &f->err), &f->err);
    memset(got, 0xee, size);
    MUST(file_write_atomic(AT_FDCWD, f->path, got, size, 0600, &f->err), &f->err);
    int loop = loop_attach(f->path, 0, device);
    assert_true(loop >= 0);
    SCOPED(store_point) struct store_point *point = store_point_open(store, id, &f->err);
    MUST(point, &f->err);
    SCOPED(store_reader) struct store_reader *reader = store_disk_open(point, "d", &f->err);
    MUST(reader, &f->err);
    struct target *t = target_file_open(device, NULL, &f->err);
    MUST(t, &f->err);
    MUST(copy_restore(reader, t, NULL, NULL, &f->err), &f->err);
    assert_int_equal(t->takes_pieces, by_frames);
    target_close(t);
    SCOPED(source) struct source *s = source_file_open(device, NULL, &f->err);
    MUST(s, &f->err);
    MUST(s->ops->pread(s, got, size, 0, &f->err), &f->err);
    assert_memory_equal(got, data, size);
    (void)close(loop);
    free(data);
    free(got);
}

static void test_restore_onto_a_device(void **state)
{
    struct fixture *f = *state;
    char device[32];
    free(make_file(f, 3 * MIB));
    int loop = loop_attach(f->path, 0, device);
    if (loop < 0)
        skip();
    (void)close(loop);
    SCOPED_FREE char *repo = xasprintf("%s/repo", f->dir);
    SCOPED(store) struct store *store = store_init(repo, NULL, &f->err);
    MUST(store, &f->err);
    restore_onto_device(f, store, MIB, true);
    restore_onto_device(f, store, 12 * KIB, false); /* in long runs */
}

/* Bytes of the device that are in the page cache. */
static size_t cached_bytes(const char *device, size_t size)
{
    int fd = open(device, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    size_t pages = (size + 4095) / 4096, cached = 0;
    void *map = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
    assert_true(map != MAP_FAILED);
    uint8_t *in = xcalloc(1, pages);
    assert_int_equal(mincore(map, size, in), 0);
    for (size_t i = 0; i < pages; i++)
        cached += in[i] & 1 ? 4096 : 0;
    free(in);
    (void)munmap(map, size);
    (void)close(fd);
    return cached;
}

/* Reads all of it, the last piece first, by pieces of the pipeline's kind. */
static void read_all(struct source *s, uint8_t *buf, size_t size, struct err *err)
{
    size_t last = (size - 1) / MIB * MIB;
    MUST(s->ops->pread(s, buf + last, size - last, last, err), err);
    for (size_t at = 0; at < last; at += MIB)
        MUST(s->ops->pread(s, buf + at, MIB, at, err), err);
}

/* Sectors of 512 and of 4096 bytes, sizes that are not whole pages; and none of it stays in the
 * proxy's page cache. */
static void test_block_devices_are_read_past_the_page_cache(void **state)
{
    struct fixture *f = *state;
    static const struct {
        unsigned long sector_bytes;
        size_t size;
    } rows[] = {{512, 6 * MIB}, {512, 6 * MIB + 3 * 512}, {4096, 6 * MIB}, {4096, 6 * MIB + 4096}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const size_t size = rows[i].size;
        char device[32];
        uint8_t *data = make_file(f, size);
        int loop = loop_attach(f->path, rows[i].sector_bytes, device);
        if (loop < 0) {
            free(data);
            skip();
        }
        uint8_t *buf = xaligned(4096, size + 4096);
        assert_int_equal(ioctl(loop, BLKFLSBUF, 0), 0);
        assert_int_equal(cached_bytes(device, size), 0);
        struct source *s = source_file_open(device, NULL, &f->err);
        MUST(s, &f->err);
        assert_int_equal(s->size_bytes, size);
        read_all(s, buf, size, &f->err);
        assert_memory_equal(buf, data, size);
        if (cached_bytes(device, size) > 0)
            fail_msg("row %zu: %zu bytes are in the page cache", i, cached_bytes(device, size));
        source_close(s);
        /* Through the cache, to show that the count counts. */
        s = source_file_open(device,
                             &(struct source_file_opts){.no_direct = true, .keep_page_cache = true},
                             &f->err);
        MUST(s, &f->err);
        memset(buf, 0, size);
        read_all(s, buf, size, &f->err);
        assert_memory_equal(buf, data, size);
        assert_true(cached_bytes(device, size) >= size / 2);
        source_close(s);
        (void)close(loop);
        assert_int_equal(unlink(f->path), 0);
        free(buf);
        free(data);
    }
}

/* A device whose last sector is cut off cannot be read to its end: an error, never less bytes. */
static void test_a_cut_sector_is_an_error(void **state)
{
    struct fixture *f = *state;
    const size_t size = 6 * MIB + 1536;
    char device[32];
    uint8_t *data = make_file(f, size);
    int loop = loop_attach(f->path, 4096, device);
    if (loop < 0) {
        free(data);
        skip();
    }
    struct source *s = source_file_open(device, NULL, &f->err);
    MUST(s, &f->err);
    uint8_t *buf = xaligned(4096, MIB);
    if (s->size_bytes == size) { /* else the kernel has cut it already */
        bool whole = s->ops->pread(s, buf, 1536, 6 * MIB, &f->err);
        assert_true(whole ? memcmp(buf, data + 6 * MIB, 1536) == 0 : f->err.code == ERR_IO);
    } else {
        assert_int_equal(s->size_bytes, 6 * MIB);
    }
    source_close(s);
    (void)close(loop);
    free(buf);
    free(data);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_source_reads_and_maps),
        T(test_source_that_shrinks),
        T(test_source_refusals),
        T(test_target_creates),
        T(test_target_zeroes),
        T(test_file_to_file),
        T(test_block_device),
        T(test_restore_onto_a_device),
        T(test_block_devices_are_read_past_the_page_cache),
        T(test_a_cut_sector_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
