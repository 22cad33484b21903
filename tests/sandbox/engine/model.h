/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the emulated engine knows: data centres, VMs, disks with their chains of volumes, snapshots,
 * attachments, and the locks upon them. Plain data and look-ups; behaviour lives with the resources
 * (vms.c, snapshots.c, ...).
 *
 * Threads: everything here is guarded by the one lock of the engine (engine.h). Objects are never
 * freed while the engine runs: what is removed from its list keeps `gone` set and waits in the
 * graveyard, so that a thread that slept without the lock may still look at it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <jansson.h>

#include "proto/base/id.h"
#include "tests/sandbox/block/block.h"
#include "tests/sandbox/engine/vec.h"

#define MODEL_BLANK_TEMPLATE_ID "00000000-0000-0000-0000-000000000000"

struct guest;

struct data_center {
    char id[ID_BYTES];
    char *name;
};

struct cluster {
    char id[ID_BYTES];
    char *name;
    struct data_center *dc;
};

struct host {
    char id[ID_BYTES];
    char *name, *address;
    struct cluster *cluster;
    bool down;
};

struct storage_domain {
    char id[ID_BYTES];
    char *name;
    char *storage_type; /* nfs, iscsi, ... decides file or block rules */
    bool is_export;     /* holds exported VMs, no disks */
    char *status;
    struct data_center *dc;
    uint64_t size_bytes;
};

struct network {
    char id[ID_BYTES];
    char *name;
    struct data_center *dc;
};

struct vnic_profile {
    char id[ID_BYTES];
    char *name;
    struct network *network;
};

struct tag {
    char id[ID_BYTES];
    char *name, *description;
    struct tag *parent; /* NULL for the root tag */
    bool gone;
};

enum disk_status { DISK_OK, DISK_LOCKED, DISK_ILLEGAL };

/* One volume of a disk's chain. `snapshot_id` names the snapshot entry that owns it; the active
 * volume belongs to the active entry. */
struct volume {
    char id[ID_BYTES];
    char snapshot_id[ID_BYTES];
    char *path;
    enum block_format format;
    bool illegal, locked;
};

struct disk {
    char id[ID_BYTES];
    char *alias, *description;
    uint64_t size_bytes;
    bool cow, sparse, shareable, lun, incremental, wipe_after_delete;
    enum disk_status status;
    bool busy; /* the exclusive lock of attaching, detaching and transfers */
    bool gone;
    struct storage_domain *sd; /* NULL for a LUN */
    VEC(struct volume) chain;  /* base first, active last */
    int64_t created_ms;
    unsigned fill_percent, shared_percent, hot_mib; /* what the guest makes of it */
};

struct attachment {
    struct disk *disk;
    char snapshot_id[ID_BYTES]; /* "" for the live disk */
    char volume_id[ID_BYTES];   /* of a snapshot's disk */
    char interface[16];
    char *logical_name; /* NULL while the guest agent has not reported it */
    char *device;       /* file in the proxy's device folder, NULL = none */
    int64_t plugged_ms; /* monotonic */
    bool active, bootable, read_only, pass_discard;
    bool plugged;      /* the block layer has it */
    bool plug_pending; /* a thread is about to plug it */
    bool on_host;      /* of a proxy: a device of its host, not a disk of the VM itself */
    bool gone;
};

struct nic {
    char id[ID_BYTES];
    char *name;
    char interface[20], mac[20];
    struct vnic_profile *profile; /* NULL = no network */
    bool linked, plugged;
};

enum snapshot_status { SNAPSHOT_OK, SNAPSHOT_LOCKED, SNAPSHOT_IN_PREVIEW };

struct snapshot {
    char id[ID_BYTES];
    char *description;
    int64_t date_ms;
    enum snapshot_status status;
    bool active; /* the "Active VM" entry */
    bool persist_memory;
    bool gone;
    char *ovf;                         /* configuration at that instant */
    json_t *nics;                      /* as the API shows them */
    json_t *vm;                        /* the configuration members of the VM */
    int64_t acked_before, acked_after; /* the guest's acknowledged records around the instant */
    bool quiesced;                     /* taken while the guest was frozen */
    bool references_pending;
    bool references_made; /* the judge's copies are complete */
    char *reference_error;
};

/* Of incremental backup: since when a bitmap records, on each of its disks. The bitmap has the
 * checkpoint's id as its name. */
struct checkpoint {
    char id[ID_BYTES];
    char parent_id[ID_BYTES]; /* "" for the oldest at the time */
    char *description;
    int64_t created_ms;
    bool invalid, removing;
    VEC(struct disk) disks;
};

