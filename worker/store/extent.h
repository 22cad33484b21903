/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which ranges of a disk hold data: the map that sources, targets and the repository share.
 * Threads: a list belongs to one thread at a time.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One range of a disk. What is not data reads as zeroes. */
struct extent {
    uint64_t offset;
    uint64_t len; /* bytes; never 0 in a list */
    bool is_data;
};

/* Ranges in rising order, without gap or overlap. Start with EXTENTS_INIT. */
struct extents {
    struct extent *items;
    size_t count;
    size_t capacity;
};

#define EXTENTS_INIT                                                                               \
    {                                                                                              \
        0                                                                                          \
    }

/* Append [offset, offset + len), joined to the last one if that is adjacent and of the same kind.
 * Nothing happens for len 0. Asserts that it begins where the last one ends. */
void extents_add(struct extents *list, uint64_t offset, uint64_t len, bool is_data);
/* The bytes of its ranges that hold data. */
uint64_t extents_data_bytes(const struct extents *list);
/* Empty the list, keeping the memory. */
void extents_reset(struct extents *list);
/* Free the memory; the list may be used again. */
void extents_done(struct extents *list);

#define SCOPED_EXTENTS __attribute__((cleanup(extents_done), unused))
