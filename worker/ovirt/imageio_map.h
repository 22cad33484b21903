/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads the JSON of /images/TICKET/extents as it comes, object by object: a badly fragmented disk
 * has a gigabyte of it. Private to this folder. Threads: none of its own.
 */
#pragma once

#include "worker/ovirt/imageio.h"

enum { MAP_OBJECT_BYTES = 1024 };

struct map_reader {
    enum imageio_context context;
    uint64_t size_bytes; /* what lies beyond is cut off */
    struct imageio_map map;
    size_t capacity;
    uint64_t end;                  /* of the last extent, uncut */
    char object[MAP_OBJECT_BYTES]; /* the one that is coming */
    size_t object_len;
    unsigned depth; /* of braces */
    bool in_string, escaped;
    bool opened, closed; /* the array */
};

void map_reader_init(struct map_reader *r, enum imageio_context context, uint64_t size_bytes);
void map_reader_done(struct map_reader *r);
/* The next bytes. Errors: engine-protocol, too-large. */
bool map_reader_add(struct map_reader *r, const char *data, size_t len, struct err *err);
/* The end has come: hands the map over. Errors: engine-protocol when it is not whole, or shorter
 * than the disk. */
bool map_reader_finish(struct map_reader *r, struct imageio_map *ret, struct err *err);
