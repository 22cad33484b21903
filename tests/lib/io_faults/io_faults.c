/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Preloaded into a program under test (LD_PRELOAD), makes its file calls under one path fail, hang,
 * come short or be the last thing it does. Not for programs built with a sanitizer: those want to
 * be loaded first themselves.
 *
 *   IO_FAULTS_PATH     calls on files under this path count, all others pass
 *   IO_FAULTS          rules, separated by line ends or semicolons
 *   IO_FAULTS_CONTROL  a file with rules instead, read again when it changes (replace it by
 * rename); the rules' counts then begin anew, and who hangs goes on IO_FAULTS_LOG      append a
 * line "NUMBER OPERATION PATH [ACTION]" for each call that changes something, and for each one that
 * a rule acts upon, before it has an effect. NUMBER counts the calls that change something.
 *
 * A rule: OPERATION[,OPERATION]... [CONDITION]... ACTION
 *   operations  create open read write sync allocate truncate link rename unlink mkdir chmod close
 *               stat list; "change" = those that leave a trace (without close), "any" = all
 *   conditions  at=K      only the K-th call of these (from 1); from=K, until=K; without: all
 *               path=GLOB the path below IO_FAULTS_PATH matches (fnmatch, * takes / as well)
 *               after     act after the call had its effect; without: before
 *   actions     error=EIO (or ENOSPC, ESTALE, ...): return that. Before: the call is not made
 *               short=N   a write or read does at most N bytes
 *               delay_ms=N
 *               kill, stop: SIGKILL or SIGSTOP to the program
 *               hang      until the control file changes; then the call goes on
 *               pass      nothing (the later rules do not see the call)
 * The first rule that fits acts; each counts for itself.
 */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define ARRAY_LEN(a) (sizeof(a) / sizeof(a)[0])

enum { RULES_MAX = 32, RULES_BYTES_MAX = 8192, PATH_BYTES = 4096, HANG_LOOK_MS = 20 };

enum op {
    OP_CREATE,
    OP_OPEN,
    OP_READ,
    OP_WRITE,
    OP_SYNC,
    OP_ALLOCATE,
    OP_TRUNCATE,
    OP_LINK,
    OP_RENAME,
    OP_UNLINK,
    OP_MKDIR,
    OP_CHMOD,
    OP_CLOSE,
    OP_STAT,
    OP_LIST,
    OP_COUNT
};
static const char *const op_names[OP_COUNT] = {
    "create", "open",   "read",  "write", "sync",  "allocate", "truncate", "link",
    "rename", "unlink", "mkdir", "chmod", "close", "stat",     "list",
};
static const unsigned CHANGE = 1u << OP_CREATE | 1u << OP_WRITE | 1u << OP_SYNC |
                               1u << OP_ALLOCATE | 1u << OP_TRUNCATE | 1u << OP_LINK |
                               1u << OP_RENAME | 1u << OP_UNLINK | 1u << OP_MKDIR | 1u << OP_CHMOD;

enum action { ACT_NONE, ACT_ERROR, ACT_SHORT, ACT_DELAY, ACT_KILL, ACT_STOP, ACT_HANG };
static const char *const action_names[] = {"pass", "error", "short", "delay",
                                           "kill", "stop",  "hang"};

struct rule {
    unsigned ops;
    unsigned long from, until; /* counted from 1 */
    char glob[256];
    bool after;
    enum action action;
    long value; /* errno, bytes, milliseconds */
    unsigned long count;
};

static const struct {
    const char *name;
    int number;
} errors[] = {
    {"EIO", EIO},       {"ENOSPC", ENOSPC},     {"EROFS", EROFS},         {"ESTALE", ESTALE},
    {"EDQUOT", EDQUOT}, {"EACCES", EACCES},     {"ENOENT", ENOENT},       {"EINTR", EINTR},
    {"EEXIST", EEXIST}, {"EMFILE", EMFILE},     {"ETIMEDOUT", ETIMEDOUT}, {"EPERM", EPERM},
    {"ENODEV", ENODEV}, {"ENOTCONN", ENOTCONN}, {"EAGAIN", EAGAIN},
};

