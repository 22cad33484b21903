/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The repository: restore points of VM disks in a plain directory (local disk, NFS, gluster),
 * shared by any number of workers with no lock server and no clock. docs/store-format.md is
 * normative for what lies on the disk; docs/modules/store.md explains how this module works.
 *
 *     write:  store_session_begin
 *                 store_disk_begin                       once a disk
 *                     store_stream_begin / _write / _end once a copy thread
 *                 store_disk_finish
 *                 store_session_put_blob                 "vm.ovf", "vm.json"
 *             store_session_commit                       the point exists from here on
 *             store_session_free                         (aborts what was not committed)
 *     read:   store_points_list, store_point_open, store_disk_open, store_disk_extents,
 *             store_disk_read
 *
 * A point exists when its one commit record exists (`fate/<session>`, created if absent), and not
 * before. The same create-if-absent lets somebody else declare a session dead
 * (store_session_revoke): exactly one of the two wins, however late the other comes.
 *
 * The id of a restore point is the id of the session that wrote it.
 *
 * Threads: a store, a point and a reader may be used by any number of threads at once. One session:
 * begin, put_blob, commit, abort and free from one thread at a time; disks and streams of it from
 * many threads, each stream by one thread at a time. A store must outlive its sessions, points and
 * readers, and a point its readers' opening only.
 *
 * Errors: no-space, io-error, permission, unavailable from the file system; store-corrupt for
 * anything whose checksum, digest or structure is wrong; store-version for a repository or object
 * made by a newer version; store-revoked for a session that was declared dead; store-key for an
 * encrypted repository without the key that it takes.
 */
#pragma once

#include <stdint.h>

#include <jansson.h>

#include "proto/base/alloc.h"
#include "proto/base/buf.h"
#include "proto/base/err.h"
#include "worker/store/extent.h"

struct store;
struct store_session;
struct store_disk;
struct store_stream;
struct store_point;
struct store_reader;

enum {
    STORE_BLOCK_BYTES = 4096,      /* leaf: unit of change detection and alignment of every write */
    STORE_SESSION_ID_MAX = 100,    /* characters; also of a point id */
    STORE_DISK_ID_MAX = 100,       /* characters */
    STORE_NAME_MAX = 255,          /* bytes of a VM, worker or disk name */
    STORE_DISKS_MAX = 1024,        /* disks of a point */
    STORE_BLOBS_MAX = 64,          /* blobs of a point */
    STORE_BLOB_MAX = 16 << 20,     /* bytes of one blob */
    STORE_POINT_JSON_MAX = 8 << 20 /* bytes of point.json */
};
/* The largest disk: 1 PiB. */
#define STORE_DISK_BYTES_MAX (UINT64_C(1) << 50)

/* ---- the repository ------------------------------------------------------------------------- */

/* Every field may be 0: the default applies. The same options for store_init and store_open. */
struct store_opts {
    int zstd_level;            /* compression of new frames: default 1; range -50..19 */
    uint64_t pack_bytes;       /* a pack is closed when it has reached this: default 96 MiB */
    size_t frame_cache_bytes;  /* decoded frames kept for readers: default 32 MiB */
    size_t footer_cache_bytes; /* pack footers kept: default 24 MiB */
    size_t dedup_cache_bytes;  /* known chunks kept in memory while writing: default 32 MiB */
    size_t dedup_hooks_max; /* entries of the sparse index kept in memory: default 4 Mi (64 MiB) */

    /* The key of an encrypted repository: a key file (store_key_file_make), or a file whose first
     * line is a passphrase; when both are given, either will do. Borrowed for the call. Giving one
     * for a repository that is not encrypted is an error (store-key), so that nobody can make us
     * write in clear by exchanging repo.json. */
    const char *key_file;
    const char *passphrase_file;
    /* Open an encrypted repository without a key: points can be listed (without the VM's name) and
     * deleted, garbage collected, and structure verified; all else is store-key. */
    bool keyless;
    bool encrypt;           /* store_init: encrypt it; each of the two files given becomes a key */
    unsigned scrypt_log2_n; /* work factor of new passphrases: default 17 (128 MiB); 14..20 */
};

