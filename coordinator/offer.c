/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/offer.h"

#include <assert.h>
#include <string.h>

#include "coordinator/leftovers.h"
#include "coordinator/rates.h"

enum { JOURNAL_ROWS_MAX = 2000, GRANTS_MAX = 100 };

/* The journal of an offer under construction. Entries borrow from `steps` and `attempts`. */
struct history {
    struct attempt_list attempts;
    struct wire_message *steps;
    size_t step_count;
    struct wire_journal_entry *entries;
    bool *keep; /* entries that must not be cut: one per attempt at least */
    size_t count;
};

static void history_done(struct history *h)
{
    for (size_t i = 0; i < h->step_count; i++)
        wire_free(&h->steps[i]);
    free(h->steps);
    free(h->entries);
    free(h->keep);
    attempt_list_done(&h->attempts);
}
#define SCOPED_HISTORY __attribute__((cleanup(history_done), unused))

/* A row that cannot be read (written by another version, say) is left out: better an attempt that
 * knows less than a task that can never be offered. */
static bool load_steps(struct core *core, const char *task, struct history *h, struct err *err)
{
    struct journal_list rows;
    if (!ledger_journal_list(core->ledger, task, JOURNAL_ROWS_MAX, &rows, err))
        return false;
    h->steps = xcalloc(rows.count + 1, sizeof *h->steps);
    for (size_t i = 0; i < rows.count; i++) {
        struct err why = ERR_INIT;
        if (wire_decode(wire_type_name(WIRE_STEP), rows.v[i].body, strlen(rows.v[i].body),
                        &h->steps[h->step_count], &why))
            h->step_count++;
        else
            log_err(LOG_LEVEL_ERROR, "journal_unreadable", &why);
    }
    journal_list_done(&rows);
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

/* Attempts and their steps, oldest first; both lists are in the order of attempts. */
static void weave(struct history *h)
{
    size_t skip = h->attempts.count > GRANTS_MAX ? h->attempts.count - GRANTS_MAX : 0;
    h->entries = xcalloc(h->attempts.count + h->step_count + 1, sizeof *h->entries);
    h->keep = xcalloc(h->attempts.count + h->step_count + 1, sizeof *h->keep);
    struct wire_handles held = {0};
    size_t next = 0;
    for (size_t i = skip; i < h->attempts.count; i++) {
        const struct attempt *a = &h->attempts.v[i];
        add_grant(h, a, &held);
        for (; h->steps && next < h->step_count; next++) {
            const struct wire_step *s = h->steps[next].as;
            assert(s); /* decoded above */
            if (s->attempt > a->attempt)
                break;
            const struct wire_step *after = next + 1 < h->step_count ? h->steps[next + 1].as : NULL;
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

char *offer_body(struct core *core, struct task *t, struct err *err)
{
    SCOPED_HISTORY struct history h = {0};
    SCOPED_LEFTOVERS struct wire_leftovers left = {0};
    if (t->role == TASK_CLEANUP &&
        !leftovers_load(core, t->cleanup_of, &left, &t->cleanup_upto, err))
        return NULL;
    if (t->attempt > 1) {
        if (!ledger_attempt_list(core->ledger, t->id, &h.attempts, err) ||
            !load_steps(core, t->id, &h, err))
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
