/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The JSON files of a repository: repo.json and point.json (docs/store-format.md). Encoding and
 * decoding only; decoders take hostile input. Threads: reentrant.
 */
#pragma once

#include "worker/store/crypt.h"
#include "worker/store/digest.h"
#include "worker/store/store.h"

/* ---- what JSON files share; keys.c reads such files too */
enum { RECORD_FORMAT = 1 };
/* NULL with store-corrupt unless it is an object. The caller decrefs. */
json_t *record_load(const char *text, size_t len, const char *what, struct err *err);
/* Members; store-corrupt, naming the key. Borrowed. */
const char *record_text(const json_t *object, const char *key, size_t max, struct err *err);
bool record_number(const json_t *object, const char *key, uint64_t *out, struct err *err);
/* Exactly `len` bytes in hex. */
bool record_bytes(const json_t *object, const char *key, uint8_t *out, size_t len, struct err *err);
/* Set a member to bytes in hex. */
void record_set_bytes(json_t *object, const char *key, const uint8_t *data, size_t len);
/* The compact, sorted dump of a JSON object without some members (a NULL-terminated list): what
 * checksums and seals are made of. The caller frees. */
char *record_canonical(const json_t *object, const char *const *without);
/* Set, and compare, the member "checksum". */
void record_set_checksum(json_t *object);
bool record_check_checksum(const json_t *object, struct err *err);
/* The file's text: indented, sorted, with a line end. The caller frees. */
char *record_text_of(const json_t *object);

/* ---- repo.json */
struct repo_record {
    char uuid[37];
    bool write_refused; /* a feature that only readers of this version understand is on */
    bool is_encrypted;
};
enum { REPO_JSON_MAX = 65536 };
/* A new repository's file; `created_ms` is wall time. The caller frees. */
char *repo_record_encode(const char *uuid, int64_t created_ms, bool is_encrypted);
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

/* The text of point.json; `meta` may be NULL. `crypt` is the repository's, NULL when it is not
 * encrypted. NULL when it is larger than STORE_POINT_JSON_MAX. The caller frees. */
char *point_record_encode(const struct point_record *r, const json_t *meta,
                          const struct crypt *crypt, size_t *ret_len, struct err *err);
/* With a crypt that can write, what is sealed comes out as if it never was. With one that cannot,
 * the VM's name is empty and there is no meta, and nobody knows who wrote the rest. The caller
 * calls point_record_done(). */
bool point_record_decode(const char *text, size_t len, const struct crypt *crypt,
                         struct point_record *ret_record, struct err *err);
void point_record_done(struct point_record *r);
