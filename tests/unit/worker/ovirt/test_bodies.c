/* SPDX-License-Identifier: Apache-2.0 */
/* Request bodies: exactly what is sent, per engine version; and how disks are judged. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "worker/ovirt/attachment_impl.h"
#include "worker/ovirt/disk_impl.h"
#include "worker/ovirt/member.h"
#include "worker/ovirt/nic_impl.h"
#include "worker/ovirt/snapshot_impl.h"
#include "worker/ovirt/vm_impl.h"

#define ID1 "11111111-1111-4111-8111-111111111111"
#define ID2 "22222222-2222-4222-8222-222222222222"
#define ID3 "33333333-3333-4333-8333-333333333333"

static json_t *parse(const char *text)
{
    json_error_t why;
    json_t *json = json_loads(text, 0, &why);
    if (!json)
        fail_msg("%s: %s", text, why.text);
    return json;
}

static void assert_json(json_t *got, const char *expected)
{
    json_auto_t *want = parse(expected);
    SCOPED_FREE char *text = json_dumps(got, JSON_COMPACT);
    if (!json_equal(got, want))
        fail_msg("got      %s\nexpected %s", text, expected);
    json_decref(got);
}

static void snapshot_is_without_memory_and_of_the_named_disks(void **state)
{
    (void)state;
    const char *disks[] = {ID1, ID2};
    assert_json(ovirt_snapshot_body("oxbow task=x fence=1", disks, 2),
                "{\"description\":\"oxbow task=x fence=1\",\"persist_memorystate\":\"false\","
                "\"disk_attachments\":{\"disk_attachment\":[{\"disk\":{\"id\":\"" ID1
                "\"}},{\"disk\":{\"id\":\"" ID2 "\"}}]}}");
}

static void attaching_a_snapshot_disk_names_the_snapshot(void **state)
{
    (void)state;
    assert_json(ovirt_attach_snapshot_body(ID1, ID3, NULL),
                "{\"active\":\"true\",\"bootable\":\"false\",\"interface\":\"virtio_scsi\","
                "\"disk\":{\"id\":\"" ID1 "\",\"snapshot\":{\"id\":\"" ID3 "\"}}}");
    assert_json(ovirt_attach_snapshot_body(ID1, ID3, "virtio"),
                "{\"active\":\"true\",\"bootable\":\"false\",\"interface\":\"virtio\","
                "\"disk\":{\"id\":\"" ID1 "\",\"snapshot\":{\"id\":\"" ID3 "\"}}}");
}

static void attaching_a_disk_says_everything(void **state)
{
    (void)state;
    assert_json(ovirt_attach_disk_body(ID1, &(struct ovirt_attach){.active = true}),
                "{\"active\":\"true\",\"bootable\":\"false\",\"interface\":\"virtio_scsi\","
                "\"disk\":{\"id\":\"" ID1 "\"}}");
    assert_json(ovirt_attach_disk_body(ID1, &(struct ovirt_attach){.bootable = true,
                                                                   .interface = "sata",
                                                                   .read_only = true,
                                                                   .pass_discard = true}),
                "{\"active\":\"false\",\"bootable\":\"true\",\"interface\":\"sata\","
                "\"read_only\":\"true\",\"pass_discard\":\"true\",\"disk\":{\"id\":\"" ID1 "\"}}");
}

static void disk_body_by_format(void **state)
{
    (void)state;
    struct ovirt_disk_spec spec = {.id = ID1,
                                   .alias = "web01_Disk1",
                                   .storage_domain_id = ID2,
                                   .format = "cow",
                                   .size_bytes = UINT64_C(21474836480),
                                   .initial_bytes = UINT64_C(1073741824),
                                   .sparse = true};
    assert_json(ovirt_disk_body(&spec),
                "{\"id\":\"" ID1
                "\",\"alias\":\"web01_Disk1\",\"provisioned_size\":\"21474836480\","
                "\"format\":\"cow\",\"sparse\":\"true\",\"wipe_after_delete\":\"false\","
                "\"initial_size\":\"1073741824\","
                "\"storage_domains\":{\"storage_domain\":[{\"id\":\"" ID2 "\"}]}}");
    spec = (struct ovirt_disk_spec){.id = ID1,
                                    .storage_domain_id = ID2,
                                    .description = "d",
                                    .format = "raw",
                                    .size_bytes = 1024,
                                    .initial_bytes = 4096,
                                    .wipe_after_delete = true};
    assert_json(ovirt_disk_body(&spec),
                "{\"id\":\"" ID1 "\",\"alias\":\"" ID1
                "\",\"description\":\"d\",\"provisioned_size\":\"1024\",\"format\":\"raw\","
                "\"sparse\":\"false\",\"wipe_after_delete\":\"true\","
                "\"storage_domains\":{\"storage_domain\":[{\"id\":\"" ID2 "\"}]}}");
}

static void disk_spec_fits_the_kind_of_storage(void **state)
{
    (void)state;
    static const struct {
        const char *format;
        bool sparse, block, fitted, changed;
    } cases[] = {
        {"raw", true, false, true, false},  {"raw", true, true, false, true},
        {"raw", false, true, false, false}, {"raw", false, false, false, false},
        {"cow", true, true, true, false},   {"cow", true, false, true, false},
        {"cow", false, true, true, true},   {"cow", false, false, true, true},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct ovirt_disk_spec spec = {.format = cases[i].format, .sparse = cases[i].sparse};
        assert_int_equal(ovirt_disk_spec_fit(&spec, cases[i].block), cases[i].changed);
        assert_int_equal(spec.sparse, cases[i].fitted);
    }
}

static void disks_are_judged(void **state)
{
    (void)state;
    static const struct {
        const char *disk, *attachment;
        enum ovirt_disk_class fit;
    } cases[] = {
        {"{\"id\":\"" ID1 "\",\"status\":\"ok\",\"storage_type\":\"image\",\"format\":\"cow\"}",
         "{\"active\":\"true\"}", OVIRT_DISK_FIT},
        {"{\"id\":\"" ID1 "\",\"status\":\"ok\"}", "{\"active\":true}", OVIRT_DISK_FIT},
        {"{\"id\":\"" ID1 "\",\"status\":\"ok\",\"storage_type\":\"lun\"}", "{\"active\":\"true\"}",
         OVIRT_DISK_LUN},
        {"{\"id\":\"" ID1 "\",\"lun_storage\":{\"type\":\"iscsi\"}}", "{\"active\":\"true\"}",
         OVIRT_DISK_LUN},
        {"{\"id\":\"" ID1 "\",\"storage_type\":\"managed_block_storage\"}", "{\"active\":\"true\"}",
         OVIRT_DISK_STORAGE},
        {"{\"id\":\"" ID1 "\",\"shareable\":\"true\",\"status\":\"ok\"}", "{\"active\":\"true\"}",
         OVIRT_DISK_SHAREABLE},
        {"{\"id\":\"" ID1 "\",\"content_type\":\"iso\",\"status\":\"ok\"}", "{\"active\":\"true\"}",
         OVIRT_DISK_CONTENT},
        {"{\"id\":\"" ID1 "\",\"status\":\"ok\"}", "{\"active\":\"false\"}", OVIRT_DISK_UNPLUGGED},
        {"{\"id\":\"" ID1 "\",\"status\":\"ok\"}", NULL, OVIRT_DISK_FIT},
        {"{\"id\":\"" ID1 "\",\"status\":\"illegal\"}", "{\"active\":\"true\"}",
         OVIRT_DISK_ILLEGAL},
        {"{\"id\":\"" ID1 "\",\"status\":\"locked\"}", "{\"active\":\"true\"}", OVIRT_DISK_LOCKED},
        {"{\"id\":\"" ID1 "\",\"status\":\"ok\",\"backup\":\"incremental\"}",
         "{\"active\":\"true\"}", OVIRT_DISK_CHECKPOINTS},
        {"{\"id\":\"" ID1 "\",\"status\":\"ok\",\"backup\":\"none\"}", "{\"active\":\"true\"}",
         OVIRT_DISK_FIT},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        json_auto_t *disk = parse(cases[i].disk);
        json_auto_t *attachment = cases[i].attachment ? parse(cases[i].attachment) : NULL;
        struct ovirt_disk d;
        struct err err = ERR_INIT;
        assert_true(ovirt_disk_of_json(disk, attachment, &d, &err));
        if (d.fit != cases[i].fit)
            fail_msg("%s is %s", cases[i].disk, ovirt_disk_class_name(d.fit));
        assert_non_null(ovirt_disk_class_why(d.fit));
        ovirt_disk_done(&d);
    }
}

static void disk_members_are_read(void **state)
{
    (void)state;
    json_auto_t *disk = parse("{\"id\":\"" ID1 "\",\"image_id\":\"" ID2
                              "\",\"name\":\"n\",\"provisioned_size\":\"4096\",\"actual_size\":100,"
                              "\"sparse\":\"true\",\"snapshot\":{\"id\":\"" ID3
                              "\"},\"storage_domains\":{\"storage_domain\":[{\"id\":\"sd\"}]}}");
    struct ovirt_disk d;
    struct err err = ERR_INIT;
    assert_true(ovirt_disk_of_json(disk, NULL, &d, &err));
    assert_string_equal(d.image_id, ID2);
    assert_string_equal(d.alias, "n");
    assert_string_equal(d.snapshot_id, ID3);
    assert_string_equal(d.storage_domain_id, "sd");
    assert_int_equal(d.provisioned_bytes, 4096);
    assert_int_equal(d.actual_bytes, 100);
    assert_true(d.sparse);
    ovirt_disk_done(&d);
    json_auto_t *bad = parse("{\"id\":\"../vms\"}");
    assert_false(ovirt_disk_of_json(bad, NULL, &d, &err));
    assert_int_equal(err.code, ERR_ENGINE_PROTOCOL);
}

/* --- VM -------------------------------------------------------------------------------------- */
static const char saved_vm[] =
    "{\"id\":\"" ID1 "\",\"href\":\"/ovirt-engine/api/vms/" ID1
    "\",\"name\":\"web01\",\"description\":\"the shop\",\"comment\":\"c\",\"status\":\"up\","
    "\"type\":\"server\",\"memory\":\"4294967296\",\"actions\":{\"link\":[]},"
    "\"memory_policy\":{\"guaranteed\":\"4294967296\",\"max\":\"17179869184\",\"ballooning\":"
    "\"true\",\"over_commit\":{\"percent\":\"100\"}},"
    "\"cpu\":{\"architecture\":\"x86_64\",\"topology\":{\"sockets\":\"2\",\"cores\":\"1\","
    "\"threads\":\"1\"}},\"cpu_shares\":0,\"bios\":{\"type\":\"q35_ovmf\",\"boot_menu\":{"
    "\"enabled\":\"false\"}},\"os\":{\"type\":\"rhel_8x64\",\"boot\":{\"devices\":{\"device\":["
    "\"hd\",\"network\"]}},\"version\":{\"major\":\"8\"}},\"delete_protected\":\"true\","
    "\"display\":{\"type\":\"spice\",\"address\":\"10.0.0.1\",\"port\":\"5900\",\"monitors\":\"1\","
    "\"disconnect_action_delay\":\"0\"},"
    "\"high_availability\":{\"enabled\":\"true\",\"priority\":\"1\"},"
    "\"lease\":{\"storage_domain\":{\"id\":\"" ID2 "\"}},\"tpm_enabled\":\"false\","
    "\"multi_queues_enabled\":\"true\",\"virtio_scsi\":{\"enabled\":\"true\"},"
    "\"virtio_scsi_multi_queues_enabled\":\"false\","
    "\"placement_policy\":{\"affinity\":\"migratable\",\"hosts\":{\"host\":[{\"id\":\"" ID3
    "\"}]}},"
    "\"custom_properties\":{\"custom_property\":[{\"name\":\"n\",\"value\":\"v\",\"regexp\":\"x\"}]"
    "},"
    "\"soundcard_enabled\":false,\"stateless\":\"false\",\"usb\":{\"enabled\":\"true\",\"type\":"
    "\"native\"},\"next_run_configuration_exists\":\"false\",\"rng_device\":{},"
    "\"nics\":{\"nic\":[{\"id\":\"x\"}]},\"disk_attachments\":{\"disk_attachment\":[]},"
    "\"original_template\":{\"id\":\"" ID3 "\"},\"start_time\":1767630835851,"
    "\"migration\":{\"auto_converge\":\"inherit\",\"encrypted\":\"inherit\",\"policy\":{\"id\":"
    "\"" ID3 "\"}},\"time_zone\":{\"name\":\"Etc/GMT\",\"utc_offset\":\"GMT\"}}";

