/* SPDX-License-Identifier: Apache-2.0 */
/* The decoders of manifests: the first byte picks tail or page, plain or sealed. Digests are made
 * right, and what is sealed is sealed here, so that what lies behind is reached. */
#include <stdint.h>
#include <string.h>

#include "worker/store/bytes.h"
#include "worker/store/manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct crypt *a_crypt(void)
{
    static const uint8_t uuid[16] = {1};
    struct crypt_secrets secrets = {.can_write = true, .write = {2}, .public = {9}};
    return crypt_new(uuid, &secrets);
}

static void try_tail(const uint8_t *data, size_t size, bool is_sealed)
{
    struct manifest m;
    struct err err = ERR_INIT;
    if (!manifest_tail_decode(data, size, 1 << 20, is_sealed, &m, &err))
        return;
    for (uint32_t i = 0; i < m.n_pages; i++)
        if (m.pages[i].offset + m.pages[i].stored_len > 1 << 20 ||
            m.pages[i].n_records > PAGE_RECORDS_MAX)
            __builtin_trap();
    size_t len;
    uint8_t *again = manifest_tail_encode(&m, &len);
    if (len != size)
        __builtin_trap();
    free(again);
    manifest_done(&m);
}

/* u32 records, u32 packs, u64 first block, u8 codec, the stored bytes */
static void try_page(const uint8_t *data, size_t size, bool is_sealed)
{
    if (size < 18)
        return;
    struct page_entry entry = {
        .n_records = get_u32(data) % PAGE_RECORDS_MAX + 1,
        .first_block = get_u64(data + 8) >> 26,
        .stored_len = (uint32_t)(size - 17),
        .codec = data[16] % 2 ? FRAME_ZSTD : FRAME_RAW,
    };
    struct manifest map = {.n_packs = get_u32(data + 4), .size_bytes = STORE_DISK_BYTES_MAX};
    if (entry.codec == FRAME_RAW) /* what the tail's decoder makes sure of */
        entry.n_records = entry.stored_len / PAGE_RECORD_BYTES;
    if (entry.n_records == 0 || entry.n_records > PAGE_RECORDS_MAX ||
        entry.stored_len > entry.n_records * PAGE_RECORD_BYTES ||
        (entry.codec == FRAME_RAW && entry.stored_len != entry.n_records * PAGE_RECORD_BYTES))
        return;
    SCOPED(crypt) struct crypt *crypt = is_sealed ? a_crypt() : NULL;
    uint8_t *stored = xmalloc(CRYPT_SEAL_BYTES + entry.stored_len);
    if (crypt)
        page_seal(&map, crypt, data + 17, entry.stored_len, stored, &entry);
    else
        memcpy(stored, data + 17, entry.stored_len);
    digest_sha256(stored, entry.stored_len, entry.digest);
    struct err err = ERR_INIT;
    struct map_record *records = xcalloc(entry.n_records, sizeof *records);
    if (page_decode(&map, crypt, stored, &entry, records, &err)) {
        uint64_t end = 0;
        for (uint32_t i = 0; i < entry.n_records; i++) {
            if (records[i].block < end || records[i].where.pack >= map.n_packs)
                __builtin_trap();
            end = map_record_end(&records[i]);
        }
        if (end > disk_blocks(map.size_bytes))
            __builtin_trap();
    } else if (err.code == ERR_STORE_CORRUPT && strstr(err.message, "authentic")) {
        __builtin_trap(); /* it was sealed right */
    }
    free(records);
    free(stored);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 0)
        (data[0] % 2 ? try_page : try_tail)(data + 1, size - 1, (data[0] & 2) != 0);
    return 0;
}
