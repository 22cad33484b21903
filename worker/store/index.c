/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/store/index.h"

#include <stdlib.h>
#include <string.h>

#include "worker/store/bytes.h"

enum {
    INDEX_VERSION = 1,
    INDEX_HEADER_BYTES = 64,
    HOOK_BYTES = 12,
    SAMPLE_MAX = 64,
    HOOKS_DENSE = 2048, /* when the sample is halved */
};
static const char index_magic[8] = {'O', 'X', 'B', 'W', 'I', 'N', 'D', 'X'};

void hook_set_add(struct hook_set *set, const uint8_t id[DIGEST_BYTES], uint32_t pack)
{
    if (set->sample == 0)
        set->sample = 1;
    uint64_t prefix = chunk_prefix(id);
    if (prefix % set->sample != 0)
        return;
    if (set->count == set->capacity) {
        set->capacity = set->capacity ? set->capacity * 2 : 64;
        set->items = xreallocarray(set->items, set->capacity, sizeof *set->items);
    }
    set->items[set->count++] = (struct index_hook){.prefix = prefix, .pack = pack};
    if (set->count < HOOKS_DENSE || set->sample >= SAMPLE_MAX)
        return;
    set->sample *= 2;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < set->count; i++)
        if (set->items[i].prefix % set->sample == 0)
            set->items[kept++] = set->items[i];
    set->count = kept;
}

void hook_set_done(struct hook_set *set)
{
    free(set->items);
    *set = (struct hook_set){0};
}

static uint64_t encoded_len(uint32_t n_packs, uint32_t n_hooks)
{
    return INDEX_HEADER_BYTES + (uint64_t)n_packs * PACK_REF_BYTES +
           (uint64_t)n_hooks * HOOK_BYTES + DIGEST_BYTES;
}

uint8_t *index_encode(const struct index *ix, const uint8_t repository[16], size_t *ret_len)
{
    size_t len = (size_t)encoded_len(ix->n_packs, ix->n_hooks);
    uint8_t *out = xcalloc(1, len);
    memcpy(out, index_magic, sizeof index_magic);
    put_u32(out + 8, INDEX_VERSION);
    memcpy(out + 16, repository, 16);
    put_u32(out + 32, ix->n_packs);
    put_u32(out + 36, ix->n_hooks);
    uint8_t *at = out + INDEX_HEADER_BYTES;
    for (uint32_t i = 0; i < ix->n_packs; i++, at += PACK_REF_BYTES)
        pack_ref_encode(&ix->packs[i], at);
    for (uint32_t i = 0; i < ix->n_hooks; i++, at += HOOK_BYTES) {
        put_u64(at, ix->hooks[i].prefix);
        put_u32(at + 8, ix->hooks[i].pack);
    }
    digest_sha256(out, len - DIGEST_BYTES, at);
    *ret_len = len;
    return out;
}

static bool check(const uint8_t *in, size_t len, const uint8_t repository[16], struct err *err)
{
    if (len < INDEX_HEADER_BYTES + DIGEST_BYTES || memcmp(in, index_magic, sizeof index_magic) != 0)
        return err_set(err, ERR_STORE_CORRUPT, 0, "not an index");
    uint8_t digest[DIGEST_BYTES];
    digest_sha256(in, len - DIGEST_BYTES, digest);
    if (memcmp(digest, in + len - DIGEST_BYTES, DIGEST_BYTES) != 0)
        return err_set(err, ERR_STORE_CORRUPT, 0, "index: wrong digest");
    if (get_u32(in + 8) != INDEX_VERSION || get_u32(in + 12) != 0)
        return err_set(err, ERR_STORE_VERSION, 0, "index made by a newer version");
    if (memcmp(in + 16, repository, 16) != 0)
        return err_set(err, ERR_STORE_CORRUPT, 0, "index of another repository");
    if (len != encoded_len(get_u32(in + 32), get_u32(in + 36)))
        return err_set(err, ERR_STORE_CORRUPT, 0, "index: bad counts");
    return true;
}

bool index_decode(const uint8_t *in, size_t len, const uint8_t repository[16],
                  struct index *ret_index, struct err *err)
{
    if (!check(in, len, repository, err))
        return false;
    struct index ix = {.n_packs = get_u32(in + 32), .n_hooks = get_u32(in + 36)};
    ix.packs = xcalloc(ix.n_packs + 1u, sizeof *ix.packs);
    ix.hooks = xcalloc(ix.n_hooks + 1u, sizeof *ix.hooks);
    const uint8_t *at = in + INDEX_HEADER_BYTES;
    for (uint32_t i = 0; i < ix.n_packs; i++, at += PACK_REF_BYTES)
        pack_ref_decode(at, &ix.packs[i]);
    for (uint32_t i = 0; i < ix.n_hooks; i++, at += HOOK_BYTES) {
        ix.hooks[i] = (struct index_hook){.prefix = get_u64(at), .pack = get_u32(at + 8)};
        if (ix.hooks[i].pack >= ix.n_packs) {
            index_done(&ix);
            return err_set(err, ERR_STORE_CORRUPT, 0, "index: hook %u is out of range", i);
        }
    }
    *ret_index = ix;
    return true;
}

void index_done(struct index *ix)
{
    free(ix->packs);
    free(ix->hooks);
    *ix = (struct index){0};
}
