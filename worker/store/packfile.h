/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading packs: footers and frames, verified, through the store's caches. Threads: any, at once.
 */
#pragma once

#include <stdatomic.h>

#include "worker/store/decoder.h"
#include "worker/store/repo.h"

/* Where the bytes of a frame are read from. Past the page cache, what is checked is what the disk
 * has, and nothing that others need is pushed out of it; on file systems that do not like it they
 * are read as ever. */
enum frame_from { FRAME_FROM_CACHE, FRAME_FROM_DISK };

/* An open pack: its file and its verified footer. */
struct open_pack {
    int fd;
    atomic_int direct_fd; /* the same file with O_DIRECT; -1 until the first such read */
    struct footer footer;
    uint8_t digest[DIGEST_BYTES];
    char path[64]; /* in the repository, for messages */
};

/* The name of pack number `n` of a session (docs/store-format.md, "Packs"). */
void pack_id_of_session(const uint8_t repository[16], const char *session, uint32_t n,
                        uint8_t ret_id[PACK_ID_BYTES]);

/* "packs/ab/abcd....pk" into `out` of 64 bytes. */
void pack_path(const uint8_t id[PACK_ID_BYTES], char *out);

/* Open and check the pack past the cache; its digest is not compared with ref's. The caller frees
 * with open_pack_free(). */
struct open_pack *open_pack_load(struct store *store, const struct pack_ref *ref, struct err *err);
void open_pack_free(void *pack);
/* A frame of it, verified; the caller frees with frame_free(). */
struct frame *open_pack_frame(struct store *store, struct open_pack *pack, uint16_t frame,
                              enum frame_from from, struct err *err);

/* The pack that `ref` names; store-corrupt when it is missing, damaged, or not that one. Unpin from
 * store->packs. */
struct cache_item *pack_pin(struct store *store, const struct pack_ref *ref, struct err *err);
static inline struct open_pack *pack_of(const struct cache_item *item)
{
    return cache_value(item);
}

/* A frame of a pack. Unpin from store->frames. */
struct cache_item *frame_pin(struct store *store, const struct pack_ref *ref, uint16_t frame,
                             struct err *err);
static inline const struct frame *frame_of(const struct cache_item *item)
{
    return cache_value(item);
}

/* The same past the store's cache; the caller frees with frame_free(). */
struct frame *frame_load(struct store *store, const struct pack_ref *ref, uint16_t frame,
                         enum frame_from from, struct err *err);

/* How many threads are to check frames: like crew_size(), and three times as many past the page
 * cache, where most of them wait for the disk. */
unsigned frame_crew(const struct store *store, unsigned asked);

/* The same of a frame of an open pack. */
bool open_pack_check_sums(struct store *store, struct open_pack *pack, uint16_t frame,
                          enum frame_from from, struct err *err);
/* Check a frame as far as that needs no key: its place, its sums. The blocks it has; 0 on error. */
uint32_t frame_check_sums(struct store *store, const struct pack_ref *ref, uint16_t frame,
                          enum frame_from from, struct err *err);
