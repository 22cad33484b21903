/* SPDX-License-Identifier: Apache-2.0 */
/* The decoders of packs. The first byte picks one; checksums are made right, so that what lies
 * behind them is reached, as a hostile writer would. */
#include <stdint.h>
#include <string.h>

#include "worker/store/bytes.h"
#include "worker/store/pack.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fixed(const uint8_t *data, size_t size, uint8_t *out, size_t want, size_t crc_at)
{
    memset(out, 0, want);
    memcpy(out, data, size < want ? size : want);
    put_u32(out + crc_at, crc32c(out, crc_at));
}

static void try_header(const uint8_t *data, size_t size)
{
    uint8_t in[PACK_HEADER_BYTES], again[PACK_HEADER_BYTES];
    struct pack_header header;
    struct err err = ERR_INIT;
    fixed(data, size, in, sizeof in, PACK_HEADER_BYTES - 4);
    if (!pack_header_decode(in, &header, &err))
        return;
    pack_header_encode(&header, again);
    if (memcmp(in, again, sizeof in) != 0)
        __builtin_trap(); /* a header has one form */
}

static void try_frame(const uint8_t *data, size_t size)
{
    uint8_t in[FRAME_HEADER_BYTES];
    struct frame_header header;
    struct err err = ERR_INIT;
    fixed(data, size, in, sizeof in, 60);
    if (frame_header_decode(in, &header, &err) &&
        (header.raw_len > FRAME_RAW_MAX || header.stored_len > FRAME_STORED_MAX))
        __builtin_trap();
}

static void try_trailer(const uint8_t *data, size_t size)
{
    uint8_t in[TRAILER_BYTES];
    struct trailer t;
    struct err err = ERR_INIT;
    fixed(data, size, in, sizeof in, 56);
    put_u32(in + 60, TRAILER_PACK);
    if (trailer_decode(in, TRAILER_PACK, get_u64(in), FOOTER_BYTES_MAX, &t, &err) &&
        t.tail_offset + t.tail_len + TRAILER_BYTES != t.file_len)
        __builtin_trap();
}

static void look_at_footer(const struct footer *footer)
{
    uint32_t leaves = 0;
    volatile uint8_t seen = 0; /* a sanitizer watches these reads */
    for (uint32_t i = 0; i < footer->n_frames; i++)
        for (uint32_t b = 0; b < footer->frames[i].raw_len / STORE_BLOCK_BYTES; b++, leaves++)
            seen = seen ^ *footer_leaf(footer, &footer->frames[i], b);
    if (leaves != footer->n_leaves)
        __builtin_trap();
    for (uint32_t i = 0; i < footer->n_chunks; i++)
        if (footer_chunk(footer, i).frame >= footer->n_frames)
            __builtin_trap();
}

static void try_footer(const uint8_t *data, size_t size)
{
    struct footer footer;
    struct err err = ERR_INIT;
    uint8_t *bytes = xmalloc(size + 1);
    memcpy(bytes, data, size);
    if (!footer_decode(bytes, size, 1 << 26, NULL, &footer, &err))
        return;
    look_at_footer(&footer);
    footer_done(&footer);
}

static struct crypt *a_crypt(bool with_key)
{
    static const uint8_t uuid[16] = {1};
    struct crypt_secrets secrets = {.can_write = true, .write = {2}, .public = {9}};
    return crypt_new(uuid, with_key ? &secrets : NULL);
}

/* Without a key; then what the lists say is sealed here, so that it is looked at with a key. */
static void try_sealed_footer(const uint8_t *data, size_t size)
{
    struct footer closed, open;
    struct err err = ERR_INIT;
    SCOPED(crypt) struct crypt *none = a_crypt(false), *crypt = a_crypt(true);
    uint8_t *bytes = xmalloc(size + 1), *sealed = xmalloc(size + 1);
    memcpy(bytes, data, size);
    memcpy(sealed, data, size);
    if (!footer_decode(bytes, size, 1 << 26, none, &closed, &err)) {
        free(sealed);
        return;
    }
    if (closed.chunks || closed.leaves)
        __builtin_trap();
    for (uint32_t i = 0; i < closed.n_frames; i++)
        list_seal(crypt, &closed.frames[i], sealed + (closed.frames[i].list - bytes));
    if (footer_decode(sealed, size, 1 << 26, crypt, &open, &err)) {
        look_at_footer(&open);
        footer_done(&open);
    } else if (strstr(err.message, "authentic")) {
        __builtin_trap(); /* it was sealed right */
    }
    footer_done(&closed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const tries[])(const uint8_t *, size_t) = {try_header, try_frame, try_trailer,
                                                             try_footer, try_sealed_footer};
    if (size > 0)
        tries[data[0] % ARRAY_LEN(tries)](data + 1, size - 1);
    return 0;
}
