/* SPDX-License-Identifier: Apache-2.0 */
/* Finding devices in a folder of the test's own, with the names that udev gives. */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/temp_dir.h"
#include "tests/unit/worker/fake_run.h"
#include "worker/step/device.h"

#define DISK "5a4a3f2e-1b2c-4d5e-8f90-0123456789ab"

struct place {
    struct fake_run fake;
    struct temp_dir dir;
};

static int setup(void **state)
{
    struct place *p = ALLOC_NEW(struct place);
    fake_run_init(&p->fake);
    temp_dir_make(&p->dir);
    p->fake.settings.device_dir = p->dir.path;
    p->fake.settings.device_wait_s = 30;
    *state = p;
    return 0;
}

static int teardown(void **state)
{
    struct place *p = *state;
    temp_dir_remove(&p->dir);
    fake_run_done(&p->fake);
    free(p);
    return 0;
}

static void make(const struct place *p, const char *name, off_t bytes)
{
    SCOPED_FREE char *path = xasprintf("%s/%s", p->dir.path, name);
    SCOPED_FD int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, bytes), 0);
}

static void expect(const struct place *p, const char *name)
{
    SCOPED_FREE char *found = device_find(p->dir.path, DISK);
    assert_non_null(found);
    assert_string_equal(strrchr(found, '/') + 1, name);
}

static void test_most_exact_name_first(void **state)
{
    struct place *p = *state;
    assert_null(device_find(p->dir.path, DISK));
    make(p, "sdb", 4096);
    make(p, "virtio-5a4a3f2e-1b2c-4d5e-9", 4096); /* another disk */
    assert_null(device_find(p->dir.path, DISK));
    make(p, "ata-QEMU_HARDDISK_5a4a3f2e-1b2c-4d5e-8", 4096);
    expect(p, "ata-QEMU_HARDDISK_5a4a3f2e-1b2c-4d5e-8");
    make(p, "scsi-0QEMU_QEMU_HARDDISK_5a4a3f2e-1b2c-4d5e-8", 4096);
    expect(p, "scsi-0QEMU_QEMU_HARDDISK_5a4a3f2e-1b2c-4d5e-8");
    make(p, "virtio-5a4a3f2e-1b2c-4d5e-8", 4096);
    expect(p, "virtio-5a4a3f2e-1b2c-4d5e-8");
    make(p, "scsi-0QEMU_QEMU_HARDDISK_" DISK, 4096);
    expect(p, "scsi-0QEMU_QEMU_HARDDISK_" DISK);
}

static void test_missing_in_time(void **state)
{
    struct place *p = *state;
    p->fake.settings.device_wait_s = 0;
    struct err err = ERR_INIT;
    assert_null(device_wait(&p->fake.run, DISK, 4096, &err));
    assert_int_equal(err.code, ERR_DEVICE_MISSING);
    assert_int_equal(err_retry(err.code), ERR_RETRY_ELSEWHERE);
}

static void test_wrong_size_is_refused(void **state)
{
    struct place *p = *state;
    p->fake.settings.device_wait_s = 0;
    make(p, "virtio-5a4a3f2e-1b2c-4d5e-8", 8192);
    struct err err = ERR_INIT;
    assert_null(device_wait(&p->fake.run, DISK, 4096, &err));
    assert_int_equal(err.code, ERR_DEVICE_MISMATCH);
}

static void *appear(void *arg)
{
    struct place *p = arg;
    make(p, "virtio-5a4a3f2e-1b2c-4d5e-8", 4096);
    return NULL;
}

static void test_appears_while_waiting(void **state)
{
    struct place *p = *state;
    p->fake.run.clock = clock_system();
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, appear, p), 0);
    struct err err = ERR_INIT;
    SCOPED_FREE char *path = device_wait(&p->fake.run, DISK, 4096, &err);
    assert_non_null(path);
    pthread_join(thread, NULL);
}

static void test_waiting_can_be_cancelled(void **state)
{
    struct place *p = *state;
    p->fake.stopped = ERR_CANCELLED;
    struct err err = ERR_INIT;
    assert_null(device_wait(&p->fake.run, DISK, 4096, &err));
    assert_int_equal(err.code, ERR_CANCELLED);
}

static void test_lingering_device(void **state)
{
    struct place *p = *state;
    struct err err = ERR_INIT;
    assert_true(device_wait_gone(&p->fake.run, DISK, &err));
    make(p, "virtio-5a4a3f2e-1b2c-4d5e-8", 4096);
    p->fake.settings.device_wait_s = 0;
    assert_false(device_wait_gone(&p->fake.run, DISK, &err));
    assert_int_equal(err.code, ERR_DEVICE_MISMATCH);
}

static void test_what_is_no_device(void **state)
{
    struct place *p = *state;
    struct err err = ERR_INIT;
    uint64_t bytes = 7;
    assert_false(device_size(p->dir.path, &bytes, &err));
    assert_int_equal(bytes, 7);
    err_clear(&err);
    assert_false(device_size("/nonexistent/x", &bytes, &err));
    assert_int_equal(err.code, ERR_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_most_exact_name_first, setup, teardown),
        cmocka_unit_test_setup_teardown(test_missing_in_time, setup, teardown),
        cmocka_unit_test_setup_teardown(test_wrong_size_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_appears_while_waiting, setup, teardown),
        cmocka_unit_test_setup_teardown(test_waiting_can_be_cancelled, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lingering_device, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_no_device, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