enum backup_phase {
    BACKUP_INITIALIZING,
    BACKUP_STARTING,
    BACKUP_READY,
    BACKUP_FINALIZING,
    BACKUP_SUCCEEDED,
    BACKUP_FAILED,
};

struct backup_disk {
    struct disk *disk;
    bool incremental;
    uint64_t changed_bytes;   /* by the bitmap */
    char *uri;                /* while it is open */
    char volume_id[ID_BYTES]; /* of a hybrid one: the snapshot's */
};

struct backup {
    char id[ID_BYTES];
    struct vm *vm;
    char *description;
    char from_checkpoint[ID_BYTES], to_checkpoint[ID_BYTES]; /* "" = none */
    int64_t created_ms, modified_ms;
    enum backup_phase phase;
    bool require_consistency;
    bool quiesced;
    VEC(struct backup_disk) disks;
    /* Of a snapshot that the engine takes and merges itself ("hybrid"): */
    bool hybrid, stopped;
    char snapshot_id[ID_BYTES];        /* "" = none, or none any more */
    VEC(struct disk) held;             /* their exclusive locks are its own */
    struct block_vm *own;              /* of a VM that is down */
    int64_t acked_before, acked_after; /* the guest's acknowledged records around the instant */
    bool references_pending, references_made;
    char *reference_error;
};

enum vm_status {
    VM_DOWN,
    VM_UP,
    VM_POWERING_UP,
    VM_POWERING_DOWN,
    VM_WAIT_FOR_LAUNCH,
    VM_PAUSED,
    VM_MIGRATING,
    VM_SUSPENDED,
    VM_SAVING_STATE,
    VM_RESTORING_STATE,
    VM_IMAGE_LOCKED,
    VM_NOT_RESPONDING,
    VM_UNKNOWN,
};

/* Why the exclusive lock of a VM is held: it decides the text of the 409. */
enum vm_lock { VM_LOCK_FREE, VM_LOCK_SNAPSHOT_CREATE, VM_LOCK_SNAPSHOT_OTHER, VM_LOCK_OTHER };

enum guest_kind { GUEST_NONE, GUEST_WRITER, GUEST_LINUX };

struct vm {
    char id[ID_BYTES];
    char *name;
    json_t *config; /* members of VmBase as the API shows them, without name and references */
    struct cluster *cluster;
    struct host *host; /* where it runs, NULL while down */
    enum vm_status status;
    enum vm_lock lock;
    bool gone, is_proxy, stateless, delete_protected, frozen, agent;
    int64_t created_ms, started_ms, stopped_ms;
    VEC(struct attachment) attachments;
    VEC(struct nic) nics;
    VEC(struct snapshot) snapshots; /* the active entry is always there */
    VEC(struct tag) tags;
    VEC(struct checkpoint) checkpoints; /* the oldest first */
    /* The real thing behind it. */
    struct block_vm *block;   /* while it runs */
    unsigned block_users;     /* threads inside a short call of the block layer */
    struct block_host *proxy; /* a proxy's devices, while it runs */
    char *dev_dir;            /* of a proxy */
    bool loop_devices;        /* a proxy's devices are true block devices */
    enum guest_kind guest_kind;
    unsigned writer_rate; /* records a second */
    unsigned seed;
    struct guest *guest; /* the process that writes to its disks */
    bool guest_placed;   /* which disks it has, and how large, is settled */
};

struct job_step {
    char id[ID_BYTES];
    char *description;
    const char *status;
    int64_t start_ms, end_ms;
};

struct job {
    char id[ID_BYTES];
    char correlation_id[ID_BYTES];
    char *description;
    const char *status; /* started, finished, failed; static */
    int64_t start_ms, end_ms;
    struct job_step step;
};

struct event {
    uint64_t index;
    int code;
    const char *severity; /* static */
    char *description;
    char correlation_id[ID_BYTES];
    char vm_id[ID_BYTES]; /* "" = none */
    char *origin;
    int64_t custom_id;
    int64_t time_ms;
};

enum transfer_phase {
    TRANSFER_INITIALIZING,
    TRANSFER_TRANSFERRING,
    TRANSFER_RESUMING,
    TRANSFER_PAUSED_SYSTEM,
    TRANSFER_PAUSED_USER,
    TRANSFER_FINALIZING_SUCCESS,
    TRANSFER_FINALIZING_FAILURE,
    TRANSFER_FINALIZING_CLEANUP,
    TRANSFER_CANCELLED_USER,
    TRANSFER_CANCELLED_SYSTEM,
    TRANSFER_FINISHED_SUCCESS,
    TRANSFER_FINISHED_FAILURE,
    TRANSFER_FINISHED_CLEANUP,
};

