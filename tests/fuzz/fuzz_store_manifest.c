/* SPDX-License-Identifier: Apache-2.0 */
/* The decoders of manifests: the first byte picks tail or page. Digests are made right. */
#include <stdint.h>
#include <string.h>

#include "worker/store/bytes.h"
#include "worker/store/manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_tail(const uint8_t *data, size_t size)
{
    struct manifest m;
    struct err err = ERR_INIT;
    if (!manifest_tail_decode(data, size, 1 << 20, &m, &err))
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
static void try_page(const uint8_t *data, size_t size)
{
    if (size < 18)
        return;
    struct page_entry entry = {
        .n_records = get_u32(data) % PAGE_RECORDS_MAX + 1,
        .first_block = get_u64(data + 8) >> 26,
        .stored_len = (uint32_t)(size - 17),
        .codec = data[16] % 2 ? FRAME_ZSTD : FRAME_RAW,
    };
    uint32_t n_packs = get_u32(data + 4);
    const uint64_t n_blocks = UINT64_C(1) << 38;
    if (entry.codec == FRAME_RAW) /* what the tail's decoder makes sure of */
        entry.n_records = entry.stored_len / PAGE_RECORD_BYTES;
    if (entry.n_records == 0 || entry.n_records > PAGE_RECORDS_MAX ||
        (entry.codec == FRAME_RAW && entry.stored_len != entry.n_records * PAGE_RECORD_BYTES))
        return;
    digest_sha256(data + 17, entry.stored_len, entry.digest);
    struct err err = ERR_INIT;
    struct map_record *records = xcalloc(entry.n_records, sizeof *records);
    if (page_decode(data + 17, &entry, n_packs, n_blocks, records, &err)) {
        uint64_t end = 0;
        for (uint32_t i = 0; i < entry.n_records; i++) {
            if (records[i].block < end || records[i].where.pack >= n_packs)
                __builtin_trap();
            end = map_record_end(&records[i]);
        }
        if (end > n_blocks)
            __builtin_trap();
    }
    free(records);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 0)
        (data[0] % 2 ? try_page : try_tail)(data + 1, size - 1);
    return 0;
}