/* Where programs look for the key if nothing else is said. */
#define STORE_KEY_FILE_VARIABLE        "OXBOW_KEY_FILE"
#define STORE_PASSPHRASE_FILE_VARIABLE "OXBOW_PASSPHRASE_FILE"
/* If neither file is set, take them from these variables. Borrowed from the environment. */
void store_opts_from_environment(struct store_opts *opts);

/* Make a new repository in `path`, which is created if missing and must be empty otherwise
 * ("lost+found" is allowed), and open it. Two makers at once: one wins, the other gets exists.
 * NULL on error: exists, and those above. The caller frees with store_free(). */
struct store *store_init(const char *path, const struct store_opts *opts, struct err *err);

/* Open an existing repository. NULL on error: not-found when there is none at `path`. */
struct store *store_open(const char *path, const struct store_opts *opts, struct err *err);

/* The file system may have been away and mounted anew, which leaves open descriptors stale: see
 * that `path` still leads to this repository, and open it again if it leads there by another way.
 * Sessions and readers of before may fail, new ones work. Call it before each piece of work.
 * Errors: unavailable when the path leads nowhere or to something else. */
bool store_refresh(struct store *store, struct err *err);

void store_free(struct store *store);

/* The repository's UUID, made by store_init. Borrowed. */
const char *store_uuid(const struct store *store);

bool store_is_encrypted(const struct store *store);
/* False: opened without a key, or with one that may only write backups. */
bool store_can_restore(const struct store *store);

/* Bytes that an ordinary user may still write to the file system below. */
bool store_free_space(const struct store *store, uint64_t *ret_bytes, struct err *err);

/* ---- keys of an encrypted repository: docs/store-format.md, "Encryption" ----------------------
 */

enum { STORE_KEY_ID_CHARS = 16 };

/* Make a new key file, readable by its owner only; exists when it is there. Who has it and the
 * repository has the backups; without it (and any other key) they are lost. */
bool store_key_file_make(const char *path, struct err *err);

struct store_key_info {
    char id[STORE_KEY_ID_CHARS + 1];
    char *label, *created; /* for people */
    bool is_passphrase;    /* else a key file */
    bool grants_restore;   /* else it only lets one write backups */
    bool is_used;          /* it has opened this store */
    char *damage;          /* NULL = fine */
};
struct store_key_list {
    struct store_key_info *items;
    size_t count;
};
/* Needs no key. The caller frees with store_key_list_done(). */
bool store_keys_list(struct store *store, struct store_key_list *ret_list, struct err *err);
void store_key_list_done(struct store_key_list *list);

struct store_key_opts {
    const char *key_file, *passphrase_file; /* exactly one of them */
    const char *label;                      /* for people; may be NULL */
    bool is_write_only; /* backups can be written with it, but none can be read */
};
/* One more key that opens the repository. No data is rewritten. Needs one that grants restore. */
bool store_key_add(struct store *store, const struct store_key_opts *opts,
                   char ret_id[STORE_KEY_ID_CHARS + 1], struct err *err);
/* Remove one: not the one in use (refused), so that one always stays that somebody has. Whoever
 * kept a copy of the key object can still open it with the old key. */
bool store_key_remove(struct store *store, const char *id, struct err *err);

/* ---- writing -------------------------------------------------------------------------------- */

/* What became of the bytes given to store_stream_write(), of one disk or of a whole session.
 * read = zero + unchanged + deduplicated + stored_raw. */
