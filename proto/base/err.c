/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/base/err.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    enum err_retry retry;
} codes[ERR_CODE_COUNT] = {
    [ERR_NONE] = {"none", ERR_RETRY_NEVER},
#define ERR(name, wire, retry) [ERR_##name] = {wire, ERR_RETRY_##retry},
#include "proto/base/err_codes.def"
#undef ERR
};

/* End a cut text with "..." on a UTF-8 boundary, so that it stays valid JSON text. */
static void mark_cut(char *text, size_t size)
{
    size_t end = size - 4;
    while (end > 0 && ((unsigned char)text[end] & 0xc0) == 0x80)
        end--;
    memcpy(text + end, "...", 4);
}

__attribute__((format(printf, 2, 0))) static void set_message(struct err *err, const char *fmt,
                                                              va_list args)
{
    int n = vsnprintf(err->message, sizeof err->message, fmt, args);
    if (n >= (int)sizeof err->message)
        mark_cut(err->message, sizeof err->message);
}

bool err_set_at(struct err *err, enum err_code code, int sys, const char *file, int line,
                const char *fmt, ...)
{
    assert(err->code == ERR_NONE);
    assert(code > ERR_NONE && code < ERR_CODE_COUNT);
    err->code = code;
    err->sys = sys;
    err->file = file;
    err->line = line;
    va_list args;
    va_start(args, fmt);
    set_message(err, fmt, args);
    va_end(args);
    return false;
}

static enum err_code code_of_errno(int errnum)
{
    switch (errnum) {
    case ENOSPC:
    case EDQUOT:
        return ERR_NO_SPACE;
    case EACCES:
    case EPERM:
        return ERR_PERMISSION;
    case EROFS:
    case ESTALE:   /* the file server has forgotten the file's handle */
    case ENOTCONN: /* FUSE: the program behind it is gone */
        return ERR_UNAVAILABLE;
    case ENOENT:
        return ERR_NOT_FOUND;
    case EEXIST:
        return ERR_EXISTS;
    case ETIMEDOUT:
        return ERR_TIMEOUT;
    default:
        return ERR_IO;
    }
}

bool err_set_errno_at(struct err *err, int errnum, const char *file, int line, const char *fmt, ...)
{
    char what[ERR_MESSAGE_BYTES];
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    char text[128];
    /* The GNU strerror_r: thread-safe, and returns the string. */
    return err_set_at(err, code_of_errno(errnum), errnum, file, line, "%s: %s", what,
                      strerror_r(errnum, text, sizeof text));
}

bool err_wrap(struct err *err, const char *fmt, ...)
{
    assert(err->code != ERR_NONE);
    char old[ERR_MESSAGE_BYTES];
    memcpy(old, err->message, sizeof old);
    va_list args;
    va_start(args, fmt);
    set_message(err, fmt, args);
    va_end(args);
    size_t used = strlen(err->message);
    int n = snprintf(err->message + used, sizeof err->message - used, ": %s", old);
    if (n >= (int)(sizeof err->message - used))
        mark_cut(err->message, sizeof err->message);
    return false;
}

void err_clear(struct err *err)
{
    *err = (struct err)ERR_INIT;
}

void err_keep_first(struct err *to, const struct err *from)
{
    if (!err_is_set(to))
        *to = *from;
}

const char *err_code_name(enum err_code code)
{
    return code >= 0 && code < ERR_CODE_COUNT ? codes[code].name : "internal";
}

enum err_code err_code_from_name(const char *name)
{
    for (int i = 0; i < ERR_CODE_COUNT; i++) {
        if (strcmp(codes[i].name, name) == 0)
            return (enum err_code)i;
    }
    return ERR_INTERNAL;
}

enum err_retry err_retry(enum err_code code)
{
    return code >= 0 && code < ERR_CODE_COUNT ? codes[code].retry : ERR_RETRY_NEVER;
}

const char *err_retry_name(enum err_retry retry)
{
    static const char *const names[] = {"never", "soon", "later", "elsewhere"};
    return names[retry];
}
