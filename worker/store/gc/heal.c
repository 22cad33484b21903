/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/store/gc/heal.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "worker/store/bytes.h"
#include "worker/store/framecode.h"
#include "worker/store/gc/relocate.h"

/* ---- the list */

const struct bad_frame *bad_frames_find(const struct bad_frames *list,
                                        const uint8_t pack[PACK_ID_BYTES], uint32_t frame)
{
    for (size_t i = 0; i < list->count; i++)
        if (memcmp(list->items[i].ref.id, pack, PACK_ID_BYTES) == 0 &&
            (list->items[i].whole_pack || list->items[i].frame == frame))
            return &list->items[i];
    return NULL;
}

void bad_frames_add(struct bad_frames *list, const struct bad_frame *bad)
{
    if (bad_frames_find(list, bad->ref.id, bad->frame))
        return;
    if ((list->count & (list->count - 1)) == 0) /* grown by powers of two */
        list->items =
            xreallocarray(list->items, list->count ? list->count * 2 : 1, sizeof *list->items);
    list->items[list->count++] = *bad;
}

void bad_frames_done(struct bad_frames *list)
{
    free(list->items);
    *list = (struct bad_frames){0};
}

/* ---- one wrong bit */

enum { CRC32C_POLY = 0x82f63b78, HEADER_CRC_AT = 60, STORED_CRC_AT = 56 };

/* The CRC is linear: one wrong bit changes it by a value that depends on the bit's distance from
 * the end alone. Flip the bit whose value `syndrome` is. */
static bool flip_by_syndrome(uint8_t *bytes, size_t len, uint32_t syndrome)
{
    uint32_t c = 1;
    for (size_t bit = len * 8; bit-- > 0;) {
        c = c >> 1 ^ (c & 1 ? CRC32C_POLY : 0);
        if (c == syndrome) {
            bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
            return true;
        }
    }
    return false;
}

bool crc_fix_bit(uint8_t *data, size_t len, uint8_t *crc_at)
{
    uint32_t syndrome = crc32c(data, len) ^ get_u32(crc_at);
    if (syndrome == 0)
        return true;
    if ((syndrome & (syndrome - 1)) != 0)
        return flip_by_syndrome(data, len, syndrome);
    put_u32(crc_at, get_u32(crc_at) ^ syndrome);
    return true;
}

bool frame_fix_bit(uint8_t *bytes, size_t len)
{
    struct frame_header header;
    struct err err = ERR_INIT;
    if (len <= FRAME_HEADER_BYTES || !crc_fix_bit(bytes, HEADER_CRC_AT, bytes + HEADER_CRC_AT) ||
        !frame_header_decode(bytes, &header, &err) || header.stored_len != len - FRAME_HEADER_BYTES)
        return false;
    /* The header is right now, and so is the CRC in it: the data alone may be wrong. */
    uint8_t crc[4];
    memcpy(crc, bytes + STORED_CRC_AT, sizeof crc);
    return crc_fix_bit(bytes + FRAME_HEADER_BYTES, header.stored_len, crc) &&
           memcmp(crc, bytes + STORED_CRC_AT, sizeof crc) == 0;
}

/* ---- a pack being healed */

struct healing {
    struct store *store;
    struct open_pack *pack;
    struct raw_pack raw;
    uint8_t **frames; /* by frame: new bytes with header, or NULL */
    size_t *lens;
};

static bool frame_is_good(struct store *store, struct open_pack *pack, uint32_t frame)
{
    struct err err = ERR_INIT;
    struct frame *f = open_pack_frame(store, pack, (uint16_t)frame, FRAME_FROM_DISK, &err);
    frame_free(f);
    return f != NULL;
}

/* Whether raw bytes are those of the frame: each chunk by its full id. */
static bool raw_is_right(const struct crypt *crypt, const struct footer *footer, uint32_t frame,
                         const uint8_t *raw)
{
    const struct frame_entry *entry = &footer->frames[frame];
    SCOPED(hasher) struct hasher *hasher = hasher_new(crypt_id_key(crypt));
    uint8_t leaves[CHUNK_BLOCKS_MAX * DIGEST_BYTES], id[DIGEST_BYTES];
    for (uint32_t c = entry->first_chunk; c < entry->first_chunk + entry->chunks; c++) {
        struct chunk_entry chunk = footer_chunk(footer, c);
        uint32_t n = chunk.blocks_less_1 + 1u;
        if (n > CHUNK_BLOCKS_MAX)
            return false;
        for (uint32_t i = 0; i < n; i++, raw += STORE_BLOCK_BYTES)
            hasher_leaf(hasher, raw, leaves + (size_t)i * DIGEST_BYTES);
        hasher_chunk(hasher, leaves, n, id);
        if (memcmp(id, chunk.id, DIGEST_BYTES) != 0)
            return false;
    }
    return true;
}

/* Whether the bytes of a frame are right. They are those in the pack then: what is sealed is opened
 * in a copy. Without a key that may read, nobody knows. */
