/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sandbox's block layer against real QEMU: a writer keeps writing through NBD while its disk is
 * snapshotted, merged, shown to a proxy host and made to fail.
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <libnbd.h>

#include "proto/base/alloc.h"
#include "proto/base/clock.h"
#include "proto/base/file.h"
#include "tests/sandbox/block/block.h"
#include "tests/sandbox/block/image.h"

enum { BLOCK = 4096, BLOCKS = 4096, SIZE = BLOCK * BLOCKS, GENEROUS_MS = 60000 };

static const char DISK_A[] = "8fb9bea9-5b55-448a-9a1e-000000000001";
static const char DISK_B[] = "8fb9bea9-5b55-448a-9a1e-000000000002";
static const char NAME_A[] = "virtio-8fb9bea9-5b55-448a-9";

/* --- One temporary directory a test --------------------------------------------------------------
 */

struct place {
    char dir[64];
};

static int make_place(void **state)
{
    struct place *p = ALLOC_NEW(struct place);
    snprintf(p->dir, sizeof p->dir, "/tmp/block-test-XXXXXX");
    if (!mkdtemp(p->dir))
        return -1;
    *state = p;
    return 0;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    (void)type;
    (void)at;
    return remove(path);
}

static int remove_place(void **state)
{
    struct place *p = *state;
    (void)nftw(p->dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    free(p);
    return 0;
}

static char *in(const struct place *p, const char *name)
{
    return xasprintf("%s/%s", p->dir, name);
}

#define PATH(variable, place, name) SCOPED_FREE char *variable = in(place, name)

static void check(bool ok, const struct err *err, const char *what)
{
    if (!ok)
        fail_msg("%s: %s: %s (%s:%d)", what, err_code_name(err->code), err->message,
                 err->file ? err->file : "?", err->line);
}

#define OK(call)                                                                                   \
    do {                                                                                           \
        struct err err = ERR_INIT;                                                                 \
        check((call), &err, #call);                                                                \
    } while (0)
#define FAILS(wanted, call)                                                                        \
    do {                                                                                           \
        struct err err = ERR_INIT;                                                                 \
        assert_false(call);                                                                        \
        if (err.code != (wanted))                                                                  \
            fail_msg("%s: %s: %s", #call, err_code_name(err.code), err.message);                   \
    } while (0)

/* --- A writer: number n goes to block n * 2654435761 mod BLOCKS, one write at a time
 * ---------------- */

struct writer {
    pthread_t thread;
    char *uri;
    atomic_bool stop;
    atomic_ullong acked;
    atomic_int errnum; /* of the last failed write; it is repeated until it works */
    bool connected;
};

static uint64_t block_of(uint64_t n)
{
    return n * 2654435761U % BLOCKS;
}

static void fill(uint64_t *block, uint64_t n)
{
    for (size_t i = 0; i < BLOCK / sizeof *block; i++)
        block[i] = n;
}

static void *writer_main(void *arg)
{
    struct writer *w = arg;
    struct nbd_handle *nbd = nbd_create();
    w->connected = nbd && nbd_connect_uri(nbd, w->uri) == 0;
    uint64_t block[BLOCK / 8];
    for (uint64_t n = atomic_load(&w->acked) + 1; w->connected && !atomic_load(&w->stop);) {
        fill(block, n);
        if (nbd_pwrite(nbd, block, BLOCK, block_of(n) * BLOCK, 0) == 0) {
            atomic_store(&w->acked, n++);
            atomic_store(&w->errnum, 0);
        } else {
            atomic_store(&w->errnum, nbd_get_errno());
            clock_sleep_ms(clock_system(), 1);
        }
    }
    if (w->connected)
        (void)nbd_shutdown(nbd, 0);
    nbd_close(nbd);
    return NULL;
}

static void start_writer(struct writer *w, struct block_vm *vm, const char *disk, uint64_t from)
{
    *w = (struct writer){.uri = block_vm_nbd_uri(vm, disk)};
    assert_non_null(w->uri);
    atomic_store(&w->acked, from);
    assert_int_equal(pthread_create(&w->thread, NULL, writer_main, w), 0);
}

static uint64_t stop_writer(struct writer *w)
{
    atomic_store(&w->stop, true);
    pthread_join(w->thread, NULL);
    assert_true(w->connected);
    free(w->uri);
    return atomic_load(&w->acked);
}

static void wait_until_acked(struct writer *w, uint64_t n)
{
    for (int64_t left = GENEROUS_MS; atomic_load(&w->acked) < n; left -= 2) {
        if (left <= 0)
            fail_msg("the writer stands at %llu", atomic_load(&w->acked));
        clock_sleep_ms(clock_system(), 2);
    }
}

static void go_on(struct writer *w, uint64_t more)
{
    wait_until_acked(w, atomic_load(&w->acked) + more);
}

/* The instant S of a raw image: every block holds the last write <= S to it, else zeroes. */
static uint64_t judge(const char *raw)
{
    SCOPED_FD int fd = open(raw, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    SCOPED_FREE uint64_t *got = xcalloc(BLOCKS, sizeof *got);
    uint64_t s = 0, block[BLOCK / 8];
    for (uint64_t i = 0; i < BLOCKS; i++) {
        OK(file_pread_full(fd, block, BLOCK, i * BLOCK, &err));
        for (size_t k = 1; k < BLOCK / 8; k++)
            assert_int_equal(block[k], block[0]);
        got[i] = block[0];
        s = got[i] > s ? got[i] : s;
    }
    SCOPED_FREE uint64_t *want = xcalloc(BLOCKS, sizeof *want);
    for (uint64_t n = 1; n <= s; n++)
        want[block_of(n)] = n;
    for (uint64_t i = 0; i < BLOCKS; i++) {
        if (want[i] != got[i])
            fail_msg("instant %" PRIu64 ": block %" PRIu64 " holds %" PRIu64 ", not %" PRIu64, s, i,
                     got[i], want[i]);
    }
    return s;
}

static uint64_t judge_volume(const struct place *p, const char *path)
{
    PATH(raw, p, "judged.raw");
    OK(block_volume_flatten(path, BLOCK_QCOW2, raw, &err));
    uint64_t s = judge(raw);
    (void)unlink(raw);
    return s;
}

static struct block_vm *start_vm(const struct place *p, const char *const *paths, size_t count)
{
    static const char *const ids[] = {DISK_A, DISK_B};
    struct block_disk disks[2] = {0};
    for (size_t i = 0; i < count; i++) {
        snprintf(disks[i].id, sizeof disks[i].id, "%s", ids[i]);
        disks[i].path = paths[i];
        disks[i].format = BLOCK_QCOW2;
    }
    PATH(run, p, "vm");
    struct block_vm *vm = NULL;
    OK(vm = block_vm_start(run, disks, count, &err));
    return vm;
}

static struct block_overlay overlay_of(const char *disk, const char *path)
{
    struct block_overlay o = {.path = path};
    snprintf(o.disk_id, sizeof o.disk_id, "%s", disk);
    return o;
}

/* --- Tests
 * ------------------------------------------------------------------------------------------ */

static void test_snapshot_and_merge(void **state)
{
    const struct place *p = *state;
    PATH(base, p, "base.qcow2");
    PATH(one, p, "one.qcow2");
    PATH(two, p, "two.qcow2");
    OK(block_volume_create(base, BLOCK_QCOW2, SIZE, NULL, BLOCK_RAW, &err));
    struct block_vm *vm = start_vm(p, (const char *[]){base}, 1);
    struct writer w;
    start_writer(&w, vm, DISK_A, 0);
    wait_until_acked(&w, 500);

    struct block_overlay over = overlay_of(DISK_A, one);
    uint64_t before = atomic_load(&w.acked);
    OK(block_vm_snapshot(vm, &over, 1, &err));
    uint64_t after = atomic_load(&w.acked) + 1;
    go_on(&w, 500);
    uint64_t s1 = judge_volume(p, base);
    assert_in_range(s1, before, after);

    over = overlay_of(DISK_A, two);
    before = atomic_load(&w.acked);
    OK(block_vm_snapshot(vm, &over, 1, &err));
    after = atomic_load(&w.acked) + 1;
    go_on(&w, 500);
    uint64_t s2 = judge_volume(p, one);
    assert_in_range(s2, before, after);
    assert_int_equal(judge_volume(p, base), s1);

    /* The middle volume goes down into the base while the guest writes on. */
    FAILS(ERR_BAD_ARGUMENT, block_vm_merge(vm, DISK_A, two, base, 0, &err));
    OK(block_vm_merge(vm, DISK_A, one, base, 0, &err));
    assert_int_equal(unlink(one), 0);
    assert_int_equal(judge_volume(p, base), s2);
    SCOPED_IMAGE_INFO struct image_info info = {0};
    OK(image_info_read(two, BLOCK_QCOW2, &info, &err));
    assert_true(image_is_same_file(info.backing, base));

    /* The active volume goes down. */
    go_on(&w, 500);
    OK(block_vm_merge(vm, DISK_A, two, base, 0, &err));
    assert_int_equal(unlink(two), 0);
    go_on(&w, 500);
    uint64_t end = stop_writer(&w);
    block_vm_stop(vm);
    assert_int_equal(judge_volume(p, base), end);
}

static void judge_device(const char *device, uint64_t want)
{
    struct stat st;
    assert_int_equal(stat(device, &st), 0);
    assert_int_equal(st.st_size, SIZE);
    assert_int_equal(judge(device), want);
}

static void test_host_shows_frozen_disk(void **state)
{
    const struct place *p = *state;
    PATH(base, p, "base.qcow2");
    PATH(top, p, "top.qcow2");
    PATH(run, p, "host");
    PATH(dev, p, "by-id");
    SCOPED_FREE char *device = xasprintf("%s/%s", dev, NAME_A);
    OK(block_volume_create(base, BLOCK_QCOW2, SIZE, NULL, BLOCK_RAW, &err));
    struct block_vm *vm = start_vm(p, (const char *[]){base}, 1);
    struct block_host *host = NULL;
    OK(host = block_host_start(run, dev, &err));
    struct writer w;
    start_writer(&w, vm, DISK_A, 0);
    wait_until_acked(&w, 500);
    struct block_overlay over = overlay_of(DISK_A, top);
    OK(block_vm_snapshot(vm, &over, 1, &err));

    struct block_plug_opts opts = {.path = base, .format = BLOCK_QCOW2, .transient = true};
    OK(block_host_plug(host, NAME_A, &opts, &err));
    FAILS(ERR_EXISTS, block_host_plug(host, NAME_A, &opts, &err));
    uint64_t s = judge_volume(p, base);
    go_on(&w, 500);
    judge_device(device, s);

    /* The guest of the proxy may write: into the overlay. */
    int fd = open(device, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, "scribble", 8, 0), 8);
    assert_int_equal(judge_volume(p, base), s);

    /* QEMU's own lock refuses the merge, and an open device its removal. */
    FAILS(ERR_CONFLICT, block_vm_merge(vm, DISK_A, top, base, 0, &err));
    FAILS(ERR_CONFLICT, block_host_unplug(host, NAME_A, &err));
    char back[8];
    assert_int_equal(pread(fd, back, 8, 0), 8);
    assert_memory_equal(back, "scribble", 8);
    assert_int_equal(access(device, R_OK), 0);
    assert_int_equal(close(fd), 0);
    OK(block_host_unplug(host, NAME_A, &err));
    assert_int_not_equal(access(device, F_OK), 0);
    FAILS(ERR_NOT_FOUND, block_host_unplug(host, NAME_A, &err));

    OK(block_vm_merge(vm, DISK_A, top, base, 0, &err));
    uint64_t end = stop_writer(&w);
    block_host_stop(host);
    block_vm_stop(vm);
    assert_int_equal(judge_volume(p, base), end);
}

static void test_snapshot_is_all_or_nothing(void **state)
{
    const struct place *p = *state;
    PATH(a, p, "a.qcow2");
    PATH(b, p, "b.qcow2");
    PATH(a1, p, "a1.qcow2");
    PATH(b1, p, "b1.qcow2");
    OK(block_volume_create(a, BLOCK_QCOW2, SIZE, NULL, BLOCK_RAW, &err));
    OK(block_volume_create(b, BLOCK_QCOW2, SIZE, NULL, BLOCK_RAW, &err));
    OK(block_volume_create(b1, BLOCK_QCOW2, SIZE, NULL, BLOCK_RAW, &err)); /* in the way */
    struct block_vm *vm = start_vm(p, (const char *[]){a, b}, 2);
    struct block_overlay overlays[] = {overlay_of(DISK_A, a1), overlay_of(DISK_B, b1)};
    FAILS(ERR_EXISTS, block_vm_snapshot(vm, overlays, 2, &err));
    assert_int_not_equal(access(a1, F_OK), 0);
    assert_int_equal(access(b1, F_OK), 0);
    overlays[1] = overlay_of(DISK_A, b1);
    FAILS(ERR_BAD_ARGUMENT, block_vm_snapshot(vm, overlays, 2, &err));
    FAILS(ERR_BAD_ARGUMENT, block_vm_snapshot(vm, overlays, 0, &err));
    overlays[1] = overlay_of("no-such-disk", b1);
    FAILS(ERR_NOT_FOUND, block_vm_snapshot(vm, overlays, 2, &err));
    assert_int_equal(unlink(b1), 0);
    overlays[1] = overlay_of(DISK_B, b1);
    OK(block_vm_snapshot(vm, overlays, 2, &err));
    struct writer w;
    start_writer(&w, vm, DISK_B, 0); /* still there, and on the overlay */
    wait_until_acked(&w, 100);
    uint64_t end = stop_writer(&w);
    block_vm_stop(vm);
    assert_int_equal(judge_volume(p, b), 0);
    assert_int_equal(judge_volume(p, b1), end);
}

static void test_plug_and_unplug(void **state)
{
    const struct place *p = *state;
    PATH(a, p, "a.qcow2");
    PATH(b, p, "b.raw");
    OK(block_volume_create(a, BLOCK_QCOW2, SIZE, NULL, BLOCK_RAW, &err));
    OK(block_volume_create(b, BLOCK_RAW, SIZE, NULL, BLOCK_RAW, &err));
    struct block_vm *vm = start_vm(p, (const char *[]){a}, 1);
    struct block_disk disk = {.path = b, .format = BLOCK_RAW};
    snprintf(disk.id, sizeof disk.id, "%s", DISK_B);
    OK(block_vm_plug(vm, &disk, &err));
    FAILS(ERR_EXISTS, block_vm_plug(vm, &disk, &err));
    struct writer w;
    start_writer(&w, vm, DISK_B, 0);
    wait_until_acked(&w, 200);
    uint64_t end = stop_writer(&w);
    OK(block_vm_unplug(vm, DISK_B, &err));
    FAILS(ERR_NOT_FOUND, block_vm_unplug(vm, DISK_B, &err));
    assert_null(block_vm_nbd_uri(vm, DISK_B));
    assert_int_equal(judge(b), end);
    /* A volume that another VM has open is locked. */
    PATH(run, p, "vm2");
    snprintf(disk.id, sizeof disk.id, "%s", DISK_A);
    disk.path = a;
    disk.format = BLOCK_QCOW2;
    FAILS(ERR_CONFLICT, block_vm_start(run, &disk, 1, &err));
    disk.path = "/no/such/volume";
    snprintf(disk.id, sizeof disk.id, "%s", DISK_B);
    FAILS(ERR_NOT_FOUND, block_vm_plug(vm, &disk, &err));
    block_vm_stop(vm);
}

static void test_write_errors(void **state)
{
    const struct place *p = *state;
    PATH(base, p, "base.qcow2");
    PATH(top, p, "top.qcow2");
    OK(block_volume_create(base, BLOCK_QCOW2, SIZE, NULL, BLOCK_RAW, &err));
    struct block_vm *vm = start_vm(p, (const char *[]){base}, 1);
    static const int errnums[] = {ENOSPC, EIO};
    uint64_t at = 0;
    for (size_t i = 0; i < ARRAY_LEN(errnums); i++) {
        OK(block_vm_set_write_error(vm, DISK_A, errnums[i], &err));
        struct writer w;
        start_writer(&w, vm, DISK_A, at);
        for (int left = GENEROUS_MS; atomic_load(&w.errnum) == 0 && left > 0; left--)
            clock_sleep_ms(clock_system(), 1);
        assert_int_equal(atomic_load(&w.errnum), errnums[i]);
        assert_int_equal(stop_writer(&w), at);
        /* A snapshot and a merge below the fault change nothing about it. */
        struct block_overlay over = overlay_of(DISK_A, top);
        OK(block_vm_snapshot(vm, &over, 1, &err));
        OK(block_vm_merge(vm, DISK_A, top, base, 0, &err));
        assert_int_equal(unlink(top), 0);
        OK(block_vm_set_write_error(vm, DISK_A, 0, &err));
        OK(block_vm_set_write_error(vm, DISK_A, 0, &err));
        start_writer(&w, vm, DISK_A, at);
        wait_until_acked(&w, at + 100);
        at = stop_writer(&w);
    }
    OK(block_vm_set_write_error(vm, DISK_A, EIO, &err));
    OK(block_vm_unplug(vm, DISK_A, &err)); /* with the fault in */
    block_vm_stop(vm);
    assert_int_equal(judge_volume(p, base), at);
}

struct merging {
    struct block_vm *vm;
    const char *top, *base;
    struct err err;
    bool ok;
};

static void *merge_main(void *arg)
{
    struct merging *m = arg;
    m->ok = block_vm_merge(m->vm, DISK_A, m->top, m->base, 65536, &m->err);
    return NULL;
}

static void test_stop_cancels_slow_merge(void **state)
{
    const struct place *p = *state;
    PATH(base, p, "base.qcow2");
    PATH(top, p, "top.qcow2");
    OK(block_volume_create(base, BLOCK_QCOW2, SIZE, NULL, BLOCK_RAW, &err));
    struct block_vm *vm = start_vm(p, (const char *[]){base}, 1);
    struct block_overlay over = overlay_of(DISK_A, top);
    OK(block_vm_snapshot(vm, &over, 1, &err));
    struct writer w;
    start_writer(&w, vm, DISK_A, 0);
    wait_until_acked(&w, 3000);
    uint64_t end = stop_writer(&w);
    struct merging m = {.vm = vm, .top = top, .base = base};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, merge_main, &m), 0);
    /* As soon as it runs, the disk is taken. */
    struct err why = ERR_INIT;
    while (block_vm_set_write_error(vm, DISK_A, 0, &why))
        clock_sleep_ms(clock_system(), 1);
    assert_int_equal(why.code, ERR_CONFLICT);
    FAILS(ERR_CONFLICT, block_vm_unplug(vm, DISK_A, &err));
    FAILS(ERR_CONFLICT, block_vm_merge(vm, DISK_A, top, base, 0, &err));
    block_vm_stop(vm);
    pthread_join(thread, NULL);
    assert_false(m.ok);
    assert_int_equal(judge_volume(p, top), end);
    OK(block_volume_commit(top, base, NULL, &err));
    assert_int_equal(unlink(top), 0);
    assert_int_equal(judge_volume(p, base), end);
}

static void test_merge_at_rest(void **state)
{
    const struct place *p = *state;
    PATH(base, p, "base.raw");
    PATH(one, p, "one.qcow2");
    PATH(two, p, "two.qcow2");
    OK(block_volume_create(base, BLOCK_RAW, SIZE, NULL, BLOCK_RAW, &err));
    OK(block_volume_create(one, BLOCK_QCOW2, SIZE, base, BLOCK_RAW, &err));
    uint64_t at = 0;
    const char *const actives[] = {one, two};
    for (size_t i = 0; i < 2; i++) {
        struct block_vm *vm = start_vm(p, &actives[i], 1);
        struct writer w;
        start_writer(&w, vm, DISK_A, at);
        wait_until_acked(&w, at + 300);
        at = stop_writer(&w);
        if (i == 1) /* in use: QEMU's lock */
            FAILS(ERR_CONFLICT, block_volume_commit(one, base, two, &err));
        block_vm_stop(vm);
        if (i == 0)
            OK(block_volume_create(two, BLOCK_QCOW2, SIZE, one, BLOCK_QCOW2, &err));
    }
    FAILS(ERR_BAD_ARGUMENT, block_volume_commit(two, base, NULL, &err));
    FAILS(ERR_UNSUPPORTED, block_volume_commit(one, base, base, &err));
    OK(block_volume_commit(one, base, two, &err));
    assert_int_equal(unlink(one), 0);
    assert_int_equal(judge_volume(p, two), at);
    uint64_t bytes = 0;
    OK(block_volume_actual_size(base, &bytes, &err));
    assert_in_range(bytes, BLOCK, SIZE);
}

static void test_volumes_are_checked(void **state)
{
    const struct place *p = *state;
    PATH(a, p, "a.qcow2");
    PATH(b, p, "b");
    OK(block_volume_create(a, BLOCK_QCOW2, SIZE, NULL, BLOCK_RAW, &err));
    FAILS(ERR_EXISTS, block_volume_create(a, BLOCK_QCOW2, SIZE, NULL, BLOCK_RAW, &err));
    FAILS(ERR_BAD_ARGUMENT, block_volume_create(b, BLOCK_RAW, SIZE, a, BLOCK_QCOW2, &err));
    FAILS(ERR_NOT_FOUND, block_volume_create(b, BLOCK_QCOW2, SIZE, "/none", BLOCK_RAW, &err));
    FAILS(ERR_TOO_LARGE, block_volume_create(b, BLOCK_RAW, UINT64_MAX, NULL, BLOCK_RAW, &err));
    uint64_t bytes;
    FAILS(ERR_NOT_FOUND, block_volume_actual_size(b, &bytes, &err));
    SCOPED_IMAGE_INFO struct image_info info = {0};
    OK(file_write_atomic(AT_FDCWD, b, "no qcow2", 8, 0644, &err));
    FAILS(ERR_UNSUPPORTED, image_info_read(b, BLOCK_QCOW2, &info, &err));
    /* A head whose backing name lies outside it. */
    SCOPED_BUF struct buf head;
    OK(file_read_all(AT_FDCWD, a, SIZE, &head, &err));
    memset(head.data + 8, 0x7f, 12);
    OK(file_write_atomic(AT_FDCWD, b, head.data, head.len, 0644, &err));
    FAILS(ERR_UNSUPPORTED, image_info_read(b, BLOCK_QCOW2, &info, &err));
    SCOPED_FREE char *deep = xasprintf("%s/%0120d", p->dir, 0);
    FAILS(ERR_BAD_ARGUMENT, block_vm_start(deep, NULL, 0, &err));
}

static void test_export(void **state)
{
    const struct place *p = *state;
    PATH(base, p, "base.qcow2");
    PATH(run, p, "export");
    OK(block_volume_create(base, BLOCK_QCOW2, SIZE, NULL, BLOCK_RAW, &err));
    struct block_export *x = NULL;
    OK(x = block_export_start(run, base, BLOCK_QCOW2, true, &err));
    struct nbd_handle *nbd[2] = {nbd_create(), nbd_create()}; /* several clients at once */
    uint64_t block[BLOCK / 8], back[BLOCK / 8];
    fill(block, 1);
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(nbd_connect_uri(nbd[i], block_export_uri(x)), 0);
    assert_int_equal(nbd_pwrite(nbd[0], block, BLOCK, block_of(1) * BLOCK, 0), 0);
    assert_int_equal(nbd_pread(nbd[1], back, BLOCK, block_of(1) * BLOCK, 0), 0);
    assert_memory_equal(back, block, BLOCK);
    nbd_close(nbd[0]);
    nbd_close(nbd[1]);
    block_export_stop(x);
    assert_int_equal(judge_volume(p, base), 1);
    OK(x = block_export_start(run, base, BLOCK_QCOW2, false, &err));
    nbd[0] = nbd_create();
    assert_int_equal(nbd_connect_uri(nbd[0], block_export_uri(x)), 0);
    assert_int_equal(nbd_is_read_only(nbd[0]), 1);
    nbd_close(nbd[0]);
    block_export_stop(x);
    FAILS(ERR_IO, block_export_start(run, "/no/such/volume", BLOCK_QCOW2, false, &err));
}

static void test_host_writes_to_volume(void **state)
{
    const struct place *p = *state;
    PATH(base, p, "base.qcow2");
    PATH(run, p, "host");
    PATH(dev, p, "by-id");
    SCOPED_FREE char *device = xasprintf("%s/%s", dev, NAME_A);
    OK(block_volume_create(base, BLOCK_QCOW2, SIZE, NULL, BLOCK_RAW, &err));
    struct block_host *host = NULL;
    OK(host = block_host_start(run, dev, &err));
    struct block_plug_opts opts = {.path = base, .format = BLOCK_QCOW2};
    FAILS(ERR_BAD_ARGUMENT, block_host_plug(host, "../x", &opts, &err));
    OK(block_host_plug(host, NAME_A, &opts, &err));
    int fd = open(device, O_RDWR | O_CLOEXEC);
    uint64_t block[BLOCK / 8];
    fill(block, 1);
    OK(file_pwrite_full(fd, block, BLOCK, block_of(1) * BLOCK, &err));
    assert_int_equal(fsync(fd), 0);
    assert_int_equal(close(fd), 0);
    OK(block_host_unplug(host, NAME_A, &err));
    assert_int_equal(judge_volume(p, base), 1);
    block_host_stop(host);
}

/* A machine that cannot be: what is missing is named, and nothing stays. */
static void test_guest_needs_its_files(void **state)
{
    const struct place *p = *state;
    PATH(run, p, "machine");
    PATH(kernel, p, "vmlinuz");
    PATH(pid, p, "machine/pid");
    const struct block_guest guest = {.kernel = kernel, .initrd = kernel, .uuid = DISK_A};
    struct err why = ERR_INIT;
    assert_null(block_host_start_guest(run, &guest, &why));
    assert_non_null(strstr(why.message, kernel));
    OK(file_write_atomic(AT_FDCWD, kernel, "x", 1, 0644, &err)); /* no kernel */
    err_clear(&why);
    assert_null(block_host_start_guest(run, &guest, &why));
    assert_non_null(strstr(why.message, "qemu-system-x86_64"));
    assert_int_equal(access(pid, F_OK), -1);
}

static void test_loop_device(void **state)
{
    const struct place *p = *state;
    if (access("/dev/loop-control", R_OK | W_OK) != 0)
        skip();
    PATH(base, p, "base.qcow2");
    PATH(run, p, "host");
    PATH(dev, p, "by-id");
    SCOPED_FREE char *device = xasprintf("%s/%s", dev, NAME_A);
    OK(block_volume_create(base, BLOCK_QCOW2, SIZE, NULL, BLOCK_RAW, &err));
    struct block_host *host = NULL;
    OK(host = block_host_start(run, dev, &err));
    struct block_plug_opts opts = {
        .path = base, .format = BLOCK_QCOW2, .transient = true, .loop = true};
    OK(block_host_plug(host, NAME_A, &opts, &err));
    struct stat st;
    assert_int_equal(stat(device, &st), 0);
    assert_true(S_ISBLK(st.st_mode));
    int fd = open(device, O_RDONLY | O_CLOEXEC);
    assert_int_equal(lseek(fd, 0, SEEK_END), SIZE);
    assert_int_equal(judge(device), 0);
    FAILS(ERR_CONFLICT, block_host_unplug(host, NAME_A, &err));
    assert_int_equal(stat(device, &st), 0);
    assert_int_equal(close(fd), 0);
    OK(block_host_unplug(host, NAME_A, &err));
    assert_int_not_equal(stat(device, &st), 0);
    block_host_stop(host);
}

/* --- What is left when the sandbox, or a daemon of it, is killed
 * -------------------------------------- */

static bool is_mounted_under(const char *dir)
{
    struct err ignored = ERR_INIT;
    SCOPED_BUF struct buf mounts;
    assert_true(file_read_all(AT_FDCWD, "/proc/self/mounts", 1 << 20, &mounts, &ignored));
    return strstr(buf_str(&mounts), dir);
}

static bool is_alive(pid_t pid)
{
    return kill(pid, 0) == 0;
}

static void wait_until_dead(pid_t pid)
{
    for (int left = GENEROUS_MS; is_alive(pid); left -= 5) {
        if (left <= 0)
            fail_msg("process %d lives on", (int)pid);
        clock_sleep_ms(clock_system(), 5);
    }
}

/* A sandbox in a process of its own: a VM, a host with a device; tells the daemons' pids, hangs. */
static _Noreturn void run_sandbox(const char *base, const char *top, const char *vm_run,
                                  const char *host_run, const char *dev, int out)
{
    struct err err = ERR_INIT;
    struct block_disk disk = {.path = base, .format = BLOCK_QCOW2};
    snprintf(disk.id, sizeof disk.id, "%s", DISK_A);
    struct block_overlay over = overlay_of(DISK_A, top);
    struct block_plug_opts opts = {.path = base, .format = BLOCK_QCOW2, .transient = true};
    struct block_vm *vm = block_vm_start(vm_run, &disk, 1, &err);
    struct block_host *host = vm ? block_host_start(host_run, dev, &err) : NULL;
    if (host && block_vm_snapshot(vm, &over, 1, &err) &&
        block_host_plug(host, NAME_A, &opts, &err)) {
        pid_t pids[2] = {block_vm_pid(vm), block_host_pid(host)};
        (void)!write(out, pids, sizeof pids);
    }
    for (;;)
        pause();
}

static void test_killed_sandbox_leaves_nothing(void **state)
{
    const struct place *p = *state;
    PATH(base, p, "base.qcow2");
    PATH(top, p, "top.qcow2");
    PATH(vm_run, p, "vm");
    PATH(host_run, p, "host");
    PATH(dev, p, "by-id");
    SCOPED_FREE char *device = xasprintf("%s/%s", dev, NAME_A);
    OK(block_volume_create(base, BLOCK_QCOW2, SIZE, NULL, BLOCK_RAW, &err));
    for (int stopped = 0; stopped < 2; stopped++) {
        int out[2];
        assert_int_equal(pipe2(out, O_CLOEXEC), 0);
        (void)unlink(top);
        pid_t sandbox = fork();
        if (sandbox == 0)
            run_sandbox(base, top, vm_run, host_run, dev, out[1]);
        (void)close(out[1]);
        pid_t pids[2] = {0};
        assert_int_equal(read(out[0], pids, sizeof pids), sizeof pids);
        (void)close(out[0]);
        assert_true(is_mounted_under(p->dir));
        if (stopped == 1) { /* one that does not react to its parent's death */
            assert_int_equal(kill(pids[0], SIGSTOP), 0);
            assert_int_equal(kill(pids[1], SIGSTOP), 0);
        }
        assert_int_equal(kill(sandbox, SIGKILL), 0);
        assert_int_equal(waitpid(sandbox, NULL, 0), sandbox);
        if (stopped == 0) {
            wait_until_dead(pids[0]);
            wait_until_dead(pids[1]);
            assert_false(is_mounted_under(p->dir));
        }
        /* The next sandbox in the same directories. */
        struct block_host *host = NULL;
        OK(host = block_host_start(host_run, dev, &err));
        assert_int_not_equal(access(device, F_OK), 0);
        assert_false(is_mounted_under(p->dir));
        struct block_vm *vm = start_vm(p, (const char *[]){top}, 1);
        wait_until_dead(pids[0]);
        wait_until_dead(pids[1]);
        OK(block_vm_merge(vm, DISK_A, top, base, 0, &err));
        block_vm_stop(vm);
        block_host_stop(host);
    }
}

static void test_killed_host(void **state)
{
    const struct place *p = *state;
    PATH(base, p, "base.qcow2");
    PATH(run, p, "host");
    PATH(dev, p, "by-id");
    SCOPED_FREE char *device = xasprintf("%s/%s", dev, NAME_A);
    OK(block_volume_create(base, BLOCK_QCOW2, SIZE, NULL, BLOCK_RAW, &err));
    struct block_host *host = NULL;
    OK(host = block_host_start(run, dev, &err));
    struct block_plug_opts opts = {.path = base, .format = BLOCK_QCOW2, .transient = true};
    OK(block_host_plug(host, NAME_A, &opts, &err));
    int fd = open(device, O_RDONLY | O_CLOEXEC);
    assert_true(block_host_is_running(host));
    assert_int_equal(kill(block_host_pid(host), SIGKILL), 0);
    while (block_host_is_running(host))
        clock_sleep_ms(clock_system(), 5);
    char byte;
    assert_int_equal(pread(fd, &byte, 1, 0), -1); /* a dead device, as after a lost host */
    OK(block_host_unplug(host, NAME_A, &err));
    (void)close(fd); /* fails: there is nobody left to flush to */
    assert_int_not_equal(access(device, F_OK), 0);
    block_host_stop(host);
    assert_false(is_mounted_under(p->dir));
    OK(host = block_host_start(run, dev, &err));
    OK(block_host_plug(host, NAME_A, &opts, &err));
    assert_int_equal(access(device, R_OK), 0);
    block_host_stop(host); /* with the device still plugged */
    assert_false(is_mounted_under(p->dir));
    assert_int_not_equal(access(device, F_OK), 0);
}

/* Reads at random until it is killed. */
static void *read_for_ever(void *arg)
{
    const int fd = *(const int *)arg;
    char *block = xaligned(BLOCK, BLOCK);
    uint64_t i = 1;
    while (pread(fd, block, BLOCK, (off_t)(i % BLOCKS * BLOCK)) == BLOCK)
        i = i * 5 + 1;
    _exit(1);
}

static void read_devices(char *const *devices)
{
    int fds[4];
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) {
        fds[i] = open(devices[i % 2], O_RDONLY | O_DIRECT | O_CLOEXEC);
        if (fds[i] < 0 || pthread_create(&threads[i], NULL, read_for_ever, &fds[i]) != 0)
            _exit(1);
    }
    for (;;)
        (void)pause();
}

