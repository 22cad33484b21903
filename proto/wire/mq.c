/* SPDX-License-Identifier: Apache-2.0 */
/* The public calls and the poll loop; mq_internal.h says which file does what. */
#include "proto/wire/mq.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "proto/wire/mq_internal.h"

enum { DECLARE_GAP_MS = 1000 };

static void take_hosts(struct mq *mq, const struct mq_opts *opts)
{
    const char *one = opts->host ? opts->host : "localhost";
    assert(opts->host_count <= MQ_HOSTS_MAX);
    mq->opts.hosts = NULL;
    mq->opts.host = NULL;
    for (size_t i = 0; i < opts->host_count; i++) {
        struct err err = ERR_INIT;
        struct mq_host *host = &mq->hosts[mq->host_count++];
        bool ok = mq_parse_host(opts->hosts[i], &host->name, &host->port, &err);
        assert(ok); /* the configuration was checked */
        (void)ok;
    }
    if (mq->host_count == 0)
        mq->hosts[mq->host_count++] = (struct mq_host){.name = xstrdup(one)};
    for (size_t i = 0; i < mq->host_count; i++) {
        if (mq->hosts[i].port == 0)
            mq->hosts[i].port = mq->opts.port;
    }
}

struct mq *mq_new(const struct mq_opts *opts)
{
    struct mq *mq = ALLOC_NEW(struct mq);
    struct mq_opts *o = &mq->opts;
    *o = *opts;
    o->port = opts->port ? opts->port : opts->tls.enabled ? 5671 : 5672;
    take_hosts(mq, opts);
    o->vhost = xstrdup(opts->vhost ? opts->vhost : "/");
    o->user = xstrdup_or_null(opts->user);
    o->password_file = xstrdup_or_null(opts->password_file);
    o->tls.ca_file = xstrdup_or_null(opts->tls.ca_file);
    o->tls.cert_file = xstrdup_or_null(opts->tls.cert_file);
    o->tls.key_file = xstrdup_or_null(opts->tls.key_file);
    o->connection_name = xstrdup(opts->connection_name ? opts->connection_name : "oxbow");
    o->heartbeat_s = opts->heartbeat_s ? opts->heartbeat_s : MQ_HEARTBEAT_S;
    o->confirm_ms = opts->confirm_ms ? opts->confirm_ms : MQ_CONFIRM_MS;
    o->max_pending = opts->max_pending ? opts->max_pending : MQ_PENDING_MAX;
    o->clock = opts->clock ? opts->clock : clock_system();
    assert(o->user ? o->password_file != NULL : o->tls.cert_file != NULL);
    assert(!o->tls.cert_file == !o->tls.key_file);
    mq->backoff = BACKOFF(250, 10000);
    mq->attempt_ms = MQ_ATTEMPT_MS;
    buf_init(&mq->returned.body, 0); /* of a returned message only its id is wanted */
    return mq;
}

static void free_const(const char *text)
{
    free((void *)(uintptr_t)text);
}

void mq_free(struct mq *mq)
{
    if (!mq)
        return;
    mq_close(mq, !err_is_set(&mq->broken));
    mq_free_pending(mq);
    mq_free_subs(mq);
    mq_incoming_reset(&mq->returned);
    buf_done(&mq->returned.body);
    for (size_t i = 0; i < mq->host_count; i++)
        free(mq->hosts[i].name);
    free_const(mq->opts.vhost);
    free_const(mq->opts.user);
    free_const(mq->opts.password_file);
    free_const(mq->opts.tls.ca_file);
    free_const(mq->opts.tls.cert_file);
    free_const(mq->opts.tls.key_file);
    free_const(mq->opts.connection_name);
    free(mq->blocked_reason);
    free(mq->fds);
    free(mq);
}

/* --- Coming and going ------------------------------------------------------------------------ */
static void choose_next(struct mq *mq)
{
    mq->host = (mq->host + 1) % mq->host_count;
    mq->hosts_failed++;
    /* One after the other at once; after all of them a pause, ever longer. */
    int64_t pause_ms =
        mq->hosts_failed % mq->host_count == 0 ? backoff_next_ms(&mq->backoff) : MQ_NEXT_HOST_MS;
    mq->connect_at_ms = mq_now_ms(mq) + pause_ms;
}

