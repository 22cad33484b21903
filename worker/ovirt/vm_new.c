/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making a VM from a saved description or an OVF. The saved description is never echoed: an unknown
 * or read-only member would be a 400 for the whole request, so the body is built from the table
 * below.
 */
#include <string.h>

#include "worker/ovirt/member.h"
#include "worker/ovirt/ovf.h"
#include "worker/ovirt/vm.h"
#include "worker/ovirt/vm_impl.h"

#define BLANK_TEMPLATE "00000000-0000-0000-0000-000000000000"
enum { MAX_DEPTH = 4, MAX_ITEMS = 64 };

/* A writable member, by its path, and the first engine version that knows it. Scalars only; lists
 * have functions of their own. What depends on another object's id (host pinning, lease, quota,
 * profiles, icons) is left out: it may not exist where the VM is restored. */
static const struct writable {
    const char *path;
    int minor, build; /* of version 4 */
} writables[] = {
    {"comment", 0, 0},
    {"type", 0, 0},
    {"memory", 0, 0},
    {"memory_policy.guaranteed", 0, 0},
    {"memory_policy.max", 1, 0},
    {"memory_policy.ballooning", 0, 0},
    {"cpu.topology.sockets", 0, 0},
    {"cpu.topology.cores", 0, 0},
    {"cpu.topology.threads", 0, 0},
    {"cpu.mode", 0, 0},
    {"cpu_shares", 0, 0},
    {"custom_cpu_model", 0, 0},
    {"custom_emulated_machine", 0, 0},
    {"custom_compatibility_version.major", 0, 0},
    {"custom_compatibility_version.minor", 0, 0},
    {"bios.type", 3, 0},
    {"bios.boot_menu.enabled", 0, 0},
    {"os.type", 0, 0},
    {"os.kernel", 0, 0},
    {"os.initrd", 0, 0},
    {"os.cmdline", 0, 0},
    {"display.type", 0, 0},
    {"display.monitors", 0, 0},
    {"display.allow_override", 0, 0},
    {"display.copy_paste_enabled", 0, 0},
    {"display.file_transfer_enabled", 0, 0},
    {"display.smartcard_enabled", 0, 0},
    {"display.disconnect_action", 0, 0},
    {"display.disconnect_action_delay", 5, 0},
    {"display.keyboard_layout", 0, 0},
    {"console.enabled", 0, 0},
    {"high_availability.enabled", 0, 0},
    {"high_availability.priority", 0, 0},
    {"io.threads", 0, 0},
    {"migration.auto_converge", 0, 0},
    {"migration.compressed", 0, 0},
    {"migration.encrypted", 4, 0},
    {"migration_downtime", 0, 0},
    {"multi_queues_enabled", 2, 5},
    {"placement_policy.affinity", 0, 0},
    {"rng_device.source", 0, 0},
    {"rng_device.rate.bytes", 0, 0},
    {"rng_device.rate.period", 0, 0},
    {"serial_number.policy", 0, 0},
    {"serial_number.value", 0, 0},
    {"soundcard_enabled", 0, 0},
    {"start_paused", 0, 0},
    {"stateless", 0, 0},
    {"storage_error_resume_behaviour", 2, 0},
    {"time_zone.name", 0, 0},
    {"tpm_enabled", 4, 5},
    {"usb.enabled", 0, 0},
    {"virtio_scsi.enabled", 0, 0},
    {"virtio_scsi_multi_queues_enabled", 4, 5},
    {"virtio_scsi_multi_queues", 4, 8},
};

/* The engine takes strings for all scalars, the shape it gives; NULL for anything else. */
static json_t *scalar_text(const json_t *v)
{
    if (json_is_string(v))
        return json_string(json_string_value(v));
    if (json_is_boolean(v))
        return json_string(json_is_true(v) ? "true" : "false");
    if (!json_is_integer(v))
        return NULL;
    SCOPED_FREE char *text = xasprintf("%lld", (long long)json_integer_value(v));
    return json_string(text);
}

