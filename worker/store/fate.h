/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `fate/<session>`: the one record that decides what became of a session (docs/store-format.md,
 * "Fate"). Made once, by whoever comes first, and kept for ever. Threads: reentrant.
 */
#pragma once

#include <string.h>

#include "worker/store/digest.h"
#include "worker/store/object.h"

enum fate_kind {
    FATE_NONE,
    FATE_COMMIT,
    FATE_REVOKE,   /* dead, and its packs are free to go at once */
    FATE_BEQUEATH, /* dead; its packs may be referred to like those of a point */
};
enum { FATE_TOKEN_BYTES = 33, FATE_TEXT_MAX = 256 };

struct fate {
    enum fate_kind kind;
    uint8_t point_digest[DIGEST_BYTES]; /* of point.json; FATE_COMMIT only */
    char token[FATE_TOKEN_BYTES];       /* of the try that made it: 32 hex digits */
};

/* A fate with a fresh token. `point_digest` is NULL but for FATE_COMMIT. */
struct fate fate_new(enum fate_kind kind, const uint8_t *point_digest);
/* The record's text into `out` of FATE_TEXT_MAX; returns its length. */
size_t fate_encode(const struct fate *fate, char *out);
bool fate_decode(const char *text, size_t len, struct fate *ret_fate, struct err *err);

/* FATE_NONE when there is none. */
bool fate_read(int dirfd, const char *session, struct fate *ret_fate, struct err *err);

/* What a failed fate_decide() may have left. */
enum fate_doubt {
    FATE_SURELY_NOT, /* ours was not made */
    FATE_MAYBE,      /* ours may have been made: trying the opposite settles it */
    FATE_UNSURE,     /* one was made, but perhaps not durably, or it cannot be read */
};

/* Try to make `mine` the fate of the session. True: decided, and *ret_stands is what stands, be it
 * ours or somebody else's. */
bool fate_decide(int dirfd, const char *session, const struct fate *mine, struct fate *ret_stands,
                 enum fate_doubt *ret_doubt, struct err *err);
/* Its session can never commit. */
static inline bool fate_is_death(const struct fate *fate)
{
    return fate->kind == FATE_REVOKE || fate->kind == FATE_BEQUEATH;
}
static inline bool fate_is(const struct fate *a, const struct fate *b)
{
    return a->kind == b->kind && memcmp(a->token, b->token, FATE_TOKEN_BYTES) == 0;
}
