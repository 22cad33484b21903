/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/store/manifest.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <zstd.h>

#include "proto/base/id.h"
#include "worker/store/bytes.h"
#include "worker/store/object.h"

enum {
    MANIFEST_VERSION = 1,
    TAIL_VERSION = 1,
    TAIL_MAGIC = 0x544d584f, /* "OXMT" */
    TAIL_HEADER_BYTES = 304,
    TAIL_NAME_BYTES = 120,
    PAGE_ENTRY_BYTES = 64,
    USE_HEADER_BYTES = 2,
    PAGE_ZSTD_LEVEL = 3,
    SEALED_FLAG = 1,
    PAGE_AAD_BYTES = 2 * TAIL_NAME_BYTES + 16,
};
static const char manifest_magic[8] = {'O', 'X', 'B', 'W', 'M', 'A', 'N', 'I'};

bool map_records_join(const struct map_record *a, const struct map_record *b)
{
    return map_record_end(a) == b->block && a->where.pack == b->where.pack &&
           a->where.frame == b->where.frame &&
           a->where.first + map_record_blocks(a) == b->where.first &&
           map_record_blocks(a) + map_record_blocks(b) <= FRAME_BLOCKS_MAX;
}

/* ---- pages: five columns, so that equal things lie side by side for the compressor */

size_t page_split(const struct map_record *records, size_t n)
{
    if (n > PAGE_RECORDS_MAX)
        n = PAGE_RECORDS_MAX;
    for (size_t i = 1; i < n; i++)
        if (records[i].block - map_record_end(&records[i - 1]) > UINT32_MAX)
            return i;
    return n;
}

static void put_columns(const struct map_record *records, size_t n, uint8_t *raw)
{
    uint8_t *gaps = raw, *packs = raw + 4 * n, *frames = raw + 8 * n, *firsts = raw + 10 * n,
            *counts = raw + 11 * n;
    uint64_t end = records[0].block;
    for (size_t i = 0; i < n; i++) {
        const struct map_record *r = &records[i];
        assert(r->block >= end && r->block - end <= UINT32_MAX);
        put_u32(gaps + 4 * i, (uint32_t)(r->block - end));
        put_u32(packs + 4 * i, r->where.pack);
        put_u16(frames + 2 * i, r->where.frame);
        firsts[i] = r->where.first;
        counts[i] = r->where.blocks_less_1;
        end = map_record_end(r);
    }
}

/* What a sealed page is bound to: the names as they stand in the tail, then its own entry. */
static void page_aad(const struct manifest *m, const struct page_entry *entry,
                     uint8_t out[PAGE_AAD_BYTES])
{
    memset(out, 0, PAGE_AAD_BYTES);
    memcpy(out, m->disk_id, strlen(m->disk_id));
    memcpy(out + TAIL_NAME_BYTES, m->session, strlen(m->session));
    put_u64(out + 2 * TAIL_NAME_BYTES, entry->first_block);
    put_u32(out + 2 * TAIL_NAME_BYTES + 8, entry->n_records);
    put_u32(out + 2 * TAIL_NAME_BYTES + 12, entry->codec);
}

void page_seal(const struct manifest *m, const struct crypt *crypt, const uint8_t *in, size_t len,
               uint8_t *out, struct page_entry *entry)
{
    uint8_t aad[PAGE_AAD_BYTES];
    page_aad(m, entry, aad);
    random_bytes(out, CRYPT_SALT_BYTES);
    crypt_seal(crypt, CRYPT_MAP, out, (struct crypt_aad){aad, sizeof aad}, in, len,
               out + CRYPT_SEAL_BYTES, out + CRYPT_SALT_BYTES);
    entry->stored_len = (uint32_t)(CRYPT_SEAL_BYTES + len);
}

