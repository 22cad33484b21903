/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/store/gc/refooter.h"

#include <string.h>
#include <unistd.h>

#include "proto/base/file.h"
#include "worker/store/bytes.h"
#include "worker/store/framecode.h"

enum {
    FOOTER_MAGIC = 0x5446584f, /* "OXFT" */
    FOOTER_VERSION = 1,
    SEALED_FLAG = 1,
    SEALED_CHUNK_BYTES = 34,
    LISTS_TRIED_MAX = 2, /* for one wrong bit: some tenths of a second each */
};

/* ---- the frames */

void pack_frames_done(struct pack_frames *f)
{
    if (f->fd >= 0)
        (void)close(f->fd);
    free(f->places);
    *f = (struct pack_frames){.fd = -1};
}

static bool header_at(const struct pack_frames *f, uint64_t at, struct frame_header *out)
{
    uint8_t bytes[FRAME_HEADER_BYTES];
    struct err err = ERR_INIT;
    return at + sizeof bytes <= f->len && file_pread_full(f->fd, bytes, sizeof bytes, at, &err) &&
           frame_header_decode(bytes, out, &err);
}

/* What the footer says of a frame whose header cannot be read. */
static uint32_t believed_len(const uint8_t *footer, size_t len, uint32_t frame, uint64_t at)
{
    size_t entry_at = FOOTER_HEADER_BYTES + (size_t)frame * FRAME_ENTRY_BYTES;
    if (len < entry_at + FRAME_ENTRY_BYTES || get_u64(footer + entry_at) != at)
        return 0;
    return get_u32(footer + entry_at + 8);
}

void pack_frames_walk(struct pack_frames *f, const uint8_t *footer, size_t footer_len, uint64_t end)
{
    uint64_t at = PACK_HEADER_BYTES;
    uint32_t capacity = 0;
    while (f->n_frames < PACK_FRAMES_MAX && at + FRAME_HEADER_BYTES < end) {
        struct frame_header header;
        uint32_t len = header_at(f, at, &header)
                           ? header.stored_len
                           : believed_len(footer, footer_len, f->n_frames, at);
        if (len == 0 || len > FRAME_STORED_MAX || end - at < (uint64_t)FRAME_HEADER_BYTES + len)
            break;
        if (f->n_frames == capacity) {
            capacity = capacity ? capacity * 2 : 64;
            f->places = xreallocarray(f->places, capacity, sizeof *f->places);
        }
        f->places[f->n_frames++] = (struct frame_place){.offset = at, .stored_len = len};
        at += FRAME_HEADER_BYTES + len;
    }
    f->end = at;
}

size_t pack_frames_footer_bytes(const struct pack_frames *f, bool is_sealed)
{
    uint64_t chunks = 0, leaves = 0;
    for (uint32_t i = 0; i < f->n_frames; i++) {
        struct frame_header header;
        if (!header_at(f, f->places[i].offset, &header))
            return 0;
        chunks += header.chunks;
        leaves += header.raw_len / STORE_BLOCK_BYTES;
    }
    uint64_t most = FOOTER_BYTES_MAX / LEAF_BYTES;
    if (f->n_frames == 0 || chunks > most || leaves > most)
        return 0;
    uint64_t len = footer_bytes(f->n_frames, (uint32_t)chunks, (uint32_t)leaves, is_sealed);
    return len <= FOOTER_BYTES_MAX ? (size_t)len : 0;
}

/* ---- the work */

struct again {
    struct store *store;
    const struct pack_frames *frames;
    struct hasher *hasher;
    struct frame_coder *coder;
    uint8_t *bytes; /* FRAME_BYTES_MAX */
    uint8_t *raw;   /* FRAME_RAW_MAX */
    uint8_t leaves[FRAME_BLOCKS_MAX * DIGEST_BYTES];
    uint16_t bounds[FRAME_BLOCKS_MAX + 1]; /* of chunks */
    unsigned lists_to_try;
};

/* One frame's part of the footer. */
struct part {
    uint32_t number, first_chunk, chunks, blocks;
    uint8_t *chunk; /* its first entry, or its sealed list */
    uint8_t *leaf;  /* not sealed: its first leaf */
};

