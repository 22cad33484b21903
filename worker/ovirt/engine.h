/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A connection to one oVirt engine: login, requests, retries. Everything the engine is asked goes
 * through here; the typed operations (vm.h, snapshot.h, attachment.h, disk.h, nic.h, ...) build on
 * it.
 *
 * `struct engine` is shared by all threads of a worker: its address, the TLS settings and ONE login
 * (an OAuth token), renewed by whichever thread meets a 401 first. `struct engine_session` is one
 * task thread's own: a curl handle, the correlation id of the step it is in, and two hooks:
 * `cancelled`, asked in every wait, and `before_mutation`, asked before every request that changes
 * something (that is the lease check). A session belongs to one thread at a time.
 *
 * What a request goes through, once for all callers:
 *   401               one new login, the request again; a refused password is never tried twice
 *   403, 404          engine-denied, not-found
 *   409 lock text     wait with a back-off within `busy_budget_ms`, then engine-busy
 *   409 otherwise     conflict or exists; 400 bad-argument, engine-fault or a transient: 3 tries
 *   502/503/504/HTML  the engine restarts: reads wait as above, mutations count as "answer lost"
 *   no connection     reads and mutations that were never sent wait as above, then
 *                     engine-unreachable; a certificate that does not verify: engine-tls at once
 *   answer lost       a mutation is never blindly repeated: its probe looks for the effect first
 * The engine's own reason and detail are kept in the error's message, the HTTP status in `sys`.
 *
 * JSON: returned values are new references; the caller releases them (json_auto_t). Answers are
 * limited in size (`max_body_bytes`).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "proto/base/alloc.h"
#include "proto/base/clock.h"
#include "proto/base/err.h"

/* All strings are copied by engine_new(). Zero numbers mean the default. */
struct engine_conf {
    const char *url;  /* https://engine.example.org/ovirt-engine (a trailing "/api" is cut off) */
    const char *user; /* "admin@internal", "admin@ovirt@internalsso": taken as it is */
    const char *password_file;  /* read at every login, so that it can be changed */
    const char *ca_file;        /* PEM bundle; NULL = the system's */
    bool insecure;              /* do not verify the certificate: for tests only */
    int64_t connect_timeout_ms; /* 10 s */
    int64_t request_timeout_ms; /* 180 s for one request, answer included */
    int64_t busy_budget_ms;    /* 15 min of waiting for locks or a restarting engine, per request */
    int64_t busy_min_ms;       /* 2 s: first wait of that back-off */
    int64_t busy_max_ms;       /* 30 s: its longest wait */
    int64_t poll_min_ms;       /* 1 s: first wait between two looks at an object */
    int64_t poll_max_ms;       /* 5 s: longest */
    int64_t settle_ms;         /* 30 s: how long a fresh DELETE may show no effect (snapshot.h) */
    int64_t max_body_bytes;    /* 64 MiB */
    const struct clock *clock; /* NULL = the machine's; tests replace it */
};

struct engine;

/* Checks the settings; does not connect (the first request logs in). Errors: bad-config. Call
 * before threads start (it initialises libcurl). */
struct engine *engine_new(const struct engine_conf *conf, struct err *err);
/* Logs out (best effort, bounded by the connect timeout) and frees. No session may be left. */
void engine_free(struct engine *e);
DEFINE_SCOPED(engine, engine_free);

struct engine_version {
    int major, minor, build; /* 4.5.7 */
};
/* Negative, zero or positive, like strcmp(). */
int engine_version_cmp(const struct engine_version *v, int major, int minor, int build);

/* --- Sessions -------------------------------------------------------------------------------- */
struct engine_hooks {
    void *ctx;
    /* True: stop what is going on, with the reason in err (cancelled, timeout, lease-lost). Asked
     * before each request, in every wait and during reads; never interrupts a mutation that was
     * sent. NULL = never. */
    bool (*cancelled)(void *ctx, struct err *err);
    /* False vetoes the mutation, with the reason in err. Asked before EVERY POST, PUT and
     * DELETE other than login and logout, repeats included: before connecting, where it may take
     * its time, and once more on the open connection right before the request goes out. NULL =
     * always allowed. */
    bool (*before_mutation)(void *ctx, struct err *err);
};

struct engine_session;

