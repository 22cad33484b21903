/* SPDX-License-Identifier: Apache-2.0 */
/* The runner with real tasks (list: needs a repository only), driven through its two queues as the
 * broker thread does. */
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/temp_dir.h"
#include "worker/runner/runner.h"
#include "worker/store/store.h"

#define TASK "11111111-2222-4333-8444-555555555555"

enum { NOTE_LIMIT_MS = 20000 };

struct place {
    struct temp_dir dir;
    struct store *store;
    struct worker_env env;
    struct runner *runner;
};

static int setup(void **state)
{
    struct place *p = ALLOC_NEW(struct place);
    temp_dir_make(&p->dir);
    struct err err = ERR_INIT;
    SCOPED_FREE char *path = xasprintf("%s/repo", p->dir.path);
    p->store = store_init(path, NULL, &err);
    if (!p->store)
        fail_msg("%s", err.message);
    p->env = (struct worker_env){
        .name = "w1", .settings = {.zone = "z"}, .store = p->store, .clock = clock_system()};
    p->runner = runner_new(&(struct runner_opts){.env = &p->env, .outage_ms = 60000});
    *state = p;
    return 0;
}

static int teardown(void **state)
{
    struct place *p = *state;
    runner_free(p->runner);
    store_free(p->store);
    temp_dir_remove(&p->dir);
    free(p);
    return 0;
}

static void run(struct place *p, const char *kind, int64_t fence)
{
    SCOPED_FREE char *text =
        xasprintf("{\"task\":\"" TASK "\",\"request\":\"" TASK "\",\"kind\":\"%s\",\"zone\":\"z\","
                  "\"lane\":\"upkeep\",\"attempt\":1,\"list\":{},\"select\":{\"all\":true}}",
                  kind);
    struct order *o = order_new(ORDER_RUN, TASK, fence);
    struct err err = ERR_INIT;
    if (!wire_decode("oxbow.offer.v1", text, strlen(text), &o->offer, &err))
        fail_msg("%s", err.message);
    o->lease_ms = 30000;
    o->sent_ms = clock_mono_ms(clock_system());
    assert_true(queue_push(runner_orders(p->runner), o, sizeof *o));
}

static struct note *next(struct place *p)
{
    struct pollfd fd = {.fd = queue_fd(runner_notes(p->runner)), .events = POLLIN};
    assert_int_equal(poll(&fd, 1, NOTE_LIMIT_MS), 1);
    struct note *n = queue_try_pop(runner_notes(p->runner));
    assert_non_null(n);
    return n;
}

/* Reads notes up to NOTE_ENDED; the result's body (the caller frees). */
static char *until_ended(struct place *p, int64_t fence, int *ret_steps)
{
    char *result = NULL;
    *ret_steps = 0;
    for (;;) {
        struct note *n = next(p);
        assert_string_equal(n->task, TASK);
        assert_int_equal(n->fence, fence);
        if (n->kind == NOTE_ENDED) {
            note_free(n);
            assert_non_null(result);
            return result;
        }
        assert_int_equal(n->kind, NOTE_EVENT);
        assert_string_equal(n->request, TASK);
        *ret_steps += n->type == WIRE_STEP;
        if (n->type == WIRE_RESULT) {
            assert_null(result);
            result = n->body;
            n->body = NULL;
        }
        note_free(n);
    }
}

static void test_a_task_from_order_to_end(void **state)
{
    struct place *p = *state;
    run(p, "list", 5);
    int steps = 0;
    SCOPED_FREE char *result = until_ended(p, 5, &steps);
    assert_int_equal(steps, 2); /* started, done */
    assert_non_null(strstr(result, "\"status\":\"succeeded\""));
    assert_non_null(strstr(result, "\"fence\":5"));
}

static void test_what_this_worker_cannot_do(void **state)
{
    struct place *p = *state;
    run(p, "inventory", 6); /* no engine here */
    int steps = 0;
    SCOPED_FREE char *result = until_ended(p, 6, &steps);
    assert_int_equal(steps, 0);
    assert_non_null(strstr(result, "\"status\":\"failed\""));
    assert_non_null(strstr(result, "bad-config"));
}

static void test_orders_for_what_has_ended(void **state)
{
    struct place *p = *state;
    static const enum order_kind kinds[] = {ORDER_STOP, ORDER_GRANTED, ORDER_CONFIRMED,
                                            ORDER_DENIED, ORDER_SHUTDOWN};
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        struct order *o = order_new(kinds[i], TASK, 9);
        assert_true(queue_push(runner_orders(p->runner), o, sizeof *o));
    }
    run(p, "list", 10);
    int steps = 0;
    SCOPED_FREE char *result = until_ended(p, 10, &steps);
    assert_non_null(strstr(result, "succeeded"));
}

static void push_parted(struct place *p, int64_t fence)
{
    struct order *o = order_new(ORDER_PARTED, TASK, fence);
    SCOPED_FREE char *text = xasprintf("{\"task\":\"" TASK "\",\"worker\":\"w1\",\"attempt\":1,"
                                       "\"fence\":%d,\"states\":[]}",
                                       (int)fence);
    struct err err = ERR_INIT;
    if (!wire_decode("oxbow.parted.v1", text, strlen(text), &o->parted, &err))
        fail_msg("%s", err.message);
    assert_true(queue_push(runner_orders(p->runner), o, sizeof *o));
}

/* A run that does not look at the answers, one that has ended, and answers to answers. */
static void test_answers_that_nobody_takes(void **state)
{
    struct place *p = *state;
    push_parted(p, 4);
    run(p, "list", 5);
    for (int i = 0; i < 10; i++)
        push_parted(p, 5);
    int steps = 0;
    SCOPED_FREE char *result = until_ended(p, 5, &steps);
    assert_non_null(strstr(result, "succeeded"));
}

static void test_many_one_after_the_other(void **state)
{
    struct place *p = *state;
    for (int64_t fence = 1; fence <= 20; fence++) {
        run(p, "list", fence);
        int steps = 0;
        SCOPED_FREE char *result = until_ended(p, fence, &steps);
        assert_non_null(result);
    }
}

static void test_freed_while_running(void **state)
{
    struct place *p = *state;
    for (int64_t fence = 1; fence <= 4; fence++)
        run(p, "list", fence);
    /* teardown frees the runner: it must wait for its tasks, and nobody reads the notes */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_task_from_order_to_end, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_this_worker_cannot_do, setup, teardown),
        cmocka_unit_test_setup_teardown(test_orders_for_what_has_ended, setup, teardown),
        cmocka_unit_test_setup_teardown(test_answers_that_nobody_takes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many_one_after_the_other, setup, teardown),
        cmocka_unit_test_setup_teardown(test_freed_while_running, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
