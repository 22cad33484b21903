/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/store/gc/refer.h"

#include <string.h>
#include <unistd.h>

#include "proto/base/log.h"
#include "worker/store/gc/marks.h"
#include "worker/store/gc/pins.h"
#include "worker/store/writer.h"

enum refer_state {
    REFER_UNASKED = 0,
    REFER_ALL,  /* pinned; no mark was seen */
    REFER_SOME, /* pinned; some frames were marked */
    REFER_NONE, /* all is marked, or it could not be pinned */
};

void referrer_init(struct referrer *r)
{
    pthread_mutex_init(&r->lock, NULL);
}

void referrer_done(struct referrer *r)
{
    pthread_mutex_destroy(&r->lock);
    free(r->states);
    r->states = NULL;
}

/* With the lock held. */
static uint8_t *state_of(struct referrer *r, uint32_t pack)
{
    if (pack >= r->n_states) {
        uint32_t n = (pack + 64) / 64 * 64;
        r->states = xreallocarray(r->states, n, 1);
        memset(r->states + r->n_states, REFER_UNASKED, n - r->n_states);
        r->n_states = n;
    }
    return &r->states[pack];
}

static enum refer_state look(struct store *store, const uint8_t id[PACK_ID_BYTES])
{
    switch (marks_of_pack(store->marks, id)) {
    case MARKED_NONE:
        return REFER_ALL;
    case MARKED_SOME:
        return REFER_SOME;
    case MARKED_ALL:
        break;
    }
    return REFER_NONE;
}

/* Pin, then look: the order is all there is to it. With the lock held. */
static bool pin_then_look(struct store_session *s, const struct pin *pin)
{
    struct store *store = s->store;
    struct err err = ERR_INIT;
    if (pin_put(store->dirfd, store->repo_id, s->id, s->referrer.n_pins, pin, &err)) {
        s->referrer.n_pins++;
        if (marks_refresh(store->marks, store->dirfd, store->repo_id, &err))
            return true;
    }
    log_err(LOG_LEVEL_WARN, "store_pin_failed", &err);
    return false;
}

static bool pin_one(struct store_session *s, uint32_t pack)
{
    struct pack_ref ref;
    dedup_pack_get(s->store->dedup, pack, &ref);
    struct pin pin = {.packs = &ref.id, .n_packs = 1};
    bool looked = pin_then_look(s, &pin);
    *state_of(&s->referrer, pack) = looked ? (uint8_t)look(s->store, ref.id) : REFER_NONE;
    return looked;
}

bool session_may_refer(struct store_session *s, uint32_t pack, uint32_t frame)
{
    if (dedup_pack_is_of(s->store->dedup, pack, s->owner))
        return true;
    pthread_mutex_lock(&s->referrer.lock);
    if (*state_of(&s->referrer, pack) == REFER_UNASKED)
        (void)pin_one(s, pack);
    enum refer_state state = *state_of(&s->referrer, pack);
    pthread_mutex_unlock(&s->referrer.lock);
    if (state != REFER_SOME)
        return state == REFER_ALL;
    struct pack_ref ref;
    dedup_pack_get(s->store->dedup, pack, &ref);
    return !marks_has(s->store->marks, ref.id, frame);
}

/* `pin` may name a point; the packs are put into it here. */
static void pin_at_once(struct store_session *s, struct pin *pin, const struct pack_ref *packs,
                        const uint32_t *numbers, uint32_t n)
{
    pin->packs = xcalloc(n + 1u, sizeof *pin->packs);
    pthread_mutex_lock(&s->referrer.lock);
    for (uint32_t i = 0; i < n; i++)
        if (numbers[i] != DEDUP_NO_PACK && *state_of(&s->referrer, numbers[i]) == REFER_UNASKED)
            memcpy(pin->packs[pin->n_packs++], packs[i].id, PACK_ID_BYTES);
    bool looked = pin_then_look(s, pin);
    for (uint32_t i = 0; i < n; i++) {
        if (numbers[i] == DEDUP_NO_PACK)
            continue;
        uint8_t *state = state_of(&s->referrer, numbers[i]);
        if (*state == REFER_UNASKED)
            *state = looked ? (uint8_t)look(s->store, packs[i].id) : REFER_NONE;
    }
    pthread_mutex_unlock(&s->referrer.lock);
    pin_done(pin);
}

void session_pin_parent(struct store_session *s, const char *point, const struct manifest *map,
                        const uint32_t *numbers)
{
    struct pin pin = {0};
    memcpy(pin.point, point, strlen(point));
    pin_at_once(s, &pin, map->packs, numbers, map->n_packs);
}

void session_pin_packs(struct store_session *s, const struct pack_ref *packs,
                       const uint32_t *numbers, uint32_t n)
{
    struct pin pin = {0};
    pin_at_once(s, &pin, packs, numbers, n);
}

void session_unpin(struct store_session *s)
{
    for (unsigned i = 0; i < s->referrer.n_pins; i++) {
        SCOPED_FREE char *path = xasprintf("pins/%s.%u", s->id, i);
        (void)unlinkat(s->store->dirfd, path, 0);
    }
    s->referrer.n_pins = 0;
}
