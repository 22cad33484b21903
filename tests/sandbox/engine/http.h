/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests and replies of the emulated REST API, and the HTTPS server below them (libmicrohttpd, a
 * thread per connection).
 *
 * A handler gets a request whose body was already held against the member table, runs with the
 * engine's lock held, and calls exactly one reply_ function. Threads: a request belongs to its
 * connection's thread.
 */
#pragma once

#include <stdarg.h>

#include "tests/sandbox/engine/engine.h"

enum { REQUEST_IDS = 4, REQUEST_BODY_MAX = 8 * 1024 * 1024 };

struct MHD_Connection;

struct request {
    struct MHD_Connection *conn;
    const char *method;
    const char *url;              /* the path as it came */
    const char *path;             /* below /ovirt-engine/api, without a version part */
    char *path_buffer;            /* owns what `path` points into */
    char *ids_buffer;             /* and what `ids` do */
    const char *ids[REQUEST_IDS]; /* the {} parts of the route's pattern */
    json_t *body;                 /* NULL when the route takes none */
    char correlation_id[ID_BYTES];
    bool all_content, filter, is_action;
    struct job *job;    /* of a mutating call */
    bool job_continues; /* a job thread ends it */

    /* The answer. */
    int status; /* 0 = none yet */
    json_t *reply;
    char *text;            /* in place of `reply` */
    const char *text_type; /* static */
    char *location;
};

/* A query parameter or, in the older form, a matrix parameter; NULL if absent. Borrowed. */
const char *request_param(const struct request *r, const char *name);
/* A parameter that is a boolean: t true y yes 1; absent or unknown words give `otherwise`, an empty
 * value means true. */
bool request_flag(const struct request *r, const char *name, bool otherwise);
const char *request_http_header(const struct request *r, const char *name);

/* Takes the reference of `body`. */
void reply_json(struct request *r, int status, json_t *body);
/* 201 or 202 with a Location. */
void reply_created(struct request *r, int status, const char *href, json_t *body);
void reply_empty(struct request *r, int status);
void reply_text(struct request *r, int status, const char *type, char *text);
/* A fault as the engine words it: detail "[...]"; nested when the request is an action. */
void reply_fault(struct request *r, int status, const char *reason, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* "Operation Failed" with "[...]": 409 for conflicts, 400 for bad parameters and failures. */
void reply_refused(struct request *r, int status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* 400 "Incomplete parameters". */
void reply_incomplete(struct request *r, const char *type, const char *members, const char *verb);
/* 400 "Request syntactically incorrect." */
void reply_bad_syntax(struct engine *e, struct request *r);
/* {"status":"complete"} plus the job. */
void reply_action_done(struct request *r);

struct http *http_start(struct engine *e, struct err *err);
/* Stops accepting and waits for running requests. */
void http_stop(struct http *h);
uint16_t http_port(const struct http *h);
