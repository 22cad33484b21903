/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sandbox/block/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "proto/base/buf.h"
#include "proto/base/clock.h"

extern char **environ;

enum { OUTPUT_BYTES_MAX = 4 << 20, STDERR_BYTES_MAX = 4096, THREAD_STACK_BYTES = 256 << 10 };

struct proc {
    pthread_t thread;
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t changed;
    enum { PROC_STARTING, PROC_RUNNING, PROC_FAILED, PROC_ENDED } state;
    pid_t pid;
    int start_errno;
    int status;
    /* Only for the thread, until it has forked. */
    const struct proc_opts *opts;
};

/* What the child does between fork and exec: only async-signal-safe calls. */
struct child {
    const char *const *argv;
    char *const *env;
    int out_fd, err_fd, pass_fd;
    int death_signal;
    int fail_fd; /* receives errno when exec fails */
    pid_t parent;
};

static void child_move(int fd, int target)
{
    if (fd == target)
        (void)fcntl(fd, F_SETFD, 0);
    else
        (void)dup2(fd, target);
}

static _Noreturn void child_exec(const struct child *c)
{
    (void)setpgid(0, 0);
    (void)prctl(PR_SET_PDEATHSIG, c->death_signal);
    sigset_t none;
    sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)signal(SIGPIPE, SIG_DFL);
    if (getppid() != c->parent)
        _exit(127);
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    /* Out of the way of 0..4 first: the targets must not overwrite a source. */
    int out = fcntl(c->out_fd >= 0 ? c->out_fd : null, F_DUPFD_CLOEXEC, 10);
    int err = fcntl(c->err_fd >= 0 ? c->err_fd : null, F_DUPFD_CLOEXEC, 10);
    int pass = c->pass_fd >= 0 ? fcntl(c->pass_fd, F_DUPFD_CLOEXEC, 10) : -1;
    int fail = fcntl(c->fail_fd, F_DUPFD_CLOEXEC, 10);
    child_move(null, 0);
    child_move(out, 1);
    child_move(err, 2);
    if (pass >= 0)
        child_move(pass, 3);
    child_move(fail, 4);
    (void)fcntl(4, F_SETFD, FD_CLOEXEC);
    (void)close_range(5, ~0U, 0);
    if (pass < 0)
        (void)close(3);
    /* execvpe() does not write to its vectors. */
    union {
        const char *const *in;
        char *const *out;
    } argv = {.in = c->argv};
    (void)execvpe(argv.out[0], argv.out, c->env);
    int errnum = errno;
    (void)!write(4, &errnum, sizeof errnum);
    _exit(127);
}

/* Fork and exec; returns the pid, or -1 with *ret_errno. */
static pid_t spawn(struct child *c, int *ret_errno)
{
    int fail[2];
    if (pipe2(fail, O_CLOEXEC) != 0) {
        *ret_errno = errno;
        return -1;
    }
    c->fail_fd = fail[1];
    c->parent = getpid();
    pid_t pid = fork();
    if (pid == 0)
        child_exec(c);
    int errnum = errno;
    (void)close(fail[1]);
    if (pid > 0 && TEMP_FAILURE_RETRY(read(fail[0], &errnum, sizeof errnum)) > 0) {
        (void)TEMP_FAILURE_RETRY(waitpid(pid, NULL, 0));
        pid = -1;
    }
    (void)close(fail[0]);
    if (pid < 0)
        *ret_errno = errnum;
    return pid;
}

/* Our environment plus `extra`; borrowed strings, free() the vector. */
static char **make_env(const char *const *extra)
{
    size_t ours = 0, more = 0;
    while (environ[ours])
        ours++;
    while (extra && extra[more])
        more++;
    char **env = xcalloc(ours + more + 1, sizeof *env);
    for (size_t i = 0; i < more; i++) {
        union {
            const char *in;
            char *out;
        } entry = {.in = extra[i]};
        env[i] = entry.out; /* first wins in getenv() */
    }
    memcpy(env + more, environ, ours * sizeof *env);
    return env;
}

static void set_state(struct proc *p, int state)
{
    p->state = (__typeof__(p->state))state;
    pthread_cond_broadcast(&p->changed);
}

static pid_t spawn_daemon(const struct proc_opts *opts, int *ret_errno)
{
    SCOPED_FREE char **env = make_env(opts->extra);
    SCOPED_FD int log = -1;
    if (opts->log_path) {
        log = open(opts->log_path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0644);
        if (log < 0) {
            *ret_errno = errno;
            return -1;
        }
    }
    struct child c = {.argv = opts->argv,
                      .env = env,
                      .out_fd = log,
                      .err_fd = log,
                      .pass_fd = opts->pass_fd,
                      .death_signal = opts->death_signal};
    return spawn(&c, ret_errno);
}

static void *proc_main(void *arg)
{
    struct proc *p = arg;
    int errnum = 0;
    pid_t pid = spawn_daemon(p->opts, &errnum);
    pthread_mutex_lock(&p->lock);
    p->opts = NULL;
    p->pid = pid;
    p->start_errno = errnum;
    set_state(p, pid < 0 ? PROC_FAILED : PROC_RUNNING);
    pthread_mutex_unlock(&p->lock);
    if (pid < 0)
        return NULL;
    /* See it end without reaping it, so that its pid cannot be another's while proc_signal() runs.
     */
    siginfo_t info;
    (void)TEMP_FAILURE_RETRY(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT));
    pthread_mutex_lock(&p->lock);
    (void)TEMP_FAILURE_RETRY(waitpid(pid, &p->status, 0));
    set_state(p, PROC_ENDED);
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

