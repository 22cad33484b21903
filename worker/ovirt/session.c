/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One request's way: hooks, token, exchange, judgement (try_once), and around it the two loops that
 * wait and repeat: reads (engine_get) and changes (engine_mutate).
 */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "proto/base/id.h"
#include "proto/base/log.h"
#include "worker/ovirt/engine_impl.h"
#include "worker/ovirt/fault.h"

enum {
    CORRELATION_BYTES = 37, /* the engine cuts at 36 characters */
    STEM_CHARS = 25,
    SLEEP_SLICE_MS = 250,
    TRANSIENT_TRIES = 3,
    FIRST_CONTACT_MS = 15 * 1000,  /* an engine never seen yet is more likely a wrong url */
    SETTLE_BUDGET_MS = 120 * 1000, /* of a look-up that a cancel waits for */
};

struct engine_session {
    struct engine *engine;
    struct engine_hooks hooks;
    CURL *curl;
    struct http_reply reply;
    char stem[STEM_CHARS + 1];
    char nonce[5];
    unsigned requests;
    char correlation[CORRELATION_BYTES]; /* of the request in hand */
    bool settling;                       /* a lost answer is being looked up: not to be cancelled */
};

struct engine_session *engine_session_new(struct engine *e, const struct engine_hooks *hooks)
{
    struct engine_session *s = ALLOC_NEW(struct engine_session);
    s->engine = e;
    s->curl = http_handle_new();
    http_reply_init(&s->reply, (size_t)e->conf.max_body_bytes);
    char unique[ID_BYTES];
    id_new(unique);
    memcpy(s->nonce, unique, 4);
    engine_session_set_hooks(s, hooks);
    engine_session_set_step(s, "oxbow");
    return s;
}

void engine_session_free(struct engine_session *s)
{
    if (!s)
        return;
    curl_easy_cleanup(s->curl);
    http_reply_done(&s->reply);
    free(s);
}

void engine_session_set_hooks(struct engine_session *s, const struct engine_hooks *hooks)
{
    s->hooks = hooks ? *hooks : (struct engine_hooks){0};
}

void engine_session_set_step(struct engine_session *s, const char *step)
{
    size_t n = 0;
    for (; n < STEM_CHARS && step[n]; n++)
        s->stem[n] = isalnum((unsigned char)step[n]) || step[n] == '_' ? step[n] : '-';
    s->stem[n] = '\0';
}

const struct engine_conf *engine_session_conf(const struct engine_session *s)
{
    return &s->engine->conf;
}

struct engine *engine_session_engine(struct engine_session *s)
{
    return s->engine;
}

static int64_t now_ms(const struct engine_session *s)
{
    return clock_mono_ms(s->engine->conf.clock);
}

static bool asked_to_stop(struct engine_session *s, struct err *err)
{
    return s->hooks.cancelled && s->hooks.cancelled(s->hooks.ctx, err);
}

static bool is_cancelled(struct engine_session *s, struct err *err)
{
    return !s->settling && asked_to_stop(s, err);
}

bool engine_sleep(struct engine_session *s, int64_t ms, struct err *err)
{
    int64_t until = now_ms(s) + ms;
    for (;;) {
        if (is_cancelled(s, err))
            return false;
        int64_t left = until - now_ms(s);
        if (left <= 0)
            return true;
        clock_sleep_ms(s->engine->conf.clock, left < SLEEP_SLICE_MS ? left : SLEEP_SLICE_MS);
    }
}

bool engine_poll(struct engine_session *s, const char *what, int64_t limit_ms, engine_poll_fn look,
                 void *ctx, struct err *err)
{
    struct backoff wait = BACKOFF(s->engine->conf.poll_min_ms, s->engine->conf.poll_max_ms);
    int64_t until = now_ms(s) + limit_ms;
    for (;;) {
        enum engine_verdict verdict = look(s, ctx, err);
        if (verdict != ENGINE_AGAIN)
            return verdict == ENGINE_REACHED;
        if (now_ms(s) >= until)
            return err_set(err, ERR_TIMEOUT, 0, "%s: not within %lld s", what,
                           (long long)(limit_ms / 1000));
        if (!engine_sleep(s, backoff_next_ms(&wait), err))
            return err_wrap(err, "%s", what);
    }
}

/* --- One exchange ---------------------------------------------------------------------------- */
struct call {
    const char *method;
    const char *path, *query;
    const char *body; /* NULL = none */
    bool mutates;
};

