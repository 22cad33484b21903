/* SPDX-License-Identifier: Apache-2.0 */
/* The QMP client against a peer that a test plays, and the processes the sandbox starts. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "proto/base/buf.h"
#include "proto/base/clock.h"
#include "proto/base/file.h"
#include "tests/sandbox/block/proc.h"
#include "tests/sandbox/block/qmp.h"

enum { GENEROUS_MS = 30000 };

#define GREETING "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\n"

/* A peer answers the n-th line it gets with the n-th text; "@" in it stands for the line's id. */
struct peer {
    int fd;
    const char *const *answers; /* ends with NULL: then it hangs up */
    pthread_t thread;
};

static void answer(const struct peer *p, const char *text, const char *line)
{
    const char *id = strstr(line, "\"id\":\"");
    size_t len = id ? strcspn(id + 6, "\"") : 0;
    SCOPED_BUF struct buf out;
    buf_init(&out, 1 << 20);
    for (; *text; text++) {
        if (*text == '@')
            (void)buf_add(&out, id + 6, len);
        else
            (void)buf_add(&out, text, 1);
    }
    (void)!send(p->fd, buf_str(&out), out.len, MSG_NOSIGNAL);
}

static bool read_line(int fd, char *line, size_t size)
{
    size_t len = 0;
    while (len < size - 1 && recv(fd, line + len, 1, 0) == 1) {
        if (line[len++] == '\n') {
            line[len] = '\0';
            return true;
        }
    }
    return false;
}

static void *peer_main(void *arg)
{
    const struct peer *p = arg;
    char line[4096];
    (void)!send(p->fd, GREETING, strlen(GREETING), MSG_NOSIGNAL);
    for (const char *const *a = p->answers; *a && read_line(p->fd, line, sizeof line); a++)
        answer(p, *a, line);
    (void)shutdown(p->fd, SHUT_RDWR);
    return NULL;
}

static int start_peer(struct peer *p, const char *const *answers)
{
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    *p = (struct peer){.fd = fds[1], .answers = answers};
    assert_int_equal(pthread_create(&p->thread, NULL, peer_main, p), 0);
    return fds[0];
}

static void stop_peer(struct peer *p)
{
    (void)shutdown(p->fd, SHUT_RDWR);
    pthread_join(p->thread, NULL);
    (void)close(p->fd);
}

#define OK_REPLY "{\"return\": {}, \"id\": \"@\"}\n"

static struct qmp *connect_to(struct peer *p, const char *const *answers)
{
    struct err err = ERR_INIT;
    struct qmp *q = qmp_new(start_peer(p, answers), GENEROUS_MS, &err);
    if (!q)
        fail_msg("%s", err.message);
    return q;
}

static void test_events_before_and_between(void **state)
{
    (void)state;
    static const char *const answers[] = {
        OK_REPLY,
        "{\"event\": \"JOB_STATUS_CHANGE\", \"data\": {\"id\": \"j\"}}\n"
        "{\"event\": \"BLOCK_JOB_READY\", \"data\": {\"device\": \"other\"}}\n"
        "{\"event\": \"BLOCK_JOB_READY\", \"data\": {\"device\": \"j\"}}\n"
        "{\"return\": {\"answer\": 42}, \"id\": \"@\"}\n"
        "{\"event\": \"BLOCK_EXPORT_DELETED\", \"data\": {\"id\": \"x\"}}\n",
        NULL};
    static const char *const ready[] = {"BLOCK_JOB_COMPLETED", "BLOCK_JOB_READY", NULL};
    static const char *const deleted[] = {"BLOCK_EXPORT_DELETED", NULL};
    struct peer p;
    struct err err = ERR_INIT;
    struct qmp *q = connect_to(&p, answers);
    json_t *value = NULL;
    assert_true(qmp_call(q, "x", json_pack("{s:i}", "a", 1), &value, &err));
    assert_int_equal(json_integer_value(json_object_get(value, "answer")), 42);
    json_decref(value);
    json_t *event = qmp_wait_event(q, ready, "j", GENEROUS_MS, &err);
    assert_non_null(event);
    json_decref(event);
    event = qmp_wait_event(q, deleted, "x", GENEROUS_MS, &err);
    assert_non_null(event);
    json_decref(event);
    qmp_drop_events(q, "other");
    /* All are taken or dropped, and the peer is gone. */
    assert_null(qmp_wait_event(q, ready, "other", GENEROUS_MS, &err));
    assert_int_equal(err.code, ERR_IO);
    qmp_free(q);
    stop_peer(&p);
}