struct store_stats {
    uint64_t read_bytes;       /* given to us */
    uint64_t zero_bytes;       /* zero blocks: never stored */
    uint64_t unchanged_bytes;  /* equal to the same place of the parent point: referred to */
    uint64_t dedup_bytes;      /* in chunks known already: referred to */
    uint64_t stored_raw_bytes; /* new, before compression */
    uint64_t stored_bytes;     /* new, as written, with frame headers; see below */
    uint64_t chunks;           /* new chunks */
    uint64_t packs;            /* packs written (sessions only; packs are shared by disks) */
};
/* stored_bytes is complete once the disk is finished. A frame that disks share counts for one. */

/*
 * Part points: what a worker has copied of a VM for another worker's task (`part_of`). To the
 * protocol of the repository they are points like any other, with packs, manifests and an index;
 * but they are in no list that does not ask for them, nobody's parent, and not restored, protected
 * or counted by retention. The task keeps their pieces (store_stream_keep_from), commits its one
 * point, and deletes them; what it leaves behind is found by its id.
 */

struct store_session_opts {
    const char *id;      /* "<task uuid>.<fence>": unique per attempt, slug characters */
    const char *vm_id;   /* the engine's id of the VM */
    const char *vm_name; /* at most STORE_NAME_MAX bytes, UTF-8 */
    const char *worker;  /* who writes, for people; may be NULL */
    /* Slug, NULL = none: the point will hold only pieces of the VM, copied for the task of this
     * id, which takes them into its own point: see "part points". */
    const char *part_of;
};

/* Begin to write a restore point. Announces the session durably before the first pack is made, and
 * takes note of the chunks of all committed points. Errors: exists when the id was begun before
 * (or has been committed), store-revoked when it was revoked already, bad-argument. */
struct store_session *store_session_begin(struct store *store,
                                          const struct store_session_opts *opts, struct err *err);

/*
 * Declare the session `session_id` dead, whether it was ever begun or not: it can never commit from
 * now on. If it has committed before, nothing changes and *ret_was_committed is true: its point
 * stands. Idempotent. The first act of the next attempt of a task, for each former attempt.
 */
bool store_session_revoke(struct store *store, const char *session_id, bool *ret_was_committed,
                          struct err *err);

/*
 * The same, but for what the dead session has stored: it goes to the heirs. A revoked session's
 * packs are free to go at once; a bequeathed one's are like those of a point nobody refers to, so
 * that later sessions may refer to them. What stands already is not changed: a session that was
 * revoked before stays so.
 */
bool store_session_bequeath(struct store *store, const char *session_id, bool *ret_was_committed,
                            struct err *err);

struct store_adopted {
    uint64_t packs;
    uint64_t bytes;     /* of these files */
    uint64_t raw_bytes; /* of disks, in them */
};

/*
 * Make the chunks in the finished packs of a bequeathed session known, so that what is equal is
 * referred to rather than stored again. Between begin and the first disk. A pack that is not
 * finished, damaged, or collected just now is left out, with a line in the log; a session that was
 * revoked has none to give. Reads a footer a pack, and syncs their directories.
 * Errors: refused when the session has no fate, or has committed; those of the file system.
 * Whatever fails, the session goes on, and only stores more.
 */
bool store_session_adopt(struct store_session *session, const char *dead_id,
                         struct store_adopted *ret_adopted, struct err *err);

struct store_disk_opts {
    const char *id;      /* the engine's disk id: slug characters, unique in the session */
    uint64_t size_bytes; /* any size, 0 and odd ones too, up to STORE_DISK_BYTES_MAX */
    /* A reader of the same disk in an earlier point of this store, or NULL. Blocks equal to the
     * parent's at the same offset refer to its data: only really changed 4 KiB blocks are stored,
     * whatever the dedup index knows. Borrowed until store_disk_finish(). */
    struct store_reader *parent;
};

/* Begin one disk of the point. The session owns the result; it is valid until store_session_free.
 */
struct store_disk *store_disk_begin(struct store_session *session,
                                    const struct store_disk_opts *opts, struct err *err);

