/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `damage/<point>`: what is known to be damaged of a point (docs/store-format.md, "Damage and
 * healing"). For people and for listings; nothing is decided by it. Threads: reentrant.
 */
#pragma once

#include "worker/store/repo.h"

enum { DAMAGE_RANGES_MAX = 1000, DAMAGE_BYTES_MAX = 4 << 20 };

struct damage_range {
    char disk[STORE_DISK_ID_MAX + 1]; /* "" = a file of the point */
    uint64_t offset, len;
    bool has_frame; /* what follows is to blame */
    struct pack_ref ref;
    uint32_t frame;
    char why[160];
};

struct damage {
    struct damage_range *ranges;
    size_t count;
    uint64_t more;      /* ranges left out */
    bool is_unreadable; /* the file is damaged itself: anything of the point may be */
};
void damage_add(struct damage *d, const struct damage_range *range);
void damage_done(struct damage *d);

/* Replace what is known; nothing damaged removes it. */
bool damage_put(struct store *store, const char *point, const struct damage *d, struct err *err);
/* Nothing when nothing is known. What cannot be read is taken for damage of unknown extent: one
 * range that says so, and is_unreadable. */
bool damage_read(struct store *store, const char *point, struct damage *ret_damage,
                 struct err *err);
/* One line about it, for listings. The caller frees. */
char *damage_text(const struct damage *d);
/* The points something is known of. */
bool damage_list(struct store *store, struct object_names *ret_names, struct err *err);