static void test_errors(void **state)
{
    (void)state;
    static const char *const answers[] = {
        OK_REPLY,
        "{\"error\": {\"class\": \"GenericError\", \"desc\": \"Failed to get \\\"write\\\" "
        "lock\"}, "
        "\"id\": \"@\"}\n",
        "{\"error\": {\"class\": \"GenericError\", \"desc\": \"Node 'd0' is busy: x\"}, \"id\": "
        "\"@\"}\n",
        "{\"error\": {\"class\": \"GenericError\", \"desc\": \"No space\"}, \"id\": \"@\"}\n",
        "{\"error\": {}, \"id\": \"@\"}\n",
        NULL};
    static const enum err_code codes[] = {ERR_CONFLICT, ERR_CONFLICT, ERR_IO, ERR_IO, ERR_IO};
    struct peer p;
    struct qmp *q = connect_to(&p, answers);
    for (size_t i = 0; i < ARRAY_LEN(codes); i++) { /* the last: it hung up */
        struct err err = ERR_INIT;
        assert_false(qmp_call(q, "command", NULL, NULL, &err));
        assert_int_equal(err.code, codes[i]);
        assert_non_null(strstr(err.message, "command"));
    }
    qmp_free(q);
    stop_peer(&p);
}

static void test_nonsense_ends_the_connection(void **state)
{
    (void)state;
    static const char *const nonsense[] = {"garbage\n", "[1,\n", "\"unfinished", "{}\n"};
    for (size_t i = 0; i < ARRAY_LEN(nonsense); i++) {
        const char *answers[] = {OK_REPLY, nonsense[i], NULL};
        struct peer p;
        struct qmp *q = connect_to(&p, answers);
        struct err err = ERR_INIT;
        assert_false(qmp_call(q, "command", NULL, NULL, &err));
        assert_int_equal(err.code, ERR_IO);
        qmp_free(q);
        stop_peer(&p);
    }
    static const char *const silent[] = {NULL};
    struct peer p;
    struct err err = ERR_INIT;
    assert_null(qmp_new(start_peer(&p, silent), GENEROUS_MS, &err));
    stop_peer(&p);
}

static void test_late_reply_is_dropped(void **state)
{
    (void)state;
    static const char *const answers[] = {
        OK_REPLY,
        "{\"return\": {\"n\": 1}, \"id\": \"777\"}\n{\"return\": {\"n\": 2}, \"id\": \"@\"}\n",
        NULL};
    struct peer p;
    struct err err = ERR_INIT;
    struct qmp *q = connect_to(&p, answers);
    json_t *value = NULL;
    assert_true(qmp_call(q, "x", NULL, &value, &err));
    assert_int_equal(json_integer_value(json_object_get(value, "n")), 2);
    json_decref(value);
    static const char *const names[] = {"E", NULL};
    static const char *const quiet[] = {OK_REPLY, "", OK_REPLY, NULL};
    qmp_free(q);
    stop_peer(&p);
    q = connect_to(&p, quiet);
    assert_null(qmp_wait_event(q, names, "x", 30, &err));
    assert_int_equal(err.code, ERR_TIMEOUT);
    qmp_free(q);
    stop_peer(&p);
}

/* --- Two threads on one connection: whoever reads, reads for both
 * --------------------------------- */

static void *wait_for_event(void *arg)
{
    static const char *const names[] = {"E", NULL};
    struct err err = ERR_INIT;
    json_t *event = qmp_wait_event(arg, names, "x", GENEROUS_MS, &err);
    json_decref(event);
    return event;
}

#define REPLY_AND_EVENT                                                                            \
    "{\"return\": {}, \"id\": \"@\"}\n{\"event\": \"E\", \"data\": {\"id\": \"x\"}}\n"

static void test_two_threads(void **state)
{
    (void)state;
    static const char *const answers[] = {OK_REPLY, OK_REPLY, OK_REPLY, REPLY_AND_EVENT, NULL};
    struct peer p;
    struct qmp *q = connect_to(&p, answers);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, wait_for_event, q), 0);
    for (int i = 0; i < 3; i++) {
        struct err err = ERR_INIT;
        if (!qmp_call(q, "x", NULL, NULL, &err))
            fail_msg("%s", err.message);
    }
    void *event;
    pthread_join(thread, &event);
    assert_non_null(event);
    qmp_free(q);
    stop_peer(&p);
}