void page_encode(const struct manifest *m, const struct crypt *crypt,
                 const struct map_record *records, size_t n, uint8_t *out, struct page_entry *entry)
{
    assert(n >= 1 && n <= PAGE_RECORDS_MAX);
    uint8_t raw[PAGE_RAW_MAX];
    uint8_t *stored = out;
    put_columns(records, n, raw);
    size_t raw_len = n * PAGE_RECORD_BYTES;
    if (crypt)
        out += CRYPT_SEAL_BYTES;
    size_t stored_len = ZSTD_compress(out, raw_len - 1, raw, raw_len, PAGE_ZSTD_LEVEL);
    entry->codec = FRAME_ZSTD;
    if (ZSTD_isError(stored_len)) { /* it does not shrink */
        memcpy(out, raw, raw_len);
        stored_len = raw_len;
        entry->codec = FRAME_RAW;
    }
    entry->first_block = records[0].block;
    entry->n_records = (uint32_t)n;
    entry->stored_len = (uint32_t)stored_len;
    if (crypt)
        page_seal(m, crypt, out, stored_len, stored, entry);
    digest_sha256(stored, entry->stored_len, entry->digest);
}

/* Open into `out` of PAGE_RAW_MAX bytes. */
static bool page_open(const struct manifest *m, const struct crypt *crypt, const uint8_t *stored,
                      const struct page_entry *entry, uint8_t *out, struct err *err)
{
    uint8_t aad[PAGE_AAD_BYTES];
    page_aad(m, entry, aad);
    return crypt_open(crypt, CRYPT_MAP, stored, (struct crypt_aad){aad, sizeof aad},
                      stored + CRYPT_SEAL_BYTES, entry->stored_len - CRYPT_SEAL_BYTES, out,
                      stored + CRYPT_SALT_BYTES) ||
           err_set(err, ERR_STORE_CORRUPT, 0, "map page at %" PRIu64 ": is not authentic",
                   entry->offset);
}

static bool page_unpack(const struct manifest *m, const struct crypt *crypt, const uint8_t *stored,
                        const struct page_entry *entry, uint8_t *raw, struct err *err)
{
    uint8_t opened[PAGE_RAW_MAX];
    size_t stored_len = entry->stored_len;
    uint8_t digest[DIGEST_BYTES];
    digest_sha256(stored, entry->stored_len, digest);
    if (memcmp(digest, entry->digest, DIGEST_BYTES) != 0)
        return err_set(err, ERR_STORE_CORRUPT, 0, "map page at %" PRIu64 ": wrong digest",
                       entry->offset);
    if (crypt) {
        if (!page_open(m, crypt, stored, entry, opened, err))
            return false;
        stored = opened;
        stored_len -= CRYPT_SEAL_BYTES;
    }
    size_t raw_len = (size_t)entry->n_records * PAGE_RECORD_BYTES;
    if (entry->codec == FRAME_RAW)
        memcpy(raw, stored, raw_len);
    else if (ZSTD_decompress(raw, raw_len, stored, stored_len) != raw_len)
        return err_set(err, ERR_STORE_CORRUPT, 0, "map page at %" PRIu64 ": does not decompress",
                       entry->offset);
    return true;
}

bool page_decode(const struct manifest *m, const struct crypt *crypt, const uint8_t *stored,
                 const struct page_entry *entry, struct map_record *records, struct err *err)
{
    uint8_t raw[PAGE_RAW_MAX];
    if (!page_unpack(m, crypt, stored, entry, raw, err))
        return false;
    size_t n = entry->n_records;
    uint64_t end = entry->first_block, n_blocks = disk_blocks(m->size_bytes);
    for (size_t i = 0; i < n; i++) {
        struct map_record *r = &records[i];
        r->block = end + get_u32(raw + 4 * i);
        r->where = (struct location){
            .pack = get_u32(raw + 4 * n + 4 * i),
            .frame = get_u16(raw + 8 * n + 2 * i),
            .first = raw[10 * n + i],
            .blocks_less_1 = raw[11 * n + i],
        };
        end = map_record_end(r);
        if (end > n_blocks || r->where.pack >= m->n_packs ||
            r->where.first + map_record_blocks(r) > FRAME_BLOCKS_MAX)
            return err_set(err, ERR_STORE_CORRUPT, 0,
                           "map page at %" PRIu64 ": record %zu is out of range", entry->offset, i);
    }
    if (records[0].block != entry->first_block)
        return err_set(err, ERR_STORE_CORRUPT, 0, "map page at %" PRIu64 ": wrong first block",
                       entry->offset);
    return true;
}

