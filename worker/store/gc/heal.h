/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Healing damaged frames: from one wrong bit, which the frame's CRC32C names, or from equal blocks
 * elsewhere in the repository. A healed pack takes the place of the old one by rename. Threads: one
 * healing at a time in a process; any number of processes.
 */
#pragma once

#include "worker/store/gc/usage.h"

enum { BAD_PACK_ITSELF = UINT32_MAX }; /* no frame: a pack that could not be opened, and now can */

struct bad_frame {
    struct pack_ref ref;
    uint32_t frame;
    bool whole_pack; /* it cannot be opened: gc/repair.h, or it cannot be healed */
    bool is_healed;
    char why[160];
};

struct bad_frames {
    struct bad_frame *items;
    size_t count;
};
/* Adds it if it is not in the list. */
void bad_frames_add(struct bad_frames *list, const struct bad_frame *bad);
const struct bad_frame *bad_frames_find(const struct bad_frames *list,
                                        const uint8_t pack[PACK_ID_BYTES], uint32_t frame);
void bad_frames_done(struct bad_frames *list);

/* Make `data` and the CRC32C at `crc_at` agree by changing one bit, of either. False when that is
 * not what is wrong. */
bool crc_fix_bit(uint8_t *data, size_t len, uint8_t *crc_at);
/* Correct one wrong bit in the bytes of a frame with its header. False when that is not what is
 * wrong. */
bool frame_fix_bit(uint8_t *bytes, size_t len);

/* Try to heal what is in the list; sets is_healed. `usage`: packs that blocks may come from. False
 * only when the file system fails. */
bool heal_frames(struct store *store, const struct usage *usage, struct bad_frames *list,
                 struct err *err);