static json_t *vm_body(const char *saved, int minor, int build)
{
    json_auto_t *json = parse(saved);
    struct engine_version version = {.major = 4, .minor = minor, .build = build};
    json_t *body = ovirt_vm_body(
        json,
        &(struct ovirt_vm_new){.name = "web01-r", .cluster_id = ID2, .description = "oxbow r"},
        &version);
    assert_non_null(body);
    return body;
}

#define BODY_COMMON                                                                                \
    "\"name\":\"web01-r\",\"description\":\"oxbow r\",\"cluster\":{\"id\":\"" ID2                  \
    "\"},\"template\":{\"id\":\"00000000-0000-0000-0000-000000000000\"},\"comment\":\"c\","        \
    "\"type\":\"server\",\"memory\":\"4294967296\",\"memory_policy\":{\"guaranteed\":"             \
    "\"4294967296\",\"max\":\"17179869184\",\"ballooning\":\"true\"},\"cpu\":{\"topology\":{"      \
    "\"sockets\":\"2\",\"cores\":\"1\",\"threads\":\"1\"}},\"cpu_shares\":\"0\","                  \
    "\"os\":{\"type\":\"rhel_8x64\",\"boot\":{\"devices\":{\"device\":[\"hd\",\"network\"]}}},"    \
    "\"high_availability\":{\"enabled\":\"true\",\"priority\":\"1\"},"                             \
    "\"virtio_scsi\":{\"enabled\":\"true\"},\"placement_policy\":{\"affinity\":\"migratable\"},"   \
    "\"custom_properties\":{\"custom_property\":[{\"name\":\"n\",\"value\":\"v\"}]},"              \
    "\"soundcard_enabled\":\"false\",\"stateless\":\"false\",\"usb\":{\"enabled\":\"true\"},"      \
    "\"time_zone\":{\"name\":\"Etc/GMT\"}"

