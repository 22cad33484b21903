/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/store/pack.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/id.h"
#include "worker/store/bytes.h"

enum {
    PACK_VERSION = 1,
    FRAME_VERSION = 1,
    FOOTER_VERSION = 1,
    FRAME_MAGIC = 0x5246584f,  /* "OXFR" */
    FOOTER_MAGIC = 0x5446584f, /* "OXFT" */
    RELOCATED_FLAG = 1,
    SEALED_CHUNK_BYTES = 34, /* a chunk in a sealed list: without the number of its frame */
    SEALED_FLAG = 1,
    LIST_AAD_BYTES = 12,
};
static const char pack_magic[8] = {'O', 'X', 'B', 'W', 'P', 'A', 'C', 'K'};

void pack_ref_encode(const struct pack_ref *ref, uint8_t out[PACK_REF_BYTES])
{
    memcpy(out, ref->id, PACK_ID_BYTES);
    memcpy(out + PACK_ID_BYTES, ref->digest, DIGEST_BYTES);
}

void pack_ref_decode(const uint8_t *in, struct pack_ref *out)
{
    memcpy(out->id, in, PACK_ID_BYTES);
    memcpy(out->digest, in + PACK_ID_BYTES, DIGEST_BYTES);
}

/* ---- header */

void pack_header_encode(const struct pack_header *h, uint8_t out[PACK_HEADER_BYTES])
{
    memset(out, 0, PACK_HEADER_BYTES);
    memcpy(out, pack_magic, sizeof pack_magic);
    put_u32(out + 8, PACK_VERSION);
    put_u32(out + 12, h->is_relocated ? RELOCATED_FLAG : 0);
    memcpy(out + 16, h->id, PACK_ID_BYTES);
    memcpy(out + 32, h->repository, 16);
    memcpy(out + 48, h->session, strlen(h->session));
    put_u32(out + PACK_HEADER_BYTES - 4, crc32c(out, PACK_HEADER_BYTES - 4));
}

bool pack_header_decode(const uint8_t in[PACK_HEADER_BYTES], struct pack_header *out,
                        struct err *err)
{
    if (memcmp(in, pack_magic, sizeof pack_magic) != 0)
        return err_set(err, ERR_STORE_CORRUPT, 0, "no pack header");
    if (get_u32(in + PACK_HEADER_BYTES - 4) != crc32c(in, PACK_HEADER_BYTES - 4))
        return err_set(err, ERR_STORE_CORRUPT, 0, "pack header: wrong checksum");
    if (get_u32(in + 8) != PACK_VERSION || get_u32(in + 12) > RELOCATED_FLAG)
        return err_set(err, ERR_STORE_VERSION, 0,
                       "pack version %" PRIu32 " flags %#" PRIx32 ": made by a newer version",
                       get_u32(in + 8), get_u32(in + 12));
    const uint8_t *session = in + 48;
    size_t len = strnlen((const char *)session, PACK_SESSION_BYTES);
    if (len > STORE_SESSION_ID_MAX ||
        !bytes_are_zero(session + len, PACK_HEADER_BYTES - 4 - 48 - len))
        return err_set(err, ERR_STORE_CORRUPT, 0, "pack header: bad session name");
    out->is_relocated = get_u32(in + 12) == RELOCATED_FLAG;
    memcpy(out->id, in + 16, PACK_ID_BYTES);
    memcpy(out->repository, in + 32, 16);
    memcpy(out->session, session, len);
    out->session[len] = '\0';
    if (!id_is_slug(out->session, STORE_SESSION_ID_MAX))
        return err_set(err, ERR_STORE_CORRUPT, 0, "pack header: bad session name");
    return true;
}

/* ---- frame */