enum outcome {
    OUTCOME_OK,
    OUTCOME_FINAL,     /* err says why; do not repeat */
    OUTCOME_STOPPED,   /* by a hook */
    OUTCOME_LOCK,      /* wait and repeat */
    OUTCOME_TRANSIENT, /* a few tries */
    OUTCOME_GONE,
    OUTCOME_GONE_PAGE,
    OUTCOME_UNSENT, /* the engine has not seen it: wait and repeat */
    OUTCOME_LOST,   /* it may have been done */
    OUTCOME_LOGIN,  /* the token is stale */
};

static void next_correlation(struct engine_session *s)
{
    (void)snprintf(s->correlation, sizeof s->correlation, "%s-%s%x", s->stem, s->nonce,
                   ++s->requests & 0xffffff);
}

static struct curl_slist *headers_of(const struct engine_session *s, const struct call *c,
                                     const struct login_token *token)
{
    SCOPED_FREE char *bearer = xasprintf("Authorization: Bearer %s", token->text);
    SCOPED_FREE char *correlation = xasprintf("Correlation-Id: %s", s->correlation);
    struct curl_slist *list = curl_slist_append(NULL, "Accept: application/json");
    list = curl_slist_append(list, "Version: 4");
    list = curl_slist_append(list, "Accept-Language: en-US"); /* faults are matched by text */
    list = curl_slist_append(list, "Expect:"); /* would be mistaken for the engine's own use */
    list = curl_slist_append(list, "User-Agent: oxbow/" OXBOW_VERSION);
    list = curl_slist_append(list, correlation);
    list = curl_slist_append(list, bearer);
    if (c->body)
        list = curl_slist_append(list, "Content-Type: application/json");
    explicit_bzero(bearer, strlen(bearer));
    return list;
}

static bool abort_read(void *ctx)
{
    struct engine_session *s = ctx;
    struct err ignored = ERR_INIT;
    return is_cancelled(s, &ignored);
}

/* Between the first ask and the open connection time passes: a lease may end, the whole process may
 * have been stopped. */
struct last_ask {
    struct engine_session *s;
    struct err why;
};

static bool ask_again(void *ctx)
{
    struct last_ask *ask = ctx;
    return ask->s->hooks.before_mutation(ask->s->hooks.ctx, &ask->why);
}

static enum outcome outcome_of_fault(enum fault_kind kind)
{
    switch (kind) {
    case FAULT_NONE:
        return OUTCOME_OK;
    case FAULT_LOCK:
        return OUTCOME_LOCK;
    case FAULT_TRANSIENT:
        return OUTCOME_TRANSIENT;
    case FAULT_LOGIN:
        return OUTCOME_LOGIN;
    case FAULT_GONE:
        return OUTCOME_GONE;
    case FAULT_GONE_PAGE:
        return OUTCOME_GONE_PAGE;
    case FAULT_RESTART:
        return OUTCOME_LOST; /* 502 and 504 may come after the engine has begun */
    case FAULT_FINAL:
        break;
    }
    return OUTCOME_FINAL;
}

/* A whole answer: its JSON, or the fault. */
static enum outcome judge(struct engine_session *s, json_t **ret, struct err *err)
{
    const struct http_reply *r = &s->reply;
    struct fault fault;
    fault_classify(r->status, r->content_type,
                   (struct slice){.data = buf_str(&r->body), .len = r->body.len}, &fault);
    if (fault.kind != FAULT_NONE) {
        err_set(err, fault.code, (int)r->status, "%s", fault.text);
        return outcome_of_fault(fault.kind);
    }
    if (r->body.len == 0)
        return OUTCOME_OK;
    json_error_t why;
    json_t *json = json_loadb(r->body.data, r->body.len, 0, &why);
    if (json_is_object(json)) {
        *ret = json;
        return OUTCOME_OK;
    }
    err_set(err, ERR_ENGINE_PROTOCOL, (int)r->status, "the answer is not a JSON object: %s",
            json ? "another type" : why.text);
    json_decref(json);
    return OUTCOME_TRANSIENT;
}

static enum outcome outcome_of_failure(struct engine_session *s, enum http_result result,
                                       struct err *err)
{
    switch (result) {
    case HTTP_UNSENT:
        return OUTCOME_UNSENT;
    case HTTP_LOST:
        return OUTCOME_LOST;
    case HTTP_ABORTED:
        err_clear(err);
        if (!is_cancelled(s, err))
            return OUTCOME_UNSENT; /* the reason has gone meanwhile */
        return OUTCOME_STOPPED;
    case HTTP_VETOED:
        return OUTCOME_STOPPED;
    case HTTP_REFUSED:
    case HTTP_ANSWERED:
        break;
    }
    return OUTCOME_FINAL;
}