static void vm_body_for_a_new_engine(void **state)
{
    (void)state;
    assert_json(vm_body(saved_vm, 5, 7),
                "{" BODY_COMMON
                ",\"bios\":{\"type\":\"q35_ovmf\",\"boot_menu\":{\"enabled\":\"false\"}},"
                "\"display\":{\"type\":\"spice\",\"monitors\":\"1\",\"disconnect_action_delay\":"
                "\"0\"},\"tpm_enabled\":\"false\",\"multi_queues_enabled\":\"true\","
                "\"virtio_scsi_multi_queues_enabled\":\"false\","
                "\"migration\":{\"auto_converge\":\"inherit\",\"encrypted\":\"inherit\"}}");
}

static void vm_body_for_an_old_engine_names_no_newer_member(void **state)
{
    (void)state;
    assert_json(vm_body(saved_vm, 2, 0),
                "{" BODY_COMMON ",\"bios\":{\"boot_menu\":{\"enabled\":\"false\"}},"
                "\"display\":{\"type\":\"spice\",\"monitors\":\"1\"},"
                "\"migration\":{\"auto_converge\":\"inherit\"}}");
}

static void vm_body_avoids_what_an_engine_refuses(void **state)
{
    (void)state;
    json_auto_t *body = vm_body("{\"memory\":\"1024\",\"memory_policy\":{\"guaranteed\":\"2048\","
                                "\"max\":\"512\"},\"bios\":{\"type\":\"cluster_default\"}}",
                                3, 0);
    assert_int_equal(json_object_size(member_object(body, "memory_policy")), 0);
    assert_null(member_str(member_object(body, "bios"), "type"));
    json_auto_t *empty = vm_body("{}", 5, 0);
    assert_int_equal(json_object_size(empty), 4);
    json_auto_t *odd =
        vm_body("{\"memory\":[1],\"cpu\":5,\"os\":{\"boot\":{\"devices\":{\"device\":"
                "[1,{}]}}},\"custom_properties\":{\"custom_property\":[{},3]}}",
                5, 0);
    assert_int_equal(json_object_size(odd), 4);
}

