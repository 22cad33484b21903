/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes of a manifest (docs/store-format.md, "Manifests"): the map of one disk, from disk
 * blocks to places in packs. `header | page* | tail | trailer`. Encoding and decoding only, no I/O;
 * decoders take hostile input. Threads: reentrant.
 */
#pragma once

#include "worker/store/pack.h"

enum {
    MANIFEST_HEADER_BYTES = 64,
    PAGE_RECORDS_MAX = 4096,
    PAGE_RECORD_BYTES = 12,
    PAGE_RAW_MAX = PAGE_RECORDS_MAX * PAGE_RECORD_BYTES,
    PAGE_STORED_MAX = PAGE_RAW_MAX + CRYPT_SEAL_BYTES,
    MANIFEST_TAIL_MAX = 256 << 20,
};

/* One run of blocks: disk block `block` and the following ones. `where.pack` is a number in the
 * manifest's pack table. Records are sorted by block and do not overlap. */
struct map_record {
    uint64_t block;
    struct location where;
};

static inline uint32_t map_record_blocks(const struct map_record *r)
{
    return r->where.blocks_less_1 + 1u;
}
static inline uint64_t map_record_end(const struct map_record *r)
{
    return r->block + map_record_blocks(r);
}
/* `n` of its blocks, from the `skip`-th on, in the pack of this number. */
static inline struct map_record map_record_part(const struct map_record *r, uint32_t skip,
                                                uint32_t n, uint32_t pack)
{
    return (struct map_record){
        .block = r->block + skip,
        .where = {.pack = pack,
                  .frame = r->where.frame,
                  .first = (uint8_t)(r->where.first + skip),
                  .blocks_less_1 = (uint8_t)(n - 1)},
    };
}
/* True when b continues a on the disk and in the same frame, so that both may be one record. */
bool map_records_join(const struct map_record *a, const struct map_record *b);

/* ---- pages */
struct page_entry {
    uint64_t first_block; /* of the first record */
    uint64_t offset;      /* in the file */
    uint32_t stored_len;
    uint32_t n_records;
    enum frame_codec codec;
    uint8_t digest[DIGEST_BYTES]; /* SHA-256 of the stored bytes */
};

/* How many of the `n` records go into the next page (a page also ends before a gap of 2^32 blocks).
 */
size_t page_split(const struct map_record *records, size_t n);
struct manifest;
/* Encode a page into `out` of PAGE_STORED_MAX bytes, and fill `entry` but for its offset. Uses the
 * names in `m`; `crypt` is NULL in a repository that is not encrypted. */
void page_encode(const struct manifest *m, const struct crypt *crypt,
                 const struct map_record *records, size_t n, uint8_t *out,
                 struct page_entry *entry);
/* Seal what would be stored otherwise: from `in` to `out` (CRYPT_SEAL_BYTES more), which may
 * overlap when in = out + CRYPT_SEAL_BYTES. Sets entry->stored_len; uses its other fields but the
 * digest. */
void page_seal(const struct manifest *m, const struct crypt *crypt, const uint8_t *in, size_t len,
               uint8_t *out, struct page_entry *entry);
/* Decode stored bytes into `records`, which holds entry->n_records. Checks the digest, the order,
 * the pack numbers and the blocks against `m`. `crypt` can write, or is NULL. */
bool page_decode(const struct manifest *m, const struct crypt *crypt, const uint8_t *stored,
                 const struct page_entry *entry, struct map_record *records, struct err *err);

/* ---- which frames of a pack a disk refers to: in the tail of a sealed manifest */
struct frame_use {
    uint32_t len; /* bytes */
    uint8_t *bits;
};
static inline bool frame_use_has(const struct frame_use *use, uint32_t frame)
{
    return frame / 8 < use->len && (use->bits[frame / 8] >> (frame % 8) & 1) != 0;
}
void frame_use_add(struct frame_use *use, uint32_t frame);

/* ---- header and tail */
void manifest_header_encode(const uint8_t repository[16], uint8_t out[MANIFEST_HEADER_BYTES]);
bool manifest_header_decode(const uint8_t in[MANIFEST_HEADER_BYTES], uint8_t ret_repository[16],
                            struct err *err);

struct manifest {
    uint64_t size_bytes;  /* of the disk */
    uint64_t data_blocks; /* mapped */
    uint64_t n_records;
    char disk_id[STORE_DISK_ID_MAX + 1];
    char session[STORE_SESSION_ID_MAX + 1];
    uint32_t n_packs, n_pages;
    struct pack_ref *packs;
    struct page_entry *pages;
    struct frame_use *uses; /* sealed: one a pack; else NULL */
};

static inline uint64_t disk_blocks(uint64_t size_bytes)
{
    return (size_bytes + STORE_BLOCK_BYTES - 1) / STORE_BLOCK_BYTES;
}

/* The encoded tail; the caller frees. Sealed when `m` has uses. */
uint8_t *manifest_tail_encode(const struct manifest *m, size_t *ret_len);
/* `tail_offset`: where it stood; the pages must lie before it. `is_sealed`: what it must be. The
 * caller calls manifest_done(). */
bool manifest_tail_decode(const uint8_t *in, size_t len, uint64_t tail_offset, bool is_sealed,
                          struct manifest *ret_manifest, struct err *err);
void manifest_done(struct manifest *m);