static bool bytes_are_right(const struct store *store, const struct footer *footer, uint32_t frame,
                            const uint8_t *bytes, size_t len)
{
    struct frame_header header;
    struct err err = ERR_INIT;
    if (!store_can_restore(store) || !frame_check(bytes, len, &header, &err) ||
        header.raw_len != footer->frames[frame].raw_len)
        return false;
    SCOPED(frame_coder) struct frame_coder *coder = frame_coder_new(store->crypt);
    SCOPED_FREE uint8_t *copy = xmalloc(len), *raw = xmalloc(header.raw_len);
    memcpy(copy, bytes, len);
    return frame_decode(coder, copy, &header, raw, &err) &&
           raw_is_right(store->crypt, footer, frame, raw);
}

/* A frame of these raw bytes, with its header; the caller frees. */
static uint8_t *encode_raw(const struct store *store, const struct frame_entry *entry,
                           const uint8_t *raw, size_t *ret_len)
{
    SCOPED(frame_coder) struct frame_coder *coder = frame_coder_new(store->crypt);
    uint8_t *out = xmalloc(FRAME_BYTES_MAX);
    struct frame_header header;
    struct envelope envelope;
    if (store->crypt)
        envelope_new(store->crypt, &envelope);
    *ret_len = frame_encode(coder, store->opts.zstd_level, store->crypt ? &envelope : NULL, raw,
                            entry->raw_len, entry->chunks, out, &header);
    envelope_wipe(&envelope);
    return out;
}

static bool heal_bit(struct healing *h, uint32_t frame)
{
    const struct frame_place *place = &h->raw.relocation.places[frame];
    size_t len = FRAME_HEADER_BYTES + (size_t)place->stored_len;
    SCOPED_FREE uint8_t *bytes = xmalloc(len);
    if (place->offset == 0 || pread(h->raw.fd, bytes, len, (off_t)place->offset) != (ssize_t)len ||
        !frame_fix_bit(bytes, len) ||
        !bytes_are_right(h->store, &h->pack->footer, frame, bytes, len))
        return false;
    h->frames[frame] = TAKE(bytes);
    h->lens[frame] = len;
    return true;
}

/* ---- equal blocks elsewhere */

struct wanted {
    uint8_t leaf[LEAF_BYTES];
    uint8_t *at; /* where the block goes */
    bool is_found;
};

static int compare_wanted(const void *a, const void *b)
{
    return memcmp(a, b, LEAF_BYTES);
}

/* All blocks of the frame that are the block found. */
static size_t fill(struct wanted *wanted, size_t n, const struct wanted *hit, const uint8_t *block)
{
    size_t filled = 0;
    for (size_t i = 0; i < n; i++) {
        if (wanted[i].is_found || memcmp(wanted[i].leaf, hit->leaf, LEAF_BYTES) != 0)
            continue;
        memcpy(wanted[i].at, block, STORE_BLOCK_BYTES);
        wanted[i].is_found = true;
        filled++;
    }
    return filled;
}

/* Take what a frame of another pack has. */
static size_t take_from_frame(struct store *store, struct open_pack *pack, uint32_t frame,
                              struct wanted *wanted, size_t n)
{
    const struct frame_entry *entry = &pack->footer.frames[frame];
    uint32_t blocks = entry->raw_len / STORE_BLOCK_BYTES;
    struct frame *data = NULL;
    size_t filled = 0;
    for (uint32_t b = 0; b < blocks; b++) {
        const uint8_t *leaf = footer_leaf(&pack->footer, entry, b);
        const struct wanted *hit = bsearch(leaf, wanted, n, sizeof *wanted, compare_wanted);
        if (!hit || hit->is_found)
            continue;
        struct err err = ERR_INIT;
        if (!data &&
            !(data = open_pack_frame(store, pack, (uint16_t)frame, FRAME_FROM_CACHE, &err)))
            break; /* it is damaged itself */
        filled += fill(wanted, n, hit, data->data + (size_t)b * STORE_BLOCK_BYTES);
    }
    frame_free(data);
    return filled;
}

static size_t take_from_pack(struct store *store, const struct pack_ref *ref,
                             const struct bad_frames *list, struct wanted *wanted, size_t n)
{
    struct err err = ERR_INIT;
    struct open_pack *pack = open_pack_load(store, ref, &err);
    size_t filled = 0;
    if (pack && pack->footer.leaves && memcmp(pack->digest, ref->digest, DIGEST_BYTES) == 0)
        for (uint32_t f = 0; f < pack->footer.n_frames && filled < n; f++)
            if (!bad_frames_find(list, ref->id, f))
                filled += take_from_frame(store, pack, f, wanted, n);
    open_pack_free(pack);
    return filled;
}

