/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sandbox/engine/route.h"

#include <string.h>

static const struct route routes[] = {
    {"GET", "", api_root, NULL, NULL},
    {"GET", "datacenters", dcs_list, NULL, NULL},
    {"GET", "datacenters/{}", dcs_get, NULL, NULL},
    {"GET", "datacenters/{}/storagedomains", dc_sds_list, NULL, NULL},
    {"GET", "datacenters/{}/storagedomains/{}", dc_sds_get, NULL, NULL},
    {"GET", "clusters", clusters_list, NULL, NULL},
    {"GET", "clusters/{}", clusters_get, NULL, NULL},
    {"GET", "hosts", hosts_list, NULL, NULL},
    {"GET", "hosts/{}", hosts_get, NULL, NULL},
    {"GET", "storagedomains", sds_list, NULL, NULL},
    {"GET", "storagedomains/{}", sds_get, NULL, NULL},
    {"GET", "storagedomains/{}/disksnapshots", sd_disksnapshots, NULL, NULL},
    {"GET", "storagedomains/{}/disksnapshots/{}", sd_disksnapshot, NULL, NULL},
    {"GET", "networks", networks_list, NULL, NULL},
    {"GET", "networks/{}", networks_get, NULL, NULL},
    {"GET", "vnicprofiles", profiles_list, NULL, NULL},
    {"GET", "vnicprofiles/{}", profiles_get, NULL, NULL},
    {"GET", "templates", templates_list, NULL, NULL},
    {"GET", "templates/{}", templates_get, NULL, NULL},

    {"GET", "users/{}/permissions", user_permissions_list, NULL, NULL},
    {"GET", "roles/{}", roles_get, NULL, NULL},
    {"GET", "roles/{}/permits", role_permits_list, NULL, NULL},

    {"GET", "tags", tags_list, NULL, NULL},
    {"POST", "tags", tags_add, "Tag", NULL},
    {"GET", "tags/{}", tags_get, NULL, NULL},
    {"DELETE", "tags/{}", tags_remove, NULL, NULL},

    {"GET", "jobs", jobs_list, NULL, NULL},
    {"GET", "jobs/{}", jobs_get, NULL, NULL},
    {"GET", "jobs/{}/steps", job_steps, NULL, NULL},
    {"GET", "events", events_list, NULL, NULL},
    {"POST", "events", events_add, "Event", NULL},
    {"GET", "events/{}", events_get, NULL, NULL},

    {"GET", "vms", vms_list, NULL, NULL},
    {"POST", "vms", vms_add, "Vm", "Creating VM"},
    {"GET", "vms/{}", vms_get, NULL, NULL},
    {"PUT", "vms/{}", vms_update, "Vm", "Editing VM Settings"},
    {"DELETE", "vms/{}", vms_remove, NULL, "Removing VM"},
    {"POST", "vms/{}/start", vm_start, "Action", "Launching VM"},
    {"POST", "vms/{}/export", vm_export, "Action", "Exporting VM"},
    {"POST", "vms/{}/stop", vm_stop, "Action", "Stopping VM"},
    {"POST", "vms/{}/shutdown", vm_shutdown, "Action", "Shutting Down VM"},
    {"POST", "vms/{}/suspend", vm_suspend, "Action", "Suspending VM"},
    {"POST", "vms/{}/freezefilesystems", vm_freeze, "Action", "Freezing File Systems"},
    {"POST", "vms/{}/thawfilesystems", vm_thaw, "Action", "Thawing File Systems"},
    {"GET", "vms/{}/tags", vm_tags_list, NULL, NULL},
    {"POST", "vms/{}/tags", vm_tags_add, "Tag", NULL},
    {"DELETE", "vms/{}/tags/{}", vm_tags_remove, NULL, NULL},
    {"GET", "vms/{}/reporteddevices", vm_devices_list, NULL, NULL},
    {"GET", "vms/{}/cdroms", empty_list, NULL, NULL},
    {"GET", "vms/{}/watchdogs", empty_list, NULL, NULL},
    {"GET", "vms/{}/graphicsconsoles", empty_list, NULL, NULL},
    {"GET", "vms/{}/permissions", empty_list, NULL, NULL},
    {"GET", "vms/{}/numanodes", empty_list, NULL, NULL},
    {"GET", "vms/{}/hostdevices", empty_list, NULL, NULL},
    {"GET", "vms/{}/affinitylabels", empty_list, NULL, NULL},
    {"GET", "vms/{}/backups", backups_list, NULL, NULL},
    {"POST", "vms/{}/backups", backups_add, "Backup", "Starting Backup of VM"},
    {"GET", "vms/{}/backups/{}", backups_get, NULL, NULL},
    {"GET", "vms/{}/backups/{}/disks", backup_disks, NULL, NULL},
    {"POST", "vms/{}/backups/{}/finalize", backup_finalize, "Action", "Stopping Backup of VM"},
    {"GET", "vms/{}/checkpoints", checkpoints_list, NULL, NULL},
    {"GET", "vms/{}/checkpoints/{}", checkpoints_get, NULL, NULL},
    {"GET", "vms/{}/checkpoints/{}/disks", checkpoint_disks, NULL, NULL},
    {"DELETE", "vms/{}/checkpoints/{}", checkpoints_remove, NULL, "Removing Checkpoint of VM"},
    {"GET", "vms/{}/nics", nics_list, NULL, NULL},
    {"POST", "vms/{}/nics", nics_add, "Nic", "Adding Network Interface"},
    {"GET", "vms/{}/nics/{}", nics_get, NULL, NULL},
    {"PUT", "vms/{}/nics/{}", nics_update, "Nic", "Editing Network Interface"},
    {"DELETE", "vms/{}/nics/{}", nics_remove, NULL, "Removing Network Interface"},

    {"GET", "vms/{}/snapshots", snapshots_list, NULL, NULL},
    {"POST", "vms/{}/snapshots", snapshots_add, "Snapshot", "Creating VM Snapshot"},
    {"GET", "vms/{}/snapshots/{}", snapshots_get, NULL, NULL},
    {"DELETE", "vms/{}/snapshots/{}", snapshots_remove, NULL, "Removing Snapshot"},
    {"POST", "vms/{}/snapshots/{}/restore", snapshot_restore, "Action", "Restoring VM Snapshot"},
    {"GET", "vms/{}/snapshots/{}/disks", snapshot_disks, NULL, NULL},
    {"GET", "vms/{}/snapshots/{}/disks/{}", snapshot_disk, NULL, NULL},
    {"GET", "vms/{}/snapshots/{}/nics", snapshot_nics, NULL, NULL},
    {"GET", "vms/{}/snapshots/{}/cdroms", snapshot_cdroms, NULL, NULL},

    {"GET", "vms/{}/diskattachments", attachments_list, NULL, NULL},
    {"POST", "vms/{}/diskattachments", attachments_add, "DiskAttachment", "Attaching Disk to VM"},
    {"GET", "vms/{}/diskattachments/{}", attachments_get, NULL, NULL},
    {"PUT", "vms/{}/diskattachments/{}", attachments_update, "DiskAttachment", "Editing Disk"},
    {"DELETE", "vms/{}/diskattachments/{}", attachments_remove, NULL, "Detaching Disk from VM"},

    {"GET", "disks", disks_list, NULL, NULL},
    {"POST", "disks", disks_add, "Disk", "Adding Disk"},
    {"GET", "disks/{}", disks_get, NULL, NULL},
    {"PUT", "disks/{}", disks_update, "Disk", "Editing Disk"},
    {"DELETE", "disks/{}", disks_remove, NULL, "Removing Disk"},
    {"GET", "disks/{}/disksnapshots", disk_disksnapshots, NULL, NULL},
    {"POST", "disks/{}/move", disk_move, "Action", "Moving Disk"},

    {"GET", "imagetransfers", transfers_list, NULL, NULL},
    {"POST", "imagetransfers", transfers_add, "ImageTransfer", "Transferring Image"},
    {"GET", "imagetransfers/{}", transfers_get, NULL, NULL},
    {"POST", "imagetransfers/{}/finalize", transfer_finalize, "Action", NULL},
    {"POST", "imagetransfers/{}/cancel", transfer_cancel, "Action", NULL},
    {"POST", "imagetransfers/{}/pause", transfer_pause, "Action", NULL},
    {"POST", "imagetransfers/{}/resume", transfer_resume, "Action", NULL},
    {"POST", "imagetransfers/{}/extend", transfer_extend, "Action", NULL},
};