static void import_body_regenerates_ids(void **state)
{
    (void)state;
    assert_json(
        ovirt_vm_import_body(
            "<x/>", &(struct ovirt_vm_new){.name = "n", .cluster_id = ID2, .description = "d"}),
        "{\"name\":\"n\",\"description\":\"d\",\"cluster\":{\"id\":\"" ID2
        "\"},\"initialization\":{\"configuration\":{\"type\":\"ovf\",\"data\":\"<x/>\"},"
        "\"regenerate_ids\":\"true\"}}");
}

/* --- NICs ------------------------------------------------------------------------------------ */
static void nic_bodies(void **state)
{
    (void)state;
    json_auto_t *nic = parse("{\"id\":\"x\",\"name\":\"nic1\",\"interface\":\"virtio\",\"linked\":"
                             "\"false\",\"plugged\":\"true\",\"mac\":{\"address\":\"56:6f\"},"
                             "\"synced\":\"true\",\"vnic_profile\":{\"id\":\"old\"}}");
    assert_json(ovirt_nic_body(nic, ID1, false, true),
                "{\"name\":\"nic1\",\"interface\":\"virtio\",\"linked\":\"false\",\"plugged\":"
                "\"false\",\"mac\":{\"address\":\"56:6f\"},\"vnic_profile\":{\"id\":\"" ID1 "\"}}");
    assert_json(ovirt_nic_body(nic, NULL, true, false),
                "{\"name\":\"nic1\",\"interface\":\"virtio\",\"linked\":\"false\",\"plugged\":"
                "\"true\"}");
}