/* The raw bytes of a frame from blocks elsewhere; the caller frees. NULL when not all are there. */
static uint8_t *gather(struct healing *h, const struct usage *usage, const struct bad_frames *list,
                       uint32_t frame)
{
    const struct footer *footer = &h->pack->footer;
    const struct frame_entry *entry = &footer->frames[frame];
    size_t n = entry->raw_len / STORE_BLOCK_BYTES, filled = 0;
    SCOPED_FREE uint8_t *raw = xmalloc(entry->raw_len);
    SCOPED_FREE struct wanted *wanted = xcalloc(n, sizeof *wanted);
    for (size_t i = 0; i < n; i++) {
        memcpy(wanted[i].leaf, footer_leaf(footer, entry, (uint32_t)i), LEAF_BYTES);
        wanted[i].at = raw + i * STORE_BLOCK_BYTES;
    }
    qsort(wanted, n, sizeof *wanted, compare_wanted);
    for (size_t i = 0; i < usage_count(usage) && filled < n; i++)
        filled += take_from_pack(h->store, &usage_at(usage, i)->ref, list, wanted, n);
    return filled == n ? TAKE(raw) : NULL;
}

static bool heal_from_elsewhere(struct healing *h, const struct usage *usage,
                                const struct bad_frames *list, uint32_t frame)
{
    if (!h->pack->footer.leaves)
        return false; /* no key: blocks cannot be told apart */
    SCOPED_FREE uint8_t *raw = gather(h, usage, list, frame);
    if (!raw || !raw_is_right(h->store->crypt, &h->pack->footer, frame, raw))
        return false;
    h->frames[frame] = encode_raw(h->store, &h->pack->footer.frames[frame], raw, &h->lens[frame]);
    return true;
}

/* ---- putting it in place */

static enum rewrite_action choose(void *context, uint32_t frame, const uint8_t **ret_bytes,
                                  size_t *ret_len)
{
    const struct healing *h = context;
    if (!h->frames[frame])
        return REWRITE_COPY_AS_IT_IS;
    *ret_bytes = h->frames[frame];
    *ret_len = h->lens[frame];
    return REWRITE_REPLACE;
}

/* Read back what was written, with all its digests. */
static void check_healed(struct store *store, struct bad_frames *list, const struct pack_ref *ref)
{
    struct err err = ERR_INIT;
    struct open_pack *pack = open_pack_load(store, ref, &err);
    if (pack && memcmp(pack->digest, ref->digest, DIGEST_BYTES) == 0)
        for (size_t i = 0; i < list->count; i++) {
            struct bad_frame *bad = &list->items[i];
            if (memcmp(bad->ref.id, ref->id, PACK_ID_BYTES) == 0 && !bad->whole_pack &&
                bad->frame != BAD_PACK_ITSELF)
                bad->is_healed = frame_is_good(store, pack, bad->frame);
        }
    open_pack_free(pack);
}

static bool rewrite_healed(struct healing *h, struct err *err)
{
    uint64_t len;
    struct rewrite how = {.context = h, .choose = choose};
    return raw_pack_rewrite(h->store->dirfd, &h->raw, &how, &len, err);
}

static bool heal_pack(struct store *store, const struct usage *usage, struct bad_frames *list,
                      const struct pack_ref *ref, struct err *err)
{
    struct err why = ERR_INIT;
    struct healing h = {.store = store, .pack = open_pack_load(store, ref, &why)};
    if (!h.pack || !raw_pack_open(store->dirfd, ref->id, true, &h.raw, &why)) {
        open_pack_free(h.pack);
        return true; /* not to be healed */
    }
    uint32_t n = h.pack->footer.n_frames;
    h.frames = xcalloc(n, sizeof *h.frames);
    h.lens = xcalloc(n, sizeof *h.lens);
    bool any = false, ok = true;
    for (size_t i = 0; i < list->count; i++) {
        const struct bad_frame *bad = &list->items[i];
        if (memcmp(bad->ref.id, ref->id, PACK_ID_BYTES) != 0 || bad->whole_pack || bad->frame >= n)
            continue;
        any |= heal_bit(&h, bad->frame) || heal_from_elsewhere(&h, usage, list, bad->frame);
    }
    if (any)
        ok = rewrite_healed(&h, err);
    for (uint32_t i = 0; i < n; i++)
        free(h.frames[i]);
    free(h.frames);
    free(h.lens);
    raw_pack_close(&h.raw);
    open_pack_free(h.pack);
    if (ok)
        check_healed(store, list, ref); /* also what somebody else has healed meanwhile */
    return ok;
}

bool heal_frames(struct store *store, const struct usage *usage, struct bad_frames *list,
                 struct err *err)
{
    for (size_t i = 0; i < list->count; i++) {
        const struct bad_frame *bad = &list->items[i];
        bool is_first = !bad->whole_pack;
        for (size_t k = 0; k < i && is_first; k++)
            is_first = memcmp(list->items[k].ref.id, bad->ref.id, PACK_ID_BYTES) != 0;
        struct pack_ref ref = bad->ref;
        if (is_first && !heal_pack(store, usage, list, &ref, err))
            return err_wrap(err, "heal");
    }
    return true;
}
