/* SPDX-License-Identifier: Apache-2.0 */
/* clang-format off */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include <string.h>

#include "coordinator/lease_table.h"

static void leases_are_found_renewed_and_ended(void **state)
{
    (void)state;
    SCOPED(lease_table) struct lease_table *t = lease_table_new();
    enum { COUNT = 10000 };
    char(*ids)[ID_BYTES] = xcalloc(COUNT, sizeof *ids);
    for (int i = 0; i < COUNT; i++) {
        id_new(ids[i]);
        lease_begin(t, ids[i], "w", i, i);
    }
    assert_int_equal(lease_count(t), COUNT);
    for (int i = 0; i < COUNT; i++) {
        struct lease *lease = lease_find(t, ids[i]);
        assert_non_null(lease);
        assert_int_equal(lease->fence, i);
    }
    assert_string_equal(lease_first(t)->task, ids[0]);
    lease_find(t, ids[0])->misses = 5;
    lease_renew(t, lease_find(t, ids[0]), 99999);
    assert_int_equal(lease_find(t, ids[0])->misses, 0);
    assert_string_equal(lease_first(t)->task, ids[1]);
    lease_begin(t, ids[1], "x", 7, 100000); /* in place of the old one */
    assert_int_equal(lease_count(t), COUNT);
    assert_string_equal(lease_find(t, ids[1])->worker, "x");
    for (int i = 0; i < COUNT; i += 2)
        lease_end(t, ids[i]);
    lease_end(t, ids[0]); /* again: nothing */
    assert_int_equal(lease_count(t), COUNT / 2);
    int64_t last = 0;
    size_t seen = 0;
    for (struct lease *l = lease_first(t); l; l = lease_next(l), seen++) {
        assert_true(l->renewed_ms >= last);
        last = l->renewed_ms;
    }
    assert_int_equal(seen, COUNT / 2);
    for (int i = 0; i < COUNT; i++)
        assert_int_equal(lease_find(t, ids[i]) != NULL, i % 2);
    free(ids);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(leases_are_found_renewed_and_ended)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