/* ---- header */

void manifest_header_encode(const uint8_t repository[16], uint8_t out[MANIFEST_HEADER_BYTES])
{
    memset(out, 0, MANIFEST_HEADER_BYTES);
    memcpy(out, manifest_magic, sizeof manifest_magic);
    put_u32(out + 8, MANIFEST_VERSION);
    memcpy(out + 16, repository, 16);
    put_u32(out + 60, crc32c(out, 60));
}

bool manifest_header_decode(const uint8_t in[MANIFEST_HEADER_BYTES], uint8_t ret_repository[16],
                            struct err *err)
{
    if (memcmp(in, manifest_magic, sizeof manifest_magic) != 0)
        return err_set(err, ERR_STORE_CORRUPT, 0, "no manifest header");
    if (get_u32(in + 60) != crc32c(in, 60))
        return err_set(err, ERR_STORE_CORRUPT, 0, "manifest header: wrong checksum");
    if (get_u32(in + 8) != MANIFEST_VERSION || get_u32(in + 12) != 0)
        return err_set(err, ERR_STORE_VERSION, 0,
                       "manifest version %" PRIu32 " flags %#" PRIx32 ": made by a newer version",
                       get_u32(in + 8), get_u32(in + 12));
    memcpy(ret_repository, in + 16, 16);
    return true;
}

/* ---- tail */

void frame_use_add(struct frame_use *use, uint32_t frame)
{
    uint32_t need = frame / 8 + 1;
    if (use->len < need) {
        use->bits = xrealloc(use->bits, need);
        memset(use->bits + use->len, 0, need - use->len);
        use->len = need;
    }
    use->bits[frame / 8] = (uint8_t)(use->bits[frame / 8] | 1u << (frame % 8));
}

static size_t uses_bytes(const struct manifest *m)
{
    size_t len = 0;
    for (uint32_t i = 0; m->uses && i < m->n_packs; i++)
        len += USE_HEADER_BYTES + m->uses[i].len;
    return len;
}

static void encode_uses(const struct manifest *m, uint8_t *at)
{
    for (uint32_t i = 0; m->uses && i < m->n_packs; i++) {
        const struct frame_use *use = &m->uses[i];
        put_u16(at, (uint16_t)use->len);
        memcpy(at + USE_HEADER_BYTES, use->bits, use->len);
        at += USE_HEADER_BYTES + use->len;
    }
}

static void encode_page_entry(const struct page_entry *p, uint8_t *at)
{
    put_u64(at, p->first_block);
    put_u64(at + 8, p->offset);
    put_u32(at + 16, p->stored_len);
    put_u32(at + 20, p->n_records);
    put_u32(at + 24, p->codec);
    memcpy(at + 32, p->digest, DIGEST_BYTES);
}

uint8_t *manifest_tail_encode(const struct manifest *m, size_t *ret_len)
{
    size_t len = TAIL_HEADER_BYTES + (size_t)m->n_packs * PACK_REF_BYTES +
                 (size_t)m->n_pages * PAGE_ENTRY_BYTES + uses_bytes(m);
    uint8_t *out = xcalloc(1, len);
    put_u32(out, TAIL_MAGIC);
    put_u16(out + 4, TAIL_VERSION);
    put_u32(out + 8, m->uses ? SEALED_FLAG : 0);
    put_u32(out + 12, STORE_BLOCK_BYTES);
    put_u64(out + 16, m->size_bytes);
    put_u64(out + 24, m->data_blocks);
    put_u64(out + 32, m->n_records);
    put_u32(out + 40, m->n_packs);
    put_u32(out + 44, m->n_pages);
    memcpy(out + 64, m->disk_id, strlen(m->disk_id));
    memcpy(out + 64 + TAIL_NAME_BYTES, m->session, strlen(m->session));
    uint8_t *at = out + TAIL_HEADER_BYTES;
    for (uint32_t i = 0; i < m->n_packs; i++, at += PACK_REF_BYTES)
        pack_ref_encode(&m->packs[i], at);
    for (uint32_t i = 0; i < m->n_pages; i++, at += PAGE_ENTRY_BYTES)
        encode_page_entry(&m->pages[i], at);
    encode_uses(m, at);
    *ret_len = len;
    return out;
}

