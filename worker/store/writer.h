/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What session.c, commit.c, disk.c, stream.c and packwriter.c share: a restore point being written.
 * Not for other modules.
 *
 * Lock order: session->lock, then disk->lock; the locks of the store's tables are leaves.
 */
#pragma once

#include <stdatomic.h>

#include "proto/base/queue.h"
#include "worker/store/framecode.h"
#include "worker/store/gc/refer.h"
#include "worker/store/reader.h"
#include "worker/store/repo.h"

/* ---- a pack being written, by one thread (packwriter.c) */
struct pack_writer {
    struct store_session *session;
    int fd;
    uint8_t id[PACK_ID_BYTES];
    uint32_t number; /* in the store's table */
    size_t nth;      /* of the session */
    char path[64];
    bool is_direct; /* written past the page cache */
    uint8_t *bytes; /* aligned: what was gathered for the next write */
    size_t gathered;
    uint64_t len;     /* with what is gathered */
    uint64_t raw;     /* the frames' raw bytes */
    uint64_t flushed; /* where write-back was last started */
    struct footer_builder footer;
    struct envelope envelope; /* of all its frames, when the repository is encrypted */
};

/* Creates the file and its header. */
struct pack_writer *pack_writer_new(struct store_session *session, struct err *err);
/* Append the `len` bytes of a frame with its header, which `header` describes; its chunks were
 * added to the footer before. */
bool pack_writer_append(struct pack_writer *pack, const struct frame_header *header,
                        const uint8_t *frame, size_t len, struct err *err);
bool pack_writer_is_full(const struct pack_writer *pack);
/* Write footer and trailer, and hand the file to the session's sealer. Frees, on failure too. */
bool pack_writer_finish(struct pack_writer *pack, struct err *err);
/* Closes without finishing. NULL is fine. */
void pack_writer_free(struct pack_writer *pack);

/* A finished pack on its way to the sealer thread. */
struct seal_job {
    int fd;
    char path[64];
};

/* A disk of another point that blocks are kept from: the parent, or a part. */
struct keep_source {
    char point[STORE_SESSION_ID_MAX + 1], disk_id[STORE_DISK_ID_MAX + 1];
    uint32_t *packs; /* of its map's table -> numbers in the store's; DEDUP_NO_PACK = unusable */
};

/* ---- a disk being written (disk.c) */
struct store_disk {
    struct store_session *session;
    char *id;
    uint64_t size_bytes;
    struct store_reader *parent;
    uint32_t *parent_packs;     /* of the parent's table -> numbers in the store's; DEDUP_NO_PACK =
                                   unusable */
    atomic_uint n_carries;      /* streams that hold back a chunk of it, which may go on */
    pthread_mutex_t lock;       /* guards what follows */
    struct map_records records; /* pack numbers are the store's */
    struct store_stats stats;
    struct keep_source **sources; /* but the parent; they stay where they are */
    size_t n_sources;
    bool is_finished;
};
void disk_free(struct store_disk *disk);
/* The numbers of a reader's packs in the store's table. The first call for a disk of a point pins
 * them, and adds the statistics of a part point's disk. Borrowed until the disk is freed. */
const uint32_t *disk_source_packs(struct store_disk *disk, const struct store_reader *from);
/* Merge what one call found. */
void disk_merge(struct store_disk *disk, const struct map_records *records,
                const struct store_stats *stats);
/* Append a record, joined to the last one where they continue each other. */
void records_join(struct map_records *list, const struct map_record *record);
/* Write manifests/<session>/<disk>.mf; its digest goes to `ret_digest`. */
bool disk_write_manifest(struct store_disk *disk, uint8_t ret_digest[DIGEST_BYTES],
                         struct err *err);

/* ---- one thread's pipeline (stream.c) */
struct store_stream {
    struct store_session *session;
    struct store_stream *next; /* in the session's list of idle streams */
    struct hasher *hasher;
    struct frame_coder *coder;
    struct pack_writer *pack; /* NULL until the first new chunk, and after a full one */
    uint8_t *frame;           /* FRAME_RAW_MAX: the blocks of the frame being filled */
    uint8_t *encoded;         /* FRAME_BYTES_MAX */
    uint32_t frame_blocks, frame_chunks;
    struct hook_set hooks; /* of new chunks; pack numbers are the store's */
    struct unit *unit;     /* work space of a call */
};
/* Write out the frame being filled. What it takes is added to `stats`, or to those of the disk that
 * the stream has written last. */
bool stream_flush_frame(struct store_stream *s, struct store_stats *stats, struct err *err);
bool stream_flush(struct store_stream *stream, struct err *err);
/* Write out what is open: the frame, then the pack. */
bool stream_finish(struct store_stream *stream, struct err *err);
void stream_free(struct store_stream *stream);
/* May the disk be written there? */
bool stream_check_range(const struct store_disk *disk, uint64_t offset, uint64_t len,
                        struct err *err);

/* ---- the session (session.c) */
struct session_blob {
    char *name;
    void *data;
    size_t len;
};

struct session_pack {
    uint8_t id[PACK_ID_BYTES];
    uint32_t number;    /* in the store's table, once its file is there */
    bool may_be_sealed; /* its end was begun to be written: others may come to know it */
};

/* Packs of bequeathed sessions that this one has adopted (adopt.c). */
struct adopted {
    uint32_t *packs; /* the store's numbers */
    size_t n_packs;
    struct hook_set hooks;
};

enum session_state { SESSION_OPEN, SESSION_COMMITTED, SESSION_UNKNOWN, SESSION_ABORTED };

struct store_session {
    struct store *store;
    char *id, *vm_id, *vm_name, *worker;
    char *part_of;  /* NULL = an ordinary point */
    uint32_t owner; /* in the deduplication tables */
    struct referrer referrer;
    enum session_state state;
    struct queue *seals; /* struct seal_job */
    pthread_t sealer;
    bool has_sealer;
    atomic_bool is_failed; /* `failure` is set */
    pthread_mutex_t lock;  /* guards what follows */
    struct err failure;
    struct store_disk **disks;
    size_t n_disks;
    struct session_blob *blobs;
    size_t n_blobs;
    struct store_stream *idle;
    unsigned n_active;          /* streams begun and not ended */
    struct session_pack *packs; /* by number */
    size_t n_packs;
    struct adopted adopted;
    bool has_manifest_dir;
};

/* Keep the first error of the session. Returns false. */
bool session_fail(struct store_session *session, const struct err *err);
/* False, with a copy of the session's error, if it has failed. */
bool session_check(struct store_session *session, struct err *err);
/* The name of the next pack, noted before the file is created, for the abort. Returns its number.
 */
size_t session_next_pack(struct store_session *session, uint8_t ret_id[PACK_ID_BYTES]);
void session_pack_begins(struct store_session *session, size_t n, uint32_t number);
/* The end of pack number `n` is about to be written; or false: was not, after all, as a write that
 * fails has not written the last byte. */
void session_pack_ends(struct store_session *session, size_t n, bool may_be_sealed);
/* Write out what is open, and wait until all packs are durable. commit.c */
bool session_seal_packs(struct store_session *session, struct err *err);
/* Close the queue and wait for the last fsync. */
void session_join_sealer(struct store_session *session);
