/* SPDX-License-Identifier: Apache-2.0 */
/* VMs: how they look, which are listed, their configuration. */
#include "tests/sandbox/engine/vms.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "tests/sandbox/engine/json_out.h"
#include "tests/sandbox/engine/listing.h"
#include "tests/sandbox/engine/ovf.h"
#include "tests/sandbox/engine/route.h"
#include "tests/sandbox/engine/views.h"

/* The members of VmBase that a client sets and reads back. */
static const char *const config_members[] = {
    "description",
    "comment",
    "bios",
    "console",
    "cpu",
    "cpu_pinning_policy",
    "auto_pinning_policy",
    "cpu_shares",
    "custom_compatibility_version",
    "custom_cpu_model",
    "custom_emulated_machine",
    "custom_properties",
    "delete_protected",
    "display",
    "high_availability",
    "io",
    "lease",
    "memory",
    "memory_policy",
    "migration",
    "migration_downtime",
    "multi_queues_enabled",
    "numa_tune_mode",
    "os",
    "placement_policy",
    "rng_device",
    "serial_number",
    "soundcard_enabled",
    "sso",
    "start_paused",
    "stateless",
    "storage_error_resume_behaviour",
    "time_zone",
    "tpm_enabled",
    "tunnel_migration",
    "type",
    "usb",
    "virtio_scsi",
    "virtio_scsi_multi_queues",
    "virtio_scsi_multi_queues_enabled",
};

/* Shown with all_content only. */
static const char *const expensive_members[] = {"console", "virtio_scsi", "soundcard_enabled",
                                                "rng_device", "tpm_enabled"};

json_t *vms_default_config(uint64_t memory_bytes)
{
    json_t *c = json_pack(
        "{s:{s:s, s:{s:s}}, s:{s:{s:s, s:s, s:s}, s:s}, s:{s:s, s:{s:{s:[s]}}}, s:s, s:s, s:s}",
        "bios", "type", "q35_sea_bios", "boot_menu", "enabled", "false", "cpu", "topology",
        "sockets", "1", "cores", "1", "threads", "1", "architecture", "x86_64", "os", "type",
        "other", "boot", "devices", "device", "hd", "type", "server", "cpu_shares", "0",
        "storage_error_resume_behaviour", "auto_resume");
    json_t *policy = json_object();
    out_u64(c, "memory", memory_bytes);
    out_u64(policy, "guaranteed", memory_bytes);
    out_u64(policy, "max", memory_bytes * 4);
    out_bool(policy, "ballooning", true);
    json_object_set_new(c, "memory_policy", policy);
    json_t *more = json_pack(
        "{s:{s:s,s:s}, s:{s:s,s:s,s:s,s:s}, s:{s:s}, s:{s:s}, s:{s:s}, s:{s:s}, s:{s:s}, "
        "s:{s:s}, s:s, s:s, s:s, s:s, s:{s:s,s:s}}",
        "high_availability", "enabled", "false", "priority", "1", "display", "type", "vnc",
        "monitors", "1", "allow_override", "false", "smartcard_enabled", "false", "io", "threads",
        "1", "usb", "enabled", "false", "time_zone", "name", "Etc/GMT", "placement_policy",
        "affinity", "migratable", "console", "enabled", "false", "virtio_scsi", "enabled", "true",
        "soundcard_enabled", "false", "multi_queues_enabled", "true", "stateless", "false",
        "start_paused", "false", "migration", "auto_converge", "inherit", "compressed", "inherit");
    json_object_update(c, more);
    json_decref(more);
    return c;
}

void vms_apply_config(struct vm *vm, const json_t *body)
{
    for (size_t i = 0; i < ARRAY_LEN(config_members); i++) {
        json_t *value = json_object_get(body, config_members[i]);
        if (!value)
            continue;
        json_t *old = json_object_get(vm->config, config_members[i]);
        json_t *copy = json_deep_copy(value);
        /* A partly given structure changes only what it names. */
        if (json_is_object(old) && strcmp(config_members[i], "custom_properties") != 0) {
            json_object_update_recursive(old, copy);
            json_decref(copy);
        } else {
            json_object_set_new(vm->config, config_members[i], copy);
        }
    }
    vm->stateless = in_bool(vm->config, "stateless", false);
    vm->delete_protected = in_bool(vm->config, "delete_protected", false);
}

