/* SPDX-License-Identifier: Apache-2.0 */
/* Maps of changed ranges: 8 bytes for the sizes of the disk and of its parent, then the text. */
#include <stdint.h>
#include <string.h>

#include "worker/repo/changed.h"
#include "worker/store/bytes.h"
#include "worker/store/store.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { SIZES_BYTES = 8 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < SIZES_BYTES)
        return 0;
    uint64_t disk = get_u32(data), parent = get_u32(data + 4), at = 0;
    struct err err = ERR_INIT;
    SCOPED_EXTENTS struct extents map = EXTENTS_INIT;
    if (!changed_parse((const char *)data + SIZES_BYTES, size - SIZES_BYTES, disk, parent, &map,
                       &err))
        return 0;
    for (size_t i = 0; i < map.count; i++) {
        const struct extent *x = &map.items[i];
        at += x->len;
        if (x->is_data)
            continue;
        /* What is kept are whole blocks, which the parent has. */
        if (x->offset % STORE_BLOCK_BYTES != 0 || at > parent ||
            (at % STORE_BLOCK_BYTES != 0 && at != disk))
            __builtin_trap();
    }
    if (at != disk)
        __builtin_trap();
    return 0;
}
