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
#include "worker/step/parts.h"
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
    size_t part;                   /* the number of the part that fills it; 0 = we do */
    uint64_t data_bytes;           /* of the point's disk; set where disks are shared */
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
    struct parts parts; /* that other workers fill */
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
/* A new disk of this kind reads as zeroes. */
bool restore_is_zero(const struct ovirt_storage_domain *domain, const char *format);
/* Disk number `index` with a new id; again, where the one before is gone. */
bool restore_make_disk(struct task_run *run, struct restore *r, size_t index, struct err *err);
bool step_make_disks(struct task_run *run, struct err *err);
bool undo_make_disks(struct task_run *run, struct err *err);
/* Give some disks to other workers. Unwanted unless that was asked for. Its undo waits for the end
 * of all parts, and takes what they have left attached off again. */
enum probe_answer probe_shared(struct task_run *run, struct err *err);
bool step_share_disks(struct task_run *run, struct err *err);
bool undo_share_disks(struct task_run *run, struct err *err);
/* Take these disks off whatever VM has them. They carry our mark, and are not the new VM's yet: a
 * worker has left them there. */
bool restore_take_off(struct task_run *run, const char *const *disks, size_t count,
                      struct err *err);
/* Disks of parts that have ended without being done (numbers in r->disks): they are ours again, and
 * open. */
bool restore_take_back(struct task_run *run, struct restore *r, const size_t *which, size_t count,
                       struct err *err);
/* Attach one disk, or open an upload to it. */
bool restore_open_disk(struct task_run *run, struct restore *r, struct restore_disk *d,
                       struct err *err);
/* Both only those that no part fills. */
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

/* --- A part of another worker's restore; the other steps are the same --------------------------
 */
void *restore_part_new(struct task_run *run, struct err *err);
bool step_clear_part(struct task_run *run, struct err *err);
bool step_plan_part(struct task_run *run, struct err *err);
