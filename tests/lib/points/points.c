/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A preload library that makes a program pass through named points, and stop at one of them. A
 * point is a line that it writes to stderr (its log), or a call that changes a file below a
 * directory:
 *
 *   after log <the line>
 *   before link fate/4be0a2c4-....1
 *   after link fate/4be0a2c4-....1       or: failed link fate/4be0a2c4-....1
 *
 * with create, mkdir, link, rename, unlink and fsync; paths are relative to POINTS_ROOT.
 *
 * POINTS_DIR is a folder that the test and any number of programs share:
 *   arm       written (renamed into place) by the test: three lines, an extended regular expression
 *             for a gate or nothing, one for the point, and how many matches to let pass. Once the
 *             gate was passed in a process, it counts its matches of the point. The process that
 *             comes to the last one takes the file away: it becomes
 *   hit.PID   ... and its thread stands still until the test removes that.
 *   trace     when it exists at the start of a program: all its points, in order, to trace.PID
 *
 * The library holds no lock while it stands still: other threads go on.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <regex.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { TEXT_MAX = 4096, RULE_MAX = 2048, STAND_NS = 5 * 1000 * 1000 };

struct rule {
    ino_t inode;
    struct timespec written;
    regex_t gate, point;
    bool is_open; /* the gate */
    long pass;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards `rule` */
static struct rule rule;
static const char *dir, *root;
static int trace_fd = -1;

/* This is C of the test bench: the next function of that name, as a pointer of the right type. */
#define NEXT(name) ((__typeof__(&name))(intptr_t)dlsym(RTLD_NEXT, #name))

static void dir_path(char *out, const char *name)
{
    (void)snprintf(out, PATH_MAX, "%s/%s", dir, name);
}

__attribute__((constructor)) static void begin(void)
{
    dir = getenv("POINTS_DIR");
    root = getenv("POINTS_ROOT");
    if (!dir)
        return;
    char path[PATH_MAX], name[64];
    dir_path(path, "trace");
    if (access(path, F_OK) != 0)
        return;
    (void)snprintf(name, sizeof name, "trace.%d", (int)getpid());
    dir_path(path, name);
    trace_fd = NEXT(open)(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

/* --- The armed rule -------------------------------------------------------------------------- */

static void rule_forget(void)
{
    if (rule.inode == 0)
        return;
    regfree(&rule.gate);
    regfree(&rule.point);
    rule.inode = 0;
}

/* Under the lock. False: nothing is armed. */
static bool rule_load(const char *path)
{
    struct stat st;
    int fd = NEXT(open)(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    char text[RULE_MAX];
    bool same = fstat(fd, &st) == 0 && st.st_ino == rule.inode &&
                memcmp(&st.st_mtim, &rule.written, sizeof st.st_mtim) == 0;
    ssize_t len = same ? 0 : read(fd, text, sizeof text - 1);
    (void)close(fd);
    if (same)
        return true;
    rule_forget();
    if (len <= 0)
        return false;
    text[len] = '\0';
    char *rest = text, *gate = strsep(&rest, "\n"), *point = strsep(&rest, "\n");
    if (!point || !rest || regcomp(&rule.gate, gate, REG_EXTENDED | REG_NOSUB) != 0)
        return false;
    if (regcomp(&rule.point, point, REG_EXTENDED | REG_NOSUB) != 0) {
        regfree(&rule.gate);
        return false;
    }
    rule.inode = st.st_ino;
    rule.written = st.st_mtim;
    rule.is_open = *gate == '\0';
    rule.pass = strtol(rest, NULL, 10);
    return true;
}

/* Is this point the one? Then the rule is ours, and nobody else's. */
static bool take(const char *text, char *hit)
{
    char armed[PATH_MAX], name[64];
    dir_path(armed, "arm");
    bool taken = false;
    pthread_mutex_lock(&lock);
    if (rule_load(armed)) {
        if (!rule.is_open) {
            rule.is_open = regexec(&rule.gate, text, 0, NULL, 0) == 0;
        } else if (regexec(&rule.point, text, 0, NULL, 0) == 0 && rule.pass-- == 0) {
            (void)snprintf(name, sizeof name, "hit.%d", (int)getpid());
            dir_path(hit, name);
            taken = NEXT(rename)(armed, hit) == 0;
            rule_forget();
        }
    }
    pthread_mutex_unlock(&lock);
    return taken;
}

static void point(const char *when, const char *what, const char *object, size_t len)
{
    if (!dir)
        return;
    int saved = errno;
    char text[TEXT_MAX], hit[PATH_MAX];
    (void)snprintf(text, sizeof text, "%s %s %.*s", when, what, (int)len, object);
    if (trace_fd >= 0)
        (void)!NEXT(write)(trace_fd, text, strnlen(text, sizeof text)),
            (void)!NEXT(write)(trace_fd, "\n", 1);
    if (take(text, hit)) {
        const struct timespec pause = {.tv_nsec = STAND_NS};
        while (access(hit, F_OK) == 0)
            (void)nanosleep(&pause, NULL);
    }
    errno = saved;
}

/* --- Files ----------------------------------------------------------------------------------- */

/* The path below the root, or NULL when it is elsewhere. `name` may be NULL: the descriptor's own.
 */
static const char *below_root(int fd, const char *name, char *out)
{
    char link[64];
    size_t len = 0;
    if (!dir || !root)
        return NULL;
    if (!name || *name != '/') {
        (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t n = fd == AT_FDCWD ? -1 : readlink(link, out, PATH_MAX - 1);
        if (n < 0)
            return NULL;
        len = (size_t)n;
    }
    int n = name ? snprintf(out + len, PATH_MAX - len, "%s%s", len ? "/" : "", name) : 0;
    out[n < 0 || len + (size_t)n >= PATH_MAX ? len : len + (size_t)n] = '\0';
    size_t root_len = strlen(root);
    if (strncmp(out, root, root_len) != 0 || (out[root_len] != '/' && out[root_len] != '\0'))
        return NULL;
    return out[root_len] ? out + root_len + 1 : ".";
}

#define AROUND(what, fd, name, call)                                                               \
    char around_path[PATH_MAX];                                                                    \
    const char *at = below_root(fd, name, around_path);                                            \
    if (at)                                                                                        \
        point("before", what, at, strlen(at));                                                     \
    int rc = call;                                                                                 \
    if (at)                                                                                        \
        point(rc < 0 ? "failed" : "after", what, at, strlen(at));                                  \
    return rc

int linkat(int from_fd, const char *from, int fd, const char *to, int flags)
{
    AROUND("link", fd, to, NEXT(linkat)(from_fd, from, fd, to, flags));
}

int renameat(int from_fd, const char *from, int fd, const char *to)
{
    AROUND("rename", fd, to, NEXT(renameat)(from_fd, from, fd, to));
}

int renameat2(int from_fd, const char *from, int fd, const char *to, unsigned flags)
{
    AROUND("rename", fd, to, NEXT(renameat2)(from_fd, from, fd, to, flags));
}

int unlinkat(int fd, const char *name, int flags)
{
    AROUND("unlink", fd, name, NEXT(unlinkat)(fd, name, flags));
}

int mkdirat(int fd, const char *name, mode_t mode)
{
    AROUND("mkdir", fd, name, NEXT(mkdirat)(fd, name, mode));
}

int fsync(int fd)
{
    AROUND("fsync", fd, NULL, NEXT(fsync)(fd));
}

int openat(int fd, const char *name, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(args, mode_t) : 0;
    va_end(args);
    if (!(flags & O_CREAT))
        return NEXT(openat)(fd, name, flags, mode);
    AROUND("create", fd, name, NEXT(openat)(fd, name, flags, mode));
}

int openat64(int fd, const char *name, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(args, mode_t) : 0;
    va_end(args);
    if (!(flags & O_CREAT))
        return NEXT(openat64)(fd, name, flags, mode);
    AROUND("create", fd, name, NEXT(openat64)(fd, name, flags, mode));
}

/* --- The log --------------------------------------------------------------------------------- */

ssize_t write(int fd, const void *data, size_t len)
{
    ssize_t written = NEXT(write)(fd, data, len);
    if (fd == STDERR_FILENO && len > 0) {
        const char *text = data;
        point("after", "log", text, text[len - 1] == '\n' ? len - 1 : len);
    }
    return written;
}
