/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a guest of the sandbox writes, as a pure function of a few numbers: so that any image of its
 * disks can be judged without having watched it.
 *
 * A guest writes ONE ordered stream of numbered writes over all its disks, one at a time. Write n
 * hits a place chosen by a hash of the seed and n, always within the "hot" extents of the disks:
 * 1 MiB each, spread evenly. Most writes put a record there: magic, seed, n, place, CRC-32C and a
 * filler made from n, compressible or not. Some write zeroes, over one block or over 64 KiB.
 *
 * Before write 1 the disks hold their initial content: of the 256 KiB chunks of a disk the given
 * percentage is filled, the others read as zeroes. A share of the filled chunks is drawn from a
 * pool common to all guests with the same common_seed (an operating system, as it were); the others
 * are this guest's own.
 *
 * Threads: all functions are reentrant; a spec is read-only after loading.
 */
#pragma once

#include <stdint.h>

#include "proto/base/err.h"

enum {
    PATTERN_BLOCK = 4096,
    PATTERN_CHUNK = 256 << 10,
    PATTERN_GROUP_BLOCKS = 16, /* of a long zero write */
    PATTERN_DISKS_MAX = 32,
    PATTERN_NAME_BYTES = 128,
    PATTERN_ZEROES_MAX = 31,
};

struct pattern_disk {
    char id[37];
    uint64_t size_bytes;
    unsigned fill_percent;   /* of its chunks */
    unsigned shared_percent; /* of the filled chunks */
    unsigned hot_mib;        /* where the numbered writes go; cut down to the disk's size */
};

struct pattern_spec {
    char vm[PATTERN_NAME_BYTES];
    uint64_t seed, common_seed; /* below 2^63, to be JSON integers */
    unsigned zeroes; /* of 64 writes so many zero a group, and as many one block; 0 = 1 of each */
    size_t disk_count;
    struct pattern_disk disks[PATTERN_DISKS_MAX];
};

/* JSON: {"vm": "web1", "seed": 7, "common_seed": 1, "zeroes": 1, "disks": [{"id": "...",
 * "size_bytes": ..., "fill_percent": 50, "shared_percent": 60, "hot_mib": 8}]}. Unknown members are
 * refused. */
bool pattern_spec_load(const char *path, struct pattern_spec *ret, struct err *err);
bool pattern_spec_save(const struct pattern_spec *spec, const char *path, struct err *err);
/* That sizes, percentages and ids make sense; load does it. Errors: bad-argument. */
bool pattern_spec_check(const struct pattern_spec *spec, struct err *err);
/* The index of a disk, or disk_count. */
size_t pattern_find_disk(const struct pattern_spec *spec, const char *id);

enum pattern_kind { PATTERN_RECORD, PATTERN_ZERO, PATTERN_ZERO_GROUP };

struct pattern_write {
    size_t disk;
    uint64_t block; /* first block hit; that of a group is a multiple of PATTERN_GROUP_BLOCKS */
    uint64_t block_count;
    enum pattern_kind kind;
};

/* Where and what write n is, n >= 1. */
struct pattern_write pattern_write_at(const struct pattern_spec *spec, uint64_t n);
/* The bytes of write n, a PATTERN_RECORD, into `out` (PATTERN_BLOCK bytes). */
void pattern_record(const struct pattern_spec *spec, uint64_t n, void *out);
/* The number of the record that a block claims to be; 0 when it is none of this guest's, or when
 * its checksum is wrong. */
uint64_t pattern_record_number(const struct pattern_spec *spec, const void *block);

/* The initial content of a block; false when that is zeroes (`out` is untouched then). */
bool pattern_initial(const struct pattern_spec *spec, size_t disk, uint64_t block, void *out);
/* False when the whole 256 KiB chunk is zeroes at first: a quick answer for large disks. */
bool pattern_chunk_is_filled(const struct pattern_spec *spec, size_t disk, uint64_t chunk);

/* The hot blocks of a disk are numbered 0.. in order of their place. */
uint64_t pattern_hot_count(const struct pattern_spec *spec, size_t disk);
uint64_t pattern_hot_block(const struct pattern_spec *spec, size_t disk, uint64_t hot);
/* False for a block that no numbered write hits. */
bool pattern_find_hot(const struct pattern_spec *spec, size_t disk, uint64_t block,
                      uint64_t *ret_hot);