/* All guarded by the mutex, which is never held while a call waits. */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct rule rules[RULES_MAX];
static size_t rule_count;
static unsigned generation;
static struct stat control_seen;
static unsigned long changes;
static int log_fd = -1;
/* Constant once set. */
static char prefix[PATH_BYTES], real_prefix[PATH_BYTES];
static const char *control;

/* The C library's own, past this file. ISO C has no conversion from an object pointer; POSIX says
 * that this one works. */
#define REAL(name, ...)                                                                            \
    __extension__({                                                                                \
        static __typeof__(&name) real_fn;                                                          \
        if (!real_fn)                                                                              \
            *(void **)&real_fn = dlsym(RTLD_NEXT, #name);                                          \
        real_fn(__VA_ARGS__);                                                                      \
    })

/* --- Rules ----------------------------------------------------------------------------------- */
static void die(const char *what, const char *word)
{
    char text[512];
    int n = snprintf(text, sizeof text, "io_faults: %s: '%s'\n", what, word);
    (void)!REAL(write, 2, text, (size_t)n);
    _exit(127);
}

static unsigned parse_ops(char *list)
{
    unsigned ops = 0;
    char *save;
    for (char *word = strtok_r(list, ",", &save); word; word = strtok_r(NULL, ",", &save)) {
        unsigned known = strcmp(word, "change") == 0 ? CHANGE : 0;
        if (strcmp(word, "any") == 0)
            known = (1u << OP_COUNT) - 1;
        for (unsigned i = 0; i < OP_COUNT; i++) {
            if (strcmp(word, op_names[i]) == 0)
                known = 1u << i;
        }
        if (!known)
            die("no such operation", word);
        ops |= known;
    }
    return ops;
}

static int parse_errno(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(errors); i++) {
        if (strcmp(name, errors[i].name) == 0)
            return errors[i].number;
    }
    die("no such error", name);
    return 0;
}

static const char *value_of(const char *word, const char *key)
{
    size_t len = strlen(key);
    return strncmp(word, key, len) == 0 && word[len] == '=' ? word + len + 1 : NULL;
}

static void parse_word(struct rule *r, const char *word)
{
    const char *value;
    if ((value = value_of(word, "at"))) {
        r->from = r->until = strtoul(value, NULL, 10);
    } else if ((value = value_of(word, "from"))) {
        r->from = strtoul(value, NULL, 10);
    } else if ((value = value_of(word, "until"))) {
        r->until = strtoul(value, NULL, 10);
    } else if ((value = value_of(word, "path"))) {
        snprintf(r->glob, sizeof r->glob, "%s", value);
    } else if (strcmp(word, "before") == 0) {
        r->after = false;
    } else if (strcmp(word, "after") == 0) {
        r->after = true;
    } else if ((value = value_of(word, "error"))) {
        r->action = ACT_ERROR;
        r->value = parse_errno(value);
    } else if ((value = value_of(word, "short"))) {
        r->action = ACT_SHORT;
        r->value = strtol(value, NULL, 10);
    } else if ((value = value_of(word, "delay_ms"))) {
        r->action = ACT_DELAY;
        r->value = strtol(value, NULL, 10);
    } else if (strcmp(word, "kill") == 0) {
        r->action = ACT_KILL;
    } else if (strcmp(word, "stop") == 0) {
        r->action = ACT_STOP;
    } else if (strcmp(word, "hang") == 0) {
        r->action = ACT_HANG;
    } else if (strcmp(word, "pass") != 0) {
        die("a word nobody knows in a rule", word);
    }
}

static void parse_rules(char *text)
{
    char *save_line;
    rule_count = 0;
    for (char *line = strtok_r(text, ";\n", &save_line); line;
         line = strtok_r(NULL, ";\n", &save_line)) {
        char *save;
        char *word = strtok_r(line, " \t", &save);
        if (!word || word[0] == '#')
            continue;
        if (rule_count == RULES_MAX)
            die("too many rules", word);
        struct rule *r = &rules[rule_count++];
        *r = (struct rule){.until = (unsigned long)-1};
        char *ops = word;
        while ((word = strtok_r(NULL, " \t", &save)))
            parse_word(r, word);
        r->ops = parse_ops(ops);
    }
    generation++;
}

