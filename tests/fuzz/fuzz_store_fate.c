/* SPDX-License-Identifier: Apache-2.0 */
/* The decoder of fates, as they are and with the checksum made right. */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "worker/store/fate.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_text(const char *text, size_t len)
{
    struct fate fate;
    struct err err = ERR_INIT;
    if (!fate_decode(text, len, &fate, &err))
        return;
    char again[FATE_TEXT_MAX];
    if (fate_encode(&fate, again) != len || memcmp(again, text, len) != 0)
        __builtin_trap(); /* a fate has one form */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    try_text((const char *)data, size);
    if (size < 9 || size > 4096)
        return 0;
    char text[4096 + 1];
    memcpy(text, data, size);
    (void)snprintf(text + size - 9, 10, "%08" PRIx32 "\n", crc32c(text, size - 9));
    try_text(text, size);
    return 0;
}
