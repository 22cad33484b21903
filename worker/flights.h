/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages on their way to the broker, by the token of their publish: whose lease a confirmation
 * renews, and what must be sent again when nobody could be found for it. Threads: the I/O thread.
 */
#pragma once

#include "worker/runner/link.h"

enum flight_kind { FLIGHT_EVENT, FLIGHT_PRESENCE, FLIGHT_CLAIM };

struct flight {
    uint64_t token;
    enum flight_kind kind;
    int64_t sent_ms;
    struct note *note; /* EVENT: owned */
};

struct flights {
    struct flight *v; /* a ring, in order of tokens */
    size_t first, count, room;
    uint64_t next_token;
};

void flights_done(struct flights *f);
/* Takes the note (NULL for other kinds); returns the token to publish with. */
uint64_t flights_add(struct flights *f, enum flight_kind kind, int64_t sent_ms, struct note *note);
/* Takes the flight out. False when there is none of that token. The caller owns ret->note. */
bool flights_take(struct flights *f, uint64_t token, struct flight *ret);
