/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the engine sends, taken as hostile: fault bodies, disks, VM descriptions, OVFs. The first
 * byte chooses the reader.
 */
#include <assert.h>
#include <stdint.h>
#include <string.h>

#include <jansson.h>

#include "worker/ovirt/disk.h"
#include "worker/ovirt/engine_impl.h"
#include "worker/ovirt/fault.h"
#include "worker/ovirt/member.h"
#include "worker/ovirt/nic_impl.h"
#include "worker/ovirt/ovf.h"
#include "worker/ovirt/vm_impl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct ovirt_vm_new as = {
    .name = "n", .cluster_id = "11111111-1111-4111-8111-111111111111", .description = "d"};

static void read_fault(struct slice body)
{
    static const long statuses[] = {200, 400, 401, 403, 404, 409, 500, 503};
    for (size_t i = 0; i < ARRAY_LEN(statuses); i++) {
        struct fault f;
        fault_classify(statuses[i], "application/json", body, &f);
        assert(memchr(f.text, '\0', sizeof f.text) && !strchr(f.text, '\n'));
        assert((f.kind == FAULT_NONE) == (f.code == ERR_NONE));
    }
}

static void read_disks(const json_t *json)
{
    struct err err = ERR_INIT;
    struct ovirt_disk disk;
    if (ovirt_disk_of_json(json, json, &disk, &err)) {
        assert(ovirt_disk_class_why(disk.fit));
        ovirt_disk_done(&disk);
    }
    err_clear(&err);
    char name[] = "n";
    struct ovirt_vm vm = {.name = name, .raw = json_deep_copy(json)};
    struct ovirt_disks disks;
    if (ovirt_vm_disks(&vm, &disks, &err))
        ovirt_disks_done(&disks);
    json_decref(vm.raw);
}

/* A body for any version is JSON that names what we asked for and never the original. */
static void build_bodies(const json_t *saved)
{
    for (int minor = 2; minor <= 6; minor++) {
        struct engine_version version = {.major = 4, .minor = minor};
        json_t *body = ovirt_vm_body(saved, &as, &version);
        assert(body);
        assert(strcmp(member_str(body, "name"), "n") == 0);
        assert(!json_object_get(body, "id") && !json_object_get(body, "href") &&
               !json_object_get(body, "status") && !json_object_get(body, "delete_protected"));
        json_decref(body);
    }
    const json_t *nic = json_array_get(member_list(saved, "nics", "nic"), 0);
    if (member_str(nic, "name"))
        json_decref(ovirt_nic_body(nic, NULL, true, true));
    (void)ovirt_nic_find_profile(saved, saved, member_object(nic, "vnic_profile"), NULL);
}

static void read_json(struct slice text)
{
    json_t *json = json_loadb(text.data, text.len, 0, NULL);
    struct err err = ERR_INIT;
    struct engine_version version;
    read_disks(json);
    build_bodies(json);
    (void)engine_version_of_json(json, &version, &err);
    (void)member_time_ms_or(json, "date", 0);
    (void)member_u64_or(json, "memory", 0);
    (void)member_bool_or(json, "active", false);
    json_decref(json);
}

/* What was rewritten once stays as it is, and names no disk. */
static void rewrite_ovf(struct slice text)
{
    struct err err = ERR_INIT;
    struct ovf_as name = {.name = "n", .description = "d"};
    char *once = ovf_rewrite(text, &name, &err);
    if (!once)
        return;
    char *twice = ovf_rewrite((struct slice){.data = once, .len = strlen(once)}, &name, &err);
    assert(twice);
    free(twice);
    free(once);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    struct slice rest = {.data = data + 1, .len = size - 1};
    switch (data[0]) {
    case 'f':
        read_fault(rest);
        break;
    case 'o':
        rewrite_ovf(rest);
        break;
    default:
        read_json(rest);
        break;
    }
    return 0;
}
