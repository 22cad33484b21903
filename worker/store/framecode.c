/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/store/framecode.h"

#include <stdlib.h>
#include <string.h>

#include <zstd.h>

#include "worker/store/object.h"

struct frame_coder {
    const struct crypt *crypt;
    ZSTD_CCtx *compressor; /* made when needed, as most coders do one of both */
    ZSTD_DCtx *decompressor;
    struct envelope envelope; /* of the last sealed frame decoded: a pack has one for all */
    bool has_envelope;
};

struct frame_coder *frame_coder_new(const struct crypt *crypt)
{
    struct frame_coder *coder = ALLOC_NEW(struct frame_coder);
    coder->crypt = crypt;
    return coder;
}

void frame_coder_free(struct frame_coder *coder)
{
    if (!coder)
        return;
    ZSTD_freeCCtx(coder->compressor);
    ZSTD_freeDCtx(coder->decompressor);
    envelope_wipe(&coder->envelope);
    free(coder);
}

static ZSTD_CCtx *compressor(struct frame_coder *coder)
{
    if (!coder->compressor && !(coder->compressor = ZSTD_createCCtx()))
        abort(); /* out of memory */
    return coder->compressor;
}

static ZSTD_DCtx *decompressor(struct frame_coder *coder)
{
    if (!coder->decompressor && !(coder->decompressor = ZSTD_createDCtx()))
        abort(); /* out of memory */
    return coder->decompressor;
}

/* Encrypt in place what stands behind the room for the public key. */
static void seal(const struct crypt *crypt, const struct envelope *envelope,
                 struct frame_header *header, uint8_t *out, size_t len)
{
    uint8_t *public = out + FRAME_HEADER_BYTES, *text = public + CRYPT_PUBLIC_BYTES;
    memcpy(public, envelope->public, CRYPT_PUBLIC_BYTES);
    random_bytes(header->salt, sizeof header->salt);
    header->is_sealed = true;
    frame_header_encode(header, out); /* what is authenticated of it */
    envelope_seal(crypt, envelope, header->salt, (struct crypt_aad){out, FRAME_AAD_BYTES}, text,
                  len, text, header->tag);
}

size_t frame_encode(struct frame_coder *coder, int zstd_level, const struct envelope *envelope,
                    const uint8_t *raw, uint32_t raw_len, uint32_t chunks, uint8_t *out,
                    struct frame_header *ret_header)
{
    uint8_t *stored = out + FRAME_HEADER_BYTES;
    size_t more = envelope ? CRYPT_PUBLIC_BYTES : 0;
    /* Less than 3 % is not worth the decoding. */
    size_t worth = raw_len - raw_len / 32;
    size_t len =
        ZSTD_compressCCtx(compressor(coder), stored + more, worth, raw, raw_len, zstd_level);
    struct frame_header header = {.codec = FRAME_ZSTD, .raw_len = raw_len, .chunks = chunks};
    if (ZSTD_isError(len)) {
        header.codec = FRAME_RAW;
        memcpy(stored + more, raw, raw_len);
        len = raw_len;
    }
    header.stored_len = (uint32_t)(more + len);
    if (envelope)
        seal(coder->crypt, envelope, &header, out, len);
    header.stored_crc = crc32c(stored, header.stored_len);
    frame_header_encode(&header, out);
    *ret_header = header;
    return FRAME_HEADER_BYTES + (size_t)header.stored_len;
}

bool frame_check(const uint8_t *bytes, size_t len, struct frame_header *ret_header, struct err *err)
{
    if (len <= FRAME_HEADER_BYTES)
        return err_set(err, ERR_STORE_CORRUPT, 0, "no frame");
    if (!frame_header_decode(bytes, ret_header, err))
        return false;
    if (ret_header->stored_len != len - FRAME_HEADER_BYTES)
        return err_set(err, ERR_STORE_CORRUPT, 0, "header and footer disagree");
    return crc32c(bytes + FRAME_HEADER_BYTES, ret_header->stored_len) == ret_header->stored_crc ||
           err_set(err, ERR_STORE_CORRUPT, 0, "wrong checksum");
}

/* Decrypt what stands behind the public key to `out`, which may be its place. */
static bool unseal(struct frame_coder *coder, const uint8_t *bytes,
                   const struct frame_header *header, uint8_t *out, struct err *err)
{
    const uint8_t *public = bytes + FRAME_HEADER_BYTES, *text = public + CRYPT_PUBLIC_BYTES;
    if (!coder->has_envelope || memcmp(coder->envelope.public, public, CRYPT_PUBLIC_BYTES) != 0)
        coder->has_envelope = envelope_find(coder->crypt, public, &coder->envelope);
    return (coder->has_envelope &&
            envelope_open(coder->crypt, &coder->envelope, header->salt,
                          (struct crypt_aad){bytes, FRAME_AAD_BYTES}, text,
                          header->stored_len - CRYPT_PUBLIC_BYTES, out, header->tag)) ||
           err_set(err, ERR_STORE_CORRUPT, 0, "is not authentic");
}

bool frame_decode(struct frame_coder *coder, uint8_t *bytes, const struct frame_header *header,
                  uint8_t *raw, struct err *err)
{
    uint8_t *stored = bytes + FRAME_HEADER_BYTES;
    size_t len = header->stored_len;
    if (header->is_sealed != (coder->crypt != NULL))
        return err_set(err, ERR_STORE_CORRUPT, 0, "is %ssealed in a repository that is %s",
                       header->is_sealed ? "" : "not ", coder->crypt ? "encrypted" : "not");
    if (header->is_sealed) {
        stored += CRYPT_PUBLIC_BYTES;
        len -= CRYPT_PUBLIC_BYTES;
        bool is_raw = header->codec == FRAME_RAW;
        if (!unseal(coder, bytes, header, is_raw ? raw : stored, err))
            return false;
        if (is_raw)
            return true;
    }
    if (header->codec == FRAME_RAW)
        memcpy(raw, stored, header->raw_len);
    else if (ZSTD_decompressDCtx(decompressor(coder), raw, header->raw_len, stored, len) !=
             header->raw_len)
        return err_set(err, ERR_STORE_CORRUPT, 0, "does not decompress");
    return true;
}