/* All ranges of the disk have been written: what was not written reads as zeroes. The streams that
 * wrote to it have ended, or gone on to another disk. `ret_stats` may be NULL. Errors: bad-argument
 * when ranges overlapped, or such a stream has not ended. */
bool store_disk_finish(struct store_disk *disk, struct store_stats *ret_stats, struct err *err);

/* How far a disk is, from any thread, cheap. */
void store_disk_stats(struct store_disk *disk, struct store_stats *ret_stats);

/* A writer for one thread: owns a frame and a pack being filled (about 9 MiB). The session keeps
 * the pack open after store_stream_end() for the next stream, so use one per thread and disk. */
struct store_stream *store_stream_begin(struct store_session *session, struct err *err);

/*
 * Store [offset, offset + len) of the disk. `offset` is a multiple of STORE_BLOCK_BYTES; so is
 * `len`, unless the range ends at the end of the disk. Each byte at most once per disk. Where a
 * stream goes on where its last call ended, chunks cross from one call to the next: long runs by
 * one stream find more of what is known, in calls of about half a MiB, which stay in the
 * processor's cache.
 * After an error the session is failed: every further write and the commit fail with that error.
 */
bool store_stream_write(struct store_stream *stream, struct store_disk *disk, uint64_t offset,
                        const void *data, size_t len, struct err *err);

/*
 * Take [offset, offset + len) from the disk's parent as it is, without reading it (what changed
 * block tracking calls clean). Aligned as for store_stream_write. Asserts that there is a parent;
 * what lies beyond the parent's end is zero. What must not be referred to where it lies (it is
 * marked as damaged, or as garbage) is copied; what cannot be read either, because it is damaged
 * or the key may not read, is not taken: `lost` gets the range, with those parts as data, and the
 * caller writes them from the source. NULL: then it is an error.
 */
bool store_stream_keep(struct store_stream *stream, struct store_disk *disk, uint64_t offset,
                       uint64_t len, struct extents *lost, struct err *err);

/*
 * The same from any disk of any point of this store: how what other workers have copied gets into
 * one point. `from` is a reader of that disk, of the same store, borrowed for the call; where it
 * ends before the disk, the rest is zero. By the rules of garbage it is like a parent: its packs
 * are pinned at the first call, so the point may be deleted meanwhile. The statistics of a part
 * point's disk count for this disk from the first call on, in place of what is kept.
 * Errors: bad-argument when `from` is in another repository.
 */
bool store_stream_keep_from(struct store_stream *stream, struct store_disk *disk,
                            struct store_reader *from, uint64_t offset, uint64_t len,
                            struct extents *lost, struct err *err);

/* Give the stream back to its session. NULL is fine. The data is durable after the commit only. */
void store_stream_end(struct store_stream *stream);

/* Keep a small file with the point: "vm.ovf", "vm.json". `name` is a slug of at most 64 characters
 * that is neither "point.json" nor ends in ".mf"; a name twice is exists. Durable at commit. */
bool store_session_put_blob(struct store_session *session, const char *name, const void *data,
                            size_t len, struct err *err);

/*
 * Make everything durable (packs, their directories, manifests, blobs, index, point.json, in this
 * order) and create the commit record. `meta` is a JSON object of the caller's, kept under "meta"
 * in point.json (engine, task, fence, warnings, ...); borrowed, may be NULL. Every disk must be
 * finished and every stream ended. Errors: store-revoked when somebody declared the session dead,
 * whatever failed earlier in the session, and those of the file system. If the outcome of the last
 * step cannot be known (an I/O error there), the error says so, and nothing is removed:
 * store_session_revoke() settles it.
 */
bool store_session_commit(struct store_session *session, const json_t *meta, struct err *err);

/* The sum over all disks so far, from any thread. */
void store_session_stats(struct store_session *session, struct store_stats *ret_stats);

/* Give up: removes the packs and other files of the session and revokes it. Nothing of a committed
 * session is touched. All streams must have ended. Errors only tell that leftovers remain, which
 * nobody will ever read. */
