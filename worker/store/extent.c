/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/store/extent.h"

#include <assert.h>
#include <stdlib.h>

#include "proto/base/alloc.h"

void extents_add(struct extents *list, uint64_t offset, uint64_t len, bool is_data)
{
    if (len == 0)
        return;
    if (list->count > 0) {
        struct extent *last = &list->items[list->count - 1];
        assert(last->offset + last->len == offset);
        if (last->is_data == is_data) {
            last->len += len;
            return;
        }
    }
    if (list->count == list->capacity) {
        list->capacity = list->capacity ? list->capacity * 2 : 16;
        list->items = xreallocarray(list->items, list->capacity, sizeof *list->items);
    }
    list->items[list->count++] = (struct extent){.offset = offset, .len = len, .is_data = is_data};
}

uint64_t extents_data_bytes(const struct extents *list)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < list->count; i++)
        sum += list->items[i].is_data ? list->items[i].len : 0;
    return sum;
}

void extents_reset(struct extents *list)
{
    list->count = 0;
}

void extents_done(struct extents *list)
{
    free(list->items);
    *list = (struct extents)EXTENTS_INIT;
}