static void tell_lost(struct mq *mq, const struct err *why)
{
    mq->last = *why;
    choose_next(mq);
    mq->called = true;
    if (mq->opts.handlers.on_lost)
        mq->opts.handlers.on_lost(mq->opts.ctx, why);
}

static void lose(struct mq *mq)
{
    struct err why = mq->broken;
    if (mq_now_ms(mq) - mq->up_since_ms >= MQ_STABLE_MS) {
        backoff_reset(&mq->backoff);
        mq->hosts_failed = 0;
    }
    mq_close(mq, false);
    mq->is_up = false;
    mq->more = false;
    mq_unsend_all(mq);
    mq_reset_subs(mq);
    mq_incoming_reset(&mq->returned);
    if (mq->is_blocked) {
        mq->is_blocked = false;
        if (mq->opts.handlers.on_blocked)
            mq->opts.handlers.on_blocked(mq->opts.ctx, false, NULL);
    }
    tell_lost(mq, &why);
}

/* An attempt that took too long may have met a broker that is only busy. */
static bool too_late(struct mq *mq)
{
    if (mq_now_ms(mq) >= mq->attempt_until_ms)
        mq->attempt_ms =
            2 * mq->attempt_ms < MQ_OPERATION_MS ? 2 * mq->attempt_ms : MQ_OPERATION_MS;
    return false;
}

static bool try_host(struct mq *mq, struct err *err)
{
    err_clear(&mq->broken);
    if (!mq_open(mq, err))
        return false;
    mq->declare_is_due = false;
    mq->declare_at_ms = mq_now_ms(mq);
    mq->sent_at_ms = mq_now_ms(mq);
    if (!mq_apply_subs(mq, err)) {
        mq_close(mq, !err_is_set(&mq->broken));
        mq_reset_subs(mq);
        return false;
    }
    if (err_is_set(&mq->broken)) {
        *err = mq->broken;
        mq_close(mq, false);
        mq_reset_subs(mq);
        return false;
    }
    return true;
}

/* One attempt. The loss of what it got half-way is told like any other. */
static bool come_up(struct mq *mq, struct err *err)
{
    mq->attempt_until_ms = mq_now_ms(mq) + mq->attempt_ms;
    if (!try_host(mq, err))
        return too_late(mq);
    mq->attempt_until_ms = 0;
    mq->attempt_ms = MQ_ATTEMPT_MS;
    mq_limit_answer(mq);
    mq->is_up = true;
    mq->up_since_ms = mq->published_at_ms = mq_now_ms(mq);
    mq->nacked_from_ms = 0;
    mq->called = true;
    if (mq->opts.handlers.on_connected)
        mq->opts.handlers.on_connected(mq->opts.ctx);
    return true;
}

/* Something was deleted under us: declare it all again, in time. */
static void declare_due(struct mq *mq)
{
    int64_t now = mq_now_ms(mq);
    if (mq->opts.check_ms && now - mq->declare_at_ms >= mq->opts.check_ms)
        mq->declare_is_due = true;
    if (!mq->declare_is_due || now < mq->declare_at_ms)
        return;
    struct err why = ERR_INIT;
    mq->declare_at_ms = now + DECLARE_GAP_MS;
    if (mq_declare_all(mq, true, &why))
        mq->declare_is_due = false;
    else
        mq_break(mq, &why);
}

/* All that is due now, without waiting for anything but answers of the broker. */
static bool work(struct mq *mq, struct err *err)
{
    if (mq->conn && err_is_set(&mq->broken))
        lose(mq);
    if (!mq->conn) {
        if (mq_now_ms(mq) < mq->connect_at_ms)
            return true;
        struct err why = ERR_INIT;
        if (!come_up(mq, &why)) {
            tell_lost(mq, &why);
            if (!mq->fail_fast || !mq_is_permanent(&why))
                return true;
            *err = why;
            return false;
        }
    }
    bool ok = true;
    if (!mq->is_blocked) { /* else the broker does not read, and would not answer */
        declare_due(mq);
        ok = err_is_set(&mq->broken) || mq_apply_subs(mq, err);
    }
    mq_probe(mq);
    mq_send_pending(mq);
    if (!err_is_set(&mq->broken))
        mq_receive(mq);
    mq_check_confirms(mq);
    mq_send_pending(mq);
    if (err_is_set(&mq->broken))
        lose(mq);
    return ok;
}

