/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/store/packfile.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/base/file.h"
#include "worker/store/bytes.h"
#include "worker/store/crew.h"
#include "worker/store/decoder.h"
#include "worker/store/gc/relocate.h"

enum { PACK_BYTES_MIN = 128 << 10, DIRECT_BYTES = STORE_BLOCK_BYTES };

void pack_id_of_session(const uint8_t repository[16], const char *session, uint32_t n,
                        uint8_t ret_id[PACK_ID_BYTES])
{
    static const char label[] = "oxbow pack 1"; /* with the zero at its end */
    uint8_t bytes[sizeof label + 16 + PACK_SESSION_BYTES + 4] = {0}, digest[DIGEST_BYTES];
    uint8_t *at = bytes;
    memcpy(at, label, sizeof label);
    memcpy(at += sizeof label, repository, 16);
    at += 16;
    for (size_t i = 0; session[i] != '\0'; i++) {
        assert(i < PACK_SESSION_BYTES);
        at[i] = (uint8_t)session[i];
    }
    put_u32(at + PACK_SESSION_BYTES, n);
    digest_sha256(bytes, sizeof bytes, digest);
    memcpy(ret_id, digest, PACK_ID_BYTES);
}

void pack_path(const uint8_t id[PACK_ID_BYTES], char *out)
{
    char hex[2 * PACK_ID_BYTES + 1];
    hex_encode(id, PACK_ID_BYTES, hex);
    (void)snprintf(out, 64, "packs/%.2s/%s.pk", hex, hex);
}

/* ---- opening a pack */

struct pack_request {
    struct store *store;
    const struct pack_ref *ref;
};

static bool read_header(struct store *store, int fd, const uint8_t id[PACK_ID_BYTES],
                        bool *ret_relocated, struct err *err)
{
    uint8_t bytes[PACK_HEADER_BYTES];
    struct pack_header header;
    if (!file_pread_full(fd, bytes, sizeof bytes, 0, err) ||
        !pack_header_decode(bytes, &header, err))
        return false;
    if (memcmp(header.id, id, PACK_ID_BYTES) != 0)
        return err_set(err, ERR_STORE_CORRUPT, 0, "holds another pack");
    if (memcmp(header.repository, store->repo_id, sizeof store->repo_id) != 0)
        return err_set(err, ERR_STORE_CORRUPT, 0, "belongs to another repository");
    *ret_relocated = header.is_relocated;
    return true;
}

/* Frames lie elsewhere than the footer says. */
static bool relocate(struct open_pack *pack, const struct trailer *trailer, struct err *err)
{
    struct relocation r;
    if (!relocation_read(pack->fd, trailer, &r, err))
        return false;
    bool ok = r.n_frames == pack->footer.n_frames;
    for (uint32_t i = 0; ok && i < r.n_frames; i++) {
        pack->footer.frames[i].offset = r.places[i].offset;
        pack->footer.frames[i].stored_len = r.places[i].stored_len;
    }
    relocation_done(&r);
    return ok || err_set(err, ERR_STORE_CORRUPT, 0, "relocation table of another pack");
}

/* The offset of the tail in the pack that the footer was made for. */
static bool original_offset(const struct open_pack *pack, const struct trailer *trailer,
                            uint64_t *ret_offset, struct err *err)
{
    struct relocation r;
    if (!relocation_read(pack->fd, trailer, &r, err))
        return false;
    *ret_offset = r.footer_offset;
    relocation_done(&r);
    return true;
}

static bool read_footer(struct store *store, struct open_pack *pack, bool is_relocated,
                        struct err *err)
{
    struct stat st;
    if (fstat(pack->fd, &st) != 0)
        return err_set_errno(err, errno, "stat");
    uint64_t file_len = (uint64_t)st.st_size;
    uint8_t bytes[TRAILER_BYTES];
    struct trailer trailer;
    if (file_len < PACK_HEADER_BYTES + TRAILER_BYTES)
        return err_set(err, ERR_STORE_CORRUPT, 0, "cut short: %" PRIu64 " bytes", file_len);
    if (!file_pread_full(pack->fd, bytes, sizeof bytes, file_len - TRAILER_BYTES, err) ||
        !trailer_decode(bytes, TRAILER_PACK, file_len, FOOTER_BYTES_MAX, &trailer, err))
        return false;
    uint8_t *footer = xmalloc(trailer.tail_len + 1u);
    if (!file_pread_full(pack->fd, footer, trailer.tail_len, trailer.tail_offset, err)) {
        free(footer);
        return false;
    }
    digest_sha256(footer, trailer.tail_len, pack->digest);
    if (memcmp(pack->digest, trailer.tail_digest, DIGEST_BYTES) != 0) {
        free(footer);
        return err_set(err, ERR_STORE_CORRUPT, 0, "footer: wrong digest");
    }
    uint64_t offset = trailer.tail_offset;
    if (is_relocated && !original_offset(pack, &trailer, &offset, err)) {
        free(footer);
        return false;
    }
    return footer_decode(footer, trailer.tail_len, offset, store->crypt, &pack->footer, err) &&
           (!is_relocated || relocate(pack, &trailer, err));
}