void frame_header_encode(const struct frame_header *h, uint8_t out[FRAME_HEADER_BYTES])
{
    memset(out, 0, FRAME_HEADER_BYTES);
    put_u32(out, FRAME_MAGIC);
    out[4] = FRAME_VERSION;
    out[5] = (uint8_t)h->codec;
    put_u16(out + 6, h->is_sealed ? SEALED_FLAG : 0);
    put_u32(out + 8, h->stored_len);
    put_u32(out + 12, h->raw_len);
    put_u32(out + 16, h->chunks);
    if (h->is_sealed) {
        memcpy(out + 20, h->salt, CRYPT_SALT_BYTES);
        memcpy(out + 36, h->tag, CRYPT_TAG_BYTES);
    }
    put_u32(out + 56, h->stored_crc);
    put_u32(out + 60, crc32c(out, 60));
}

bool frame_header_decode(const uint8_t in[FRAME_HEADER_BYTES], struct frame_header *out,
                         struct err *err)
{
    if (get_u32(in) != FRAME_MAGIC)
        return err_set(err, ERR_STORE_CORRUPT, 0, "no frame header");
    if (get_u32(in + 60) != crc32c(in, 60))
        return err_set(err, ERR_STORE_CORRUPT, 0, "frame header: wrong checksum");
    if (in[4] != FRAME_VERSION || get_u16(in + 6) > SEALED_FLAG || in[5] > FRAME_ZSTD)
        return err_set(err, ERR_STORE_VERSION, 0,
                       "frame version %u codec %u flags %#x: made by a newer version", in[4], in[5],
                       get_u16(in + 6));
    *out = (struct frame_header){
        .codec = in[5] == FRAME_ZSTD ? FRAME_ZSTD : FRAME_RAW,
        .stored_len = get_u32(in + 8),
        .raw_len = get_u32(in + 12),
        .chunks = get_u32(in + 16),
        .stored_crc = get_u32(in + 56),
        .is_sealed = get_u16(in + 6) == SEALED_FLAG,
    };
    memcpy(out->salt, in + 20, CRYPT_SALT_BYTES);
    memcpy(out->tag, in + 36, CRYPT_TAG_BYTES);
    uint32_t more = out->is_sealed ? CRYPT_PUBLIC_BYTES : 0;
    if (out->raw_len == 0 || out->raw_len > FRAME_RAW_MAX ||
        out->raw_len % STORE_BLOCK_BYTES != 0 || out->stored_len <= more ||
        out->stored_len > out->raw_len + more ||
        (out->codec == FRAME_RAW && out->stored_len != out->raw_len + more))
        return err_set(err, ERR_STORE_CORRUPT, 0, "frame header: bad lengths");
    return true;
}

/* ---- trailer */

void trailer_encode(const struct trailer *t, enum trailer_kind kind, uint8_t out[TRAILER_BYTES])
{
    memset(out, 0, TRAILER_BYTES);
    put_u64(out, t->file_len);
    put_u64(out + 8, t->tail_offset);
    put_u32(out + 16, t->tail_len);
    put_u32(out + 20, t->relocation_len);
    memcpy(out + 24, t->tail_digest, DIGEST_BYTES);
    put_u32(out + 56, crc32c(out, 56));
    put_u32(out + 60, kind);
}

bool trailer_decode(const uint8_t in[TRAILER_BYTES], enum trailer_kind kind, uint64_t file_len,
                    uint32_t tail_max, struct trailer *out, struct err *err)
{
    if (get_u32(in + 60) != (uint32_t)kind)
        return err_set(err, ERR_STORE_CORRUPT, 0, "no trailer: cut short or never finished");
    if (get_u32(in + 56) != crc32c(in, 56))
        return err_set(err, ERR_STORE_CORRUPT, 0, "trailer: wrong checksum");
    out->file_len = get_u64(in);
    out->tail_offset = get_u64(in + 8);
    out->tail_len = get_u32(in + 16);
    out->relocation_len = get_u32(in + 20);
    memcpy(out->tail_digest, in + 24, DIGEST_BYTES);
    if (out->file_len != file_len)
        return err_set(err, ERR_STORE_CORRUPT, 0,
                       "trailer: length is %" PRIu64 " but should be %" PRIu64, file_len,
                       out->file_len);
    if (out->tail_len > tail_max || file_len < (uint64_t)out->tail_len + TRAILER_BYTES ||
        out->tail_offset != file_len - TRAILER_BYTES - out->tail_len)
        return err_set(err, ERR_STORE_CORRUPT, 0, "trailer: bad lengths");
    return true;
}

