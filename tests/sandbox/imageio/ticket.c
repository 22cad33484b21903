/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sandbox/imageio/ticket.h"

#include <pthread.h>
#include <string.h>
#include <time.h>

#include "proto/base/clock.h"

enum { TICKETS_MAX = 4096, RANGES_MAX = 65536, TIMEOUT_S_MAX = 10 * 365 * 86400 };

struct span {
    uint64_t from, to;
};

struct ticket_op {
    struct ticket *ticket;
    struct ticket_op *next;
    uint64_t offset, done;
};

struct ticket {
    struct ticket_table *table;
    struct ticket *next;
    struct imageio_ticket opts; /* with strings of our own */
    unsigned holders;           /* the table counts as one */
    unsigned connections, connections_peak;
    bool cancelled;
    int64_t expires_ms, used_ms;
    struct ticket_op *ops;
    struct span *spans; /* what completed operations moved: sorted, apart from each other */
    size_t span_count;
    uint64_t moved; /* all of it, twice what was moved twice */
};

struct ticket_table {
    pthread_mutex_t lock; /* guards all tickets */
    pthread_cond_t ended; /* an operation ended */
    struct ticket *first;
    size_t count;
};

static int64_t now_ms(void)
{
    return clock_mono_ms(clock_system());
}

/* --- The table
 * --------------------------------------------------------------------------------------- */

struct ticket_table *ticket_table_new(void)
{
    struct ticket_table *t = ALLOC_NEW(struct ticket_table);
    pthread_mutex_init(&t->lock, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&t->ended, &attr);
    pthread_condattr_destroy(&attr);
    return t;
}

static void free_string(const char *s)
{
    union {
        const char *in;
        char *out;
    } u = {.in = s};
    free(u.out);
}

static void unhold(struct ticket *k)
{
    if (--k->holders > 0)
        return;
    free_string(k->opts.id);
    free_string(k->opts.uri);
    free_string(k->opts.dirty_bitmap);
    free_string(k->opts.transfer_id);
    free_string(k->opts.filename);
    free(k->spans);
    free(k);
}

/* Out of the table, whose hold on it is the caller's then. False when it was not in it. */
static bool unlink_ticket(struct ticket_table *t, const struct ticket *k)
{
    struct ticket **at = &t->first;
    while (*at && *at != k)
        at = &(*at)->next;
    if (!*at)
        return false;
    *at = k->next;
    t->count--;
    return true;
}

/* The same; those who hold it keep it. */
static void take_out(struct ticket_table *t, struct ticket *k)
{
    if (unlink_ticket(t, k))
        unhold(k);
}

