/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Allocation that does not fail, and ownership by scope.
 *
 * Out of memory is not handled case by case: xmalloc() aborts, the lease expires and the task is
 * offered again (docs/decisions/0003). Large buffers come from pools sized at start.
 *
 *     SCOPED_FREE char *path = xasprintf("%s/%s", dir, name);
 *     SCOPED_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
 *     ...
 *     return TAKE(path);               -- hand ownership to the caller
 *
 * For a type of ours, its module declares `DEFINE_SCOPED(store, store_free)` and locals say
 * `SCOPED(store) struct store *s = ...`. Every _free() accepts NULL and half-built objects.
 */
#pragma once

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* All of these abort when memory is out. The caller frees with free(). */
void *xmalloc(size_t bytes) __attribute__((malloc, returns_nonnull, alloc_size(1)));
void *xcalloc(size_t count, size_t bytes) __attribute__((malloc, returns_nonnull));
void *xrealloc(void *p, size_t bytes) __attribute__((returns_nonnull));
/* realloc() of an array; aborts on overflow of count * bytes. */
void *xreallocarray(void *p, size_t count, size_t bytes) __attribute__((returns_nonnull));
/* Aligned to `align` (a power of two), for O_DIRECT buffers. */
void *xaligned(size_t align, size_t bytes) __attribute__((malloc, returns_nonnull));
char *xstrdup(const char *s) __attribute__((malloc, returns_nonnull));
char *xstrndup(const char *s, size_t n) __attribute__((malloc, returns_nonnull));
/* A copy of s, or NULL for NULL. */
char *xstrdup_or_null(const char *s) __attribute__((malloc));
char *xasprintf(const char *fmt, ...)
    __attribute__((format(printf, 1, 2), malloc, returns_nonnull));

#define ALLOC_NEW(type) ((type *)xcalloc(1, sizeof(type)))

void scoped_free(void *pointer_to_pointer);
void scoped_fd(const int *fd);
void scoped_file(FILE **file);

/* "unused" in all of them: a local may live for its clean-up alone, which clang takes for a slip.
 */
#define SCOPED_FREE __attribute__((cleanup(scoped_free), unused))
#define SCOPED_FD   __attribute__((cleanup(scoped_fd), unused))
#define SCOPED_FILE __attribute__((cleanup(scoped_file), unused))

/* Defines the cleanup function behind SCOPED(name) for `struct name *`. */
#define DEFINE_SCOPED(name, free_fn)                                                               \
    static inline void scoped_##name(struct name **p)                                              \
    {                                                                                              \
        free_fn(*p);                                                                               \
    }                                                                                              \
    struct name /* swallow the semicolon */
#define SCOPED(name) __attribute__((cleanup(scoped_##name), unused))

/* The value of a scoped pointer, which is set to NULL: ownership moves to whoever takes it. */
#define TAKE(p)                                                                                    \
    ({                                                                                             \
        __typeof__(p) taken_ = (p);                                                                \
        (p) = NULL;                                                                                \
        taken_;                                                                                    \
    })
/* The same for a file descriptor. */
#define TAKE_FD(fd)                                                                                \
    ({                                                                                             \
        int taken_ = (fd);                                                                         \
        (fd) = -1;                                                                                 \
        taken_;                                                                                    \
    })

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

/* Borrowed bytes: passed by value, never freed through it. */
struct slice {
    const void *data;
    size_t len;
};
