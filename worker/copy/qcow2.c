/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow2 images as sources and targets: qemu-nbd understands the format, libnbd starts it and speaks
 * to it over a socket of its own.
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <libnbd.h>

#include "proto/base/file.h"
#include "worker/copy/copy.h"

/* The image's header, all big-endian: QEMU's docs/interop/qcow2.txt. */
enum { HEADER_BYTES = 80, AT_VERSION = 4, AT_BACKING = 8, AT_INCOMPATIBLE = 72 };
#define QCOW2_MAGIC     UINT32_C(0x514649fb)
#define QCOW2_DATA_FILE (UINT64_C(1) << 2) /* of the incompatible features */

/* What both begin with: an image behind a qemu-nbd. */
struct image {
    struct nbd_handle *nbd; /* locks itself: one call at a time */
    char *path;
    uint64_t size_bytes;
};

struct source_qcow2 {
    struct source base;
    struct image image;
};

struct target_qcow2 {
    struct target base;
    struct image image;
};

static uint64_t be64_at(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return be64toh(v);
}

static uint32_t be32_at(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return be32toh(v);
}

static bool check_header(const char *path, bool may_refer, struct err *err)
{
    SCOPED_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    uint8_t header[HEADER_BYTES];
    if (fd < 0)
        return err_set_errno(err, errno, "open '%s'", path);
    ssize_t n = pread(fd, header, sizeof header, 0);
    if (n < 0)
        return err_set_errno(err, errno, "read '%s'", path);
    if (n < (ssize_t)sizeof header || be32_at(header) != QCOW2_MAGIC)
        return err_set(err, ERR_BAD_ARGUMENT, 0, "'%s' is not a qcow2 image", path);
    bool refers = be64_at(header + AT_BACKING) != 0;
    if (be32_at(header + AT_VERSION) >= 3)
        refers = refers || (be64_at(header + AT_INCOMPATIBLE) & QCOW2_DATA_FILE);
    if (refers && !may_refer)
        return err_set(err, ERR_BAD_ARGUMENT, 0,
                       "'%s' is an overlay: it refers to another file, by a name that stands in it",
                       path);
    return true;
}

static bool nbd_failed(const struct image *image, const char *doing, struct err *err)
{
    const char *why = nbd_get_error();
    int number = nbd_get_errno();
    if (number == ENOSPC || number == EDQUOT)
        return err_set(err, ERR_NO_SPACE, number, "%s '%s': %s", doing, image->path, why);
    return err_set(err, ERR_IO, number, "%s '%s': %s", doing, image->path,
                   why ? why : "unknown error");
}

/* `path` must be absolute, so that QEMU takes no part of it for the name of a protocol. */
static bool image_open(struct image *image, bool writable, struct err *err)
{
    char program[] = "qemu-nbd", format[] = "--format=qcow2", read_only[] = "--read-only";
    char unmap[] = "--discard=unmap"; /* zeroing makes holes */
    char *argv[] = {program, format, writable ? unmap : read_only, image->path, NULL};
    image->nbd = nbd_create();
    if (!image->nbd)
        return nbd_failed(image, "open", err);
    if (nbd_add_meta_context(image->nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) != 0 ||
        nbd_connect_systemd_socket_activation(image->nbd, argv) != 0)
        return nbd_failed(image, "run qemu-nbd (package qemu-utils) for", err);
    int64_t size = nbd_get_size(image->nbd);
    if (size < 0)
        return nbd_failed(image, "size of", err);
    image->size_bytes = (uint64_t)size;
    return true;
}

static void image_close(struct image *image)
{
    if (image->nbd) {
        (void)nbd_shutdown(image->nbd, 0);
        nbd_close(image->nbd); /* waits for qemu-nbd */
    }
    free(image->path);
}

/* ---- source */

struct status {
    struct extents *out;
    uint64_t at, end;
};

static int on_status(void *user_data, const char *context, uint64_t offset, uint32_t *entries,
                     size_t count, int *error)
{
    (void)offset;
    (void)error;
    struct status *s = user_data;
    if (strcmp(context, LIBNBD_CONTEXT_BASE_ALLOCATION) != 0)
        return 0;
    for (size_t i = 0; i + 1 < count && s->at < s->end; i += 2) {
        uint64_t len = entries[i] < s->end - s->at ? entries[i] : s->end - s->at;
        extents_add(s->out, s->at, len, !(entries[i + 1] & LIBNBD_STATE_ZERO));
        s->at += len;
    }
    return 0;
}

