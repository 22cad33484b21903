/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The claims that this process made lately, by message id: a grant or denial names the claim that
 * it answers, and a lease counts from when that one was sent, whatever has been claimed since. The
 * oldest are forgotten. Threads: the I/O thread only.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "proto/base/id.h"

enum { CLAIMS_KEPT = 512 };

struct claims {
    struct claim {
        char id[ID_BYTES];
        int64_t sent_ms;
        int64_t fence; /* 0 = of an offer; else a run's question whether it is still the owner */
    } v[CLAIMS_KEPT];
    size_t next;
};

void claims_add(struct claims *c, const char *id, int64_t fence, int64_t sent_ms);
/* NULL: not one of ours, or too long ago. */
const struct claim *claims_find(const struct claims *c, const char *id);