/* ---- footer: reading */

static bool footer_frames(struct footer *f, const uint8_t *table, uint64_t tail_offset,
                          bool is_sealed, struct err *err)
{
    uint32_t more = is_sealed ? CRYPT_PUBLIC_BYTES : 0;
    uint64_t end = PACK_HEADER_BYTES;
    uint32_t chunk = 0;
    uint64_t leaf = 0;
    for (uint32_t i = 0; i < f->n_frames; i++, table += FRAME_ENTRY_BYTES) {
        struct frame_entry *e = &f->frames[i];
        e->offset = get_u64(table);
        e->stored_len = get_u32(table + 8);
        e->raw_len = get_u32(table + 12);
        e->first_chunk = get_u32(table + 16);
        e->chunks = get_u32(table + 20);
        e->first_leaf = (uint32_t)leaf;
        if (e->raw_len == 0 || e->raw_len > FRAME_RAW_MAX || e->raw_len % STORE_BLOCK_BYTES != 0 ||
            e->stored_len <= more || e->stored_len > e->raw_len + more)
            return err_set(err, ERR_STORE_CORRUPT, 0, "footer: frame %u has bad lengths", i);
        if (e->offset < end || e->offset > tail_offset ||
            tail_offset - e->offset < (uint64_t)FRAME_HEADER_BYTES + e->stored_len)
            return err_set(err, ERR_STORE_CORRUPT, 0, "footer: frame %u is out of place", i);
        if (e->first_chunk != chunk || e->chunks == 0 || e->chunks > f->n_chunks - chunk)
            return err_set(err, ERR_STORE_CORRUPT, 0, "footer: frame %u has bad chunks", i);
        end = e->offset + FRAME_HEADER_BYTES + e->stored_len;
        chunk += e->chunks;
        leaf += e->raw_len / STORE_BLOCK_BYTES;
    }
    if (chunk != f->n_chunks || leaf != f->n_leaves)
        return err_set(err, ERR_STORE_CORRUPT, 0, "footer: counts do not add up");
    return true;
}

/* The chunks of each frame follow each other and fill it. */
static bool footer_chunks(const struct footer *f, struct err *err)
{
    for (uint32_t i = 0; i < f->n_frames; i++) {
        const struct frame_entry *e = &f->frames[i];
        uint32_t block = 0;
        for (uint32_t c = e->first_chunk; c < e->first_chunk + e->chunks; c++) {
            struct chunk_entry chunk = footer_chunk(f, c);
            if (chunk.frame != i || chunk.first != block)
                return err_set(err, ERR_STORE_CORRUPT, 0, "footer: chunk %u is out of place", c);
            block += chunk.blocks_less_1 + 1u;
        }
        if (block != e->raw_len / STORE_BLOCK_BYTES)
            return err_set(err, ERR_STORE_CORRUPT, 0, "footer: frame %u is not filled", i);
    }
    return true;
}

size_t sealed_list_bytes(uint32_t chunks, uint32_t raw_len)
{
    return CRYPT_SEAL_BYTES + (size_t)chunks * SEALED_CHUNK_BYTES +
           (size_t)(raw_len / STORE_BLOCK_BYTES) * LEAF_BYTES;
}

/* What a list is bound to: its frame, wherever that lies. */
static void list_aad(const struct frame_entry *frame, uint8_t out[LIST_AAD_BYTES])
{
    put_u32(out, frame->stored_len);
    put_u32(out + 4, frame->raw_len);
    put_u32(out + 8, frame->chunks);
}

void list_seal(const struct crypt *crypt, const struct frame_entry *frame, uint8_t *list)
{
    uint8_t aad[LIST_AAD_BYTES], *text = list + CRYPT_SEAL_BYTES;
    list_aad(frame, aad);
    crypt_seal(crypt, CRYPT_LIST, list, (struct crypt_aad){aad, sizeof aad}, text,
               sealed_list_bytes(frame->chunks, frame->raw_len) - CRYPT_SEAL_BYTES, text,
               list + CRYPT_SALT_BYTES);
}

