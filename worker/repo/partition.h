/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The partition tables of a disk in a restore point: MBR (primary partitions) and GPT (UEFI
 * specification, chapter 5), as far as finding a file system needs. Takes hostile input. Threads:
 * reentrant.
 */
#pragma once

#include "worker/store/store.h"

enum { PARTITION_MAX = 128 };

/*
 * Which partition (from 1, in the table's order; 0 = the disk itself) holds the only ext2, ext3 or
 * ext4 file system. Errors: not-found, conflict (several: the message names them), and those of
 * reading.
 */
bool partition_find_ext(struct store_reader *reader, unsigned *ret_number, struct err *err);