struct vm *vms_new(struct engine *e, const char *id, const char *name, struct cluster *cluster)
{
    struct vm *vm = ALLOC_NEW(struct vm);
    if (id)
        (void)snprintf(vm->id, sizeof vm->id, "%s", id);
    else
        id_new(vm->id);
    vm->name = xstrdup(name);
    vm->cluster = cluster;
    vm->config = vms_default_config(UINT64_C(1) << 30);
    vm->created_ms = vm->stopped_ms = engine_now_ms(e);
    struct snapshot *active = ALLOC_NEW(struct snapshot);
    id_new(active->id);
    active->description = xstrdup("Active VM");
    active->active = true;
    active->date_ms = vm->created_ms;
    VEC_ADD(&vm->snapshots, active);
    return vm;
}

struct host *vms_pick_host(const struct engine *e, const struct vm *vm)
{
    struct host *best = NULL, *h;
    size_t best_load = 0;
    VEC_EACH(&e->model.hosts, h)
    {
        size_t load = 0;
        const struct vm *other;
        VEC_EACH(&e->model.vms, other)
        load += other->host == h;
        if (h->cluster == vm->cluster && (!best || load < best_load)) {
            best = h;
            best_load = load;
        }
    }
    return best;
}

bool vms_check_lock(struct request *r, const struct vm *vm, const char *verb)
{
    if (vm->lock == VM_LOCK_SNAPSHOT_CREATE)
        reply_refused(r, 409, "Cannot %s. Snapshot is currently being created for VM %s.", verb,
                      vm->name);
    else if (vm->lock == VM_LOCK_SNAPSHOT_OTHER)
        reply_refused(r, 409,
                      "Cannot %s. The VM is performing an operation on a Snapshot. Please wait for "
                      "the operation to finish, and try again.",
                      verb);
    else if (vm->status == VM_IMAGE_LOCKED)
        reply_refused(r, 409, "Cannot %s: VM is locked. Please try again in a few minutes.", verb);
    else if (vm->lock != VM_LOCK_FREE)
        reply_refused(r, 409,
                      "Cannot %s. Related operation is currently in progress. Please try again "
                      "later.",
                      verb);
    return r->status == 0;
}

struct attachment *vms_attach(struct vm *vm, struct disk *disk, const char *interface,
                              bool bootable, bool active)
{
    struct attachment *a = ALLOC_NEW(struct attachment);
    a->disk = disk;
    (void)snprintf(a->interface, sizeof a->interface, "%s", interface);
    a->bootable = bootable;
    a->active = active;
    VEC_ADD(&vm->attachments, a);
    return a;
}

/* --- The view --------------------------------------------------------------------------------- */

json_t *vm_config_view(const struct engine *e, const struct vm *vm, bool all_content)
{
    (void)e;
    json_t *o = json_deep_copy(vm->config);
    for (size_t i = 0; !all_content && i < ARRAY_LEN(expensive_members); i++)
        (void)json_object_del(o, expensive_members[i]);
    return o;
}

static void add_runtime(json_t *o, const struct request *r, const struct vm *vm)
{
    out_str(o, "status", vm_status_name(vm->status));
    if (vm->status == VM_PAUSED)
        out_str(o, "status_detail", "none");
    if (vm->host && !r->filter)
        out_ref(o, "host", vm->host->id, "hosts/%s", vm->host->id);
    if (vm->started_ms && vm_is_running(vm))
        out_date(o, "start_time", vm->started_ms);
    if (!vm_is_running(vm))
        out_date(o, "stop_time", vm->stopped_ms);
    if (vm->agent && vm->status == VM_UP) {
        SCOPED_FREE char *fqdn = xasprintf("%s.example", vm->name);
        out_str(o, "fqdn", fqdn);
        json_object_set_new(o, "guest_operating_system",
                            json_pack("{s:s, s:s, s:s}", "architecture", "x86_64", "distribution",
                                      "Debian GNU/Linux", "family", "Linux"));
    }
}

