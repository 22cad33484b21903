/* SPDX-License-Identifier: Apache-2.0 */
/* The decoder of indexes, with repository and digest made right. */
#include <stdint.h>
#include <string.h>

#include "worker/store/index.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t repository[16] = {1, 2, 3};
    uint8_t *in = xmalloc(size + 1);
    memcpy(in, data, size);
    if (size >= 64 + DIGEST_BYTES) {
        memcpy(in + 16, repository, sizeof repository);
        digest_sha256(in, size - DIGEST_BYTES, in + size - DIGEST_BYTES);
    }
    struct index ix;
    struct err err = ERR_INIT;
    if (index_decode(in, size, repository, &ix, &err)) {
        for (uint32_t i = 0; i < ix.n_hooks; i++)
            if (ix.hooks[i].pack >= ix.n_packs)
                __builtin_trap();
        index_done(&ix);
    }
    free(in);
    return 0;
}
