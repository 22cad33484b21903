/* SPDX-License-Identifier: Apache-2.0 */
/* A host's map of a disk, in pieces whose size the first byte decides. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "worker/ovirt/imageio_map.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    size_t piece = data[0] % 32 + 1u;
    struct err err = ERR_INIT;
    struct map_reader reader;
    map_reader_init(&reader, data[0] & 32 ? IMAGEIO_DIRTY : IMAGEIO_ZERO, 1 << 20);
    bool ok = true;
    for (size_t at = 1; ok && at < size; at += piece)
        ok = map_reader_add(&reader, (const char *)data + at, size - at < piece ? size - at : piece,
                            &err);
    struct imageio_map map = {0};
    if (ok && map_reader_finish(&reader, &map, &err)) {
        uint64_t end = 0;
        for (size_t i = 0; i < map.count; i++) {
            if (map.v[i].offset != end || map.v[i].len == 0)
                abort();
            end += map.v[i].len;
        }
        if (end != 1 << 20)
            abort();
    }
    imageio_map_done(&map);
    map_reader_done(&reader);
    return 0;
}