static bool start_thread(struct proc *p, struct err *err)
{
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    (void)pthread_attr_setstacksize(&attr, THREAD_STACK_BYTES);
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int rc = pthread_create(&p->thread, &attr, proc_main, p);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    return rc == 0 || err_set_errno(err, rc, "start a thread");
}

struct proc *proc_start(const struct proc_opts *opts, struct err *err)
{
    struct proc *p = ALLOC_NEW(struct proc);
    p->opts = opts;
    pthread_mutex_init(&p->lock, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&p->changed, &attr);
    pthread_condattr_destroy(&attr);
    if (!start_thread(p, err)) {
        free(p);
        return NULL;
    }
    pthread_mutex_lock(&p->lock);
    while (p->state == PROC_STARTING)
        pthread_cond_wait(&p->changed, &p->lock);
    bool failed = p->state == PROC_FAILED;
    int errnum = p->start_errno;
    pthread_mutex_unlock(&p->lock);
    if (!failed)
        return p;
    err_set_errno(err, errnum, "start '%s'", opts->argv[0]);
    proc_free(p);
    return NULL;
}

void proc_free(struct proc *p)
{
    if (!p)
        return;
    proc_signal(p, SIGKILL);
    pthread_join(p->thread, NULL);
    pthread_cond_destroy(&p->changed);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

pid_t proc_pid(const struct proc *p)
{
    return p->pid; /* set once, before proc_start() returns */
}

bool proc_is_running(struct proc *p)
{
    return !proc_wait(p, 0, NULL);
}

bool proc_wait(struct proc *p, int64_t timeout_ms, int *ret_status)
{
    int64_t deadline = clock_mono_ms(clock_system()) + timeout_ms;
    struct timespec at = {.tv_sec = deadline / 1000, .tv_nsec = deadline % 1000 * 1000000};
    pthread_mutex_lock(&p->lock);
    int rc = 0;
    while (p->state == PROC_RUNNING && rc == 0)
        rc = pthread_cond_timedwait(&p->changed, &p->lock, &at);
    bool ended = p->state == PROC_ENDED;
    if (ended && ret_status)
        *ret_status = p->status;
    pthread_mutex_unlock(&p->lock);
    return ended;
}

void proc_signal(struct proc *p, int signo)
{
    pthread_mutex_lock(&p->lock);
    if (p->state == PROC_RUNNING)
        (void)kill(p->pid, signo);
    pthread_mutex_unlock(&p->lock);
}

/* Append what is readable; false at the end of the stream. What does not fit is dropped. */
static bool drain(int fd, struct buf *into)
{
    char chunk[8192];
    ssize_t n = TEMP_FAILURE_RETRY(read(fd, chunk, sizeof chunk));
    if (n <= 0)
        return false;
    size_t room = into->max - into->len;
    (void)buf_add(into, chunk, (size_t)n < room ? (size_t)n : room);
    return true;
}

static void drain_both(int out_fd, int err_fd, struct buf *out, struct buf *err)
{
    struct pollfd fds[] = {{.fd = out_fd, .events = POLLIN}, {.fd = err_fd, .events = POLLIN}};
    while (fds[0].fd >= 0 || fds[1].fd >= 0) {
        if (poll(fds, 2, -1) < 0 && errno != EINTR)
            return;
        if (fds[0].fd >= 0 && fds[0].revents && !drain(out_fd, out))
            fds[0].fd = -1;
        if (fds[1].fd >= 0 && fds[1].revents && !drain(err_fd, err))
            fds[1].fd = -1;
    }
}

static bool check_exit(const char *const *argv, int status, const char *text, struct err *err)
{
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return true;
    SCOPED_FREE char *line = xstrndup(text, strcspn(text, "\n"));
    enum err_code code = strstr(line, " lock") ? ERR_CONFLICT : ERR_IO;
    if (WIFEXITED(status))
        return err_set(err, code, 0, "%s %s: exit %d: %s", argv[0], argv[1] ? argv[1] : "",
                       WEXITSTATUS(status), line);
    return err_set(err, code, 0, "%s %s: killed by signal %d: %s", argv[0], argv[1] ? argv[1] : "",
                   WTERMSIG(status), line);
}

bool proc_run(const char *const *argv, char **ret_out, struct err *err)
{
    int out[2], errors[2];
    if (pipe2(out, O_CLOEXEC) != 0)
        return err_set_errno(err, errno, "pipe");
    SCOPED_FD int out_read = out[0];
    if (pipe2(errors, O_CLOEXEC) != 0) {
        (void)close(out[1]);
        return err_set_errno(err, errno, "pipe");
    }
    SCOPED_FD int errors_read = errors[0];
    SCOPED_FREE char **env = make_env(NULL);
    /* This thread waits for the child, so the death signal cannot come too early. */
    struct child c = {.argv = argv,
                      .env = env,
                      .out_fd = out[1],
                      .err_fd = errors[1],
                      .pass_fd = -1,
                      .death_signal = SIGKILL};
    int errnum = 0;
    pid_t pid = spawn(&c, &errnum);
    (void)close(out[1]);
    (void)close(errors[1]);
    if (pid < 0)
        return err_set_errno(err, errnum, "start '%s'", argv[0]);
    SCOPED_BUF struct buf text;
    SCOPED_BUF struct buf complaint;
    buf_init(&text, OUTPUT_BYTES_MAX);
    buf_init(&complaint, STDERR_BYTES_MAX);
    drain_both(out_read, errors_read, &text, &complaint);
    int status = 0;
    (void)TEMP_FAILURE_RETRY(waitpid(pid, &status, 0));
    if (!check_exit(argv, status, buf_str(&complaint), err))
        return false;
    if (ret_out)
        *ret_out = buf_take(&text);
    return true;
}