/* The raw bytes of a frame and its leaves. False when it is damaged, or gone. */
static bool load_frame(struct again *a, const struct frame_place *place, struct frame_header *out)
{
    struct err err = ERR_INIT;
    size_t len = FRAME_HEADER_BYTES + (size_t)place->stored_len;
    if (place->offset == 0 || place->stored_len > FRAME_STORED_MAX ||
        !file_pread_full(a->frames->fd, a->bytes, len, place->offset, &err) ||
        !frame_check(a->bytes, len, out, &err) ||
        !frame_decode(a->coder, a->bytes, out, a->raw, &err))
        return false;
    for (uint32_t i = 0; i < out->raw_len / STORE_BLOCK_BYTES; i++)
        hasher_leaf(a->hasher, a->raw + (size_t)i * STORE_BLOCK_BYTES,
                    a->leaves + (size_t)i * DIGEST_BYTES);
    return true;
}

/* ---- where chunks end */

static uint32_t cut_by_rule(const struct again *a, uint32_t from, uint32_t blocks)
{
    uint32_t at = from;
    while (at < blocks && at - from < CHUNK_BLOCKS_MAX) {
        at++;
        if ((a->leaves[(size_t)(at - 1) * DIGEST_BYTES] & CHUNK_CUT_MASK) == 0)
            break;
    }
    return at;
}

static void chunk_id(const struct again *a, uint32_t from, uint32_t to, uint8_t out[DIGEST_BYTES])
{
    hasher_chunk(a->hasher, a->leaves + (size_t)from * DIGEST_BYTES, to - from, out);
}

/* The end of chunk `k`, which begins at `from`: of what its own entry and the next one say, and of
 * what the rule says, that which gives the id in the entry; else that on which the entries agree.
 */
static uint32_t end_of_chunk(const struct again *a, const struct part *p, uint32_t k, uint32_t from)
{
    const uint8_t *entry = p->chunk + (size_t)k * CHUNK_ENTRY_BYTES;
    uint32_t most = p->blocks - (p->chunks - 1 - k); /* one block for each that follows */
    if (k + 1 == p->chunks)
        return p->blocks;
    const uint32_t tries[] = {from + entry[35] + 1u, entry[CHUNK_ENTRY_BYTES + 34],
                              cut_by_rule(a, from, p->blocks)};
    bool is_possible[ARRAY_LEN(tries)];
    for (size_t i = 0; i < ARRAY_LEN(tries); i++) {
        uint8_t id[DIGEST_BYTES];
        is_possible[i] = tries[i] > from && tries[i] <= most && tries[i] - from <= CHUNK_BLOCKS_MAX;
        if (!is_possible[i])
            continue;
        chunk_id(a, from, tries[i], id);
        if (memcmp(id, entry, DIGEST_BYTES) == 0)
            return tries[i];
    }
    if (is_possible[0] && tries[0] == tries[1])
        return tries[0];
    for (size_t i = ARRAY_LEN(tries); i-- > 0;)
        if (is_possible[i])
            return tries[i];
    return 0;
}

static bool find_bounds(struct again *a, const struct part *p, bool by_rule_alone)
{
    uint32_t at = 0;
    a->bounds[0] = 0;
    for (uint32_t k = 0; k < p->chunks; k++) {
        uint32_t end = by_rule_alone ? cut_by_rule(a, at, p->blocks) : end_of_chunk(a, p, k, at);
        if (end <= at || end - at > CHUNK_BLOCKS_MAX)
            return false;
        a->bounds[k + 1] = (uint16_t)end;
        at = end;
    }
    return at == p->blocks;
}

/* ---- a frame's part */

static void put_leaves(const struct again *a, uint8_t *out, uint32_t blocks)
{
    for (uint32_t i = 0; i < blocks; i++)
        memcpy(out + (size_t)i * LEAF_BYTES, a->leaves + (size_t)i * DIGEST_BYTES, LEAF_BYTES);
}