/* Under the mutex. */
static void read_control(void)
{
    struct stat now = {0};
    if (!control || REAL(stat, control, &now) != 0)
        now = (struct stat){0};
    if (now.st_ino == control_seen.st_ino && now.st_size == control_seen.st_size &&
        now.st_mtim.tv_sec == control_seen.st_mtim.tv_sec &&
        now.st_mtim.tv_nsec == control_seen.st_mtim.tv_nsec)
        return;
    control_seen = now;
    char text[RULES_BYTES_MAX];
    ssize_t len = 0;
    int fd = now.st_ino ? REAL(open, control, O_RDONLY | O_CLOEXEC) : -1;
    if (fd >= 0) {
        len = REAL(read, fd, text, sizeof text - 1);
        REAL(close, fd);
    }
    text[len > 0 ? len : 0] = '\0';
    parse_rules(text);
}

static void begin(void)
{
    const char *path = getenv("IO_FAULTS_PATH");
    snprintf(prefix, sizeof prefix, "%s", path ? path : "");
    char *whole = path ? realpath(path, NULL) : NULL;
    snprintf(real_prefix, sizeof real_prefix, "%s", whole ? whole : prefix);
    free(whole);
    control = getenv("IO_FAULTS_CONTROL");
    const char *given = getenv("IO_FAULTS");
    if (given && !control) {
        char text[RULES_BYTES_MAX];
        snprintf(text, sizeof text, "%s", given);
        parse_rules(text);
    }
    const char *log = getenv("IO_FAULTS_LOG");
    if (log && prefix[0])
        log_fd = REAL(open, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
}

/* --- Paths ----------------------------------------------------------------------------------- */
/* What is below the prefix; NULL when the path is elsewhere. */
static const char *below_one(const char *path, const char *top)
{
    size_t len = strlen(top);
    if (len == 0 || strncmp(path, top, len) != 0 || (path[len] != '/' && path[len] != '\0'))
        return NULL;
    return path[len] == '/' ? path + len + 1 : path + len;
}

static const char *below(const char *path)
{
    const char *rest = below_one(path, real_prefix);
    return rest ? rest : below_one(path, prefix);
}

static void fd_path(int fd, char out[PATH_BYTES])
{
    char link[64];
    if (fd == AT_FDCWD)
        snprintf(link, sizeof link, "/proc/self/cwd");
    else
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, out, PATH_BYTES - 1);
    out[len > 0 ? len : 0] = '\0';
}

static void at_path(int dirfd, const char *path, char out[PATH_BYTES])
{
    if (path[0] == '/') {
        snprintf(out, PATH_BYTES, "%s", path);
        return;
    }
    fd_path(dirfd, out);
    while (path[0] == '.' && path[1] == '/')
        path += 2;
    size_t len = strlen(out);
    if (path[0] != '\0' && strcmp(path, ".") != 0)
        snprintf(out + len, PATH_BYTES - len, "/%s", path);
}

/* --- Acting ---------------------------------------------------------------------------------- */
/* A call under way: what the rules say about it. */
struct call {
    enum op op;
    struct rule rule; /* action ACT_NONE: nothing */
    unsigned generation;
};

static void write_log(enum op op, const char *path, const struct rule *r, unsigned long number)
{
    char line[PATH_BYTES + 64];
    int n = snprintf(line, sizeof line, "%lu %s %s", number, op_names[op], path[0] ? path : ".");
    if (r && n > 0 && (size_t)n < sizeof line)
        n += snprintf(line + n, sizeof line - (size_t)n, " %s %s", r->after ? "after" : "before",
                      action_names[r->action]);
    if (n > 0 && (size_t)n < sizeof line - 1) {
        line[n++] = '\n';
        (void)!REAL(write, log_fd, line, (size_t)n);
    }
}

