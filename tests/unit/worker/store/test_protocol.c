/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The garbage protocol as a small model, and a search through every state it can reach: the session
 * that wrote a pack, and commits, gives up, is revoked or bequeathed; two writers that refer to the
 * pack if they may; two collectors, one healer, deletions and revocations at any time, each step of
 * each actor interleaved with all others, each actor stopping anywhere for any time
 * (docs/store-format.md, "Garbage"). One frame of one pack stands for all: a frame's fate depends
 * on no other's.
 *
 * The model is harsher than the code: collectors mark without reason, and read directories entry by
 * entry. Rules are broken one by one, to see that each is needed, and that the search finds it.
 */
#include <string.h>

#include "support.h"

enum { WRITERS = 2, COLLECTORS = 2 };

/* ---- the state: everything that a run may depend on, in bits of one integer */

enum fate_bits { NONE, COMMIT, REVOKE, BEQUEATH };
enum writer_pc { W_START, W_FIRST, W_SECOND, W_THIRD, W_FOURTH, W_END };
enum collector_pc { G_MARK, G_PIN_1, G_PIN_2, G_FATE_OWNER, G_FATE_1, G_FATE_2, G_ACT };
enum healer_pc { H_READ, H_RENAME };

struct writer {
    unsigned pc, fate, pinned, looked_ok, deleted;
};
struct collector {
    unsigned pc, pins, found;
};
struct state {
    struct writer w[WRITERS];
    struct collector g[COLLECTORS];
    unsigned owner_fate, owner_deleted, marked, present;
    unsigned healer_pc, healer_copy;
};

/* The struct is all unsigned, so it is packed by hand: 3 + 2 + 1 + 1 + 1 bits a writer, and so on.
 */
static uint64_t pack_state(const struct state *s)
{
    uint64_t v = 0;
#define PUT(value, bits) v = v << (bits) | (value)
    for (int i = 0; i < WRITERS; i++) {
        PUT(s->w[i].pc, 3);
        PUT(s->w[i].fate, 2);
        PUT(s->w[i].pinned, 1);
        PUT(s->w[i].looked_ok, 1);
        PUT(s->w[i].deleted, 1);
    }
    for (int i = 0; i < COLLECTORS; i++) {
        PUT(s->g[i].pc, 3);
        PUT(s->g[i].pins, 2);
        PUT(s->g[i].found, 1);
    }
    PUT(s->owner_fate, 2);
    PUT(s->owner_deleted, 1);
    PUT(s->marked, 1);
    PUT(s->present, 1);
    PUT(s->healer_pc, 1);
    PUT(s->healer_copy, 1);
#undef PUT
    return v + 1; /* 0 = an empty slot */
}

static void unpack_state(uint64_t v, struct state *s)
{
    v--;
#define GET(field, bits)                                                                           \
    do {                                                                                           \
        (field) = (unsigned)(v & ((1u << (bits)) - 1));                                            \
        v >>= (bits);                                                                              \
    } while (0)
    GET(s->healer_copy, 1);
    GET(s->healer_pc, 1);
    GET(s->present, 1);
    GET(s->marked, 1);
    GET(s->owner_deleted, 1);
    GET(s->owner_fate, 2);
    for (int i = COLLECTORS - 1; i >= 0; i--) {
        GET(s->g[i].found, 1);
        GET(s->g[i].pins, 2);
        GET(s->g[i].pc, 3);
    }
    for (int i = WRITERS - 1; i >= 0; i--) {
        GET(s->w[i].deleted, 1);
        GET(s->w[i].looked_ok, 1);
        GET(s->w[i].pinned, 1);
        GET(s->w[i].fate, 2);
        GET(s->w[i].pc, 3);
    }
#undef GET
}

/* ---- the rules, and ways to break them */

enum rules {
    RULES_RIGHT,
    LOOK_THEN_PIN,
    UNPIN_BEFORE_FATE,
    FATES_BEFORE_PINS,
    LOOK_BEFORE_MARK, /* the collector looks, then marks, then removes */
    MARKS_TAKEN_BACK, /* when the frame has been removed */
    NO_PINS,
    NO_MARKS,
    ADOPT_REVOKED,        /* writers refer to packs of a revoked session */
    ADOPT_OPEN,           /* and of one without a fate */
    BEQUESTS_GO_AT_ONCE,  /* collectors take bequeathed packs like revoked ones */
    OWNER_TAKES_BACK,     /* who was bequeathed and wakes up removes its packs */
    OWNER_REMOVES_BEFORE, /* who gives up removes its packs, then revokes itself */
    RULES
};

