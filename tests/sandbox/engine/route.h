/* SPDX-License-Identifier: Apache-2.0 */
/* The table of the emulated API: which method on which path is whose. */
#pragma once

#include "tests/sandbox/engine/http.h"

typedef void (*route_fn)(struct engine *e, struct request *r);

struct route {
    const char *method;
    const char *pattern; /* "vms/{}/snapshots" */
    route_fn fn;
    const char *body_type; /* member table of the body; NULL = none; "Action" makes it an action */
    const char *job;       /* description of the job a call makes; NULL = none */
};

/* The route of r->method on r->path, with r->ids set; NULL: none. */
const struct route *route_find(struct request *r);
/* Does any method have a route on r->path? */
bool route_known(const struct request *r);

/* Handlers, by resource. */
#define ROUTE_FN(name) void name(struct engine *e, struct request *r)
/* roles.c */
ROUTE_FN(user_permissions_list);
ROUTE_FN(roles_get);
ROUTE_FN(role_permits_list);

/* infra.c */
ROUTE_FN(api_root);
ROUTE_FN(dcs_list);
ROUTE_FN(dcs_get);
ROUTE_FN(dc_sds_list);
ROUTE_FN(dc_sds_get);
ROUTE_FN(clusters_list);
ROUTE_FN(clusters_get);
ROUTE_FN(hosts_list);
ROUTE_FN(hosts_get);
ROUTE_FN(sds_list);
ROUTE_FN(sds_get);
ROUTE_FN(sd_disksnapshots);
ROUTE_FN(sd_disksnapshot);
ROUTE_FN(networks_list);
ROUTE_FN(networks_get);
ROUTE_FN(profiles_list);
ROUTE_FN(profiles_get);
ROUTE_FN(templates_list);
ROUTE_FN(templates_get);
ROUTE_FN(empty_list);
/* tags.c */
ROUTE_FN(tags_list);
ROUTE_FN(tags_get);
ROUTE_FN(tags_add);
ROUTE_FN(tags_remove);
ROUTE_FN(vm_tags_list);
ROUTE_FN(vm_tags_add);
ROUTE_FN(vm_tags_remove);
/* jobs.c */
ROUTE_FN(jobs_list);
ROUTE_FN(jobs_get);
ROUTE_FN(job_steps);
ROUTE_FN(events_list);
ROUTE_FN(events_get);
ROUTE_FN(events_add);
/* vms.c */
ROUTE_FN(vms_list);
ROUTE_FN(vms_get);
ROUTE_FN(vms_add);
ROUTE_FN(vms_update);
ROUTE_FN(vms_remove);
ROUTE_FN(vm_devices_list);
/* export.c */
ROUTE_FN(vm_export);
/* nics.c */
ROUTE_FN(nics_list);
ROUTE_FN(nics_get);
ROUTE_FN(nics_add);
ROUTE_FN(nics_update);
ROUTE_FN(nics_remove);
/* power.c */
ROUTE_FN(vm_start);
ROUTE_FN(vm_stop);
ROUTE_FN(vm_shutdown);
ROUTE_FN(vm_suspend);
ROUTE_FN(vm_freeze);
ROUTE_FN(vm_thaw);
/* snapshots.c, merge.c, restore.c */
ROUTE_FN(snapshots_list);
ROUTE_FN(snapshots_get);
ROUTE_FN(snapshots_add);
ROUTE_FN(snapshots_remove);
ROUTE_FN(snapshot_restore);
ROUTE_FN(snapshot_disks);
ROUTE_FN(snapshot_disk);
ROUTE_FN(snapshot_nics);
ROUTE_FN(snapshot_cdroms);
/* attachments.c */
ROUTE_FN(attachments_list);
ROUTE_FN(attachments_get);
ROUTE_FN(attachments_add);
ROUTE_FN(attachments_update);
ROUTE_FN(attachments_remove);
/* disks.c */
ROUTE_FN(disks_list);
ROUTE_FN(disks_get);
ROUTE_FN(disks_add);
ROUTE_FN(disks_update);
ROUTE_FN(disks_remove);
ROUTE_FN(disk_disksnapshots);
ROUTE_FN(disk_move);
/* backups.c, checkpoints.c */
ROUTE_FN(backups_list);
ROUTE_FN(backups_get);
ROUTE_FN(backups_add);
ROUTE_FN(backup_disks);
ROUTE_FN(backup_finalize);
ROUTE_FN(checkpoints_list);
ROUTE_FN(checkpoints_get);
ROUTE_FN(checkpoint_disks);
ROUTE_FN(checkpoints_remove);
/* transfers.c */
ROUTE_FN(transfers_list);
ROUTE_FN(transfers_get);
ROUTE_FN(transfers_add);
ROUTE_FN(transfer_finalize);
ROUTE_FN(transfer_cancel);
ROUTE_FN(transfer_pause);
ROUTE_FN(transfer_resume);
ROUTE_FN(transfer_extend);
