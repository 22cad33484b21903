/* SPDX-License-Identifier: Apache-2.0 */
/* The checks that look at files: devices, LVM, RAID, multipath, identity of the machine. */
/* clang-format off */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include <fcntl.h>
#include <libgen.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/base/file.h"
#include "tests/unit/temp_dir.h"
#include "worker/doctor/doctor.h"

/* A machine of files, and the worker on it. */
struct machine {
    struct temp_dir dir;
    char *devices;
    struct worker_conf conf;
};

static char *at(const struct machine *m, const char *path)
{
    return xasprintf("%s%s", m->dir.path, path);
}

static void put(const struct machine *m, const char *path, const char *text)
{
    struct err err = ERR_INIT;
    SCOPED_FREE char *full = at(m, path);
    SCOPED_FREE char *copy = xstrdup(full);
    if (!file_make_dirs(dirname(copy), 0755, &err) ||
        !file_write_atomic(AT_FDCWD, full, text, strlen(text), 0644, &err))
        fail_msg("%s", err.message);
}

static int set_up(void **state)
{
    struct machine *m = ALLOC_NEW(struct machine);
    static char name[] = "w1", zone[] = "dc1", nowhere[] = "/nowhere", tag[] = "oxbow-proxy";
    temp_dir_make(&m->dir);
    m->devices = at(m, "/dev/disk/by-id");
    m->conf = (struct worker_conf){.name = name,
                                   .zone = zone,
                                   .proxy_vm = name,
                                   .proxy_tag = tag,
                                   .device_dir = m->devices,
                                   .repository = {.path = nowhere}};
    put(m, "/dev/disk/by-id/virtio-1", "");
    put(m, "/run/udev/control", "");
    *state = m;
    return 0;
}

static int tear_down(void **state)
{
    struct machine *m = *state;
    temp_dir_remove(&m->dir);
    free(m->devices);
    free(m);
    return 0;
}

/* "level message" of one check. The caller frees. */
static char *outcome(const struct machine *m, const char *check)
{
    SCOPED(doctor)
    struct doctor *d =
        doctor_new(&(struct doctor_opts){.conf = &m->conf, .root = m->dir.path, .only = check});
    doctor_run(d);
    struct doctor_report r;
    doctor_read(d, &r);
    assert_true(r.done);
    assert_int_equal(r.findings.count, 1);
    const struct wire_finding *f = &r.findings.v[0];
    assert_string_equal(f->check, check);
    assert_string_equal(f->worker, "w1");
    assert_true(finding_level_of(f) == FINDING_OK || f->advice);
    char *text = xasprintf("%s %s", f->level, f->message);
    doctor_report_done(&r);
    return text;
}

static void expect(const struct machine *m, const char *check, const char *level, const char *words)
{
    SCOPED_FREE char *text = outcome(m, check);
    if (strncmp(text, level, strlen(level)) != 0 || !strstr(text, words))
        fail_msg("%s: wanted %s with '%s', found: %s", check, level, words, text);
}

static void directory(void **state)
{
    struct machine *m = *state;
    expect(m, "device.directory", "ok", "by-id is there");
    /* udev makes it with the first link, and removes it with the last. */
    SCOPED_FREE char *device = at(m, "/dev/disk/by-id/virtio-1");
    assert_int_equal(unlink(device), 0);
    assert_int_equal(rmdir(m->devices), 0);
    expect(m, "device.directory", "ok", "with the first disk");
    m->conf.device_dir = (char *)(uintptr_t) "/dev/nowhere";
    expect(m, "device.directory", "failure", "/dev/nowhere: No such file");
}

static void udev(void **state)
{
    struct machine *m = *state;
    expect(m, "device.udev", "ok", "runs");
    SCOPED_FREE char *control = at(m, "/run/udev/control");
    assert_int_equal(unlink(control), 0);
    expect(m, "device.udev", "failure", "does not run");
}

