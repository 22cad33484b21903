/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client of the image transfer endpoint of an oVirt host (ovirt-imageio): reads and writes the
 * disk behind a ticket over several kept connections. The engine makes the ticket (transfer.h); the
 * URL with it is all the right that is needed.
 *
 *     SCOPED(imageio) struct imageio *io = imageio_open(&conf, err);
 *     if (!io || !imageio_map(io, IMAGEIO_ZERO, &map, err) || !imageio_read(io, buf, n, 0, err))
 * ...
 *
 * Protocol: http://ovirt.github.io/ovirt-imageio/images.html
 *
 * What passes is tried again within `retry_budget_ms`: a lost connection, a host that restarts, a
 * ticket that the engine has not given to the host (yet, or again). A ticket that was cancelled, a
 * range beyond its end and a failed write do not pass.
 *
 * Threads: any number may read, write and zero at once; at most `connections_max` exchanges run,
 * the others wait. Opening, mapping, flushing and closing belong to one thread, with no other
 * inside.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/base/alloc.h"
#include "proto/base/clock.h"
#include "proto/base/err.h"

/* Strings are copied. Zero numbers mean the default. */
struct imageio_conf {
    const char *url;          /* the transfer's transfer_url: straight to the host */
    const char *fallback_url; /* its proxy_url, when the host cannot be reached; NULL = none */
    const char *ca_file;      /* the engine's CA, which signs the hosts too; NULL = the system's */
    bool insecure;            /* verify no certificates, take http:// too: for tests only */
    bool no_unix_socket;      /* stay on TCP even on the same host */
    uint64_t size_bytes;      /* of the disk */
    unsigned connections_max; /* 4; never more than the host allows, nor than IMAGEIO_CONNECTIONS */
    int64_t connect_timeout_ms; /* 10 s */
    int64_t stall_ms;           /* 60 s without a byte break a connection */
    int64_t map_timeout_ms;  /* 60 min: a map comes in one piece, computed before its first byte */
    int64_t retry_budget_ms; /* 60 s for one operation */
    /* Asked between tries and several times a second during an exchange, from the calling thread:
     * true ends it, with the reason in err. NULL = never. */
    bool (*stopped)(void *ctx, struct err *err);
    void *ctx;
    const struct clock *clock; /* NULL = the machine's */
};

enum { IMAGEIO_CONNECTIONS = 8 };

struct imageio;

/* Connects and asks what the host can do; over the unix socket when host and worker are the same
 * machine. Errors: engine-unreachable, engine-tls; engine-busy for a ticket that the host does not
 * know, or no more; engine-protocol; those of `stopped`. */
struct imageio *imageio_open(const struct imageio_conf *conf, struct err *err);
/* Ends all connections: do it before the transfer is finalized. NULL is fine. */
void imageio_close(struct imageio *io);
DEFINE_SCOPED(imageio, imageio_close);

/* What came of opening. */
struct imageio_ability {
    bool can_map, can_zero, can_flush, can_checksum;
    bool is_local; /* over the unix socket */
    bool is_proxy; /* over the fall-back url */
    unsigned connections_max;
};
const struct imageio_ability *imageio_ability(const struct imageio *io);
/* Connections that were opened so far, and the most that were open at once. */
void imageio_connections(const struct imageio *io, unsigned *ret_opened, unsigned *ret_peak);

enum imageio_context {
    IMAGEIO_ZERO,  /* what reads as zeroes */
    IMAGEIO_DIRTY, /* what changed since the checkpoint of the backup */
};
/* One range. Neighbours with the same flags come as one. */
struct imageio_extent {
    uint64_t offset, len;
    bool zero;  /* reads as zeroes */
    bool dirty; /* always true for IMAGEIO_ZERO */
};
struct imageio_map {
    struct imageio_extent *v; /* rising, without gaps, from 0 to the disk's size */
    size_t count;
};
void imageio_map_done(struct imageio_map *map);
/* The map of the whole disk; free it with imageio_map_done(). Errors, beside those of reading:
 * unsupported when the host cannot tell (then everything is to be read; for IMAGEIO_DIRTY, the
 * backup must be a full one); too-large beyond 16 million ranges. */
bool imageio_map(struct imageio *io, enum imageio_context context, struct imageio_map *ret,
                 struct err *err);

/* Exactly `len` bytes, at most 128 MiB, inside the disk. Errors: engine-unreachable, engine-busy
 * (ticket), engine-protocol, io-error (the host cannot read the disk). */
bool imageio_read(struct imageio *io, void *buf, size_t len, uint64_t offset, struct err *err);
/* Written, but not durable before imageio_flush(). A host's failure is never tried again: what it
 * had taken before may be lost, so the whole disk must be written anew. */
bool imageio_write(struct imageio *io, const void *buf, size_t len, uint64_t offset,
                   struct err *err);
/* Make a range read as zeroes: by PATCH where the host can, else by writing. */
bool imageio_zero(struct imageio *io, uint64_t offset, uint64_t len, struct err *err);
/* All that was written is durable when this returns true. */
bool imageio_flush(struct imageio *io, struct err *err);

/* The host's digest of the whole disk, in lower-case hex: SHA-256 over the SHA-256 of each block.
 * The host reads all of it before it answers. Errors, beside those of reading: unsupported when it
 * makes none. */
enum { IMAGEIO_CHECKSUM_BLOCK = 4 << 20, IMAGEIO_CHECKSUM_CHARS = 65 };
bool imageio_checksum(struct imageio *io, char ret[IMAGEIO_CHECKSUM_CHARS], struct err *err);