static void copy_member(const json_t *from, json_t *to, const char *path)
{
    char name[64];
    for (int depth = 0; depth < MAX_DEPTH; depth++) {
        const char *dot = strchrnul(path, '.');
        size_t len = (size_t)(dot - path);
        memcpy(name, path, len);
        name[len] = '\0';
        const json_t *value = json_object_get(from, name);
        if (*dot == '\0') {
            json_t *text = scalar_text(value);
            if (text)
                json_object_set_new(to, name, text);
            return;
        }
        if (!json_is_object(value))
            return;
        if (!json_object_get(to, name))
            json_object_set_new(to, name, json_object());
        from = value;
        to = json_object_get(to, name);
        path = dot + 1;
    }
}

static json_t *make_object(json_t *in, const char *key)
{
    if (!json_object_get(in, key))
        json_object_set_new(in, key, json_object());
    return json_object_get(in, key);
}

static void copy_boot_devices(const json_t *saved, json_t *body)
{
    const json_t *boot = member_object(member_object(saved, "os"), "boot");
    const json_t *devices = member_list(boot, "devices", "device");
    json_t *list = json_array();
    for (size_t i = 0; i < json_array_size(devices) && i < MAX_ITEMS; i++) {
        if (json_is_string(json_array_get(devices, i)))
            json_array_append(list, json_array_get(devices, i));
    }
    if (json_array_size(list) > 0)
        json_object_set(make_object(make_object(make_object(body, "os"), "boot"), "devices"),
                        "device", list);
    json_decref(list);
}

static void copy_custom_properties(const json_t *saved, json_t *body)
{
    const json_t *from = member_list(saved, "custom_properties", "custom_property");
    json_t *list = json_array();
    for (size_t i = 0; i < json_array_size(from) && i < MAX_ITEMS; i++) {
        const json_t *property = json_array_get(from, i);
        const char *name = member_str(property, "name"), *value = member_str(property, "value");
        if (name && value)
            json_array_append_new(list, json_pack("{s:s, s:s}", "name", name, "value", value));
    }
    if (json_array_size(list) > 0)
        json_object_set(make_object(body, "custom_properties"), "custom_property", list);
    json_decref(list);
}

/* Objects that became empty, and combinations that the engine refuses. */
static void tidy(json_t *body, const struct engine_version *version)
{
    void *next;
    const char *key;
    json_t *value;
    json_object_foreach_safe(body, next, key, value)
    {
        if (json_is_object(value) && json_object_size(value) == 0)
            json_object_del(body, key);
    }
    uint64_t memory = member_u64_or(body, "memory", 0);
    json_t *policy = member_object(body, "memory_policy");
    if (member_u64_or(policy, "guaranteed", 0) > memory)
        json_object_del(policy, "guaranteed");
    if (member_u64_or(policy, "max", memory) < memory)
        json_object_del(policy, "max");
    json_t *bios = member_object(body, "bios");
    const char *type = member_str(bios, "type");
    if (type && strcmp(type, "cluster_default") == 0 && engine_version_cmp(version, 4, 4, 0) < 0)
        json_object_del(bios, "type");
}

json_t *ovirt_vm_body(const json_t *saved, const struct ovirt_vm_new *as,
                      const struct engine_version *version)
{
    json_t *body =
        json_pack("{s:s, s:s, s:{s:s}, s:{s:s}}", "name", as->name, "description", as->description,
                  "cluster", "id", as->cluster_id, "template", "id", BLANK_TEMPLATE);
    if (!body)
        return NULL;
    for (size_t i = 0; i < ARRAY_LEN(writables); i++) {
        const struct writable *w = &writables[i];
        if (engine_version_cmp(version, 4, w->minor, w->build) >= 0)
            copy_member(saved, body, w->path);
    }
    copy_boot_devices(saved, body);
    copy_custom_properties(saved, body);
    tidy(body, version);
    return body;
}

json_t *ovirt_vm_import_body(const char *ovf, const struct ovirt_vm_new *as)
{
    return json_pack("{s:s, s:s, s:{s:s}, s:{s:{s:s, s:s}, s:s}}", "name", as->name, "description",
                     as->description, "cluster", "id", as->cluster_id, "initialization",
                     "configuration", "type", "ovf", "data", ovf, "regenerate_ids", "true");
}