json_t *vm_view(const struct engine *e, const struct request *r, const struct vm *vm)
{
    static const char *const links[] = {"applications",
                                        "cdroms",
                                        "diskattachments",
                                        "graphicsconsoles",
                                        "hostdevices",
                                        "nics",
                                        "numanodes",
                                        "permissions",
                                        "reporteddevices",
                                        "sessions",
                                        "snapshots",
                                        "statistics",
                                        "tags",
                                        "watchdogs",
                                        "affinitylabels",
                                        "katelloerrata",
                                        "checkpoints",
                                        "backups"};
    static const char *const actions[] = {
        "start",           "stop",           "shutdown", "suspend", "freezefilesystems",
        "thawfilesystems", "previewsnapshot"};
    json_t *o = out_entity(vm->id, "vms/%s", vm->id);
    json_t *config = vm_config_view(e, vm, r->all_content);
    json_object_update(o, config);
    json_decref(config);
    if (r->filter)
        (void)json_object_del(o, "placement_policy");
    out_str(o, "name", vm->name);
    out_date(o, "creation_time", vm->created_ms);
    out_str(o, "origin", "ovirt");
    out_bool(o, "has_illegal_images", false);
    out_bool(o, "next_run_configuration_exists", false);
    out_bool(o, "run_once", false);
    add_runtime(o, r, vm);
    out_ref(o, "cluster", vm->cluster->id, "clusters/%s", vm->cluster->id);
    out_ref(o, "template", MODEL_BLANK_TEMPLATE_ID, "templates/%s", MODEL_BLANK_TEMPLATE_ID);
    out_ref(o, "original_template", MODEL_BLANK_TEMPLATE_ID, "templates/%s",
            MODEL_BLANK_TEMPLATE_ID);
    if (r->all_content) {
        SCOPED_FREE char *ovf = ovf_write(e, vm, vm_active_snapshot(vm)->id);
        json_object_set_new(
            o, "initialization",
            json_pack("{s:{s:s, s:s}}", "configuration", "type", "ovf", "data", ovf));
    }
    for (size_t i = 0; i < ARRAY_LEN(links); i++)
        out_link(o, links[i]);
    for (size_t i = 0; i < ARRAY_LEN(actions); i++)
        out_action(o, actions[i]);
    return o;
}

/* --- follow ----------------------------------------------------------------------------------- */

static json_t *follow_attachments(const struct engine *e, const struct vm *vm, bool with_disks)
{
    json_t *list = json_array();
    const struct attachment *a;
    VEC_EACH(&vm->attachments, a)
    json_array_append_new(list, attachment_view(e, vm, a, with_disks));
    return out_collection("disk_attachment", list);
}

static json_t *follow_nics(const struct vm *vm)
{
    json_t *list = json_array();
    const struct nic *n;
    VEC_EACH(&vm->nics, n)
    json_array_append_new(list, nic_view(vm, n));
    return out_collection("nic", list);
}

static json_t *follow_tags(const struct vm *vm)
{
    json_t *list = json_array();
    const struct tag *t;
    VEC_EACH(&vm->tags, t)
    json_array_append_new(list, tag_view(t));
    return out_collection("tag", list);
}

/* Puts one followed link into the view; false for a path that is not a link. */
static bool follow_one(const struct engine *e, const struct vm *vm, json_t *o, const char *path)
{
    static const char *const empty[] = {"cdroms",       "watchdogs",       "graphics_consoles",
                                        "numa_nodes",   "host_devices",    "affinity_labels",
                                        "applications", "sessions",        "permissions",
                                        "statistics",   "reported_devices"};
    if (!strcmp(path, "nics"))
        json_object_set_new(o, "nics", follow_nics(vm));
    else if (!strcmp(path, "tags"))
        json_object_set_new(o, "tags", follow_tags(vm));
    else if (!strcmp(path, "disk_attachments.disk"))
        json_object_set_new(o, "disk_attachments", follow_attachments(e, vm, true));
    else if (!strcmp(path, "disk_attachments")) {
        if (!json_object_get(o, "disk_attachments"))
            json_object_set_new(o, "disk_attachments", follow_attachments(e, vm, false));
    } else {
        bool known = false;
        for (size_t i = 0; i < ARRAY_LEN(empty); i++)
            known = known || !strcmp(path, empty[i]);
        if (known)
            json_object_set_new(o, path, json_object());
        return known;
    }
    return true;
}

