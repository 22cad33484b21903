/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rewriting the OVF of a restore point (libxml2), so that importing it makes just an empty shell of
 * the VM. Threads: reentrant. No network or file access while parsing; entities are not expanded.
 */
#pragma once

#include "proto/base/alloc.h"
#include "proto/base/err.h"

enum { OVF_MAX_BYTES = 16 << 20 };

struct ovf_as {
    const char *name;
    const char *description; /* NULL = as it is */
};
/* The OVF with the new name and description and without disks, NICs, and snapshots: it names no
 * disk or image that the engine could attach by itself. The caller frees (NUL-terminated UTF-8).
 * Errors: bad-message when it is not an OVF envelope, too-large. */
char *ovf_rewrite(struct slice ovf, const struct ovf_as *as, struct err *err);