bool sealed_list_open(const struct crypt *crypt, const struct frame_entry *frame,
                      const uint8_t *list, uint8_t *out)
{
    uint8_t aad[LIST_AAD_BYTES];
    list_aad(frame, aad);
    size_t len = sealed_list_bytes(frame->chunks, frame->raw_len) - CRYPT_SEAL_BYTES;
    return crypt_open(crypt, CRYPT_LIST, list, (struct crypt_aad){aad, sizeof aad},
                      list + CRYPT_SEAL_BYTES, len, out, list + CRYPT_SALT_BYTES);
}

/* Open the list of a frame into the plain tables. */
static bool open_list(struct footer *f, uint32_t i, const struct crypt *crypt, uint8_t *work,
                      struct err *err)
{
    const struct frame_entry *e = &f->frames[i];
    if (!sealed_list_open(crypt, e, e->list, work))
        return err_set(err, ERR_STORE_CORRUPT, 0, "footer: list of frame %u is not authentic", i);
    uint8_t *chunk = f->opened + (size_t)e->first_chunk * CHUNK_ENTRY_BYTES;
    for (uint32_t c = 0; c < e->chunks; c++, work += SEALED_CHUNK_BYTES) {
        memcpy(chunk, work, DIGEST_BYTES);
        put_u16(chunk + DIGEST_BYTES, (uint16_t)i);
        memcpy(chunk + DIGEST_BYTES + 2, work + DIGEST_BYTES, 2);
        chunk += CHUNK_ENTRY_BYTES;
    }
    memcpy(f->opened + (size_t)f->n_chunks * CHUNK_ENTRY_BYTES + (size_t)e->first_leaf * LEAF_BYTES,
           work, (size_t)(e->raw_len / STORE_BLOCK_BYTES) * LEAF_BYTES);
    return true;
}

/* Find the lists and, with a key, open them. */
static bool footer_lists(struct footer *f, const uint8_t *lists, const struct crypt *crypt,
                         struct err *err)
{
    size_t longest = 1;
    for (uint32_t i = 0; i < f->n_frames; i++) {
        struct frame_entry *e = &f->frames[i];
        size_t len = sealed_list_bytes(e->chunks, e->raw_len);
        e->list = lists;
        lists += len;
        longest = len > longest ? len : longest;
    }
    if (!crypt_can_write(crypt))
        return true;
    f->opened = xmalloc((size_t)f->n_chunks * CHUNK_ENTRY_BYTES + (size_t)f->n_leaves * LEAF_BYTES);
    f->chunks = f->opened;
    f->leaves = f->opened + (size_t)f->n_chunks * CHUNK_ENTRY_BYTES;
    SCOPED_FREE uint8_t *work = xmalloc(longest);
    for (uint32_t i = 0; i < f->n_frames; i++)
        if (!open_list(f, i, crypt, work, err))
            return false;
    return true;
}

uint64_t footer_bytes(uint32_t n_frames, uint32_t n_chunks, uint32_t n_leaves, bool is_sealed)
{
    uint64_t each = FRAME_ENTRY_BYTES + (is_sealed ? CRYPT_SEAL_BYTES : 0);
    return FOOTER_HEADER_BYTES + n_frames * each +
           (uint64_t)n_chunks * (is_sealed ? SEALED_CHUNK_BYTES : CHUNK_ENTRY_BYTES) +
           (uint64_t)n_leaves * LEAF_BYTES;
}

