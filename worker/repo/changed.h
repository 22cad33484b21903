/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Maps of changed ranges: what `nbdinfo --map=qemu:dirty-bitmap:NAME --json` prints, a list of
 * {"offset", "length", "type"} in rising order, where bit 0 of "type" means dirty (nbdinfo(1)).
 * Threads: reentrant.
 */
#pragma once

#include "proto/base/err.h"
#include "worker/store/extent.h"

enum { CHANGED_FILE_MAX = 256 << 20 };

/*
 * The map in `path` of a disk of `size` bytes, for copy_opts.changed: dirty ranges are widened to
 * whole blocks; what the map leaves out, and what lies beyond `parent_size`, has changed. Errors:
 * those of reading a file; bad-argument for what is no such map, or one of a larger disk. The
 * caller calls extents_done() in any case.
 */
bool changed_load(const char *path, uint64_t size, uint64_t parent_size, struct extents *ret,
                  struct err *err);
/* The same of the bytes. */
bool changed_parse(const char *text, size_t len, uint64_t size, uint64_t parent_size,
                   struct extents *ret, struct err *err);
