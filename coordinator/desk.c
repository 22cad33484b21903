/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/desk.h"

#include <string.h>

#include "coordinator/admission.h"
#include "coordinator/checkup.h"
#include "coordinator/event.h"
#include "coordinator/lease.h"
#include "coordinator/outgoing.h"
#include "coordinator/request.h"
#include "coordinator/result.h"
#include "coordinator/timers.h"

enum { PAUSE_MS = 5000 };

struct desk {
    struct core core;
    struct timers timers;
    const struct clock *clock;
    int64_t offset_ms; /* our time = monotonic + offset */
    int64_t pause_ms;  /* after an internal fault: timers and admission rest until then */
    int64_t *confirmed;
    size_t confirmed_count;
};

static void read_clock(struct desk *d)
{
    d->core.now_ms = clock_mono_ms(d->clock) + d->offset_ms;
    d->core.wall_ms = clock_wall_ms(d->clock);
}

/* One SQL transaction around something of our own. */
static bool start(struct desk *d, struct err *err)
{
    struct ledger *l = d->core.ledger;
    if (!ledger_begin(l, err))
        return false;
    if (ledger_clamp_times(l, d->core.now_ms, RESULT_RETRY_MAX_MS, err) &&
        lease_reload(&d->core, err) && ledger_commit(l, err))
        return true;
    ledger_rollback(l);
    return false;
}

struct desk *desk_new(const struct coordinator_conf *conf, const struct clock *clock,
                      struct err *err)
{
    SCOPED(desk) struct desk *d = ALLOC_NEW(struct desk);
    d->clock = clock;
    d->offset_ms = clock_wall_ms(clock) - clock_mono_ms(clock);
    d->core.conf = conf;
    d->core.connected_ms = -1;
    d->core.admission_due = true;
    d->core.leases = lease_table_new();
    d->core.ledger = ledger_open(conf->ledger, err);
    if (!d->core.ledger)
        return NULL;
    read_clock(d);
    return start(d, err) ? TAKE(d) : NULL;
}

void desk_free(struct desk *d)
{
    if (!d)
        return;
    outgoing_drop_fleeting(&d->core);
    checkup_drop_all(&d->core);
    ledger_close(d->core.ledger);
    lease_table_free(d->core.leases);
    free(d->confirmed);
    free(d);
}

/* --- One message --- */
static bool dispatch(struct desk *d, const struct desk_message *m, const struct wire_message *w,
                     const struct inbound *in, struct err *err)
{
    bool is_request = m->source == DESK_REQUEST;
    if (is_request ? !request_is(w->type) : !event_is(w->type))
        return err_set(err, ERR_BAD_MESSAGE, 0, "a message of type '%s' does not belong here",
                       wire_type_name(w->type));
    return is_request ? request_handle(&d->core, w, in, err)
                      : event_handle(&d->core, w, m->message_id, in->body, err);
}

static bool decode(const struct desk_message *m, const char *body, struct wire_message *ret,
                   struct err *err)
{
    SCOPED_FREE char *of_body =
        !m->type && m->source == DESK_REQUEST && m->len <= WIRE_BODY_MAX_BYTES
            ? request_type_of_body(body)
            : NULL;
    return wire_decode(m->type ? m->type : of_body, m->body, m->len, ret, err);
}

/* Undo what a message did before it failed. Memory may be ahead of the ledger now. */
static bool drop_effects(struct desk *d, struct err *err)
{
    return ledger_mark_drop(d->core.ledger, err) && lease_reload(&d->core, err);
}

static enum desk_verdict bury(struct desk *d, const struct desk_message *m,
                              const struct inbound *in, struct err *why)
{
    struct err err = ERR_INIT;
    d->core.counters.buried++;
    log_err(LOG_LEVEL_WARN, "message_refused", why);
    if (m->source == DESK_REQUEST && !request_refuse(&d->core, in, why, &err)) {
        *why = err;
        return DESK_FATAL;
    }
    return DESK_BURY;
}

enum desk_verdict desk_handle(struct desk *d, const struct desk_message *m, struct err *why)
{
    SCOPED_FREE char *body = xstrndup(m->body ? m->body : "", m->body ? m->len : 0);
    const struct inbound in = {.message_id = m->message_id,
                               .correlation_id = m->correlation_id,
                               .reply_to = m->reply_to,
                               .body = body};
    struct wire_message w = {0};
    if (!decode(m, body, &w, why))
        return bury(d, m, &in, why);
    struct err err = ERR_INIT;
    bool ok = ledger_mark(d->core.ledger, &err) && dispatch(d, m, &w, &in, &err) &&
              ledger_mark_keep(d->core.ledger, &err);
    wire_free(&w);
    if (ok)
        return DESK_DONE;
    *why = err;
    struct err again = ERR_INIT;
    if (ledger_is_broken(d->core.ledger))
        return DESK_FATAL;
    if (drop_effects(d, &again))
        return bury(d, m, &in, why);
    *why = again;
    return DESK_FATAL;
}

