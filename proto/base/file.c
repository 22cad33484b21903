/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "proto/base/id.h"

static bool read_fd(int fd, const char *path, size_t max_bytes, struct buf *out, struct err *err)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return err_set_errno(err, errno, "stat '%s'", path);
    if (!S_ISREG(st.st_mode))
        return err_set(err, ERR_BAD_ARGUMENT, 0, "'%s' is not a regular file", path);
    char chunk[16384];
    for (;;) {
        ssize_t n = read(fd, chunk, sizeof chunk);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_set_errno(err, errno, "read '%s'", path);
        if (n == 0)
            return true;
        if (!buf_add(out, chunk, (size_t)n))
            return err_set(err, ERR_TOO_LARGE, 0, "'%s' is larger than %zu bytes", path, max_bytes);
    }
}

bool file_read_all(int dirfd, const char *path, size_t max_bytes, struct buf *out, struct err *err)
{
    buf_init(out, max_bytes);
    SCOPED_FD int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return err_set_errno(err, errno, "open '%s'", path);
    if (!read_fd(fd, path, max_bytes, out, err)) {
        buf_done(out);
        return false;
    }
    return true;
}

char *file_read_secret(const char *path, struct err *err)
{
    struct stat st;
    if (stat(path, &st) != 0) {
        err_set_errno(err, errno, "secret file '%s'", path);
        return NULL;
    }
    if (st.st_mode & 0007) {
        err_set(err, ERR_PERMISSION, 0,
                "secret file '%s' may be read by everyone (mode %03o): run chmod o-rwx on it", path,
                (unsigned)(st.st_mode & 0777));
        return NULL;
    }
    SCOPED_BUF struct buf text;
    if (!file_read_all(AT_FDCWD, path, 4096, &text, err)) {
        err_wrap(err, "secret file");
        return NULL;
    }
    char *secret = xstrndup(buf_str(&text), strcspn(buf_str(&text), "\r\n"));
    if (text.data)
        explicit_bzero(text.data, text.len);
    if (secret[0] == '\0') {
        free(secret);
        err_set(err, ERR_BAD_CONFIG, 0, "secret file '%s' is empty", path);
        return NULL;
    }
    return secret;
}

bool file_pread_full(int fd, void *buf, size_t len, uint64_t offset, struct err *err)
{
    char *at = buf;
    while (len > 0) {
        ssize_t n = pread(fd, at, len, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_set_errno(err, errno, "read at offset %" PRIu64, offset);
        if (n == 0)
            return err_set(err, ERR_IO, 0, "ends at offset %" PRIu64 ", %zu bytes too early",
                           offset, len);
        at += n;
        len -= (size_t)n;
        offset += (uint64_t)n;
    }
    return true;
}

bool file_likes_direct(int fd)
{
    struct statfs fs;
    return fstatfs(fd, &fs) == 0 && (fs.f_type == EXT4_SUPER_MAGIC || fs.f_type == XFS_SUPER_MAGIC);
}

bool file_set_direct(int fd, bool on)
{
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && fcntl(fd, F_SETFL, on ? flags | O_DIRECT : flags & ~O_DIRECT) == 0;
}

bool file_write_full(int fd, const void *buf, size_t len, struct err *err)
{
    const char *at = buf;
    while (len > 0) {
        ssize_t n = write(fd, at, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_set_errno(err, errno, "write");
        at += n;
        len -= (size_t)n;
    }
    return true;
}

bool file_pwrite_full(int fd, const void *buf, size_t len, uint64_t offset, struct err *err)
{
    const char *at = buf;
    while (len > 0) {
        ssize_t n = pwrite(fd, at, len, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_set_errno(err, errno, "write at offset %" PRIu64, offset);
        at += n;
        len -= (size_t)n;
        offset += (uint64_t)n;
    }
    return true;
}

static char *parent_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash)
        return xstrdup(".");
    return slash == path ? xstrdup("/") : xstrndup(path, (size_t)(slash - path));
}

bool file_sync_parent(int dirfd, const char *path, struct err *err)
{
    SCOPED_FREE char *parent = parent_of(path);
    SCOPED_FD int fd = openat(dirfd, parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return err_set_errno(err, errno, "open directory '%s'", parent);
    if (fsync(fd) != 0)
        return err_set_errno(err, errno, "sync directory '%s'", parent);
    return true;
}

static bool write_temp(int fd, const char *temp, const void *data, size_t len, struct err *err)
{
    if (!file_write_full(fd, data, len, err))
        return err_wrap(err, "'%s'", temp);
    if (fsync(fd) != 0)
        return err_set_errno(err, errno, "sync '%s'", temp);
    return true;
}

bool file_write_atomic(int dirfd, const char *path, const void *data, size_t len, mode_t mode,
                       struct err *err)
{
    char unique[ID_BYTES];
    id_new(unique);
    SCOPED_FREE char *temp = xasprintf("%s.%s.tmp", path, unique);
    int fd = openat(dirfd, temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (fd < 0)
        return err_set_errno(err, errno, "create '%s'", temp);
    bool ok = write_temp(fd, temp, data, len, err);
    if (close(fd) != 0 && ok)
        ok = err_set_errno(err, errno, "close '%s'", temp);
    if (ok && renameat(dirfd, temp, dirfd, path) != 0)
        ok = err_set_errno(err, errno, "rename '%s' to '%s'", temp, path);
    if (!ok) {
        (void)unlinkat(dirfd, temp, 0);
        return false;
    }
    return file_sync_parent(dirfd, path, err);
}

bool file_make_dirs(const char *path, mode_t mode, struct err *err)
{
    SCOPED_FREE char *copy = xstrdup(path);
    for (char *at = copy + 1;; at++) {
        if (*at != '/' && *at != '\0')
            continue;
        char end = *at;
        *at = '\0';
        if (mkdir(copy, mode) != 0 && errno != EEXIST)
            return err_set_errno(err, errno, "make directory '%s'", copy);
        *at = end;
        if (end == '\0')
            return true;
    }
}
