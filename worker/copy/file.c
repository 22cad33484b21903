/* SPDX-License-Identifier: Apache-2.0 */
/* Raw image files and block devices, as sources and as targets. */
#include "proto/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "worker/copy/copy.h"

enum {
    IO_BYTES = 512 << 10,
    DIRECT_WRITE_BYTES = 4 << 20,
    SECTOR_BYTES = 512,
    BLOCK_BYTES = STORE_BLOCK_BYTES,
    WRITE_BACK_BYTES = 64 << 20,
    PIECE_BYTES = 64 << 10, /* on average: smaller ones are too many to wait for each */
};

/* ---- what both share */

struct raw {
    int fd;
    char *path;
    bool is_block;
    atomic_bool is_direct; /* O_DIRECT is on */
};

static void raw_take_direct(struct raw *raw)
{
    if (file_set_direct(raw->fd, true))
        atomic_store(&raw->is_direct, true);
}

/* `flags` as for open(2). O_DIRECT is tried for block devices unless no_direct. */
static bool raw_open(struct raw *raw, const char *path, int flags, bool no_direct,
                     uint64_t *ret_size, struct err *err)
{
    struct stat st;
    raw->path = xstrdup(path);
    /* O_NONBLOCK: opening a pipe by mistake must not hang. */
    raw->fd = open(path, flags | O_CLOEXEC | O_NONBLOCK);
    if (raw->fd < 0)
        return err_set_errno(err, errno, "open '%s'", path);
    if (fstat(raw->fd, &st) != 0)
        return err_set_errno(err, errno, "stat '%s'", path);
    raw->is_block = S_ISBLK(st.st_mode);
    if (!raw->is_block && !S_ISREG(st.st_mode))
        return err_set(err, ERR_BAD_ARGUMENT, 0, "'%s' is neither a file nor a block device", path);
    *ret_size = (uint64_t)st.st_size;
    if (raw->is_block && ioctl(raw->fd, BLKGETSIZE64, ret_size) != 0)
        return err_set_errno(err, errno, "size of '%s'", path);
    int now = fcntl(raw->fd, F_GETFL);
    if (now >= 0)
        (void)fcntl(raw->fd, F_SETFL, now & ~O_NONBLOCK);
    if (raw->is_block && !no_direct)
        raw_take_direct(raw);
    return true;
}

static void raw_close(struct raw *raw)
{
    if (raw->fd >= 0)
        (void)close(raw->fd);
    free(raw->path);
}

/* Go on without O_DIRECT after a driver has refused it. False when it was off already. */
static bool raw_drop_direct(struct raw *raw)
{
    return atomic_exchange(&raw->is_direct, false) && file_set_direct(raw->fd, false);
}

/* ---- source */

struct source_file {
    struct source base;
    struct raw raw;
    bool drops_cache;
};

static bool file_extents(struct source *source, uint64_t offset, uint64_t len, struct extents *out,
                         struct err *err)
{
    struct source_file *f = (struct source_file *)source;
    uint64_t at = offset, end = offset + len;
    while (at < end) {
        off_t data = lseek(f->raw.fd, (off_t)at, SEEK_DATA);
        if (data < 0 && (errno == EINVAL || errno == EOPNOTSUPP || errno == ENOTTY)) {
            extents_add(out, at, end - at, true); /* it cannot tell */
            return true;
        }
        if (data < 0 && errno != ENXIO)
            return err_set_errno(err, errno, "map '%s'", f->raw.path);
        uint64_t from = data < 0 || (uint64_t)data > end ? end : (uint64_t)data;
        extents_add(out, at, from - at, false);
        at = from;
        if (at == end)
            return true;
        off_t hole = lseek(f->raw.fd, (off_t)at, SEEK_HOLE);
        if (hole < 0)
            return err_set_errno(err, errno, "map '%s'", f->raw.path);
        /* Never stand still, even if the file changes under us. */
        uint64_t to = (uint64_t)hole <= at || (uint64_t)hole > end ? end : (uint64_t)hole;
        extents_add(out, at, to - at, true);
        at = to;
    }
    return true;
}

/* One read of at most IO_BYTES; the tail that O_DIRECT cannot read goes through a block of its own.
 */
static bool read_piece(struct source_file *f, uint8_t *buf, size_t len, uint64_t offset,
                       struct err *err)
{
    for (;;) {
        ssize_t n;
        if (len % SECTOR_BYTES != 0 && atomic_load(&f->raw.is_direct))
            (void)raw_drop_direct(&f->raw);
        n = pread(f->raw.fd, buf, len, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EINVAL && raw_drop_direct(&f->raw))
            continue;
        if (n < 0)
            return err_set_errno(err, errno, "read '%s' at offset %" PRIu64, f->raw.path, offset);
        if (n == 0)
            return err_set(err, ERR_IO, 0,
                           "'%s' ends at offset %" PRIu64 ", before its size of %" PRIu64,
                           f->raw.path, offset, f->base.size_bytes);
        buf += n;
        len -= (size_t)n;
        offset += (uint64_t)n;
        if (len == 0)
            return true;
        if (n % SECTOR_BYTES != 0)
            (void)raw_drop_direct(&f->raw);
    }
}