static bool decode_name(const uint8_t *in, char *out, size_t max, const char *what, struct err *err)
{
    size_t len = strnlen((const char *)in, TAIL_NAME_BYTES);
    if (len > max)
        return err_set(err, ERR_STORE_CORRUPT, 0, "manifest: bad %s", what);
    memcpy(out, in, len);
    out[len] = '\0';
    if (!id_is_slug(out, (unsigned)max))
        return err_set(err, ERR_STORE_CORRUPT, 0, "manifest: bad %s", what);
    return true;
}

static bool decode_page_entry(const struct manifest *m, const uint8_t *at, uint64_t *page_end,
                              uint64_t *next_block, uint64_t tail_offset, bool is_sealed,
                              struct page_entry *p, struct err *err)
{
    uint32_t codec = get_u32(at + 24);
    *p = (struct page_entry){
        .first_block = get_u64(at),
        .offset = get_u64(at + 8),
        .stored_len = get_u32(at + 16),
        .n_records = get_u32(at + 20),
        .codec = codec == FRAME_ZSTD ? FRAME_ZSTD : FRAME_RAW,
    };
    memcpy(p->digest, at + 32, DIGEST_BYTES);
    if (codec > FRAME_ZSTD)
        return err_set(err, ERR_STORE_VERSION, 0, "manifest: page codec %" PRIu32, codec);
    size_t more = is_sealed ? CRYPT_SEAL_BYTES : 0;
    size_t raw_len = (size_t)p->n_records * PAGE_RECORD_BYTES + more;
    if (p->n_records == 0 || p->n_records > PAGE_RECORDS_MAX || p->stored_len <= more ||
        p->stored_len > raw_len || (codec == FRAME_RAW && p->stored_len != raw_len) ||
        p->offset < *page_end || p->offset > tail_offset ||
        tail_offset - p->offset < p->stored_len || p->first_block < *next_block ||
        p->first_block >= disk_blocks(m->size_bytes))
        return err_set(err, ERR_STORE_CORRUPT, 0, "manifest: bad page entry");
    *page_end = p->offset + p->stored_len;
    *next_block = p->first_block + p->n_records; /* each record covers at least one block */
    return true;
}

/* The use table: `len` bytes for m->n_packs packs. */
static bool decode_uses(struct manifest *m, const uint8_t *at, size_t len, struct err *err)
{
    m->uses = xcalloc(m->n_packs + 1u, sizeof *m->uses);
    for (uint32_t i = 0; i < m->n_packs; i++) {
        size_t n = len < USE_HEADER_BYTES ? 0 : get_u16(at);
        if (n == 0 || n > (PACK_FRAMES_MAX + 1) / 8 || len - USE_HEADER_BYTES < n ||
            at[USE_HEADER_BYTES + n - 1] == 0)
            return err_set(err, ERR_STORE_CORRUPT, 0, "manifest: bad use of pack %" PRIu32, i);
        m->uses[i].bits = xmalloc(n);
        m->uses[i].len = (uint32_t)n;
        memcpy(m->uses[i].bits, at + USE_HEADER_BYTES, n);
        at += USE_HEADER_BYTES + n;
        len -= USE_HEADER_BYTES + n;
    }
    return len == 0 || err_set(err, ERR_STORE_CORRUPT, 0, "manifest: bad counts");
}

