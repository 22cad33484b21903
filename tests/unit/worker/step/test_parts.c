/* SPDX-License-Identifier: Apache-2.0 */
/* Parts given to other workers, against a coordinator that is the test: what is asked when, what is
 * believed, and that nothing waits for ever. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/worker/fake_run.h"
#include "worker/step/parts.h"

#define PART_TASK "22222222-2222-4333-8444-55555555555%d"
#define SNAPSHOT  "33333333-2222-4333-8444-555555555555"
#define DISK      "44444444-2222-4333-8444-555555555555"

struct place {
    struct fake_run fake; /* first: its functions take it for the context */
    struct run_ops ops;
    struct parts parts;
    struct wire_message answer; /* the next that take_parted() gives */
    struct buf asked;           /* "give 1,2 withdraw 1; ..." */
    int questions;
};

static bool place_emit(void *ctx, enum wire_type type, const void *message, bool ahead)
{
    struct place *p = ctx;
    bool ok = fake_emit(&p->fake, type, message, ahead);
    if (type != WIRE_PARTS)
        return ok;
    const struct wire_parts *q = message;
    assert_int_equal(q->fence, p->fake.run.fence);
    p->questions++;
    buf_printf(&p->asked, "give");
    for (size_t i = 0; i < q->parts.count; i++)
        buf_printf(&p->asked, " %d", (int)q->parts.v[i].n);
    buf_printf(&p->asked, " withdraw");
    for (size_t i = 0; i < q->withdraw.count; i++)
        buf_printf(&p->asked, " %d", (int)q->withdraw.v[i]);
    buf_printf(&p->asked, "; ");
    return ok;
}

static bool place_take(void *ctx, struct wire_message *ret)
{
    struct place *p = ctx;
    if (!p->answer.as)
        return false;
    *ret = p->answer;
    p->answer = (struct wire_message){0};
    return true;
}

static int setup(void **state)
{
    struct place *p = ALLOC_NEW(struct place);
    fake_run_init(&p->fake);
    buf_init(&p->asked, 1 << 16);
    p->ops = fake_ops;
    p->ops.emit = place_emit;
    p->ops.take_parted = place_take;
    p->fake.run.ops = &p->ops;
    *state = p;
    return 0;
}

static int teardown(void **state)
{
    struct place *p = *state;
    parts_done(&p->parts);
    wire_free(&p->answer);
    buf_done(&p->asked);
    fake_run_done(&p->fake);
    free(p);
    return 0;
}

static void give(struct place *p, int count)
{
    for (int i = 0; i < count; i++) {
        struct wire_pieces pieces = {.v = xcalloc(1, sizeof *pieces.v), .count = 1};
        pieces.v[0] = (struct wire_piece){.disk = xstrdup(DISK),
                                          .path = xstrdup("attach"),
                                          .size_bytes = 1 << 30,
                                          .length = 1 << 20};
        parts_add(&p->fake.run, &p->parts, &pieces)->ask.snapshot = xstrdup(SNAPSHOT);
        assert_null(pieces.v);
    }
    parts_give(&p->fake.run, &p->parts);
}

/* `states`: one word a part; `fence`: of the run that the answer is for. */
static void answer(struct place *p, int64_t fence, const char *const *states, int count)
{
    wire_free(&p->answer);
    struct buf text;
    buf_init(&text, 1 << 16);
    buf_printf(&text,
               "{\"task\":\"" FAKE_TASK
               "\",\"worker\":\"w1\",\"attempt\":1,\"fence\":%d,\"states\":[",
               (int)fence);
    for (int i = 0; i < count; i++) {
        buf_printf(&text, "%s{\"n\":%d,\"task\":\"" PART_TASK "\",\"state\":\"%s\"", i ? "," : "",
                   i + 1, i + 1, states[i]);
        if (strcmp(states[i], "waiting") != 0)
            buf_printf(&text, ",\"worker\":\"w%d\",\"fence\":%d", i + 2, i + 20);
        if (strcmp(states[i], "succeeded") == 0)
            buf_printf(&text, ",\"point\":\"" PART_TASK ".%d\"", i + 1, i + 20);
        if (strcmp(states[i], "failed") == 0)
            buf_printf(
                &text,
                ",\"error\":{\"code\":\"io-error\",\"retry\":\"soon\",\"message\":\"broken\"}");
        buf_printf(&text, "}");
    }
    buf_printf(&text, "]}");
    struct err err = ERR_INIT;
    if (!wire_decode("oxbow.parted.v1", text.data, text.len, &p->answer, &err))
        fail_msg("%s", err.message);
    buf_done(&text);
}
#define ANSWER(p, fence, ...)                                                                      \
    do {                                                                                           \
        const char *const words[] = {__VA_ARGS__};                                                 \
        answer(p, fence, words, ARRAY_LEN(words));                                                 \
    } while (0)

