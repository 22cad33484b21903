/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/offer.h"

#include <assert.h>
#include <string.h>

#include "coordinator/leftovers.h"
#include "coordinator/parts.h"
#include "coordinator/rates.h"

enum { JOURNAL_ROWS_MAX = 2000, GRANTS_MAX = 100 };

/* Decoded step events, in the order of the journal. */
struct steps {
    struct wire_message *v;
    size_t count;
};

/* The journal of an offer under construction. Entries borrow from what is above them. */
struct history {
    struct attempt_list attempts;
    struct steps own;
    struct task_list parts;
    struct steps *of_parts; /* one for each */
    struct wire_journal_entry *entries;
    bool *keep; /* entries that must not be cut: one per attempt at least */
    size_t count;
};

static void steps_done(struct steps *s)
{
    for (size_t i = 0; i < s->count; i++)
        wire_free(&s->v[i]);
    free(s->v);
}

static void history_done(struct history *h)
{
    steps_done(&h->own);
    for (size_t i = 0; h->of_parts && i < h->parts.count; i++)
        steps_done(&h->of_parts[i]);
    free(h->of_parts);
    task_list_done(&h->parts);
    free(h->entries);
    free(h->keep);
    attempt_list_done(&h->attempts);
}
#define SCOPED_HISTORY __attribute__((cleanup(history_done), unused))

/* A row that cannot be read (written by another version, say) is left out: better an attempt that
 * knows less than a task that can never be offered. */
static bool load_steps(struct core *core, const char *task, struct steps *ret, struct err *err)
{
    struct journal_list rows;
    if (!ledger_journal_list(core->ledger, task, JOURNAL_ROWS_MAX, &rows, err))
        return false;
    ret->v = xcalloc(rows.count + 1, sizeof *ret->v);
    for (size_t i = 0; i < rows.count; i++) {
        struct err why = ERR_INIT;
        if (wire_decode(wire_type_name(WIRE_STEP), rows.v[i].body, strlen(rows.v[i].body),
                        &ret->v[ret->count], &why))
            ret->count++;
        else
            log_err(LOG_LEVEL_ERROR, "journal_unreadable", &why);
    }
    journal_list_done(&rows);
    return true;
}

/* What the parts of earlier attempts did is wanted for what it may have left attached. */
static bool load_parts(struct core *core, const struct task *t, struct history *h, struct err *err)
{
    if (t->role != TASK_MAIN)
        return true;
    if (!ledger_task_parts(core->ledger, t->id, 0, &h->parts, err))
        return false;
    h->of_parts = xcalloc(h->parts.count + 1, sizeof *h->of_parts);
    for (size_t i = 0; i < h->parts.count; i++) {
        if (!load_steps(core, h->parts.v[i].id, &h->of_parts[i], err))
            return false;
    }
    return true;
}

static struct wire_journal_entry *add_entry(struct history *h, bool keep)
{
    h->keep[h->count] = keep;
    return &h->entries[h->count++];
}

/* Each attempt begins with an entry "grant", so that its fence is named even when no step of it was
 * heard of. What was held at that time it holds too: readers take the newest entry of the highest
 * fence for what there is. */
static void add_grant(struct history *h, const struct attempt *a, const struct wire_handles *held)
{
    static char step[] = "grant", state[] = "started";
    *add_entry(h, true) = (struct wire_journal_entry){.attempt = a->attempt,
                                                      .fence = a->fence,
                                                      .worker = a->worker,
                                                      .step = step,
                                                      .state = state,
                                                      .handles = *held};
}

static void add_step(struct history *h, const struct wire_step *s, bool keep)
{
    *add_entry(h, keep) = (struct wire_journal_entry){.attempt = s->attempt,
                                                      .fence = s->fence,
                                                      .worker = s->worker,
                                                      .step = s->step,
                                                      .state = s->state,
                                                      .handles = s->handles};
}

/* What a part held at most: an event after which it held less, and its last one. Under the fence of
 * the grant that gave the part away, whose own entries come later and say what that attempt holds.
 * The first to go when the offer is too large: what nobody looks for, the next sweep finds. */
static void add_parts(struct history *h)
{
    for (size_t i = 0; i < h->parts.count; i++) {
        const struct steps *steps = &h->of_parts[i];
        for (size_t k = 0; k < steps->count; k++) {
            const struct wire_step *s = steps->v[k].as;
            assert(s); /* decoded above */
            const struct wire_step *next = k + 1 < steps->count ? steps->v[k + 1].as : NULL;
            if (s->handles.count == 0 || (next && next->handles.count >= s->handles.count))
                continue;
            struct wire_step of_main = *s;
            of_main.fence = h->parts.v[i].part_fence;
            add_step(h, &of_main, false);
        }
    }
}

