/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packs whose ends are damaged: header, relocation table, footer or trailer. Whoever refers to a
 * pack names the digest of its footer, so a footer that was found, or made again from the frames,
 * is proved to be the one that was written; all else of the ends follows from it. The mended pack
 * takes the place of the old one by rename, with all its frames as they were, damaged ones too.
 *
 * A footer is found wherever it stands; without any key. To make one again, the frames must be
 * read: in an encrypted repository that takes a key that may. Threads: reentrant.
 */
#pragma once

#include "worker/store/packfile.h"

/* *ret_done: the pack can be opened now. False only when the file system fails. */
bool pack_repair(struct store *store, const struct pack_ref *ref, bool *ret_done, struct err *err);
