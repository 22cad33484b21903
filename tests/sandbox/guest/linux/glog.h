/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The workload of the sandbox's Linux guest, and what its files must look like.
 *
 * glog appends record n to the log on file system A, syncs, appends it to the log on B, syncs, and
 * only then acknowledges n. So in every image of both disks that is one instant, each log is a
 * prefix of the records 1.., B's is as long as A's or one shorter, and all acknowledged records are
 * in both.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum { GLOG_RECORD_BYTES = 128 };

struct glog_record {
    char magic[8];
    uint64_t n;
    uint64_t checksum; /* of filler and n */
    unsigned char filler[GLOG_RECORD_BYTES - 24];
};

static inline void glog_fill(struct glog_record *r, uint64_t n)
{
    *r = (struct glog_record){.n = n};
    memcpy(r->magic, "glogrec1", sizeof r->magic);
    uint64_t x = n * UINT64_C(0x9e3779b97f4a7c15) + 1, sum = n;
    for (unsigned i = 0; i < sizeof r->filler; i++) {
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        r->filler[i] = (unsigned char)(x >> 56);
        sum = (sum ^ r->filler[i]) * UINT64_C(0x100000001b3);
    }
    r->checksum = sum;
}

/* True for record n, whole. */
static inline bool glog_is_record(const struct glog_record *r, uint64_t n)
{
    struct glog_record wanted;
    glog_fill(&wanted, n);
    return memcmp(r, &wanted, sizeof wanted) == 0;
}
