/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the head of an image file says: size and backing file. Reading it here instead of asking
 * qemu-img saves a process per layer and works while QEMU holds the image locked. Format:
 * docs/interop/qcow2 of QEMU. Threads: reentrant.
 */
#pragma once

#include "proto/base/alloc.h"
#include "tests/sandbox/block/block.h"

struct image_info {
    uint64_t size_bytes; /* virtual; of a raw file, rounded up to 512 */
    char *backing;       /* absolute path, or NULL; owned */
    enum block_format backing_format;
};

/* Errors: not-found, io-error, unsupported (not a qcow2 image, or one that names something other
 * than raw and qcow2 files below it). */
bool image_info_read(const char *path, enum block_format format, struct image_info *ret,
                     struct err *err);
void image_info_done(struct image_info *info);

/* That two paths lead to one file. False when either does not exist. */
bool image_is_same_file(const char *a, const char *b);

/* "raw" or "qcow2". */
const char *block_format_name(enum block_format format);

#define SCOPED_IMAGE_INFO __attribute__((cleanup(image_info_done), unused))