void open_pack_free(void *value)
{
    struct open_pack *pack = value;
    if (!pack)
        return;
    if (pack->fd >= 0)
        (void)close(pack->fd);
    if (atomic_load(&pack->direct_fd) >= 0)
        (void)close(atomic_load(&pack->direct_fd));
    footer_done(&pack->footer);
    free(pack);
}

struct open_pack *open_pack_load(struct store *store, const struct pack_ref *ref, struct err *err)
{
    struct open_pack *pack = ALLOC_NEW(struct open_pack);
    bool is_relocated = false;
    pack_path(ref->id, pack->path);
    atomic_init(&pack->direct_fd, -1);
    pack->fd = openat(store->dirfd, pack->path, O_RDONLY | O_CLOEXEC);
    if (pack->fd < 0) {
        if (errno == ENOENT)
            err_set(err, ERR_STORE_CORRUPT, ENOENT, "is missing");
        else
            err_set_errno(err, errno, "open");
    }
    if (pack->fd < 0 || !read_header(store, pack->fd, ref->id, &is_relocated, err) ||
        !read_footer(store, pack, is_relocated, err)) {
        err_wrap(err, "'%s'", pack->path);
        open_pack_free(pack);
        return NULL;
    }
    return pack;
}

static void *load_pack(void *context, size_t *ret_bytes, struct err *err)
{
    const struct pack_request *request = context;
    struct open_pack *pack = open_pack_load(request->store, request->ref, err);
    if (!pack)
        return NULL;
    /* So many at least that the bound also bounds the open files. What was opened of a sealed
     * footer is there twice. */
    size_t tables = (size_t)pack->footer.n_chunks * CHUNK_ENTRY_BYTES +
                    (size_t)pack->footer.n_leaves * LEAF_BYTES;
    size_t bytes = sizeof *pack +
                   pack->footer.n_frames * (FRAME_ENTRY_BYTES + sizeof *pack->footer.frames) +
                   (pack->footer.opened ? 2 : 1) * tables;
    *ret_bytes = bytes > PACK_BYTES_MIN ? bytes : PACK_BYTES_MIN;
    return pack;
}

struct cache_item *pack_pin(struct store *store, const struct pack_ref *ref, struct err *err)
{
    struct cache_key key = {0};
    memcpy(key.bytes, ref->id, PACK_ID_BYTES);
    struct pack_request request = {.store = store, .ref = ref};
    struct cache_item *item = cache_pin(store->packs, &key, load_pack, &request, err);
    if (item && memcmp(pack_of(item)->digest, ref->digest, DIGEST_BYTES) != 0) {
        err_set(err, ERR_STORE_CORRUPT, 0, "'%s' is not the pack that was written",
                pack_of(item)->path);
        cache_unpin(store->packs, item);
        return NULL;
    }
    return item;
}

/* ---- decoding a frame */

static bool verify_chunks(struct hasher *hasher, const struct footer *footer,
                          const struct frame_entry *entry, const uint8_t *leaves, struct err *err)
{
    uint8_t sizes[FRAME_BLOCKS_MAX], ids[FRAME_BLOCKS_MAX * DIGEST_BYTES];
    uint32_t left = entry->raw_len / STORE_BLOCK_BYTES;
    for (uint32_t i = 0; i < entry->chunks; i++) {
        uint32_t n = footer_chunk(footer, entry->first_chunk + i).blocks_less_1 + 1u;
        if (n > CHUNK_BLOCKS_MAX || n > left)
            return err_set(err, ERR_STORE_CORRUPT, 0, "chunk %u is too large",
                           entry->first_chunk + i);
        sizes[i] = (uint8_t)n;
        left -= n;
    }
    hasher_chunks(hasher, leaves, sizes, entry->chunks, ids);
    for (uint32_t i = 0; i < entry->chunks; i++)
        if (memcmp(ids + (size_t)i * DIGEST_BYTES, footer_chunk(footer, entry->first_chunk + i).id,
                   DIGEST_BYTES) != 0)
            return err_set(err, ERR_STORE_CORRUPT, 0, "chunk %u: wrong digest",
                           entry->first_chunk + i);
    return true;
}