/* --- One batch --- */
bool desk_begin(struct desk *d, struct err *err)
{
    read_clock(d);
    return ledger_begin(d->core.ledger, err);
}

bool desk_queue_deleted(struct desk *d, const char *queue, struct err *err)
{
    return admission_queue_deleted(&d->core, queue, err);
}

static bool forget_confirmed(struct desk *d, struct err *err)
{
    for (size_t i = 0; i < d->confirmed_count; i++) {
        if (!ledger_outbox_delete(d->core.ledger, d->confirmed[i], err))
            return false;
    }
    return true;
}

/* Time moves on its own: it is handled whether or not messages came. A handler's fault that is not
 * the file's must not end the program: it is logged, its effects are dropped. */
static bool run_apart(struct desk *d, const char *what, bool (*run)(struct desk *, struct err *),
                      struct err *err)
{
    if (!ledger_mark(d->core.ledger, err))
        return false;
    struct err why = ERR_INIT;
    if (run(d, &why))
        return ledger_mark_keep(d->core.ledger, err);
    if (ledger_is_broken(d->core.ledger)) {
        *err = why;
        return false;
    }
    d->pause_ms = d->core.now_ms + PAUSE_MS;
    d->core.admission_due = true;
    err_wrap(&why, "%s", what);
    log_err(LOG_LEVEL_ERROR, "internal_fault", &why);
    return drop_effects(d, err);
}

static bool run_timers(struct desk *d, struct err *err)
{
    return timers_run(&d->core, &d->timers, err);
}

static bool run_admission(struct desk *d, struct err *err)
{
    return admission_run(&d->core, err);
}

bool desk_commit(struct desk *d, struct err *err)
{
    read_clock(d);
    bool rests = d->core.now_ms < d->pause_ms;
    if (!rests && !run_apart(d, "timers", run_timers, err))
        return false;
    if (!rests && d->core.admission_due && !run_apart(d, "admission", run_admission, err))
        return false;
    if (!forget_confirmed(d, err) || !ledger_commit(d->core.ledger, err))
        return false;
    d->confirmed_count = 0;
    return true;
}

void desk_rollback(struct desk *d)
{
    ledger_rollback(d->core.ledger);
    outgoing_drop_fleeting(&d->core);
}

void desk_set_connected(struct desk *d, bool connected)
{
    read_clock(d);
    d->core.connected_ms = connected ? d->core.now_ms : -1;
}

bool desk_wait_ms(struct desk *d, int64_t most_ms, int64_t *ret_ms, struct err *err)
{
    read_clock(d);
    int64_t next;
    if (!timers_next_ms(&d->core, &d->timers, &next, err))
        return false;
    if (d->core.admission_due)
        next = d->core.now_ms;
    int64_t wait = (next > d->pause_ms ? next : d->pause_ms) - d->core.now_ms;
    *ret_ms = wait < 0 ? 0 : wait > most_ms ? most_ms : wait;
    return true;
}

/* --- What is to be published --- */
bool desk_outbox(struct desk *d, int64_t after_n, int64_t limit, struct outgoing_list *ret,
                 struct err *err)
{
    return ledger_outbox_list(d->core.ledger, after_n, limit, ret, err);
}

bool desk_outbox_get(struct desk *d, int64_t n, struct outgoing_list *ret, struct err *err)
{
    return ledger_outbox_get(d->core.ledger, n, ret, err);
}

void desk_confirmed(struct desk *d, int64_t n)
{
    size_t count = d->confirmed_count;
    if ((count & (count - 1)) == 0)
        d->confirmed = xreallocarray(d->confirmed, count ? count * 2 : 1, sizeof *d->confirmed);
    d->confirmed[d->confirmed_count++] = n;
}

size_t desk_confirmed_count(const struct desk *d)
{
    return d->confirmed_count;
}

const struct fleeting *desk_fleeting(const struct desk *d, size_t *ret_count)
{
    *ret_count = d->core.fleeting_count;
    return d->core.fleeting;
}

void desk_drop_fleeting(struct desk *d)
{
    outgoing_drop_fleeting(&d->core);
}

const struct core_counters *desk_counters(const struct desk *d)
{
    return &d->core.counters;
}

struct core *desk_core(struct desk *d)
{
    return &d->core;
}
