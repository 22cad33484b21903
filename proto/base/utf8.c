/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/base/utf8.h"

size_t utf8_length(const char *text)
{
    const unsigned char *c = (const unsigned char *)text;
    size_t len;
    unsigned char low = 0x80, high = 0xbf; /* what the second byte may be */
    if (c[0] == 0)
        return 0;
    if (c[0] < 0x80)
        return 1;
    if (c[0] >= 0xc2 && c[0] <= 0xdf) {
        len = 2;
    } else if (c[0] >= 0xe0 && c[0] <= 0xef) {
        len = 3;
        low = c[0] == 0xe0 ? 0xa0 : 0x80;
        high = c[0] == 0xed ? 0x9f : 0xbf;
    } else if (c[0] >= 0xf0 && c[0] <= 0xf4) {
        len = 4;
        low = c[0] == 0xf0 ? 0x90 : 0x80;
        high = c[0] == 0xf4 ? 0x8f : 0xbf;
    } else {
        return 0;
    }
    if (c[1] < low || c[1] > high)
        return 0;
    for (size_t i = 2; i < len; i++) {
        if ((c[i] & 0xc0) != 0x80)
            return 0;
    }
    return len;
}