static bool verify_blocks(struct decoder *d, const struct footer *footer,
                          const struct frame_entry *entry, const uint8_t *raw, struct err *err)
{
    const uint8_t *blocks[FRAME_BLOCKS_MAX] = {0};
    uint8_t leaves[FRAME_BLOCKS_MAX * DIGEST_BYTES];
    uint32_t n_blocks = entry->raw_len / STORE_BLOCK_BYTES;
    for (uint32_t i = 0; i < n_blocks; i++)
        blocks[i] = raw + (size_t)i * STORE_BLOCK_BYTES;
    hasher_leaves(d->hasher, blocks, n_blocks, leaves);
    for (uint32_t i = 0; i < n_blocks; i++)
        if (memcmp(leaves + (size_t)i * DIGEST_BYTES, footer_leaf(footer, entry, i), LEAF_BYTES) !=
            0)
            return err_set(err, ERR_STORE_CORRUPT, 0, "block %u: wrong digest", i);
    return verify_chunks(d->hasher, footer, entry, leaves, err);
}

/* ---- reading a frame */

/* The descriptor for reading past the page cache, or -1. It is opened by its own, not a flag of the
 * other one, which threads that read through the cache share; and by its descriptor, not its name,
 * which may be another file's by now. */
static int direct_fd(struct store *store, struct open_pack *pack)
{
    int fd = atomic_load(&pack->direct_fd), none = -1;
    if (fd >= 0 || !atomic_load(&store->likes_direct))
        return fd;
    char path[32];
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", pack->fd);
    fd = open(path, O_RDONLY | O_CLOEXEC | O_DIRECT);
    if (fd < 0)
        atomic_store(&store->likes_direct, false);
    if (fd < 0 || atomic_compare_exchange_strong(&pack->direct_fd, &none, fd))
        return fd;
    (void)close(fd); /* another thread was first */
    return none;
}

/* Whole blocks, past the page cache. False without an error: the file system does not want that. */
static bool read_direct(int fd, uint8_t *out, size_t skip, size_t len, uint64_t begin,
                        struct err *err)
{
    size_t want = (skip + len + DIRECT_BYTES - 1) / DIRECT_BYTES * DIRECT_BYTES, have = 0;
    while (have < skip + len) {
        ssize_t n = pread(fd, out + have, want - have, (off_t)(begin + have));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EINVAL)
            return false;
        if (n < 0)
            return err_set_errno(err, errno, "read at offset %" PRIu64, begin + have);
        have += (size_t)n;
        /* Only at the end of the file does it stop within a block. */
        if ((n == 0 || n % DIRECT_BYTES != 0) && have < skip + len)
            return err_set(err, ERR_IO, 0, "ends at offset %" PRIu64 ", %zu bytes too early",
                           begin + have, skip + len - have);
    }
    return true;
}

/* Where in the decoder's memory they are, or NULL. */
static uint8_t *read_bytes(struct store *store, struct decoder *d, struct open_pack *pack,
                           uint64_t offset, size_t len, enum frame_from from, struct err *err)
{
    int fd = from == FRAME_FROM_DISK ? direct_fd(store, pack) : -1;
    size_t skip = offset % DIRECT_BYTES;
    if (fd >= 0 && read_direct(fd, d->bytes, skip, len, offset - skip, err))
        return d->bytes + skip;
    if (err_is_set(err))
        return NULL;
    if (fd >= 0)
        atomic_store(&store->likes_direct, false);
    return file_pread_full(pack->fd, d->bytes, len, offset, err) ? d->bytes : NULL;
}

/* Read and check what needs no key. Where in the decoder's memory the frame is, or NULL. */
static uint8_t *read_frame(struct store *store, struct decoder *d, struct open_pack *pack,
                           const struct frame_entry *entry, enum frame_from from,
                           struct frame_header *header, struct err *err)
{
    if (entry->offset == 0 || entry->stored_len > FRAME_STORED_MAX) {
        err_set(err, ERR_STORE_CORRUPT, 0, "is gone: it was collected as garbage");
        return NULL;
    }
    size_t len = FRAME_HEADER_BYTES + (size_t)entry->stored_len;
    uint8_t *bytes = read_bytes(store, d, pack, entry->offset, len, from, err);
    if (!bytes || !frame_check(bytes, len, header, err))
        return NULL;
    if (header->raw_len == entry->raw_len && header->chunks == entry->chunks &&
        header->is_sealed == (entry->list != NULL))
        return bytes;
    err_set(err, ERR_STORE_CORRUPT, 0, "header and footer disagree");
    return NULL;
}

static bool decode_frame(struct store *store, struct decoder *d, struct open_pack *pack,
                         const struct frame_entry *entry, enum frame_from from, uint8_t *raw,
                         struct err *err)
{
    struct frame_header header;
    uint8_t *bytes = read_frame(store, d, pack, entry, from, &header, err);
    return bytes && frame_decode(d->coder, bytes, &header, raw, err) &&
           verify_blocks(d, &pack->footer, entry, raw, err);
}

