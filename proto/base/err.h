/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Errors as values.
 *
 * A function that can fail takes a `struct err *` as its last parameter, never NULL, and returns
 * bool (true = done) or a pointer (NULL = failed). The caller owns the value, usually on its stack;
 * nothing is allocated. On success the value is untouched. A failed task's error becomes its result
 * unchanged, so the message says what happened to which object and, where known, what to do.
 *
 *     if (!chunk_write(s, &id, data, err))
 *         return err_wrap(err, "disk %s offset %" PRIu64, disk_id, off);
 *
 * Steer by `code` and err_retry(), never by the text. Log or return, never both.
 *
 * Threads: a struct err belongs to one thread at a time; copy it to hand it over.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

enum err_code {
    ERR_NONE = 0,
#define ERR(name, wire, retry) ERR_##name,
#include "proto/base/err_codes.def"
#undef ERR
    ERR_CODE_COUNT
};

enum err_retry {
    ERR_RETRY_NEVER,
    ERR_RETRY_SOON,
    ERR_RETRY_LATER,
    ERR_RETRY_ELSEWHERE,
};

enum { ERR_MESSAGE_BYTES = 1024 };

/* Start with `struct err err = ERR_INIT;` or err_clear(). */
struct err {
    enum err_code code;
    int sys;          /* errno, or the HTTP status of the engine; 0 = none */
    const char *file; /* static string: where err_set() stood */
    int line;
    char message[ERR_MESSAGE_BYTES]; /* UTF-8, cut with "..." when too long */
};

#define ERR_INIT                                                                                   \
    {                                                                                              \
        0                                                                                          \
    }

/*
 * Record a first error. `sys` is an errno value or HTTP status (0 = none); a non-zero errno is NOT
 * appended to the message: use err_set_errno() for that. Asserts that no error was set before.
 * Returns false, so that `return err_set(...)` reads well.
 */
#define err_set(err, code, sys, ...)                                                               \
    err_set_at((err), (code), (sys), __FILE__, __LINE__, __VA_ARGS__)

/* err_set() for a failed system call: picks NO_SPACE, PERMISSION, NOT_FOUND, EXISTS or IO from the
 * errno value and appends ": " and its text. */
#define err_set_errno(err, errnum, ...)                                                            \
    err_set_errno_at((err), (errnum), __FILE__, __LINE__, __VA_ARGS__)

bool err_set_at(struct err *err, enum err_code code, int sys, const char *file, int line,
                const char *fmt, ...) __attribute__((format(printf, 6, 7)));
bool err_set_errno_at(struct err *err, int errnum, const char *file, int line, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));

/* Put "context: " before the message. Asserts that an error is set. Returns false. */
bool err_wrap(struct err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Forget the error, so that the value can be used for another call. */
void err_clear(struct err *err);

static inline bool err_is_set(const struct err *err)
{
    return err->code != ERR_NONE;
}

/* Copy `from` into `to` if `to` holds none yet: the first error of several threads or clean-ups is
 * the one to report. */
void err_keep_first(struct err *to, const struct err *from);

/* Stable name on the wire ("no-space"); "none" for ERR_NONE. Static string. */
const char *err_code_name(enum err_code code);

/* The code of a wire name; ERR_INTERNAL for a name this version does not know. */
enum err_code err_code_from_name(const char *name);

/* The advice that belongs to a code. */
enum err_retry err_retry(enum err_code code);

/* "never", "soon", "later", "elsewhere". Static string. */
const char *err_retry_name(enum err_retry retry);
