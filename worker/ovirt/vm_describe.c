/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vm.json: the engine's description of a VM with the names beside the ids that mean nothing on
 * another engine.
 */
#include <string.h>

#include "worker/ovirt/member.h"
#include "worker/ovirt/vm.h"

/* The names of a collection, by id. */
struct names {
    const char *path, *element;
    json_t *list; /* the whole answer; NULL = not asked yet */
};

/* One object of the collection; NULL when it is not there. Borrowed. */
static json_t *object_of(struct engine_session *s, struct names *n, const char *id, bool *ret_ok,
                         struct err *err)
{
    *ret_ok = n->list || engine_get(s, n->path, NULL, &n->list, err);
    if (!*ret_ok || !id)
        return NULL;
    size_t i;
    json_t *o;
    json_array_foreach (member_list(n->list, NULL, n->element), i, o) {
        const char *found = member_str(o, "id");
        if (found && strcmp(found, id) == 0)
            return o;
    }
    return NULL;
}

/* Sets reference.name from the collection. */
static bool name_reference(struct engine_session *s, struct names *n, json_t *reference,
                           struct err *err)
{
    bool ok = true;
    if (!member_str(reference, "id"))
        return true;
    const char *name = member_str(object_of(s, n, member_str(reference, "id"), &ok, err), "name");
    if (name)
        json_object_set_new(reference, "name", json_string(name));
    return ok;
}

struct all_names {
    struct names clusters, domains, profiles, networks;
};

static bool name_disks(struct engine_session *s, struct all_names *all, const json_t *vm,
                       struct err *err)
{
    size_t i, k;
    json_t *a, *domain;
    json_array_foreach (member_list(vm, "disk_attachments", "disk_attachment"), i, a) {
        const json_t *disk = member_object(a, "disk");
        json_array_foreach (member_list(disk, "storage_domains", "storage_domain"), k, domain) {
            if (!name_reference(s, &all->domains, domain, err))
                return false;
        }
    }
    return true;
}

/* nic.vnic_profile gets its name and its network {id, name}. */
static bool name_nics(struct engine_session *s, struct all_names *all, const json_t *vm,
                      struct err *err)
{
    size_t i;
    json_t *nic;
    json_array_foreach (member_list(vm, "nics", "nic"), i, nic) {
        bool ok = true;
        json_t *profile = member_object(nic, "vnic_profile");
        if (!member_str(profile, "id"))
            continue;
        const json_t *whole = object_of(s, &all->profiles, member_str(profile, "id"), &ok, err);
        if (!ok)
            return false;
        if (!whole || !member_str(whole, "name"))
            continue;
        json_object_set_new(profile, "name", json_string(member_str(whole, "name")));
        const char *network = member_ref_id(whole, "network");
        json_t *reference = network ? json_pack("{s:s}", "id", network) : NULL;
        if (!reference)
            continue;
        json_object_set_new(profile, "network", reference);
        if (!name_reference(s, &all->networks, reference, err))
            return false;
    }
    return true;
}

json_t *ovirt_vm_describe(struct engine_session *s, const struct ovirt_vm *vm, struct err *err)
{
    json_auto_t *copy = json_deep_copy(vm->raw);
    struct all_names all = {
        .clusters = {.path = "clusters", .element = "cluster"},
        .domains = {.path = "storagedomains", .element = "storage_domain"},
        .profiles = {.path = "vnicprofiles", .element = "vnic_profile"},
        .networks = {.path = "networks", .element = "network"},
    };
    json_t *cluster = member_object(copy, "cluster");
    bool ok = name_reference(s, &all.clusters, cluster, err) && name_disks(s, &all, copy, err) &&
              name_nics(s, &all, copy, err);
    json_decref(all.clusters.list);
    json_decref(all.domains.list);
    json_decref(all.profiles.list);
    json_decref(all.networks.list);
    if (!ok) {
        err_wrap(err, "describe VM '%s'", vm->name);
        return NULL;
    }
    json_object_del(member_object(copy, "initialization"), "configuration");
    json_object_del(copy, "actions");
    json_object_del(copy, "link");
    return TAKE(copy);
}
