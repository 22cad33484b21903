/* SPDX-License-Identifier: Apache-2.0 */
/* The keys of an encrypted repository, for the files of this module (keys.c also has what store.h
 * offers of them). Threads: reentrant. */
#pragma once

#include "worker/store/record.h"
#include "worker/store/repo.h"

enum { KEY_ID_BYTES = 8, KEY_JSON_MAX = 16384 };

/* A key object, decoded. */
struct key_record {
    char id[STORE_KEY_ID_CHARS + 1];
    char repository[37];
    char label[STORE_NAME_MAX + 1];
    char created[64];
    bool grants_restore;
    unsigned log2_n; /* of scrypt; 0 = of a key file */
    uint8_t salt[CRYPT_SALT_BYTES], tag[CRYPT_TAG_BYTES];
    uint8_t wrapped[2 * CRYPT_SECRET_BYTES];
    char *aad; /* what the wrapping is bound to */
};
/* Hostile input. The caller calls key_record_done(). */
bool key_record_decode(const char *text, size_t len, struct key_record *ret_record,
                       struct err *err);
void key_record_done(struct key_record *r);

/* The one line of a key file; store-key when it is none. */
bool key_line_decode(const char *line, uint8_t ret_key[CRYPT_SECRET_BYTES], struct err *err);
enum { KEY_LINE_BYTES = 12 + 64 + 1 + 8 + 1 };
void key_line_encode(const uint8_t key[CRYPT_SECRET_BYTES], char out[KEY_LINE_BYTES]);

/* Write keys/<id>.json for each of the two outer keys that `opts` names: for a new repository,
 * whose UUID and id are set. */
bool keys_make(struct store *store, const struct crypt_secrets *secrets,
               const struct store_opts *opts, struct err *err);

/* Set store->crypt, and store->key_id, by the outer key that `opts` names. */
bool keys_open(struct store *store, const struct store_opts *opts, struct err *err);