/* A worker that is killed takes its requests back, and its process ends when the host has answered
 * to the closing of its devices. */
static void test_killed_readers(void **state)
{
    enum { ROUNDS = 150 };
    const struct place *p = *state;
    PATH(a, p, "a.raw");
    PATH(b, p, "b.raw");
    PATH(run, p, "host");
    PATH(dev, p, "by-id");
    SCOPED_FREE char *first = xasprintf("%s/first", dev);
    SCOPED_FREE char *second = xasprintf("%s/second", dev);
    OK(block_volume_create(a, BLOCK_RAW, SIZE, NULL, BLOCK_RAW, &err));
    OK(block_volume_create(b, BLOCK_RAW, SIZE, NULL, BLOCK_RAW, &err));
    struct block_host *host = NULL;
    OK(host = block_host_start(run, dev, &err));
    OK(block_host_plug(host, "first", &(struct block_plug_opts){.path = a}, &err));
    OK(block_host_plug(host, "second", &(struct block_plug_opts){.path = b}, &err));
    for (int round = 0; round < ROUNDS; round++) {
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0)
            read_devices((char *const[]){first, second});
        clock_sleep_ms(clock_system(), 5 + round % 7);
        assert_int_equal(kill(pid, SIGKILL), 0);
        int64_t until_ms = clock_mono_ms(clock_system()) + GENEROUS_MS;
        pid_t ended;
        while ((ended = waitpid(pid, NULL, WNOHANG)) == 0 &&
               clock_mono_ms(clock_system()) < until_ms)
            clock_sleep_ms(clock_system(), 1);
        assert_int_equal(ended, pid);
    }
    OK(block_host_unplug(host, "first", &err));
    OK(block_host_unplug(host, "second", &err));
    block_host_stop(host);
}

