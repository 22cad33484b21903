/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sandbox/block/qmp.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "proto/base/buf.h"
#include "proto/base/clock.h"

enum { CALL_TIMEOUT_MS = 60000, MESSAGE_BYTES_MAX = 8 << 20, EVENTS_MAX = 256 };

struct qmp {
    int fd;
    int64_t timeout_ms;
    pthread_mutex_t lock; /* guards all below; never held while waiting for the peer to speak */
    pthread_cond_t changed;
    bool reading; /* one thread is in poll/recv for all */
    bool gone;
    char why[128]; /* why it is gone */
    uint64_t next_id;
    json_t *calls;  /* id -> null while waiting, then the reply */
    json_t *events; /* oldest first */
    json_t *greeting;
    struct buf in;
};

static void set_gone(struct qmp *q, const char *why)
{
    if (q->gone)
        return;
    q->gone = true;
    snprintf(q->why, sizeof q->why, "%s", why);
}

static void keep_event(struct qmp *q, json_t *message)
{
    const char *name = json_string_value(json_object_get(message, "event"));
    if (!name || strcmp(name, "JOB_STATUS_CHANGE") == 0)
        return;
    json_array_append(q->events, message);
    if (json_array_size(q->events) > EVENTS_MAX)
        json_array_remove(q->events, 0);
}

static void dispatch(struct qmp *q, const char *text, size_t len)
{
    json_error_t why;
    json_t *message = json_loadb(text, len, 0, &why);
    if (!message) {
        set_gone(q, "it sent a line that is not JSON");
        return;
    }
    const char *id = json_string_value(json_object_get(message, "id"));
    if (json_object_get(message, "event"))
        keep_event(q, message);
    else if (json_object_get(message, "QMP"))
        q->greeting = json_incref(message);
    else if (id && json_object_get(q->calls, id))
        json_object_set(q->calls, id, message);
    /* else: the late reply of a call that timed out */
    json_decref(message);
}

static void feed(struct qmp *q, const char *data, size_t len)
{
    if (!buf_add(&q->in, data, len)) {
        set_gone(q, "it sent a message that is too large");
        return;
    }
    size_t done = 0;
    const char *end;
    while (!q->gone && (end = memchr(q->in.data + done, '\n', q->in.len - done))) {
        size_t line = (size_t)(end - q->in.data) - done;
        if (line > 1)
            dispatch(q, q->in.data + done, line);
        done += line + 1;
    }
    memmove(q->in.data, q->in.data + done, q->in.len - done);
    q->in.len -= done;
}

/* Called without the lock. Returns what recv(2) does, or -1 with EAGAIN when the time is over. */
static ssize_t receive(const struct qmp *q, char *chunk, size_t size, int64_t wait_ms)
{
    struct pollfd p = {.fd = q->fd, .events = POLLIN};
    int wait = wait_ms < 0 ? 1000 : wait_ms > 1000 ? 1000 : (int)wait_ms;
    int n = poll(&p, 1, wait);
    if (n <= 0) {
        errno = n == 0 || errno == EINTR ? EAGAIN : errno;
        return -1;
    }
    return recv(q->fd, chunk, size, MSG_DONTWAIT);
}

static void read_some(struct qmp *q, int64_t wait_ms)
{
    char chunk[16384];
    q->reading = true;
    pthread_mutex_unlock(&q->lock);
    ssize_t n = receive(q, chunk, sizeof chunk, wait_ms);
    int errnum = errno;
    pthread_mutex_lock(&q->lock);
    q->reading = false;
    if (n > 0)
        feed(q, chunk, (size_t)n);
    else if (n == 0)
        set_gone(q, "it closed the connection");
    else if (errnum != EAGAIN && errnum != EINTR)
        set_gone(q, strerrordesc_np(errnum));
    pthread_cond_broadcast(&q->changed);
}

typedef json_t *(*take_fn)(struct qmp *q, const void *arg);

/* Wait, with the lock held, until take() finds what it looks for. deadline < 0 = none. */
static json_t *wait_for(struct qmp *q, take_fn take, const void *arg, int64_t timeout_ms,
                        struct err *err)
{
    int64_t deadline = timeout_ms < 0 ? -1 : clock_mono_ms(clock_system()) + timeout_ms;
    for (;;) {
        json_t *found = take(q, arg);
        if (found)
            return found;
        if (q->gone) {
            err_set(err, ERR_IO, 0, "the storage daemon is gone: %s", q->why);
            return NULL;
        }
        int64_t now = clock_mono_ms(clock_system());
        if (deadline >= 0 && now >= deadline) {
            err_set(err, ERR_TIMEOUT, 0, "no answer from the storage daemon in %" PRId64 " ms",
                    timeout_ms);
            return NULL;
        }
        int64_t left = deadline < 0 ? 1000 : deadline - now;
        if (!q->reading) {
            read_some(q, left);
            continue;
        }
        int64_t until = now + (left < 1000 ? left : 1000);
        struct timespec at = {.tv_sec = until / 1000, .tv_nsec = until % 1000 * 1000000};
        pthread_cond_timedwait(&q->changed, &q->lock, &at);
    }
}

static json_t *take_greeting(struct qmp *q, const void *arg)
{
    (void)arg;
    return TAKE(q->greeting);
}