/* False: not under the prefix. */
static bool look_up(struct call *c, enum op op, const char *path)
{
    *c = (struct call){.op = op};
    pthread_once(&once, begin);
    const char *rest = below(path);
    if (!rest)
        return false;
    pthread_mutex_lock(&mutex);
    read_control();
    c->generation = generation;
    bool is_change = (CHANGE >> op & 1) != 0;
    changes += is_change;
    const struct rule *found = NULL;
    for (size_t i = 0; i < rule_count; i++) {
        struct rule *r = &rules[i];
        if (!(r->ops >> op & 1) || (r->glob[0] && fnmatch(r->glob, rest, 0) != 0))
            continue;
        r->count++;
        if (!found && r->count >= r->from && r->count <= r->until)
            found = r;
    }
    if (found)
        c->rule = *found;
    if (log_fd >= 0 && (is_change || c->rule.action != ACT_NONE))
        write_log(op, rest, c->rule.action != ACT_NONE ? &c->rule : NULL, changes);
    pthread_mutex_unlock(&mutex);
    return true;
}

static void wait_ms(long ms)
{
    struct timespec left = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    while (nanosleep(&left, &left) != 0 && errno == EINTR) {
    }
}

static void hang(unsigned since)
{
    bool changed = false;
    while (!changed) {
        wait_ms(HANG_LOOK_MS);
        pthread_mutex_lock(&mutex);
        read_control();
        changed = generation != since;
        pthread_mutex_unlock(&mutex);
    }
}

/* True: the call shall fail, errno is set. */
static bool act(const struct call *c)
{
    int kept = errno;
    switch (c->rule.action) {
    case ACT_ERROR:
        errno = (int)c->rule.value;
        return true;
    case ACT_DELAY:
        wait_ms(c->rule.value);
        break;
    case ACT_KILL:
    case ACT_STOP:
        kill(getpid(), c->rule.action == ACT_KILL ? SIGKILL : SIGSTOP);
        if (c->rule.action == ACT_KILL)
            pause(); /* it is under way */
        break;
    case ACT_HANG:
        hang(c->generation);
        break;
    case ACT_NONE:
    case ACT_SHORT:
        break;
    }
    errno = kept;
    return false;
}

static bool fails_before(const struct call *c)
{
    return !c->rule.after && act(c);
}

static bool fails_after(const struct call *c)
{
    return c->rule.after && act(c);
}

static size_t shortened(const struct call *c, size_t len)
{
    size_t most = (size_t)c->rule.value;
    return c->rule.action == ACT_SHORT && most < len ? most : len;
}

static void on_path(struct call *c, enum op op, int dirfd, const char *path)
{
    char whole[PATH_BYTES];
    at_path(dirfd, path, whole);
    (void)look_up(c, op, whole);
}

static void on_fd(struct call *c, enum op op, int fd)
{
    char whole[PATH_BYTES];
    int kept = errno;
    fd_path(fd, whole);
    errno = kept;
    (void)look_up(c, op, whole);
}

/* Two names: the new one counts, and the old one when that is elsewhere. */
static void on_paths(struct call *c, enum op op, int from_fd, const char *from, int to_fd,
                     const char *to)
{
    char whole[PATH_BYTES];
    at_path(to_fd, to, whole);
    if (look_up(c, op, whole))
        return;
    on_path(c, op, from_fd, from);
}

/* `made`: the call itself, with its result in `type`. */
#define AROUND(type, fault, made)                                                                  \
    do {                                                                                           \
        if (fails_before(&c))                                                                      \
            return fault;                                                                          \
        type result_ = (made);                                                                     \
        return fails_after(&c) ? fault : result_;                                                  \
    } while (0)

/* --- The calls ------------------------------------------------------------------------------- */
static enum op open_op(int flags)
{
    bool makes = flags & (O_CREAT | O_TRUNC) || (flags & O_TMPFILE) == O_TMPFILE;
    return makes ? OP_CREATE : OP_OPEN;
}

static mode_t open_mode(int flags, va_list args)
{
    return flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(args, mode_t) : 0;
}

