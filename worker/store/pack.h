/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes of a pack (docs/store-format.md, "Packs"): `header | frame* | footer | trailer`.
 * Encoding and decoding only, no I/O. Decoders take hostile input: every length, order and sum is
 * checked. Threads: reentrant; a builder belongs to one thread at a time.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/base/err.h"
#include "worker/store/crypt.h"
#include "worker/store/digest.h"
#include "worker/store/store.h"

enum {
    PACK_ID_BYTES = 16,
    PACK_HEADER_BYTES = 256,
    PACK_SESSION_BYTES = 128, /* field of the header */
    FRAME_HEADER_BYTES = 64,
    FRAME_RAW_MAX = 1 << 20,
    FRAME_BLOCKS_MAX = FRAME_RAW_MAX / STORE_BLOCK_BYTES,
    FRAME_STORED_MAX = FRAME_RAW_MAX + CRYPT_PUBLIC_BYTES,
    FRAME_AAD_BYTES = 36, /* of the header: authenticated when sealed */
    CHUNK_BLOCKS_MAX = 64,
    CHUNK_CUT_MASK = 7, /* a writer ends a chunk where these bits of a leaf's first byte are zero */
    PACK_FRAMES_MAX = 65535,
    TRAILER_BYTES = 64,
    FOOTER_BYTES_MAX = 32 << 20,
    FOOTER_HEADER_BYTES = 32,
    FRAME_ENTRY_BYTES = 24,
};
#define PACK_RAW_MAX (UINT64_C(1) << 30) /* a writer closes a pack at this many raw bytes */

/* Where blocks of a disk lie: `blocks` of frame `frame` of pack number `pack`, from block `first`.
 * The pack number's meaning depends on the table it is looked up in. */
struct location {
    uint32_t pack;
    uint16_t frame;
    uint8_t first;
    uint8_t blocks_less_1;
};

/* What names a pack in manifests and indexes: the digest is that of its footer. */
struct pack_ref {
    uint8_t id[PACK_ID_BYTES];
    uint8_t digest[DIGEST_BYTES];
};
enum { PACK_REF_BYTES = PACK_ID_BYTES + DIGEST_BYTES };
void pack_ref_encode(const struct pack_ref *ref, uint8_t out[PACK_REF_BYTES]);
void pack_ref_decode(const uint8_t *in, struct pack_ref *out);

/* ---- header */
struct pack_header {
    uint8_t id[PACK_ID_BYTES];
    uint8_t repository[16];
    char session[STORE_SESSION_ID_MAX + 1];
    bool is_relocated; /* frames are where the relocation table says (gc/relocate.h) */
};
void pack_header_encode(const struct pack_header *h, uint8_t out[PACK_HEADER_BYTES]);
bool pack_header_decode(const uint8_t in[PACK_HEADER_BYTES], struct pack_header *out,
                        struct err *err);

/* ---- frame */
enum frame_codec { FRAME_RAW = 0, FRAME_ZSTD = 1 };
struct frame_header {
    enum frame_codec codec;
    uint32_t stored_len; /* of the bytes after the header */
    uint32_t raw_len;
    uint32_t chunks;
    uint32_t stored_crc;
    bool is_sealed; /* the stored bytes are an ephemeral public key and ciphertext */
    uint8_t salt[CRYPT_SALT_BYTES];
    uint8_t tag[CRYPT_TAG_BYTES];
};
void frame_header_encode(const struct frame_header *h, uint8_t out[FRAME_HEADER_BYTES]);
bool frame_header_decode(const uint8_t in[FRAME_HEADER_BYTES], struct frame_header *out,
                         struct err *err);

/* ---- trailer, of packs and of manifests: it finds and authenticates the part before it */
struct trailer {
    uint64_t file_len; /* of the whole file */
    uint64_t tail_offset;
    uint32_t tail_len;
    uint32_t relocation_len;           /* of the table before the tail; 0 = none */
    uint8_t tail_digest[DIGEST_BYTES]; /* SHA-256 of the tail (a pack's footer) */
};
enum trailer_kind { TRAILER_PACK = 0x4550584f /* "OXPE" */, TRAILER_MANIFEST = 0x454d584f };
void trailer_encode(const struct trailer *t, enum trailer_kind kind, uint8_t out[TRAILER_BYTES]);
/* `file_len` is what the file system says; `tail_max` bounds the tail. */
bool trailer_decode(const uint8_t in[TRAILER_BYTES], enum trailer_kind kind, uint64_t file_len,
                    uint32_t tail_max, struct trailer *out, struct err *err);

