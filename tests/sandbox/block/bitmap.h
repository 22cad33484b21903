/* SPDX-License-Identifier: Apache-2.0 */
/* Names of dirty bitmaps, of open nodes and of volumes at rest: arrays of strings. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include <jansson.h>

#include "tests/sandbox/block/qmp.h"

enum { BITMAP_GRANULARITY = 65536 };

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

/* The names of a node's persistent bitmaps that can be used, as an array; NULL on error. */
json_t *bitmap_names_of(struct qmp *qmp, const char *node, struct err *err);
/* How many bytes a bitmap of a node calls dirty, by QEMU's own count; 0 without it. */
uint64_t bitmap_count(struct qmp *qmp, const char *node, const char *name);
/* Arguments of "block-dirty-bitmap-add": one that is kept and records, or one that is only merged
 * into. New reference. */
json_t *bitmap_add_arguments(const char *node, const char *name, bool persistent);
