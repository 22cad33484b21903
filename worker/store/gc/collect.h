/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the collector share: what it has seen of pins, fates and points. Not for other
 * modules. Threads: a view belongs to one thread.
 */
#pragma once

#include "worker/store/gc/usage.h"
#include "worker/store/upkeep.h"

/* Names, sorted. */
struct view {
    struct store *store;
    bool frames;                 /* usage knows frames */
    struct object_names fates;   /* sessions that have one */
    struct object_names deleted; /* with a tombstone */
    struct object_names revoked; /* of the fates: their packs may go at once */
    struct object_names bequeathed;
    struct object_names live; /* of the fates: points that are there, counted in usage */
    struct usage *usage;
    uint8_t (*pinned)[PACK_ID_BYTES]; /* by sessions without fate; sorted */
    size_t n_pinned;
    struct object_names pinned_points;
    bool pins_everything;            /* a pin could not be read */
    char blocked[ERR_MESSAGE_BYTES]; /* a point could not be read; "" = all could */
};

void view_init(struct view *v, struct store *store, bool frames);
void view_done(struct view *v);

/* Look at pins, then fates, then what points refer to. May be repeated: points are read once. */
bool view_look(struct view *v, struct err *err);
bool view_is_pinned(const struct view *v, const uint8_t id[PACK_ID_BYTES]);

/* Sessions without a fate that were announced, but those in `fates`. */
bool sessions_without_fate(struct store *store, const struct object_names *fates,
                           struct object_names *ret_names, struct err *err);

/* Remove what nobody will need, but packs. Goes on after errors: what stays, stays for the next
 * time. */
void sweep_leftovers(const struct view *v, struct store_collect_result *result);

/* Where the next partial verification begins (scrub.c); 0 when that is not known. */
uint32_t scrub_cursor_read(struct store *store);