static size_t entries_max(const struct history *h)
{
    size_t count = h->attempts.count + h->own.count;
    for (size_t i = 0; i < h->parts.count; i++)
        count += h->of_parts[i].count;
    return count;
}

/* Attempts and their steps, oldest first; both lists are in the order of attempts. */
static void weave(struct history *h)
{
    size_t skip = h->attempts.count > GRANTS_MAX ? h->attempts.count - GRANTS_MAX : 0;
    h->entries = xcalloc(entries_max(h) + 1, sizeof *h->entries);
    h->keep = xcalloc(entries_max(h) + 1, sizeof *h->keep);
    add_parts(h);
    struct wire_handles held = {0};
    size_t next = 0;
    for (size_t i = skip; i < h->attempts.count; i++) {
        const struct attempt *a = &h->attempts.v[i];
        add_grant(h, a, &held);
        for (; next < h->own.count; next++) {
            const struct wire_step *s = h->own.v[next].as;
            assert(s); /* decoded above */
            if (s->attempt > a->attempt)
                break;
            const struct wire_step *after = next + 1 < h->own.count ? h->own.v[next + 1].as : NULL;
            add_step(h, s, !after || after->attempt != s->attempt);
            held = s->handles;
        }
    }
}

/* Drop the oldest entries that may go until at most `max` are left. */
static void cut(struct history *h, size_t max)
{
    size_t excess = h->count > max ? h->count - max : 0;
    size_t to = 0;
    for (size_t from = 0; from < h->count; from++) {
        if (excess > 0 && !h->keep[from]) {
            excess--;
            continue;
        }
        h->entries[to] = h->entries[from];
        h->keep[to++] = h->keep[from];
    }
    h->count = to;
}

static char *encode(struct wire_offer *offer, struct history *h, struct err *err)
{
    for (size_t max = WIRE_JOURNAL_MAX;; max /= 2) {
        cut(h, max);
        struct wire_offer whole = *offer;
        whole.journal = (struct wire_journal){.v = h->entries, .count = h->count};
        size_t len;
        char *body = wire_encode(WIRE_OFFER, &whole, &len, err);
        if (body || err->code != ERR_TOO_LARGE || max < 2)
            return body;
        err_clear(err);
    }
}

/* Something that cannot be removed while a disk of it is attached. */
static bool can_be_held(const struct wire_leftovers *left)
{
    for (size_t i = 0; i < left->count; i++) {
        if (strcmp(left->v[i].kind, "snapshot") == 0 || strcmp(left->v[i].kind, "disk") == 0)
            return true;
    }
    return false;
}

static bool load_left(struct core *core, struct task *t, struct wire_leftovers *ret,
                      struct err *err)
{
    if (!leftovers_load(core, t->cleanup_of, ret, &t->cleanup_upto, err))
        return false;
    if (!can_be_held(ret))
        return true;
    leftovers_free(ret);
    return parts_keep_holds(core, t->cleanup_of, err) &&
           leftovers_load(core, t->cleanup_of, ret, &t->cleanup_upto, err);
}

char *offer_body(struct core *core, struct task *t, struct err *err)
{
    SCOPED_HISTORY struct history h = {0};
    SCOPED_LEFTOVERS struct wire_leftovers left = {0};
    if (t->role == TASK_CLEANUP && !load_left(core, t, &left, err))
        return NULL;
    if (t->attempt > 1) {
        if (!ledger_attempt_list(core->ledger, t->id, &h.attempts, err) ||
            !load_steps(core, t->id, &h.own, err) || !load_parts(core, t, &h, err))
            return NULL;
        weave(&h);
    }
    struct wire_message m = {0};
    if (!wire_decode(wire_type_name(WIRE_OFFER), t->input, strlen(t->input), &m, err)) {
        err_wrap(err, "task %s", t->id);
        return NULL;
    }
    struct wire_offer offer = *(const struct wire_offer *)m.as;
    offer.attempt = t->attempt;
    if (left.count > 0)
        offer.cleanup = left;
    SCOPED_RATES struct rate_list rates = {0};
    SCOPED_FREE struct wire_rate *wire_rates = NULL;
    char *body = NULL;
    if (!rates_concern(t->kind) || rates_load(core, t->zone, &rates, &wire_rates, err)) {
        offer.rates = (struct wire_rates){.v = wire_rates, .count = rates.count};
        body = encode(&offer, &h, err);
    }
    wire_free(&m);
    return body;
}
