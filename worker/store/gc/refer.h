/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a session may refer to in packs of other sessions: the writer's half of the protocol of
 * docs/store-format.md, "Garbage". A pack is pinned before its first use, then the marks are looked
 * at. What cannot be pinned is simply not referred to: that costs space, never the backup.
 *
 * Threads: any, at once. The lock is a leaf but for those of the marks and of the deduplication
 * tables.
 */
#pragma once

#include <pthread.h>

#include "worker/store/manifest.h"

struct store_session;

struct referrer {
    pthread_mutex_t lock; /* guards what follows */
    uint8_t *states;      /* by the store's pack number: enum refer_state */
    uint32_t n_states;
    unsigned n_pins; /* files made */
};

void referrer_init(struct referrer *r);
void referrer_done(struct referrer *r);

/* True when the session may refer to this frame, of its own packs or of others. The first question
 * about a pack pins it. */
bool session_may_refer(struct store_session *session, uint32_t pack, uint32_t frame);

/* Pin all packs of a parent's map, and the parent point itself, at once. `numbers` are the store's
 * numbers of map->packs. */
void session_pin_parent(struct store_session *session, const char *point,
                        const struct manifest *map, const uint32_t *numbers);

/* Pin packs at once. `numbers` are the store's; DEDUP_NO_PACK = not this one. */
void session_pin_packs(struct store_session *session, const struct pack_ref *packs,
                       const uint32_t *numbers, uint32_t n);

/* Remove the pins. Only after the session has got its fate. */
void session_unpin(struct store_session *session);
