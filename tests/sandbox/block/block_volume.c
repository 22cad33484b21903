/* SPDX-License-Identifier: Apache-2.0 */
/* Volumes at rest: qemu-img does the work. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/sandbox/block/block.h"
#include "tests/sandbox/block/image.h"
#include "tests/sandbox/block/proc.h"

/* Make the file, refusing one that is there: qemu-img would overwrite it. */
static bool reserve(const char *path, uint64_t size_bytes, struct err *err)
{
    SCOPED_FD int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0)
        return err_set_errno(err, errno, "create volume '%s'", path);
    if (ftruncate(fd, (off_t)size_bytes) != 0) {
        int errnum = errno;
        (void)unlink(path);
        return err_set_errno(err, errnum, "create volume '%s'", path);
    }
    return true;
}

static bool create_qcow2(const char *path, uint64_t size_bytes, const char *backing,
                         enum block_format backing_format, struct err *err)
{
    char size[24];
    snprintf(size, sizeof size, "%" PRIu64, size_bytes);
    /* -u: the backing file is neither opened nor locked; it may be in use. */
    const char *plain[] = {"qemu-img", "create", "-q", "-f", "qcow2", path, size, NULL};
    const char *backed[] = {
        "qemu-img", "create", "-q", "-f", "qcow2", "-u", "-F", block_format_name(backing_format),
        "-b",       backing,  path, size, NULL};
    return proc_run(backing ? backed : plain, NULL, err);
}

bool block_volume_create(const char *path, enum block_format format, uint64_t size_bytes,
                         const char *backing, enum block_format backing_format, struct err *err)
{
    if (format == BLOCK_RAW && backing)
        return err_set(err, ERR_BAD_ARGUMENT, 0, "a raw volume has no backing volume: '%s'", path);
    if (size_bytes > INT64_MAX)
        return err_set(err, ERR_TOO_LARGE, 0, "volume '%s': %" PRIu64 " bytes", path, size_bytes);
    SCOPED_FREE char *full_backing = backing ? realpath(backing, NULL) : NULL;
    if (backing && !full_backing)
        return err_set_errno(err, errno, "backing volume '%s'", backing);
    if (!reserve(path, format == BLOCK_RAW ? size_bytes : 0, err))
        return false;
    if (format == BLOCK_RAW || create_qcow2(path, size_bytes, full_backing, backing_format, err))
        return true;
    (void)unlink(path);
    return err_wrap(err, "create volume '%s'", path);
}

bool block_volume_actual_size(const char *path, uint64_t *ret_bytes, struct err *err)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return err_set_errno(err, errno, "volume '%s'", path);
    *ret_bytes = (uint64_t)st.st_blocks * 512;
    return true;
}

bool block_volume_flatten(const char *path, enum block_format format, const char *raw_path,
                          struct err *err)
{
    const char *argv[] = {"qemu-img", "convert", "-q", "-f", block_format_name(format),
                          "-O",       "raw",     "-W", path, raw_path,
                          NULL};
    return proc_run(argv, NULL, err);
}

/* That `upper` is a qcow2 volume with `lower` as its backing volume. */
static bool check_backing(const char *upper, const char *lower, enum block_format *ret_format,
                          struct err *err)
{
    SCOPED_IMAGE_INFO struct image_info info = {0};
    if (!image_info_read(upper, BLOCK_QCOW2, &info, err))
        return false;
    if (!info.backing || !image_is_same_file(info.backing, lower))
        return err_set(err, ERR_BAD_ARGUMENT, 0, "'%s' has '%s' as backing volume, not '%s'", upper,
                       info.backing ? info.backing : "nothing", lower);
    *ret_format = info.backing_format;
    return true;
}

bool block_volume_commit(const char *top, const char *base, const char *above, struct err *err)
{
    enum block_format base_format, top_format;
    if (!check_backing(top, base, &base_format, err) ||
        (above && !check_backing(above, top, &top_format, err)))
        return false;
    /* -d: leave the data in `top`, which stays a valid volume until the end. */
    const char *commit[] = {"qemu-img", "commit", "-q", "-d", "-f", "qcow2", top, NULL};
    if (!proc_run(commit, NULL, err))
        return err_wrap(err, "merge '%s' into '%s'", top, base);
    SCOPED_FREE char *full_base = realpath(base, NULL);
    if (!full_base)
        return err_set_errno(err, errno, "volume '%s'", base);
    const char *rebase[] = {"qemu-img", "rebase",  "-q",  "-u",
                            "-f",       "qcow2",   "-F",  block_format_name(base_format),
                            "-b",       full_base, above, NULL};
    if (above && !proc_run(rebase, NULL, err))
        return err_wrap(err, "put '%s' upon '%s'", above, base);
    return true;
}
