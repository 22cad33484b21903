/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hold disks of a restore point against what their hosts say of the disks that they have open in
 * image transfers: the digest over the digests of the blocks (imageio_checksum). Both sides are
 * read once more, so it is done only where the configuration asks for it (copy.compare_checksums).
 */
#pragma once

#include "worker/step/step.h"
#include "worker/step/transfer.h"
#include "worker/store/store.h"

/* Borrowed. */
struct compare_disk {
    const char *id;                       /* in the point */
    const struct disk_transfer *transfer; /* open */
    uint64_t size_bytes; /* of the host's: beyond the end of the point's it must be zeroes */
};

/* True also with a warning (`not-compared`) when a host cannot tell, or fails. Errors: io-error
 * when they differ; those of reading the point; cancelled, lease-lost. */
bool compare_disks(struct task_run *run, struct store_point *point,
                   const struct compare_disk *disks, size_t count, struct err *err);