static bool file_pread(struct source *source, void *buf, size_t len, uint64_t offset,
                       struct err *err)
{
    struct source_file *f = (struct source_file *)source;
    for (size_t at = 0; at < len; at += IO_BYTES) {
        size_t part = len - at < IO_BYTES ? len - at : IO_BYTES;
        if (!read_piece(f, (uint8_t *)buf + at, part, offset + at, err))
            return false;
    }
    if (f->drops_cache && !atomic_load(&f->raw.is_direct))
        (void)posix_fadvise(f->raw.fd, (off_t)offset, (off_t)len, POSIX_FADV_DONTNEED);
    return true;
}

static void file_close(struct source *source)
{
    struct source_file *f = (struct source_file *)source;
    raw_close(&f->raw);
    free(f);
}

struct source *source_file_open(const char *path, const struct source_file_opts *opts,
                                struct err *err)
{
    static const struct source_ops ops = {
        .extents = file_extents, .pread = file_pread, .close = file_close};
    const struct source_file_opts defaults = {0};
    opts = opts ? opts : &defaults;
    struct source_file *f = ALLOC_NEW(struct source_file);
    f->base.ops = &ops;
    f->base.piece_bytes = IO_BYTES;
    f->raw.fd = -1;
    f->drops_cache = !opts->keep_page_cache;
    if (!raw_open(&f->raw, path, O_RDONLY, opts->no_direct, &f->base.size_bytes, err)) {
        file_close(&f->base);
        return NULL;
    }
    return &f->base;
}

/* ---- target */

struct target_file {
    struct target base;
    struct raw raw;
    bool is_new;              /* made by us: its directory entry is not durable yet */
    atomic_bool cannot_punch; /* the file system or device refused to make holes */
    atomic_bool cannot_reserve;
    atomic_size_t unflushed; /* bytes written since write-back was last started */
    /* What O_DIRECT cannot write, at the end of an odd-sized file: written by flush, so that it
     * does not meet others' direct writes in the page cache. */
    uint8_t tail[BLOCK_BYTES];
    atomic_size_t tail_len;
    uint64_t tail_offset;
};

/* Writing past the page cache saves a copy of all data and the allocation of as many pages, and
 * waits for the disk from the first byte on. */
static bool likes_direct(const struct raw *raw)
{
    return !raw->is_block && file_likes_direct(raw->fd);
}

/* The kernel would begin to write when a tenth of the memory is dirty, which for most disks is at
 * the end: start early, so that the disk works while we decode. A hint: what fails here fails in
 * fsync. */
static void write_back(struct target_file *f, size_t len)
{
    if (f->raw.is_block || atomic_load(&f->raw.is_direct) ||
        atomic_fetch_add(&f->unflushed, len) + len < WRITE_BACK_BYTES)
        return;
    if (atomic_exchange(&f->unflushed, 0) >= WRITE_BACK_BYTES) /* of several threads, one */
        (void)sync_file_range(f->raw.fd, 0, 0, SYNC_FILE_RANGE_WRITE);
}

/* How much of [offset, offset + len) is written now. */
static size_t keep_tail(struct target_file *f, const uint8_t *data, size_t len, uint64_t offset)
{
    size_t odd = len % BLOCK_BYTES;
    if (odd == 0 || !atomic_load(&f->raw.is_direct) || offset + len != f->base.size_bytes)
        return len;
    memcpy(f->tail, data + len - odd, odd); /* nobody else writes there */
    f->tail_offset = offset + len - odd;
    atomic_store(&f->tail_len, odd);
    return len - odd;
}

static bool write_all(struct target_file *f, const uint8_t *at, size_t len, uint64_t offset,
                      struct err *err)
{
    while (len > 0) {
        if (len % SECTOR_BYTES != 0)
            (void)raw_drop_direct(&f->raw);
        size_t most = atomic_load(&f->raw.is_direct) ? DIRECT_WRITE_BYTES : IO_BYTES;
        size_t part = len < most ? len : most;
        ssize_t n = pwrite(f->raw.fd, at, part, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EINVAL && raw_drop_direct(&f->raw))
            continue;
        if (n < 0)
            return err_set_errno(err, errno, "write '%s' at offset %" PRIu64, f->raw.path, offset);
        at += n;
        len -= (size_t)n;
        offset += (uint64_t)n;
    }
    return true;
}

static bool target_pwrite(struct target *target, const void *buf, size_t len, uint64_t offset,
                          struct err *err)
{
    struct target_file *f = (struct target_file *)target;
    if (!write_all(f, buf, keep_tail(f, buf, len, offset), offset, err))
        return false;
    write_back(f, len);
    return true;
}