static bool has(const struct state *s, enum fate_bits fate)
{
    return s->owner_fate == fate;
}

/* May a writer begin to refer to the pack? It has read the fate of its owner. */
static bool may_refer(const struct state *s, enum rules rules)
{
    return has(s, COMMIT) || has(s, BEQUEATH) || (has(s, REVOKE) && rules == ADOPT_REVOKED) ||
           (has(s, NONE) && rules == ADOPT_OPEN);
}

/* May the pack be removed without a look, by collectors or by its owner? */
static bool may_go_at_once(const struct state *s, enum rules rules)
{
    return has(s, REVOKE) || (has(s, BEQUEATH) && rules == BEQUESTS_GO_AT_ONCE) ||
           (has(s, BEQUEATH) && rules == OWNER_TAKES_BACK) ||
           (has(s, NONE) && rules == OWNER_REMOVES_BEFORE);
}

static void do_commit(struct writer *w)
{
    if (w->fate == NONE)
        w->fate = COMMIT;
}

/* One step of a writer: pin, look, commit, unpin. A writer that saw the mark stores the chunk anew
 * and refers to nothing: it is out of the game. */
static void step_writer(struct state *s, int i, enum rules rules)
{
    struct writer *w = &s->w[i];
    bool swapped = rules == LOOK_THEN_PIN, early = rules == UNPIN_BEFORE_FATE;
    switch (w->pc++) {
    case W_START:
        if (swapped)
            w->looked_ok = !s->marked;
        else
            w->pinned = rules != NO_PINS;
        return;
    case W_FIRST:
        if (swapped)
            w->pinned = 1;
        else
            w->looked_ok = rules == NO_MARKS || !s->marked;
        return;
    case W_SECOND:
        if (early)
            w->pinned = 0;
        else
            do_commit(w);
        return;
    case W_THIRD:
        if (early)
            do_commit(w);
        else
            w->pinned = 0;
        return;
    default:
        w->pc = W_END;
    }
}

static bool refers(const struct writer *w)
{
    return w->fate == COMMIT && w->looked_ok && !w->deleted;
}

static void read_pin(struct state *s, struct collector *g, int writer)
{
    if (s->w[writer].pinned)
        g->pins |= 1u << writer;
}

static void read_fate(struct state *s, struct collector *g, int writer)
{
    const struct writer *w = &s->w[writer];
    if (refers(w) || (w->fate == NONE && (g->pins & 1u << writer)))
        g->found = 1;
}

static void act(struct state *s, struct collector *g, enum rules rules)
{
    if (!g->found) {
        s->present = 0;
        if (rules == MARKS_TAKEN_BACK)
            s->marked = 0;
    }
    *g = (struct collector){.pc = G_MARK};
}

static void step_collector(struct state *s, int i, enum rules rules)
{
    struct collector *g = &s->g[i];
    bool swapped = rules == FATES_BEFORE_PINS;
    switch (g->pc++) {
    case G_MARK:
        if (rules != LOOK_BEFORE_MARK)
            s->marked = 1;
        return;
    case G_PIN_1:
    case G_FATE_1:
        if ((g->pc - 1 == G_PIN_1) != swapped)
            read_pin(s, g, 0);
        else
            read_fate(s, g, 0);
        return;
    case G_PIN_2:
    case G_FATE_2:
        if ((g->pc - 1 == G_PIN_2) != swapped)
            read_pin(s, g, 1);
        else
            read_fate(s, g, 1);
        return;
    case G_FATE_OWNER:
        if (has(s, COMMIT) && !s->owner_deleted)
            g->found = 1;
        return;
    default:
        if (rules == LOOK_BEFORE_MARK)
            s->marked = 1;
        act(s, g, rules);
    }
}

/* Reads the pack, and renames its copy over it any time later: may bring a removed frame back. */
static void step_healer(struct state *s)
{
    if (s->healer_pc == H_READ) {
        s->healer_copy = s->present;
        s->healer_pc = H_RENAME;
    } else {
        s->present = s->healer_copy;
        s->healer_pc = H_READ;
        s->healer_copy = 0;
    }
}

/* ---- the search */

struct search {
    uint64_t *seen, *todo;
    size_t size, n_seen, n_todo;
};

static void search_grow(struct search *x)
{
    uint64_t *old = x->seen;
    size_t old_size = x->size;
    x->size = old_size ? old_size * 2 : 1 << 16;
    x->seen = xcalloc(x->size, sizeof *x->seen);
    for (size_t i = 0; i < old_size; i++) {
        if (old[i] == 0)
            continue;
        size_t at = (size_t)(old[i] * UINT64_C(0x9e3779b97f4a7c15) >> 20) & (x->size - 1);
        while (x->seen[at] != 0)
            at = (at + 1) & (x->size - 1);
        x->seen[at] = old[i];
    }
    free(old);
    x->todo = xreallocarray(x->todo, x->size, sizeof *x->todo);
}