static bool decode_tables(struct manifest *m, const uint8_t *at, uint64_t tail_offset,
                          bool is_sealed, struct err *err)
{
    m->packs = xcalloc(m->n_packs ? m->n_packs : 1, sizeof *m->packs);
    for (uint32_t i = 0; i < m->n_packs; i++, at += PACK_REF_BYTES)
        pack_ref_decode(at, &m->packs[i]);
    m->pages = xcalloc(m->n_pages ? m->n_pages : 1, sizeof *m->pages);
    uint64_t page_end = MANIFEST_HEADER_BYTES, next_block = 0, n_records = 0;
    for (uint32_t i = 0; i < m->n_pages; i++, at += PAGE_ENTRY_BYTES) {
        if (!decode_page_entry(m, at, &page_end, &next_block, tail_offset, is_sealed, &m->pages[i],
                               err))
            return false;
        n_records += m->pages[i].n_records;
    }
    if (n_records != m->n_records)
        return err_set(err, ERR_STORE_CORRUPT, 0, "manifest: counts do not add up");
    return true;
}

static bool decode_head(const uint8_t *in, size_t len, bool is_sealed, struct manifest *m,
                        struct err *err)
{
    if (len < TAIL_HEADER_BYTES || get_u32(in) != TAIL_MAGIC)
        return err_set(err, ERR_STORE_CORRUPT, 0, "manifest: no tail");
    uint32_t flags = get_u32(in + 8);
    if (get_u16(in + 4) != TAIL_VERSION || flags > SEALED_FLAG ||
        get_u32(in + 12) != STORE_BLOCK_BYTES)
        return err_set(err, ERR_STORE_VERSION, 0,
                       "manifest tail version %u flags %#" PRIx32 ": made by a newer version",
                       get_u16(in + 4), flags);
    if ((flags == SEALED_FLAG) != is_sealed)
        return err_set(err, ERR_STORE_CORRUPT, 0,
                       "manifest: is %ssealed in a repository that is %s", is_sealed ? "not " : "",
                       is_sealed ? "encrypted" : "not");
    *m = (struct manifest){
        .size_bytes = get_u64(in + 16),
        .data_blocks = get_u64(in + 24),
        .n_records = get_u64(in + 32),
        .n_packs = get_u32(in + 40),
        .n_pages = get_u32(in + 44),
    };
    uint64_t want = TAIL_HEADER_BYTES + (uint64_t)m->n_packs * PACK_REF_BYTES +
                    (uint64_t)m->n_pages * PAGE_ENTRY_BYTES;
    if ((is_sealed ? len < want : len != want) || m->size_bytes > STORE_DISK_BYTES_MAX ||
        m->data_blocks > disk_blocks(m->size_bytes))
        return err_set(err, ERR_STORE_CORRUPT, 0, "manifest: bad counts");
    return decode_name(in + 64, m->disk_id, STORE_DISK_ID_MAX, "disk id", err) &&
           decode_name(in + 64 + TAIL_NAME_BYTES, m->session, STORE_SESSION_ID_MAX, "session", err);
}

bool manifest_tail_decode(const uint8_t *in, size_t len, uint64_t tail_offset, bool is_sealed,
                          struct manifest *ret_manifest, struct err *err)
{
    struct manifest m = {0};
    if (!decode_head(in, len, is_sealed, &m, err))
        return false;
    size_t fixed = TAIL_HEADER_BYTES + (size_t)m.n_packs * PACK_REF_BYTES +
                   (size_t)m.n_pages * PAGE_ENTRY_BYTES;
    if (!decode_tables(&m, in + TAIL_HEADER_BYTES, tail_offset, is_sealed, err) ||
        (is_sealed && !decode_uses(&m, in + fixed, len - fixed, err))) {
        manifest_done(&m);
        return false;
    }
    *ret_manifest = m;
    return true;
}

void manifest_done(struct manifest *m)
{
    for (uint32_t i = 0; m->uses && i < m->n_packs; i++)
        free(m->uses[i].bits);
    free(m->uses);
    free(m->packs);
    free(m->pages);
    *m = (struct manifest){0};
}
