/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The NBD side of one HTTP connection. Once it fails it stays failed, as ovirt-imageio's does: the
 * client must come back on a new HTTP connection. Threads: one at a time.
 */
#pragma once

#include "proto/base/buf.h"
#include "tests/sandbox/imageio/imageio.h"

struct backend;

struct backend *backend_open(const char *uri, const char *dirty_bitmap, struct err *err);
void backend_close(struct backend *b);
uint64_t backend_size(const struct backend *b);
bool backend_read(struct backend *b, void *buf, size_t len, uint64_t offset, struct err *err);
bool backend_write(struct backend *b, const void *buf, size_t len, uint64_t offset,
                   struct err *err);
bool backend_zero(struct backend *b, uint64_t len, uint64_t offset, bool sparse, struct err *err);
bool backend_flush(struct backend *b, struct err *err);
/* The extents of the whole image as the JSON that the endpoint answers. `dirty`: of the bitmap;
 * then the error is unsupported when the export has none. */
bool backend_extents(struct backend *b, bool dirty, struct buf *out, struct err *err);
