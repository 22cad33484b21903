/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One HTTPS exchange over libcurl, and what became of it. Knows TLS, timeouts and sizes; knows
 * nothing of the engine. Threads: one handle per thread.
 */
#pragma once

#include <curl/curl.h>

#include "proto/base/buf.h"
#include "proto/base/err.h"

enum http_result {
    HTTP_ANSWERED, /* a status and a whole body are there */
    HTTP_UNSENT,   /* no connection: the server cannot have seen the request */
    HTTP_LOST,     /* the request went out, the answer did not come: anything may have happened */
    HTTP_REFUSED,  /* will not get better: certificate, too large an answer */
    HTTP_ABORTED,  /* by `abort` */
    HTTP_VETOED,   /* by `before_send`: the server has not seen it */
};

struct http_options {
    const char *ca_file; /* NULL = the system's */
    bool insecure;
    long connect_timeout_ms, timeout_ms;
};

struct http_request {
    const char *method; /* "GET", "POST", ... */
    const char *url;
    const char *body; /* NULL = none */
    size_t body_len;
    const struct curl_slist *headers;
    /* Use no connection of an earlier request. Required for everything that must not happen twice:
     * on a kept connection that turns out dead, libcurl repeats a request by itself. */
    bool fresh_connection;
    bool (*abort)(void *ctx); /* asked while waiting; NULL = never */
    void *abort_ctx;
    /* Asked on the open connection, at the last moment before the request goes out; false = it does
     * not. NULL = always. It may not use the handle. */
    bool (*before_send)(void *ctx);
    void *before_send_ctx;
};

struct http_reply {
    long status;
    char content_type[64]; /* "" = none */
    struct buf body;
};

/* The maximum of the body is set here, once. */
void http_reply_init(struct http_reply *reply, size_t max_body_bytes);
void http_reply_done(struct http_reply *reply);

/* A handle for http_exchange(); the caller frees it with curl_easy_cleanup(). */
CURL *http_handle_new(void);
/* `reply` is emptied first. For all results but HTTP_ANSWERED err is set (engine-unreachable,
 * engine-tls, bad-config, too-large, timeout) and names the host. */
enum http_result http_exchange(CURL *curl, const struct http_options *options,
                               const struct http_request *request, struct http_reply *reply,
                               struct err *err);

/* What will fail the same way again: TLS does not verify; the address or a CA file is wrong. */
bool http_is_certificate_fault(CURLcode rc);
bool http_is_configuration_fault(CURLcode rc);