static void test_killed_vm(void **state)
{
    const struct place *p = *state;
    PATH(base, p, "base.qcow2");
    PATH(top, p, "top.qcow2");
    OK(block_volume_create(base, BLOCK_QCOW2, SIZE, NULL, BLOCK_RAW, &err));
    struct block_vm *vm = start_vm(p, (const char *[]){base}, 1);
    assert_true(block_vm_is_running(vm));
    assert_int_equal(kill(block_vm_pid(vm), SIGKILL), 0);
    while (block_vm_is_running(vm))
        clock_sleep_ms(clock_system(), 5);
    struct block_overlay over = overlay_of(DISK_A, top);
    FAILS(ERR_IO, block_vm_snapshot(vm, &over, 1, &err));
    assert_int_not_equal(access(top, F_OK), 0);
    FAILS(ERR_IO, block_vm_unplug(vm, DISK_A, &err));
    block_vm_stop(vm);
}

/* --- Backups ------------------------------------------------------------------------------------
 */

struct dirty {
    uint64_t at;           /* the ranges told so far end here */
    uint64_t from[BLOCKS]; /* dirty ranges */
    uint64_t len[BLOCKS];
    size_t count;
};

static int on_dirty(void *arg, const char *context, uint64_t offset, uint32_t *entries,
                    size_t count, int *error)
{
    struct dirty *d = arg;
    (void)error;
    if (strcmp(context, "qemu:dirty-bitmap:" BLOCK_BACKUP_BITMAP) != 0)
        return 0;
    d->at = offset;
    for (size_t i = 0; i + 1 < count; i += 2) {
        if (entries[i + 1] & 1) {
            d->from[d->count] = d->at;
            d->len[d->count++] = entries[i];
        }
        d->at += entries[i];
    }
    return 0;
}

