/* SPDX-License-Identifier: Apache-2.0 */
/* What reader.c and verify.c need of an open point. Not for other modules. */
#pragma once

#include "worker/store/fate.h"
#include "worker/store/repo.h"

struct store_point {
    struct store *store;
    struct point_record record;
};

/* Open the point of a session whose fate, a commit, is at hand. */
struct store_point *point_open_session(struct store *store, const char *session,
                                       const struct fate *fate, struct err *err);
/* The record of a disk, or NULL. */
const struct record_disk *point_disk(const struct store_point *point, const char *disk_id);

/* The file of a blob, checked by its digest and still sealed, into `out`, which is initialised.
 * Needs no key. */
bool point_blob_read(const struct store_point *point, const struct record_blob *blob,
                     struct buf *out, struct err *err);
