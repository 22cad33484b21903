/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small files, whole reads and durable writes. Paths are relative to a directory descriptor where
 * that protects against a moved tree (AT_FDCWD for the current directory). Threads: reentrant.
 */
#pragma once

#include <sys/types.h>

#include "proto/base/buf.h"
#include "proto/base/err.h"

/* Read all of a regular file of at most `max_bytes` into `out` (initialised here; the caller calls
 * buf_done). Errors: not-found, permission, too-large, io-error. */
bool file_read_all(int dirfd, const char *path, size_t max_bytes, struct buf *out, struct err *err);

/* A secret: like file_read_all(), cut at the first line end, and refused when it is empty or when
 * the file may be read by everyone (mode & 0007). Returns a string the caller frees. */
char *file_read_secret(const char *path, struct err *err);

/* Exactly `len` bytes, across short reads and EINTR. A file that ends early is an io-error that
 * says so. */
bool file_pread_full(int fd, void *buf, size_t len, uint64_t offset, struct err *err);
bool file_write_full(int fd, const void *buf, size_t len, struct err *err);
bool file_pwrite_full(int fd, const void *buf, size_t len, uint64_t offset, struct err *err);

/* Is the file on a file system on which O_DIRECT was measured to be worth it: ext4 or XFS? Not over
 * a network, where each call would wait for the server. */
bool file_likes_direct(int fd);
/* Switch O_DIRECT on or off for all who share the open file. False: it is as before. */
bool file_set_direct(int fd, bool on);

/* Write a whole file durably: temporary file beside it, fsync, rename over `path`, fsync of the
 * directory. Readers see the old or the new contents, never a mixture. */
bool file_write_atomic(int dirfd, const char *path, const void *data, size_t len, mode_t mode,
                       struct err *err);

/* fsync the directory that holds `path`. */
bool file_sync_parent(int dirfd, const char *path, struct err *err);

/* mkdir -p. Existing directories are fine. */
bool file_make_dirs(const char *path, mode_t mode, struct err *err);
