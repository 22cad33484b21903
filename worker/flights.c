/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/flights.h"

#include "proto/base/alloc.h"

static struct flight *at(const struct flights *f, size_t i)
{
    return &f->v[(f->first + i) % f->room];
}

void flights_done(struct flights *f)
{
    for (size_t i = 0; i < f->count; i++)
        note_free(at(f, i)->note);
    free(f->v);
    *f = (struct flights){0};
}

static void grow(struct flights *f)
{
    size_t room = f->room ? 2 * f->room : 64;
    struct flight *v = xcalloc(room, sizeof *v);
    for (size_t i = 0; i < f->count; i++)
        v[i] = *at(f, i);
    free(f->v);
    f->v = v;
    f->first = 0;
    f->room = room;
}

uint64_t flights_add(struct flights *f, enum flight_kind kind, int64_t sent_ms, struct note *note)
{
    if (f->count == f->room)
        grow(f);
    uint64_t token = ++f->next_token;
    f->count++;
    *at(f, f->count - 1) =
        (struct flight){.token = token, .kind = kind, .sent_ms = sent_ms, .note = note};
    return token;
}

/* Confirmations come nearly in order: the one looked for is near the front. */
bool flights_take(struct flights *f, uint64_t token, struct flight *ret)
{
    for (size_t i = 0; i < f->count; i++) {
        if (at(f, i)->token != token)
            continue;
        *ret = *at(f, i);
        for (; i > 0; i--)
            *at(f, i) = *at(f, i - 1);
        f->first = (f->first + 1) % f->room;
        f->count--;
        return true;
    }
    return false;
}
