/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/step/site.h"

#include "proto/base/alloc.h"
#include "worker/ovirt/vm.h"

static bool load_proxy(struct task_run *run, struct site *site, char **ret_cluster, struct err *err)
{
    if (!run->settings->proxy_vm)
        return err_set(err, ERR_BAD_CONFIG, 0, "proxy_vm is not set");
    site->proxy_id = ovirt_vm_find(run->session, run->settings->proxy_vm, NULL, err);
    struct ovirt_vm vm = {0};
    if (!site->proxy_id || !ovirt_vm_get(run->session, site->proxy_id, &vm, err))
        return err_wrap(err, "proxy_vm '%s'", run->settings->proxy_vm);
    *ret_cluster = xstrdup_or_null(vm.cluster_id);
    site->proxy_interface = xstrdup(vm.virtio_scsi ? "virtio_scsi" : "virtio");
    ovirt_vm_done(&vm);
    return true;
}

/* The data center of the proxy's cluster, and all clusters in it. */
static bool load_clusters(struct task_run *run, struct site *site, const char *cluster_id,
                          struct err *err)
{
    struct ovirt_clusters all = {0};
    if (!ovirt_clusters_list(run->session, NULL, &all, err))
        return false;
    const struct ovirt_cluster *own = cluster_id ? ovirt_clusters_find(&all, cluster_id) : NULL;
    if (own)
        site->datacenter_id = xstrdup_or_null(own->datacenter_id);
    ovirt_clusters_done(&all);
    if (!site->datacenter_id)
        return err_set(err, ERR_UNSUPPORTED, 0,
                       "the proxy VM's cluster is in no data center that this account may see");
    return ovirt_clusters_list(run->session, site->datacenter_id, &site->clusters, err);
}

bool site_load_any(struct task_run *run, struct site *ret, struct err *err)
{
    struct site site = {0};
    SCOPED_FREE char *cluster = NULL;
    bool ok = engine_read_version(run->session, &site.version, err);
    if (ok && run->settings->proxy_vm && !load_proxy(run, &site, &cluster, err)) {
        ok = err->code == ERR_NOT_FOUND;
        if (ok)
            err_clear(err);
    }
    if (!ok || !ovirt_clusters_list(run->session, NULL, &site.clusters, err)) {
        site_done(&site);
        return false;
    }
    const struct ovirt_cluster *own = cluster ? ovirt_clusters_find(&site.clusters, cluster) : NULL;
    site.datacenter_id = own ? xstrdup_or_null(own->datacenter_id) : NULL;
    *ret = site;
    return true;
}

bool site_load(struct task_run *run, struct site *ret, struct err *err)
{
    struct site site = {0};
    SCOPED_FREE char *cluster = NULL;
    if (engine_read_version(run->session, &site.version, err) &&
        load_proxy(run, &site, &cluster, err) && load_clusters(run, &site, cluster, err)) {
        *ret = site;
        return true;
    }
    site_done(&site);
    return false;
}

void site_done(struct site *site)
{
    free(site->proxy_id);
    free(site->proxy_interface);
    free(site->datacenter_id);
    ovirt_clusters_done(&site->clusters);
    *site = (struct site){0};
}
