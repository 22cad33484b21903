/* SPDX-License-Identifier: Apache-2.0 */
/* Restore points as the items of a listing. */
#pragma once

#include "proto/wire/message.h"
#include "worker/store/store.h"

struct point_items {
    struct wire_point_item *v; /* owned */
    size_t count, room;
};

/* Adds one point; reads its meta for the time of the snapshot and the quiescing. A point that
 * cannot be read is listed as damaged, with the reason. `zone` may be NULL. */
void point_items_add(struct point_items *items, struct store *store,
                     const struct store_point_info *info, const char *zone);
/* Frees the items; it may be filled again. */
void point_items_done(struct point_items *items);
