/* SPDX-License-Identifier: Apache-2.0 */
/* Sealed blobs (docs/store-format.md, "Encryption"). Threads: reentrant. */
#pragma once

#include "proto/base/buf.h"
#include "worker/store/crypt.h"
#include "worker/store/store.h"

enum { BLOB_SEAL_BYTES = 80, BLOB_FILE_MAX = STORE_BLOB_MAX + BLOB_SEAL_BYTES };

/* The file of a blob; the caller frees. */
uint8_t *blob_seal(const struct crypt *crypt, const char *session, const char *name,
                   const void *data, size_t len, size_t *ret_len);
/* From the file's bytes to the blob's, in place. `crypt` can restore. */
bool blob_open(const struct crypt *crypt, const char *session, const char *name, struct buf *bytes,
               struct err *err);