bool store_session_abort(struct store_session *session, struct err *err);

/* Give up, but leave what was stored to the next attempt, as store_session_bequeath() would: its
 * last packs are finished first. Aborts a session that has failed. All streams must have ended.
 * Errors as of abort. */
bool store_session_leave(struct store_session *session, struct err *err);

/* Frees the session, its disks and streams; aborts it first if it was not committed. */
void store_session_free(struct store_session *session);

/* ---- reading -------------------------------------------------------------------------------- */

struct store_point_info {
    char *id;              /* = session id */
    char *vm_id;           /* "" when damaged beyond reading */
    char *vm_name;         /* likewise */
    char *worker;          /* likewise */
    int64_t created_ms;    /* wall time of the writer, for people only; 0 when damaged */
    uint64_t size_bytes;   /* sum of the disks' sizes */
    uint64_t read_bytes;   /* of it not known to be zero */
    uint64_t stored_bytes; /* written for this point */
    unsigned disks;
    char *part_of; /* the task that it was copied for, of a part point; else NULL */
    char *damage;  /* NULL = fine; else why the point cannot be used */
};

struct store_point_list {
    struct store_point_info *items; /* oldest first (by created_ms, then id) */
    size_t count;
};

struct store_point_filter {
    const char *vm_id;   /* NULL = any */
    const char *vm_name; /* NULL = any; compared exactly */
    bool parts;          /* part points too: they are left out otherwise */
    const char *part_of; /* only the part points of this task; NULL = as `parts` says */
};

/* All committed points that match (`filter` NULL = all but part points). A point whose records are
 * damaged is listed with `damage` whatever the filter: nobody knows whose it was. The caller frees
 * with store_point_list_done(). */
bool store_points_list(struct store *store, const struct store_point_filter *filter,
                       struct store_point_list *ret_list, struct err *err);
void store_point_list_done(struct store_point_list *list);

/* Open a committed point by its id, or by a prefix of it that no other point has. Errors:
 * not-found, conflict (several points have the prefix; the message names some), store-corrupt;
 * refused for a part point, which is not a whole VM. */
struct store_point *store_point_open(struct store *store, const char *id_or_prefix,
                                     struct err *err);
/* The same, of part points too. For who takes pieces from them, or looks at them. */
struct store_point *store_point_open_any(struct store *store, const char *id_or_prefix,
                                         struct err *err);
void store_point_free(struct store_point *point);

struct store_point_disk {
    const char *id;
    uint64_t size_bytes;
    struct store_stats stats;
};

/* All borrowed from the point. */
const struct store_point_info *store_point_info(const struct store_point *point);
size_t store_point_disk_count(const struct store_point *point);
const struct store_point_disk *store_point_disk(const struct store_point *point, size_t i);
/* The caller's JSON object given at commit; NULL if there was none. */
const json_t *store_point_meta(const struct store_point *point);
/* All of point.json. */
const json_t *store_point_json(const struct store_point *point);
size_t store_point_blob_count(const struct store_point *point);
const char *store_point_blob_name(const struct store_point *point, size_t i);

/* The bytes of a blob, verified, into `out` (initialised here; the caller calls buf_done, also
 * after an error). not-found when the point has none of that name. */
bool store_point_blob(const struct store_point *point, const char *name, struct buf *out,
                      struct err *err);

/* Open a disk of a point for reading. Loads the map's page index only. not-found: no such disk. */
struct store_reader *store_disk_open(struct store_point *point, const char *disk_id,
                                     struct err *err);
void store_reader_free(struct store_reader *reader);
uint64_t store_reader_size(const struct store_reader *reader);
/* Bytes of it that are not a hole, in whole blocks. */
uint64_t store_reader_data(const struct store_reader *reader);
/* In how many pieces the data lies in the repository, each of one frame. */
uint64_t store_reader_pieces(const struct store_reader *reader);

