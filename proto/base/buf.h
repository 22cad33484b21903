/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A growing byte buffer that carries its maximum from birth, for bytes that come from outside
 * (HTTP bodies, message bodies, files). Threads: one at a time. The contents are always followed by
 * a NUL byte that is not counted.
 */
#pragma once

#include "proto/base/alloc.h"
#include "proto/base/err.h"

struct buf {
    char *data; /* NULL while empty */
    size_t len;
    size_t capacity;
    size_t max;
};

/* `max_bytes` is the most it may ever hold. */
void buf_init(struct buf *b, size_t max_bytes);
/* Frees the bytes; the buffer may be used again. */
void buf_done(struct buf *b);
/* Empties it, keeping the memory. */
void buf_reset(struct buf *b);
/* false when the maximum would be passed; nothing is added then. */
bool buf_add(struct buf *b, const void *data, size_t len);
bool buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The contents as a C string ("" while empty). Borrowed. */
const char *buf_str(const struct buf *b);
/* Hands the bytes over (never NULL); the buffer is empty afterwards. The caller frees. */
char *buf_take(struct buf *b);

#define SCOPED_BUF __attribute__((cleanup(buf_done), unused))
