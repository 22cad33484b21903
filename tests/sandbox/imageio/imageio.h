/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The image transfer endpoint of a sandbox host: what ovirt-imageio is to a real one. HTTP(S) on
 * /images/ID with OPTIONS, GET, PUT and PATCH, /images/ID/extents and /info/; the id is a ticket,
 * and the ticket is the credential. Protocol: http://ovirt.github.io/ovirt-imageio/images.html
 *
 * The bytes come from and go to an NBD export (struct block_export of block.h, or that of a running
 * VM): one NBD connection for each HTTP connection, made by its first request and kept.
 *
 * Threads: all calls are safe from any thread; each HTTP connection has its own. The server holds
 * no lock of the caller's except inside the fault function, which may be called from any of them.
 */
#pragma once

#include <stdint.h>

#include "proto/base/alloc.h"
#include "proto/base/err.h"

struct imageio_server;

/* A request as the fault function sees it, before anything is done for it. */
struct imageio_request {
    const char *method; /* "GET" */
    const char *path;   /* "/images/ID/extents", decoded */
    const char *ticket; /* the id, or "" */
    bool extents;       /* of /extents */
    uint64_t offset;    /* from Range or Content-Range; 0 */
    uint64_t number;    /* of this request, 1.. over the server's life */
};

/* What to do to a request. All zero: nothing. */
struct imageio_fault {
    unsigned status;  /* answer this at once, e.g. 500 or 403; 0 = no */
    const char *text; /* that it says with it; NULL = something */
    int64_t delay_ms; /* wait before anything else */
    bool cut;         /* break the connection after cut_after_bytes of the body */
    uint64_t cut_after_bytes;
};
typedef struct imageio_fault (*imageio_fault_fn)(void *arg, const struct imageio_request *request);

struct imageio_opts {
    const char *address;              /* IPv4, e.g. "127.0.0.1" */
    uint16_t port;                    /* 0 = chosen by the kernel */
    const char *cert_path, *key_path; /* PEM; NULL = plain HTTP */
    /* Listens here too, without TLS, and tells clients so (`unix_socket`). A path; with a leading
     * '@', a name in the abstract space. NULL = no. */
    const char *unix_socket;
    unsigned max_connections; /* told to clients as max_readers, max_writers; 0 = 8 */
    imageio_fault_fn fault;   /* NULL = none */
    void *fault_arg;
};

struct imageio_server *imageio_server_start(const struct imageio_opts *opts, struct err *err);
/* Closes all connections. NULL is fine. */
void imageio_server_stop(struct imageio_server *s);
uint16_t imageio_server_port(const struct imageio_server *s);

struct imageio_ticket {
    const char *id;
    uint64_t size_bytes;      /* no request may reach beyond it */
    bool can_read, can_write; /* writing implies reading */
    const char *uri;          /* NBD */
    const char *dirty_bitmap; /* name of the bitmap behind context=dirty; NULL = no such context */
    const char *transfer_id;  /* shown in refusals; NULL = made from the id */
    const char *filename;     /* for downloads; NULL = none */
    unsigned timeout_s;       /* the ticket expires so long after its last completed operation */
    unsigned inactivity_timeout_s; /* of a connection that has used it; 0 = 60 */
    bool sparse;                   /* PATCH zero may punch holes */
};

struct imageio_ticket_info {
    bool active; /* an operation runs */
    bool cancelled;
    unsigned connections; /* that have used it and are still open */
    unsigned connections_peak;
    uint64_t transferred; /* distinct bytes, of a ticket that reads or writes but not both */
    uint64_t moved;       /* all bytes of data that have gone to and fro */
    int64_t idle_ms;      /* since its last completed operation; 0 while active */
    int64_t expires_ms;   /* from now; negative = expired */
};

/* Replaces a ticket of the same id without a word. Nothing is checked against the export. */
bool imageio_ticket_add(struct imageio_server *s, const struct imageio_ticket *ticket,
                        struct err *err);
/* Let it expire `timeout_s` from now. Errors: not-found. */
bool imageio_ticket_extend(struct imageio_server *s, const char *id, unsigned timeout_s,
                           struct err *err);
/* Errors: not-found. */
bool imageio_ticket_get(struct imageio_server *s, const char *id, struct imageio_ticket_info *ret,
                        struct err *err);
/* Cancel the ticket: no operation can begin any more, running ones end with their next piece. True
 * when none runs any more, also for a ticket that is not there. Conflict when one still runs after
 * the time: the ticket stays, cancelled; try again later. Idle connections lose their NBD side. */
bool imageio_ticket_remove(struct imageio_server *s, const char *id, int64_t timeout_ms,
                           struct err *err);

static inline void imageio_server_scoped(struct imageio_server *s)
{
    imageio_server_stop(s);
}
DEFINE_SCOPED(imageio_server, imageio_server_scoped);