static void note_reached(struct engine *e)
{
    (void)pthread_mutex_lock(&e->lock);
    e->reached = true;
    (void)pthread_mutex_unlock(&e->lock);
}

static enum outcome exchange(struct engine_session *s, const struct call *c,
                             const struct login_token *token, json_t **ret, struct err *err)
{
    next_correlation(s);
    SCOPED_FREE char *url = xasprintf("%s/api%s%s%s%s", s->engine->base_url, c->path[0] ? "/" : "",
                                      c->path, c->query ? "?" : "", c->query ? c->query : "");
    struct curl_slist *headers = headers_of(s, c, token);
    struct http_options options = engine_http_options(s->engine);
    struct last_ask last = {.s = s};
    struct http_request request = {
        .method = c->method,
        .url = url,
        .body = c->body,
        .body_len = c->body ? strlen(c->body) : 0,
        .headers = headers,
        .fresh_connection = c->mutates,
        .abort = c->mutates ? NULL : abort_read,
        .abort_ctx = s,
        .before_send = c->mutates && s->hooks.before_mutation ? ask_again : NULL,
        .before_send_ctx = &last,
    };
    int64_t start = now_ms(s);
    enum http_result result = http_exchange(s->curl, &options, &request, &s->reply, err);
    curl_slist_free_all(headers);
    log_debug("engine_request", LOG_STR("method", c->method), LOG_STR("path", c->path),
              LOG_I64("status", s->reply.status), LOG_I64("ms", now_ms(s) - start),
              LOG_STR("correlation", s->correlation));
    if (result == HTTP_VETOED)
        *err = last.why;
    if (result != HTTP_ANSWERED)
        return outcome_of_failure(s, result, err);
    note_reached(s->engine);
    return judge(s, ret, err);
}

/* May the request go out now? */
static bool hooks_allow(struct engine_session *s, const struct call *c, struct err *err)
{
    if (is_cancelled(s, err))
        return false;
    return !c->mutates || !s->hooks.before_mutation || s->hooks.before_mutation(s->hooks.ctx, err);
}

/* Token, hooks, exchange; with one new login after a 401. */
static enum outcome try_once(struct engine_session *s, const struct call *c, json_t **ret,
                             struct err *err)
{
    struct login_token token = {.generation = 0};
    enum outcome outcome = OUTCOME_LOGIN;
    for (int logins = 0; outcome == OUTCOME_LOGIN && logins < 2; logins++) {
        err_clear(err);
        enum login_result login = login_get_token(s->engine->login, token.generation, &token, err);
        if (login != LOGIN_OK) {
            outcome = login == LOGIN_LATER ? OUTCOME_UNSENT : OUTCOME_FINAL;
            break;
        }
        outcome = hooks_allow(s, c, err) ? exchange(s, c, &token, ret, err) : OUTCOME_STOPPED;
    }
    explicit_bzero(token.text, sizeof token.text);
    if (outcome == OUTCOME_LOGIN) {
        err_clear(err);
        err_set(err, ERR_ENGINE_AUTH, 401, "the engine refuses a token it has just given");
        outcome = OUTCOME_FINAL;
    }
    if (err_is_set(err) && outcome != OUTCOME_STOPPED)
        err_wrap(err, "engine %s %s", c->method, c->path[0] ? c->path : "api");
    if (err->code == ERR_ENGINE_DENIED)
        err_wrap(err, "the engine's user '%s' lacks %s", s->engine->conf.user,
                 fault_permit(c->method, c->path));
    return outcome;
}

/* --- Waiting within a budget ----------------------------------------------------------------- */
struct budget {
    struct backoff wait;
    int64_t start_ms, limit_ms;
    unsigned transients;
};

static struct budget budget_of(const struct engine_session *s, int64_t limit_ms)
{
    const struct engine_conf *c = &s->engine->conf;
    return (struct budget){
        .wait = BACKOFF(c->busy_min_ms, c->busy_max_ms),
        .start_ms = now_ms(s),
        .limit_ms = limit_ms == 0  ? c->busy_budget_ms
                    : limit_ms < 0 ? 0
                                   : limit_ms,
    };
}