static json_t *take_reply(struct qmp *q, const void *arg)
{
    const char *id = arg;
    json_t *reply = json_object_get(q->calls, id);
    if (!reply || json_is_null(reply))
        return NULL;
    json_incref(reply);
    json_object_del(q->calls, id);
    return reply;
}

struct event_query {
    const char *const *names;
    const char *id;
};

static bool event_has_id(json_t *event, const char *id)
{
    json_t *data = json_object_get(event, "data");
    const char *device = json_string_value(json_object_get(data, "device"));
    if (!device)
        device = json_string_value(json_object_get(data, "id"));
    return device && strcmp(device, id) == 0;
}

static json_t *take_event(struct qmp *q, const void *arg)
{
    const struct event_query *query = arg;
    for (size_t i = 0; i < json_array_size(q->events); i++) {
        json_t *event = json_array_get(q->events, i);
        const char *name = json_string_value(json_object_get(event, "event"));
        for (const char *const *n = query->names; *n; n++) {
            if (strcmp(*n, name) == 0 && event_has_id(event, query->id)) {
                json_incref(event);
                json_array_remove(q->events, i);
                return event;
            }
        }
    }
    return NULL;
}

static bool send_all(struct qmp *q, const char *text, size_t len, struct err *err)
{
    while (len > 0) {
        ssize_t n = send(q->fd, text, len, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            /* Half a command may be out: the connection is of no further use. */
            set_gone(q, strerrordesc_np(errno));
            return err_set_errno(err, errno, "send to the storage daemon");
        }
        text += n;
        len -= (size_t)n;
    }
    return true;
}

static json_t *call_locked(struct qmp *q, const char *command, json_t *arguments, struct err *err)
{
    SCOPED_FREE char *id = xasprintf("%" PRIu64, q->next_id++);
    json_t *message =
        json_pack("{s:s, s:s, s:O*}", "execute", command, "id", id, "arguments", arguments);
    char *text = json_dumps(message, JSON_COMPACT);
    json_decref(message);
    SCOPED_FREE char *line = xasprintf("%s\n", text);
    free(text);
    json_object_set_new(q->calls, id, json_null());
    json_t *reply = NULL;
    if (send_all(q, line, strlen(line), err))
        reply = wait_for(q, take_reply, id, q->timeout_ms, err);
    json_object_del(q->calls, id);
    return reply;
}

static bool reply_error(json_t *error, const char *command, struct err *err)
{
    const char *text = json_string_value(json_object_get(error, "desc"));
    if (!text)
        text = "no reason given";
    static const char *const busy[] = {" lock", "is busy", "is in use", "in use as", "is blocked"};
    enum err_code code = ERR_IO;
    for (size_t i = 0; i < ARRAY_LEN(busy); i++)
        code = strstr(text, busy[i]) ? ERR_CONFLICT : code;
    return err_set(err, code, 0, "%s: %s", command, text);
}

bool qmp_call(struct qmp *q, const char *command, json_t *arguments, json_t **ret_value,
              struct err *err)
{
    pthread_mutex_lock(&q->lock);
    json_t *reply = call_locked(q, command, arguments, err);
    pthread_mutex_unlock(&q->lock);
    json_decref(arguments);
    if (!reply)
        return err_wrap(err, "%s", command);
    json_t *error = json_object_get(reply, "error");
    if (error)
        reply_error(error, command, err);
    else if (ret_value)
        *ret_value = json_incref(json_object_get(reply, "return"));
    bool ok = !error;
    json_decref(reply);
    return ok;
}

json_t *qmp_wait_event(struct qmp *q, const char *const *names, const char *id, int64_t timeout_ms,
                       struct err *err)
{
    struct event_query query = {names, id};
    pthread_mutex_lock(&q->lock);
    json_t *event = wait_for(q, take_event, &query, timeout_ms, err);
    pthread_mutex_unlock(&q->lock);
    if (!event)
        err_wrap(err, "wait for %s of '%s'", names[0], id);
    return event;
}

void qmp_drop_events(struct qmp *q, const char *id)
{
    pthread_mutex_lock(&q->lock);
    for (size_t i = json_array_size(q->events); i-- > 0;) {
        if (event_has_id(json_array_get(q->events, i), id))
            json_array_remove(q->events, i);
    }
    pthread_mutex_unlock(&q->lock);
}

struct qmp *qmp_new(int fd, int64_t timeout_ms, struct err *err)
{
    struct qmp *q = ALLOC_NEW(struct qmp);
    q->fd = fd;
    q->timeout_ms = timeout_ms;
    q->calls = json_object();
    q->events = json_array();
    buf_init(&q->in, MESSAGE_BYTES_MAX);
    pthread_mutex_init(&q->lock, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&q->changed, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_lock(&q->lock);
    json_t *greeting = wait_for(q, take_greeting, NULL, timeout_ms, err);
    pthread_mutex_unlock(&q->lock);
    bool ok = greeting && qmp_call(q, "qmp_capabilities", NULL, NULL, err);
    json_decref(greeting);
    q->timeout_ms = CALL_TIMEOUT_MS;
    if (!ok)
        qmp_free(TAKE(q));
    return q;
}

void qmp_free(struct qmp *q)
{
    if (!q)
        return;
    (void)close(q->fd);
    json_decref(q->calls);
    json_decref(q->events);
    json_decref(q->greeting);
    buf_done(&q->in);
    pthread_cond_destroy(&q->changed);
    pthread_mutex_destroy(&q->lock);
    free(q);
}
