/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A repository with one disk image to be backed up, encrypted or not, for tests that open it anew
 * as somebody else. Every function fails the test when something unexpected happens.
 */
#pragma once

#include "support.h"

struct scene {
    char *dir, *path, *full_key, *write_key;
    struct store_opts opts;
    struct store *store;
    struct disk_image image; /* disk "d", of bytes that do not compress */
    struct err err;
};

/* Make it and open it. `key` "": not encrypted; else the key that the store is opened with: "full",
 * or "write", which may write backups and nothing else. */
void scene_begin(struct scene *s, const char *key, uint64_t pack_bytes, size_t image_bytes);
/* Open the store by s->opts. */
void scene_open(struct scene *s);
void scene_end(struct scene *s);
