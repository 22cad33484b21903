/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packs whose ends are repaired. The first byte: bit 0, the repository is encrypted; bit 1, the
 * digest that is asked for is that of the bytes where the trailer says the footer is, else of
 * another footer, so that it is made again in vain; bit 2, header and checksums of frames are made
 * right. Nothing may crash, and what counts as repaired can be opened.
 */
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/base/file.h"
#include "tests/fuzz/scratch.h"
#include "worker/store/bytes.h"
#include "worker/store/gc/repair.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct store *plain, *sealed;

static void make_right(const struct store *store, const uint8_t *id, uint8_t *pack, size_t len)
{
    if (len < PACK_HEADER_BYTES)
        return;
    memcpy(pack + 16, id, PACK_ID_BYTES);
    memcpy(pack + 32, store->repo_id, 16);
    put_u32(pack + 252, crc32c(pack, 252));
    for (size_t at = PACK_HEADER_BYTES; at + FRAME_HEADER_BYTES < len;) {
        uint32_t stored = get_u32(pack + at + 8);
        if (memcmp(pack + at, "OXFR", 4) != 0 || stored > len - at - FRAME_HEADER_BYTES)
            break;
        put_u32(pack + at + 56, crc32c(pack + at + FRAME_HEADER_BYTES, stored));
        put_u32(pack + at + 60, crc32c(pack + at, 60));
        at += FRAME_HEADER_BYTES + stored;
    }
}

static void find_digest(const uint8_t *pack, size_t len, uint8_t out[DIGEST_BYTES])
{
    memset(out, 1, DIGEST_BYTES);
    if (len < TRAILER_BYTES)
        return;
    uint64_t at = get_u64(pack + len - TRAILER_BYTES + 8);
    if (at < len - TRAILER_BYTES)
        digest_sha256(pack + at, len - TRAILER_BYTES - (size_t)at, out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char *key_file;
    if (!plain) {
        plain = scratch_store(NULL);
        sealed = scratch_store(&key_file);
        if (mkdirat(plain->dirfd, "packs/07", 0700) != 0 ||
            mkdirat(sealed->dirfd, "packs/07", 0700) != 0)
            abort();
    }
    if (size == 0)
        return 0;
    struct store *store = data[0] & 1 ? sealed : plain;
    struct pack_ref ref = {.id = {7, 7}};
    char path[64];
    SCOPED_FREE uint8_t *pack = xmalloc(size);
    memcpy(pack, data + 1, size - 1);
    if (data[0] & 4)
        make_right(store, ref.id, pack, size - 1);
    find_digest(pack, size - 1, ref.digest);
    if (!(data[0] & 2))
        ref.digest[0] ^= 1;
    pack_path(ref.id, path);
    scratch_put(store, path, pack, size - 1);
    struct err err = ERR_INIT;
    bool done = false;
    if (!pack_repair(store, &ref, &done, &err))
        __builtin_trap();
    if (!done)
        return 0;
    struct open_pack *open = open_pack_load(store, &ref, &err);
    if (!open || memcmp(open->digest, ref.digest, DIGEST_BYTES) != 0)
        __builtin_trap();
    for (uint32_t i = 0; i < open->footer.n_frames; i++) {
        err_clear(&err);
        frame_free(open_pack_frame(store, open, (uint16_t)i, FRAME_FROM_CACHE, &err));
    }
    open_pack_free(open);
    return 0;
}
