/* SPDX-License-Identifier: Apache-2.0 */
/* Names of dirty bitmaps, of running disks and of volumes at rest: arrays of strings. */
#pragma once

#include <stdbool.h>
#include <string.h>

#include <jansson.h>

static inline bool bitmap_is_among(const json_t *names, const char *name)
{
    size_t i;
    json_t *one;
    json_array_foreach (names, i, one) {
        if (strcmp(json_string_value(one), name) == 0)
            return true;
    }
    return false;
}
