/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/cli/flow.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "coordinator/cli/verb.h"

enum {
    TOKEN_REQUEST = 1, /* of the request; status requests have rising ones after it */
    POLL_EVERY_MS = 2000,
    POLL_EVERY_MAX_MS = 30000,
    POLL_ANSWER_MS = 20000,     /* a status request without an answer is sent again after this */
    UNKNOWN_MAX = 3,            /* "no such request" so often before it is believed */
    NOT_TAKEN_MS = 10000,       /* first word about a request nobody accepts */
    NOT_TAKEN_AGAIN_MS = 60000, /* and the next ones */
    PAGES_LATE_MS = 10000,      /* for pages that a resend put behind the last reply */
    PAGES_MAX = 1 << 20
};

/* Which pages came: each is told once, in whatever order they come. */
struct page_set {
    unsigned char *seen;
    size_t capacity;
    int64_t count;
};

static void page_set_clear(struct page_set *s)
{
    free(s->seen);
    *s = (struct page_set){0};
}

/* True the first time for a page. */
static bool page_set_add(struct page_set *s, int64_t page)
{
    if (page < 1 || page > PAGES_MAX)
        return false;
    size_t at = (size_t)page;
    if (at >= s->capacity) {
        size_t capacity = at * 2 + 64;
        s->seen = xrealloc(s->seen, capacity);
        memset(s->seen + s->capacity, 0, capacity - s->capacity);
        s->capacity = capacity;
    }
    if (s->seen[at])
        return false;
    s->seen[at] = 1;
    s->count++;
    return true;
}

/* Status requests that follow a job after a reconnect. */
struct poll_state {
    bool on;
    bool joined; /* the request was sent again, from the reply queue of this connection */
    bool asking; /* one is under way */
    char id[ID_BYTES];
    int64_t sent_ms, next_ms;
    int unknown;                  /* answers in a row that do not know the job */
    struct page_set pages;        /* of this answer */
    size_t tasks;                 /* of the job, in this answer */
    int64_t tasks_done;           /* as the request says */
    char *kind, *state, *message; /* of the job, in this answer */
    struct wire_finished sum;     /* counts only */
};

struct flow {
    struct flow_opts opts;
    char id[ID_BYTES];      /* ours, as sent */
    char request[ID_BYTES]; /* as accepted; the same unless the key was known */
    char *kind;             /* "backup" */
    int64_t start_ms, taken_word_ms;
    bool connected, was_connected, sent, accepted;
    uint64_t next_token;
    struct poll_state poll;
    struct wire_strings ended; /* tasks whose outcome was told */
    struct page_set pages;
    struct wire_finished held; /* the last reply, while pages are missing; owns its status */
    int64_t held_until_ms;     /* 0 = none is held */
    enum flow_end end;
    char *status;
    struct err error;
};