/* Many small pieces go through the page cache, or, onto a device, in long runs: the disk would be
 * asked too often. */
static void target_expect(struct target *target, uint64_t data_bytes, uint64_t pieces)
{
    struct target_file *f = (struct target_file *)target;
    bool are_large = data_bytes / PIECE_BYTES >= pieces;
    if (f->raw.is_block)
        target->takes_pieces = are_large;
    else if (!are_large && raw_drop_direct(&f->raw))
        target->waits = false;
}

/* With room taken beforehand, file systems let several direct writes into one file at once, and the
 * file is in few pieces. A file system that cannot do it goes without. */
static bool target_reserve(struct target *target, uint64_t offset, uint64_t len, struct err *err)
{
    struct target_file *f = (struct target_file *)target;
    if (f->raw.is_block || !atomic_load(&f->raw.is_direct) || atomic_load(&f->cannot_reserve))
        return true;
    int ret;
    do
        ret = fallocate(f->raw.fd, FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)len);
    while (ret != 0 && errno == EINTR);
    if (ret == 0)
        return true;
    if (errno == ENOSPC || errno == EDQUOT || errno == EIO)
        return err_set_errno(err, errno, "take room for '%s' at offset %" PRIu64, f->raw.path,
                             offset);
    atomic_store(&f->cannot_reserve, true);
    return true;
}

/* True when a hole was made; false when it must be written. */
static bool punch(struct target_file *f, uint64_t offset, uint64_t len)
{
    if (atomic_load(&f->cannot_punch) || offset % SECTOR_BYTES != 0 || len % SECTOR_BYTES != 0)
        return false;
    if (fallocate(f->raw.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
                  (off_t)len) == 0)
        return true;
    if (f->raw.is_block) {
        uint64_t range[2] = {offset, len};
        if (ioctl(f->raw.fd, BLKZEROOUT, range) == 0)
            return true;
    }
    atomic_store(&f->cannot_punch, true);
    return false;
}

static bool target_zero(struct target *target, uint64_t offset, uint64_t len, struct err *err)
{
    struct target_file *f = (struct target_file *)target;
    if (punch(f, offset, len))
        return true;
    static const uint8_t zeroes[IO_BYTES] __attribute__((aligned(4096)));
    while (len > 0) {
        size_t part = len < sizeof zeroes ? (size_t)len : sizeof zeroes;
        if (!target_pwrite(target, zeroes, part, offset, err))
            return false;
        offset += part;
        len -= part;
    }
    return true;
}

static bool target_flush(struct target *target, struct err *err)
{
    struct target_file *f = (struct target_file *)target;
    size_t tail = atomic_exchange(&f->tail_len, 0);
    if (tail > 0) {
        (void)raw_drop_direct(&f->raw);
        if (!write_all(f, f->tail, tail, f->tail_offset, err))
            return false;
    }
    if (fsync(f->raw.fd) != 0)
        return err_set_errno(err, errno, "sync '%s'", f->raw.path);
    return !f->is_new || file_sync_parent(AT_FDCWD, f->raw.path, err);
}

static void target_file_close(struct target *target)
{
    struct target_file *f = (struct target_file *)target;
    raw_close(&f->raw);
    free(f);
}

static bool create(const char *path, uint64_t size, struct err *err)
{
    SCOPED_FD int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_set_errno(err, errno, "create '%s'", path);
    if (ftruncate(fd, (off_t)size) != 0) {
        err_set_errno(err, errno, "size of '%s'", path);
        (void)unlink(path);
        return false;
    }
    return true;
}

struct target *target_file_open(const char *path, const struct target_file_opts *opts,
                                struct err *err)
{
    static const struct target_ops ops = {.pwrite = target_pwrite,
                                          .expect = target_expect,
                                          .reserve = target_reserve,
                                          .zero = target_zero,
                                          .flush = target_flush,
                                          .close = target_file_close};
    const struct target_file_opts defaults = {0};
    opts = opts ? opts : &defaults;
    if (opts->create && !create(path, opts->size_bytes, err))
        return NULL;
    struct target_file *f = ALLOC_NEW(struct target_file);
    f->base.ops = &ops;
    f->base.is_zero = opts->is_zero || opts->create;
    f->is_new = opts->create;
    f->raw.fd = -1;
    /* O_EXCL without O_CREAT: a block device that is mounted or otherwise in use is refused. */
    struct stat st;
    int excl = stat(path, &st) == 0 && S_ISBLK(st.st_mode) ? O_EXCL : 0;
    if (!raw_open(&f->raw, path, O_RDWR | excl, opts->no_direct, &f->base.size_bytes, err)) {
        target_file_close(&f->base);
        return NULL;
    }
    if (!opts->no_direct && likes_direct(&f->raw))
        raw_take_direct(&f->raw);
    f->base.takes_pieces = !f->raw.is_block;
    f->base.waits = atomic_load(&f->raw.is_direct);
    return &f->base;
}