/* Which parts of [offset, offset + len) hold data. Appends to `out` (the caller empties it); the
 * result covers the range exactly. Data extents are multiples of STORE_BLOCK_BYTES but for a cut at
 * the range's ends. bad-argument beyond the end of the disk. */
bool store_disk_extents(struct store_reader *reader, uint64_t offset, uint64_t len,
                        struct extents *out, struct err *err);

/* Read any range of the disk. Every byte is verified (frame CRC and block digest) before it is
 * handed over; holes are zeroes. bad-argument beyond the end of the disk. */
bool store_disk_read(struct store_reader *reader, void *buf, size_t len, uint64_t offset,
                     struct err *err);

/*
 * All data of a disk in the order that costs least: by pack and frame, each frame read and decoded
 * once in some GiB of disk. What is not handed over reads as zeroes.
 *
 *     store_walk_new
 *         store_walk_next                one thread at a time: a part
 *             store_part_read            any threads at once: its pieces
 *
 * Memory: about 10 MiB, and 1 MiB for each part being read.
 */
struct store_walk;
struct store_part;

/* The reader must outlive the walk and its parts. */
struct store_walk *store_walk_new(struct store_reader *reader);
void store_walk_free(struct store_walk *walk);
/* The next part; the caller frees it. NULL at the end, and on error. */
struct store_part *store_walk_next(struct store_walk *walk, struct err *err);
void store_part_free(struct store_part *part);
/* How many bytes of the disk the part holds, in whole blocks, and where the first of them is. */
uint64_t store_part_bytes(const struct store_part *part);
uint64_t store_part_offset(const struct store_part *part);
/* Takes one piece: whole blocks, aligned in memory too; the last one may reach beyond the end of an
 * odd-sized disk, with zeroes. False ends the reading with its error. */
typedef bool (*store_piece_fn)(void *context, const void *data, size_t len, uint64_t offset,
                               struct err *err);
/* Hand over all pieces of the part, verified like those of store_disk_read(). */
bool store_part_read(const struct store_part *part, store_piece_fn take, void *context,
                     struct err *err);

/* ---- verifying ------------------------------------------------------------------------------ */

struct store_verify_opts {
    /* 0 = one for each processor, at most 8. On ext4 and XFS there are three times as many, as most
     * wait for the disk. Each needs 3 MiB. */
    unsigned threads;
    bool quick;    /* only structure: maps, packs and footers; the data is not read */
    void *context; /* of the callbacks, each of which may be NULL */
    /* Called from one thread at a time, some times a second. */
    void (*progress)(void *context, uint64_t done_bytes, uint64_t total_bytes);
    bool (*cancelled)(void *context);
    /* Called for each damaged range, from one thread at a time. disk_id is NULL for a blob. */
    void (*damaged)(void *context, const char *disk_id, uint64_t offset, uint64_t len,
                    const struct err *why);
};

struct store_verify_result {
    uint64_t checked_bytes; /* raw bytes of frames decoded and compared with their digests */
    uint64_t damaged_bytes; /* bytes of disks that cannot be restored */
    uint64_t damaged_ranges;
    bool sums_only; /* for want of a key: checksums and plain digests, which find every accident,
                       but not a forgery */
};

/* Check everything a restore of the point needs. True when all of it is fine. False: store-corrupt
 * with the first damage when some is not (`ret_result` is set then too), cancelled, or another
 * error. `opts` may be NULL. */
bool store_verify_point(struct store *store, const char *id_or_prefix,
                        const struct store_verify_opts *opts,
                        struct store_verify_result *ret_result, struct err *err);

DEFINE_SCOPED(store, store_free);
DEFINE_SCOPED(store_session, store_session_free);
DEFINE_SCOPED(store_point, store_point_free);
DEFINE_SCOPED(store_reader, store_reader_free);
DEFINE_SCOPED(store_walk, store_walk_free);
DEFINE_SCOPED(store_part, store_part_free);
