/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/base/alloc.h"

#include <string.h>
#include <unistd.h>

static void *must(void *p)
{
    if (!p) {
        static const char text[] = "<2>level=error event=out_of_memory\n";
        (void)!write(STDERR_FILENO, text, sizeof text - 1);
        abort();
    }
    return p;
}

void *xmalloc(size_t bytes)
{
    return must(malloc(bytes ? bytes : 1));
}

void *xcalloc(size_t count, size_t bytes)
{
    return must(calloc(count ? count : 1, bytes ? bytes : 1));
}

void *xrealloc(void *p, size_t bytes)
{
    return must(realloc(p, bytes ? bytes : 1));
}

void *xreallocarray(void *p, size_t count, size_t bytes)
{
    return must(reallocarray(p, count ? count : 1, bytes ? bytes : 1));
}

void *xaligned(size_t align, size_t bytes)
{
    void *p = NULL;
    if (posix_memalign(&p, align, bytes ? bytes : align) != 0)
        p = NULL;
    return must(p);
}

char *xstrdup(const char *s)
{
    return must(strdup(s));
}

char *xstrndup(const char *s, size_t n)
{
    return must(strndup(s, n));
}

char *xstrdup_or_null(const char *s)
{
    return s ? xstrdup(s) : NULL;
}

char *xasprintf(const char *fmt, ...)
{
    char *text = NULL;
    va_list args;
    va_start(args, fmt);
    int n = vasprintf(&text, fmt, args);
    va_end(args);
    return must(n < 0 ? NULL : text);
}

void scoped_free(void *pointer_to_pointer)
{
    void *p;
    memcpy(&p, pointer_to_pointer, sizeof p);
    free(p);
}

void scoped_fd(const int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

void scoped_file(FILE **file)
{
    if (*file)
        fclose(*file);
}
