/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where things live: data centers, clusters, storage domains, vNIC profiles. Read only.
 * Lists own their strings: free with the matching _done(), safe on a zeroed one.
 */
#pragma once

#include "worker/ovirt/engine.h"

struct ovirt_datacenter {
    char *id, *name;
};
/* By id or by exact name. Errors: not-found. */
bool ovirt_datacenter_find(struct engine_session *s, const char *id_or_name,
                           struct ovirt_datacenter *ret, struct err *err);
void ovirt_datacenter_done(struct ovirt_datacenter *dc);

struct ovirt_cluster {
    char *id, *name, *datacenter_id;
};
struct ovirt_clusters {
    struct ovirt_cluster *v;
    size_t count;
};
/* All clusters, or those of one data center (`datacenter_id` not NULL). */
bool ovirt_clusters_list(struct engine_session *s, const char *datacenter_id,
                         struct ovirt_clusters *ret, struct err *err);
void ovirt_clusters_done(struct ovirt_clusters *clusters);
/* By id or exact name; NULL if it is not among them. Borrowed. */
const struct ovirt_cluster *ovirt_clusters_find(const struct ovirt_clusters *clusters,
                                                const char *id_or_name);

struct ovirt_storage_domain {
    char *id, *name;
    char *status;       /* "active", "maintenance", ...: as this data center sees it */
    char *type;         /* "data", "iso", "export", ... */
    char *storage_type; /* "nfs", "iscsi", "fcp", "localfs", ... */
    bool block;         /* iscsi, fcp: disks are logical volumes */
    /* The engine does not tell the size of a domain that it has not seen yet: then available_bytes
     * is UINT64_MAX, not "full". */
    uint64_t available_bytes, used_bytes, committed_bytes;
    uint64_t block_action_gib; /* below this many GiB free the engine refuses new disks */
};
struct ovirt_storage_domains {
    struct ovirt_storage_domain *v;
    size_t count;
};
/* Asked through the data center, the only place that tells the status. */
bool ovirt_storage_domains_list(struct engine_session *s, const char *datacenter_id,
                                struct ovirt_storage_domains *ret, struct err *err);
void ovirt_storage_domains_done(struct ovirt_storage_domains *domains);
const struct ovirt_storage_domain *
ovirt_storage_domains_find(const struct ovirt_storage_domains *domains, const char *id_or_name);
