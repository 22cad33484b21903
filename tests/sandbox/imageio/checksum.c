/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /images/ID/checksum: the digest over the digests of all blocks of the image. Of the algorithms
 * only those that OpenSSL has with a digest of the same size; the default one, blake2b with 32
 * bytes, is not among them.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#include "tests/sandbox/imageio/imageio_private.h"

enum {
    BLOCK_DEFAULT = 4 << 20,
    BLOCK_MIN = 1 << 20,
    BLOCK_MAX = 16 << 20,
    BLOCK_ALIGN = 4096,
    HEX_BYTES = 2 * EVP_MAX_MD_SIZE + 1,
};

#define ALGORITHMS "'sha1', 'sha224', 'sha256', 'sha384', 'sha512'"

static const EVP_MD *algorithm_of(const char *name)
{
    static const char *const names[] = {"sha1", "sha224", "sha256", "sha384", "sha512"};
    for (size_t i = 0; name && i < ARRAY_LEN(names); i++) {
        if (strcmp(names[i], name) == 0)
            return EVP_get_digestbyname(name);
    }
    return NULL;
}

/* False when *ret is the answer. */
static bool read_block_size(struct request *r, long *ret_bytes, enum MHD_Result *ret)
{
    const char *text = request_argument(r, "block_size");
    *ret_bytes = BLOCK_DEFAULT;
    if (!text)
        return true;
    char *end;
    errno = 0;
    *ret_bytes = strtol(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0)
        *ret = answer_error(r, MHD_HTTP_BAD_REQUEST, "Invalid block size: '%s'", text);
    else if (*ret_bytes < BLOCK_MIN || *ret_bytes > BLOCK_MAX)
        *ret = answer_error(r, MHD_HTTP_BAD_REQUEST, "Block size out of allowed range: %d-%d",
                            BLOCK_MIN, BLOCK_MAX);
    else if (*ret_bytes % BLOCK_ALIGN != 0)
        *ret =
            answer_error(r, MHD_HTTP_BAD_REQUEST, "Block size is not aligned to %d", BLOCK_ALIGN);
    else
        return true;
    return false;
}

static void to_hex(const unsigned char *digest, unsigned len, char out[HEX_BYTES])
{
    static const char digits[] = "0123456789abcdef";
    for (unsigned i = 0; i < len; i++) {
        out[2 * i] = digits[digest[i] >> 4];
        out[2 * i + 1] = digits[digest[i] & 15];
    }
    out[2 * len] = '\0';
}

/* Of the whole image; false when a read fails or the transfer is cancelled. */
static bool compute(struct request *r, const EVP_MD *md, size_t block_bytes, char hex[HEX_BYTES])
{
    uint64_t size = backend_size(r->backend);
    SCOPED_FREE unsigned char *block = xmalloc(block_bytes);
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    struct err err = ERR_INIT;
    EVP_MD_CTX *all = EVP_MD_CTX_new();
    bool ok = all && EVP_DigestInit_ex(all, md, NULL) == 1;
    for (uint64_t at = 0; ok && at < size; at += block_bytes) {
        size_t n = size - at < block_bytes ? (size_t)(size - at) : block_bytes;
        ok = ticket_progress(r->op, 0) && backend_read(r->backend, block, n, at, &err) &&
             EVP_Digest(block, n, digest, &len, md, NULL) == 1 &&
             EVP_DigestUpdate(all, digest, len) == 1;
    }
    ok = ok && EVP_DigestFinal_ex(all, digest, &len) == 1;
    EVP_MD_CTX_free(all);
    if (ok)
        to_hex(digest, len, hex);
    return ok;
}

enum MHD_Result serve_checksum(struct request *r)
{
    enum MHD_Result result;
    long block_bytes;
    const char *name = request_argument(r, "algorithm");
    const EVP_MD *md = algorithm_of(name);
    if (!md)
        return answer_error(r, MHD_HTTP_BAD_REQUEST,
                            "Unsupported value '%s' for 'algorithm', expecting one of "
                            "[" ALGORITHMS "]",
                            name ? name : "blake2b");
    if (!read_block_size(r, &block_bytes, &result))
        return result;
    if (!request_authorize(r, false, &result) || !request_begin_op(r, &result))
        return result;
    char hex[HEX_BYTES];
    if (!compute(r, md, (size_t)block_bytes, hex))
        return ticket_progress(r->op, 0) ? answer_internal(r) : answer_cancelled(r);
    ticket_end(TAKE(r->op));
    SCOPED_FREE char *body =
        xasprintf("{\"algorithm\": \"%s\", \"block_size\": %ld, \"checksum\": \"%s\"}", name,
                  block_bytes, hex);
    return answer(r, MHD_HTTP_OK, "application/json", body, strlen(body));
}

enum MHD_Result serve_algorithms(struct request *r)
{
    static const char body[] =
        "{\"algorithms\": [\"sha1\", \"sha224\", \"sha256\", \"sha384\", \"sha512\"]}";
    return answer(r, MHD_HTTP_OK, "application/json", body, strlen(body));
}