static bool footer_head(struct footer *f, size_t len, bool want_sealed, struct err *err)
{
    const uint8_t *in = f->bytes;
    if (len < FOOTER_HEADER_BYTES || get_u32(in) != FOOTER_MAGIC)
        return err_set(err, ERR_STORE_CORRUPT, 0, "no footer");
    uint32_t flags = get_u32(in + 8);
    if (get_u16(in + 4) != FOOTER_VERSION || get_u16(in + 6) != LEAF_BYTES || flags > SEALED_FLAG)
        return err_set(err, ERR_STORE_VERSION, 0,
                       "footer version %u leaf size %u flags %#" PRIx32 ": made by a newer version",
                       get_u16(in + 4), get_u16(in + 6), flags);
    if ((flags == SEALED_FLAG) != want_sealed)
        return err_set(err, ERR_STORE_CORRUPT, 0, "footer: is %ssealed in a repository that is %s",
                       want_sealed ? "not " : "", want_sealed ? "encrypted" : "not");
    f->n_frames = get_u32(in + 12);
    f->n_chunks = get_u32(in + 16);
    f->n_leaves = get_u32(in + 20);
    uint64_t want = footer_bytes(f->n_frames, f->n_chunks, f->n_leaves, want_sealed);
    if (f->n_frames == 0 || f->n_frames > PACK_FRAMES_MAX || len != want)
        return err_set(err, ERR_STORE_CORRUPT, 0, "footer: bad counts");
    return true;
}

static bool footer_parse(struct footer *f, size_t len, uint64_t tail_offset,
                         const struct crypt *crypt, struct err *err)
{
    if (!footer_head(f, len, crypt != NULL, err))
        return false;
    const uint8_t *table = f->bytes + FOOTER_HEADER_BYTES;
    const uint8_t *rest = table + (size_t)f->n_frames * FRAME_ENTRY_BYTES;
    f->frames = xcalloc(f->n_frames, sizeof *f->frames);
    if (!footer_frames(f, table, tail_offset, crypt != NULL, err))
        return false;
    if (crypt && !footer_lists(f, rest, crypt, err))
        return false;
    if (!crypt) {
        f->chunks = rest;
        f->leaves = rest + (size_t)f->n_chunks * CHUNK_ENTRY_BYTES;
    }
    return !f->chunks || footer_chunks(f, err);
}

bool footer_decode(uint8_t *bytes, size_t len, uint64_t tail_offset, const struct crypt *crypt,
                   struct footer *ret_footer, struct err *err)
{
    struct footer f = {.bytes = bytes};
    if (!footer_parse(&f, len, tail_offset, crypt, err)) {
        footer_done(&f);
        return false;
    }
    *ret_footer = f;
    return true;
}

void footer_done(struct footer *f)
{
    free(f->frames);
    free(f->bytes);
    free(f->opened);
    *f = (struct footer){0};
}

struct chunk_entry footer_chunk(const struct footer *f, uint32_t i)
{
    const uint8_t *in = f->chunks + (size_t)i * CHUNK_ENTRY_BYTES;
    return (struct chunk_entry){
        .id = in,
        .frame = get_u16(in + 32),
        .first = in[34],
        .blocks_less_1 = in[35],
    };
}

/* ---- footer: making */

static uint8_t *append(uint8_t **table, uint32_t *n, uint32_t *cap, uint32_t add, size_t entry)
{
    if (*cap < *n + add) {
        *cap = (*cap + add) * 2;
        *table = xreallocarray(*table, *cap, entry);
    }
    uint8_t *at = *table + (size_t)*n * entry;
    *n += add;
    return at;
}

void footer_add_chunk(struct footer_builder *b, const uint8_t id[DIGEST_BYTES], uint8_t first,
                      const uint8_t *leaves, uint32_t n_leaves)
{
    assert(n_leaves >= 1 && n_leaves <= CHUNK_BLOCKS_MAX);
    uint8_t *at = append(&b->chunks, &b->n_chunks, &b->cap_chunks, 1, CHUNK_ENTRY_BYTES);
    memcpy(at, id, DIGEST_BYTES);
    put_u16(at + 32, (uint16_t)b->n_frames);
    at[34] = first;
    at[35] = (uint8_t)(n_leaves - 1);
    at = append(&b->leaves, &b->n_leaves, &b->cap_leaves, n_leaves, LEAF_BYTES);
    for (uint32_t i = 0; i < n_leaves; i++)
        memcpy(at + (size_t)i * LEAF_BYTES, leaves + (size_t)i * DIGEST_BYTES, LEAF_BYTES);
}

