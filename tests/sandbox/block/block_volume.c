/* SPDX-License-Identifier: Apache-2.0 */
/* Volumes at rest: qemu-img does the work. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include "tests/sandbox/block/bitmap.h"
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

bool block_volume_resize(const char *path, enum block_format format, uint64_t size_bytes,
                         struct err *err)
{
    char size[24];
    snprintf(size, sizeof size, "%" PRIu64, size_bytes);
    const char *argv[] = {"qemu-img", "resize", "-q", "-f", block_format_name(format),
                          path,       size,     NULL};
    return proc_run(argv, NULL, err);
}

/* As vdsm copies a volume of a disk that is in checkpoints (its storage/sdm/api/copy_data). */
bool block_volume_copy(const char *path, enum block_format format, const char *to, struct err *err)
{
    const char *name = block_format_name(format);
    const char *raw[] = {"qemu-img", "convert", "-q", "-f", name, "-O", name, path, to, NULL};
    const char *qcow2[] = {"qemu-img", "convert",   "-q", "-f", name, "-O",
                           name,       "--bitmaps", path, to,   NULL};
    return proc_run(format == BLOCK_RAW ? raw : qcow2, NULL, err);
}

/* --- Bitmaps at rest ---------------------------------------------------------------------------
 */

/* Their names, as an array; empty for a raw volume. */
static json_t *bitmaps_at(const char *path, struct err *err)
{
    const char *argv[] = {"qemu-img", "info", "-U", "--output=json", path, NULL};
    SCOPED_FREE char *text = NULL;
    if (!proc_run(argv, &text, err))
        return NULL;
    json_auto_t *info = json_loads(text, 0, NULL);
    const json_t *specific = json_object_get(json_object_get(info, "format-specific"), "data");
    json_t *names = json_array();
    size_t i;
    json_t *bitmap;
    json_array_foreach (json_object_get(specific, "bitmaps"), i, bitmap) {
        json_array_append(names, json_object_get(bitmap, "name"));
    }
    return names;
}

bool block_volume_add_bitmap(const char *path, const char *name, struct err *err)
{
    const char *argv[] = {"qemu-img", "bitmap", "-f", "qcow2", "--add", path, name, NULL};
    return proc_run(argv, NULL, err);
}

bool block_volume_carry_bitmaps(const char *base, const char *overlay, struct err *err)
{
    json_auto_t *names = bitmaps_at(base, err);
    size_t i;
    json_t *name;
    bool ok = names;
    json_array_foreach (names, i, name) {
        ok = ok && block_volume_add_bitmap(overlay, json_string_value(name), err);
    }
    return ok || err_wrap(err, "bitmaps of '%s'", base);
}

bool block_volume_drop_bitmaps(const char *path, const char *name, struct err *err)
{
    json_auto_t *names = bitmaps_at(path, err);
    size_t i;
    json_t *one;
    bool ok = names;
    json_array_foreach (names, i, one) {
        const char *text = json_string_value(one);
        const char *argv[] = {"qemu-img", "bitmap", "-f", "qcow2", "--remove", path, text, NULL};
        if (!name || strcmp(text, name) == 0)
            ok = ok && proc_run(argv, NULL, err);
    }
    return ok || err_wrap(err, "bitmaps of '%s'", path);
}

/* What `top` has recorded, into `base`. */
static bool sink_bitmaps(const char *top, const char *base, enum block_format base_format,
                         struct err *err)
{
    json_auto_t *names = bitmaps_at(top, err);
    if (!names || json_array_size(names) == 0)
        return names;
    if (base_format == BLOCK_RAW)
        return true; /* nowhere to keep them: they are lost */
    json_auto_t *below = bitmaps_at(base, err);
    size_t i;
    json_t *one;
    bool ok = below;
    json_array_foreach (names, i, one) {
        const char *name = json_string_value(one);
        const char *argv[] = {"qemu-img", "bitmap", "-f",    "qcow2", "--merge", name, "-b",
                              top,        "-F",     "qcow2", base,    name,      NULL};
        ok = ok && (bitmap_is_among(below, name) || block_volume_add_bitmap(base, name, err)) &&
             proc_run(argv, NULL, err);
    }
    return ok || err_wrap(err, "bitmaps of '%s'", top);
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
    enum block_format base_format = BLOCK_RAW, top_format = BLOCK_RAW;
    if (!check_backing(top, base, &base_format, err) ||
        (above && !check_backing(above, top, &top_format, err)))
        return false;
    /* -d: leave the data in `top`, which stays a valid volume until the end. */
    const char *commit[] = {"qemu-img", "commit", "-q", "-d", "-f", "qcow2", top, NULL};
    if (!proc_run(commit, NULL, err))
        return err_wrap(err, "merge '%s' into '%s'", top, base);
    if (!sink_bitmaps(top, base, base_format, err))
        return false;
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
