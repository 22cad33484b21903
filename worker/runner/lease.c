/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/runner/lease.h"

#include <inttypes.h>
#include <pthread.h>

#include "proto/base/cond.h"

struct lease {
    struct lease_opts opts; /* outage_ms: under the mutex */
    pthread_mutex_t mutex;  /* guards all below */
    pthread_cond_t changed;
    int64_t valid_until_ms;
    bool connected, denied;
    uint64_t ahead_sent, ahead_confirmed;
    /* Of the waiting that is going on; 0 = none. */
    int64_t waiting_since_ms; /* mono */
    int64_t asked_ms;
};

struct lease *lease_new(const struct lease_opts *opts, int64_t sent_ms)
{
    struct lease *l = ALLOC_NEW(struct lease);
    l->opts = *opts;
    pthread_mutex_init(&l->mutex, NULL);
    cond_init(&l->changed);
    l->valid_until_ms = sent_ms + opts->lease_ms;
    l->connected = true;
    return l;
}

void lease_free(struct lease *l)
{
    if (!l)
        return;
    pthread_cond_destroy(&l->changed);
    pthread_mutex_destroy(&l->mutex);
    free(l);
}

static int64_t now_ms(const struct lease *l)
{
    return clock_mono_ms(l->opts.clock);
}

static void extend(struct lease *l, int64_t sent_ms)
{
    if (sent_ms + l->opts.lease_ms > l->valid_until_ms)
        l->valid_until_ms = sent_ms + l->opts.lease_ms;
}

void lease_confirmed(struct lease *l, int64_t sent_ms)
{
    pthread_mutex_lock(&l->mutex);
    if (now_ms(l) < l->valid_until_ms)
        extend(l, sent_ms);
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->mutex);
}

void lease_granted(struct lease *l, int64_t sent_ms)
{
    pthread_mutex_lock(&l->mutex);
    extend(l, sent_ms);
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->mutex);
}

void lease_denied(struct lease *l)
{
    pthread_mutex_lock(&l->mutex);
    l->denied = true;
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->mutex);
}

void lease_set_connected(struct lease *l, bool connected)
{
    pthread_mutex_lock(&l->mutex);
    l->connected = connected;
    if (connected)
        l->asked_ms = 0; /* an earlier question may have been lost with the connection */
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->mutex);
}

void lease_limit_outage(struct lease *l, int64_t outage_ms)
{
    pthread_mutex_lock(&l->mutex);
    if (outage_ms < l->opts.outage_ms)
        l->opts.outage_ms = outage_ms;
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->mutex);
}

void lease_ahead_sent(struct lease *l)
{
    pthread_mutex_lock(&l->mutex);
    l->ahead_sent++;
    pthread_mutex_unlock(&l->mutex);
}

void lease_ahead_confirmed(struct lease *l)
{
    pthread_mutex_lock(&l->mutex);
    l->ahead_confirmed++;
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->mutex);
}

/* Under the mutex: should the coordinator be asked now? If so, it counts as asked. */
static bool ask_is_due(struct lease *l, int64_t now)
{
    if (l->denied || now < l->valid_until_ms || !l->connected ||
        (l->asked_ms != 0 && now - l->asked_ms <= l->opts.lease_ms / 2))
        return false;
    l->asked_ms = now;
    return true;
}

static void ask(struct lease *l, bool due)
{
    if (due && l->opts.ask)
        l->opts.ask(l->opts.ctx);
}

bool lease_is_lost(struct lease *l)
{
    pthread_mutex_lock(&l->mutex);
    bool lost = l->denied;
    bool due = ask_is_due(l, now_ms(l));
    pthread_mutex_unlock(&l->mutex);
    ask(l, due);
    return lost;
}

/* Under the mutex: account for the waiting, and give up when it has been too long. A coordinator
 * that is away is like a broker that is: nobody takes the task over meanwhile, and whoever does is
 * heard of by a denial. */
static bool waited_too_long(struct lease *l, int64_t now, struct err *err)
{
    if (l->waiting_since_ms == 0)
        l->waiting_since_ms = now;
    if (now - l->waiting_since_ms <= l->opts.outage_ms)
        return false;
    err_set(err, ERR_LEASE_LOST, 0, "%s for %" PRId64 " s",
            l->connected ? "the coordinator has not confirmed the lease"
                         : "the broker has been out of reach",
            (now - l->waiting_since_ms) / 1000);
    return true;
}

/* Under the mutex. `ret_ask`: the coordinator should be asked now. */
static enum lease_state look(struct lease *l, bool *ret_ask, struct err *err)
{
    int64_t now = now_ms(l);
    if (l->denied) {
        err_set(err, ERR_LEASE_LOST, 0, "another run owns the task now");
        return LEASE_LOST;
    }
    bool stale = now >= l->valid_until_ms;
    if (!stale && l->ahead_confirmed >= l->ahead_sent) {
        l->waiting_since_ms = 0;
        return LEASE_VALID;
    }
    if (waited_too_long(l, now, err)) {
        l->denied = true;
        return LEASE_LOST;
    }
    *ret_ask = *ret_ask || ask_is_due(l, now);
    return LEASE_PENDING;
}

static void wait_change(struct lease *l, int64_t wait_ms)
{
    struct timespec until = cond_after_ms(wait_ms);
    (void)cond_wait_until(&l->changed, &l->mutex, &until);
}

enum lease_state lease_wait(struct lease *l, int64_t wait_ms, struct err *err)
{
    bool due = false;
    pthread_mutex_lock(&l->mutex);
    enum lease_state state = look(l, &due, err);
    if (state == LEASE_PENDING && !due && wait_ms > 0) {
        wait_change(l, wait_ms);
        state = look(l, &due, err);
    }
    pthread_mutex_unlock(&l->mutex);
    ask(l, due);
    return state;
}
