/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/step/compare.h"

#include <inttypes.h>
#include <string.h>

#include <openssl/evp.h>

#include "proto/base/alloc.h"
#include "proto/base/log.h"

enum { DIGEST_BYTES = 32 };

struct sum {
    EVP_MD_CTX *all;
    const EVP_MD *md; /* SHA-256 */
    unsigned char *block;
    unsigned char zeroes[DIGEST_BYTES]; /* the digest of a whole block of them */
};

static void sum_done(struct sum *s)
{
    EVP_MD_CTX_free(s->all);
    free(s->block);
}

static bool crypto_failed(struct err *err)
{
    return err_set(err, ERR_INTERNAL, 0, "SHA-256 is not to be had");
}

static bool digest_of(const struct sum *s, size_t len, unsigned char out[DIGEST_BYTES],
                      struct err *err)
{
    return EVP_Digest(s->block, len, out, NULL, s->md, NULL) == 1 || crypto_failed(err);
}

static bool sum_init(struct sum *s, struct err *err)
{
    *s = (struct sum){
        .all = EVP_MD_CTX_new(), .md = EVP_sha256(), .block = xcalloc(1, IMAGEIO_CHECKSUM_BLOCK)};
    return (s->all && EVP_DigestInit_ex(s->all, s->md, NULL) == 1)
               ? digest_of(s, IMAGEIO_CHECKSUM_BLOCK, s->zeroes, err)
               : crypto_failed(err);
}

/* True when the range holds nothing. */
static bool is_hole(struct store_reader *from, uint64_t at, uint64_t len, bool *ret,
                    struct err *err)
{
    struct extents parts = EXTENTS_INIT;
    bool ok = store_disk_extents(from, at, len, &parts, err);
    *ret = true;
    for (size_t i = 0; i < parts.count; i++)
        *ret = *ret && !parts.items[i].is_data;
    extents_done(&parts);
    return ok;
}

static bool add_block(struct sum *s, struct store_reader *from, uint64_t at, size_t len,
                      struct err *err)
{
    uint64_t end = store_reader_size(from);
    size_t there = at >= end ? 0 : end - at < len ? (size_t)(end - at) : len;
    unsigned char digest[DIGEST_BYTES];
    bool hole = true;
    if (there > 0 && !is_hole(from, at, there, &hole, err))
        return false;
    if (hole && len == IMAGEIO_CHECKSUM_BLOCK)
        return EVP_DigestUpdate(s->all, s->zeroes, DIGEST_BYTES) == 1 || crypto_failed(err);
    memset(s->block, 0, len);
    return (hole || store_disk_read(from, s->block, there, at, err)) &&
           digest_of(s, len, digest, err) &&
           (EVP_DigestUpdate(s->all, digest, DIGEST_BYTES) == 1 || crypto_failed(err));
}

static bool sum_disk(struct task_run *run, struct store_reader *from, uint64_t size_bytes,
                     char ret[IMAGEIO_CHECKSUM_CHARS], struct err *err)
{
    struct sum s;
    unsigned char digest[DIGEST_BYTES];
    bool ok = sum_init(&s, err);
    for (uint64_t at = 0; ok && at < size_bytes; at += IMAGEIO_CHECKSUM_BLOCK) {
        uint64_t left = size_bytes - at;
        size_t len = left < IMAGEIO_CHECKSUM_BLOCK ? (size_t)left : IMAGEIO_CHECKSUM_BLOCK;
        ok = run_check(run, err) && add_block(&s, from, at, len, err);
    }
    ok = ok && (EVP_DigestFinal_ex(s.all, digest, NULL) == 1 || crypto_failed(err));
    for (size_t i = 0; ok && i < DIGEST_BYTES; i++)
        snprintf(ret + 2 * i, 3, "%02x", digest[i]);
    sum_done(&s);
    return ok;
}

static bool may_go_on(const struct err *err)
{
    return err->code != ERR_CANCELLED && err->code != ERR_LEASE_LOST;
}

static bool compare_disk(struct task_run *run, struct store_point *point,
                         const struct compare_disk *d, struct err *err)
{
    char theirs[IMAGEIO_CHECKSUM_CHARS], ours[IMAGEIO_CHECKSUM_CHARS];
    if (!imageio_checksum(d->transfer->io, theirs, err)) {
        if (!may_go_on(err))
            return false;
        run_warn(run, "not-compared", d->id, "disk %s is not compared with its host's: %s", d->id,
                 err->message);
        err_clear(err);
        return true;
    }
    SCOPED(store_reader) struct store_reader *from = store_disk_open(point, d->id, err);
    if (!from || !sum_disk(run, from, d->size_bytes, ours, err))
        return err_wrap(err, "compare disk %s with its host's", d->id);
    if (strcmp(ours, theirs) != 0)
        return err_set(err, ERR_IO, 0,
                       "disk %s: its host's checksum is %s, that of the restore point %s", d->id,
                       theirs, ours);
    log_info("disk_compared", LOG_STR("disk", d->id), LOG_STR("checksum", ours));
    return true;
}

bool compare_disks(struct task_run *run, struct store_point *point,
                   const struct compare_disk *disks, size_t count, struct err *err)
{
    SCOPED_FREE const char **ids = xcalloc(count + 1, sizeof *ids);
    for (size_t i = 0; i < count; i++)
        ids[i] = disks[i].transfer->id;
    struct transfer_keeper *keeper = count > 0 ? transfer_keeper_begin(run, ids, count) : NULL;
    bool ok = true;
    for (size_t i = 0; ok && i < count; i++)
        ok = compare_disk(run, point, &disks[i], err);
    transfer_keeper_end(keeper);
    return ok;
}
