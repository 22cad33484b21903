/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The JSON files of a repository: repo.json and point.json (docs/store-format.md). Encoding and
 * decoding only; decoders take hostile input. Threads: reentrant.
 */
#pragma once

#include "worker/store/digest.h"
#include "worker/store/store.h"

/* ---- repo.json */
struct repo_record {
    char uuid[37];
    bool write_refused; /* a feature that only readers of this version understand is on */
};
enum { REPO_JSON_MAX = 65536 };
/* A new repository's file; `created_ms` is wall time. The caller frees. */
char *repo_record_encode(const char *uuid, int64_t created_ms);
bool repo_record_decode(const char *text, size_t len, struct repo_record *ret_record,
                        struct err *err);

/* ---- point.json */
struct record_disk {
    struct store_point_disk disk;          /* id is owned */
    uint8_t manifest_digest[DIGEST_BYTES]; /* of the manifest's tail */
};
struct record_blob {
    char *name;
    uint64_t size_bytes;
    uint8_t digest[DIGEST_BYTES];
};
struct point_record {
    struct store_point_info info; /* strings are owned; damage is NULL */
    struct store_stats stats;
    char repository[37];
    size_t n_disks, n_blobs;
    struct record_disk *disks;
    struct record_blob *blobs;
    json_t *json; /* after decoding: all of it */
};

/* The text of point.json; `meta` may be NULL. NULL when it is larger than STORE_POINT_JSON_MAX. The
 * caller frees. */
char *point_record_encode(const struct point_record *r, const json_t *meta, size_t *ret_len,
                          struct err *err);
/* The caller calls point_record_done(). */
bool point_record_decode(const char *text, size_t len, struct point_record *ret_record,
                         struct err *err);
void point_record_done(struct point_record *r);