/* ---- footer */
struct frame_entry {
    uint64_t offset; /* of the frame header in the pack */
    uint32_t stored_len;
    uint32_t raw_len;
    uint32_t first_chunk;
    uint32_t chunks;
    uint32_t first_leaf;
    const uint8_t *list; /* sealed: into the footer's bytes, sealed_list_bytes() of them */
};
struct footer {
    uint32_t n_frames, n_chunks, n_leaves;
    struct frame_entry *frames;
    uint8_t *bytes;        /* the encoded footer */
    uint8_t *opened;       /* sealed: what its lists hold, with a key */
    const uint8_t *chunks; /* CHUNK_ENTRY_BYTES each; NULL when sealed and there is no key */
    const uint8_t *leaves; /* LEAF_BYTES each; likewise */
};
enum { CHUNK_ENTRY_BYTES = 36 };

/* How long a footer with these tables is. */
uint64_t footer_bytes(uint32_t n_frames, uint32_t n_chunks, uint32_t n_leaves, bool is_sealed);
/* `bytes` (of the heap) becomes the footer's, on failure too. `tail_offset` is where it stood.
 * `crypt`: of the repository, NULL when it is not encrypted; one without a key leaves the lists
 * closed. */
bool footer_decode(uint8_t *bytes, size_t len, uint64_t tail_offset, const struct crypt *crypt,
                   struct footer *ret_footer, struct err *err);
void footer_done(struct footer *f);

/* The length of a frame's list in a sealed footer: salt, tag, ciphertext. */
size_t sealed_list_bytes(uint32_t chunks, uint32_t raw_len);
/* Seal a list in place: `list` has its salt, room for the tag, and the plain text. */
void list_seal(const struct crypt *crypt, const struct frame_entry *frame, uint8_t *list);
/* Open a frame's list into `out`, which has room for it less CRYPT_SEAL_BYTES. False: not
 * authentic. `crypt` can write. */
bool sealed_list_open(const struct crypt *crypt, const struct frame_entry *frame,
                      const uint8_t *list, uint8_t *out);
/* The salt of a sealed frame: it is that of its list, and of its header. */
static inline const uint8_t *frame_entry_salt(const struct frame_entry *e)
{
    return e->list;
}

struct chunk_entry {
    const uint8_t *id; /* DIGEST_BYTES, borrowed from the footer */
    uint16_t frame;
    uint8_t first; /* block in the frame */
    uint8_t blocks_less_1;
};
struct chunk_entry footer_chunk(const struct footer *f, uint32_t i);
static inline const uint8_t *footer_leaf(const struct footer *f, const struct frame_entry *frame,
                                         uint32_t block)
{
    return f->leaves + (size_t)(frame->first_leaf + block) * LEAF_BYTES;
}

/* A footer being made. Zero-initialise; footer_builder_done() frees. */
struct footer_builder {
    uint8_t *frames, *chunks, *leaves;
    uint32_t n_frames, n_chunks, n_leaves;
    uint32_t cap_frames, cap_chunks, cap_leaves;
    uint8_t *lists; /* sealed: of all frames */
    uint32_t n_lists, cap_lists;
};
/* A chunk of the frame that will be number n_frames. `leaves`: DIGEST_BYTES each. */
void footer_add_chunk(struct footer_builder *b, const uint8_t id[DIGEST_BYTES], uint8_t first,
                      const uint8_t *leaves, uint32_t n_leaves);
/* That frame ends, with the last `chunks` chunks. `crypt` and `salt` (of the frame) are NULL in a
 * repository that is not encrypted. */
void footer_add_frame(struct footer_builder *b, uint64_t offset, uint32_t stored_len,
                      uint32_t raw_len, uint32_t chunks, const struct crypt *crypt,
                      const uint8_t *salt);
size_t footer_builder_bytes(const struct footer_builder *b);
/* The encoded footer of footer_builder_bytes(); the caller frees. */
uint8_t *footer_encode(const struct footer_builder *b);
void footer_builder_done(struct footer_builder *b);