/* Does `path` fit? Gives the {} parts as offsets and lengths. */
static bool fits(const char *pattern, const char *path, size_t at[REQUEST_IDS][2])
{
    const char *p = path;
    size_t ids = 0;
    for (const char *q = pattern; *q;) {
        if (q[0] == '{' && q[1] == '}') {
            size_t len = strcspn(p, "/");
            if (len == 0 || ids == REQUEST_IDS)
                return false;
            at[ids][0] = (size_t)(p - path);
            at[ids++][1] = len;
            p += len;
            q += 2;
        } else if (*q++ != *p++) {
            return false;
        }
    }
    return *p == '\0';
}

static void take_ids(struct request *r, const char *pattern, size_t at[REQUEST_IDS][2])
{
    free(r->ids_buffer);
    r->ids_buffer = xstrdup(r->path);
    size_t ids = 0;
    for (const char *q = pattern; (q = strstr(q, "{}")) != NULL; q += 2, ids++) {
        r->ids[ids] = r->ids_buffer + at[ids][0];
        r->ids_buffer[at[ids][0] + at[ids][1]] = '\0';
    }
}

const struct route *route_find(struct request *r)
{
    for (size_t i = 0; i < ARRAY_LEN(routes); i++) {
        size_t at[REQUEST_IDS][2];
        if (strcmp(routes[i].method, r->method) != 0 || !fits(routes[i].pattern, r->path, at))
            continue;
        take_ids(r, routes[i].pattern, at);
        return &routes[i];
    }
    return NULL;
}

bool route_known(const struct request *r)
{
    size_t at[REQUEST_IDS][2];
    for (size_t i = 0; i < ARRAY_LEN(routes); i++)
        if (fits(routes[i].pattern, r->path, at))
            return true;
    return false;
}
