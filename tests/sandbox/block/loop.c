/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sandbox/block/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "proto/base/alloc.h"
#include "proto/base/clock.h"

enum { TRIES = 32, CLEAR_TIMEOUT_MS = 2000 };

static bool configure(int loop_fd, int file_fd)
{
    struct loop_config config = {
        .fd = (uint32_t)file_fd, .block_size = 512, .info.lo_flags = LO_FLAGS_AUTOCLEAR};
    return ioctl(loop_fd, LOOP_CONFIGURE, &config) == 0;
}

bool loop_attach(struct loop_device *l, const char *file, struct err *err)
{
    SCOPED_FD int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    SCOPED_FD int file_fd = open(file, O_RDWR | O_CLOEXEC);
    if (control < 0 || file_fd < 0)
        return err_set_errno(err, errno, "loop device over '%s'", file);
    /* Others look for a free device at the same time. */
    for (int i = 0; i < TRIES; i++) {
        int number = ioctl(control, LOOP_CTL_GET_FREE);
        if (number < 0)
            return err_set_errno(err, errno, "find a free loop device");
        snprintf(l->path, sizeof l->path, "/dev/loop%d", number);
        int fd = open(l->path, O_RDWR | O_CLOEXEC);
        if (fd >= 0 && configure(fd, file_fd)) {
            l->fd = fd;
            l->number = number;
            return true;
        }
        int errnum = errno;
        if (fd >= 0)
            (void)close(fd);
        if (errnum != EBUSY)
            return err_set_errno(err, errnum, "set up '%s' over '%s'", l->path, file);
    }
    return err_set(err, ERR_CONFLICT, EBUSY, "no free loop device in %d tries", TRIES);
}

bool loop_is_attached(const struct loop_device *l)
{
    return l->fd >= 0;
}

void loop_close(struct loop_device *l)
{
    if (l->fd >= 0)
        (void)close(TAKE_FD(l->fd));
}

void loop_detach(struct loop_device *l)
{
    loop_close(l);
    l->number = -1;
}

/* True while the device has a file under it. */
static bool is_bound(const struct loop_device *l)
{
    char path[64];
    snprintf(path, sizeof path, "/sys/block/loop%d/loop/backing_file", l->number);
    return access(path, F_OK) == 0;
}

bool loop_wait_cleared(const struct loop_device *l)
{
    int64_t end = clock_mono_ms(clock_system()) + CLEAR_TIMEOUT_MS;
    while (is_bound(l)) {
        if (clock_mono_ms(clock_system()) >= end)
            return false;
        clock_sleep_ms(clock_system(), 5);
    }
    return true;
}

bool loop_reopen(struct loop_device *l, struct err *err)
{
    l->fd = open(l->path, O_RDWR | O_CLOEXEC);
    return l->fd >= 0 || err_set_errno(err, errno, "open '%s'", l->path);
}