static int do_openat(int dirfd, const char *path, int flags, mode_t mode)
{
    struct call c;
    on_path(&c, open_op(flags), dirfd, path);
    if (fails_before(&c))
        return -1;
    int fd = REAL(openat, dirfd, path, flags, mode);
    if (fails_after(&c)) {
        int kept = errno;
        if (fd >= 0)
            REAL(close, fd);
        errno = kept;
        return -1;
    }
    return fd;
}

#define OPEN(name)                                                                                 \
    int name(const char *path, int flags, ...)                                                     \
    {                                                                                              \
        va_list args;                                                                              \
        va_start(args, flags);                                                                     \
        mode_t mode = open_mode(flags, args);                                                      \
        va_end(args);                                                                              \
        return do_openat(AT_FDCWD, path, flags, mode);                                             \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                                               \
    int name(int dirfd, const char *path, int flags, ...)                                          \
    {                                                                                              \
        va_list args;                                                                              \
        va_start(args, flags);                                                                     \
        mode_t mode = open_mode(flags, args);                                                      \
        va_end(args);                                                                              \
        return do_openat(dirfd, path, flags, mode);                                                \
    }
OPENAT(openat)
OPENAT(openat64)

int creat(const char *path, mode_t mode)
{
    return do_openat(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

/* What a program built with _FORTIFY_SOURCE calls instead. */
int __open_2(const char *path, int flags);
int __open64_2(const char *path, int flags);
int __openat_2(int dirfd, const char *path, int flags);
int __openat64_2(int dirfd, const char *path, int flags);
ssize_t __read_chk(int fd, void *buf, size_t len, size_t room);
ssize_t __pread_chk(int fd, void *buf, size_t len, off_t offset, size_t room);
ssize_t __pread64_chk(int fd, void *buf, size_t len, off_t offset, size_t room);

int __open_2(const char *path, int flags)
{
    return do_openat(AT_FDCWD, path, flags, 0);
}

int __open64_2(const char *path, int flags)
{
    return do_openat(AT_FDCWD, path, flags, 0);
}

int __openat_2(int dirfd, const char *path, int flags)
{
    return do_openat(dirfd, path, flags, 0);
}

int __openat64_2(int dirfd, const char *path, int flags)
{
    return do_openat(dirfd, path, flags, 0);
}

ssize_t read(int fd, void *buf, size_t len)
{
    struct call c;
    on_fd(&c, OP_READ, fd);
    AROUND(ssize_t, -1, REAL(read, fd, buf, shortened(&c, len)));
}

static ssize_t do_pread(int fd, void *buf, size_t len, off_t offset)
{
    struct call c;
    on_fd(&c, OP_READ, fd);
    AROUND(ssize_t, -1, REAL(pread, fd, buf, shortened(&c, len), offset));
}

ssize_t pread(int fd, void *buf, size_t len, off_t offset)
{
    return do_pread(fd, buf, len, offset);
}

ssize_t pread64(int fd, void *buf, size_t len, off_t offset)
{
    return do_pread(fd, buf, len, offset);
}

static void check_room(size_t len, size_t room)
{
    if (len > room)
        abort();
}

ssize_t __read_chk(int fd, void *buf, size_t len, size_t room)
{
    check_room(len, room);
    return read(fd, buf, len);
}

ssize_t __pread_chk(int fd, void *buf, size_t len, off_t offset, size_t room)
{
    check_room(len, room);
    return do_pread(fd, buf, len, offset);
}

ssize_t __pread64_chk(int fd, void *buf, size_t len, off_t offset, size_t room)
{
    check_room(len, room);
    return do_pread(fd, buf, len, offset);
}

ssize_t write(int fd, const void *buf, size_t len)
{
    struct call c;
    on_fd(&c, OP_WRITE, fd);
    AROUND(ssize_t, -1, REAL(write, fd, buf, shortened(&c, len)));
}

static ssize_t do_pwrite(int fd, const void *buf, size_t len, off_t offset)
{
    struct call c;
    on_fd(&c, OP_WRITE, fd);
    AROUND(ssize_t, -1, REAL(pwrite, fd, buf, shortened(&c, len), offset));
}

ssize_t pwrite(int fd, const void *buf, size_t len, off_t offset)
{
    return do_pwrite(fd, buf, len, offset);
}

ssize_t pwrite64(int fd, const void *buf, size_t len, off_t offset)
{
    return do_pwrite(fd, buf, len, offset);
}

/* A short one writes of the first part alone. */
static int shorten_parts(const struct call *c, const struct iovec *parts, int count,
                         struct iovec *ret_one)
{
    if (c->rule.action != ACT_SHORT || count < 1)
        return count;
    *ret_one = parts[0];
    ret_one->iov_len = shortened(c, ret_one->iov_len);
    return 1;
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    struct call c;
    struct iovec one;
    on_fd(&c, OP_WRITE, fd);
    count = shorten_parts(&c, parts, count, &one);
    AROUND(ssize_t, -1, REAL(writev, fd, c.rule.action == ACT_SHORT ? &one : parts, count));
}

static ssize_t do_pwritev(int fd, const struct iovec *parts, int count, off_t offset)
{
    struct call c;
    struct iovec one;
    on_fd(&c, OP_WRITE, fd);
    count = shorten_parts(&c, parts, count, &one);
    AROUND(ssize_t, -1,
           REAL(pwritev, fd, c.rule.action == ACT_SHORT ? &one : parts, count, offset));
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset)
{
    return do_pwritev(fd, parts, count, offset);
}

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off_t offset)
{
    return do_pwritev(fd, parts, count, offset);
}

int fsync(int fd)
{
    struct call c;
    on_fd(&c, OP_SYNC, fd);
    AROUND(int, -1, REAL(fsync, fd));
}

int fdatasync(int fd)
{
    struct call c;
    on_fd(&c, OP_SYNC, fd);
    AROUND(int, -1, REAL(fdatasync, fd));
}

int ftruncate(int fd, off_t len)
{
    struct call c;
    on_fd(&c, OP_TRUNCATE, fd);
    AROUND(int, -1, REAL(ftruncate, fd, len));
}

int ftruncate64(int fd, off_t len)
{
    return ftruncate(fd, len);
}

int fallocate(int fd, int mode, off_t offset, off_t len)
{
    struct call c;
    on_fd(&c, OP_ALLOCATE, fd);
    AROUND(int, -1, REAL(fallocate, fd, mode, offset, len));
}

int fallocate64(int fd, int mode, off_t offset, off_t len)
{
    return fallocate(fd, mode, offset, len);
}

int close(int fd)
{
    struct call c;
    on_fd(&c, OP_CLOSE, fd);
    if (fails_before(&c)) { /* as Linux does it: the descriptor is gone, whatever the answer */
        int kept = errno;
        REAL(close, fd);
        errno = kept;
        return -1;
    }
    int result = REAL(close, fd);
    return fails_after(&c) ? -1 : result;
}

int linkat(int from_fd, const char *from, int to_fd, const char *to, int flags)
{
    struct call c;
    on_paths(&c, OP_LINK, from_fd, from, to_fd, to);
    AROUND(int, -1, REAL(linkat, from_fd, from, to_fd, to, flags));
}

int link(const char *from, const char *to)
{
    return linkat(AT_FDCWD, from, AT_FDCWD, to, 0);
}

int renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned flags)
{
    struct call c;
    on_paths(&c, OP_RENAME, from_fd, from, to_fd, to);
    AROUND(int, -1, REAL(renameat2, from_fd, from, to_fd, to, flags));
}

int renameat(int from_fd, const char *from, int to_fd, const char *to)
{
    return renameat2(from_fd, from, to_fd, to, 0);
}

int rename(const char *from, const char *to)
{
    return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0);
}

