/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/ovirt/datacenter.h"

#include <string.h>

#include "proto/base/id.h"
#include "worker/ovirt/member.h"

static bool is_named(const char *id, const char *name, const char *id_or_name)
{
    return strcmp(id, id_or_name) == 0 || strcmp(name, id_or_name) == 0;
}

bool ovirt_datacenter_find(struct engine_session *s, const char *id_or_name,
                           struct ovirt_datacenter *ret, struct err *err)
{
    json_auto_t *answer = NULL;
    if (!engine_get(s, "datacenters", NULL, &answer, err))
        return err_wrap(err, "data center '%s'", id_or_name);
    json_t *list = member_list(answer, NULL, "data_center");
    size_t i;
    json_t *dc;
    json_array_foreach (list, i, dc) {
        const char *id = member_str(dc, "id"), *name = member_str(dc, "name");
        if (id && name && is_named(id, name, id_or_name)) {
            ret->id = xstrdup(id);
            ret->name = xstrdup(name);
            return true;
        }
    }
    return err_set(err, ERR_NOT_FOUND, 0, "the engine knows no data center '%s' (of %zu)",
                   id_or_name, json_array_size(list));
}

void ovirt_datacenter_done(struct ovirt_datacenter *dc)
{
    free(dc->id);
    free(dc->name);
    *dc = (struct ovirt_datacenter){0};
}

bool ovirt_clusters_list(struct engine_session *s, const char *datacenter_id,
                         struct ovirt_clusters *ret, struct err *err)
{
    json_auto_t *answer = NULL;
    if (!engine_get(s, "clusters", NULL, &answer, err))
        return err_wrap(err, "list clusters");
    json_t *list = member_list(answer, NULL, "cluster");
    struct ovirt_clusters found = {.v = xcalloc(json_array_size(list) + 1, sizeof *found.v)};
    size_t i;
    json_t *c;
    json_array_foreach (list, i, c) {
        const char *id = member_str(c, "id"), *name = member_str(c, "name");
        const char *dc = member_ref_id(c, "data_center");
        if (!id || !name || (datacenter_id && (!dc || strcmp(dc, datacenter_id) != 0)))
            continue;
        found.v[found.count++] = (struct ovirt_cluster){
            .id = xstrdup(id), .name = xstrdup(name), .datacenter_id = xstrdup_or_null(dc)};
    }
    *ret = found;
    return true;
}

void ovirt_clusters_done(struct ovirt_clusters *clusters)
{
    for (size_t i = 0; i < clusters->count; i++) {
        free(clusters->v[i].id);
        free(clusters->v[i].name);
        free(clusters->v[i].datacenter_id);
    }
    free(clusters->v);
    *clusters = (struct ovirt_clusters){0};
}

const struct ovirt_cluster *ovirt_clusters_find(const struct ovirt_clusters *clusters,
                                                const char *id_or_name)
{
    for (size_t i = 0; i < clusters->count; i++) {
        if (is_named(clusters->v[i].id, clusters->v[i].name, id_or_name))
            return &clusters->v[i];
    }
    return NULL;
}

static void read_domain(const json_t *d, struct ovirt_storage_domain *ret)
{
    const char *storage = member_str(member_object(d, "storage"), "type");
    *ret = (struct ovirt_storage_domain){
        .id = xstrdup(member_str(d, "id")),
        .name = xstrdup(member_str(d, "name")),
        .status = xstrdup_or_null(member_str(d, "status")),
        .type = xstrdup_or_null(member_str(d, "type")),
        .storage_type = xstrdup_or_null(storage),
        .block = storage && (strcmp(storage, "iscsi") == 0 || strcmp(storage, "fcp") == 0),
        .available_bytes = member_u64_or(d, "available", UINT64_MAX),
        .used_bytes = member_u64_or(d, "used", 0),
        .committed_bytes = member_u64_or(d, "committed", 0),
        .block_action_gib = member_u64_or(d, "critical_space_action_blocker", 0),
    };
}

bool ovirt_storage_domains_list(struct engine_session *s, const char *datacenter_id,
                                struct ovirt_storage_domains *ret, struct err *err)
{
    if (!engine_check_id("data center", datacenter_id, err))
        return false;
    SCOPED_FREE char *path = xasprintf("datacenters/%s/storagedomains", datacenter_id);
    json_auto_t *answer = NULL;
    if (!engine_get(s, path, NULL, &answer, err))
        return err_wrap(err, "list storage domains");
    json_t *list = member_list(answer, NULL, "storage_domain");
    struct ovirt_storage_domains found = {.v = xcalloc(json_array_size(list) + 1, sizeof *found.v)};
    size_t i;
    json_t *d;
    json_array_foreach (list, i, d) {
        if (member_str(d, "id") && member_str(d, "name"))
            read_domain(d, &found.v[found.count++]);
    }
    *ret = found;
    return true;
}

void ovirt_storage_domains_done(struct ovirt_storage_domains *domains)
{
    for (size_t i = 0; i < domains->count; i++) {
        struct ovirt_storage_domain *d = &domains->v[i];
        free(d->id);
        free(d->name);
        free(d->status);
        free(d->type);
        free(d->storage_type);
    }
    free(domains->v);
    *domains = (struct ovirt_storage_domains){0};
}

const struct ovirt_storage_domain *
ovirt_storage_domains_find(const struct ovirt_storage_domains *domains, const char *id_or_name)
{
    for (size_t i = 0; i < domains->count; i++) {
        if (is_named(domains->v[i].id, domains->v[i].name, id_or_name))
            return &domains->v[i];
    }
    return NULL;
}
