/* SPDX-License-Identifier: Apache-2.0 */
/* Roles and permissions, as far as an account can ask what it may do itself: every account holds
 * one role, in one place. They are told, not enforced (a fault rule gives a 403). */
#include "tests/sandbox/engine/roles.h"

#include <string.h>

#include "tests/sandbox/engine/http.h"
#include "tests/sandbox/engine/json_out.h"
#include "tests/sandbox/engine/route.h"

static const char role_id[] = "00000000-0000-0000-0000-000000000001";
static const char permission_id[] = "58ca604b-017d-0374-0220-00000000014e";

/* What SuperUser holds, as far as backups are concerned. */
static const char *const all_permits[] = {
    "create_vm",
    "delete_vm",
    "edit_vm_properties",
    "import_export_vm",
    "migrate_vm",
    "configure_vm_network",
    "configure_vm_storage",
    "run_vm",
    "stop_vm",
    "manipulate_vm_snapshots",
    "create_disk",
    "attach_disk",
    "edit_disk_properties",
    "delete_disk",
    "attach_disk_profile",
    "backup_disk",
    "tag_management",
    "inject_external_events",
    "login",
};

bool roles_set(struct engine *e, const json_t *body)
{
    const json_t *permits = json_object_get(body, "permits");
    const char *on = in_str(body, "on");
    if ((permits && !json_is_array(permits)) ||
        (on && strcmp(on, "system") != 0 && strcmp(on, "data_center") != 0 &&
         strcmp(on, "cluster") != 0))
        return false;
    json_decref(e->role.permits);
    e->role.permits = permits ? json_deep_copy(permits) : NULL;
    e->role.is_user = json_is_false(json_object_get(body, "administrative"));
    e->role.on = !on ? 's' : on[0];
    return true;
}

static bool is_role(struct request *r)
{
    if (strcmp(r->ids[0], role_id) == 0)
        return true;
    reply_empty(r, 404);
    return false;
}

void roles_get(struct engine *e, struct request *r)
{
    if (!is_role(r))
        return;
    json_t *o = out_entity(role_id, "roles/%s", role_id);
    out_str(o, "name", e->role.permits ? "BackupRole" : "SuperUser");
    out_bool(o, "administrative", !e->role.is_user);
    out_bool(o, "mutable", e->role.permits != NULL);
    out_link(o, "permits");
    reply_json(r, 200, o);
}

void role_permits_list(struct engine *e, struct request *r)
{
    if (!is_role(r))
        return;
    json_t *list = json_array();
    size_t count = e->role.permits ? json_array_size(e->role.permits) : ARRAY_LEN(all_permits);
    for (size_t i = 0; i < count; i++) {
        const char *name = e->role.permits ? json_string_value(json_array_get(e->role.permits, i))
                                           : all_permits[i];
        SCOPED_FREE char *id = xasprintf("%zu", i + 1);
        json_t *o = out_entity(id, "roles/%s/permits/%s", role_id, id);
        out_str(o, "name", name);
        out_bool(o, "administrative", false);
        out_ref(o, "role", role_id, "roles/%s", role_id);
        json_array_append_new(list, o);
    }
    reply_json(r, 200, out_collection("permit", list));
}

void user_permissions_list(struct engine *e, struct request *r)
{
    if (strcmp(r->ids[0], ROLES_USER_ID) != 0) {
        reply_empty(r, 404);
        return;
    }
    json_t *o = out_entity(permission_id, "users/%s/permissions/%s", ROLES_USER_ID, permission_id);
    out_ref(o, "role", role_id, "roles/%s", role_id);
    out_ref(o, "user", ROLES_USER_ID, "users/%s", ROLES_USER_ID);
    if (e->role.on == 'd' && e->model.dcs.len)
        out_ref(o, "data_center", e->model.dcs.at[0]->id, "datacenters/%s", e->model.dcs.at[0]->id);
    if (e->role.on == 'c' && e->model.clusters.len)
        out_ref(o, "cluster", e->model.clusters.at[0]->id, "clusters/%s",
                e->model.clusters.at[0]->id);
    json_t *list = json_array();
    json_array_append_new(list, o);
    reply_json(r, 200, out_collection("permission", list));
}
