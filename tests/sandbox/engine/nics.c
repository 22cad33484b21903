/* SPDX-License-Identifier: Apache-2.0 */
/* Network interfaces of VMs. */
#include <stdio.h>
#include <string.h>

#include "tests/sandbox/engine/json_out.h"
#include "tests/sandbox/engine/route.h"
#include "tests/sandbox/engine/views.h"
#include "tests/sandbox/engine/vms.h"

json_t *nic_view(const struct vm *vm, const struct nic *n)
{
    json_t *o = out_entity(n->id, "vms/%s/nics/%s", vm->id, n->id);
    out_str(o, "name", n->name);
    out_str(o, "interface", n->interface);
    out_bool(o, "linked", n->linked);
    out_bool(o, "plugged", n->plugged);
    out_bool(o, "synced", true);
    json_object_set_new(o, "mac", json_pack("{s:s}", "address", n->mac));
    if (n->profile)
        out_ref(o, "vnic_profile", n->profile->id, "vnicprofiles/%s", n->profile->id);
    out_ref(o, "vm", vm->id, "vms/%s", vm->id);
    return o;
}

static bool mac_in_use(const struct engine *e, const char *mac)
{
    const struct vm *vm;
    VEC_EACH(&e->model.vms, vm)
    {
        const struct nic *n;
        VEC_EACH(&vm->nics, n)
        if (!strcmp(n->mac, mac))
            return true;
    }
    return false;
}

/* A free address of the engine's pool. */
static void fresh_mac(const struct engine *e, char out[20])
{
    for (unsigned i = 1; i < 0xffffff; i++) {
        (void)snprintf(out, 20, "56:6f:a1:%02x:%02x:%02x", (i >> 16) & 0xff, (i >> 8) & 0xff,
                       i & 0xff);
        if (!mac_in_use(e, out))
            return;
    }
}

struct nic *vms_add_nic(struct engine *e, struct vm *vm, const char *name, const char *interface,
                        const char *mac, struct vnic_profile *profile)
{
    struct nic *n = ALLOC_NEW(struct nic);
    id_new(n->id);
    n->name = xstrdup(name);
    (void)snprintf(n->interface, sizeof n->interface, "%s", interface);
    if (mac)
        (void)snprintf(n->mac, sizeof n->mac, "%s", mac);
    else
        fresh_mac(e, n->mac);
    n->profile = profile;
    n->linked = n->plugged = true;
    VEC_ADD(&vm->nics, n);
    return n;
}

void nics_list(struct engine *e, struct request *r)
{
    const struct vm *vm = model_vm(&e->model, r->ids[0]);
    if (!vm) {
        reply_empty(r, 404);
        return;
    }
    json_t *list = json_array();
    const struct nic *n;
    VEC_EACH(&vm->nics, n)
    json_array_append_new(list, nic_view(vm, n));
    reply_json(r, 200, out_collection("nic", list));
}

/* The VM and NIC of the path; false: answered 404. */
static bool find(struct engine *e, struct request *r, struct vm **ret_vm, struct nic **ret_nic)
{
    *ret_vm = model_vm(&e->model, r->ids[0]);
    *ret_nic = *ret_vm ? vm_nic(*ret_vm, r->ids[1]) : NULL;
    if (!*ret_nic)
        reply_empty(r, 404);
    return *ret_nic != NULL;
}

void nics_get(struct engine *e, struct request *r)
{
    struct vm *vm;
    struct nic *n;
    if (find(e, r, &vm, &n))
        reply_json(r, 200, nic_view(vm, n));
}

static bool mac_is_valid(const char *mac)
{
    if (strlen(mac) != 17)
        return false;
    for (size_t i = 0; i < 17; i++)
        if (i % 3 == 2 ? mac[i] != ':' : !strchr("0123456789abcdefABCDEF", mac[i]))
            return false;
    return true;
}

/* The profile that the body names; false: refused. */
static bool read_profile(struct engine *e, struct request *r, const struct vm *vm,
                         struct vnic_profile **ret)
{
    const char *key = in_ref_any(r->body, "vnic_profile");
    *ret = key ? model_profile(&e->model, key) : NULL;
    if (key && !*ret) {
        reply_fault(r, 404, "Operation Failed", "Entity not found: %s", key);
        return false;
    }
    if (*ret && (*ret)->network->dc != vm->cluster->dc) {
        reply_refused(r, 409,
                      "Cannot add Interface. The network does not exist in the data "
                      "center of the VM.");
        return false;
    }
    return true;
}

static bool check_mac(struct engine *e, struct request *r, const char *mac, const char *own)
{
    if (!mac || (own && !strcasecmp(mac, own)))
        return true;
    if (!mac_is_valid(mac))
        reply_refused(r, 400, "Can not add Interface. MAC address %s is malformed.", mac);
    else if (mac_in_use(e, mac))
        reply_refused(r, 409, "Cannot add Interface. MAC Address %s, which is already in use.",
                      mac);
    return r->status == 0;
}

void nics_add(struct engine *e, struct request *r)
{
    struct vm *vm = model_vm(&e->model, r->ids[0]);
    const char *name = in_str(r->body, "name");
    const char *mac = in_str(json_object_get(r->body, "mac"), "address");
    const char *interface = in_str(r->body, "interface");
    struct vnic_profile *profile;
    if (!vm) {
        reply_empty(r, 404);
        return;
    }
    if (!name) {
        reply_incomplete(r, "Nic", "name", "add");
        return;
    }
    const struct nic *old;
    VEC_EACH(&vm->nics, old)
    if (!strcmp(old->name, name)) {
        reply_refused(r, 409, "Cannot add Interface. The Interface name is already in use.");
        return;
    }
    if (!read_profile(e, r, vm, &profile) || !check_mac(e, r, mac, NULL))
        return;
    struct nic *n = vms_add_nic(e, vm, name, interface ? interface : "virtio", mac, profile);
    n->linked = in_bool(r->body, "linked", true);
    n->plugged = in_bool(r->body, "plugged", true);
    json_t *o = nic_view(vm, n);
    reply_created(r, 201, in_str(o, "href"), o);
}

void nics_update(struct engine *e, struct request *r)
{
    struct vm *vm;
    struct nic *n;
    struct vnic_profile *profile;
    if (!find(e, r, &vm, &n) || !read_profile(e, r, vm, &profile))
        return;
    const char *mac = in_str(json_object_get(r->body, "mac"), "address");
    if (!check_mac(e, r, mac, n->mac))
        return;
    const char *name = in_str(r->body, "name"), *interface = in_str(r->body, "interface");
    if (name) {
        free(n->name);
        n->name = xstrdup(name);
    }
    if (interface)
        (void)snprintf(n->interface, sizeof n->interface, "%s", interface);
    if (mac)
        (void)snprintf(n->mac, sizeof n->mac, "%s", mac);
    if (json_object_get(r->body, "vnic_profile"))
        n->profile = profile;
    n->linked = in_bool(r->body, "linked", n->linked);
    n->plugged = in_bool(r->body, "plugged", n->plugged);
    reply_json(r, 200, nic_view(vm, n));
}

void nics_remove(struct engine *e, struct request *r)
{
    struct vm *vm;
    struct nic *n;
    if (!find(e, r, &vm, &n))
        return;
    if (vm_is_running(vm) && n->plugged) {
        reply_refused(r, 409,
                      "Cannot remove Interface. The VM Network Interface is plugged to a "
                      "running VM.");
        return;
    }
    VEC_REMOVE(&vm->nics, n);
    VEC_ADD(&e->model.dead_nics, n);
    reply_action_done(r);
}