/* --- Sending it ------------------------------------------------------------------------------ */
struct new_probe {
    const struct ovirt_vm_new *as;
    char *id;
};

static bool match_new(void *ctx, const struct ovirt_vm_row *row, struct err *err)
{
    (void)err;
    struct new_probe *p = ctx;
    if (!p->id && row->description && strcmp(row->description, p->as->description) == 0)
        p->id = xstrdup(row->id);
    return true;
}

/* Ours = our name and our marker as its description. */
static bool probe_new(struct engine_session *s, void *ctx, bool *ret_done, json_t **ret_object,
                      struct err *err)
{
    struct new_probe *p = ctx;
    struct ovirt_vm_search what = {.name = p->as->name};
    if (!ovirt_vm_search(s, &what, match_new, p, err))
        return false;
    *ret_done = p->id != NULL;
    if (p->id)
        *ret_object = json_pack("{s:s}", "id", p->id);
    return true;
}

static char *create(struct engine_session *s, const json_t *body, const struct ovirt_vm_new *as,
                    struct err *err)
{
    if (!body) {
        err_set(err, ERR_BAD_ARGUMENT, 0, "a name of the new VM is not UTF-8");
        return NULL;
    }
    struct new_probe probe = {.as = as};
    struct engine_mutation m = {
        .method = ENGINE_POST,
        .path = "vms",
        .body = body,
        .probe = probe_new,
        .probe_ctx = &probe,
    };
    json_auto_t *answer = NULL;
    bool ok = engine_mutate(s, &m, &answer, err);
    free(probe.id);
    if (!ok) {
        err_wrap(err, "create VM '%s'", as->name);
        return NULL;
    }
    const char *id = member_str(answer, "id");
    if (!engine_check_id("VM", id, err)) {
        err->code = ERR_ENGINE_PROTOCOL;
        return NULL;
    }
    return xstrdup(id);
}

static bool check_new(const struct ovirt_vm_new *as, struct err *err)
{
    if (!as->name || as->name[0] == '\0' || strlen(as->name) > 255)
        return err_set(err, ERR_BAD_ARGUMENT, 0, "a new VM needs a name of 1 to 255 bytes");
    if (!as->description || as->description[0] == '\0')
        return err_set(err, ERR_BAD_ARGUMENT, 0, "a new VM needs a description that marks it");
    return engine_check_id("cluster", as->cluster_id, err);
}

char *ovirt_vm_create_from_json(struct engine_session *s, const json_t *saved,
                                const struct ovirt_vm_new *as, struct err *err)
{
    struct engine_version version;
    if (!check_new(as, err) || !engine_read_version(s, &version, err))
        return NULL;
    if (!json_is_object(saved)) {
        err_set(err, ERR_BAD_MESSAGE, 0, "the saved description of the VM is not an object");
        return NULL;
    }
    json_auto_t *body = ovirt_vm_body(saved, as, &version);
    return create(s, body, as, err);
}

char *ovirt_vm_create_from_ovf(struct engine_session *s, struct slice ovf,
                               const struct ovirt_vm_new *as, struct err *err)
{
    if (!check_new(as, err))
        return NULL;
    SCOPED_FREE char *shell =
        ovf_rewrite(ovf, &(struct ovf_as){.name = as->name, .description = as->description}, err);
    if (!shell)
        return NULL;
    json_auto_t *body = ovirt_vm_import_body(shell, as);
    return create(s, body, as, err);
}

json_t *ovirt_vm_clone_body(const char *snapshot_id, const struct ovirt_vm_new *as)
{
    return json_pack("{s:s, s:s, s:{s:s}, s:{s:[{s:s}]}}", "name", as->name, "description",
                     as->description, "cluster", "id", as->cluster_id, "snapshots", "snapshot",
                     "id", snapshot_id);
}

char *ovirt_vm_create_from_snapshot(struct engine_session *s, const char *snapshot_id,
                                    const struct ovirt_vm_new *as, struct err *err)
{
    if (!check_new(as, err) || !engine_check_id("snapshot", snapshot_id, err))
        return NULL;
    json_auto_t *body = ovirt_vm_clone_body(snapshot_id, as);
    return create(s, body, as, err);
}
