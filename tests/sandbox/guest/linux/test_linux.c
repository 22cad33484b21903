/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A real Linux guest on a VM of the sandbox: images of its disks, taken while it works, are judged
 * by its own file system tools.
 */
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "proto/base/alloc.h"
#include "proto/base/clock.h"
#include "proto/base/file.h"
#include "tests/sandbox/block/block.h"
#include "tests/sandbox/block/proc.h"
#include "tests/sandbox/guest/guest.h"
#include "tests/sandbox/guest/linux/judge_linux.h"

enum { MIB = 1 << 20, DISKS = 2, BOOT_MS = 300000, ANSWER_MS = 60000 };

static const char *const ids[DISKS] = {"8fb9bea9-5b55-448a-9a1e-00000000000a",
                                       "8fb9bea9-5b55-448a-9a1e-00000000000b"};

struct vm {
    char dir[64];
    char *cache, *run, *paths[DISKS], *overlays[DISKS];
    struct block_vm *block;
    struct guest *guest;
};

#define OK(call)                                                                                   \
    do {                                                                                           \
        struct err err = ERR_INIT;                                                                 \
        if (!(call))                                                                               \
            fail_msg("%s: %s: %s", #call, err_code_name(err.code), err.message);                   \
    } while (0)

static uint64_t acked(struct vm *vm)
{
    struct guest_state now = {0};
    OK(guest_state(vm->guest, &now, &err));
    return now.acked;
}

static void boot(struct vm *vm)
{
    SCOPED_FREE char *a = block_vm_nbd_uri(vm->block, ids[0]);
    SCOPED_FREE char *b = block_vm_nbd_uri(vm->block, ids[1]);
    SCOPED_FREE char *kernel = xasprintf("%s/vmlinuz", vm->cache);
    SCOPED_FREE char *initrd = xasprintf("%s/initrd", vm->cache);
    struct linux_guest_opts opts = {.run_dir = vm->run,
                                    .kernel = kernel,
                                    .initrd = initrd,
                                    .uri_a = a,
                                    .uri_b = b,
                                    .serial_a = "8fb9bea9-5b55-448a-a",
                                    .serial_b = "8fb9bea9-5b55-448a-b"};
    uint64_t before = vm->guest ? acked(vm) : 0;
    guest_stop(vm->guest);
    OK(vm->guest = guest_start_linux(&opts, &err));
    struct err why = ERR_INIT;
    if (guest_wait(vm->guest, before + 20, BOOT_MS, &why))
        return;
    SCOPED_FREE char *path = xasprintf("%s/serial.log", vm->run);
    SCOPED_BUF struct buf console;
    struct err ignored = ERR_INIT;
    (void)file_read_all(AT_FDCWD, path, 65536, &console, &ignored);
    fail_msg("%s; its console:\n%s", why.message, buf_str(&console));
}

static int setup(void **state)
{
    struct vm *vm = ALLOC_NEW(struct vm);
    *state = vm; /* the teardown wants it however this ends */
    vm->cache = xstrdup(getenv("SANDBOX_GUEST_CACHE"));
    snprintf(vm->dir, sizeof vm->dir, "/tmp/linux-test-XXXXXX");
    if (!mkdtemp(vm->dir))
        return -1;
    vm->run = xasprintf("%s/vm", vm->dir);
    struct block_disk disks[DISKS] = {0};
    for (size_t i = 0; i < DISKS; i++) {
        vm->paths[i] = xasprintf("%s/disk%zu", vm->dir, i);
        vm->overlays[i] = xasprintf("%s/overlay%zu", vm->dir, i);
        snprintf(disks[i].id, sizeof disks[i].id, "%s", ids[i]);
        disks[i].path = vm->paths[i];
        disks[i].format = i == 0 ? BLOCK_QCOW2 : BLOCK_RAW;
        OK(block_volume_create(vm->paths[i], disks[i].format, 128 * MIB, NULL, BLOCK_RAW, &err));
    }
    OK(vm->block = block_vm_start(vm->run, disks, DISKS, &err));
    boot(vm);
    return 0;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    (void)type;
    (void)at;
    return remove(path);
}

static int teardown(void **state)
{
    struct vm *vm = *state;
    if (!vm)
        return 0;
    guest_stop(vm->guest);
    block_vm_stop(vm->block);
    (void)nftw(vm->dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    for (size_t i = 0; i < DISKS; i++) {
        free(vm->paths[i]);
        free(vm->overlays[i]);
    }
    free(vm->run);
    free(vm->cache);
    free(vm);
    return 0;
}

static void go_on(struct vm *vm, uint64_t more)
{
    OK(guest_wait(vm->guest, acked(vm) + more, ANSWER_MS, &err));
}

static void snapshot(struct vm *vm, const size_t *disks, size_t count)
{
    struct block_overlay overlays[DISKS] = {0};
    for (size_t i = 0; i < count; i++) {
        memcpy(overlays[i].disk_id, ids[disks[i]], sizeof overlays[i].disk_id);
        overlays[i].path = vm->overlays[disks[i]];
    }
    OK(block_vm_snapshot(vm->block, overlays, count, &err));
}

static void merge(struct vm *vm)
{
    for (size_t i = 0; i < DISKS; i++) {
        OK(block_vm_merge(vm->block, ids[i], vm->overlays[i], vm->paths[i], 0, &err));
        assert_int_equal(unlink(vm->overlays[i]), 0);
    }
}

static struct linux_verdict judge(struct vm *vm, uint64_t durable, bool frozen)
{
    SCOPED_FREE char *flat = xasprintf("%s/flat.raw", vm->dir);
    OK(block_volume_flatten(vm->paths[0], BLOCK_QCOW2, flat, &err));
    struct linux_verdict v;
    OK(judge_linux(flat, vm->paths[1], durable, frozen, &v, &err));
    (void)unlink(flat);
    return v;
}

static void expect_good(struct vm *vm, uint64_t durable, bool frozen)
{
    struct linux_verdict v = judge(vm, durable, frozen);
    if (!v.good)
        fail_msg("A %" PRIu64 ", B %" PRIu64 ", acknowledged %" PRIu64 ": %s", v.last_a, v.last_b,
                 durable, v.why);
}

static void test_crash_consistent(void **state)
{
    struct vm *vm = *state;
    for (int i = 0; i < 2; i++) {
        uint64_t before = acked(vm);
        snapshot(vm, (const size_t[]){0, 1}, 2);
        uint64_t after = acked(vm);
        go_on(vm, 20);
        expect_good(vm, before, false);
        struct linux_verdict v = judge(vm, after + 10, false); /* a record of the future */
        assert_false(v.good);
        assert_non_null(strstr(v.why, "was acknowledged"));
        v = judge(vm, before, true); /* it was not frozen */
        assert_false(v.good);
        merge(vm);
        go_on(vm, 20);
    }
}

static void test_frozen(void **state)
{
    struct vm *vm = *state;
    uint64_t at = 0;
    OK(guest_freeze(vm->guest, ANSWER_MS, NULL, &err));
    OK(guest_freeze(vm->guest, ANSWER_MS, &at, &err)); /* twice is fine */
    struct guest_state now = {0};
    OK(guest_state(vm->guest, &now, &err));
    assert_int_equal(now.phase, GUEST_FROZEN);
    assert_in_range(at, 1, now.acked);
    clock_sleep_ms(clock_system(), 100);
    uint64_t before = acked(vm);
    snapshot(vm, (const size_t[]){0, 1}, 2);
    assert_int_equal(acked(vm), before);
    OK(guest_thaw(vm->guest, ANSWER_MS, &err));
    go_on(vm, 20);
    expect_good(vm, before, true);
    merge(vm);
}

static void test_two_instants_are_caught(void **state)
{
    struct vm *vm = *state;
    snapshot(vm, (const size_t[]){0}, 1);
    go_on(vm, 20);
    snapshot(vm, (const size_t[]){1}, 1);
    struct linux_verdict v = judge(vm, 0, false);
    assert_false(v.good);
    assert_non_null(strstr(v.why, "two instants"));
    merge(vm);
}

static void test_power_cut(void **state)
{
    struct vm *vm = *state;
    go_on(vm, 20);
    assert_int_equal(kill(guest_pid(vm->guest), SIGKILL), 0);
    boot(vm); /* replays its journals and goes on */
    uint64_t before = acked(vm);
    snapshot(vm, (const size_t[]){0, 1}, 2);
    expect_good(vm, before, false);
    merge(vm);
}

int main(int argc, char **argv)
{
    /* With arguments (MAKE_GUEST CACHE GLOG): build the guest first. */
    if (argc != 4)
        return EXIT_FAILURE;
    struct err err = ERR_INIT;
    const char *make[] = {argv[1], argv[2], argv[3], NULL};
    if (!proc_run(make, NULL, &err)) {
        (void)fprintf(stderr, "%s\n", err.message);
        return strstr(err.message, "exit 77") ? 77 : EXIT_FAILURE;
    }
    (void)setenv("SANDBOX_GUEST_CACHE", argv[2], 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_crash_consistent),
        cmocka_unit_test(test_frozen),
        cmocka_unit_test(test_two_instants_are_caught),
        cmocka_unit_test(test_power_cut),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