static void plain_part(struct again *a, const struct part *p)
{
    put_leaves(a, p->leaf, p->blocks);
    if (!find_bounds(a, p, false))
        return;
    for (uint32_t k = 0; k < p->chunks; k++) {
        uint8_t *entry = p->chunk + (size_t)k * CHUNK_ENTRY_BYTES;
        chunk_id(a, a->bounds[k], a->bounds[k + 1], entry);
        put_u16(entry + 32, (uint16_t)p->number);
        entry[34] = (uint8_t)a->bounds[k];
        entry[35] = (uint8_t)(a->bounds[k + 1] - a->bounds[k] - 1);
    }
}

static bool list_opens(const struct again *a, const struct frame_entry *entry, const uint8_t *list,
                       size_t len)
{
    SCOPED_FREE uint8_t *work = xmalloc(len);
    return sealed_list_open(a->store->crypt, entry, list, work);
}

/* Its tag says whether a list is right; so one wrong bit is found by trying. */
static bool list_fix_bit(struct again *a, const struct frame_entry *entry, uint8_t *list,
                         size_t len)
{
    if (a->lists_to_try == 0)
        return false;
    a->lists_to_try--;
    for (size_t bit = 0; bit < len * 8; bit++) {
        list[bit / 8] ^= (uint8_t)(1u << bit % 8);
        if (list_opens(a, entry, list, len))
            return true;
        list[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    return false;
}

/* The salt of a list is that of its frame, unless that was healed; with it, sealing gives the same
 * bytes again. */
static void sealed_part(struct again *a, const struct part *p, const struct frame_header *header,
                        const struct frame_entry *entry)
{
    size_t len = sealed_list_bytes(p->chunks, header->raw_len);
    if (list_opens(a, entry, p->chunk, len) || list_fix_bit(a, entry, p->chunk, len) ||
        !find_bounds(a, p, true))
        return;
    memcpy(p->chunk, header->salt, CRYPT_SALT_BYTES);
    uint8_t *plain = p->chunk + CRYPT_SEAL_BYTES;
    for (uint32_t k = 0; k < p->chunks; k++, plain += SEALED_CHUNK_BYTES) {
        chunk_id(a, a->bounds[k], a->bounds[k + 1], plain);
        plain[32] = (uint8_t)a->bounds[k];
        plain[33] = (uint8_t)(a->bounds[k + 1] - a->bounds[k] - 1);
    }
    put_leaves(a, plain, p->blocks);
    list_seal(a->store->crypt, entry, p->chunk);
}

/* ---- the tables */

/* Raw length and chunks of a frame: by its header, or by its entry. */
static void measure(const struct again *a, uint32_t i, const uint8_t *entry,
                    struct frame_header *out)
{
    const struct frame_place *place = &a->frames->places[i];
    if (place->offset != 0 && header_at(a->frames, place->offset, out))
        return;
    *out = (struct frame_header){.stored_len = place->stored_len,
                                 .raw_len = get_u32(entry + 12),
                                 .chunks = get_u32(entry + 20)};
}

/* The original place of a frame that lies elsewhere now: frames lay without gaps, so each place is
 * said twice, by its entry and by the next. What a copied frame's length agrees with is right. */
static void put_original_place(const struct again *a, uint32_t i, uint8_t *entry)
{
    bool is_last = i + 1 == a->frames->n_frames;
    uint64_t at = PACK_HEADER_BYTES;
    if (i > 0)
        at = get_u64(entry - FRAME_ENTRY_BYTES) + FRAME_HEADER_BYTES +
             get_u32(entry - FRAME_ENTRY_BYTES + 8);
    uint64_t next = is_last ? a->frames->original_footer_at : get_u64(entry + FRAME_ENTRY_BYTES);
    put_u64(entry, at);
    if (get_u32(entry + 8) != a->frames->places[i].stored_len)
        put_u32(entry + 8, (uint32_t)(next - at - FRAME_HEADER_BYTES));
}

static bool put_frame_table(const struct again *a, uint8_t *footer, size_t len)
{
    bool is_sealed = a->store->crypt != NULL;
    uint32_t n = a->frames->n_frames;
    uint64_t chunks = 0, leaves = 0;
    if (n == 0 || len < FOOTER_HEADER_BYTES + (size_t)n * FRAME_ENTRY_BYTES)
        return false;
    for (uint32_t i = 0; i < n; i++) {
        uint8_t *entry = footer + FOOTER_HEADER_BYTES + (size_t)i * FRAME_ENTRY_BYTES;
        struct frame_header header;
        measure(a, i, entry, &header);
        if (a->frames->original_footer_at != 0) {
            put_original_place(a, i, entry);
        } else {
            put_u64(entry, a->frames->places[i].offset);
            put_u32(entry + 8, header.stored_len);
        }
        put_u32(entry + 12, header.raw_len);
        put_u32(entry + 16, (uint32_t)chunks);
        put_u32(entry + 20, header.chunks);
        chunks += header.chunks;
        leaves += header.raw_len / STORE_BLOCK_BYTES;
        if (header.raw_len > FRAME_RAW_MAX || chunks > len || leaves > len || header.chunks == 0 ||
            header.chunks > header.raw_len / STORE_BLOCK_BYTES)
            return false;
    }
    put_u32(footer, FOOTER_MAGIC);
    put_u16(footer + 4, FOOTER_VERSION);
    put_u16(footer + 6, LEAF_BYTES);
    put_u32(footer + 8, is_sealed ? SEALED_FLAG : 0);
    put_u32(footer + 12, n);
    put_u32(footer + 16, (uint32_t)chunks);
    put_u32(footer + 20, (uint32_t)leaves);
    memset(footer + 24, 0, 8);
    return footer_bytes(n, (uint32_t)chunks, (uint32_t)leaves, is_sealed) == len;
}

static void put_parts(struct again *a, uint8_t *footer)
{
    uint32_t n = a->frames->n_frames;
    uint8_t *chunk = footer + FOOTER_HEADER_BYTES + (size_t)n * FRAME_ENTRY_BYTES;
    uint8_t *leaf = chunk + (size_t)get_u32(footer + 16) * CHUNK_ENTRY_BYTES;
    for (uint32_t i = 0; i < n; i++) {
        const uint8_t *at = footer + FOOTER_HEADER_BYTES + (size_t)i * FRAME_ENTRY_BYTES;
        const struct frame_entry entry = {
            .stored_len = get_u32(at + 8), .raw_len = get_u32(at + 12), .chunks = get_u32(at + 20)};
        struct part part = {.number = i,
                            .chunks = entry.chunks,
                            .blocks = entry.raw_len / STORE_BLOCK_BYTES,
                            .chunk = chunk,
                            .leaf = leaf};
        struct frame_header header;
        bool is_loaded = load_frame(a, &a->frames->places[i], &header) &&
                         header.raw_len == entry.raw_len && header.chunks == entry.chunks;
        if (is_loaded && a->store->crypt)
            sealed_part(a, &part, &header, &entry);
        else if (is_loaded)
            plain_part(a, &part);
        chunk += a->store->crypt ? sealed_list_bytes(entry.chunks, entry.raw_len)
                                 : (size_t)entry.chunks * CHUNK_ENTRY_BYTES;
        leaf += (size_t)part.blocks * LEAF_BYTES;
    }
}

void footer_again(struct store *store, const struct pack_frames *f, uint8_t *footer, size_t len)
{
    if (!store_can_restore(store))
        return;
    struct again *a = ALLOC_NEW(struct again);
    *a = (struct again){.store = store, .frames = f, .lists_to_try = LISTS_TRIED_MAX};
    SCOPED(hasher) struct hasher *hasher = hasher_new(crypt_id_key(store->crypt));
    SCOPED(frame_coder) struct frame_coder *coder = frame_coder_new(store->crypt);
    SCOPED_FREE uint8_t *bytes = xmalloc(FRAME_BYTES_MAX), *raw = xmalloc(FRAME_RAW_MAX);
    a->hasher = hasher;
    a->coder = coder;
    a->bytes = bytes;
    a->raw = raw;
    if (put_frame_table(a, footer, len))
        put_parts(a, footer);
    free(a);
}
