/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a restore goes, and by which path its disks are filled: the proxy VM, if it is in the data
 * center of the cluster and so reaches its storage, else an upload to a host there.
 */
#include <string.h>

#include "proto/base/alloc.h"
#include "proto/base/log.h"
#include "worker/step/restore.h"

static const struct ovirt_cluster *find_cluster(const struct site *site, const char *id_or_name)
{
    return id_or_name ? ovirt_clusters_find(&site->clusters, id_or_name) : NULL;
}

static bool choose_cluster(struct restore *r, struct err *err)
{
    if (r->opts->cluster) {
        r->cluster = find_cluster(&r->site, r->opts->cluster);
        return r->cluster || err_set(err, ERR_NOT_FOUND, 0,
                                     "the engine has no cluster '%s' that this account may see",
                                     r->opts->cluster);
    }
    const json_t *was = json_object_get(r->vm_json, "cluster");
    const char *id = json_string_value(json_object_get(was, "id"));
    const char *name = json_string_value(json_object_get(was, "name"));
    r->cluster = find_cluster(&r->site, id);
    if (!r->cluster)
        r->cluster = find_cluster(&r->site, name);
    return r->cluster || err_set(err, ERR_NOT_FOUND, 0,
                                 "the VM's cluster '%s' is not in this engine: name another one",
                                 name ? name
                                 : id ? id
                                      : "?");
}

/* Why the disks cannot be attached to the proxy VM; NULL when they can. */
static const char *why_not_attach(const struct task_run *run, const struct restore *r)
{
    if (!run->settings->proxy_vm)
        return "this worker runs in no proxy VM";
    if (!r->site.proxy_id)
        return "the engine does not know the worker's proxy VM";
    if (!r->site.datacenter_id || strcmp(r->site.datacenter_id, r->datacenter_id) != 0)
        return "the worker's proxy VM is in another data center";
    return NULL;
}

static bool choose_path(struct task_run *run, struct restore *r, struct err *err)
{
    const char *why = why_not_attach(run, r);
    enum wire_path wanted = r->opts->path;
    if (wanted == WIRE_PATH_ATTACH && why)
        return err_set(err, ERR_UNSUPPORTED, 0,
                       "new disks in cluster %s cannot be attached: %s (path 'imageio' uploads "
                       "them)",
                       r->cluster->name, why);
    r->by_upload = wanted == WIRE_PATH_IMAGEIO || why;
    if (wanted != WIRE_PATH_AUTO)
        why = "asked for";
    else if (!why)
        why = "the proxy VM is in the data center";
    SCOPED_FREE char *text = xasprintf("%s: %s", r->by_upload ? "imageio" : "attach", why);
    log_info("path_chosen", LOG_STR("path", text));
    run_handle_set(run, HANDLE_PATH, text);
    return true;
}

bool restore_choose_place(struct task_run *run, struct restore *r, struct err *err)
{
    if (!site_load_any(run, &r->site, err) || !choose_cluster(r, err))
        return false;
    r->datacenter_id = r->cluster->datacenter_id;
    if (!r->datacenter_id)
        return err_set(err, ERR_UNSUPPORTED, 0,
                       "cluster %s is in no data center that this account may see",
                       r->cluster->name);
    return choose_path(run, r, err);
}