static bool follow(struct engine *e, struct request *r, const struct vm *vm, json_t *o)
{
    const char *at = request_param(r, "follow");
    while (at && *at && engine_since(e, 4, 2, 0)) {
        size_t len = strcspn(at, ",");
        SCOPED_FREE char *path = xstrndup(at, len);
        if (!follow_one(e, vm, o, path)) {
            reply_fault(r, 500, "Operation Failed", "[Follow: %s is not a link.]", path);
            return false;
        }
        at += len + (at[len] == ',');
    }
    return true;
}

/* --- GET -------------------------------------------------------------------------------------- */

static bool vm_field(const void *object, const char *field, search_found_fn found, void *arg)
{
    const struct vm *vm = object;
    const struct listing_value v[] = {
        {"name", vm->name},
        {"id", vm->id},
        {"status", vm_status_name(vm->status)},
        {"cluster", vm->cluster->name},
        {"datacenter", vm->cluster->dc->name},
        {"host", vm->host ? vm->host->name : NULL},
        {"description", in_str(vm->config, "description")},
        {"comment", in_str(vm->config, "comment")},
        {"os", in_str(json_object_get(vm->config, "os"), "type")},
        {"type", in_str(vm->config, "type")},
        {"architecture", in_str(json_object_get(vm->config, "cpu"), "architecture")},
    };
    if (strcasecmp(field, "tag") != 0)
        return listing_found(v, ARRAY_LEN(v), field, found, arg);
    const struct tag *t;
    VEC_EACH(&vm->tags, t)
    for (const struct tag *above = t; above; above = above->parent)
        if (above->parent && !found(arg, above->name))
            return true;
    return true;
}

static json_t *vm_show(struct engine *e, struct request *r, const void *object)
{
    const struct vm *vm = object;
    json_t *o = vm_view(e, r, vm);
    if (follow(e, r, vm, o))
        return o;
    json_decref(o);
    return NULL;
}

void vms_list(struct engine *e, struct request *r)
{
    static const char *const fields[] = {
        "name",        "id",      "status", "tag",  "cluster",      "host", "datacenter",
        "description", "comment", "os",     "type", "architecture", NULL};
    static const struct listing l = {"vm", fields, vm_field, vm_show};
    listing_reply(e, r, &l, LISTING_OF(e->model.vms));
}

void vms_get(struct engine *e, struct request *r)
{
    const struct vm *vm = model_vm(&e->model, r->ids[0]);
    if (!vm) {
        reply_empty(r, 404);
        return;
    }
    json_t *o = vm_show(e, r, vm);
    if (o)
        reply_json(r, 200, o);
}

/* What the guest agent reports: one device per plugged NIC. */
void vm_devices_list(struct engine *e, struct request *r)
{
    const struct vm *vm = model_vm(&e->model, r->ids[0]);
    if (!vm) {
        reply_empty(r, 404);
        return;
    }
    json_t *list = json_array();
    for (size_t i = 0; vm->agent && vm->status == VM_UP && i < vm->nics.len; i++) {
        const struct nic *n = vm->nics.at[i];
        json_t *o = out_entity(n->id, "vms/%s/reporteddevices/%s", vm->id, n->id);
        SCOPED_FREE char *name = xasprintf("eth%zu", i);
        out_str(o, "name", name);
        out_str(o, "type", "network");
        json_object_set_new(o, "mac", json_pack("{s:s}", "address", n->mac));
        json_array_append_new(list, o);
    }
    reply_json(r, 200, out_collection("reported_device", list));
}
