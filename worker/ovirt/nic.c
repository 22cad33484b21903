/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/ovirt/nic.h"

#include <stdio.h>
#include <string.h>

#include "worker/ovirt/fault.h"
#include "worker/ovirt/member.h"
#include "worker/ovirt/nic_impl.h"

enum { MAX_NICS = 64 };

static void warn(const struct ovirt_nics_how *how, const char *nic, const char *text)
{
    SCOPED_FREE char *message = xasprintf("NIC '%s': %s", nic, text);
    if (how->warn)
        how->warn(how->ctx, message);
}

/* --- vNIC profiles --------------------------------------------------------------------------- */
/* What is known of this engine's profiles; asked once, when the first NIC needs it. */
struct profiles {
    json_t *list;     /* answer of vnicprofiles */
    json_t *networks; /* answer of networks */
};

static bool same(const char *a, const char *b)
{
    return a && b && strcmp(a, b) == 0;
}

static const json_t *find(const json_t *answer, const char *element, const char *key,
                          const char *value)
{
    size_t i;
    json_t *o;
    json_array_foreach (member_list(answer, NULL, element), i, o) {
        if (same(member_str(o, key), value))
            return o;
    }
    return NULL;
}

/* The saved profile's network name must be that of the candidate's network, in this data center. */
static bool fits_by_name(const json_t *networks, const json_t *candidate, const json_t *saved,
                         const char *datacenter_id)
{
    if (!same(member_str(candidate, "name"), member_str(saved, "name")))
        return false;
    const json_t *network = find(networks, "network", "id", member_ref_id(candidate, "network"));
    if (datacenter_id && !same(member_ref_id(network, "data_center"), datacenter_id))
        return false;
    const char *wanted = member_str(member_object(saved, "network"), "name");
    return !wanted || same(member_str(network, "name"), wanted);
}

const char *ovirt_nic_find_profile(const json_t *profiles, const json_t *networks,
                                   const json_t *saved, const char *datacenter_id)
{
    const char *id =
        member_str(find(profiles, "vnic_profile", "id", member_str(saved, "id")), "id");
    size_t i;
    json_t *candidate;
    json_array_foreach (member_list(profiles, NULL, "vnic_profile"), i, candidate) {
        if (!id && fits_by_name(networks, candidate, saved, datacenter_id))
            id = member_str(candidate, "id");
    }
    return id;
}

/* --- Bodies ---------------------------------------------------------------------------------- */
json_t *ovirt_nic_body(const json_t *saved, const char *profile_id, bool plugged, bool keep_mac)
{
    const char *interface = member_str(saved, "interface");
    const char *mac = member_str(member_object(saved, "mac"), "address");
    json_t *body = json_pack("{s:s, s:s, s:s}", "name", member_str(saved, "name"), "linked",
                             member_bool_or(saved, "linked", true) ? "true" : "false", "plugged",
                             plugged ? "true" : "false");
    if (interface)
        json_object_set_new(body, "interface", json_string(interface));
    if (mac && keep_mac)
        json_object_set_new(body, "mac", json_pack("{s:s}", "address", mac));
    if (profile_id)
        json_object_set_new(body, "vnic_profile", json_pack("{s:s}", "id", profile_id));
    return body;
}

/* --- Adding ---------------------------------------------------------------------------------- */
struct nic_probe {
    const char *path; /* of the collection */
    const char *name;
};

/* Done = a NIC of that name is there. */
static bool probe_nic(struct engine_session *s, void *ctx, bool *ret_done, json_t **ret_object,
                      struct err *err)
{
    (void)ret_object;
    const struct nic_probe *p = ctx;
    json_auto_t *answer = NULL;
    if (!engine_get(s, p->path, NULL, &answer, err))
        return false;
    *ret_done = find(answer, "nic", "name", p->name) != NULL;
    return true;
}

static bool post_nic(struct engine_session *s, const char *path, const json_t *body,
                     struct err *err)
{
    struct nic_probe probe = {.path = path, .name = member_str(body, "name")};
    struct engine_mutation m = {
        .method = ENGINE_POST,
        .path = path,
        .body = body,
        .probe = probe_nic,
        .probe_ctx = &probe,
    };
    return engine_mutate(s, &m, NULL, err);
}

static bool add_nic(struct engine_session *s, const char *path, const json_t *saved,
                    const char *profile_id, const struct ovirt_nics_how *how, struct err *err)
{
    json_auto_t *body = ovirt_nic_body(saved, profile_id, how->plugged, true);
    if (post_nic(s, path, body, err))
        return true;
    if (!fault_is_mac_taken(err))
        return false;
    err_clear(err);
    warn(how, member_str(saved, "name"), "its MAC address is in use: it gets a fresh one");
    json_auto_t *fresh = ovirt_nic_body(saved, profile_id, how->plugged, false);
    return post_nic(s, path, fresh, err);
}

static bool profile_for(struct engine_session *s, struct profiles *p, const json_t *nic,
                        const struct ovirt_nics_how *how, const char **ret, struct err *err)
{
    *ret = NULL;
    const json_t *saved = member_object(nic, "vnic_profile");
    if (!member_str(saved, "id"))
        return true;
    if (!p->list && !engine_get(s, "vnicprofiles", NULL, &p->list, err))
        return false;
    if (!p->networks && !engine_get(s, "networks", NULL, &p->networks, err))
        return false;
    *ret = ovirt_nic_find_profile(p->list, p->networks, saved, how->datacenter_id);
    if (!*ret)
        warn(how, member_str(nic, "name"),
             "its vNIC profile does not exist here: it is made without a network");
    return true;
}

static bool restore_each(struct engine_session *s, const char *path, json_t *list,
                         struct profiles *profiles, const struct ovirt_nics_how *how,
                         struct err *err)
{
    json_auto_t *present = NULL;
    if (json_array_size(list) > MAX_NICS)
        return err_set(err, ERR_TOO_LARGE, 0, "more than %d NICs", MAX_NICS);
    if (!engine_get(s, path, NULL, &present, err))
        return false;
    size_t i;
    json_t *nic;
    json_array_foreach ((json_t *)list, i, nic) {
        const char *name = member_str(nic, "name"), *profile;
        if (!name || find(present, "nic", "name", name))
            continue;
        if (!profile_for(s, profiles, nic, how, &profile, err) ||
            !add_nic(s, path, nic, profile, how, err))
            return err_wrap(err, "NIC '%s'", name);
    }
    return true;
}

bool ovirt_nics_restore(struct engine_session *s, const char *vm_id, const json_t *saved,
                        const struct ovirt_nics_how *how, struct err *err)
{
    if (!engine_check_id("VM", vm_id, err))
        return false;
    SCOPED_FREE char *path = xasprintf("vms/%s/nics", vm_id);
    struct profiles profiles = {0};
    bool ok = restore_each(s, path, member_list(saved, "nics", "nic"), &profiles, how, err);
    json_decref(profiles.list);
    json_decref(profiles.networks);
    return ok || err_wrap(err, "NICs of VM %s", vm_id);
}
