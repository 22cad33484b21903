/* SPDX-License-Identifier: Apache-2.0 */
/* What a selection of VMs collects. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proto/base/alloc.h"
#include "worker/step/select.h"

static struct ovirt_vm_row row(const char *id, const char *name)
{
    return (struct ovirt_vm_row){.id = id, .name = name, .status = "up", .cluster_id = "c1"};
}

static void test_each_vm_once_and_not_the_excluded(void **state)
{
    (void)state;
    char *exclude[] = {(char[]){"web2"}};
    struct wire_select select = {.all = true, .exclude = {exclude, 1}};
    struct selected s = {0};
    struct ovirt_vm_row a = row("1", "web1"), b = row("2", "web2"), c = row("3", "web3");
    static const char *const tags[] = {"prod", "db"};
    a.tags = tags;
    a.tags_count = 2;
    a.disks = 3;
    a.provisioned_bytes = 1 << 30;
    assert_true(selected_add(&s, &select, "z", &a));
    assert_false(selected_add(&s, &select, "z", &a));
    assert_false(selected_add(&s, &select, "z", &b));
    assert_true(selected_add(&s, &select, "z", &c));
    assert_int_equal(s.count, 2);
    assert_string_equal(s.v[0].name, "web1");
    assert_string_equal(s.v[0].zone, "z");
    assert_string_equal(s.v[0].cluster, "c1"); /* its id when no name is known */
    assert_int_equal(s.v[0].tags.count, 2);
    assert_string_equal(s.v[0].tags.v[1], "db");
    assert_int_equal(s.v[0].disks, 3);
    assert_string_equal(s.v[1].name, "web3");
    selected_done(&s);
}

static void test_many(void **state)
{
    (void)state;
    struct selected s = {0};
    for (int i = 0; i < 500; i++) {
        SCOPED_FREE char *id = xasprintf("id-%d", i);
        struct ovirt_vm_row r = row(id, id);
        assert_true(selected_add(&s, NULL, NULL, &r));
        assert_false(selected_add(&s, NULL, NULL, &r));
    }
    assert_int_equal(s.count, 500);
    assert_string_equal(s.v[499].id, "id-499");
    selected_done(&s);
}

static void test_empty_means_all(void **state)
{
    (void)state;
    char *names[] = {(char[]){"web1"}};
    assert_true(select_is_empty(NULL));
    assert_true(select_is_empty(&(struct wire_select){0}));
    assert_true(select_is_empty(&(struct wire_select){.exclude = {names, 1}}));
    assert_false(select_is_empty(&(struct wire_select){.names = {names, 1}}));
    assert_false(select_is_empty(&(struct wire_select){.all = true}));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_vm_once_and_not_the_excluded),
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_empty_means_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
