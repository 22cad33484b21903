/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/store/object.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/base/file.h"
#include "proto/base/id.h"

static bool set_mode(int fd, mode_t mode, const char *path, struct err *err)
{
    return fchmod(fd, mode) == 0 || err_set_errno(err, errno, "set mode of '%s'", path);
}

/* Never a second fsync after a failed one: the kernel may have marked the pages clean. */
static bool sync_file(int fd, const char *path, struct err *err)
{
    return fsync(fd) == 0 || err_set_errno(err, errno, "sync '%s'", path);
}

static bool close_file(int fd, bool ok, const char *path, struct err *err)
{
    if (close(fd) != 0 && ok)
        ok = err_set_errno(err, errno, "close '%s'", path);
    return ok;
}

bool object_seal(int fd, const char *path, struct err *err)
{
    bool ok = set_mode(fd, OBJECT_FILE_MODE, path, err) && sync_file(fd, path, err);
    return close_file(fd, ok, path, err);
}

bool object_seal_pack(int fd, const char *path, struct err *err)
{
    bool ok = set_mode(fd, OBJECT_UNSYNCED_MODE, path, err) && sync_file(fd, path, err) &&
              set_mode(fd, OBJECT_FILE_MODE, path, err);
    return close_file(fd, ok, path, err);
}

bool object_read(int dirfd, const char *path, size_t max_bytes, struct buf *out, struct err *err)
{
    if (file_read_all(dirfd, path, max_bytes, out, err))
        return true;
    if (err->code == ERR_TOO_LARGE || err->code == ERR_BAD_ARGUMENT)
        err->code = ERR_STORE_CORRUPT;
    return false;
}