void ticket_table_free(struct ticket_table *t)
{
    if (!t)
        return;
    while (t->first)
        take_out(t, t->first);
    pthread_cond_destroy(&t->ended);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

static struct ticket *find(struct ticket_table *t, const char *id)
{
    struct ticket *k = t->first;
    while (k && strcmp(k->opts.id, id) != 0)
        k = k->next;
    return k;
}

static struct ticket *make(struct ticket_table *t, const struct imageio_ticket *opts)
{
    struct ticket *k = ALLOC_NEW(struct ticket);
    k->table = t;
    k->holders = 1;
    k->opts = *opts;
    k->opts.id = xstrdup(opts->id);
    k->opts.uri = xstrdup(opts->uri);
    k->opts.dirty_bitmap = xstrdup_or_null(opts->dirty_bitmap);
    k->opts.filename = xstrdup_or_null(opts->filename);
    k->opts.transfer_id =
        opts->transfer_id ? xstrdup(opts->transfer_id) : xasprintf("(ticket/%.18s)", opts->id);
    k->used_ms = now_ms();
    k->expires_ms = k->used_ms + (int64_t)opts->timeout_s * 1000;
    return k;
}

bool ticket_add(struct ticket_table *t, const struct imageio_ticket *opts, struct err *err)
{
    if (opts->id[0] == '\0' || strchr(opts->id, '/') || opts->size_bytes > INT64_MAX ||
        opts->timeout_s > TIMEOUT_S_MAX || (!opts->can_read && !opts->can_write))
        return err_set(err, ERR_BAD_ARGUMENT, 0, "ticket '%s' makes no sense", opts->id);
    struct ticket *k = make(t, opts);
    pthread_mutex_lock(&t->lock);
    struct ticket *old = find(t, opts->id);
    if (old)
        take_out(t, old);
    bool ok = t->count < TICKETS_MAX;
    if (ok) {
        k->next = t->first;
        t->first = k;
        t->count++;
    } else {
        unhold(k);
    }
    pthread_mutex_unlock(&t->lock);
    return ok || err_set(err, ERR_TOO_LARGE, 0, "%d tickets", TICKETS_MAX);
}

bool ticket_extend(struct ticket_table *t, const char *id, unsigned timeout_s, struct err *err)
{
    pthread_mutex_lock(&t->lock);
    struct ticket *k = find(t, id);
    if (k)
        k->expires_ms = now_ms() + (int64_t)timeout_s * 1000;
    pthread_mutex_unlock(&t->lock);
    return k || err_set(err, ERR_NOT_FOUND, 0, "No such ticket: %s", id);
}

/* Wait until no operation runs under the ticket, with the lock held. */
static bool wait_unused(struct ticket_table *t, const struct ticket *k, int64_t timeout_ms)
{
    int64_t end = now_ms() + timeout_ms;
    struct timespec at = {.tv_sec = end / 1000, .tv_nsec = end % 1000 * 1000000};
    int rc = 0;
    while (k->ops && rc == 0)
        rc = pthread_cond_timedwait(&t->ended, &t->lock, &at);
    return !k->ops;
}

bool ticket_remove(struct ticket_table *t, const char *id, int64_t timeout_ms, struct err *err)
{
    bool ok = true;
    pthread_mutex_lock(&t->lock);
    struct ticket *k = find(t, id);
    if (k) {
        k->holders++;
        k->cancelled = true;
        ok = wait_unused(t, k, timeout_ms);
        if (!ok)
            err_set(err, ERR_CONFLICT, 0, "Timeout cancelling transfer %s", k->opts.transfer_id);
        else if (unlink_ticket(t, k))
            k->holders--; /* not the last: we hold it too */
        unhold(k);
    }
    pthread_mutex_unlock(&t->lock);
    return ok;
}

void ticket_cancel_all(struct ticket_table *t)
{
    pthread_mutex_lock(&t->lock);
    for (struct ticket *k = t->first; k; k = k->next)
        k->cancelled = true;
    pthread_mutex_unlock(&t->lock);
}

/* --- Spans: what was moved
 * ------------------------------------------------------------------------------ */

static void add_span(struct ticket *k, uint64_t from, uint64_t to)
{
    if (from >= to)
        return;
    size_t i = 0;
    while (i < k->span_count && k->spans[i].to < from)
        i++;
    size_t end = i;
    for (; end < k->span_count && k->spans[end].from <= to; end++) {
        from = k->spans[end].from < from ? k->spans[end].from : from;
        to = k->spans[end].to > to ? k->spans[end].to : to;
    }
    if (end == i && k->span_count == RANGES_MAX)
        return; /* statistics only */
    if (end == i)
        k->spans = xreallocarray(k->spans, k->span_count + 1, sizeof *k->spans);
    memmove(k->spans + i + 1, k->spans + end, (k->span_count - end) * sizeof *k->spans);
    k->span_count = k->span_count + 1 - (end - i);
    k->spans[i] = (struct span){from, to};
}

/* Completed and running operations together. Running ones rarely overlap: counted as they are. */
static uint64_t transferred(const struct ticket *k)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < k->span_count; i++)
        sum += k->spans[i].to - k->spans[i].from;
    for (const struct ticket_op *op = k->ops; op; op = op->next)
        sum += op->done;
    return sum < k->opts.size_bytes ? sum : k->opts.size_bytes;
}

bool ticket_info(struct ticket_table *t, const char *id, struct imageio_ticket_info *ret,
                 struct err *err)
{
    pthread_mutex_lock(&t->lock);
    struct ticket *k = find(t, id);
    int64_t now = now_ms();
    if (k)
        *ret = (struct imageio_ticket_info){
            .active = k->ops,
            .cancelled = k->cancelled,
            .connections = k->connections,
            .connections_peak = k->connections_peak,
            .transferred = k->opts.can_read && k->opts.can_write ? 0 : transferred(k),
            .moved = k->moved,
            .idle_ms = k->ops ? 0 : now - k->used_ms,
            .expires_ms = k->expires_ms - now};
    pthread_mutex_unlock(&t->lock);
    return k || err_set(err, ERR_NOT_FOUND, 0, "No such ticket: %s", id);
}

