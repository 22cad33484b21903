/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pins: the packs of other sessions that an open session may refer to (docs/store-format.md,
 * "Garbage"). Small files `pins/<session>.<n>`. Threads: reentrant.
 */
#pragma once

#include "worker/store/object.h"
#include "worker/store/pack.h"

enum { PINS_BYTES_MAX = 256 << 20 };

struct pin {
    char point[STORE_SESSION_ID_MAX + 1]; /* "" = none */
    uint8_t (*packs)[PACK_ID_BYTES];
    size_t n_packs;
};
/* The caller frees. */
uint8_t *pin_encode(const struct pin *pin, const uint8_t repository[16], size_t *ret_len);
/* The caller calls pin_done(). */
bool pin_decode(const uint8_t *in, size_t len, const uint8_t repository[16], struct pin *ret_pin,
                struct err *err);
void pin_done(struct pin *pin);

/* Make pin number `n` of the session, complete for everybody who looks from now on. */
bool pin_put(int dirfd, const uint8_t repository[16], const char *session, unsigned n,
             const struct pin *pin, struct err *err);

/* The session that a name in `pins/` belongs to, cut to it in place; NULL when it is none. */
char *pin_session(char *name);