static const char *asked(struct place *p)
{
    buf_printf(&p->asked, "%c", '\0');
    p->asked.len = 0;
    return p->asked.data;
}

static void look(struct place *p)
{
    parts_look(&p->fake.run, &p->parts);
}

static void test_from_asked_to_done(void **state)
{
    struct place *p = *state;
    give(p, 2);
    assert_string_equal(asked(p), "give 1 2 withdraw; ");
    ANSWER(p, 7, "waiting", "running");
    look(p);
    assert_int_equal(p->parts.v[0].state, PART_WAITING);
    assert_int_equal(p->parts.v[1].state, PART_RUNNING);
    assert_null(handles_get(&p->fake.run.handles, "part.1"));
    assert_string_equal(handles_get(&p->fake.run.handles, "part.2"),
                        "22222222-2222-4333-8444-555555555552.21");
    assert_false(part_has_ended(&p->parts.v[1]));
    ANSWER(p, 7, "failed", "succeeded");
    look(p);
    assert_string_equal(p->parts.v[0].why, "broken");
    assert_string_equal(p->parts.v[0].worker, "w2");
    assert_string_equal(p->parts.v[1].point, "22222222-2222-4333-8444-555555555552.21");
    assert_true(part_has_ended(&p->parts.v[0]) && part_has_ended(&p->parts.v[1]));
    p->fake.clock.now_ms += 3600 * 1000;
    look(p);
    assert_int_equal(p->questions, 1); /* nothing is open: nothing is asked */
}

/* The question is repeated, and names only what nobody has answered for. */
static void test_asks_again(void **state)
{
    struct place *p = *state;
    give(p, 2);
    look(p);
    assert_int_equal(p->questions, 1);
    p->fake.clock.now_ms += 6000;
    look(p);
    assert_string_equal(asked(p), "give 1 2 withdraw; give 1 2 withdraw; ");
    ANSWER(p, 7, "running");
    p->fake.clock.now_ms += 6000;
    look(p);
    assert_string_equal(asked(p), "give 2 withdraw; ");
}

/* Of another attempt, older than what is known, or about parts that are not ours. */
static void test_what_is_not_believed(void **state)
{
    struct place *p = *state;
    give(p, 1);
    ANSWER(p, 6, "succeeded");
    look(p);
    assert_int_equal(p->parts.v[0].state, PART_ASKED);
    ANSWER(p, 7, "cancelled", "running");
    look(p);
    assert_int_equal(p->parts.v[0].state, PART_UNDONE);
    assert_string_equal(p->parts.v[0].why, "cancelled");
    ANSWER(p, 7, "running");
    look(p);
    assert_int_equal(p->parts.v[0].state, PART_UNDONE);
    assert_null(handles_get(&p->fake.run.handles, "part.2"));
}

static void test_what_nobody_began_is_withdrawn(void **state)
{
    struct place *p = *state;
    give(p, 3);
    ANSWER(p, 7, "waiting", "running");
    look(p);
    (void)asked(p);
    parts_withdraw_idle(&p->fake.run, &p->parts);
    assert_string_equal(asked(p), "give 3 withdraw 1 3; ");
    parts_withdraw_idle(&p->fake.run, &p->parts); /* once is enough */
    assert_string_equal(asked(p), "");
    ANSWER(p, 7, "cancelled", "running");
    look(p);
    assert_true(part_has_ended(&p->parts.v[0]));
    assert_false(part_has_ended(&p->parts.v[2]));
    p->fake.clock.now_ms += 16000; /* nobody answers for the third: it is ours again */
    parts_withdraw_idle(&p->fake.run, &p->parts);
    assert_true(part_has_ended(&p->parts.v[2]));
    assert_false(part_has_ended(&p->parts.v[1]));
}

/* Who was silent may yet let a part begin: that is known to be over only once it has said so. */
static void test_silence_is_not_the_end(void **state)
{
    struct place *p = *state;
    struct err err = ERR_INIT;
    give(p, 2);
    ANSWER(p, 7, "waiting");
    look(p);
    parts_withdraw_idle(&p->fake.run, &p->parts);
    p->fake.clock.now_ms += 16000;
    parts_withdraw_idle(&p->fake.run, &p->parts);
    assert_true(part_has_ended(&p->parts.v[0]) && part_has_ended(&p->parts.v[1]));
    (void)asked(p);
    p->fake.clock.now_ms += 6000;
    look(p);
    assert_string_equal(asked(p), "give 2 withdraw 1 2; ");
    ANSWER(p, 7, "running", "cancelled");
    look(p);
    assert_true(p->parts.v[0].is_silent && p->parts.v[0].state == PART_UNDONE);
    assert_false(p->parts.v[1].is_silent);
    p->fake.stopped = ERR_CANCELLED;
    assert_false(parts_settle(&p->fake.run, &p->parts, &err));
    assert_int_equal(err.code, ERR_CANCELLED);
    err_clear(&err);
    ANSWER(p, 7, "failed", "cancelled");
    assert_true(parts_settle(&p->fake.run, &p->parts, &err));
    assert_int_equal(p->parts.v[0].state, PART_UNDONE); /* it is ours since then */
}