/* --- Waiting --------------------------------------------------------------------------------- */
static int64_t sooner(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int wait_ms(const struct mq *mq, int timeout_ms)
{
    int64_t now = mq_now_ms(mq);
    int64_t wait = timeout_ms < 0 ? INT64_C(3600000) : timeout_ms;
    if (mq->called)
        return 0; /* something happened that the caller wants to see */
    if (!mq->conn) {
        wait = sooner(wait, mq->connect_at_ms - now);
        return wait < 0 ? 0 : (int)wait;
    }
    if (mq->more || amqp_frames_enqueued(mq->conn) || amqp_data_in_buffer(mq->conn))
        return 0;
    wait = sooner(wait, mq->heartbeat_s * INT64_C(1000) / 4);
    if (mq->is_blocked)
        return (int)wait;
    if (mq->declare_is_due)
        wait = sooner(wait, mq->declare_at_ms - now);
    for (size_t i = 0; i < mq->sub_count; i++) {
        if (mq->subs[i]->wanted != mq->subs[i]->active)
            wait = sooner(wait, mq->subs[i]->retry_at_ms - now);
    }
    return wait < 0 ? 0 : (int)wait;
}

/* poll() on the caller's descriptors and the broker's. */
static void wait_for(struct mq *mq, struct pollfd *fds, size_t count, int timeout_ms)
{
    if (count + 1 > mq->fds_capacity) {
        mq->fds_capacity = count + 1;
        mq->fds = xreallocarray(mq->fds, mq->fds_capacity, sizeof *mq->fds);
    }
    if (count)
        memcpy(mq->fds, fds, count * sizeof *fds);
    size_t all = count;
    if (mq->conn)
        mq->fds[all++] = (struct pollfd){.fd = amqp_get_sockfd(mq->conn), .events = POLLIN};
    int n = poll(mq->fds, all, timeout_ms);
    for (size_t i = 0; i < count; i++)
        fds[i].revents = n > 0 ? mq->fds[i].revents : 0;
}

bool mq_poll(struct mq *mq, struct pollfd *fds, size_t count, int timeout_ms, struct err *err)
{
    mq->called = false;
    for (size_t i = 0; i < count; i++)
        fds[i].revents = 0;
    if (!work(mq, err))
        return false;
    wait_for(mq, fds, count, wait_ms(mq, timeout_ms));
    return work(mq, err);
}

/* --- Short-lived clients --------------------------------------------------------------------- */
bool mq_connect_once(struct mq *mq, int timeout_ms, struct err *err)
{
    mq->fail_fast = true;
    if (mq->is_up)
        return true;
    int64_t end = mq_now_ms(mq) + timeout_ms;
    for (size_t left = mq->host_count; left > 0; left--) {
        err_clear(err);
        int64_t share_ms = (end - mq_now_ms(mq)) / (int64_t)left;
        mq->attempt_ms = share_ms < 100 ? 100 : (int)share_ms;
        if (come_up(mq, err))
            return true;
        choose_next(mq);
        if (mq_is_permanent(err))
            break;
    }
    mq->attempt_ms = MQ_ATTEMPT_MS;
    return false;
}

void mq_check_declared(struct mq *mq)
{
    mq->declare_is_due = true;
}

bool mq_is_connected(const struct mq *mq)
{
    return mq->is_up && !err_is_set(&mq->broken);
}

size_t mq_pending(const struct mq *mq)
{
    return mq->pending_count;
}

bool mq_flush(struct mq *mq, int timeout_ms, struct err *err)
{
    int64_t end = mq_now_ms(mq) + timeout_ms;
    while (mq->pending_count) {
        int64_t left = end - mq_now_ms(mq);
        if (left > 0) {
            if (!mq_poll(mq, NULL, 0, (int)left, err))
                return false;
            continue;
        }
        if (mq->is_blocked)
            return err_set(err, ERR_BROKER_BLOCKED, 0,
                           "%zu messages wait, the broker takes none: %s", mq->pending_count,
                           mq->blocked_reason);
        if (!mq->is_up)
            return err_set(err, ERR_BROKER_UNREACHABLE, 0, "%zu messages wait for the broker: %s",
                           mq->pending_count, mq->last.message);
        return err_set(err, ERR_TIMEOUT, 0, "%zu messages are not confirmed after %d ms",
                       mq->pending_count, timeout_ms);
    }
    return true;
}
