/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proto/wire/topology.h"

static void test_names(void **state)
{
    (void)state;
    char *name = topology_task_queue("dc1", LANE_RESTORE);
    assert_string_equal(name, "oxbow.tasks.dc1.restore");
    free(name);
    name = topology_control_queue("proxy1");
    assert_string_equal(name, "oxbow.control.proxy1");
    free(name);
    name = topology_control_key("proxy1");
    assert_string_equal(name, "worker.proxy1");
    free(name);
    assert_string_equal(topology_event_key(WIRE_CLAIM), "task.claim");
    assert_string_equal(topology_event_key(WIRE_STEP), "task.step");
    assert_string_equal(topology_event_key(WIRE_COPYING), "task.copying");
    assert_string_equal(topology_event_key(WIRE_PARTS), "task.parts");
    assert_string_equal(topology_event_key(WIRE_ITEMS), "task.items");
    assert_string_equal(topology_event_key(WIRE_RESULT), "task.result");
    assert_string_equal(topology_event_key(WIRE_PRESENCE), "worker.presence");
    assert_string_equal(topology_event_key(WIRE_CHECKED), "worker.checked");
}

static void test_lanes(void **state)
{
    (void)state;
    for (int i = 0; i < LANE_COUNT; i++) {
        enum lane lane;
        assert_true(lane_parse(lane_name((enum lane)i), &lane));
        assert_int_equal(lane, i);
    }
    enum lane lane;
    assert_false(lane_parse("fast", &lane));
    assert_false(lane_parse("", &lane));
}

static const struct mq_declare *find(const struct mq_declare *list, int kind, const char *name,
                                     const char *key)
{
    for (; list->kind != MQ_END; list++) {
        if ((int)list->kind == kind && strcmp(list->name, name) == 0 &&
            (!key || strcmp(list->key, key) == 0))
            return list;
    }
    return NULL;
}

/* The same, when it has to be there. */
static const struct mq_declare *get(const struct mq_declare *list, int kind, const char *name,
                                    const char *key)
{
    const struct mq_declare *d = find(list, kind, name, key);
    if (!d) {
        fail_msg("'%s' is not declared", name);
        abort();
    }
    return d;
}

/* All that is bound is declared before, in this order. */
static void expect_order(const struct mq_declare *list, bool exchanges_too)
{
    for (const struct mq_declare *d = list; d->kind != MQ_END; d++) {
        if (d->kind != MQ_BIND)
            continue;
        const struct mq_declare *queue = get(list, MQ_QUEUE, d->name, NULL);
        assert_non_null(queue);
        assert_true(queue < d);
        if (exchanges_too)
            assert_non_null(get(list, MQ_EXCHANGE, d->exchange, NULL));
    }
}

static void test_coordinator(void **state)
{
    (void)state;
    const char *const zones[] = {"dc1", "dc2"};
    struct mq_declare *list = topology_coordinator(zones, 2);
    expect_order(list, true);
    static const char *const inboxes[] = {TOPOLOGY_REQUESTS, TOPOLOGY_LEDGER};
    for (size_t i = 0; i < 2; i++) {
        const struct mq_declare *q = get(list, MQ_QUEUE, inboxes[i], NULL);
        assert_true(q->quorum && q->single_active && !q->exclusive);
        assert_string_equal(q->dead_letter_exchange, TOPOLOGY_DEAD);
        assert_true(q->delivery_limit > 0);
    }
    static const char *const tasks[] = {"oxbow.tasks.dc1.restore", "oxbow.tasks.dc1.backup",
                                        "oxbow.tasks.dc1.upkeep",  "oxbow.tasks.dc2.restore",
                                        "oxbow.tasks.dc2.backup",  "oxbow.tasks.dc2.upkeep"};
    for (size_t i = 0; i < ARRAY_LEN(tasks); i++) {
        const struct mq_declare *q = get(list, MQ_QUEUE, tasks[i], NULL);
        assert_non_null(q);
        assert_true(q->quorum && !q->single_active && q->delivery_limit > 0);
        assert_string_equal(q->dead_letter_exchange, TOPOLOGY_DEAD);
        const struct mq_declare *bind = get(list, MQ_BIND, tasks[i], tasks[i]);
        assert_string_equal(bind->exchange, TOPOLOGY_TASKS);
    }
    assert_string_equal(get(list, MQ_BIND, TOPOLOGY_LEDGER, "#")->exchange, TOPOLOGY_EVENTS);
    assert_non_null(get(list, MQ_BIND, TOPOLOGY_REQUESTS, TOPOLOGY_REQUEST_KEY));
    const struct mq_declare *dead = get(list, MQ_QUEUE, TOPOLOGY_DEAD, NULL);
    assert_null(dead->dead_letter_exchange);
    assert_string_equal(get(list, MQ_EXCHANGE, TOPOLOGY_DEAD, NULL)->type, "fanout");
    assert_string_equal(get(list, MQ_EXCHANGE, TOPOLOGY_EVENTS, NULL)->type, "topic");
    topology_free(list);
    list = topology_coordinator(NULL, 0);
    expect_order(list, true);
    topology_free(list);
    topology_free(NULL);
}

static void test_worker(void **state)
{
    (void)state;
    struct mq_declare *list = topology_worker("proxy1");
    expect_order(list, false);
    const struct mq_declare *q = get(list, MQ_QUEUE, "oxbow.control.proxy1", NULL);
    assert_true(q->exclusive && !q->quorum);
    assert_string_equal(get(list, MQ_BIND, q->name, "worker.proxy1")->exchange, TOPOLOGY_CONTROL);
    assert_non_null(get(list, MQ_BIND, q->name, "all"));
    assert_null(find(list, MQ_EXCHANGE, TOPOLOGY_CONTROL, NULL)); /* not a worker's right */
    topology_free(list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_lanes),
        cmocka_unit_test(test_coordinator),
        cmocka_unit_test(test_worker),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
