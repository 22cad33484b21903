/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the steps of a restore tell each other, and the steps themselves. A restore makes a new VM
 * and new disks, fills the disks through the proxy VM or by uploads, and puts them together. It
 * writes only to disks that it made itself; until the last step the VM carries our marker, and a
 * failure removes all.
 */
#pragma once

#include <jansson.h>

#include "proto/base/id.h"
#include "worker/ovirt/vm.h"
#include "worker/step/point_meta.h"
#include "worker/step/site.h"
#include "worker/step/step.h"
#include "worker/step/transfer.h"
#include "worker/store/store.h"

struct restore_disk {
    const struct point_disk *from; /* of restore.meta */
    char id[ID_BYTES];             /* of the new disk; chosen by us */
    const struct ovirt_storage_domain *domain;
    bool is_zero;                  /* a new disk of this kind reads as zeroes */
    uint64_t size_bytes;           /* as the engine made it, perhaps rounded up */
    char *device;                  /* by attach */
    struct disk_transfer transfer; /* by upload */
};

struct restore {
    const struct wire_restore_opts *opts;
    bool stands; /* an earlier attempt was through: only start the VM */
    struct site site;
    struct store_point *point;
    struct point_meta meta;
    json_t *vm_json; /* of the point */
    const struct ovirt_cluster *cluster;
    const char *datacenter_id; /* the cluster's */
    bool by_upload;            /* else the disks are attached to the proxy VM */
    char *name;                /* of the new VM */
    struct ovirt_storage_domains domains;
    struct restore_disk *disks;
    size_t disk_count;
};

void *restore_new(struct task_run *run, struct err *err);
void restore_free(void *state);
enum probe_answer probe_restored(struct task_run *run, struct err *err);

/* Of the steps of one path: unwanted when the restore takes the other one. */
enum probe_answer probe_by_attach(struct task_run *run, struct err *err);
enum probe_answer probe_by_upload(struct task_run *run, struct err *err);

bool step_clear_earlier(struct task_run *run, struct err *err);
bool step_plan(struct task_run *run, struct err *err);
/* Part of the plan: the site, the cluster, and by which path the disks are filled. */
bool restore_choose_place(struct task_run *run, struct restore *r, struct err *err);
bool step_make_vm(struct task_run *run, struct err *err);
bool undo_make_vm(struct task_run *run, struct err *err);
bool step_make_disks(struct task_run *run, struct err *err);
bool undo_make_disks(struct task_run *run, struct err *err);
bool step_attach_new(struct task_run *run, struct err *err);
/* Also the undo of attach. */
bool step_detach_new(struct task_run *run, struct err *err);
/* Open an upload for each disk, and end it well. */
bool step_open_new(struct task_run *run, struct err *err);
bool undo_open_new(struct task_run *run, struct err *err);
bool step_close_new(struct task_run *run, struct err *err);
bool step_write(struct task_run *run, struct err *err);
/* The disk as the engine made it has room for the restore point's; sets size_bytes. */
bool restore_check_size(struct task_run *run, struct restore_disk *d, struct err *err);
bool step_assemble(struct task_run *run, struct err *err);
bool undo_assemble(struct task_run *run, struct err *err);
bool step_finish(struct task_run *run, struct err *err);
/* Unwanted unless it was asked for. */
enum probe_answer probe_start(struct task_run *run, struct err *err);
bool step_start(struct task_run *run, struct err *err);