struct frame *open_pack_frame(struct store *store, struct open_pack *pack, uint16_t number,
                              enum frame_from from, struct err *err)
{
    struct frame *frame = NULL;
    if (!store_needs_key(store, KEY_TO_RESTORE, err))
        return NULL;
    bool ok = number < pack->footer.n_frames;
    if (ok) {
        const struct frame_entry *entry = &pack->footer.frames[number];
        struct decoder *d = decoder_take(store->decoders);
        frame = frame_new(store->decoders, entry->raw_len / STORE_BLOCK_BYTES);
        ok = decode_frame(store, d, pack, entry, from, frame->data, err);
        decoder_give(store->decoders, d);
    } else {
        err_set(err, ERR_STORE_CORRUPT, 0, "is not there");
    }
    if (!ok) {
        err_wrap(err, "'%s' frame %u", pack->path, number);
        frame_free(frame);
        frame = NULL;
    }
    return frame;
}

/* Whether the file with the pack's name is not the one that is open: healed or compacted since. */
static bool was_replaced(const struct store *store, const struct open_pack *pack)
{
    struct stat open_st, now_st;
    return fstat(pack->fd, &open_st) != 0 ||
           (fstatat(store->dirfd, pack->path, &now_st, AT_SYMLINK_NOFOLLOW) == 0 &&
            (open_st.st_ino != now_st.st_ino || open_st.st_dev != now_st.st_dev));
}

struct frame *frame_load(struct store *store, const struct pack_ref *ref, uint16_t number,
                         enum frame_from from, struct err *err)
{
    struct cache_item *item =
        store_needs_key(store, KEY_TO_RESTORE, err) ? pack_pin(store, ref, err) : NULL;
    if (!item)
        return NULL;
    struct frame *frame = open_pack_frame(store, pack_of(item), number, from, err);
    if (!frame && was_replaced(store, pack_of(item))) {
        struct err again = ERR_INIT;
        struct open_pack *fresh = open_pack_load(store, ref, &again);
        if (fresh && memcmp(fresh->digest, ref->digest, DIGEST_BYTES) == 0)
            frame = open_pack_frame(store, fresh, number, from, &again);
        open_pack_free(fresh);
        if (frame)
            err_clear(err);
    }
    cache_unpin(store->packs, item);
    return frame;
}

unsigned frame_crew(const struct store *store, unsigned asked)
{
    unsigned threads = crew_size(asked) * (atomic_load(&store->likes_direct) ? 3 : 1);
    return threads < CREW_MAX ? threads : CREW_MAX;
}

bool open_pack_check_sums(struct store *store, struct open_pack *pack, uint16_t number,
                          enum frame_from from, struct err *err)
{
    struct frame_header header;
    bool ok = number < pack->footer.n_frames;
    if (ok) {
        struct decoder *d = decoder_take(store->decoders);
        ok = read_frame(store, d, pack, &pack->footer.frames[number], from, &header, err) != NULL;
        decoder_give(store->decoders, d);
    } else {
        err_set(err, ERR_STORE_CORRUPT, 0, "is not there");
    }
    return ok || err_wrap(err, "'%s' frame %u", pack->path, number);
}

uint32_t frame_check_sums(struct store *store, const struct pack_ref *ref, uint16_t number,
                          enum frame_from from, struct err *err)
{
    struct cache_item *item = pack_pin(store, ref, err);
    if (!item)
        return 0;
    struct open_pack *pack = pack_of(item);
    uint32_t blocks = open_pack_check_sums(store, pack, number, from, err)
                          ? pack->footer.frames[number].raw_len / STORE_BLOCK_BYTES
                          : 0;
    cache_unpin(store->packs, item);
    return blocks;
}

struct frame_request {
    struct store *store;
    const struct pack_ref *ref;
    uint16_t number;
};

static void *load_frame(void *context, size_t *ret_bytes, struct err *err)
{
    const struct frame_request *r = context;
    struct frame *frame = frame_load(r->store, r->ref, r->number, FRAME_FROM_CACHE, err);
    if (frame)
        *ret_bytes = sizeof *frame + (size_t)frame->blocks * STORE_BLOCK_BYTES;
    return frame;
}

struct cache_item *frame_pin(struct store *store, const struct pack_ref *ref, uint16_t number,
                             struct err *err)
{
    struct cache_key key = {0};
    memcpy(key.bytes, ref->id, PACK_ID_BYTES);
    put_u16(key.bytes + PACK_ID_BYTES, number);
    struct frame_request request = {.store = store, .ref = ref, .number = number};
    return cache_pin(store->frames, &key, load_frame, &request, err);
}
