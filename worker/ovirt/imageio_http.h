/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One exchange with an image transfer endpoint on a kept connection. Private to this folder.
 * Threads: one handle per thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <curl/curl.h>

#include "proto/base/err.h"

enum { IMAGEIO_TEXT_BYTES = 256, IMAGEIO_PATH_BYTES = 108 };

/* Where to connect. */
struct imageio_address {
    const char *url; /* "https://host:54322/images/TICKET" */
    /* A unix socket instead of url's host, "" = none; a name in the abstract space if is_abstract.
     */
    char unix_path[IMAGEIO_PATH_BYTES];
    bool is_abstract;
    const char *ca_file;
    bool insecure;
    long connect_timeout_ms, stall_ms;
};

struct imageio_request {
    const char *method;
    const char *suffix; /* after the url: "", "/extents?context=zero", "?flush=n" */
    bool has_range;     /* of a GET (Range) or a PUT (Content-Range): [offset, offset + len) */
    uint64_t offset, len;
    const void *body; /* NULL = none */
    size_t body_len;
    long timeout_ms; /* of the whole exchange, which may then stall; 0 = only stall_ms limits it */
    /* The body of a good answer: into a buffer of exactly `len` bytes, or to a function (false =
     * break off; it has set the error). Neither: it is ignored. */
    void *into;
    void (*begin)(void *sink_ctx); /* called before each try; NULL = none */
    bool (*sink)(void *ctx, const char *data, size_t len, struct err *err);
    void *sink_ctx;
    bool (*stopped)(void *ctx, struct err *err);
    void *stopped_ctx;
};

enum imageio_result {
    IMAGEIO_DONE,    /* a whole answer with a status that means success */
    IMAGEIO_STATUS,  /* a whole answer with another status */
    IMAGEIO_LOST,    /* no connection, or it broke */
    IMAGEIO_BROKEN,  /* an answer that the protocol does not allow */
    IMAGEIO_REFUSED, /* a certificate that does not verify, a missing CA file */
    IMAGEIO_STOPPED, /* by `stopped` or the sink */
};

struct imageio_reply {
    long status;
    char text[IMAGEIO_TEXT_BYTES]; /* of a refusal: its first line */
    bool is_same_host;             /* both ends of a TCP connection have one address */
    long connects;                 /* made for this exchange: 0 = a kept one served */
};

/* For all results but IMAGEIO_DONE err is set. After LOST, BROKEN and STOPPED the connection is of
 * no more use: free the handle. */
enum imageio_result imageio_exchange(CURL *curl, const struct imageio_address *address,
                                     const struct imageio_request *request,
                                     struct imageio_reply *reply, struct err *err);
