/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The copy pipeline: any source into a session of the repository, a disk of a restore point into
 * any target. A kind of source or target is one struct of functions and one file; the pipeline
 * knows nothing else of it. docs/modules/copy.md explains the pipeline.
 *
 *     SCOPED(source) struct source *from = source_file_open("/dev/disk/by-id/...", NULL, err);
 *     struct copy_stats stats;
 *     if (!from || !copy_backup(from, session, disk, &opts, &stats, err)) ...
 *
 * Memory: about 12 MiB a thread (a restore by frames: 3 MiB), whatever the disk's size.
 */
#pragma once

#include <stdint.h>

#include "proto/base/alloc.h"
#include "proto/base/err.h"
#include "worker/store/extent.h"
#include "worker/store/store.h"

/* ---- sources -------------------------------------------------------------------------------- */

struct source;

/* A kind of source. Calls come from several threads at once, at most `threads_max` of them. */
struct source_ops {
    /* Which parts of [offset, offset + len) hold data: append to `out`, covering the range exactly.
     * A source that cannot tell calls all of it data. */
    bool (*extents)(struct source *source, uint64_t offset, uint64_t len, struct extents *out,
                    struct err *err);
    /* Exactly `len` bytes. `buf`, `offset` and `len` are multiples of 4096, but `len` at the end of
     * an odd-sized source. */
    bool (*pread)(struct source *source, void *buf, size_t len, uint64_t offset, struct err *err);
    /* Free everything, the struct too. */
    void (*close)(struct source *source);
};

/* Begins the private struct of each kind. */
struct source {
    const struct source_ops *ops;
    uint64_t size_bytes;
    unsigned threads_max; /* 0 = any number */
    size_t piece_bytes; /* best size of a read that is cheap, a multiple of 4096; 0 = the larger the
                           better. Small pieces are still in the processor's cache when they are
                           hashed and compressed */
};

/* NULL is fine. */
void source_close(struct source *source);
DEFINE_SCOPED(source, source_close);

/* A qcow2 image, read-only, through a qemu-nbd that ends with the source. The format is never
 * guessed from the bytes: a guest may write what it likes at the beginning of a raw image. An image
 * that refers to another file (a backing file, a data file) is refused with bad-argument unless
 * `may_refer`, for the name of that file is whatever the image's maker wrote. Errors: those of
 * source_file_open, io-error when qemu-nbd cannot be run or fails. */
struct source *source_qcow2_open(const char *path, bool may_refer, struct err *err);

struct source_file_opts {
    bool no_direct;       /* never use O_DIRECT (it is used for block devices that allow it) */
    bool keep_page_cache; /* do not drop what was read from the page cache */
};

/* A raw image file or a block device, opened read-only. Holes of a file are found by SEEK_DATA.
 * `opts` may be NULL. Errors: not-found, permission, io-error; bad-argument for other file types.
 */
struct source *source_file_open(const char *path, const struct source_file_opts *opts,
                                struct err *err);

/* ---- targets -------------------------------------------------------------------------------- */

struct target;

/* A kind of target. Calls come from several threads at once, at most `threads_max` of them, never
 * for the same bytes. Alignment as for sources. */
struct target_ops {
    bool (*pwrite)(struct target *target, const void *buf, size_t len, uint64_t offset,
                   struct err *err);
    /* Before anything else: a restore has so much data, in so many pieces if it goes by frames. The
     * target may set takes_pieces and waits by that. NULL where it makes no difference. */
    void (*expect)(struct target *target, uint64_t data_bytes, uint64_t pieces);
    /* All of the range will be written: take the room for it. Only in a restore by frames, for all
     * of its data; the last ranges may be being written already. NULL where there is no use. */
    bool (*reserve)(struct target *target, uint64_t offset, uint64_t len, struct err *err);
    /* Make the range read as zeroes, by whatever means. */
    bool (*zero)(struct target *target, uint64_t offset, uint64_t len, struct err *err);
    /* Everything written is durable when this returns true. */
    bool (*flush)(struct target *target, struct err *err);
    /* The copy has failed, from any thread, perhaps more than once: a call that waits for another
     * one shall fail. NULL where none does. */
    void (*fail)(struct target *target);
    void (*close)(struct target *target);
};

