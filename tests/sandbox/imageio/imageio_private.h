/* SPDX-License-Identifier: Apache-2.0 */
/* What imageio.c (the HTTP server) and images.c (what /images/ does) share. */
#pragma once

#include <stdatomic.h>

#include <microhttpd.h>

#include "proto/base/buf.h"
#include "tests/sandbox/imageio/backend.h"
#include "tests/sandbox/imageio/imageio.h"
#include "tests/sandbox/imageio/ticket.h"

enum { PATCH_BYTES_MAX = 64 << 10 };

struct imageio_server {
    struct MHD_Daemon *daemon;
    struct MHD_Daemon *local; /* on the unix socket; NULL = none */
    char *unix_socket;        /* as clients are told: JSON without quotes */
    char *unix_path;          /* to unlink */
    struct ticket_table *tickets;
    uint16_t port;
    unsigned max_connections;
    char *cert, *key;
    imageio_fault_fn fault;
    void *fault_arg;
    atomic_ullong requests;
};

/* One HTTP connection; used by its own thread only. */
struct client {
    struct ticket *ticket; /* the last one used, held and joined */
    struct backend *backend;
};

/* One request, from its head to its completion. */
struct request {
    struct imageio_server *server;
    struct MHD_Connection *connection;
    struct client *client;
    char *method, *path, *ticket_id;
    bool extents, checksum, algorithms, has_body;
    struct ticket *ticket; /* held */
    struct ticket_op *op;
    struct backend *backend; /* borrowed from the client */
    /* Of the answer. */
    const char *allow;
    char *content_range;
    bool close, answered;
    /* Of a download or an upload. */
    uint64_t offset, size, done;
    bool flush;
    bool failed;           /* an upload that is read to its end, then refused */
    bool wants_body;       /* PUT or PATCH */
    unsigned char *buffer; /* of a download: bytes buffer_from..buffer_to of the answer */
    uint64_t buffer_from, buffer_to;
    struct buf body; /* of a PATCH */
    uint64_t body_left_to_cut;
};

/* imageio.c */
enum MHD_Result queue_response(struct request *r, unsigned status, struct MHD_Response *response);
enum MHD_Result answer(struct request *r, unsigned status, const char *type, const char *body,
                       size_t len);
enum MHD_Result answer_error(struct request *r, unsigned status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
enum MHD_Result answer_internal(struct request *r);
/* The last value of a query argument wins; NULL = none. */
const char *request_argument(struct request *r, const char *key);
const char *request_header(struct request *r, const char *name);
/* The connection's NBD side, opened if need be for r->ticket. */
struct backend *request_backend(struct request *r, struct err *err);

/* images.c */
/* Get ticket and NBD side; false when *ret is the answer. */
bool request_authorize(struct request *r, bool write, enum MHD_Result *ret);
/* Begin the operation of this request; false when *ret is the answer. */
bool request_begin_op(struct request *r, enum MHD_Result *ret);
enum MHD_Result answer_cancelled(struct request *r);
/* checksum.c */
enum MHD_Result serve_checksum(struct request *r);
enum MHD_Result serve_algorithms(struct request *r);
/* images.c */
enum MHD_Result serve_image(struct request *r);
enum MHD_Result take_body(struct request *r, const char *data, size_t len);
enum MHD_Result finish_image(struct request *r);
uint64_t request_offset(struct request *r);