static bool qcow2_extents(struct source *source, uint64_t offset, uint64_t len, struct extents *out,
                          struct err *err)
{
    struct source_qcow2 *q = (struct source_qcow2 *)source;
    struct status s = {.out = out, .at = offset, .end = offset + len};
    while (s.at < s.end) {
        uint64_t before = s.at;
        nbd_extent_callback callback = {.callback = on_status, .user_data = &s};
        if (nbd_block_status(q->image.nbd, s.end - s.at, s.at, callback, 0) != 0)
            return nbd_failed(&q->image, "map", err);
        if (s.at == before)
            return err_set(err, ERR_IO, 0, "map '%s': qemu-nbd said nothing about offset %" PRIu64,
                           q->image.path, s.at);
    }
    return true;
}

static bool qcow2_pread(struct source *source, void *buf, size_t len, uint64_t offset,
                        struct err *err)
{
    struct source_qcow2 *q = (struct source_qcow2 *)source;
    if (nbd_pread(q->image.nbd, buf, len, offset, 0) == 0)
        return true;
    nbd_failed(&q->image, "read", err);
    return err_wrap(err, "offset %" PRIu64, offset);
}

static void qcow2_close(struct source *source)
{
    struct source_qcow2 *q = (struct source_qcow2 *)source;
    image_close(&q->image);
    free(q);
}

struct source *source_qcow2_open(const char *path, bool may_refer, struct err *err)
{
    static const struct source_ops ops = {
        .extents = qcow2_extents, .pread = qcow2_pread, .close = qcow2_close};
    if (!check_header(path, may_refer, err))
        return NULL;
    struct source_qcow2 *q = ALLOC_NEW(struct source_qcow2);
    q->base.ops = &ops;
    q->image.path = realpath(path, NULL);
    bool ok = q->image.path ? image_open(&q->image, false, err)
                            : err_set_errno(err, errno, "open '%s'", path);
    if (ok && nbd_can_meta_context(q->image.nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) != 1)
        ok = err_set(err, ERR_IO, 0, "qemu-nbd gives no map of '%s'", path);
    if (!ok) {
        qcow2_close(&q->base);
        return NULL;
    }
    q->base.size_bytes = q->image.size_bytes;
    return &q->base;
}

/* ---- target */

static bool target_pwrite(struct target *target, const void *buf, size_t len, uint64_t offset,
                          struct err *err)
{
    struct target_qcow2 *q = (struct target_qcow2 *)target;
    return nbd_pwrite(q->image.nbd, buf, len, offset, 0) == 0 ||
           nbd_failed(&q->image, "write", err);
}

static bool target_zero(struct target *target, uint64_t offset, uint64_t len, struct err *err)
{
    struct target_qcow2 *q = (struct target_qcow2 *)target;
    return nbd_zero(q->image.nbd, len, offset, 0) == 0 || nbd_failed(&q->image, "zero", err);
}

static bool target_flush(struct target *target, struct err *err)
{
    struct target_qcow2 *q = (struct target_qcow2 *)target;
    return (nbd_flush(q->image.nbd, 0) == 0 || nbd_failed(&q->image, "sync", err)) &&
           file_sync_parent(AT_FDCWD, q->image.path, err);
}

static void target_close_image(struct target *target)
{
    struct target_qcow2 *q = (struct target_qcow2 *)target;
    image_close(&q->image);
    free(q);
}

/* Reserve the name first: qemu-img would overwrite what is there. */
static char *make_image(const char *path, uint64_t size, struct err *err)
{
    SCOPED_FD int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        err_set_errno(err, errno, "create '%s'", path);
        return NULL;
    }
    SCOPED_FREE char *absolute = realpath(path, NULL);
    SCOPED_FREE char *size_text = xasprintf("%" PRIu64, size);
    char program[] = "qemu-img", create[] = "create", quiet[] = "-q", f[] = "-f",
         format[] = "qcow2";
    char *argv[] = {program, create, quiet, f, format, absolute, size_text, NULL};
    pid_t pid;
    int status = -1;
    int number = absolute ? posix_spawnp(&pid, program, NULL, NULL, argv, environ) : errno;
    if (number == 0) {
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
            ;
    } else {
        err_set_errno(err, number, "run qemu-img (package qemu-utils)");
    }
    if (number == 0 && status == 0)
        return TAKE(absolute);
    if (number == 0)
        err_set(err, ERR_IO, 0, "qemu-img could not make '%s'", path);
    (void)unlink(path);
    return NULL;
}

struct target *target_qcow2_create(const char *path, uint64_t size_bytes, struct err *err)
{
    static const struct target_ops ops = {.pwrite = target_pwrite,
                                          .zero = target_zero,
                                          .flush = target_flush,
                                          .close = target_close_image};
    char *absolute = make_image(path, size_bytes, err);
    if (!absolute)
        return NULL;
    struct target_qcow2 *q = ALLOC_NEW(struct target_qcow2);
    q->base.ops = &ops;
    q->base.is_zero = true;
    q->image.path = absolute;
    if (!image_open(&q->image, true, err)) {
        (void)unlink(absolute);
        target_close_image(&q->base);
        return NULL;
    }
    q->base.size_bytes = q->image.size_bytes;
    return &q->base;
}
