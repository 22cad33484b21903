/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/step/device.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <poll.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/base/alloc.h"
#include "proto/base/log.h"

enum { SERIAL_SHORT = 20, LOOK_EVERY_MS = 250 };

/* Link names, most exact first. `chars` of the id follow the prefix; 0 = all. */
static const struct {
    const char *prefix;
    int chars;
} patterns[] = {
    {"scsi-0QEMU_QEMU_HARDDISK_", 0},
    {"scsi-SQEMU_QEMU_HARDDISK_", 0},
    {"virtio-", SERIAL_SHORT},
    {"scsi-0QEMU_QEMU_HARDDISK_", SERIAL_SHORT},
    {"scsi-SQEMU_QEMU_HARDDISK_", SERIAL_SHORT},
    {"ata-QEMU_HARDDISK_", SERIAL_SHORT},
};

char *device_find(const char *dir, const char *disk_id)
{
    for (size_t i = 0; i < ARRAY_LEN(patterns); i++) {
        int chars = patterns[i].chars ? patterns[i].chars : (int)strlen(disk_id);
        SCOPED_FREE char *path = xasprintf("%s/%s%.*s", dir, patterns[i].prefix, chars, disk_id);
        if (access(path, F_OK) == 0)
            return TAKE(path);
    }
    return NULL;
}

bool device_size(const char *path, uint64_t *ret_bytes, struct err *err)
{
    SCOPED_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return err_set_errno(err, errno, "open device '%s'", path);
    struct stat st;
    if (fstat(fd, &st) != 0)
        return err_set_errno(err, errno, "stat device '%s'", path);
    uint64_t bytes = (uint64_t)st.st_size;
    if (S_ISBLK(st.st_mode) && ioctl(fd, BLKGETSIZE64, &bytes) != 0)
        return err_set_errno(err, errno, "size of device '%s'", path);
    if (!S_ISBLK(st.st_mode) && !S_ISREG(st.st_mode))
        return err_set(err, ERR_DEVICE_MISMATCH, 0, "'%s' is neither a block device nor a file",
                       path);
    *ret_bytes = bytes;
    return true;
}

/* Until something changes in the directory, or a moment has passed. The watch only makes it quick:
 * what counts is the look afterwards. */
static void wait_a_moment(const struct task_run *run, int inotify_fd)
{
    struct pollfd p = {.fd = inotify_fd, .events = POLLIN};
    if (inotify_fd < 0) {
        clock_sleep_ms(run->clock, LOOK_EVERY_MS);
        return;
    }
    char events[4096];
    if (poll(&p, 1, LOOK_EVERY_MS) > 0)
        (void)!read(inotify_fd, events, sizeof events);
}

static int watch(const char *dir)
{
    SCOPED_FD int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (fd >= 0 && inotify_add_watch(fd, dir, IN_CREATE | IN_MOVED_TO | IN_DELETE) < 0)
        return -1; /* the directory may not exist before its first link does */
    return TAKE_FD(fd);
}

/* Present with the right size? false without an error: not yet. */
static bool is_there(const char *path, uint64_t size_bytes, uint64_t *ret_seen)
{
    struct err err = ERR_INIT;
    *ret_seen = 0;
    return device_size(path, ret_seen, &err) && *ret_seen == size_bytes;
}

char *device_wait(struct task_run *run, const char *disk_id, uint64_t size_bytes, struct err *err)
{
    const struct step_settings *set = run->settings;
    int64_t until = clock_mono_ms(run->clock) + set->device_wait_s * 1000;
    SCOPED_FD int fd = watch(set->device_dir);
    SCOPED_FREE char *path = NULL;
    uint64_t seen = 0;
    for (;;) {
        free(path);
        path = device_find(set->device_dir, disk_id);
        if (path && is_there(path, size_bytes, &seen))
            return TAKE(path);
        if (!run_check(run, err))
            return NULL;
        if (clock_mono_ms(run->clock) >= until)
            break;
        wait_a_moment(run, fd);
    }
    if (path)
        err_set(err, ERR_DEVICE_MISMATCH, 0,
                "device '%s' of disk %s has %" PRIu64 " bytes, but the disk has %" PRIu64, path,
                disk_id, seen, size_bytes);
    else
        err_set(err, ERR_DEVICE_MISSING, 0,
                "no device of disk %s appeared in '%s' within %" PRId64
                " s: is proxy_vm the VM this worker runs in, and is udev running?",
                disk_id, set->device_dir, set->device_wait_s);
    return NULL;
}

bool device_wait_gone(struct task_run *run, const char *disk_id, struct err *err)
{
    const struct step_settings *set = run->settings;
    int64_t until = clock_mono_ms(run->clock) + set->device_wait_s * 1000;
    SCOPED_FD int fd = watch(set->device_dir);
    for (;;) {
        SCOPED_FREE char *path = device_find(set->device_dir, disk_id);
        if (!path)
            return true;
        if (clock_mono_ms(run->clock) >= until)
            return err_set(err, ERR_DEVICE_MISMATCH, 0,
                           "device '%s' is still there, though disk %s is not attached", path,
                           disk_id);
        if (!run_check(run, err))
            return false;
        wait_a_moment(run, fd);
    }
}

bool device_check_unused(const char *path, struct err *err)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return err_set_errno(err, errno, "stat device '%s'", path);
    if (!S_ISBLK(st.st_mode))
        return true;
    /* For a block device O_EXCL without O_CREAT fails with EBUSY when the kernel uses it. */
    SCOPED_FD int fd = open(path, O_RDWR | O_EXCL | O_CLOEXEC);
    if (fd < 0 && errno == EBUSY)
        return err_set(err, ERR_CONFLICT, errno,
                       "device '%s' is in use (mounted, LVM or MD): exclude foreign disks from "
                       "automatic activation on this proxy",
                       path);
    if (fd < 0)
        return err_set_errno(err, errno, "open device '%s'", path);
    return true;
}