struct transfer {
    char id[ID_BYTES];
    char ticket[ID_BYTES];
    struct disk *disk;
    char volume_id[ID_BYTES];
    bool upload, raw, of_snapshot;
    struct backup *backup; /* NULL = of none */
    bool placed;           /* ticket and export are there */
    bool active;           /* a client is connected */
    enum transfer_phase phase;
    int inactivity_s;
    const char *timeout_policy;       /* static */
    int64_t last_active_ms, ended_ms; /* monotonic */
    uint64_t transferred;             /* distinct bytes */
    uint64_t moved;                   /* all bytes */
    struct block_export *export;
    bool gone;
};

struct model {
    VEC(struct data_center) dcs;
    VEC(struct cluster) clusters;
    VEC(struct host) hosts;
    VEC(struct storage_domain) sds;
    VEC(struct network) networks;
    VEC(struct vnic_profile) profiles;
    VEC(struct tag) tags;
    VEC(struct vm) vms;
    VEC(struct disk) disks;
    VEC(struct job) jobs;
    VEC(struct event) events;
    VEC(struct transfer) transfers;
    VEC(struct backup) backups;
    uint64_t last_event;
    /* Removed, but perhaps still looked at. */
    VEC(struct vm) dead_vms;
    VEC(struct disk) dead_disks;
    VEC(struct snapshot) dead_snapshots;
    VEC(struct attachment) dead_attachments;
    VEC(struct volume) dead_volumes;
    VEC(struct nic) dead_nics;
    VEC(struct transfer) dead_transfers;
    VEC(struct backup) dead_backups;
    VEC(struct checkpoint) dead_checkpoints;
};

/* Frees all objects. Nothing may run any more. */
void model_done(struct model *m);

/* Look-ups: NULL when there is none. Borrowed. */
struct data_center *model_dc(const struct model *m, const char *id);
struct cluster *model_cluster(const struct model *m, const char *id_or_name);
struct host *model_host(const struct model *m, const char *id);
struct storage_domain *model_sd(const struct model *m, const char *id_or_name);
struct network *model_network(const struct model *m, const char *id_or_name);
struct vnic_profile *model_profile(const struct model *m, const char *id_or_name);
struct tag *model_tag(const struct model *m, const char *id_or_name);
struct vm *model_vm(const struct model *m, const char *id);
struct vm *model_vm_by_name(const struct model *m, const char *name);
struct disk *model_disk(const struct model *m, const char *id);
struct job *model_job(const struct model *m, const char *id);
struct transfer *model_transfer(const struct model *m, const char *id);
struct backup *model_backup(const struct model *m, const struct vm *vm, const char *id);
/* The one that holds the VM's disks now, or NULL. */
struct backup *model_backup_running(const struct model *m, const struct vm *vm);
struct checkpoint *vm_checkpoint(const struct vm *vm, const char *id);
bool checkpoint_has(const struct checkpoint *c, const struct disk *d);
struct snapshot *vm_snapshot(const struct vm *vm, const char *id);
struct snapshot *vm_active_snapshot(const struct vm *vm);
struct attachment *vm_attachment(const struct vm *vm, const char *disk_id);
struct nic *vm_nic(const struct vm *vm, const char *id);
/* The volume of a disk in a snapshot entry, by its own id, and the active one. */
struct volume *disk_volume_in(const struct disk *d, const char *snapshot_id);
struct volume *disk_volume(const struct disk *d, const char *volume_id);
struct volume *disk_active_volume(const struct disk *d);
/* The VM that holds the live disk (attachment without a snapshot), or NULL. */
struct vm *model_disk_owner(const struct model *m, const struct disk *d);
/* Does any VM other than `vm` hold a snapshot's disk of `vm`? Gives the holder. */
struct vm *model_snapshot_disk_holder(const struct model *m, const struct vm *vm);
/* Running in the sense of the block layer: daemon there, or on its way. */
bool vm_is_running(const struct vm *vm);
/* Is the disk part of snapshots: image, not shareable. */
bool disk_is_snapable(const struct disk *d);
/* The disk or one of its volumes is locked, e.g. by a transfer. */
bool disk_is_locked(const struct disk *d);

const char *vm_status_name(enum vm_status s);
/* false for an unknown word. */
bool vm_status_parse(const char *word, enum vm_status *ret);
const char *disk_status_name(enum disk_status s);
const char *snapshot_status_name(enum snapshot_status s);
const char *transfer_phase_name(enum transfer_phase p);
const char *backup_phase_name(enum backup_phase p);

void volume_free(struct volume *v);
void attachment_free(struct attachment *a);
void snapshot_free(struct snapshot *s);
void nic_free(struct nic *n);