bool object_create(int dirfd, const char *path, const void *data, size_t len, struct err *err)
{
    int fd = openat(dirfd, path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_set_errno(err, errno, "create '%s'", path);
    if (!file_write_full(fd, data, len, err)) {
        (void)close(fd);
        (void)unlinkat(dirfd, path, 0);
        return err_wrap(err, "'%s'", path);
    }
    if (!object_seal(fd, path, err)) {
        (void)unlinkat(dirfd, path, 0);
        return false;
    }
    return true;
}

/* Errors of link(2) that come before any effect; everything else (EIO, ETIMEDOUT, ESTALE on a
 * network file system) may have reached the disk. */
static bool surely_no_link(int errnum)
{
    return errnum == ENOSPC || errnum == EDQUOT || errnum == EPERM || errnum == EACCES ||
           errnum == EROFS || errnum == EOPNOTSUPP || errnum == EMLINK || errnum == ENOENT;
}

enum put_outcome object_put_if_absent(int dirfd, const char *dir, const char *name,
                                      const void *data, size_t len, struct err *err)
{
    SCOPED_FREE char *path = xasprintf("%s/%s", dir, name);
    int errnum = ENOENT;
    /* ENOENT: a collector has swept our temporary file before we could link it. */
    for (int tries = 0; errnum == ENOENT && tries < OBJECT_TRIES; tries++) {
        char unique[ID_BYTES];
        id_new(unique);
        SCOPED_FREE char *temp = xasprintf("%s/.%s.tmp", dir, unique);
        if (!object_create(dirfd, temp, data, len, err)) {
            if (err->code != ERR_NOT_FOUND)
                return PUT_FAILED;
            err_clear(err);
            continue;
        }
        errnum = linkat(dirfd, temp, dirfd, path, 0) == 0 ? 0 : errno;
        struct stat st;
        /* A network file system may have lost the answer of a link that was made. */
        if (errnum != 0 && fstatat(dirfd, temp, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_nlink == 2)
            errnum = 0;
        (void)unlinkat(dirfd, temp, 0);
    }
    if (errnum == EEXIST)
        return PUT_EXISTS;
    if (errnum != 0) {
        err_set_errno(err, errnum, "link '%s'", path);
        return surely_no_link(errnum) ? PUT_FAILED : PUT_UNKNOWN;
    }
    return object_sync_dir(dirfd, dir, err) ? PUT_CREATED : PUT_UNSYNCED;
}

bool object_replace(int dirfd, const char *dir, const char *name, const void *data, size_t len,
                    struct err *err)
{
    char unique[ID_BYTES];
    id_new(unique);
    SCOPED_FREE char *path = xasprintf("%s/%s", dir, name);
    SCOPED_FREE char *temp = xasprintf("%s/.%s.tmp", dir, unique);
    if (!object_create(dirfd, temp, data, len, err))
        return false;
    if (renameat(dirfd, temp, dirfd, path) != 0) {
        err_set_errno(err, errno, "rename '%s'", temp);
        (void)unlinkat(dirfd, temp, 0);
        return false;
    }
    return object_sync_dir(dirfd, dir, err);
}

enum put_outcome object_link_if_absent(int dirfd, const char *from, const char *dir,
                                       const char *name, struct err *err)
{
    SCOPED_FREE char *path = xasprintf("%s/%s", dir, name);
    if (linkat(dirfd, from, dirfd, path, 0) != 0) {
        int errnum = errno;
        if (errnum == EEXIST)
            return PUT_EXISTS;
        err_set_errno(err, errnum, "link '%s'", path);
        return surely_no_link(errnum) ? PUT_FAILED : PUT_UNKNOWN;
    }
    return object_sync_dir(dirfd, dir, err) ? PUT_CREATED : PUT_UNSYNCED;
}

bool object_sync_dir(int dirfd, const char *path, struct err *err)
{
    SCOPED_FD int fd = openat(dirfd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return err_set_errno(err, errno, "open directory '%s'", path);
    if (fsync(fd) != 0)
        return err_set_errno(err, errno, "sync directory '%s'", path);
    return true;
}

bool object_make_dir(int dirfd, const char *path, struct err *err)
{
    if (mkdirat(dirfd, path, OBJECT_DIR_MODE) != 0 && errno != EEXIST)
        return err_set_errno(err, errno, "make directory '%s'", path);
    return true;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool read_names(DIR *stream, const char *path, struct object_names *names, struct err *err)
{
    size_t capacity = 0;
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(stream);
        if (!entry && errno != 0)
            return err_set_errno(err, errno, "list '%s'", path);
        if (!entry)
            return true;
        if (!id_is_slug(entry->d_name, OBJECT_NAME_MAX))
            continue;
        if (names->count == capacity) {
            capacity = capacity ? capacity * 2 : 64;
            names->items = xreallocarray(names->items, capacity, sizeof *names->items);
        }
        names->items[names->count++] = xstrdup(entry->d_name);
    }
}

bool object_list(int dirfd, const char *path, struct object_names *ret_names, struct err *err)
{
    int fd = openat(dirfd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return err_set_errno(err, errno, "open directory '%s'", path);
    DIR *stream = fdopendir(fd);
    if (!stream) {
        int errnum = errno;
        (void)close(fd);
        return err_set_errno(err, errnum, "list '%s'", path);
    }
    struct object_names names = {0};
    bool ok = read_names(stream, path, &names, err);
    (void)closedir(stream);
    if (!ok) {
        object_names_done(&names);
        return false;
    }
    object_names_sort(&names);
    *ret_names = names;
    return true;
}

void object_names_sort(struct object_names *names)
{
    if (names->count > 0)
        qsort(names->items, names->count, sizeof *names->items, compare_names);
}

bool object_list_fresh(int dirfd, const char *path, struct object_names *ret_names, struct err *err)
{
    /* A client of a network file system caches a listing until the directory's times change: change
     * them. What fails here (not the owner, read-only) only leaves the cache. */
    (void)utimensat(dirfd, path, NULL, 0);
    return object_list(dirfd, path, ret_names, err);
}

unsigned object_sweep_temps(int dirfd, const char *path)
{
    int fd = openat(dirfd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *stream = fd < 0 ? NULL : fdopendir(fd);
    if (!stream) {
        if (fd >= 0)
            (void)close(fd);
        return 0;
    }
    unsigned n = 0;
    const struct dirent *entry;
    while ((entry = readdir(stream))) {
        size_t len = strlen(entry->d_name);
        if (entry->d_name[0] == '.' && len > 4 && strcmp(entry->d_name + len - 4, ".tmp") == 0)
            n += unlinkat(fd, entry->d_name, 0) == 0;
    }
    (void)closedir(stream);
    return n;
}

bool object_names_have(const struct object_names *names, const char *name)
{
    return names->count > 0 &&
           bsearch(&name, names->items, names->count, sizeof *names->items, compare_names);
}

void object_names_done(struct object_names *names)
{
    for (size_t i = 0; i < names->count; i++)
        free(names->items[i]);
    free(names->items);
    *names = (struct object_names){0};
}

void random_bytes(void *out, size_t len)
{
    char *at = out;
    while (len > 0) {
        ssize_t n = getrandom(at, len, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            abort(); /* no kernel we run on fails here once it is seeded */
        at += n;
        len -= (size_t)n;
    }
}