static void add_entry(struct footer_builder *b, uint64_t offset, uint32_t stored_len,
                      uint32_t raw_len, uint32_t chunks)
{
    uint8_t *at = append(&b->frames, &b->n_frames, &b->cap_frames, 1, FRAME_ENTRY_BYTES);
    put_u64(at, offset);
    put_u32(at + 8, stored_len);
    put_u32(at + 12, raw_len);
    put_u32(at + 16, b->n_chunks - chunks);
    put_u32(at + 20, chunks);
}

void footer_add_frame(struct footer_builder *b, uint64_t offset, uint32_t stored_len,
                      uint32_t raw_len, uint32_t chunks, const struct crypt *crypt,
                      const uint8_t *salt)
{
    add_entry(b, offset, stored_len, raw_len, chunks);
    if (!crypt)
        return;
    size_t len = sealed_list_bytes(chunks, raw_len), leaves = raw_len / STORE_BLOCK_BYTES;
    uint8_t *list = append(&b->lists, &b->n_lists, &b->cap_lists, (uint32_t)len, 1);
    uint8_t *plain = list + CRYPT_SEAL_BYTES;
    const uint8_t *chunk = b->chunks + (size_t)(b->n_chunks - chunks) * CHUNK_ENTRY_BYTES;
    for (uint32_t c = 0; c < chunks; c++, chunk += CHUNK_ENTRY_BYTES) {
        memcpy(plain, chunk, DIGEST_BYTES);
        memcpy(plain + DIGEST_BYTES, chunk + DIGEST_BYTES + 2, 2);
        plain += SEALED_CHUNK_BYTES;
    }
    memcpy(plain, b->leaves + (b->n_leaves - leaves) * LEAF_BYTES, leaves * LEAF_BYTES);
    memcpy(list, salt, CRYPT_SALT_BYTES);
    const struct frame_entry frame = {
        .stored_len = stored_len, .raw_len = raw_len, .chunks = chunks};
    list_seal(crypt, &frame, list);
}

size_t footer_builder_bytes(const struct footer_builder *b)
{
    size_t tables =
        b->lists ? b->n_lists
                 : (size_t)b->n_chunks * CHUNK_ENTRY_BYTES + (size_t)b->n_leaves * LEAF_BYTES;
    return FOOTER_HEADER_BYTES + (size_t)b->n_frames * FRAME_ENTRY_BYTES + tables;
}

uint8_t *footer_encode(const struct footer_builder *b)
{
    uint8_t *out = xcalloc(1, footer_builder_bytes(b));
    put_u32(out, FOOTER_MAGIC);
    put_u16(out + 4, FOOTER_VERSION);
    put_u16(out + 6, LEAF_BYTES);
    put_u32(out + 8, b->lists ? SEALED_FLAG : 0);
    put_u32(out + 12, b->n_frames);
    put_u32(out + 16, b->n_chunks);
    put_u32(out + 20, b->n_leaves);
    uint8_t *at = out + FOOTER_HEADER_BYTES;
    if (b->n_frames == 0)
        return out;
    memcpy(at, b->frames, (size_t)b->n_frames * FRAME_ENTRY_BYTES);
    at += (size_t)b->n_frames * FRAME_ENTRY_BYTES;
    if (b->lists) {
        memcpy(at, b->lists, b->n_lists);
        return out;
    }
    memcpy(at, b->chunks, (size_t)b->n_chunks * CHUNK_ENTRY_BYTES);
    at += (size_t)b->n_chunks * CHUNK_ENTRY_BYTES;
    memcpy(at, b->leaves, (size_t)b->n_leaves * LEAF_BYTES);
    return out;
}

void footer_builder_done(struct footer_builder *b)
{
    free(b->frames);
    free(b->chunks);
    free(b->leaves);
    free(b->lists);
    *b = (struct footer_builder){0};
}
