/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/once.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "proto/base/alloc.h"
#include "proto/base/file.h"
#include "proto/base/log.h"

static volatile sig_atomic_t stop_wanted;

static void on_signal(int number)
{
    (void)number;
    stop_wanted = 1;
}

static enum run_lease once_lease_check(void *ctx, struct err *err)
{
    (void)ctx;
    (void)err;
    return RUN_LEASE_VALID; /* nobody else can have the task */
}

static bool once_stopped(void *ctx, struct err *err)
{
    (void)ctx;
    if (!stop_wanted)
        return false;
    err_set(err, ERR_CANCELLED, 0, "stopped by a signal");
    return true;
}

/* {"type":"oxbow.step.v1","body":{...}}, one write a line: copy threads report too. */
static bool once_emit(void *ctx, enum wire_type type, const void *message, bool ahead)
{
    (void)ctx;
    (void)ahead;
    struct err err = ERR_INIT;
    size_t len = 0;
    SCOPED_FREE char *body = wire_encode(type, message, &len, &err);
    if (!body) {
        log_err(LOG_LEVEL_ERROR, "event_not_encoded", &err);
        return false;
    }
    SCOPED_FREE char *line =
        xasprintf("{\"type\":\"%s\",\"body\":%s}\n", wire_type_name(type), body);
    if (!file_write_full(STDOUT_FILENO, line, strlen(line), &err))
        log_err(LOG_LEVEL_WARN, "event_not_written", &err);
    return true;
}

static const struct run_ops once_ops = {
    .lease_check = once_lease_check, .stopped = once_stopped, .emit = once_emit};

static bool read_offer(const char *path, struct wire_message *ret, struct err *err)
{
    SCOPED_BUF struct buf text;
    if (!file_read_all(AT_FDCWD, path, WIRE_BODY_MAX_BYTES, &text, err))
        return false;
    if (!wire_decode(wire_type_name(WIRE_OFFER), text.data, text.len, ret, err))
        return err_wrap(err, "%s", path);
    return true;
}

/* Above every fence that the journal knows; a task that is tried again says so by its attempt. */
static int64_t next_fence(const struct wire_offer *offer)
{
    int64_t fence = offer->attempt;
    for (size_t i = 0; i < offer->journal.count; i++) {
        if (offer->journal.v[i].fence >= fence)
            fence = offer->journal.v[i].fence + 1;
    }
    return fence;
}

static void catch_signals(void)
{
    /* The first one cancels; a second one ends the program at once. */
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    sigemptyset(&action.sa_mask);
    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
}

int once_run(const struct worker_env *env, const char *path)
{
    struct err err = ERR_INIT;
    struct wire_message m = {0};
    if (!read_offer(path, &m, &err)) {
        log_err(LOG_LEVEL_ERROR, "bad_task", &err);
        return ONCE_USAGE;
    }
    const struct wire_offer *offer = m.as;
    catch_signals();
    bool ok = execute_task(
        env, &(struct execution){.offer = offer, .fence = next_fence(offer), .ops = &once_ops},
        &err);
    wire_free(&m);
    if (ok)
        return ONCE_SUCCEEDED;
    return err.code == ERR_CANCELLED ? ONCE_CANCELLED : ONCE_FAILED;
}
