/* SPDX-License-Identifier: Apache-2.0 */
/* The decoders of garbage collection: lists of marks, pins, relocation tables; the first byte says
 * which. Repository, digests and checksums are made right. */
#include <stdint.h>
#include <string.h>

#include "worker/store/bytes.h"
#include "worker/store/gc/marks.h"
#include "worker/store/gc/pins.h"
#include "worker/store/gc/relocate.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint8_t repository[16] = {1, 2, 3};
enum { HEADER_BYTES = 64, OFFSET_MAX = 1 << 20 };

static void make_right(uint8_t *in, size_t size)
{
    if (size < HEADER_BYTES + DIGEST_BYTES)
        return;
    memcpy(in + 16, repository, sizeof repository);
    digest_sha256(in, size - DIGEST_BYTES, in + size - DIGEST_BYTES);
}

static void try_marks(uint8_t *in, size_t size)
{
    SCOPED_MARKS struct mark_list list = {0};
    struct err err = ERR_INIT;
    make_right(in, size / 2);
    make_right(in + size / 2, size / 2);
    if (!mark_list_decode(in, size, repository, &list, &err))
        return;
    size_t len;
    uint8_t *again = mark_list_encode(&list, repository, &len);
    if (len / 2 > size)
        __builtin_trap();
    free(again);
}

static void try_pins(uint8_t *in, size_t size)
{
    struct pin pin;
    struct err err = ERR_INIT;
    make_right(in, size);
    if (!pin_decode(in, size, repository, &pin, &err))
        return;
    size_t len;
    uint8_t *again = pin_encode(&pin, repository, &len);
    if (len != size)
        __builtin_trap();
    free(again);
    pin_done(&pin);
}

static void try_relocation(uint8_t *in, size_t size)
{
    struct relocation r;
    struct err err = ERR_INIT;
    if (size >= 4)
        put_u32(in + size - 4, crc32c(in, size - 4));
    if (!relocation_decode(in, size, OFFSET_MAX, &r, &err))
        return;
    for (uint32_t i = 0; i < r.n_frames; i++)
        if (r.places[i].offset != 0 &&
            r.places[i].offset + FRAME_HEADER_BYTES + r.places[i].stored_len > OFFSET_MAX)
            __builtin_trap();
    relocation_done(&r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    uint8_t *in = xmalloc(size);
    memcpy(in, data + 1, size - 1);
    switch (data[0] % 3) {
    case 0:
        try_marks(in, size - 1);
        break;
    case 1:
        try_pins(in, size - 1);
        break;
    default:
        try_relocation(in, size - 1);
    }
    free(in);
    return 0;
}