/* --- Use
 * ---------------------------------------------------------------------------------------------------
 */

/* "Transfer=T expired", but "Transfer T was canceled" when that comes between: as the real one. */
static bool refuse(const struct ticket *k, char separator, const char *why, struct err *err)
{
    return err_set(err, ERR_PERMISSION, 403,
                   "You are not allowed to access this resource: Transfer%c%s %s", separator,
                   k->opts.transfer_id, why);
}

struct ticket *ticket_authorize(struct ticket_table *t, const char *id, bool write, struct err *err)
{
    pthread_mutex_lock(&t->lock);
    struct ticket *k = find(t, id);
    if (!k)
        err_set(err, ERR_PERMISSION, 403,
                "You are not allowed to access this resource: No such ticket %s", id);
    else if (k->cancelled)
        refuse(k, '=', "was canceled", err);
    else if (k->expires_ms <= now_ms())
        refuse(k, '=', "expired", err);
    else if (write && !k->opts.can_write)
        refuse(k, '=', "forbids write", err);
    else
        k->holders++;
    pthread_mutex_unlock(&t->lock);
    return err_is_set(err) ? NULL : k;
}

void ticket_release(struct ticket *k)
{
    struct ticket_table *t = k->table;
    pthread_mutex_lock(&t->lock);
    unhold(k);
    pthread_mutex_unlock(&t->lock);
}

struct ticket *ticket_hold(struct ticket *k)
{
    pthread_mutex_lock(&k->table->lock);
    k->holders++;
    pthread_mutex_unlock(&k->table->lock);
    return k;
}

const struct imageio_ticket *ticket_opts(const struct ticket *k)
{
    return &k->opts;
}

static void touch(struct ticket *k)
{
    k->used_ms = now_ms();
    k->expires_ms = k->used_ms + (int64_t)k->opts.timeout_s * 1000;
}

void ticket_touch(struct ticket *k)
{
    pthread_mutex_lock(&k->table->lock);
    touch(k);
    pthread_mutex_unlock(&k->table->lock);
}

void ticket_join(struct ticket *k)
{
    pthread_mutex_lock(&k->table->lock);
    k->connections++;
    if (k->connections > k->connections_peak)
        k->connections_peak = k->connections;
    pthread_mutex_unlock(&k->table->lock);
}

void ticket_leave(struct ticket *k)
{
    pthread_mutex_lock(&k->table->lock);
    k->connections--;
    pthread_mutex_unlock(&k->table->lock);
}

struct ticket_op *ticket_begin(struct ticket *k, uint64_t offset, struct err *err)
{
    struct ticket_op *op = NULL;
    pthread_mutex_lock(&k->table->lock);
    if (k->cancelled) {
        refuse(k, ' ', "was canceled", err);
    } else {
        op = ALLOC_NEW(struct ticket_op);
        *op = (struct ticket_op){.ticket = k, .next = k->ops, .offset = offset};
        k->ops = op;
        k->holders++;
    }
    pthread_mutex_unlock(&k->table->lock);
    return op;
}

bool ticket_progress(struct ticket_op *op, uint64_t bytes)
{
    struct ticket *k = op->ticket;
    pthread_mutex_lock(&k->table->lock);
    op->done += bytes;
    k->moved += bytes;
    bool go_on = !k->cancelled;
    pthread_mutex_unlock(&k->table->lock);
    return go_on;
}

void ticket_end(struct ticket_op *op)
{
    if (!op)
        return;
    struct ticket *k = op->ticket;
    struct ticket_table *t = k->table;
    pthread_mutex_lock(&t->lock);
    struct ticket_op **at = &k->ops;
    while (*at != op)
        at = &(*at)->next;
    *at = op->next;
    add_span(k, op->offset, op->offset + op->done);
    if (!k->cancelled)
        touch(k);
    pthread_cond_broadcast(&t->ended);
    unhold(k);
    pthread_mutex_unlock(&t->lock);
    free(op);
}