static bool is_first_contact(struct engine *e)
{
    (void)pthread_mutex_lock(&e->lock);
    bool reached = e->reached;
    (void)pthread_mutex_unlock(&e->lock);
    return !reached;
}

/* Waits before a repeat. False: the budget is spent (err stays as it is, with the time waited) or a
 * hook says stop (err is replaced by its reason). */
static bool wait_for_repeat(struct engine_session *s, struct budget *b, enum outcome outcome,
                            struct err *err)
{
    int64_t limit = b->limit_ms;
    if (outcome == OUTCOME_UNSENT && limit > FIRST_CONTACT_MS && is_first_contact(s->engine))
        limit = FIRST_CONTACT_MS;
    struct err why = ERR_INIT;
    if (s->settling && limit > SETTLE_BUDGET_MS && asked_to_stop(s, &why))
        limit = SETTLE_BUDGET_MS;
    int64_t ms = backoff_next_ms(&b->wait);
    int64_t waited = now_ms(s) - b->start_ms;
    if (outcome == OUTCOME_TRANSIENT) {
        if (++b->transients >= TRANSIENT_TRIES)
            return err_wrap(err, "after %d tries", TRANSIENT_TRIES);
        /* A guest needs about 5 s before an unplug right after a plug works. */
        int64_t least_ms = s->engine->conf.busy_min_ms * 5 / 2;
        ms = ms < least_ms ? least_ms : ms;
    }
    if (limit == 0)
        return false; /* asked not to wait */
    if (waited + ms > limit)
        return err_wrap(err,
                        outcome == OUTCOME_LOCK
                            ? "gave up after %lld s of waiting for another task of the engine"
                            : "gave up after %lld s of waiting for the engine",
                        (long long)(waited / 1000));
    log_debug("engine_wait", LOG_I64("ms", ms), LOG_STR("message", err->message));
    struct err stopped = ERR_INIT;
    if (!engine_sleep(s, ms, &stopped)) {
        *err = stopped;
        return false;
    }
    err_clear(err);
    return true;
}

/* --- Reading --------------------------------------------------------------------------------- */
/* After a 404 with a web page: is it the engine that says so (its root answers), or a server in
 * front of an engine that is starting? */
static bool engine_is_awake(struct engine_session *s)
{
    struct call root = {.method = "GET", .path = ""};
    json_auto_t *json = NULL;
    struct err ignored = ERR_INIT;
    return try_once(s, &root, &json, &ignored) == OUTCOME_OK && json;
}

static enum outcome read_once(struct engine_session *s, const struct call *c, json_t **ret,
                              struct err *err)
{
    enum outcome outcome = try_once(s, c, ret, err);
    if (outcome != OUTCOME_GONE_PAGE || c->path[0] == '\0')
        return outcome;
    if (!engine_is_awake(s))
        return OUTCOME_LOST;
    struct err again = ERR_INIT;
    outcome = try_once(s, c, ret, &again);
    *err = again;
    return outcome == OUTCOME_GONE_PAGE ? OUTCOME_GONE : outcome;
}

bool engine_get_or_gone(struct engine_session *s, const char *path, const char *query, json_t **ret,
                        struct err *err)
{
    struct call c = {.method = "GET", .path = path, .query = query};
    struct budget budget = budget_of(s, 0);
    for (;;) {
        json_t *json = NULL;
        enum outcome outcome = read_once(s, &c, &json, err);
        if (outcome == OUTCOME_GONE)
            err_clear(err);
        if (outcome == OUTCOME_OK && !json) {
            err_set(err, ERR_ENGINE_PROTOCOL, 0, "engine GET %s: empty answer", path);
            outcome = OUTCOME_TRANSIENT;
        }
        if (outcome == OUTCOME_OK || outcome == OUTCOME_GONE) {
            *ret = json;
            return true;
        }
        if (outcome == OUTCOME_FINAL || outcome == OUTCOME_STOPPED)
            return false;
        if (!wait_for_repeat(s, &budget, outcome, err))
            return false;
    }
}

bool engine_get(struct engine_session *s, const char *path, const char *query, json_t **ret,
                struct err *err)
{
    json_t *json = NULL;
    if (!engine_get_or_gone(s, path, query, &json, err))
        return false;
    if (!json)
        return err_set(err, ERR_NOT_FOUND, 404, "engine GET %s: not found", path);
    *ret = json;
    return true;
}