int unlinkat(int dirfd, const char *path, int flags)
{
    struct call c;
    on_path(&c, OP_UNLINK, dirfd, path);
    AROUND(int, -1, REAL(unlinkat, dirfd, path, flags));
}

int unlink(const char *path)
{
    return unlinkat(AT_FDCWD, path, 0);
}

int rmdir(const char *path)
{
    return unlinkat(AT_FDCWD, path, AT_REMOVEDIR);
}

int mkdirat(int dirfd, const char *path, mode_t mode)
{
    struct call c;
    on_path(&c, OP_MKDIR, dirfd, path);
    AROUND(int, -1, REAL(mkdirat, dirfd, path, mode));
}

int mkdir(const char *path, mode_t mode)
{
    return mkdirat(AT_FDCWD, path, mode);
}

int fchmod(int fd, mode_t mode)
{
    struct call c;
    on_fd(&c, OP_CHMOD, fd);
    AROUND(int, -1, REAL(fchmod, fd, mode));
}

/* --- Calls that only look -------------------------------------------------------------------- */
static void on_at_or_fd(struct call *c, int dirfd, const char *path, int flags)
{
    if (flags & AT_EMPTY_PATH && path[0] == '\0')
        on_fd(c, OP_STAT, dirfd);
    else
        on_path(c, OP_STAT, dirfd, path);
}

