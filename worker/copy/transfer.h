/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk behind an image transfer as a source or a target of a copy, and a device read by the map
 * that a transfer told. The copy makes exactly the calls of copy.h; what the host refuses ends it.
 */
#pragma once

#include "worker/copy/copy.h"
#include "worker/ovirt/imageio.h"

/* Reads what `map` calls not zero, over the transfer's connections. `io` and `map` are borrowed
 * until source_close(); a map without entries means that everything is data. */
struct source *source_transfer_open(struct imageio *io, const struct imageio_map *map,
                                    uint64_t size_bytes);

/* Reads from `device`, which it takes over, what `map` calls not zero: the host of the disk knows
 * where data is, the device has the faster bytes. `map` is borrowed. */
struct source *source_mapped_open(struct source *device, const struct imageio_map *map);

/* What a map of changes says of a disk and of its earlier version, of the same size: appends to
 * `out`, which is empty, data where it may have changed, in whole blocks. */
void transfer_changes(const struct imageio_map *map, uint64_t size_bytes, struct extents *out);

/* Writes over the transfer's connections. `io` is borrowed until target_close(). `is_zero`: the
 * caller knows that the disk reads as zeroes (the engine has just made it). */
struct target *target_transfer_open(struct imageio *io, uint64_t size_bytes, bool is_zero);