/* --- Changing -------------------------------------------------------------------------------- */
static const char *const method_names[] = {
    [ENGINE_POST] = "POST",
    [ENGINE_PUT] = "PUT",
    [ENGINE_DELETE] = "DELETE",
};

/* What the loop of engine_mutate() carries from try to try. */
struct change {
    const struct engine_mutation *m;
    struct call call;
    struct budget budget;
    bool uncertain; /* an earlier try may have been done: look before the next, and to the end */
};

/* Looks whether an uncertain change was done. OUTCOME_OK = it was; OUTCOME_LOST = it was not;
 * OUTCOME_FINAL = cannot tell (err). Not interrupted by a cancel: the caller must learn of what it
 * has made. */
static enum outcome look_up(struct engine_session *s, struct change *c, json_t **ret,
                            struct err *err)
{
    bool done = false;
    json_t *found = NULL;
    s->settling = true;
    bool told = c->m->probe(s, c->m->probe_ctx, &done, &found, err);
    s->settling = false;
    if (told && done)
        *ret = found;
    else
        json_decref(found);
    if (!told) {
        err_wrap(err, "look up the outcome of a request whose answer was lost");
        if (c->m->ret_unknown)
            *c->m->ret_unknown = true;
        return OUTCOME_FINAL;
    }
    log_info("engine_outcome_looked_up", LOG_STR("method", c->call.method),
             LOG_STR("path", c->call.path), LOG_STR("found", done ? "done" : "not-done"));
    return done ? OUTCOME_OK : OUTCOME_LOST;
}

/* The wait before a last look: a cancel does not cut it short, but it is short. */
static void wait_before_look(struct engine_session *s)
{
    struct err ignored = ERR_INIT;
    s->settling = true;
    (void)engine_sleep(s, s->engine->conf.busy_min_ms, &ignored);
    s->settling = false;
}

/* No further try (a refusal, a cancel, the budget). But if an earlier one may have been done, its
 * effect may well be the reason ("already attached"), and must not be lost. */
static bool settle_failure(struct engine_session *s, struct change *c, json_t **ret,
                           struct err *err)
{
    struct err ignored = ERR_INIT;
    if (!c->uncertain)
        return false;
    wait_before_look(s);
    if (look_up(s, c, ret, &ignored) != OUTCOME_OK)
        return false;
    err_clear(err);
    return true;
}

static bool makes_uncertain(enum outcome outcome)
{
    return outcome == OUTCOME_LOST || outcome == OUTCOME_TRANSIENT || outcome == OUTCOME_GONE_PAGE;
}

/* One round: true = finished (well), false = failed, or *ret_again. */
static bool mutate_round(struct engine_session *s, struct change *c, bool *ret_again, json_t **ret,
                         struct err *err)
{
    *ret_again = false;
    enum outcome outcome = try_once(s, &c->call, ret, err);
    if (outcome == OUTCOME_OK)
        return true;
    if (outcome == OUTCOME_GONE && c->m->gone_is_done) {
        err_clear(err);
        return true;
    }
    if (outcome == OUTCOME_FINAL || outcome == OUTCOME_GONE || outcome == OUTCOME_STOPPED)
        return settle_failure(s, c, ret, err);
    c->uncertain = c->uncertain || makes_uncertain(outcome);
    if (!wait_for_repeat(s, &c->budget, outcome, err))
        return settle_failure(s, c, ret, err);
    if (c->uncertain) {
        /* Right before every further try: what was in the works at one look is there at the next.
         */
        enum outcome found = look_up(s, c, ret, err);
        if (found != OUTCOME_LOST)
            return found == OUTCOME_OK;
    }
    *ret_again = true;
    return false;
}

bool engine_mutate(struct engine_session *s, const struct engine_mutation *m, json_t **ret,
                   struct err *err)
{
    SCOPED_FREE char *body = m->body                      ? json_dumps(m->body, JSON_COMPACT)
                             : m->method == ENGINE_DELETE ? NULL
                                                          : xstrdup("{}");
    struct change change = {
        .m = m,
        .call = {.method = method_names[m->method],
                 .path = m->path,
                 .query = m->query,
                 .body = body,
                 .mutates = true},
        .budget = budget_of(s, m->budget_ms),
    };
    json_t *answer = NULL;
    bool again = true, done = false;
    while (again)
        done = mutate_round(s, &change, &again, &answer, err);
    if (!done || !ret) {
        json_decref(answer);
        return done;
    }
    *ret = answer;
    return true;
}