#define STATS(suffix)                                                                              \
    int fstatat##suffix(int dirfd, const char *path, struct stat##suffix *st, int flags)           \
    {                                                                                              \
        struct call c;                                                                             \
        on_at_or_fd(&c, dirfd, path, flags);                                                       \
        AROUND(int, -1, REAL(fstatat##suffix, dirfd, path, st, flags));                            \
    }                                                                                              \
    int stat##suffix(const char *path, struct stat##suffix *st)                                    \
    {                                                                                              \
        return fstatat##suffix(AT_FDCWD, path, st, 0);                                             \
    }                                                                                              \
    int lstat##suffix(const char *path, struct stat##suffix *st)                                   \
    {                                                                                              \
        return fstatat##suffix(AT_FDCWD, path, st, AT_SYMLINK_NOFOLLOW);                           \
    }                                                                                              \
    int fstat##suffix(int fd, struct stat##suffix *st)                                             \
    {                                                                                              \
        struct call c;                                                                             \
        on_fd(&c, OP_STAT, fd);                                                                    \
        AROUND(int, -1, REAL(fstat##suffix, fd, st));                                              \
    }                                                                                              \
    int statvfs##suffix(const char *path, struct statvfs##suffix *st)                              \
    {                                                                                              \
        struct call c;                                                                             \
        on_path(&c, OP_STAT, AT_FDCWD, path);                                                      \
        AROUND(int, -1, REAL(statvfs##suffix, path, st));                                          \
    }                                                                                              \
    int fstatvfs##suffix(int fd, struct statvfs##suffix *st)                                       \
    {                                                                                              \
        struct call c;                                                                             \
        on_fd(&c, OP_STAT, fd);                                                                    \
        AROUND(int, -1, REAL(fstatvfs##suffix, fd, st));                                           \
    }
STATS()
STATS(64)

int faccessat(int dirfd, const char *path, int mode, int flags)
{
    struct call c;
    on_path(&c, OP_STAT, dirfd, path);
    AROUND(int, -1, REAL(faccessat, dirfd, path, mode, flags));
}

int access(const char *path, int mode)
{
    return faccessat(AT_FDCWD, path, mode, 0);
}

DIR *opendir(const char *path)
{
    struct call c;
    on_path(&c, OP_LIST, AT_FDCWD, path);
    AROUND(DIR *, NULL, REAL(opendir, path));
}

DIR *fdopendir(int fd)
{
    struct call c;
    on_fd(&c, OP_LIST, fd);
    AROUND(DIR *, NULL, REAL(fdopendir, fd));
}

struct dirent *readdir(DIR *stream)
{
    struct call c;
    on_fd(&c, OP_LIST, dirfd(stream));
    AROUND(struct dirent *, NULL, REAL(readdir, stream));
}

struct dirent64 *readdir64(DIR *stream)
{
    struct call c;
    on_fd(&c, OP_LIST, dirfd(stream));
    AROUND(struct dirent64 *, NULL, REAL(readdir64, stream));
}
