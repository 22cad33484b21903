/* SPDX-License-Identifier: Apache-2.0 */
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "proto/base/clock.h"
#include "proto/base/queue.h"

static bool is_readable(const struct queue *q)
{
    struct pollfd fd = {.fd = queue_fd(q), .events = POLLIN};
    return poll(&fd, 1, 0) == 1;
}

static void test_order_and_descriptor(void **state)
{
    (void)state;
    int items[3];
    SCOPED(queue) struct queue *q = queue_new(100, NULL);
    assert_false(is_readable(q));
    assert_null(queue_try_pop(q));
    for (int i = 0; i < 3; i++)
        assert_true(queue_push(q, &items[i], 1));
    for (int i = 0; i < 3; i++) {
        assert_true(is_readable(q));
        assert_ptr_equal(queue_try_pop(q), &items[i]);
    }
    assert_false(is_readable(q));
    assert_null(queue_try_pop(q));
    assert_true(queue_push(q, &items[0], 1));
    assert_true(is_readable(q));
    assert_ptr_equal(queue_pop(q), &items[0]);
}

static void test_closing(void **state)
{
    (void)state;
    int items[2];
    SCOPED(queue) struct queue *q = queue_new(100, NULL);
    assert_true(queue_push(q, &items[0], 1));
    queue_close(q);
    queue_close(q);
    assert_false(queue_push(q, &items[1], 1));
    assert_true(is_readable(q));
    assert_ptr_equal(queue_pop(q), &items[0]); /* what is left drains */
    assert_null(queue_pop(q));
    assert_null(queue_try_pop(q));
    assert_true(is_readable(q)); /* so that a poll loop sees the end */
}

static int freed;
static void count_free(void *item)
{
    (void)item;
    freed++;
}

static void test_frees_what_is_left(void **state)
{
    (void)state;
    int items[3];
    freed = 0;
    struct queue *q = queue_new(100, count_free);
    for (int i = 0; i < 3; i++)
        assert_true(queue_push(q, &items[i], 1));
    queue_pop(q);
    queue_free(q);
    assert_int_equal(freed, 2);
    queue_free(NULL);
}

static void test_one_item_always_fits(void **state)
{
    (void)state;
    int item;
    SCOPED(queue) struct queue *q = queue_new(10, NULL);
    assert_true(queue_push(q, &item, 1000));
    assert_ptr_equal(queue_pop(q), &item);
}

/* --- Threads --------------------------------------------------------------------------------- */
enum { PUSHERS = 3, POPPERS = 3, EACH = 3000, ITEM_BYTES = 10, MAX_BYTES = 50 };

struct shared {
    struct queue *q;
    _Atomic int64_t sum;
    _Atomic int popped;
};

static void *push_many(void *arg)
{
    struct shared *s = arg;
    for (int i = 1; i <= EACH; i++) {
        int *item = xmalloc(sizeof *item);
        *item = i;
        if (!queue_push(s->q, item, ITEM_BYTES))
            abort();
    }
    return NULL;
}

static void *pop_many(void *arg)
{
    struct shared *s = arg;
    int *item;
    while ((item = queue_pop(s->q)) != NULL) {
        s->sum += *item;
        s->popped++;
        free(item);
    }
    return NULL;
}

static void test_many_threads(void **state)
{
    (void)state;
    struct shared s = {.q = queue_new(MAX_BYTES, free)};
    pthread_t pushers[PUSHERS], poppers[POPPERS];
    for (int i = 0; i < POPPERS; i++)
        assert_int_equal(pthread_create(&poppers[i], NULL, pop_many, &s), 0);
    for (int i = 0; i < PUSHERS; i++)
        assert_int_equal(pthread_create(&pushers[i], NULL, push_many, &s), 0);
    for (int i = 0; i < PUSHERS; i++)
        pthread_join(pushers[i], NULL);
    queue_close(s.q);
    for (int i = 0; i < POPPERS; i++)
        pthread_join(poppers[i], NULL);
    assert_int_equal(s.popped, PUSHERS * EACH);
    assert_int_equal(s.sum, (int64_t)PUSHERS * EACH * (EACH + 1) / 2);
    queue_free(s.q);
}

static void *push_two(void *arg)
{
    struct shared *s = arg;
    static int items[2];
    bool first = queue_push(s->q, &items[0], 10);
    s->popped = 1;
    bool second = queue_push(s->q, &items[1], 10); /* no room: waits */
    s->popped = 2;
    return first && second ? s : NULL;
}

static void wait_for_count(struct shared *s, int count)
{
    for (int i = 0; i < 10000 && s->popped < count; i++)
        clock_sleep_ms(clock_system(), 1);
    assert_int_equal(s->popped, count);
}

static void test_push_waits_for_room(void **state)
{
    (void)state;
    struct shared s = {.q = queue_new(10, NULL)};
    pthread_t pusher;
    assert_int_equal(pthread_create(&pusher, NULL, push_two, &s), 0);
    wait_for_count(&s, 1);
    clock_sleep_ms(clock_system(), 50);
    assert_int_equal(s.popped, 1);
    assert_non_null(queue_pop(s.q));
    wait_for_count(&s, 2);
    void *ok = NULL;
    pthread_join(pusher, &ok);
    assert_non_null(ok);
    queue_free(s.q);
}

static void test_close_wakes_a_pusher(void **state)
{
    (void)state;
    struct shared s = {.q = queue_new(10, NULL)};
    pthread_t pusher;
    assert_int_equal(pthread_create(&pusher, NULL, push_two, &s), 0);
    wait_for_count(&s, 1);
    queue_close(s.q);
    void *ok = &s;
    pthread_join(pusher, &ok);
    assert_null(ok); /* the second push failed */
    queue_free(s.q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order_and_descriptor), cmocka_unit_test(test_closing),
        cmocka_unit_test(test_frees_what_is_left),   cmocka_unit_test(test_one_item_always_fits),
        cmocka_unit_test(test_many_threads),         cmocka_unit_test(test_push_waits_for_room),
        cmocka_unit_test(test_close_wakes_a_pusher),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