/* Fifteen parts of as many pieces as there may be do not fit into one message. */
static void test_many_pieces(void **state)
{
    struct place *p = *state;
    for (int i = 0; i < WIRE_PARTS_MAX; i++) {
        struct wire_pieces pieces = {.v = xcalloc(WIRE_PIECES_MAX, sizeof *pieces.v),
                                     .count = WIRE_PIECES_MAX};
        for (size_t k = 0; k < pieces.count; k++)
            pieces.v[k] = (struct wire_piece){.disk = xstrdup(DISK),
                                              .from = xstrdup(DISK),
                                              .image = xstrdup(DISK),
                                              .path = xstrdup("imageio"),
                                              .size_bytes = INT64_C(1) << 47,
                                              .offset = (INT64_C(1) << 46) + (int64_t)k * 4096,
                                              .length = 4096};
        parts_add(&p->fake.run, &p->parts, &pieces)->ask.snapshot = xstrdup(SNAPSHOT);
    }
    parts_give(&p->fake.run, &p->parts); /* each is encoded: none is too large */
    assert_string_equal(asked(p), "give 1 2 withdraw; give 3 4 withdraw; give 5 6 withdraw; "
                                  "give 7 8 withdraw; give 9 10 withdraw; give 11 12 withdraw; "
                                  "give 13 14 withdraw; give 15 withdraw; ");
    parts_withdraw_idle(&p->fake.run, &p->parts); /* never before it is given */
    assert_string_equal(asked(p),
                        "give 1 2 withdraw 1 2; give 3 4 withdraw 3 4; give 5 6 withdraw 5 6; "
                        "give 7 8 withdraw 7 8; give 9 10 withdraw 9 10; "
                        "give 11 12 withdraw 11 12; give 13 14 withdraw 13 14; "
                        "give 15 withdraw 15; ");
}

static void test_the_end(void **state)
{
    struct place *p = *state;
    struct err err = ERR_INIT;
    assert_true(parts_end(&p->fake.run, &p->parts, &err)); /* of none */
    give(p, 2);
    ANSWER(p, 7, "succeeded", "running");
    look(p);
    (void)asked(p);
    ANSWER(p, 7, "succeeded", "cancelled");
    assert_true(parts_end(&p->fake.run, &p->parts, &err));
    assert_string_equal(asked(p), "give withdraw 2; ");
}

/* What a lost one had attached is still there. */
static void test_the_end_of_a_cleanup(void **state)
{
    struct place *p = *state;
    struct err err = ERR_INIT;
    give(p, 1);
    ANSWER(p, 7, "failed");
    ((struct wire_parted *)p->answer.as)->states.v[0].cleanup_open = true;
    look(p);
    assert_true(part_has_ended(&p->parts.v[0]));
    (void)asked(p);
    int64_t before = p->fake.clock.now_ms;
    p->questions = 0;
    assert_true(parts_end(&p->fake.run, &p->parts, &err)); /* it lasts: we go on */
    assert_in_range(p->fake.clock.now_ms - before, 60 * 1000, 65 * 1000);
    assert_true(p->questions > 5);
    ANSWER(p, 7, "failed");
    before = p->fake.clock.now_ms;
    assert_true(parts_end(&p->fake.run, &p->parts, &err)); /* it has ended */
    assert_in_range(p->fake.clock.now_ms - before, 0, 1000);
}

static void test_an_end_that_does_not_come(void **state)
{
    struct place *p = *state;
    struct err err = ERR_INIT;
    give(p, 1);
    ANSWER(p, 7, "running");
    assert_false(parts_end(&p->fake.run, &p->parts, &err));
    assert_int_equal(err.code, ERR_TIMEOUT);
    assert_true(p->questions > 10);
    err_clear(&err);
    p->fake.stopped = ERR_LEASE_LOST;
    assert_false(parts_end(&p->fake.run, &p->parts, &err));
    assert_int_equal(err.code, ERR_LEASE_LOST);
}

static void test_nobody_to_share_with(void **state)
{
    struct place *p = *state;
    assert_true(parts_can(&p->fake.run));
    p->ops.take_parted = NULL;
    assert_false(parts_can(&p->fake.run));
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_from_asked_to_done),
        T(test_asks_again),
        T(test_what_is_not_believed),
        T(test_what_nobody_began_is_withdrawn),
        T(test_silence_is_not_the_end),
        T(test_many_pieces),
        T(test_the_end),
        T(test_the_end_of_a_cleanup),
        T(test_an_end_that_does_not_come),
        T(test_nobody_to_share_with),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