static void vnic_profiles_are_found_by_id_then_by_name(void **state)
{
    (void)state;
    json_auto_t *profiles = parse("{\"vnic_profile\":["
                                  "{\"id\":\"p1\",\"name\":\"lan\",\"network\":{\"id\":\"n1\"}},"
                                  "{\"id\":\"p2\",\"name\":\"lan\",\"network\":{\"id\":\"n2\"}},"
                                  "{\"id\":\"p3\",\"name\":\"dmz\",\"network\":{\"id\":\"n3\"}}]}");
    json_auto_t *networks =
        parse("{\"network\":[{\"id\":\"n1\",\"name\":\"lan\",\"data_center\":{\"id\":\"d1\"}},"
              "{\"id\":\"n2\",\"name\":\"lan\",\"data_center\":{\"id\":\"d2\"}},"
              "{\"id\":\"n3\",\"name\":\"dmz\",\"data_center\":{\"id\":\"d1\"}}]}");
    static const struct {
        const char *saved, *datacenter, *found;
    } cases[] = {
        {"{\"id\":\"p3\"}", "d1", "p3"},
        {"{\"id\":\"gone\",\"name\":\"lan\",\"network\":{\"name\":\"lan\"}}", "d2", "p2"},
        {"{\"id\":\"gone\",\"name\":\"lan\",\"network\":{\"name\":\"lan\"}}", NULL, "p1"},
        {"{\"id\":\"gone\",\"name\":\"lan\"}", "d1", "p1"},
        {"{\"id\":\"gone\",\"name\":\"lan\",\"network\":{\"name\":\"dmz\"}}", "d1", NULL},
        {"{\"id\":\"gone\",\"name\":\"dmz\",\"network\":{\"name\":\"dmz\"}}", "d2", NULL},
        {"{\"id\":\"gone\"}", "d1", NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        json_auto_t *saved = parse(cases[i].saved);
        const char *found = ovirt_nic_find_profile(profiles, networks, saved, cases[i].datacenter);
        if (cases[i].found)
            assert_string_equal(found, cases[i].found);
        else
            assert_null(found);
    }
}

static void search_terms_are_quoted(void **state)
{
    (void)state;
    SCOPED_FREE char *term = ovirt_vm_search_term("name", "web 01*");
    assert_string_equal(term, "name=\"web 01*\"");
    assert_null(ovirt_vm_search_term("name", "a\" or name=\"b"));
    assert_null(ovirt_vm_search_term("name", "a\\"));
    assert_null(ovirt_vm_search_term("name", "a\nb"));
    assert_null(ovirt_vm_search_term("name", ""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(snapshot_is_without_memory_and_of_the_named_disks),
        cmocka_unit_test(attaching_a_snapshot_disk_names_the_snapshot),
        cmocka_unit_test(attaching_a_disk_says_everything),
        cmocka_unit_test(disk_body_by_format),
        cmocka_unit_test(disk_spec_fits_the_kind_of_storage),
        cmocka_unit_test(disks_are_judged),
        cmocka_unit_test(disk_members_are_read),
        cmocka_unit_test(vm_body_for_a_new_engine),
        cmocka_unit_test(vm_body_for_an_old_engine_names_no_newer_member),
        cmocka_unit_test(vm_body_avoids_what_an_engine_refuses),
        cmocka_unit_test(import_body_regenerates_ids),
        cmocka_unit_test(nic_bodies),
        cmocka_unit_test(vnic_profiles_are_found_by_id_then_by_name),
        cmocka_unit_test(search_terms_are_quoted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