/* --- Telling ---------------------------------------------------------------------------------- */
#define TELL(f, event, ...)                                                                        \
    do {                                                                                           \
        if ((f)->opts.events.event)                                                                \
            (f)->opts.events.event((f)->opts.events_ctx, ##__VA_ARGS__);                           \
    } while (0)

static void finish(struct flow *f, enum flow_end end)
{
    if (f->end == FLOW_GOING)
        f->end = end;
}

static void fail(struct flow *f, enum flow_end end, const struct err *err)
{
    err_keep_first(&f->error, err);
    finish(f, end);
}

static bool has_ended(const struct flow *f, const char *task)
{
    for (size_t i = 0; i < f->ended.count; i++)
        if (strcmp(f->ended.v[i], task) == 0)
            return true;
    return false;
}

/* True the first time for a task. */
static bool note_ended(struct flow *f, const char *task)
{
    if (has_ended(f, task))
        return false;
    f->ended.v = xreallocarray(f->ended.v, f->ended.count + 1, sizeof *f->ended.v);
    f->ended.v[f->ended.count++] = xstrdup(task);
    return true;
}

static void tell_outcome(struct flow *f, const struct wire_outcome *m)
{
    if (note_ended(f, m->task))
        TELL(f, outcome, m);
}

/* A late one may come after the task's outcome. */
static void tell_progress(struct flow *f, const struct wire_progress *m)
{
    if (!has_ended(f, m->task))
        TELL(f, progress, m);
}

static void tell_finished(struct flow *f, const struct wire_finished *m)
{
    f->status = xstrdup(m->status);
    if (m->error && !err_is_set(&f->error))
        wire_error_to_err(m->error, &f->error);
    TELL(f, finished, m);
    finish(f, FLOW_FINISHED);
}

/* --- Sending ---------------------------------------------------------------------------------- */
static void send_request(struct flow *f)
{
    struct err err = ERR_INIT;
    if (!f->opts.publish(f->opts.publish_ctx, f->opts.type, f->opts.message, f->id, TOKEN_REQUEST,
                         &err))
        fail(f, FLOW_UNSENT, &err);
}

static void poll_forget(struct poll_state *p)
{
    free(TAKE(p->kind));
    free(TAKE(p->state));
    free(TAKE(p->message));
}

static void send_poll(struct flow *f, int64_t now_ms)
{
    struct poll_state *p = &f->poll;
    struct wire_status message = {.request = f->request};
    struct err err = ERR_INIT;
    id_new(p->id);
    poll_forget(p);
    page_set_clear(&p->pages);
    p->tasks = 0;
    p->tasks_done = 0;
    p->sum = (struct wire_finished){0};
    p->asking = true;
    p->sent_ms = now_ms;
    if (!f->opts.publish(f->opts.publish_ctx, WIRE_STATUS, &message, p->id, ++f->next_token, &err))
        fail(f, FLOW_BROKEN, &err);
}

/* --- Following a job by its status ------------------------------------------------------------ */
static bool is_end_state(const char *state)
{
    return strcmp(state, "succeeded") == 0 || strcmp(state, "failed") == 0 ||
           strcmp(state, "partly") == 0 || strcmp(state, "cancelled") == 0;
}

/* A job's own replies say more than its status: they are asked for first (poll_known). */
static bool is_told_by_status(const struct flow *f)
{
    return f->opts.kind == FLOW_FOLLOW || f->poll.joined;
}

static void poll_count(struct wire_finished *sum, const char *state)
{
    sum->tasks_succeeded += strcmp(state, "succeeded") == 0;
    sum->tasks_failed += strcmp(state, "failed") == 0;
    sum->tasks_cancelled += strcmp(state, "cancelled") == 0;
}

/* Listing tasks serve the request; they are not told and not counted. */
static void poll_task(struct flow *f, const struct wire_task_item *t)
{
    if (!t->request || strcmp(t->request, f->request) != 0)
        return;
    f->poll.tasks++;
    bool is_listing = wire_is_listing(t->kind);
    if (!is_listing)
        poll_count(&f->poll.sum, t->state);
    if (is_listing || !is_told_by_status(f))
        return;
    if (is_end_state(t->state)) {
        struct wire_outcome outcome = {
            .request = f->request,
            .task = t->id,
            .kind = t->kind,
            .vm = t->vm,
            .vm_name = t->vm_name,
            .worker = t->worker,
            .status = t->state,
            .attempts = t->attempt,
            .point = t->point,
            .error = t->error,
        };
        tell_outcome(f, &outcome);
        return;
    }
    struct wire_progress progress = {
        .request = f->request,
        .task = t->id,
        .kind = t->kind,
        .vm = t->vm,
        .vm_name = t->vm_name,
        .worker = t->worker,
        .state = t->state,
        .step = t->step,
        .attempt = t->attempt,
        .bytes_done = t->bytes_done,
        .bytes_total = t->bytes_total,
        .tasks_total = f->poll.sum.tasks_total,
        .tasks_done = f->poll.tasks_done,
        .wait_ms = t->wait_ms,
        .attempts_max = t->attempts_max,
        .error = t->error,
    };
    tell_progress(f, &progress);
}

static void poll_page(struct flow *f, const struct wire_page *m)
{
    struct poll_state *p = &f->poll;
    if (!m->items || !page_set_add(&p->pages, m->page))
        return;
    for (size_t i = 0; i < m->items->requests_count; i++) {
        const struct wire_request_item *r = &m->items->requests[i];
        if (strcmp(r->id, f->request) != 0)
            continue;
        poll_forget(p);
        p->kind = xstrdup(r->kind);
        p->state = xstrdup(r->state);
        p->message = xstrdup_or_null(r->message);
        p->sum.tasks_total = r->tasks_total;
        p->tasks_done = r->tasks_done;
    }
    for (size_t i = 0; i < m->items->tasks_count; i++)
        poll_task(f, &m->items->tasks[i]);
}

/* The ledger does not know the job. */
static void poll_unknown(struct flow *f)
{
    struct err err = ERR_INIT;
    if (f->opts.kind == FLOW_FOLLOW && !f->accepted) {
        err_set(&err, ERR_NOT_FOUND, 0, "the coordinator knows no request %s", f->request);
        fail(f, FLOW_BROKEN, &err);
        return;
    }
    if (++f->poll.unknown < UNKNOWN_MAX)
        return;
    if (f->accepted) {
        err_set(&err, ERR_NOT_FOUND, 0,
                "the coordinator does not know request %s any more: was its ledger replaced?",
                f->request);
        fail(f, FLOW_BROKEN, &err);
    } else if (f->sent) {
        /* Confirmed by a broker that has lost it since, e.g. one that was rebuilt. */
        f->poll.on = false;
        TELL(f, notice, "the request did not arrive; sending it again");
        send_request(f);
    }
}

/* The last reply of a job, made from its status. */
static void poll_ended(struct flow *f)
{
    struct poll_state *p = &f->poll;
    static char code[] = "internal", retry[] = "never";
    struct wire_error error = {.code = code, .retry = retry, .message = p->message};
    p->sum.request = f->request;
    p->sum.kind = p->kind;
    p->sum.status = p->state;
    if (p->message && p->message[0] && strcmp(p->state, "succeeded") != 0)
        p->sum.error = &error;
    tell_finished(f, &p->sum);
}

/* The ledger knows the job. */
static void poll_known(struct flow *f)
{
    struct poll_state *p = &f->poll;
    bool tells = is_told_by_status(f);
    p->unknown = 0;
    f->sent = true;
    if (!tells) {
        /* The same message from another reply queue: the coordinator tells it all again, and goes
         * on telling. Should it not, the next answers are as good. */
        p->joined = true;
        send_request(f);
        return;
    }
    f->accepted = true;
    if (!f->opts.wait) {
        struct wire_accepted accepted = {.request = f->request};
        TELL(f, accepted, &accepted);
        finish(f, FLOW_ACCEPTED);
    } else if (p->state && is_end_state(p->state)) {
        poll_ended(f);
    }
}

static void poll_answered(struct flow *f, bool found, int64_t now_ms)
{
    struct poll_state *p = &f->poll;
    int64_t wait_ms = POLL_EVERY_MS * (1 + p->pages.count);
    p->asking = false;
    p->next_ms = now_ms + (wait_ms > POLL_EVERY_MAX_MS ? POLL_EVERY_MAX_MS : wait_ms);
    if (found && (p->state || p->tasks > 0))
        poll_known(f);
    else
        poll_unknown(f);
}

static void poll_finished(struct flow *f, const struct wire_finished *m, int64_t now_ms)
{
    if (m->pages > f->poll.pages.count) {
        f->poll.asking = false; /* some are late: ask again rather than miss an outcome */
        f->poll.next_ms = now_ms + POLL_EVERY_MS;
        return;
    }
    poll_answered(f, strcmp(m->status, "succeeded") == 0, now_ms);
}

static void poll_reply(struct flow *f, const struct wire_message *reply, int64_t now_ms)
{
    if (!f->poll.asking)
        return;
    if (reply->type == WIRE_PAGE)
        poll_page(f, reply->as);
    else if (reply->type == WIRE_REFUSED)
        poll_answered(f, false, now_ms);
    else if (reply->type == WIRE_FINISHED)
        poll_finished(f, reply->as, now_ms);
}

/* --- Events ----------------------------------------------------------------------------------- */
void flow_connected(struct flow *f, int64_t now_ms)
{
    bool again = f->was_connected;
    f->connected = f->was_connected = true;
    if (f->end != FLOW_GOING)
        return;
    if (!again && f->opts.kind != FLOW_FOLLOW) {
        send_request(f);
        return;
    }
    if (f->opts.kind == FLOW_QUERY) {
        TELL(f, notice, "connected to the broker again; asking again");
        id_new(f->id);
        memcpy(f->request, f->id, sizeof f->request);
        page_set_clear(&f->pages);
        free(TAKE(f->held.status));
        f->held_until_ms = 0;
        f->accepted = f->sent = false;
        TELL(f, restarted);
        send_request(f);
        return;
    }
    if (again)
        TELL(f, notice, "connected to the broker again; following the request by its status");
    f->poll.on = true;
    f->poll.joined = f->poll.asking = false;
    f->poll.unknown = 0;
    f->poll.next_ms = now_ms;
}

void flow_lost(struct flow *f, const struct err *why)
{
    bool was = f->connected;
    f->connected = false;
    if (!was || f->end != FLOW_GOING)
        return;
    SCOPED_FREE char *text =
        xasprintf("connection to the broker lost (%s); %sreconnecting", why->message,
                  f->opts.kind != FLOW_QUERY && f->sent ? "the job goes on; " : "");
    TELL(f, notice, text);
}

void flow_confirmed(struct flow *f, uint64_t token, enum mq_outcome outcome)
{
    struct err err = ERR_INIT;
    if (token != TOKEN_REQUEST || f->end != FLOW_GOING)
        return;
    if (outcome == MQ_CONFIRMED) {
        f->sent = true;
        return;
    }
    if (f->sent && f->opts.kind == FLOW_JOB) {
        /* Sent again to a broker that is not itself again yet: its status says when it is. */
        f->poll.on = true;
        f->poll.unknown = 0;
        return;
    }
    if (outcome == MQ_RETURNED)
        err_set(&err, ERR_UNROUTABLE, 0,
                "the broker has no queue for requests: no coordinator has ever been connected to "
                "it (is this the right broker and vhost? start oxbow-coordinator)");
    else
        err_set(&err, ERR_BROKER_BLOCKED, 0,
                "the broker refused the request (queue full, or it is shutting down)");
    fail(f, FLOW_UNSENT, &err);
}

static void on_accepted(struct flow *f, const struct wire_accepted *m)
{
    bool first = !f->accepted;
    f->accepted = f->sent = true;
    f->poll.on = false; /* its replies come again */
    if (strlen(m->request) == ID_BYTES - 1)
        memcpy(f->request, m->request, ID_BYTES);
    struct wire_accepted told = *m;
    told.duplicate = m->duplicate && strcmp(f->request, f->id) != 0; /* of another, not of itself */
    if (first)
        TELL(f, accepted, &told);
    if (!f->opts.wait)
        finish(f, FLOW_ACCEPTED);
}

static void on_refused(struct flow *f, const struct wire_refused *m)
{
    struct err err = ERR_INIT;
    wire_error_to_err(m->error, &err);
    TELL(f, refused, m);
    fail(f, FLOW_REFUSED, &err);
}

static void release_held(struct flow *f)
{
    SCOPED_FREE char *status = f->held.status;
    struct wire_finished m = f->held;
    f->held.status = NULL;
    f->held_until_ms = 0;
    if (m.pages > f->pages.count && !err_is_set(&f->error))
        err_set(&f->error, ERR_IO, 0,
                "only %" PRId64 " of %" PRId64 " pages of the answer arrived: try again",
                f->pages.count, m.pages);
    tell_finished(f, &m);
}

static void on_page(struct flow *f, const struct wire_page *m)
{
    if (!page_set_add(&f->pages, m->page))
        return;
    TELL(f, page, m);
    if (f->held_until_ms && f->pages.count >= f->held.pages)
        release_held(f);
}

static void on_finished(struct flow *f, const struct wire_finished *m, int64_t now_ms)
{
    if (m->pages <= f->pages.count) {
        tell_finished(f, m);
        return;
    }
    if (f->held_until_ms)
        return;
    f->held = *m;
    f->held.status = xstrdup(m->status);
    f->held.request = f->request;
    f->held.kind = f->kind;
    f->held.error = NULL;
    if (m->error)
        wire_error_to_err(m->error, &f->error);
    f->held_until_ms = now_ms + PAGES_LATE_MS;
}

void flow_reply(struct flow *f, const char *correlation_id, const struct wire_message *reply,
                int64_t now_ms)
{
    if (f->end != FLOW_GOING || !correlation_id)
        return;
    if (f->poll.on && strcmp(correlation_id, f->poll.id) == 0) {
        poll_reply(f, reply, now_ms);
        return;
    }
    if (strcmp(correlation_id, f->id) != 0 && strcmp(correlation_id, f->request) != 0)
        return;
    if (reply->type == WIRE_ACCEPTED)
        on_accepted(f, reply->as);
    else if (reply->type == WIRE_REFUSED)
        on_refused(f, reply->as);
    else if (reply->type == WIRE_PROGRESS)
        tell_progress(f, reply->as);
    else if (reply->type == WIRE_OUTCOME)
        tell_outcome(f, reply->as);
    else if (reply->type == WIRE_PAGE)
        on_page(f, reply->as);
    else if (reply->type == WIRE_FINISHED)
        on_finished(f, reply->as, now_ms);
}

static void tick_taken(struct flow *f, int64_t now_ms)
{
    if (f->accepted || !f->connected || now_ms < f->taken_word_ms)
        return;
    f->taken_word_ms = now_ms + NOT_TAKEN_AGAIN_MS;
    TELL(f, notice,
         f->sent ? "the request waits at the broker, but no coordinator takes it: is "
                   "oxbow-coordinator running?"
                 : "the broker has not confirmed the request yet");
}

void flow_tick(struct flow *f, int64_t now_ms)
{
    if (f->end != FLOW_GOING)
        return;
    if (f->opts.timeout_ms && now_ms - f->start_ms >= f->opts.timeout_ms) {
        finish(f, FLOW_TIMED_OUT);
        return;
    }
    if (f->held_until_ms && now_ms >= f->held_until_ms) {
        release_held(f);
        return;
    }
    tick_taken(f, now_ms);
    struct poll_state *p = &f->poll;
    if (!p->on || !f->connected)
        return;
    bool overdue = p->asking && now_ms - p->sent_ms >= POLL_ANSWER_MS;
    if (overdue || (!p->asking && now_ms >= p->next_ms))
        send_poll(f, now_ms);
}

/* --- Life and results ------------------------------------------------------------------------- */
struct flow *flow_new(const struct flow_opts *opts, int64_t now_ms)
{
    struct flow *f = ALLOC_NEW(struct flow);
    f->opts = *opts;
    f->start_ms = now_ms;
    f->taken_word_ms = now_ms + NOT_TAKEN_MS;
    f->next_token = TOKEN_REQUEST;
    /* "backup" of "oxbow.backup.v1" */
    const char *name = wire_type_name(opts->type) + strlen("oxbow.");
    f->kind = xstrndup(name, strcspn(name, "."));
    id_new(f->id);
    if (opts->kind == FLOW_FOLLOW) {
        assert(strlen(opts->follow) == ID_BYTES - 1);
        memcpy(f->id, opts->follow, sizeof f->id);
    }
    memcpy(f->request, f->id, sizeof f->request);
    return f;
}

void flow_free(struct flow *f)
{
    if (!f)
        return;
    for (size_t i = 0; i < f->ended.count; i++)
        free(f->ended.v[i]);
    free(f->ended.v);
    page_set_clear(&f->pages);
    page_set_clear(&f->poll.pages);
    free(f->kind);
    free(f->held.status);
    poll_forget(&f->poll);
    free(f->status);
    free(f);
}

enum flow_end flow_end(const struct flow *f)
{
    return f->end;
}

const char *flow_request_id(const struct flow *f)
{
    return f->request;
}

bool flow_is_sent(const struct flow *f)
{
    return f->sent;
}

const char *flow_status(const struct flow *f)
{
    return f->status;
}

const struct err *flow_error(const struct flow *f)
{
    return &f->error;
}

static int exit_of_status(const char *status)
{
    if (strcmp(status, "succeeded") == 0)
        return CLI_SUCCEEDED;
    if (strcmp(status, "partly") == 0)
        return CLI_PARTLY;
    if (strcmp(status, "cancelled") == 0)
        return CLI_CANCELLED;
    return CLI_FAILED;
}

int flow_exit_code(const struct flow *f)
{
    switch (f->end) {
    case FLOW_ACCEPTED:
        return CLI_SUCCEEDED;
    case FLOW_FINISHED:
        if (err_is_set(&f->error) && strcmp(f->status, "succeeded") == 0)
            return CLI_FAILED;
        return exit_of_status(f->status);
    case FLOW_REFUSED:
        return CLI_REFUSED;
    case FLOW_TIMED_OUT:
        return CLI_TIMED_OUT;
    case FLOW_UNSENT:
        return f->error.code == ERR_TOO_LARGE ? CLI_USAGE : CLI_BROKER;
    case FLOW_GOING:
    case FLOW_BROKEN:
        break;
    }
    return CLI_FAILED;
}
