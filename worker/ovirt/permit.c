/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/ovirt/permit.h"

#include <string.h>

#include "proto/base/buf.h"
#include "worker/ovirt/member.h"

enum { ROLES_MAX = 100, ROLES_TEXT_BYTES = 1000 };

static enum ovirt_permit_scope scope_of(const json_t *permission, const char *datacenter_id,
                                        const struct ovirt_clusters *clusters)
{
    static const char *const others[] = {"host", "vm", "vm_pool", "template", "disk"};
    const char *dc = member_ref_id(permission, "data_center");
    if (dc)
        return strcmp(dc, datacenter_id) == 0 ? OVIRT_PERMIT_FULLY : OVIRT_PERMIT_NOWHERE;
    const char *cluster = member_ref_id(permission, "cluster");
    if (cluster && !ovirt_clusters_find(clusters, cluster))
        return OVIRT_PERMIT_NOWHERE;
    if (cluster)
        return clusters->count == 1 ? OVIRT_PERMIT_FULLY : OVIRT_PERMIT_PARTLY;
    if (member_ref_id(permission, "storage_domain"))
        return OVIRT_PERMIT_PARTLY;
    for (size_t i = 0; i < ARRAY_LEN(others); i++) {
        if (member_ref_id(permission, others[i]))
            return OVIRT_PERMIT_NOWHERE; /* of one object: says nothing of the others */
    }
    return OVIRT_PERMIT_SYSTEM; /* no object */
}

static void add(struct ovirt_permits *p, const char *name, enum ovirt_permit_scope scope)
{
    for (size_t i = 0; i < p->count; i++) {
        if (strcmp(p->v[i].name, name) != 0)
            continue;
        if (scope > p->v[i].scope)
            p->v[i].scope = scope;
        return;
    }
    p->v = xreallocarray(p->v, p->count + 1, sizeof *p->v);
    p->v[p->count++] = (struct ovirt_permit){.name = xstrdup(name), .scope = scope};
}

static bool read_role(struct engine_session *s, const char *id, enum ovirt_permit_scope scope,
                      struct ovirt_permits *p, struct buf *names, struct err *err)
{
    json_auto_t *role = NULL, *permits = NULL;
    if (!engine_check_id("role", id, err))
        return false;
    SCOPED_FREE char *path = xasprintf("roles/%s", id);
    SCOPED_FREE char *permits_path = xasprintf("roles/%s/permits", id);
    if (!engine_get(s, path, NULL, &role, err) || !engine_get(s, permits_path, NULL, &permits, err))
        return err_wrap(err, "role %s", id);
    const char *name = member_str(role, "name");
    p->administrative |= member_bool_or(role, "administrative", false);
    if (!strstr(buf_str(names), name ? name : id))
        (void)buf_printf(names, "%s%s", names->len ? ", " : "", name ? name : id);
    size_t i;
    json_t *permit;
    json_array_foreach (member_list(permits, NULL, "permit"), i, permit) {
        const char *permit_name = member_str(permit, "name");
        if (permit_name)
            add(p, permit_name, scope);
    }
    return true;
}

/* Each role once, with the widest place where it is held. */
struct held {
    const char *role;
    enum ovirt_permit_scope scope;
};

static size_t gather(const json_t *permissions, const char *datacenter_id,
                     const struct ovirt_clusters *clusters, struct held held[ROLES_MAX])
{
    size_t count = 0, i;
    json_t *permission;
    json_array_foreach (member_list(permissions, NULL, "permission"), i, permission) {
        const char *role = member_ref_id(permission, "role");
        enum ovirt_permit_scope scope = scope_of(permission, datacenter_id, clusters);
        size_t at = 0;
        if (!role || scope == OVIRT_PERMIT_NOWHERE)
            continue;
        while (at < count && strcmp(held[at].role, role) != 0)
            at++;
        if (at == ROLES_MAX)
            continue;
        if (at == count)
            held[count++] = (struct held){.role = role, .scope = scope};
        else if (scope > held[at].scope)
            held[at].scope = scope;
    }
    return count;
}

static bool read_all(struct engine_session *s, const char *datacenter_id,
                     const struct ovirt_clusters *clusters, struct ovirt_permits *p,
                     struct buf *names, struct err *err)
{
    json_auto_t *root = NULL, *permissions = NULL;
    if (!engine_get(s, "", NULL, &root, err))
        return false;
    const char *user = member_ref_id(root, "authenticated_user");
    if (!user)
        return err_set(err, ERR_NOT_FOUND, 0, "the engine does not say who is logged in");
    if (!engine_check_id("user", user, err))
        return false;
    /* Those of its groups are among them. */
    SCOPED_FREE char *path = xasprintf("users/%s/permissions", user);
    if (!engine_get(s, path, NULL, &permissions, err))
        return false;
    struct held held[ROLES_MAX];
    size_t count = gather(permissions, datacenter_id, clusters, held);
    for (size_t i = 0; i < count; i++) {
        if (!read_role(s, held[i].role, held[i].scope, p, names, err))
            return false;
    }
    return true;
}

bool ovirt_permits_read(struct engine_session *s, const char *datacenter_id,
                        const struct ovirt_clusters *clusters, struct ovirt_permits *ret,
                        struct err *err)
{
    struct ovirt_permits p = {0};
    SCOPED_BUF struct buf names;
    buf_init(&names, ROLES_TEXT_BYTES);
    if (!read_all(s, datacenter_id, clusters, &p, &names, err)) {
        ovirt_permits_done(&p);
        return err_wrap(err, "roles of this account");
    }
    p.roles = buf_take(&names);
    *ret = p;
    return true;
}

void ovirt_permits_done(struct ovirt_permits *permits)
{
    for (size_t i = 0; i < permits->count; i++)
        free(permits->v[i].name);
    free(permits->v);
    free(permits->roles);
    *permits = (struct ovirt_permits){0};
}

enum ovirt_permit_scope ovirt_permits_scope(const struct ovirt_permits *permits, const char *name)
{
    for (size_t i = 0; i < permits->count; i++) {
        if (strcmp(permits->v[i].name, name) == 0)
            return permits->v[i].scope;
    }
    return OVIRT_PERMIT_NOWHERE;
}