struct target {
    const struct target_ops *ops;
    uint64_t size_bytes;
    unsigned threads_max; /* 0 = any number */
    bool is_zero;         /* known to read as zeroes everywhere before the first write */
    bool is_ordered;      /* takes its bytes from first to last, holes too */
    bool takes_pieces; /* small writes cost it little: it gets its data frame by frame, in the order
                          that is cheapest to read, not in long runs */
    bool waits; /* a write takes the time of a disk: a restore by frames has twice as many threads,
                   which keeps both busy */
};

void target_close(struct target *target);
DEFINE_SCOPED(target, target_close);

struct target_file_opts {
    bool create; /* make a new regular file of size_bytes; refused with exists if it is there */
    uint64_t size_bytes; /* with create */
    bool no_direct; /* never use O_DIRECT (it is used for block devices, and for files on ext4 and
                       XFS, where it is allowed) */
    bool is_zero;   /* the caller knows that it reads as zeroes (a disk just made by the engine) */
};

/* A raw image file or a block device, opened for writing. The size of an existing one is never
 * changed. `opts` may be NULL. */
struct target *target_file_open(const char *path, const struct target_file_opts *opts,
                                struct err *err);

/* A new qcow2 image, made by qemu-img and written through a qemu-nbd that ends with the target.
 * Refused with exists if it is there. */
struct target *target_qcow2_create(const char *path, uint64_t size_bytes, struct err *err);

/* Whatever `fd` is (a pipe, standard output): all bytes of the disk in order, zeroes too. Threads
 * decode ahead of it. Borrowed; flush does nothing where there is nothing to sync. */
struct target *target_stream_open(int fd, uint64_t size_bytes);

/* Discards: restore drills, which check every byte, and benchmarks. */
struct target *target_null_open(uint64_t size_bytes);

/* ---- the pipeline --------------------------------------------------------------------------- */

struct copy_opts {
    unsigned threads; /* per disk; 0 = one more than the cores, at most 8. A restore by frames to a
                         target that waits has twice as many */
    void *context;    /* of the callbacks, each of which may be NULL */
    /* Called at most 5 times a second and once at the end, from the calling thread. `total` is the
     * size of what is copied; holes count as done when they are passed. */
    void (*progress)(void *context, uint64_t done_bytes, uint64_t total_bytes);
    /* Asked 5 times a second from the calling thread; true ends the copy with the error cancelled
     * as soon as the reads and writes under way are back. */
    bool (*cancelled)(void *context);
    /* copy_backup only, NULL = all: which ranges may differ from the disk's parent (its data
     * ranges), from offset 0 on. All else is taken from the parent without being read; what lies
     * beyond the list's end is read. Needs a disk with a parent of at least the list's length. */
    const struct extents *changed;
    /* copy_backup only, NULL = all: which ranges to copy (its data ranges, in whole blocks, up to
     * the disk's end at most), from offset 0 on. All else is left alone: neither read nor written
     * nor kept; somebody else does that. */
    const struct extents *only;
};

struct copy_stats {
    uint64_t size_bytes;      /* of the disk, or of what of it was to be copied */
    uint64_t data_bytes;      /* read from the source / written to the target */
    uint64_t hole_bytes;      /* holes of the source skipped / of the point zeroed or skipped */
    uint64_t kept_bytes;      /* copy_backup: taken from the parent, as not changed */
    struct store_stats store; /* copy_backup only */
    int64_t elapsed_ms;
};

/*
 * Copy all of `source` into `disk`, which was just begun in `session` with the source's size. The
 * caller calls store_disk_finish(). `opts` and `ret_stats` may be NULL. The first error of any
 * thread wins and is wrapped with the offset; the session must then be aborted. Blocks until all
 * its threads have ended.
 */
bool copy_backup(struct source *source, struct store_session *session, struct store_disk *disk,
                 const struct copy_opts *opts, struct copy_stats *ret_stats, struct err *err);

/*
 * Write all of the disk to `target`, which is at least as large, and flush it. Holes are zeroed
 * unless target->is_zero; so is what lies beyond the end of the disk. Every byte is verified
 * before it is written.
 */
bool copy_restore(struct store_reader *reader, struct target *target, const struct copy_opts *opts,
                  struct copy_stats *ret_stats, struct err *err);
