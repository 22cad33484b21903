/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tests/sandbox/imageio/ticket.h"

static struct imageio_ticket reader(const char *id)
{
    return (struct imageio_ticket){.id = id,
                                   .size_bytes = 1000,
                                   .can_read = true,
                                   .uri = "nbd://x",
                                   .transfer_id = "T",
                                   .timeout_s = 100};
}

static int setup(void **state)
{
    struct ticket_table *t = ticket_table_new();
    struct err err = ERR_INIT;
    struct imageio_ticket ticket = reader("a");
    *state = t;
    return ticket_add(t, &ticket, &err) ? 0 : -1;
}

static int teardown(void **state)
{
    ticket_table_free(*state);
    return 0;
}

static void move(struct ticket *k, uint64_t offset, uint64_t bytes)
{
    struct err err = ERR_INIT;
    struct ticket_op *op = ticket_begin(k, offset, &err);
    assert_non_null(op);
    assert_true(ticket_progress(op, bytes));
    ticket_end(op);
}

static uint64_t transferred(struct ticket_table *t)
{
    struct imageio_ticket_info info;
    struct err err = ERR_INIT;
    assert_true(ticket_info(t, "a", &info, &err));
    return info.transferred;
}

static void test_transferred_counts_distinct_bytes(void **state)
{
    struct ticket_table *t = *state;
    struct err err = ERR_INIT;
    struct ticket *k = ticket_authorize(t, "a", false, &err);
    assert_non_null(k);
    static const struct {
        uint64_t offset, bytes, sum;
    } moves[] = {{100, 100, 100}, {100, 100, 100}, {300, 50, 150}, {0, 50, 200},   {50, 50, 250},
                 {150, 175, 350}, {0, 0, 350},     {340, 20, 360}, {0, 1000, 1000}};
    for (size_t i = 0; i < ARRAY_LEN(moves); i++) {
        move(k, moves[i].offset, moves[i].bytes);
        assert_int_equal(transferred(t), moves[i].sum);
    }
    ticket_release(k);
}

static void test_removal_waits_for_operations(void **state)
{
    struct ticket_table *t = *state;
    struct err err = ERR_INIT;
    struct ticket *k = ticket_authorize(t, "a", false, &err);
    struct ticket_op *op = ticket_begin(k, 0, &err);
    assert_non_null(op);
    assert_false(ticket_remove(t, "a", 20, &err));
    assert_int_equal(err.code, ERR_CONFLICT);
    err_clear(&err);
    /* It stays, cancelled: nothing new begins, and the running one learns of it. */
    assert_false(ticket_progress(op, 1));
    assert_null(ticket_begin(k, 0, &err));
    assert_non_null(strstr(err.message, "Transfer T was canceled"));
    err_clear(&err);
    assert_null(ticket_authorize(t, "a", false, &err));
    assert_non_null(strstr(err.message, "Transfer=T was canceled"));
    err_clear(&err);
    ticket_end(op);
    assert_true(ticket_remove(t, "a", 20, &err));
    assert_null(ticket_authorize(t, "a", false, &err));
    assert_non_null(strstr(err.message, "No such ticket a"));
    ticket_release(k); /* held beyond its removal */
}

static void test_replacement(void **state)
{
    struct ticket_table *t = *state;
    struct err err = ERR_INIT;
    struct ticket *old = ticket_authorize(t, "a", false, &err);
    struct imageio_ticket fresh = reader("a");
    fresh.size_bytes = 2000;
    assert_true(ticket_add(t, &fresh, &err));
    struct ticket *k = ticket_authorize(t, "a", false, &err);
    assert_ptr_not_equal(k, old);
    assert_int_equal(ticket_opts(k)->size_bytes, 2000);
    assert_int_equal(ticket_opts(old)->size_bytes, 1000);
    ticket_release(old);
    ticket_release(k);
}

static void test_senseless_tickets(void **state)
{
    struct ticket_table *t = *state;
    struct imageio_ticket bad[4] = {reader(""), reader("a/b"), reader("c"), reader("d")};
    bad[2].can_read = false;
    bad[3].size_bytes = UINT64_MAX;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct err err = ERR_INIT;
        assert_false(ticket_add(t, &bad[i], &err));
        assert_int_equal(err.code, ERR_BAD_ARGUMENT);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_transferred_counts_distinct_bytes),
        TEST(test_removal_waits_for_operations),
        TEST(test_replacement),
        TEST(test_senseless_tickets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