/* `hooks` is copied; NULL = none. Never fails. The engine must outlive the session. */
struct engine_session *engine_session_new(struct engine *e, const struct engine_hooks *hooks);
void engine_session_free(struct engine_session *s);
DEFINE_SCOPED(engine_session, engine_session_free);

/* Replace the hooks, e.g. for the clean-up after a cancel. NULL = none. */
void engine_session_set_hooks(struct engine_session *s, const struct engine_hooks *hooks);

/* The step this thread is in, e.g. "1f3a9c02-snapshot". It is the stem of the Correlation-Id of
 * each request (as stem-COUNT, new for every attempt; characters other than [0-9A-Za-z_-] become
 * '-', the whole is cut to the engine's 36), and so ties engine.log to the task. */
void engine_session_set_step(struct engine_session *s, const char *step);

/* The engine's version, read once per engine and kept. Errors: unsupported for an engine older than
 * 4.2 or newer than 4.x, and all of engine_get(). */
bool engine_read_version(struct engine_session *s, struct engine_version *ret, struct err *err);

/* The settings in force (defaults filled in). Borrowed. */
const struct engine_conf *engine_session_conf(const struct engine_session *s);

/* --- Requests -------------------------------------------------------------------------------- */
/*
 * `path` is below ".../api", without leading slash, made of literals and ids that were checked with
 * engine_check_id(): "vms/ID/snapshots". `query` is NULL or "a=b&c=d", values escaped with
 * engine_escape().
 */
bool engine_get(struct engine_session *s, const char *path, const char *query, json_t **ret,
                struct err *err);
/* Like engine_get(), but a 404 is success with *ret = NULL. */
bool engine_get_or_gone(struct engine_session *s, const char *path, const char *query, json_t **ret,
                        struct err *err);

/* Looks for the effect of a mutation whose answer was lost: *ret_done = it is there, with the
 * object in *ret_object (may stay NULL). False with err when it cannot tell. Must not mutate. */
typedef bool (*engine_probe_fn)(struct engine_session *s, void *ctx, bool *ret_done,
                                json_t **ret_object, struct err *err);

enum engine_method { ENGINE_POST, ENGINE_PUT, ENGINE_DELETE };
struct engine_mutation {
    enum engine_method method;
    const char *path;
    const char *query;
    const json_t *body;    /* NULL sends {} for POST and PUT, nothing for DELETE */
    engine_probe_fn probe; /* required: how a lost answer is settled */
    void *probe_ctx;
    int64_t budget_ms; /* of lock waits; 0 = busy_budget_ms, negative = do not wait */
    bool gone_is_done; /* 404 means the goal is reached (DELETE) */
    bool *ret_unknown; /* set to true when it fails and may have been done all the same: its answer
                          was lost and the probe could not tell. NULL = not wanted */
};
/* Sends a change. On success *ret (if not NULL) is the engine's answer, or what the probe found;
 * it may be NULL. */
bool engine_mutate(struct engine_session *s, const struct engine_mutation *m, json_t **ret,
                   struct err *err);
/* A probe for changes that may be repeated without harm: says "not done", so they are. */
bool engine_probe_repeatable(struct engine_session *s, void *ctx, bool *ret_done,
                             json_t **ret_object, struct err *err);

/* True for an id of the engine (a UUID); otherwise bad-argument, naming `what`. Guards every path.
 */
bool engine_check_id(const char *what, const char *id, struct err *err);
/* Percent-escaped for a query value; the caller frees. */
char *engine_escape(const char *text);

/* --- Waiting --------------------------------------------------------------------------------- */
/* Sleeps, asking `cancelled` at least four times a second. False with its error when cancelled. */
bool engine_sleep(struct engine_session *s, int64_t ms, struct err *err);

enum engine_verdict { ENGINE_AGAIN, ENGINE_REACHED, ENGINE_FAILED };
typedef enum engine_verdict (*engine_poll_fn)(struct engine_session *s, void *ctx, struct err *err);
/* Calls `look` until it says ENGINE_REACHED (true) or ENGINE_FAILED (false; it has set err), with
 * waits growing from poll_min_ms to poll_max_ms, for at most `limit_ms` (then timeout, naming
 * `what`). */
bool engine_poll(struct engine_session *s, const char *what, int64_t limit_ms, engine_poll_fn look,
                 void *ctx, struct err *err);