static void rights(void **state)
{
    struct machine *m = *state;
    expect(m, "device.rights", "ok", "all 1 devices");
    SCOPED_FREE char *device = at(m, "/dev/disk/by-id/virtio-1");
    assert_int_equal(chmod(device, 0), 0);
    if (geteuid() == 0)
        return; /* nothing is forbidden to root */
    expect(m, "device.rights", "failure", "virtio-1 may not be opened");
}

#define STOCK                                                                                      \
    "devices {\n"                                                                                  \
    "\t# global_filter = [ \"r|.*|\" ]\n"                                                          \
    "}\n"
static void lvm(void **state)
{
    struct machine *m = *state;
    static const struct {
        const char *conf, *level, *words;
    } cases[] = {
        {STOCK, "failure", "may activate"},
        {"devices {\n  global_filter = [ \"a|^/dev/vda|\", \"r|.*|\" ]\n}\n", "ok",
         "refuses other"},
        {"devices {\n  global_filter=[\n \"a|/dev/vda|\",\n \"r/.*/\" ]\n}\n", "ok",
         "refuses other"},
        {"devices {\n  global_filter = [ \"a|.*|\" ]\n}\n", "failure", "may activate"},
        {"devices {\n  global_filter = [ \"r|/dev/sdb|\" ]\n}\n", "failure", "may activate"},
        {"devices {\n  filter = [ \"r|.*|\" ]\n}\n", "failure", "may activate"}, /* not for udev */
        {"global {\n  event_activation = 0\n}\n", "warning", "by hand"},
        {"activation {\n  auto_activation_volume_list = [ ]\n}\n", "warning", "by hand"},
        {"activation {\n  auto_activation_volume_list = [ \"vg0\" ]\n}\n", "failure",
         "may activate"},
    };
    expect(m, "device.lvm", "ok", "no LVM");
    put(m, "/usr/sbin/lvm", "");
    expect(m, "device.lvm", "failure", "may activate"); /* its defaults */
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        put(m, "/etc/lvm/lvm.conf", cases[i].conf);
        expect(m, "device.lvm", cases[i].level, cases[i].words);
    }
}

static void lvm_devices_file(void **state)
{
    struct machine *m = *state;
    put(m, "/etc/lvm/lvm.conf", STOCK);
    put(m, "/etc/lvm/devices/system.devices", "IDTYPE=sys_serial ...\n");
    expect(m, "device.lvm", "ok", "system.devices");
    put(m, "/etc/lvm/lvm.conf", "devices {\n\tuse_devicesfile = 0\n}\n");
    expect(m, "device.lvm", "failure", "may activate");
}

static void multipath(void **state)
{
    struct machine *m = *state;
    expect(m, "device.multipath", "ok", "not used");
    put(m, "/run/multipathd.pid", "1");
    expect(m, "device.multipath", "warning", "take over");
    put(m, "/etc/multipath.conf", "# blacklist { devnode \".*\" }\n");
    expect(m, "device.multipath", "warning", "take over");
    put(m, "/etc/multipath.conf", "blacklist {\n    devnode \".*\"\n}\n");
    expect(m, "device.multipath", "ok", "alone");
}

static void raid(void **state)
{
    struct machine *m = *state;
    expect(m, "device.raid", "ok", "no mdadm");
    put(m, "/usr/sbin/mdadm", "");
    expect(m, "device.raid", "warning", "assemble");
    put(m, "/etc/mdadm/mdadm.conf", "#AUTO -all\n");
    expect(m, "device.raid", "warning", "assemble");
    put(m, "/etc/mdadm/mdadm.conf", "AUTO -all\n");
    expect(m, "device.raid", "ok", "nothing by itself");
}

static void tests_have_no_devices(void **state)
{
    struct machine *m = *state;
    SCOPED(doctor)
    struct doctor *d = doctor_new(&(struct doctor_opts){.conf = &m->conf, .only = "device.lvm"});
    doctor_run(d);
    struct doctor_report r;
    doctor_read(d, &r);
    assert_string_equal(r.findings.v[0].level, "ok");
    doctor_report_done(&r);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(directory),        TEST(udev),      TEST(rights), TEST(lvm),
        TEST(lvm_devices_file), TEST(multipath), TEST(raid),   TEST(tests_have_no_devices),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
