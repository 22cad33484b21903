/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sandbox/block/fuse.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>

#include "proto/base/alloc.h"
#include "proto/base/log.h"

static bool is_fuse(int fds, const char *name)
{
    char target[32];
    ssize_t n = readlinkat(fds, name, target, sizeof target - 1);
    if (n <= 0)
        return false;
    target[n] = '\0';
    return strcmp(target, "/dev/fuse") == 0;
}

/* The flag belongs to the open file, which both processes have then. */
static bool set_one(int process, int number)
{
    SCOPED_FD int fd = pidfd_getfd(process, number, 0);
    if (fd < 0)
        return errno == EBADF; /* closed by now */
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0;
}

bool fuse_set_nonblocking(pid_t pid, struct err *err)
{
    SCOPED_FREE char *path = xasprintf("/proc/%d/fd", (int)pid);
    SCOPED_FD int process = pidfd_open(pid, 0);
    DIR *dir = process < 0 ? NULL : opendir(path);
    bool ok = dir != NULL;
    struct dirent *entry;
    while (ok && (entry = readdir(dir)))
        ok = !is_fuse(dirfd(dir), entry->d_name) ||
             set_one(process, (int)strtol(entry->d_name, NULL, 10));
    int errnum = errno;
    if (dir)
        (void)closedir(dir);
    if (!ok && (errnum == EPERM || errnum == ENOSYS)) { /* a container, or an old kernel */
        log_warn("fuse_may_block", LOG_I64("pid", pid));
        return true;
    }
    return ok || err_set_errno(err, errnum, "set /dev/fuse of process %d to O_NONBLOCK", (int)pid);
}