static void visit(struct search *x, const struct state *s)
{
    if (x->n_seen >= x->size / 2)
        search_grow(x);
    uint64_t v = pack_state(s);
    size_t at = (size_t)(v * UINT64_C(0x9e3779b97f4a7c15) >> 20) & (x->size - 1);
    while (x->seen[at] != 0 && x->seen[at] != v)
        at = (at + 1) & (x->size - 1);
    if (x->seen[at] == v)
        return;
    x->seen[at] = v;
    x->n_seen++;
    x->todo[x->n_todo++] = v;
}

/* What becomes of the session that wrote the pack, and of the pack therefore. */
static void visit_owner(struct search *x, const struct state *s, enum rules rules)
{
    struct state next = *s;
    for (unsigned fate = COMMIT; has(s, NONE) && fate <= BEQUEATH; fate++) {
        if (fate == COMMIT && !s->present)
            continue; /* it has given up: it will not commit, but somebody may bequeath it */
        next.owner_fate = fate;
        visit(x, &next);
    }
    next = *s;
    if (has(s, COMMIT) && !s->owner_deleted) {
        next.owner_deleted = 1;
        visit(x, &next);
    }
    next = *s;
    if (s->present && may_go_at_once(s, rules)) {
        next.present = 0;
        visit(x, &next);
    }
}

/* Every state that one step of anybody leads to. */
static void visit_next(struct search *x, const struct state *s, enum rules rules)
{
    struct state next;
    for (int i = 0; i < WRITERS; i++) {
        if (s->w[i].pc == W_START ? may_refer(s, rules) : s->w[i].pc < W_FOURTH) {
            next = *s;
            step_writer(&next, i, rules);
            visit(x, &next);
        }
        if (s->w[i].fate == NONE) { /* somebody declares it dead */
            next = *s;
            next.w[i].fate = REVOKE;
            visit(x, &next);
        }
        if (s->w[i].fate == COMMIT && !s->w[i].deleted) {
            next = *s;
            next.w[i].deleted = 1;
            visit(x, &next);
        }
    }
    for (int i = 0; i < COLLECTORS; i++) {
        if (has(s, NONE)) /* it is left alone */
            continue;
        next = *s;
        step_collector(&next, i, rules);
        visit(x, &next);
    }
    next = *s;
    step_healer(&next);
    visit(x, &next);
    visit_owner(x, s, rules);
}

static bool is_violated(const struct state *s)
{
    for (int i = 0; i < WRITERS; i++)
        if (refers(&s->w[i]) && !s->present)
            return true;
    return has(s, COMMIT) && !s->owner_deleted && !s->present;
}

/* True when a state is reached in which something that is referred to is missing. */
static bool search(enum rules rules, size_t *ret_states)
{
    struct search x = {0};
    struct state s = {.present = 1};
    bool violated = false;
    visit(&x, &s);
    while (x.n_todo > 0 && !violated) {
        unpack_state(x.todo[--x.n_todo], &s);
        violated = is_violated(&s);
        visit_next(&x, &s, rules);
    }
    *ret_states = x.n_seen;
    free(x.seen);
    free(x.todo);
    return violated;
}

static void test_packing(void **state)
{
    (void)state;
    uint64_t seed = 1;
    for (int i = 0; i < 1000; i++) {
        struct state s, got;
        unpack_state((random_next(&seed) & ((UINT64_C(1) << 35) - 1)) + 1, &s);
        unpack_state(pack_state(&s), &got);
        assert_memory_equal(&s, &got, sizeof s);
    }
}

static void test_the_protocol_holds(void **state)
{
    (void)state;
    size_t states;
    assert_false(search(RULES_RIGHT, &states));
    print_message("%zu states\n", states);
    assert_true(states > 100000);
}

static void test_each_rule_is_needed(void **state)
{
    (void)state;
    for (int rules = LOOK_THEN_PIN; rules < RULES; rules++) {
        size_t states;
        bool violated = search((enum rules)rules, &states);
        print_message("rule %d: %s after %zu states\n", rules, violated ? "broken" : "HOLDS",
                      states);
        assert_true(violated);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_packing),
        cmocka_unit_test(test_the_protocol_holds),
        cmocka_unit_test(test_each_rule_is_needed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