/* Bring the raw copy up to date by the backup that is open: all of it, or what changed. Gives the
 * bytes that were read. */
static uint64_t catch_up(struct block_vm *vm, const char *raw, bool changed_only)
{
    struct nbd_handle *nbd = nbd_create();
    SCOPED_FREE struct dirty *d = ALLOC_NEW(struct dirty);
    SCOPED_FREE char *uri = block_vm_backup_uri(vm, DISK_A);
    assert_non_null(uri);
    if (changed_only)
        assert_int_equal(nbd_add_meta_context(nbd, "qemu:dirty-bitmap:" BLOCK_BACKUP_BITMAP), 0);
    assert_int_equal(nbd_connect_uri(nbd, uri), 0);
    assert_int_equal(nbd_is_read_only(nbd), 1);
    if (!changed_only)
        *d = (struct dirty){.at = SIZE, .len = {SIZE}, .count = 1};
    while (d->at < SIZE)
        assert_int_equal(
            nbd_block_status(nbd, SIZE - d->at, d->at,
                             (nbd_extent_callback){.callback = on_dirty, .user_data = d}, 0),
            0);
    SCOPED_FD int fd = open(raw, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    SCOPED_FREE char *bytes = xmalloc(SIZE);
    uint64_t sum = 0;
    for (size_t i = 0; i < d->count; i++) {
        assert_int_equal(nbd_pread(nbd, bytes, d->len[i], d->from[i], 0), 0);
        OK(file_pwrite_full(fd, bytes, d->len[i], d->from[i], &err));
        sum += d->len[i];
    }
    nbd_close(nbd);
    return sum;
}

/* A backup from begin to end while the guest writes on: the copy is the instant of its begin. */
static uint64_t back_up(const struct place *p, struct block_vm *vm, struct writer *w,
                        const char *since, const char *begin)
{
    PATH(raw, p, "copy.raw");
    PATH(scratch, p, "scratch.qcow2");
    struct block_backup b = {.scratch = scratch, .since = since, .begin = begin};
    snprintf(b.disk_id, sizeof b.disk_id, "%s", DISK_A);
    uint64_t before = atomic_load(&w->acked);
    OK(block_vm_backup_begin(vm, &b, 1, &err));
    uint64_t after = atomic_load(&w->acked) + 1;
    FAILS(ERR_CONFLICT, block_vm_unplug(vm, DISK_A, &err));
    if (!atomic_load(&w->stop))
        go_on(w, 200);
    uint64_t bytes = catch_up(vm, raw, since);
    assert_in_range(judge(raw), before, after);
    OK(block_vm_backup_end(vm, &err));
    assert_int_not_equal(access(scratch, F_OK), 0);
    assert_null(block_vm_backup_uri(vm, DISK_A));
    return bytes;
}

/* Exactly so many writes, then nothing. */
static void write_some(struct writer *w, struct block_vm *vm, uint64_t from, uint64_t n)
{
    struct nbd_handle *nbd = nbd_create();
    SCOPED_FREE char *uri = block_vm_nbd_uri(vm, DISK_A);
    uint64_t block[BLOCK / 8];
    assert_int_equal(nbd_connect_uri(nbd, uri), 0);
    for (uint64_t i = from + 1; i <= from + n; i++) {
        fill(block, i);
        assert_int_equal(nbd_pwrite(nbd, block, BLOCK, block_of(i) * BLOCK, 0), 0);
    }
    assert_int_equal(nbd_shutdown(nbd, 0), 0);
    nbd_close(nbd);
    atomic_store(&w->acked, from + n);
}

static void test_backup_of_changes(void **state)
{
    const struct place *p = *state;
    PATH(base, p, "base.qcow2");
    PATH(top, p, "top.qcow2");
    OK(block_volume_create(base, BLOCK_QCOW2, SIZE, NULL, BLOCK_RAW, &err));
    struct block_vm *vm = start_vm(p, (const char *[]){base}, 1);
    struct writer w;
    start_writer(&w, vm, DISK_A, 0);
    wait_until_acked(&w, 500);
    assert_int_equal(back_up(p, vm, &w, NULL, "ck1"), SIZE);
    go_on(&w, 100);
    (void)back_up(p, vm, &w, "ck1", "ck2");
    uint64_t n = stop_writer(&w);
    (void)back_up(p, vm, &w, "ck2", "ck3");

    /* Ten writes cost ten clusters of 64 KiB at most. */
    write_some(&w, vm, n, 10);
    assert_in_range(back_up(p, vm, &w, "ck3", "ck4"), 1, 10 << 16);
    assert_int_equal(back_up(p, vm, &w, "ck4", "ck5"), 0);

    /* Over a snapshot, over its merge, over a restart. */
    struct block_overlay over = overlay_of(DISK_A, top);
    write_some(&w, vm, n + 10, 3);
    OK(block_vm_snapshot(vm, &over, 1, &err));
    write_some(&w, vm, n + 13, 3);
    assert_in_range(back_up(p, vm, &w, "ck5", "ck6"), 3 << 16, 6 << 16);
    write_some(&w, vm, n + 16, 3);
    OK(block_vm_merge(vm, DISK_A, top, base, 0, &err));
    write_some(&w, vm, n + 19, 3);
    assert_in_range(back_up(p, vm, &w, "ck6", "ck7"), 3 << 16, 6 << 16);
    write_some(&w, vm, n + 22, 3);
    block_vm_stop(vm);
    vm = start_vm(p, (const char *[]){base}, 1);
    write_some(&w, vm, n + 25, 3);
    assert_in_range(back_up(p, vm, &w, "ck7", "ck8"), 3 << 16, 6 << 16);

    /* A bitmap that is not there; one that is dropped; all of them. */
    PATH(scratch, p, "scratch.qcow2");
    struct block_backup b = {.scratch = scratch, .since = "ck9", .begin = "ck10"};
    snprintf(b.disk_id, sizeof b.disk_id, "%s", DISK_A);
    FAILS(ERR_NOT_FOUND, block_vm_backup_begin(vm, &b, 1, &err));
    assert_int_not_equal(access(scratch, F_OK), 0);
    OK(block_vm_drop_bitmaps(vm, DISK_A, "ck8", &err));
    b.since = "ck8";
    FAILS(ERR_NOT_FOUND, block_vm_backup_begin(vm, &b, 1, &err));
    (void)back_up(p, vm, &w, "ck7", "ck9");
    OK(block_vm_drop_bitmaps(vm, DISK_A, NULL, &err));
    b.since = "ck7";
    FAILS(ERR_NOT_FOUND, block_vm_backup_begin(vm, &b, 1, &err));
    assert_int_equal(back_up(p, vm, &w, NULL, "ck11"), SIZE);
    block_vm_stop(vm);
}

/* The same while the VM is down, between two backups of it running. */
static void test_bitmaps_at_rest(void **state)
{
    const struct place *p = *state;
    PATH(base, p, "base.qcow2");
    PATH(top, p, "top.qcow2");
    struct writer w = {0};
    atomic_store(&w.stop, true);
    OK(block_volume_create(base, BLOCK_QCOW2, SIZE, NULL, BLOCK_RAW, &err));
    struct block_vm *vm = start_vm(p, (const char *[]){base}, 1);
    write_some(&w, vm, 0, 20);
    assert_int_equal(back_up(p, vm, &w, NULL, "ck1"), SIZE);
    block_vm_stop(vm);
    OK(block_volume_create(top, BLOCK_QCOW2, SIZE, base, BLOCK_QCOW2, &err));
    OK(block_volume_carry_bitmaps(base, top, &err));
    vm = start_vm(p, (const char *[]){top}, 1);
    write_some(&w, vm, 20, 5);
    assert_in_range(back_up(p, vm, &w, "ck1", "ck2"), 1 << 16, 5 << 16);
    write_some(&w, vm, 25, 3);
    block_vm_stop(vm);
    OK(block_volume_commit(top, base, NULL, &err));
    assert_int_equal(unlink(top), 0);
    vm = start_vm(p, (const char *[]){base}, 1);
    assert_in_range(back_up(p, vm, &w, "ck2", "ck3"), 1 << 16, 3 << 16);
    block_vm_stop(vm);
    OK(block_volume_drop_bitmaps(base, "ck3", &err));
    OK(block_volume_drop_bitmaps(base, NULL, &err));
    vm = start_vm(p, (const char *[]){base}, 1);
    PATH(scratch, p, "scratch.qcow2");
    struct block_backup b = {.scratch = scratch, .since = "ck1"};
    snprintf(b.disk_id, sizeof b.disk_id, "%s", DISK_A);
    FAILS(ERR_NOT_FOUND, block_vm_backup_begin(vm, &b, 1, &err));
    block_vm_stop(vm);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_place, remove_place)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_snapshot_and_merge),
        TEST(test_host_shows_frozen_disk),
        TEST(test_snapshot_is_all_or_nothing),
        TEST(test_plug_and_unplug),
        TEST(test_write_errors),
        TEST(test_stop_cancels_slow_merge),
        TEST(test_merge_at_rest),
        TEST(test_volumes_are_checked),
        TEST(test_export),
        TEST(test_host_writes_to_volume),
        TEST(test_guest_needs_its_files),
        TEST(test_loop_device),
        TEST(test_killed_sandbox_leaves_nothing),
        TEST(test_killed_host),
        TEST(test_killed_readers),
        TEST(test_killed_vm),
        TEST(test_backup_of_changes),
        TEST(test_bitmaps_at_rest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
