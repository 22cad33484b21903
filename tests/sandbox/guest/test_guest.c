/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The synthetic guest on a real VM of the sandbox: whatever happens to the VM, an image of its
 * disks is judged to be one instant, and only then.
 */
#include <errno.h>
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
#include "tests/sandbox/guest/guest.h"
#include "tests/sandbox/guest/judge.h"

enum { MIB = 1 << 20, DISKS = 2, GENEROUS_MS = 60000 };

struct vm {
    char dir[64];
    char *run, *spec_path, *paths[DISKS], *overlays[DISKS];
    struct pattern_spec spec;
    struct block_vm *block;
    struct guest *guest;
};

#define OK(call)                                                                                   \
    do {                                                                                           \
        struct err err = ERR_INIT;                                                                 \
        if (!(call))                                                                               \
            fail_msg("%s: %s: %s", #call, err_code_name(err.code), err.message);                   \
    } while (0)

static void start_block(struct vm *vm)
{
    struct block_disk disks[DISKS] = {0};
    for (size_t i = 0; i < DISKS; i++) {
        snprintf(disks[i].id, sizeof disks[i].id, "%s", vm->spec.disks[i].id);
        disks[i].path = vm->paths[i];
        disks[i].format = i == 0 ? BLOCK_QCOW2 : BLOCK_RAW;
    }
    OK(vm->block = block_vm_start(vm->run, disks, DISKS, &err));
}

static void start_guest_until(struct vm *vm, double rate, uint64_t count)
{
    struct guest_disk disks[DISKS];
    char *uris[DISKS];
    for (size_t i = 0; i < DISKS; i++) {
        uris[i] = block_vm_nbd_uri(vm->block, vm->spec.disks[i].id);
        disks[i] = (struct guest_disk){vm->spec.disks[i].id, uris[i]};
    }
    struct guest_opts opts = {.run_dir = vm->run,
                              .spec_path = vm->spec_path,
                              .disks = disks,
                              .disk_count = DISKS,
                              .writes_per_s = rate,
                              .count = count,
                              .fill = true};
    OK(vm->guest = guest_start(&opts, &err));
    for (size_t i = 0; i < DISKS; i++)
        free(uris[i]);
}

static void start_guest(struct vm *vm, double rate)
{
    start_guest_until(vm, rate, 0);
}

static int setup(void **state)
{
    struct vm *vm = ALLOC_NEW(struct vm);
    vm->spec = (struct pattern_spec){
        .vm = "web1",
        .seed = 99,
        .common_seed = 1,
        .disk_count = DISKS,
        .disks = {{"8fb9bea9-5b55-448a-9a1e-000000000001", 32 * MIB, 40, 50, 4},
                  {"8fb9bea9-5b55-448a-9a1e-000000000002", 16 * MIB, 0, 0, 4}}};
    snprintf(vm->dir, sizeof vm->dir, "/tmp/guest-test-XXXXXX");
    if (!mkdtemp(vm->dir))
        return -1;
    vm->run = xasprintf("%s/vm", vm->dir);
    vm->spec_path = xasprintf("%s/spec.json", vm->dir);
    struct err err = ERR_INIT;
    if (!pattern_spec_save(&vm->spec, vm->spec_path, &err))
        return -1;
    for (size_t i = 0; i < DISKS; i++) {
        vm->paths[i] = xasprintf("%s/disk%zu", vm->dir, i);
        vm->overlays[i] = xasprintf("%s/overlay%zu", vm->dir, i);
        if (!block_volume_create(vm->paths[i], i == 0 ? BLOCK_QCOW2 : BLOCK_RAW,
                                 vm->spec.disks[i].size_bytes, NULL, BLOCK_RAW, &err))
            return -1;
    }
    start_block(vm);
    start_guest(vm, 0);
    *state = vm;
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
    guest_stop(vm->guest);
    block_vm_stop(vm->block);
    (void)nftw(vm->dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    for (size_t i = 0; i < DISKS; i++) {
        free(vm->paths[i]);
        free(vm->overlays[i]);
    }
    free(vm->run);
    free(vm->spec_path);
    free(vm);
    return 0;
}

static uint64_t acked(struct vm *vm)
{
    struct guest_state state = {0};
    OK(guest_state(vm->guest, &state, &err));
    return state.acked;
}

static void go_on(struct vm *vm, uint64_t more)
{
    OK(guest_wait(vm->guest, acked(vm) + more, GENEROUS_MS, &err));
}

static void snapshot(struct vm *vm, const size_t *disks, size_t count)
{
    struct block_overlay overlays[DISKS] = {0};
    for (size_t i = 0; i < count; i++) {
        memcpy(overlays[i].disk_id, vm->spec.disks[disks[i]].id, sizeof overlays[i].disk_id);
        overlays[i].path = vm->overlays[disks[i]];
    }
    OK(block_vm_snapshot(vm->block, overlays, count, &err));
}

static void merge(struct vm *vm)
{
    for (size_t i = 0; i < DISKS; i++) {
        OK(block_vm_merge(vm->block, vm->spec.disks[i].id, vm->overlays[i], vm->paths[i], 0, &err));
        assert_int_equal(unlink(vm->overlays[i]), 0);
    }
}

/* Judge the frozen base volumes (disk 1 is raw: as it is). */
static struct judge_verdict judge(struct vm *vm, uint64_t after, uint64_t before)
{
    SCOPED_FREE char *flat = xasprintf("%s/flat.raw", vm->dir);
    OK(block_volume_flatten(vm->paths[0], BLOCK_QCOW2, flat, &err));
    struct judge_opts opts = {
        .spec = &vm->spec, .images = {flat, vm->paths[1]}, .after = after, .before = before};
    struct judge_verdict v;
    OK(judge_images(&opts, &v, &err));
    (void)unlink(flat);
    return v;
}

static void expect_good(struct vm *vm, uint64_t after, uint64_t before)
{
    struct judge_verdict v = judge(vm, after, before);
    if (!v.good)
        fail_msg("%s", v.why);
}

static void snapshot_and_judge(struct vm *vm)
{
    uint64_t before = acked(vm);
    snapshot(vm, (const size_t[]){0, 1}, 2);
    uint64_t after = acked(vm) + 1;
    go_on(vm, 200);
    expect_good(vm, before, after);
}

static void test_live_snapshots(void **state)
{
    struct vm *vm = *state;
    OK(guest_wait(vm->guest, 1000, GENEROUS_MS, &err));
    for (int i = 0; i < 3; i++) {
        snapshot_and_judge(vm);
        merge(vm);
        go_on(vm, 200);
    }
}

static void test_two_instants_are_caught(void **state)
{
    struct vm *vm = *state;
    OK(guest_wait(vm->guest, 1000, GENEROUS_MS, &err));
    snapshot(vm, (const size_t[]){0}, 1);
    go_on(vm, 100);
    snapshot(vm, (const size_t[]){1}, 1);
    struct judge_verdict v = judge(vm, 0, UINT64_MAX);
    assert_false(v.good);
    assert_non_null(strstr(v.why, vm->spec.disks[0].id));
}

static void test_freeze_and_thaw(void **state)
{
    struct vm *vm = *state;
    OK(guest_wait(vm->guest, 500, GENEROUS_MS, &err));
    uint64_t at = 0;
    OK(guest_freeze(vm->guest, GENEROUS_MS, &at, &err));
    OK(guest_freeze(vm->guest, GENEROUS_MS, &at, &err));
    struct guest_state s = {0};
    OK(guest_state(vm->guest, &s, &err));
    assert_int_equal(s.phase, GUEST_FROZEN);
    assert_int_equal(s.flushed, at);
    clock_sleep_ms(clock_system(), 50);
    assert_int_equal(acked(vm), at);
    snapshot(vm, (const size_t[]){0, 1}, 2);
    OK(guest_thaw(vm->guest, GENEROUS_MS, &err));
    go_on(vm, 200);
    expect_good(vm, at, at);
}

static void kill_daemon(struct vm *vm)
{
    assert_int_equal(kill(block_vm_pid(vm->block), SIGKILL), 0);
    block_vm_stop(vm->block);
    vm->block = NULL;
}

static void test_killed_daemon(void **state)
{
    struct vm *vm = *state;
    for (int i = 0; i < 3; i++) {
        OK(guest_wait(vm->guest, 1000, GENEROUS_MS, &err));
        go_on(vm, 333);
        kill_daemon(vm);
        start_block(vm); /* the same address: the guest comes back by itself */
        go_on(vm, 100);
    }
    snapshot_and_judge(vm);
}

static void await_errors(struct vm *vm, uint64_t errors)
{
    struct guest_state s = {0};
    while (s.errors < errors) {
        clock_sleep_ms(clock_system(), 5);
        OK(guest_state(vm->guest, &s, &err));
    }
}

static bool hits(const struct pattern_write *w, size_t disk, uint64_t block)
{
    return w->disk == disk && block >= w->block && block < w->block + w->block_count;
}

/* The last write up to n that hits the block; 0 = none. */
static uint64_t last_hit(const struct pattern_spec *spec, size_t disk, uint64_t block, uint64_t n)
{
    for (; n > 0; n--) {
        struct pattern_write w = pattern_write_at(spec, n);
        if (hits(&w, disk, block))
            break;
    }
    return n;
}

/* A long zero write n on the raw disk that emptied `block` of the record of write `old`, and one of
 * whose other blocks was hit by write `last` right after. */
struct emptied {
    uint64_t n, last, block, old;
};

static bool is_emptied(const struct pattern_spec *spec, struct emptied *e)
{
    struct pattern_write w = pattern_write_at(spec, e->n), later = pattern_write_at(spec, e->last);
    if (w.kind != PATTERN_ZERO_GROUP || w.disk != 1 || later.kind != PATTERN_RECORD ||
        !hits(&w, later.disk, later.block))
        return false;
    for (e->block = w.block; e->block < w.block + w.block_count; e->block++) {
        e->old = last_hit(spec, w.disk, e->block, e->n - 1);
        if (e->old > 0 && pattern_write_at(spec, e->old).kind == PATTERN_RECORD &&
            last_hit(spec, w.disk, e->block, e->last) == e->n)
            return true;
    }
    return false;
}

static struct emptied find_emptied(const struct pattern_spec *spec, uint64_t after)
{
    struct emptied e = {0};
    for (e.n = after + 1;; e.n++) {
        for (e.last = e.n + 1; e.last < e.n + 8; e.last++) {
            if (is_emptied(spec, &e))
                return e;
        }
    }
}

/* The daemon was killed, and of a zero write all was lost but the block that was hit again. */
static void test_part_of_a_zero_write_is_lost(void **state)
{
    struct vm *vm = *state;
    OK(guest_wait(vm->guest, 500, GENEROUS_MS, &err));
    guest_stop(vm->guest);
    vm->guest = NULL;
    SCOPED_FREE char *state_path = xasprintf("%s/writer.state", vm->run);
    struct guest_state s = {0};
    OK(guest_state_read(state_path, &s, &err));
    const struct emptied e = find_emptied(&vm->spec, s.acked);
    start_guest_until(vm, 0, e.last);
    OK(guest_wait(vm->guest, e.last, GENEROUS_MS, &err));
    guest_stop(vm->guest);
    vm->guest = NULL;
    block_vm_stop(vm->block);
    vm->block = NULL;
    unsigned char record[PATTERN_BLOCK];
    pattern_record(&vm->spec, e.old, record);
    SCOPED_FD int disk = open(vm->paths[1], O_WRONLY | O_CLOEXEC);
    OK(file_pwrite_full(disk, record, sizeof record, e.block * PATTERN_BLOCK, &err));
    SCOPED_FD int fd = open(state_path, O_WRONLY | O_CLOEXEC);
    s = (struct guest_state){.phase = GUEST_RUNNING, .acked = e.last, .flushed = e.n - 1};
    OK(guest_state_write(fd, &s, &err));
    start_block(vm);
    start_guest(vm, 0);
    OK(guest_wait(vm->guest, e.last + 100, GENEROUS_MS, &err));
    snapshot_and_judge(vm);
}

static void test_freeze_without_a_disk(void **state)
{
    struct vm *vm = *state;
    OK(guest_wait(vm->guest, 500, GENEROUS_MS, &err));
    kill_daemon(vm);
    /* The first freeze may be what tells it that a disk's connection is gone, and the second finds
     * that there is none. */
    for (uint64_t errors = 3; errors <= 6; errors += 3) {
        struct err no = ERR_INIT;
        await_errors(vm, errors);
        assert_false(guest_freeze(vm->guest, GENEROUS_MS, NULL, &no));
        assert_int_equal(no.code, ERR_QUIESCE_FAILED);
        assert_true(guest_is_running(vm->guest));
    }
    start_block(vm);
    go_on(vm, 100);
    snapshot_and_judge(vm);
}

static void test_killed_guest_goes_on(void **state)
{
    struct vm *vm = *state;
    OK(guest_wait(vm->guest, 500, GENEROUS_MS, &err));
    uint64_t at = acked(vm);
    guest_stop(vm->guest);
    start_guest(vm, 0);
    OK(guest_wait(vm->guest, at + 200, GENEROUS_MS, &err));
    snapshot_and_judge(vm);
}

static void test_write_errors_are_survived(void **state)
{
    struct vm *vm = *state;
    OK(guest_wait(vm->guest, 500, GENEROUS_MS, &err));
    OK(block_vm_set_write_error(vm->block, vm->spec.disks[0].id, ENOSPC, &err));
    await_errors(vm, 1);
    OK(block_vm_set_write_error(vm->block, vm->spec.disks[0].id, 0, &err));
    go_on(vm, 300);
    snapshot_and_judge(vm);
}

static void test_stopped_daemon_stops_the_guest(void **state)
{
    struct vm *vm = *state;
    OK(guest_wait(vm->guest, 500, GENEROUS_MS, &err));
    assert_int_equal(kill(block_vm_pid(vm->block), SIGSTOP), 0);
    clock_sleep_ms(clock_system(), 100);
    uint64_t at = acked(vm);
    struct err late = ERR_INIT;
    assert_false(guest_freeze(vm->guest, 300, NULL, &late));
    assert_int_equal(late.code, ERR_TIMEOUT);
    assert_int_equal(acked(vm), at);
    assert_int_equal(kill(block_vm_pid(vm->block), SIGCONT), 0);
    /* The late freeze was obeyed, as a real agent would. */
    OK(guest_thaw(vm->guest, GENEROUS_MS, &err));
    go_on(vm, 200);
    snapshot_and_judge(vm);
}

static void test_rate(void **state)
{
    struct vm *vm = *state;
    OK(guest_wait(vm->guest, 10, GENEROUS_MS, &err));
    guest_stop(vm->guest);
    start_guest(vm, 50);
    OK(guest_wait(vm->guest, acked(vm) + 1, GENEROUS_MS, &err));
    int64_t begin = clock_mono_ms(clock_system());
    uint64_t at = acked(vm);
    go_on(vm, 25);
    int64_t took = clock_mono_ms(clock_system()) - begin;
    assert_true(took * 50 / 1000 + 2 >= (int64_t)(acked(vm) - at)); /* never faster */
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_live_snapshots),
        TEST(test_two_instants_are_caught),
        TEST(test_freeze_and_thaw),
        TEST(test_killed_daemon),
        TEST(test_part_of_a_zero_write_is_lost),
        TEST(test_freeze_without_a_disk),
        TEST(test_killed_guest_goes_on),
        TEST(test_write_errors_are_survived),
        TEST(test_stopped_daemon_stops_the_guest),
        TEST(test_rate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
