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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_snapshot_and_merge, make_place, remove_place),
        cmocka_unit_test_setup_teardown(test_host_shows_frozen_disk, make_place, remove_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
