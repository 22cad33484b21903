/* SPDX-License-Identifier: Apache-2.0 */
/* The map of an open disk, for the files of this module: the parent of an incremental write, and
 * verification. Not for other modules. */
#pragma once

#include "worker/store/manifest.h"
#include "worker/store/point.h"

struct store_reader {
    struct store *store;
    int fd; /* the manifest */
    struct manifest map;
    struct cache *pages;      /* page number -> struct map_page */
    char *name;               /* "point P disk D", for messages */
    bool is_of_part;          /* the point is a part: */
    struct store_stats stats; /* of the disk, when it was written */
};

/* Records, growing. */
struct map_records {
    struct map_record *items;
    size_t count, capacity;
};
void map_records_add(struct map_records *list, const struct map_record *record);
void map_records_done(struct map_records *list);
#define SCOPED_MAP_RECORDS __attribute__((cleanup(map_records_done), unused))

/* Which frames the disk refers to, of each pack of reader->map.packs. Needs no key. The caller
 * frees with frame_uses_free(). */
bool reader_frame_uses(struct store_reader *reader, struct frame_use **ret_uses, struct err *err);
void frame_uses_free(struct frame_use *uses, uint32_t n_packs);

/* What store_walk_next() hands out: pieces of a disk that lie in one frame, in its order. */
struct store_part {
    struct store_reader *reader;
    uint32_t pack_ahead; /* of reader->map.packs, or NO_PACK: see below */
    size_t n;
    struct map_record records[];
};
enum { NO_PACK = UINT32_MAX };
/* To be called before the frame of the part is read: opens the pack behind that of this part, when
 * it is this part's turn, so that it is open when all threads come to it. Errors are left to them.
 */
void store_part_open_ahead(const struct store_part *part);
/* After store_walk_next() has failed: leave out the range of blocks whose map cannot be read, and
 * go on behind it. */
void walk_skip(struct store_walk *walk, uint64_t *ret_block, uint64_t *ret_n);

/* The records of blocks [block, block + n), cut to that range, appended to `out`. Pack numbers are
 * those of reader->map.packs. */
bool reader_map(struct store_reader *reader, uint64_t block, uint64_t n, struct map_records *out,
                struct err *err);