/* --- Processes
 * -------------------------------------------------------------------------------------- */

static void test_run(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    char *out = NULL;
    assert_true(proc_run((const char *[]){"sh", "-c", "echo out; echo err >&2", NULL}, &out, &err));
    assert_string_equal(out, "out\n");
    free(out);
    assert_false(proc_run((const char *[]){"sh", "-c", "echo why >&2; exit 3", NULL}, NULL, &err));
    assert_non_null(strstr(err.message, "exit 3: why"));
    assert_int_equal(err.code, ERR_IO);
    err_clear(&err);
    assert_false(
        proc_run((const char *[]){"sh", "-c", "echo a write lock >&2; exit 1", NULL}, NULL, &err));
    assert_int_equal(err.code, ERR_CONFLICT);
    err_clear(&err);
    assert_false(proc_run((const char *[]){"sh", "-c", "kill -9 $$", NULL}, NULL, &err));
    assert_non_null(strstr(err.message, "killed by signal 9"));
    err_clear(&err);
    assert_false(proc_run((const char *[]){"no-such-program", NULL}, NULL, &err));
    assert_int_equal(err.code, ERR_NOT_FOUND);
    /* More than a pipe holds, on both at once. */
    err_clear(&err);
    assert_true(
        proc_run((const char *[]){"sh", "-c", "seq 100000; seq 100000 >&2", NULL}, &out, &err));
    assert_int_equal(strlen(out), 588895);
    free(out);
}

static void test_daemon(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    int fds[2];
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    /* It gets the descriptor as 3, the variable, and nothing else of ours. */
    int stray = fcntl(fds[1], F_DUPFD, 50); /* a descriptor that a careless library left open */
    const char *script = "[ -e /proc/$$/fd/50 ] || echo $NAME >&3; exec sleep 1000";
    struct proc *p =
        proc_start(&(struct proc_opts){.argv = (const char *[]){"sh", "-c", script, NULL},
                                       .extra = (const char *[]){"NAME=value", NULL},
                                       .pass_fd = fds[1],
                                       .death_signal = SIGKILL},
                   &err);
    assert_non_null(p);
    assert_int_equal(stray, 50);
    (void)close(stray);
    (void)close(fds[1]);
    char text[64] = {0};
    assert_true(read(fds[0], text, sizeof text - 1) > 0);
    assert_string_equal(text, "value\n");
    (void)close(fds[0]);
    assert_true(proc_is_running(p));
    assert_false(proc_wait(p, 20, NULL));
    int status = 0;
    proc_signal(p, SIGTERM);
    assert_true(proc_wait(p, GENEROUS_MS, &status));
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
    assert_false(proc_is_running(p));
    proc_signal(p, SIGTERM); /* of nobody */
    proc_free(p);
    assert_null(proc_start(
        &(struct proc_opts){.argv = (const char *[]){"no-such-program", NULL}, .pass_fd = -1},
        &err));
    assert_int_equal(err.code, ERR_NOT_FOUND);
}

static void *start_from_thread(void *arg)
{
    struct err err = ERR_INIT;
    (void)arg;
    return proc_start(&(struct proc_opts){.argv = (const char *[]){"sleep", "1000", NULL},
                                          .pass_fd = -1,
                                          .death_signal = SIGKILL},
                      &err);
}

/* The parent-death signal is the kernel's for threads: a daemon outlives the thread that wanted it.
 */
static void test_daemon_outlives_thread(void **state)
{
    (void)state;
    pthread_t thread;
    void *p = NULL;
    assert_int_equal(pthread_create(&thread, NULL, start_from_thread, NULL), 0);
    pthread_join(thread, &p);
    assert_non_null(p);
    clock_sleep_ms(clock_system(), 50);
    assert_true(proc_is_running(p));
    proc_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_events_before_and_between),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_nonsense_ends_the_connection),
        cmocka_unit_test(test_late_reply_is_dropped),
        cmocka_unit_test(test_two_threads),
        cmocka_unit_test(test_run),
        cmocka_unit_test(test_daemon),
        cmocka_unit_test(test_daemon_outlives_thread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
