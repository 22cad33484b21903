/* SPDX-License-Identifier: Apache-2.0 */
/* The meta of a restore point: written and read back; and what a damaged one gives. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/worker/fake_run.h"
#include "worker/step/point_meta.h"

#define D1 "d1d1d1d1-0000-4000-8000-000000000001"
#define D2 "d2d2d2d2-0000-4000-8000-000000000002"

#define STR(text) ((char[]){text})

static void test_there_and_back(void **state)
{
    (void)state;
    struct fake_run f;
    fake_run_init(&f);
    f.settings.zone = "dc1";
    handles_set(&f.run.handles, HANDLE_SNAPSHOT, "s1");
    struct ovirt_disk disks[] = {
        {.id = STR(D1),
         .alias = STR("root"),
         .format = STR("cow"),
         .interface = STR("virtio_scsi"),
         .storage_domain_id = STR("sd1"),
         .bootable = true,
         .sparse = true,
         .active = true,
         .actual_bytes = 100,
         .provisioned_bytes = 1000},
        {.id = STR(D2), .alias = STR("lun"), .fit = OVIRT_DISK_LUN},
    };
    struct ovirt_storage_domain sd = {.id = STR("sd1"), .name = STR("data")};
    struct backup_disk plan[] = {{.disk = &disks[0], .size_bytes = 4096}};
    struct backup b = {
        .site = {.version = {4, 5, 6}},
        .vm = {.id = STR(FAKE_VM),
               .name = STR("web1"),
               .description = STR("the web"),
               .status = STR("up")},
        .disks = {disks, 2},
        .domains = {&sd, 1},
        .plan = plan,
        .plan_count = 1,
        .quiesced = true,
        .snapshot_ms = 1234567,
    };
    json_t *json = point_meta_build(&f.run, &b);
    assert_non_null(json);
    assert_string_equal(json_string_value(json_object_get(json, "engine")), "4.5.6");
    const json_t *skipped = json_object_get(json, "skipped");
    assert_int_equal(json_array_size(skipped), 1);
    assert_string_equal(json_string_value(json_object_get(json_array_get(skipped, 0), "class")),
                        ovirt_disk_class_name(OVIRT_DISK_LUN));
    struct point_meta m = {0};
    struct err err = ERR_INIT;
    assert_true(point_meta_parse(json, &m, &err));
    assert_true(m.quiesced);
    assert_int_equal(m.snapshot_ms, 1234567);
    assert_string_equal(m.description, "the web");
    assert_int_equal(m.disk_count, 1);
    assert_string_equal(m.disks[0].id, D1);
    assert_string_equal(m.disks[0].storage_domain_name, "data");
    assert_int_equal(m.disks[0].size_bytes, 4096);
    assert_true(m.disks[0].bootable && m.disks[0].sparse && m.disks[0].active);
    assert_false(m.disks[0].read_only);
    point_meta_done(&m);
    json_decref(json);
    fake_run_done(&f);
}

static void test_damaged(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum err_code code;
    } cases[] = {
        {"[]", ERR_STORE_CORRUPT},
        {"{}", ERR_STORE_CORRUPT},
        {"{\"version\": 2, \"disks\": [{}]}", ERR_STORE_VERSION},
        {"{\"version\": 1, \"disks\": []}", ERR_STORE_CORRUPT},
        {"{\"version\": 1, \"disks\": [7]}", ERR_STORE_CORRUPT},
        {"{\"version\": 1, \"disks\": [{\"id\": \"../x\", \"size_bytes\": 1}]}", ERR_STORE_CORRUPT},
        {"{\"version\": 1, \"disks\": [{\"id\": \"" D1 "\"}]}", ERR_STORE_CORRUPT},
        {"{\"version\": 1, \"disks\": [{\"id\": \"" D1 "\", \"size_bytes\": -1}]}",
         ERR_STORE_CORRUPT},
        {"{\"version\": 1, \"disks\": [{\"id\": \"" D1 "\", \"size_bytes\": 4096},"
         "{\"id\": \"" D2 "\", \"size_bytes\": \"x\"}]}",
         ERR_STORE_CORRUPT},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        json_t *json = json_loads(cases[i].text, 0, NULL);
        assert_non_null(json);
        struct point_meta m = {0};
        struct err err = ERR_INIT;
        assert_false(point_meta_parse(json, &m, &err));
        assert_int_equal(err.code, cases[i].code);
        json_decref(json);
    }
    struct err err = ERR_INIT;
    struct point_meta m = {0};
    assert_false(point_meta_parse(NULL, &m, &err));
}

static void test_what_is_missing_gets_a_safe_value(void **state)
{
    (void)state;
    json_t *json = json_pack("{s:i, s:[{s:s, s:i, s:s}]}", "version", 1, "disks", "id", D1,
                             "size_bytes", 512, "format", "vhdx");
    struct point_meta m = {0};
    struct err err = ERR_INIT;
    assert_true(point_meta_parse(json, &m, &err));
    assert_string_equal(m.disks[0].format, "cow");
    assert_null(m.disks[0].storage_domain_id);
    assert_true(m.disks[0].active);
    assert_false(m.quiesced);
    point_meta_done(&m);
    json_decref(json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_there_and_back),
        cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_what_is_missing_gets_a_safe_value),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
